package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover/backend"
	"drover/internal/sample"
)

// plans gives one plan after the other, each on devices of its own, and counts.
type plans struct {
	places [][]Placement
	o      []Options
	fail   error // once they are used up
	asked  int
	whys   []error
}

func (p *plans) planner(m *backend.Model) Planner {
	return func(ctx context.Context, why error) (*Plan, error) {
		i := p.asked
		p.asked++
		p.whys = append(p.whys, why)
		if i >= len(p.places) {
			return nil, p.fail
		}
		return Fixed(m, p.places[i], p.o[min(i, len(p.o)-1)])(ctx, nil)
	}
}

// Devices are lost anywhere, once or twice: every text goes on, and nothing of it
// comes twice. Callers that go away meanwhile change nothing.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		name      string
		at        [2]int32 // the Forward in which the first or last stage is lost
		again     int32    // the same of the next plan's first stage
		sequences int
		window    int
		cancel    bool
	}{
		{"first stage, first chunk", [2]int32{1, 0}, 0, 1, 0, false},
		{"last stage, first chunk", [2]int32{0, 1}, 0, 1, 0, false},
		{"first stage, a later chunk", [2]int32{3, 0}, 0, 1, 0, false},
		{"last stage, a later chunk", [2]int32{0, 3}, 0, 1, 0, false},
		{"first stage, decode", [2]int32{40, 0}, 0, 1, 0, false},
		{"last stage, decode", [2]int32{0, 40}, 0, 1, 0, false},
		{"both at once", [2]int32{60, 60}, 0, 20, 0, false},
		{"many, first stage", [2]int32{90, 0}, 0, 30, 0, false},
		{"many, last stage", [2]int32{0, 200}, 0, 30, 90, false},
		{"many, cancelled", [2]int32{0, 150}, 0, 30, 0, true},
		{"twice", [2]int32{70, 0}, 150, 30, 0, false},
		{"twice, cancelled", [2]int32{0, 300}, 100, 30, 90, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := fakeModel(2, c.window, 600)
				all := requests(m, c.sequences, 150, 21)
				first, a := split(m, []int{3}, []int{0, 1})
				second, b := split(m, []int{2, 4}, []int{0, 1, 0})
				third, d := split(m, nil, []int{0})
				devices := slices.Concat(a, b, d)
				a[0].lostAt, a[1].lostAt, b[0].lostAt = c.at[0], c.at[1], c.again
				for i, d := range devices {
					r := rand.New(rand.NewPCG(3, uint64(i)))
					d.cost = func(rows int) time.Duration { return time.Duration(1 + r.IntN(1+rows*1000)) }
				}
				p := plans{places: [][]Placement{first, second, third}, o: []Options{{Context: 600, Sequences: 8, Batch: 90, Pages: 16}}}
				e, err := Load(t.Context(), m, p.planner(m), nil)
				if err != nil {
					t.Fatal(err)
				}
				var replanned atomic.Int32 // requests that saw it
				var wg sync.WaitGroup
				for i, q := range all {
					wg.Go(func() {
						ctx := context.Background()
						cancels := c.cancel && i%2 == 0
						if cancels {
							var cancel func()
							ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*50*time.Microsecond)
							defer cancel()
						}
						var emitted []int32
						text, stream := "", &letters{}
						r := q.request()
						r.Stream = stream
						got, err := e.Generate(ctx, r, func(id int32, s string) error {
							emitted, text = append(emitted, id), text+s
							return nil
						})
						if err != nil && !(cancels && errors.Is(err, context.DeadlineExceeded)) {
							t.Errorf("request %d: %v", i, err)
						}
						n := len(emitted)
						if n > len(q.want) || !slices.Equal(emitted, q.want[:n]) || err == nil && (n != len(q.want) || text != spell(q.want)) {
							t.Errorf("request %d: got %v %q\nwant %v %q", i, emitted, text, q.want, spell(q.want))
						}
						if got.Replanned > 0 {
							replanned.Add(1)
						}
					})
				}
				wg.Wait()
				stats := e.Stats()
				settle(t, e, devices...)
				want := 1
				if c.again > 0 {
					want = 2
				}
				if stats.Replanned != want || replanned.Load() == 0 && !c.cancel || p.asked != want+1 || !errors.Is(stats.Lost, backend.ErrLost) {
					t.Errorf("loaded again %d times, planned %d, %d requests saw it, the last loss %v; want %d", stats.Replanned, p.asked, replanned.Load(), stats.Lost, want)
				}
				var at *StageError
				if p.whys[0] != nil || !errors.As(p.whys[1], &at) || !strings.HasPrefix(at.Device, "fake:") {
					t.Errorf("the planner was told %v", p.whys)
				}
				t.Logf("%+v", stats)
			})
		})
	}
}

