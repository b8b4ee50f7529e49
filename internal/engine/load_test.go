package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// halves places a model of two layers on two devices, one of them with two runs.
func halves() (m *backend.Model, a, b *fakeDevice, places []Placement) {
	a, b = &fakeDevice{id: "fake:0"}, &fakeDevice{id: "fake:1"}
	return fakeModel(2, 0, 64), a, b, []Placement{{b, []backend.Range{{Lo: 3, Hi: 5}}}, {a, []backend.Range{{Lo: 0, Hi: 3}, {Lo: 5, Hi: 6}}}}
}

// All stages or none; progress never goes back.
func TestLoadStages(t *testing.T) {
	m, a, b, places := halves()
	b.failure = errTest
	if _, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil); !errors.Is(err, errTest) || !strings.Contains(err.Error(), "fake:1") {
		t.Errorf("got %v", err)
	}
	a.failure = errTest
	if _, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil); !errors.Is(err, errTest) || a.open.Load() != 0 || b.open.Load() != 0 {
		t.Errorf("%v, %d and %d stages left open", err, a.open.Load(), b.open.Load())
	}
	var last uint64
	e, err := Load(context.Background(), m, Fixed(m, places, Options{}), func(done, total uint64) {
		if done < last || done > total || total != 2000 {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != 2000 {
		t.Fatal(err, last)
	}
	defer settle(t, e, a, b)
	q := requests(m, 1, 50, 12)[0]
	q.prompt = q.prompt[:min(len(q.prompt), 10)]
	want := newOracle(m).text(q.prompt, 20, q.params)
	q.max = 20
	if got, err := e.Generate(context.Background(), q.request(), nil); err != nil || !slices.Equal(got.Tokens, want) {
		t.Errorf("two stages, one with two runs: %v, got %v, want %v", err, got.Tokens, want)
	}
	for _, runs := range [][]backend.Range{nil, {{Lo: 0, Hi: 5}}, {{Lo: 1, Hi: 6}}, {{Lo: 0, Hi: 3}, {Lo: 2, Hi: 6}}, {{Lo: 0, Hi: 6}, {Lo: 6, Hi: 6}}, {{Lo: 0, Hi: 9}}} {
		if _, err := Load(context.Background(), m, Fixed(m, []Placement{{a, runs}}, Options{}), nil); err == nil {
			t.Errorf("runs %v passed", runs)
		}
	}
	for _, o := range []Options{{Context: -1}, {Batch: -1}, {K: quant.Q4_0}, {V: quant.BF16}, {Sequences: -2}} {
		if _, err := Load(context.Background(), m, Fixed(m, Whole(m, a), o), nil); err == nil {
			t.Errorf("%+v passed", o)
		}
	}
}

// Stages load at once: each of two waits for the other to begin.
func TestLoadAtOnce(t *testing.T) {
	m, a, b, places := halves()
	var begun sync.WaitGroup
	begun.Add(2)
	meet := func(context.Context) error {
		begun.Done()
		begun.Wait()
		return nil
	}
	a.loading, b.loading = meet, meet
	e, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	settle(t, e, a, b)
}

// The first error cancels the others, and it is the one that is told.
func TestLoadCancels(t *testing.T) {
	m, a, b, places := halves()
	a.loading = func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	b.loading = func(context.Context) error { return errTest }
	_, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil)
	if !errors.Is(err, errTest) || errors.Is(err, context.Canceled) || a.open.Load()+b.open.Load() != 0 {
		t.Errorf("%v, %d and %d stages left open", err, a.open.Load(), b.open.Load())
	}
	// the caller's own wish is not an error of a device
	ctx, cancel := context.WithCancel(context.Background())
	b.loading = func(context.Context) error {
		cancel()
		return nil
	}
	if _, err := Load(ctx, m, Fixed(m, places, Options{}), nil); !errors.Is(err, context.Canceled) || a.open.Load()+b.open.Load() != 0 {
		t.Errorf("cancelled: %v, %d and %d stages left open", err, a.open.Load(), b.open.Load())
	}
}

// A load that failed for want of memory or of a device is planned once more, with
// the cause, and no other is.
func TestLoadAgain(t *testing.T) {
	memory := &backend.MemoryError{Device: "fake:1", Need: 10, Free: 5}
	lost := fmt.Errorf("fake:1: xid 79: %w", backend.ErrLost)
	for _, c := range []struct {
		name  string
		fails []error // of each load
		plans int
		want  error // nil: the last load went well
	}{
		{"well", []error{nil}, 1, nil},
		{"memory", []error{memory, nil}, 2, nil},
		{"lost", []error{lost, nil}, 2, nil},
		{"memory twice", []error{memory, memory}, 2, backend.ErrMemory},
		{"memory, then lost", []error{memory, lost}, 2, backend.ErrLost},
		{"another error", []error{errTest}, 1, errTest},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, a, b, places := halves()
			loads := 0
			b.loading = func(context.Context) error {
				loads++
				return c.fails[loads-1]
			}
			var whys []error
			e, err := Load(context.Background(), m, func(ctx context.Context, why error) (*Plan, error) {
				if n := a.open.Load() + b.open.Load(); n != 0 {
					t.Errorf("%d stages open while planning", n)
				}
				whys = append(whys, why)
				return Fixed(m, places, Options{})(ctx, nil)
			}, nil)
			if len(whys) != c.plans || whys[0] != nil || len(whys) > 1 && !errors.Is(whys[1], c.fails[0]) {
				t.Errorf("planned for %v", whys)
			}
			if c.want == nil && err == nil {
				settle(t, e, a, b)
				return
			}
			if c.want == nil || !errors.Is(err, c.want) || a.open.Load()+b.open.Load() != 0 {
				t.Errorf("got %v, want %v; %d and %d stages left open", err, c.want, a.open.Load(), b.open.Load())
			}
		})
	}
	// what the planner says of a second plan is the answer
	m, _, b, places := halves()
	b.failure = memory
	_, err := Load(context.Background(), m, func(ctx context.Context, why error) (*Plan, error) {
		if why != nil {
			return nil, fmt.Errorf("nothing else: %w", why)
		}
		return Fixed(m, places, Options{})(ctx, nil)
	}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "nothing else: load on fake:1") || !errors.Is(err, backend.ErrMemory) {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	m := fakeModel(2, 0, 64*100)
	for _, c := range []struct {
		o    Options
		want backend.Limits
	}{
		{Options{}, backend.Limits{Pages: 16, Rows: 1000 + 24, Seqs: 1, Context: 1000, Outs: 1000 + 24}},
		{Options{Sequences: 3, Batch: 7, Outs: 1}, backend.Limits{Pages: 48, Rows: 7, Seqs: 3, Context: 1000, Outs: 3}},
		{Options{Pages: 4, Batch: 100}, backend.Limits{Pages: 4, Rows: 100, Seqs: 1, Context: 256, Outs: 100}}, // fewer pages than a context
	} {
		if got := c.o.Limits(&m.Config, 1000); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.o, got, c.want)
		}
	}
}
