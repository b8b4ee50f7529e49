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
		cuts      []int // where the model is cut into stages
		longest   int
		o         Options
		preempted int // at least; -1: never
	}{
		{"plenty", 2, 0, nil, 50, Options{Context: 600, Sequences: 16, Batch: 256}, -1},
		{"scarce", 2, 0, nil, 250, Options{Context: 600, Sequences: 16, Batch: 64, Pages: 14}, 1},
		{"just one sequence's pages", 1, 0, nil, 250, Options{Context: 576, Sequences: 4, Batch: 100, Pages: 9}, 1},
		{"window", 2, 70, nil, 50, Options{Context: 600, Sequences: 16, Batch: 64}, -1},
		{"window, scarce", 2, 100, nil, 200, Options{Context: 600, Sequences: 12, Batch: 64, Pages: 10}, 0},
		{"two stages", 2, 0, []int{3}, 100, Options{Context: 600, Sequences: 16, Batch: 128, Pages: 30}, 0},
		{"three stages inside layers", 2, 90, []int{2, 5}, 50, Options{Context: 600, Sequences: 8, Batch: 128}, -1},
		{"a batch of as many rows as sequences", 1, 0, nil, 50, Options{Context: 600, Sequences: 6, Batch: 1, Outs: 1}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := fakeModel(c.layers, c.window, 600)
			all := requests(m, 100, c.longest, 1)
			var places []Placement
			var devices []*fakeDevice
			lo := 0
			for i, hi := range append(slices.Clone(c.cuts), m.Config.Blocks()) {
				d := &fakeDevice{id: fmt.Sprint("fake:", i)}
				devices = append(devices, d)
				places = append(places, Placement{d, []backend.Range{{Lo: lo, Hi: hi}}})
				lo = hi
			}
			var e *Engine
			devices[0].before = crowd(&e, 81)
			var err error
			e, err = Load(t.Context(), m, places, c.o, nil)
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

// Callers that go away at any moment disturb nobody and leave nothing.
func TestCancelAnywhere(t *testing.T) {
	m := fakeModel(2, 0, 400)
	all := requests(m, 60, 50, 2)
	d := &fakeDevice{}
	e := open(t, m, d, Options{Context: 400, Sequences: 8, Batch: 64, Pages: 24})
	r := rand.New(rand.NewPCG(2, 2))
	var wg sync.WaitGroup
	for i, q := range all {
		after, how := r.IntN(q.max+1), i%4
		wait := time.Duration(r.IntN(20000)) * time.Microsecond
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if how == 1 {
				stop := time.AfterFunc(wait, cancel)
				defer stop.Stop()
			}
			n := 0
			got, err := e.Generate(ctx, q.request(), func(id int32, _ string) error {
				n++
				switch {
				case how == 2 && n > after:
					cancel()
				case how == 3 && n > after:
					return errTest
				}
				return nil
			})
			if how == 0 && err != nil || err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errTest) {
				t.Errorf("request %d: %v", i, err)
			}
			if len(got.Tokens) > len(q.want) || !slices.Equal(got.Tokens, q.want[:len(got.Tokens)]) || err == nil && len(got.Tokens) != len(q.want) {
				t.Errorf("request %d, way %d: got %v, want %v", i, how, got.Tokens, q.want)
			}
		})
	}
	wg.Wait()
}

