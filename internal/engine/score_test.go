package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/backend"
	"drover/internal/sample"
)

func TestLogits(t *testing.T) {
	m := fakeModel(2, 0, 400)
	for _, o := range []Options{{Context: 400}, {Context: 400, Batch: 7, Outs: 3}, {Context: 400, Sequences: 3, Batch: 50, Outs: 5, Pages: 24}} {
		var e *Engine
		e = open(t, m, &fakeDevice{before: crowd(&e, 3)}, o)
		tokens := requests(m, 1, 50, 9)[0].prompt
		for len(tokens) < 130 {
			tokens = append(tokens, 3)
		}
		var want [][]float32
		or := newOracle(m)
		for _, id := range tokens {
			want = append(want, or.push(id))
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for _, all := range []bool{true, false, true} {
					next := 0
					if !all {
						next = len(tokens) - 1
					}
					err := e.Logits(context.Background(), tokens, all, func(pos int, logits []float32) error {
						if pos != next || !slices.Equal(logits, want[pos]) {
							t.Errorf("%+v: position %d, want %d, or other logits", o, pos, next)
						}
						if next++; next%50 == 1 {
							time.Sleep(time.Millisecond) // the loop must wait with the next rows
						}
						return nil
					})
					if err != nil || next != len(tokens) {
						t.Errorf("%+v: %v after %d of %d", o, err, next, len(tokens))
					}
				}
			})
		}
		wg.Wait()
		n := 0
		err := e.Logits(context.Background(), tokens, true, func(int, []float32) error {
			if n++; n == 5 {
				return errTest
			}
			return nil
		})
		if !errors.Is(err, errTest) || n != 5 {
			t.Errorf("error from each: %v after %d", err, n)
		}
	}
}

// While a caller reads rows the next ones are computed, on two stages at once, and
// no more than a few.
func TestLogitsPipelined(t *testing.T) {
	for _, callers := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			m := fakeModel(2, 0, 400)
			places, devices := split(m, []int{3}, []int{0, 1})
			for _, d := range devices {
				d.cost = func(rows int) time.Duration { return time.Duration(rows) * time.Microsecond }
			}
			e, err := Load(t.Context(), m, Fixed(m, places, Options{Context: 400, Sequences: 3, Batch: 60, Outs: 20}), nil)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					or, next := newOracle(m), 0
					tokens := slices.Repeat([]int32{int32(i), 7}, 150)
					err := e.Logits(context.Background(), tokens, true, func(pos int, logits []float32) error {
						if want := or.push(tokens[pos]); pos != next || !slices.Equal(logits, want) {
							t.Errorf("position %d, want %d, or other logits", pos, next)
						}
						next++
						time.Sleep(100 * time.Nanosecond)
						return nil
					})
					if err != nil || next != len(tokens) {
						t.Errorf("%v after %d", err, next)
					}
				})
			}
			wg.Wait()
			took, stats := time.Since(began), e.Stats()
			for i, s := range stats.Stages {
				if share := s.Busy.Seconds() / took.Seconds(); share < 0.9 {
					t.Errorf("%d callers: stage %d works %.2f of the time", callers, i, share)
				}
			}
			settle(t, e, devices...)
		})
	}
}