// What the cache knew is gone with its device.
func TestLostCache(t *testing.T) {
	m := fakeModel(1, 0, 600)
	a, b := &fakeDevice{id: "a"}, &fakeDevice{id: "b"}
	p := plans{places: [][]Placement{Whole(m, a), Whole(m, b)}, o: []Options{{Context: 600}}}
	e, err := Load(t.Context(), m, p.planner(m), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e, a, b)
	prompt := requests(m, 1, 50, 6)[0].prompt
	for len(prompt) < 200 {
		prompt = append(prompt, int32(len(prompt)%fakeVocab))
	}
	ask := func(reused, replanned int) {
		t.Helper()
		got, err := e.Generate(t.Context(), Request{Tokens: prompt, Max: 8}, nil)
		if want := newOracle(m).text(prompt, 8, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
			t.Fatalf("%v: got %v, want %v", err, got.Tokens, want)
		}
		if got.Reused > len(prompt) || got.Replanned != replanned || reused >= 0 && got.Reused != reused {
			t.Errorf("reused %d, want %d; begun again %d times, want %d", got.Reused, reused, got.Replanned, replanned)
		}
	}
	ask(0, 0)
	whole := len(prompt) / backend.PageRows * backend.PageRows
	if len(prompt)%backend.PageRows == 0 {
		whole -= backend.PageRows
	}
	ask(whole, 0)
	a.lostAt = a.passes.Load() + 1
	ask(whole, 1) // found first, and lost then
	ask(whole, 0)
	if b.passes.Load() < 8 {
		t.Error("the other device did nothing")
	}
}

// Scored rows are handed out once each, whatever is lost between.
func TestLostScore(t *testing.T) {
	m := fakeModel(2, 0, 600)
	first, a := split(m, []int{3}, []int{0, 1})
	second, b := split(m, nil, []int{0})
	a[1].lostAt = 5
	p := plans{places: [][]Placement{first, second}, o: []Options{{Context: 600, Batch: 40, Outs: 9}, {Context: 600, Batch: 64, Outs: 21}}}
	e, err := Load(t.Context(), m, p.planner(m), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e, append(a, b...)...)
	or, next := newOracle(m), 0
	tokens := make([]int32, 300)
	for i := range tokens {
		tokens[i] = int32(i * i % 59)
	}
	err = e.Logits(t.Context(), tokens, true, func(pos int, logits []float32) error {
		if want := or.push(tokens[pos]); pos != next || !slices.Equal(logits, want) {
			t.Errorf("position %d, want %d, or other logits", pos, next)
		}
		next++
		return nil
	})
	if err != nil || next != len(tokens) || e.Stats().Replanned != 1 {
		t.Errorf("%v after %d, %+v", err, next, e.Stats())
	}
}

