package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"drover/backend"
	"drover/internal/sample"
)

// request is one of many: half of the prompts continue a common beginning.
// Prompts have up to 290 tokens, answers up to longest.
type request struct {
	prompt []int32
	max    int
	params sample.Params
	fresh  bool
	want   []int32
}

func requests(m *backend.Model, n, longest int, seed uint64) []request {
	r := rand.New(rand.NewPCG(seed, 77))
	ids := func(n int) []int32 {
		t := make([]int32, n)
		for i := range t {
			t[i] = int32(r.IntN(fakeVocab))
		}
		return t
	}
	stems := [][]int32{ids(140), ids(64), ids(129)}
	all := make([]request, n)
	for i := range all {
		q := request{prompt: ids(1 + r.IntN(150)), max: 1 + r.IntN(longest), params: sample.Greedy(), fresh: r.IntN(8) == 0}
		if r.IntN(2) == 0 {
			q.prompt = append(slices.Clone(stems[r.IntN(len(stems))]), q.prompt[:1+r.IntN(len(q.prompt))]...)
		}
		if r.IntN(2) == 0 {
			q.params = sample.Params{Seed: uint64(i), Temp: 1, TopK: 20, TopP: 0.9, Typical: 1, RepeatPenalty: 1.2, RepeatLastN: 16}
		}
		q.want = newOracle(m).text(q.prompt, q.max, q.params)
		all[i] = q
	}
	return all
}

func (q request) request() Request {
	return Request{Tokens: q.prompt, Max: q.max, Sampler: sample.New(q.params), Fresh: q.fresh}
}

// waitFor polls the engine's state.
func waitFor(e *Engine, state func() bool) {
	for ok := false; !ok; time.Sleep(50 * time.Microsecond) {
		e.mu.Lock()
		ok = state()
		e.mu.Unlock()
	}
}

// crowd holds the first forward pass until there are n sequences beside it.
func crowd(e **Engine, n int) func(context.Context) error {
	var once sync.Once
	return func(context.Context) error {
		once.Do(func() { waitFor(*e, func() bool { return len((*e).waiting)+len((*e).live) > n }) })
		return nil
	}
}

func TestHundredSequences(t *testing.T) {
	for _, c := range []struct {
		name      string
		layers    int
		window    int
		cuts      []int // where the model is cut into runs
		on        []int // the stage of each run
		longest   int
		o         Options
		preempted int // at least; -1: never
	}{
		{"plenty", 2, 0, nil, []int{0}, 50, Options{Context: 600, Sequences: 16, Batch: 256}, -1},
		{"scarce", 2, 0, nil, []int{0}, 250, Options{Context: 600, Sequences: 16, Batch: 64, Pages: 14}, 1},
		{"just one sequence's pages", 1, 0, nil, []int{0}, 250, Options{Context: 576, Sequences: 4, Batch: 100, Pages: 9}, 1},
		{"window", 2, 70, nil, []int{0}, 50, Options{Context: 600, Sequences: 16, Batch: 64}, -1},
		{"window, scarce", 2, 100, nil, []int{0}, 200, Options{Context: 600, Sequences: 12, Batch: 64, Pages: 10}, 0},
		{"two stages", 2, 0, []int{3}, []int{0, 1}, 100, Options{Context: 600, Sequences: 16, Batch: 128, Pages: 30}, 0},
		{"three stages inside layers", 2, 90, []int{2, 5}, []int{0, 1, 2}, 50, Options{Context: 600, Sequences: 8, Batch: 128}, -1},
		{"two stages, scarce", 2, 0, []int{3}, []int{0, 1}, 250, Options{Context: 600, Sequences: 16, Batch: 64, Pages: 14}, 1},
		{"two stages, just one sequence's pages", 1, 0, []int{2}, []int{0, 1}, 250, Options{Context: 576, Sequences: 4, Batch: 100, Pages: 9}, 1},
		{"three stages, window, scarce", 2, 100, []int{3, 5}, []int{0, 1, 2}, 200, Options{Context: 600, Sequences: 12, Batch: 64, Pages: 10}, 0},
		{"a stage that comes twice", 2, 0, []int{2, 4}, []int{0, 1, 0}, 250, Options{Context: 600, Sequences: 16, Batch: 64, Pages: 14}, 1},
		{"one stage of two runs", 2, 0, []int{2}, []int{0, 0}, 50, Options{Context: 600, Sequences: 8, Batch: 64}, -1},
		{"a batch of as many rows as sequences", 1, 0, nil, []int{0}, 50, Options{Context: 600, Sequences: 6, Batch: 1, Outs: 1}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := fakeModel(c.layers, c.window, 600)
			all := requests(m, 100, c.longest, 1)
			places, devices := split(m, c.cuts, c.on)
			var e *Engine
			devices[0].before = crowd(&e, 81)
			var err error
			e, err = Load(t.Context(), m, Fixed(m, places, c.o), nil)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i, q := range all {
				wg.Go(func() {
					var emitted []int32
					got, err := e.Generate(context.Background(), q.request(), func(id int32, _ string) error {
						emitted = append(emitted, id)
						return nil
					})
					if err != nil || !slices.Equal(got.Tokens, q.want) || !slices.Equal(emitted, q.want) || got.Stop != StopLength || got.ContextEnd {
						t.Errorf("request %d (%d tokens, reused %d): %v\n got %v\nwant %v", i, len(q.prompt), got.Reused, err, got.Tokens, q.want)
					}
				})
			}
			wg.Wait()
			stats := e.Stats()
			settle(t, e, devices...)
			if stats.Reused == 0 {
				t.Error("no prefix was reused")
			}
			if stats.Preempted < c.preempted || c.preempted < 0 && stats.Preempted > 0 {
				t.Errorf("%d sequences were put back", stats.Preempted)
			}
			if devices[0].most.Load() < 2 {
				t.Error("never more than one sequence in a batch")
			}
			t.Logf("seed 1: %+v", stats)
		})
	}
}