// A caller that takes its time is not run ahead of.
func TestLogitsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fakeModel(2, 0, 400)
		places, devices := split(m, []int{3}, []int{0, 1})
		e, err := Load(t.Context(), m, Fixed(m, places, Options{Context: 400, Outs: 20}), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = e.Logits(t.Context(), make([]int32, 300), true, func(pos int, _ []float32) error {
			synctest.Wait() // all that is sent for is there
			if ahead := e.Stats().Rows - pos; ahead > 20*(1+2*2) {
				t.Fatalf("%d rows ahead of the caller", ahead)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		settle(t, e, devices...)
	})
}

// A text that is scored is put back in the middle by one that generates, and
// goes on where it was.
func TestLogitsPreempted(t *testing.T) {
	m := fakeModel(1, 0, 384)
	var e *Engine
	e = open(t, m, &fakeDevice{before: crowd(&e, 1)}, Options{Context: 384, Sequences: 2, Outs: 2, Pages: 6})
	tokens := requests(m, 1, 50, 14)[0].prompt
	for len(tokens) < 230 {
		tokens = append(tokens, int32(len(tokens)%7))
	}
	tokens = tokens[:230]
	done := make(chan error)
	go func() {
		got, err := e.Generate(context.Background(), Request{Tokens: []int32{9}, Max: 380}, nil)
		if want := newOracle(m).text([]int32{9}, 380, sample.Greedy()); err == nil && !slices.Equal(got.Tokens, want) {
			err = fmt.Errorf("got %v, want %v", got.Tokens, want)
		}
		done <- err
	}()
	waitFor(e, func() bool { return e.inAir() > 0 })
	or, next := newOracle(m), 0
	err := e.Logits(context.Background(), tokens, true, func(pos int, logits []float32) error {
		if want := or.push(tokens[pos]); pos != next || !slices.Equal(logits, want) {
			t.Errorf("position %d, want %d, or other logits", pos, next)
		}
		next++
		return nil
	})
	if err != nil || next != 230 {
		t.Errorf("%v after %d", err, next)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if e.Stats().Preempted == 0 {
		t.Error("nobody was put back")
	}
}

func TestPerplexity(t *testing.T) {
	m := fakeModel(1, 0, 400)
	e := open(t, m, &fakeDevice{}, Options{Context: 128, Batch: 24, Outs: 5})
	text := make([]int32, 3*32+17)
	for i := range text {
		text[i] = int32(i*i%fakeVocab + i%3)
	}
	for _, bos := range []int32{-1, 2} {
		sum, n := 0.0, 0
		for c := range 3 {
			or := newOracle(m)
			for i := range 31 {
				id := text[c*32+i]
				if i == 0 && bos >= 0 {
					id = bos
				}
				logits := or.push(id)
				if i >= 16 {
					z := 0.0
					for _, l := range logits {
						z += math.Exp(float64(l))
					}
					sum += math.Log(z) - float64(logits[text[c*32+i+1]])
					n++
				}
			}
		}
		calls := 0
		got, err := e.Perplexity(context.Background(), text, 32, bos, func(so Perplexity, chunks int) {
			if calls++; so.Chunks != calls || chunks != 3 {
				t.Errorf("progress %d of %d in call %d", so.Chunks, chunks, calls)
			}
		})
		if err != nil || got.Chunks != 3 || got.Tokens != n || n != 45 || math.Abs(got.NLL-sum/float64(n)) > 1e-6 || math.Abs(got.Perplexity-math.Exp(got.NLL)) > 1e-9 {
			t.Errorf("bos %d: %+v %v, want %v over %d", bos, got, err, sum/float64(n), n)
		}
	}
	for _, c := range []struct {
		tokens, context int
		want            string
	}{{63, 32, "63 tokens, perplexity with a context of 32 needs at least 64"}, {500, 129, "129 tokens do not fit the context of 128"}, {500, 2, "at least 4"}} {
		_, err := e.Perplexity(context.Background(), make([]int32, c.tokens), c.context, -1, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := e.Perplexity(context.Background(), append(make([]int32, 63), fakeVocab), 32, -1, nil); err == nil {
		t.Error("a token outside the vocabulary passed")
	}
}

// A model that gives no numbers is an error, not a text.
func TestNoFiniteLogit(t *testing.T) {
	m := fakeModel(1, 0, 64)
	d := &fakeDevice{id: "fake"}
	e, err := Load(context.Background(), m, Fixed(m, []Placement{{nanDevice{d}, []backend.Range{{Lo: 0, Hi: 4}}}}, Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e, d)
	if _, err := e.Generate(context.Background(), Request{Tokens: []int32{1}, Max: 3}, nil); err == nil || !strings.Contains(err.Error(), "no finite logit") {
		t.Errorf("got %v", err)
	}
	if _, err := e.Perplexity(context.Background(), make([]int32, 64), 32, -1, nil); err == nil || !strings.Contains(err.Error(), "not a number") {
		t.Errorf("got %v", err)
	}
}

type nanDevice struct{ *fakeDevice }

type nanStage struct{ backend.Stage }

func (d nanDevice) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	s, err := d.fakeDevice.Load(ctx, m, runs, l, progress)
	return nanStage{s}, err
}

func (s nanStage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	err := s.Stage.Forward(ctx, run, b)
	for i := range b.Logits {
		b.Logits[i] = float32(math.NaN())
	}
	return err
}