// A forward pass that nobody waits for any more is cut short, and what it had
// written is written again.
func TestCancelTheOnlySequence(t *testing.T) {
	m := fakeModel(2, 0, 400)
	q := requests(m, 1, 50, 3)[0]
	entered := make(chan struct{}, 1)
	hang := make(chan bool, 1)
	hang <- true
	d := &fakeDevice{before: func(ctx context.Context) error {
		select {
		case <-hang:
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		default:
			return nil
		}
	}}
	e := open(t, m, d, Options{Context: 400})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := e.Generate(ctx, q.request(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	got, err := e.Generate(context.Background(), q.request(), nil)
	if err != nil || !slices.Equal(got.Tokens, q.want) {
		t.Errorf("after cancellation: %v, got %v, want %v", err, got.Tokens, q.want)
	}
}

// While one of two sequences is still wanted, cancelling the other does not
// cost the running pass.
func TestCancelOneOfTwo(t *testing.T) {
	m := fakeModel(1, 0, 400)
	q := requests(m, 2, 50, 4)
	third, go3 := make(chan struct{}), make(chan struct{})
	entered, gate := make(chan struct{}), make(chan struct{})
	passes, met := 0, false
	d := &fakeDevice{}
	d.before = func(ctx context.Context) error {
		if passes++; passes == 3 {
			close(third)
			<-go3
		}
		if d.most.Load() == 2 && !met {
			met = true
			close(entered)
			<-gate
		}
		return ctx.Err()
	}
	e := open(t, m, d, Options{Context: 400, Sequences: 2})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone, kept := make(chan error), make(chan error)
	pushed := new(counter)
	go func() {
		_, err := e.Generate(ctx, Request{Tokens: q[1].prompt, Max: -1, Stream: pushed}, nil)
		gone <- err
	}()
	<-third
	go func() {
		got, err := e.Generate(context.Background(), q[0].request(), nil)
		if err == nil && !slices.Equal(got.Tokens, q[0].want) {
			err = fmt.Errorf("got %v, want %v", got.Tokens, q[0].want)
		}
		kept <- err
	}()
	waitFor(e, func() bool { return len(e.waiting) == 1 })
	close(go3)
	<-entered
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) { // it returns although the pass it is in still runs
		t.Errorf("the cancelled one: %v", err)
	}
	before := *pushed
	close(gate)
	if err := <-kept; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if got := e.Stats().Steps; got != passes {
		t.Errorf("%d of %d passes counted: one was lost", got, passes)
	}
	if *pushed != before {
		t.Error("the cancelled one was given a token after Generate had returned")
	}
}

// counter is a Stream that counts.
type counter int

func (c *counter) Push(int32) string { *c++; return "" }
func (c *counter) Flush() string     { return "" }

// A caller that does not read its tokens keeps nobody waiting.
func TestSlowCaller(t *testing.T) {
	m := fakeModel(1, 0, 400)
	q := requests(m, 2, 50, 5)
	e := open(t, m, &fakeDevice{}, Options{Context: 400, Sequences: 2})
	blocked, gate, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		first := true
		got, err := e.Generate(context.Background(), q[0].request(), func(int32, string) error {
			if first {
				first = false
				close(blocked)
				<-gate
			}
			return nil
		})
		if err == nil && !slices.Equal(got.Tokens, q[0].want) {
			err = fmt.Errorf("got %v, want %v", got.Tokens, q[0].want)
		}
		done <- err
	}()
	<-blocked
	got, err := e.Generate(context.Background(), q[1].request(), nil)
	if err != nil || !slices.Equal(got.Tokens, q[1].want) {
		t.Errorf("beside a slow caller: %v, got %v, want %v", err, got.Tokens, q[1].want)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReuse(t *testing.T) {
	m := fakeModel(2, 0, 400)
	d := &fakeDevice{}
	e := open(t, m, d, Options{Context: 400})
	prompt := requests(m, 1, 50, 6)[0].prompt
	for len(prompt) < 200 {
		prompt = append(prompt, int32(len(prompt)%fakeVocab))
	}
	prompt = prompt[:200]
	ask := func(tokens []int32, fresh bool) Result {
		t.Helper()
		got, err := e.Generate(context.Background(), Request{Tokens: tokens, Max: 8, Fresh: fresh}, nil)
		if want := newOracle(m).text(tokens, 8, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
			t.Fatalf("%v: got %v, want %v", err, got.Tokens, want)
		}
		return got
	}
	first := ask(prompt, false)
	if first.Reused != 0 {
		t.Errorf("nothing was there, reused %d", first.Reused)
	}
	if got := ask(prompt, false).Reused; got != 192 {
		t.Errorf("the same again: reused %d, want 192", got)
	}
	if got := ask(prompt, true).Reused; got != 0 {
		t.Errorf("fresh: reused %d", got)
	}
	if got := ask(prompt[:192], false).Reused; got != 128 {
		t.Errorf("of 192 tokens the last must be computed: reused %d, want 128", got)
	}
	other := slices.Clone(prompt)
	other[70]++
	other[70] %= fakeVocab
	if got := ask(other, false).Reused; got != 64 {
		t.Errorf("another second page: reused %d, want 64", got)
	}
	// a conversation goes on: prompt, answer, more
	longer := append(append(slices.Clone(prompt), first.Tokens...), make([]int32, 100)...)
	if got := ask(longer, false).Reused; got != 192 {
		t.Errorf("conversation: reused %d, want 192", got)
	}
	// the same tokens after another beginning, or elsewhere, are other pages
	one, two := prompt[:64], prompt[64:128]
	ask(slices.Concat(two, two, one), false)
	if got := ask(slices.Concat(two, one, two), false).Reused; got != 64 {
		t.Errorf("known pages in another order: reused %d, want 64", got)
	}
	if got := ask(slices.Concat(one, one, two), false).Reused; got != 64 {
		t.Errorf("known pages in another order: reused %d, want 64", got)
	}
}

// With a window a sequence holds only the pages that it still sees.
func TestWindowRelease(t *testing.T) {
	m := fakeModel(1, 80, 1000)
	e := open(t, m, &fakeDevice{}, Options{Context: 1000, Pages: 4, Batch: 32})
	if e.Context() != 1000 {
		t.Fatalf("context %d", e.Context())
	}
	prompt := requests(m, 1, 50, 8)[0].prompt
	max := 900 - len(prompt)
	got, err := e.Generate(context.Background(), Request{Tokens: prompt, Max: max}, nil)
	if want := newOracle(m).text(prompt, max, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
		t.Errorf("%v: got %v, want %v", err, got.Tokens, want)
	}
}

// All pages of a small cache are the beginning of a prompt: those behind the
// window make room for the rest.
func TestWindowReuse(t *testing.T) {
	m := fakeModel(1, 80, 1000)
	e := open(t, m, &fakeDevice{}, Options{Context: 1000, Pages: 4})
	prompt := make([]int32, 266)
	for i := range prompt {
		prompt[i] = int32(i * 7 % fakeVocab)
	}
	for _, c := range []struct{ tokens, reused int }{{256, 0}, {266, 256}} {
		got, err := e.Generate(context.Background(), Request{Tokens: prompt[:c.tokens], Max: 1}, nil)
		if want := newOracle(m).text(prompt[:c.tokens], 1, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) || got.Reused != c.reused {
			t.Errorf("%d tokens: %v, got %v, want %v; reused %d, want %d", c.tokens, err, got.Tokens, want, got.Reused, c.reused)
		}
	}
}

// Sequences wait until there are pages for their prompts; nobody is put back.
func TestAdmission(t *testing.T) {
	m := fakeModel(1, 0, 400)
	var e *Engine
	d := &fakeDevice{before: crowd(&e, 5)}
	e = open(t, m, d, Options{Context: 400, Sequences: 6, Pages: 10})
	var wg sync.WaitGroup
	for i := range 6 {
		prompt := slices.Repeat([]int32{int32(i)}, 250) // 4 pages
		wg.Go(func() {
			got, err := e.Generate(context.Background(), Request{Tokens: prompt, Max: 4}, nil)
			if want := newOracle(m).text(prompt, 4, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
				t.Errorf("%v: got %v, want %v", err, got.Tokens, want)
			}
		})
	}
	wg.Wait()
	if n := e.Stats().Preempted; n != 0 || d.most.Load() != 2 {
		t.Errorf("%d sequences put back; %d at once, want 2", n, d.most.Load())
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