func TestClose(t *testing.T) {
	m := fakeModel(1, 0, 400)
	d := &fakeDevice{id: "fake"}
	e := open(t, m, d, Options{Context: 400, Sequences: 2})
	started := make(chan struct{})
	errs := make(chan error, 4)
	var once sync.Once
	for range 4 {
		go func() {
			_, err := e.Generate(context.Background(), Request{Tokens: []int32{1}, Max: -1, Sampler: nil}, func(int32, string) error {
				once.Do(func() { close(started) })
				return nil
			})
			errs <- err
		}()
	}
	<-started
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	for range 4 {
		if err := <-errs; err != nil && !errors.Is(err, errClosed) {
			t.Error(err)
		}
	}
	if _, err := e.Generate(context.Background(), Request{Tokens: []int32{1}}, nil); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// A device's error reaches whoever was in the pass; a lost device everybody.
func TestDeviceErrors(t *testing.T) {
	m := fakeModel(1, 0, 400)
	var fail error
	d := &fakeDevice{}
	d.before = func(context.Context) error { return fail }
	e := open(t, m, d, Options{Context: 400})
	ask := func() error {
		_, err := e.Generate(context.Background(), Request{Tokens: []int32{1, 2}, Max: 3}, nil)
		return err
	}
	fail = errTest
	if err := ask(); !errors.Is(err, errTest) {
		t.Errorf("got %v", err)
	}
	fail = context.Canceled // not by us: an error like any other
	if err := ask(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	fail = nil
	if err := ask(); err != nil {
		t.Errorf("after an error: %v", err)
	}
	fail = fmt.Errorf("xid 79: %w", backend.ErrLost)
	for range 2 {
		if err := ask(); !errors.Is(err, backend.ErrLost) {
			t.Errorf("got %v", err)
		}
		fail = nil
	}
}

// The prompt of an engine's only sequence is read in as few steps as the batch allows;
// where others may come it begins with a small one.
func TestPromptAlone(t *testing.T) {
	m := fakeModel(1, 0, 1000)
	for _, c := range []struct{ sequences, batch, steps int }{{1, 600, 1}, {1, 256, 3}, {2, 600, 3}} {
		e := open(t, m, &fakeDevice{}, Options{Context: 1000, Sequences: c.sequences, Batch: c.batch})
		if _, err := e.Generate(context.Background(), Request{Tokens: make([]int32, 600), Max: 1}, nil); err != nil {
			t.Fatal(err)
		}
		if n := e.Stats().Steps; n < c.steps || c.sequences == 1 && n > c.steps {
			t.Errorf("%d sequences, batches of %d rows: %d steps, want %d", c.sequences, c.batch, n, c.steps)
		}
	}
}