// Where there is no other way everybody gets the error, and the memory is free.
func TestLostForGood(t *testing.T) {
	short := &backend.MemoryError{Device: "b", Need: 10, Free: 5}
	for _, c := range []struct {
		name  string
		fail  error  // of the planner
		load  error  // of the next plan's device
		again int32  // the Forward in which that is lost
		kind  error  // besides ErrLost
		says  string // and what is said
	}{
		{"no plan", errTest, nil, 0, errTest, "without it: planted"},
		{"no memory", short, nil, 0, backend.ErrMemory, "needs"},
		{"no memory at load", nil, short, 0, backend.ErrMemory, "load on b"},
		{"lost at load", nil, backend.ErrLost, 0, backend.ErrLost, "load on b"},
		{"lost before a text went on", nil, nil, 2, backend.ErrLost, "before any text went on: b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := fakeModel(2, 0, 600)
				first, devices := split(m, []int{3}, []int{0, 1})
				b := &fakeDevice{id: "b", failure: c.load, lostAt: c.again}
				devices[0].lostAt = 30
				for _, d := range append(devices, b) {
					d.cost = func(rows int) time.Duration { return time.Duration(rows) * time.Microsecond }
				}
				p := plans{places: [][]Placement{first, Whole(m, b)}, fail: errors.New("asked too often"), o: []Options{{Context: 600, Sequences: 2}}}
				if c.fail != nil {
					p.places, p.fail = p.places[:1], c.fail
				}
				e, err := Load(t.Context(), m, p.planner(m), nil)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i := range 5 {
					wg.Go(func() {
						prompt := slices.Repeat([]int32{int32(i)}, 300)
						got, err := e.Generate(t.Context(), Request{Tokens: prompt, Max: 250}, nil)
						if !errors.Is(err, backend.ErrLost) || !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), "blocks") {
							t.Errorf("request %d: %v", i, err)
						}
						if want := newOracle(m).text(prompt, 250, sample.Greedy()); !slices.Equal(got.Tokens, want[:len(got.Tokens)]) {
							t.Errorf("request %d: got %v, want %v", i, got.Tokens, want)
						}
					})
				}
				wg.Wait()
				for _, d := range append(devices, b) {
					if n := d.open.Load(); n != 0 {
						t.Errorf("%s has %d stages before Close", d.id, n)
					}
				}
				if _, err := e.Generate(t.Context(), Request{Tokens: []int32{1}, Max: 1}, nil); !errors.Is(err, backend.ErrLost) {
					t.Errorf("afterwards: %v", err)
				}
				if p.asked != 2 {
					t.Errorf("planned %d times", p.asked)
				}
				settle(t, e, append(devices, b)...)
			})
		})
	}
}

// Close while a lost device is being planned around, or while the rest loads.
func TestLostClose(t *testing.T) {
	for _, planning := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := fakeModel(1, 0, 600)
			a, b := &fakeDevice{id: "a", lostAt: 5}, &fakeDevice{id: "b"}
			asked := 0
			planner := func(ctx context.Context, why error) (*Plan, error) {
				if asked++; asked == 1 {
					return Fixed(m, Whole(m, a), Options{Context: 600})(context.Background(), nil)
				}
				if planning {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				time.Sleep(time.Second) // it does not look at ctx
				return Fixed(m, Whole(m, b), Options{Context: 600})(context.Background(), nil)
			}
			e, err := Load(t.Context(), m, planner, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			for range 2 {
				go func() {
					_, err := e.Generate(context.Background(), Request{Tokens: []int32{1, 2}, Max: 100}, nil)
					done <- err
				}()
			}
			synctest.Wait()
			if asked != 2 {
				t.Errorf("planned %d times", asked)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // a caller that comes and goes meanwhile
			if _, err := e.Generate(ctx, Request{Tokens: []int32{1}}, nil); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			settle(t, e, a, b)
			for range 2 {
				if err := <-done; !errors.Is(err, errClosed) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// What is left holds less: longer sequences end with both reasons, the others find
// the end of the shorter context.
func TestLostShorter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := fakeModel(1, 0, 600)
		a, b := &fakeDevice{id: "a"}, &fakeDevice{id: "b"}
		p := plans{places: [][]Placement{Whole(m, a), Whole(m, b)}, o: []Options{{Context: 600, Sequences: 2}, {Context: 256, Sequences: 2}}}
		a.lostAt = 30
		for _, d := range []*fakeDevice{a, b} {
			d.cost = func(int) time.Duration { return time.Microsecond }
		}
		e, err := Load(t.Context(), m, p.planner(m), nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, n := range []int{50, 300, 400} {
			wg.Go(func() {
				prompt := slices.Repeat([]int32{int32(n % 50)}, n)
				got, err := e.Generate(t.Context(), Request{Tokens: prompt, Max: -1}, nil)
				if n < 256 {
					if want := newOracle(m).text(prompt, 257-n, sample.Greedy()); err != nil || !got.ContextEnd || !slices.Equal(got.Tokens, want) {
						t.Errorf("%v: %+v, want %v", err, got, want)
					}
					return
				}
				var long *ContextError
				if !errors.As(err, &long) || !errors.Is(err, backend.ErrLost) || long.Context != 256 || long.Tokens < n {
					t.Errorf("%d tokens: %v", n, err)
				}
			})
		}
		wg.Wait()
		if e.Context() != 256 || e.Plan().Limits.Context != 256 {
			t.Errorf("the context is %d", e.Context())
		}
		if _, err := e.Generate(t.Context(), Request{Tokens: make([]int32, 257)}, nil); !errors.As(err, new(*ContextError)) {
			t.Errorf("257 tokens afterwards: %v", err)
		}
		settle(t, e, a, b)
	})
}
