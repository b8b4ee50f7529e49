package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/backend"
	"drover/internal/sample"
)

// In these tests time is virtual: a Forward takes what its device says, all else
// takes nothing.

// inTurn carries a model on several devices and is one to the engine: the way
// without overlap.
type inTurn struct {
	*fakeDevice
	places []Placement
}

func (d inTurn) Load(ctx context.Context, m *backend.Model, _ []backend.Range, l backend.Limits, _ func(done, total uint64)) (backend.Stage, error) {
	return loadTogether(ctx, m, &Plan{Places: d.places, Limits: l, Stages: make([]StagePlan, len(d.places))}, nil)
}

// together is a plan's stages as one.
type together struct {
	stages []backend.Stage
	runs   []run
	hidden []float32 // (Rows, dim), where there is more than one run
	dim    int
}

// loadTogether loads a plan's stages as one with one run, the whole model: a batch goes
// through one stage after the other.
func loadTogether(ctx context.Context, m *backend.Model, p *Plan, progress func(done, total uint64)) (backend.Stage, error) {
	runs, err := order(m, p.Places)
	if err != nil {
		return nil, err
	}
	stages, err := loadStages(ctx, m, p, progress)
	if err != nil {
		return nil, err
	}
	t := &together{stages: stages, runs: runs, dim: m.Config.Dim}
	if len(runs) > 1 {
		t.hidden = make([]float32, p.Limits.Rows*t.dim)
	}
	return t, nil
}

func (t *together) Forward(ctx context.Context, _ int, b *backend.Batch) error {
	if t.hidden != nil {
		b.Hidden = t.hidden[:len(b.Tokens)*t.dim]
		defer func() { b.Hidden = nil }()
	}
	for _, r := range t.runs {
		if err := t.stages[r.stage].Forward(ctx, r.index, b); err != nil {
			return err
		}
	}
	return nil
}

func (t *together) Close() error { return errors.Join(closeStages(t.stages)...) }

// gather runs requests at once and gives how long they took.
func gather(t *testing.T, e *Engine, all []request) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for i, q := range all {
		wg.Go(func() {
			got, err := e.Generate(context.Background(), q.request(), nil)
			if err != nil || !slices.Equal(got.Tokens, q.want) {
				t.Errorf("request %d: %v\n got %v\nwant %v", i, err, got.Tokens, q.want)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// All stages work at once, on sequences that decode and on one long prompt.
func TestPipeline(t *testing.T) {
	decode := func(m *backend.Model, sequences int) (all []request) {
		for i := range sequences {
			q := request{prompt: []int32{int32(i)}, max: 100, params: sample.Greedy()}
			q.want = newOracle(m).text(q.prompt, q.max, q.params)
			all = append(all, q)
		}
		return all
	}
	prompt := func(m *backend.Model, tokens int) []request {
		q := request{prompt: make([]int32, tokens), max: 1, params: sample.Greedy()}
		for i := range q.prompt {
			q.prompt[i] = int32(i * i % fakeVocab)
		}
		q.want = newOracle(m).text(q.prompt, q.max, q.params)
		return []request{q}
	}
	row := func(fixed, each time.Duration) func(int) time.Duration {
		return func(rows int) time.Duration { return fixed + time.Duration(rows)*each }
	}
	for _, c := range []struct {
		name   string
		cuts   []int
		on     []int
		ask    func(*backend.Model) []request
		cost   func(rows int) time.Duration // of each run
		busy   float64                      // at least, of the time, each stage
		faster float64                      // than without overlap, at least
	}{
		// Three ms a row and one for each pass: 26 ms for all four in turn, 14 ms overlapped.
		{"4 sequences", []int{3}, []int{0, 1}, func(m *backend.Model) []request { return decode(m, 4) }, row(time.Millisecond, 3*time.Millisecond), 0.98, 1.8},
		// three and two: stages wait for each other, 17 of 20 ms
		{"5 sequences", []int{3}, []int{0, 1}, func(m *backend.Model) []request { return decode(m, 5) }, row(time.Millisecond, 3*time.Millisecond), 0.84, 1.55},
		{"9 sequences, three stages", []int{2, 4}, []int{0, 1, 2}, func(m *backend.Model) []request { return decode(m, 9) }, row(time.Millisecond, 3*time.Millisecond), 0.97, 2.6},
		// A stage that comes twice bounds the pace: the other one works half of the time.
		{"a stage that comes twice", []int{2, 4}, []int{0, 1, 0}, func(m *backend.Model) []request { return decode(m, 4) }, row(time.Millisecond, 3*time.Millisecond), 0.48, 1.3},
		{"a prompt", []int{3}, []int{0, 1}, func(m *backend.Model) []request { return prompt(m, 2500) }, row(time.Millisecond, 50*time.Microsecond), 0.88, 1.65},
		{"a prompt of 600", []int{3}, []int{0, 1}, func(m *backend.Model) []request { return prompt(m, 600) }, row(time.Millisecond, 50*time.Microsecond), 0.65, 1.3},
		// One sequence has nothing to overlap with.
		{"alone", []int{3}, []int{0, 1}, func(m *backend.Model) []request { return decode(m, 1) }, row(time.Millisecond, 3*time.Millisecond), 0.5, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := fakeModel(2, 0, 2600)
				all := c.ask(m)
				o := Options{Context: 2600, Sequences: len(all)}
				load := func(places []Placement) *Engine {
					e, err := Load(t.Context(), m, Fixed(m, places, o), nil)
					if err != nil {
						t.Fatal(err)
					}
					return e
				}
				places, devices := split(m, c.cuts, c.on)
				for _, d := range devices {
					d.cost = c.cost
				}
				e := load(places)
				took := gather(t, e, all)
				stats := e.Stats()
				settle(t, e, devices...)
				for i, s := range stats.Stages {
					if share := s.Busy.Seconds() / took.Seconds(); share < c.busy || share > 1 {
						t.Errorf("stage %d works %.3f of the time, want at least %v", i, share, c.busy)
					}
				}
				if stats.Flying > took || stats.Flying < took*99/100 {
					t.Errorf("batches under way for %v of %v", stats.Flying, took)
				}
				own := &fakeDevice{id: "in turn"}
				alone := load(Whole(m, inTurn{own, places}))
				without := gather(t, alone, all)
				settle(t, alone, append(devices, own)...)
				if ratio := without.Seconds() / took.Seconds(); ratio < c.faster {
					t.Errorf("%v, and %v without overlap: %.2f times as fast, want %v", took, without, ratio, c.faster)
				}
				t.Logf("%v overlapped, %v in turn: %.2f; %+v", took, without, without.Seconds()/took.Seconds(), stats)
			})
		})
	}
}

// Whatever a Forward takes, in whatever order batches come through, with callers
// that go away and passes that fail: everybody else gets the text that it gives alone.
func TestPipelineAnyTiming(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 5))
				window := []int{0, 90}[seed%2]
				m := fakeModel(3, window, 600)
				all := requests(m, 40, 250, seed)
				faulty := seed >= 8
				cuts, on := []int{2, 5}, [][]int{{0, 1, 2}, {0, 1, 0}, {1, 0, 1}}[seed%3]
				places, devices := split(m, cuts, on)
				for i, d := range devices {
					r := rand.New(rand.NewPCG(seed, uint64(i)))
					d.cost = func(rows int) time.Duration { return time.Duration(1 + r.IntN(1+rows*1000)) }
					d.before = func(ctx context.Context) error {
						if faulty && r.IntN(400) == 0 {
							return errTest
						}
						return nil
					}
				}
				e, err := Load(t.Context(), m, Fixed(m, places, Options{Context: 600, Sequences: 7, Batch: 80, Pages: 10, Outs: 9}), nil)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i, q := range all {
					wait, life := time.Duration(r.IntN(1e6)), time.Duration(r.IntN(2e6))
					wg.Go(func() {
						time.Sleep(wait)
						ctx := context.Background()
						if i%3 == 0 {
							var cancel func()
							ctx, cancel = context.WithTimeout(ctx, life)
							defer cancel()
						}
						got, err := e.Generate(ctx, q.request(), nil)
						if err != nil && !(i%3 == 0 && errors.Is(err, context.DeadlineExceeded)) && !(faulty && errors.Is(err, errTest)) {
							t.Errorf("request %d: %v", i, err)
						}
						if n := len(got.Tokens); n > len(q.want) || err == nil && n != len(q.want) || !slices.Equal(got.Tokens, q.want[:n]) {
							t.Errorf("request %d: got %v, want %v", i, got.Tokens, q.want)
						}
					})
				}
				wg.Wait()
				stats := e.Stats()
				settle(t, e, devices...)
				if stats.Preempted == 0 && window == 0 && !faulty {
					t.Error("nobody was put back")
				}
				t.Logf("%+v", stats)
			})
		})
	}
}

// An error in one chunk of a prompt ends its sequence, although the next chunk is
// under way, and nothing of it is left.
func TestPipelineError(t *testing.T) {
	for stage := range 2 {
		synctest.Test(t, func(t *testing.T) {
			m := fakeModel(2, 0, 2600)
			places, devices := split(m, []int{3}, []int{0, 1})
			var e *Engine
			passes, beside := 0, 0
			for _, d := range devices {
				d.cost = func(rows int) time.Duration { return time.Duration(rows) * time.Microsecond }
			}
			devices[stage].before = func(context.Context) error {
				if passes++; passes != 4 {
					return nil
				}
				e.mu.Lock()
				beside = e.inAir()
				e.mu.Unlock()
				return errTest
			}
			var err error
			e, err = Load(t.Context(), m, Fixed(m, places, Options{Context: 2600}), nil)
			if err != nil {
				t.Fatal(err)
			}
			prompt := make([]int32, 2500)
			if _, err := e.Generate(t.Context(), Request{Tokens: prompt, Max: 2}, nil); !errors.Is(err, errTest) {
				t.Errorf("got %v", err)
			}
			if beside != 2 {
				t.Errorf("%d batches under way at the error", beside)
			}
			q := request{prompt: prompt, max: 20, params: sample.Greedy()}
			q.want = newOracle(m).text(q.prompt, q.max, q.params)
			gather(t, e, []request{q})
			settle(t, e, devices...)
		})
	}
}
