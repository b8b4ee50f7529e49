package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"drover/backend"
	"drover/internal/demo"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/sample"
)

// halves places a model on two CPU devices of one thread each, cut before block cut.
func halves(tb testing.TB, m *backend.Model, cut int) []engine.Placement {
	tb.Helper()
	var places []engine.Placement
	for _, r := range []backend.Range{{Lo: 0, Hi: cut}, {Lo: cut, Hi: m.Config.Blocks()}} {
		devices, err := device.Find("cpu", device.Options{Threads: 1})
		if err != nil {
			tb.Fatal(err)
		}
		places = append(places, engine.Placement{Device: devices[0], Runs: []backend.Range{r}})
	}
	return places
}

// TestConcurrentHalves runs 100 sequences, greedy and seeded, with too few pages
// for all of them through two halves of the processor: every text is the one that
// it gives alone on the whole model.
func TestConcurrentHalves(t *testing.T) {
	file, err := model.OpenBytes(demo.Name, demo.File())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	m := file.Model
	load := func(places []engine.Placement, o engine.Options) *engine.Engine {
		o.Context, o.K, o.V = 512, quant.F16, quant.F16
		e, err := engine.Load(context.Background(), m, engine.Fixed(m, places, o), nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	one := halves(t, m, 1)[0]
	one.Runs = []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}
	alone := load([]engine.Placement{one}, engine.Options{})
	defer alone.Close()
	together := load(halves(t, m, m.Config.Blocks()/2), engine.Options{Sequences: 16, Pages: 16, Batch: 128})
	defer together.Close()

	const sequences = 100
	requests := crowd(3, sequences, 100, 400, func(r *rand.Rand) int { return 60 + r.IntN(120) })
	run := func(e *engine.Engine, i int) []int32 {
		p := sample.Defaults()
		if p.Seed = uint64(i); i%2 == 0 {
			p = sample.Greedy()
		}
		req := requests[i]
		req.Sampler = sample.New(p)
		result, err := e.Generate(context.Background(), req, nil)
		if err != nil {
			t.Errorf("sequence %d: %v", i, err)
		}
		return result.Tokens
	}
	got := make([][]int32, sequences)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = run(together, i) })
	}
	wg.Wait()
	for i := range got {
		if want := run(alone, i); !slices.Equal(got[i], want) {
			t.Errorf("sequence %d: %v among others, %v alone", i, got[i], want)
		}
	}
	if stats := together.Stats(); stats.Preempted == 0 || stats.Stages[0].Busy == 0 || stats.Stages[1].Busy == 0 {
		t.Errorf("nobody was put back, or a half had nothing to do: %+v", stats)
	}
}

// inTurn lets only one of several stages work at a time.
type inTurn struct {
	backend.Device
	turn *sync.Mutex
}

type inTurnStage struct {
	backend.Stage
	turn *sync.Mutex
}

func (d inTurn) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	s, err := d.Device.Load(ctx, m, runs, l, progress)
	return inTurnStage{s, d.turn}, err
}

func (s inTurnStage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.Stage.Forward(ctx, run, b)
}

// oneByOne is two halves that look like one device: one batch passes through both
// before the next one starts.
type oneByOne struct {
	backend.Device
	places []engine.Placement
}

type oneByOneStage struct {
	halves []backend.Stage
	hidden []float32
	dim    int
}

func (d oneByOne) Load(ctx context.Context, m *backend.Model, _ []backend.Range, l backend.Limits, _ func(done, total uint64)) (backend.Stage, error) {
	s := &oneByOneStage{hidden: make([]float32, l.Rows*m.Config.Dim), dim: m.Config.Dim}
	for _, p := range d.places {
		half, err := p.Device.Load(ctx, m, p.Runs, l, nil)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.halves = append(s.halves, half)
	}
	return s, nil
}

func (s *oneByOneStage) Forward(ctx context.Context, _ int, b *backend.Batch) error {
	b.Hidden = s.hidden[:len(b.Tokens)*s.dim]
	for _, half := range s.halves {
		if err := half.Forward(ctx, 0, b); err != nil {
			return err
		}
	}
	return nil
}

func (s *oneByOneStage) Close() (err error) {
	for _, half := range s.halves {
		err = errors.Join(err, half.Close())
	}
	return err
}

// BenchmarkPipeline decodes four sequences, also after prompts of 512, and reads a prompt, on two halves of
// the processor, a thread each: how much of the time each half works, and how many
// times as fast that is as the same batches one at a time, and as one batch of all
// sequences without overlap. The three ways alternate; the figures are medians.
func BenchmarkPipeline(b *testing.B) {
	if runtime.GOMAXPROCS(0) < 2 {
		b.Skip("two processors are needed")
	}
	// Weights of 200 MB come from memory, whose bandwidth the halves share; those of
	// 12 MB stay in the processor's cache.
	large := shape{"dim=1024,layers=29,heads=16,kv=8,ffn=2816,vocab=9000", 1 + 2*15}
	small := shape{"dim=512,layers=9,heads=8,kv=4,ffn=1024,vocab=3500", 1 + 2*5}
	for _, c := range []struct {
		name              string
		shape             shape
		format            string
		sequences, prompt int
	}{
		{"decode/Q4_0/small", small, "Q4_0", 4, 8},
		{"decode/Q4_0/large", large, "Q4_0", 4, 8},
		{"decode/Q8_0/large", large, "Q8_0", 4, 8},
		{"texts/Q4_0/large", large, "Q4_0", 4, 512},
		{"prompt/Q4_0/large", large, "Q4_0", 1, 2048},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkPipeline(b, c.shape, c.format, c.sequences, c.prompt) })
	}
}

// shape is a synthetic model and the block before which it is cut: the head takes
// as long as a layer or less.
type shape struct {
	spec string
	cut  int
}

func benchmarkPipeline(b *testing.B, of shape, format string, sequences, prompt int) {
	file, err := model.Open("synthetic:" + of.spec + ":" + format)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	m, cut := file.Model, of.cut
	load := func(places []engine.Placement) *engine.Engine {
		e, err := engine.Load(context.Background(), m, engine.Fixed(m, places, engine.Options{Context: prompt + 128, Sequences: sequences, K: quant.F16, V: quant.F16}), nil)
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	turn := new(sync.Mutex)
	apart := halves(b, m, cut)
	for i := range apart {
		apart[i].Device = inTurn{apart[i].Device, turn}
	}
	one := halves(b, m, cut)
	engines := []*engine.Engine{
		load(halves(b, m, cut)), load(apart),
		load([]engine.Placement{{Device: oneByOne{one[0].Device, one}, Runs: []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}}}),
	}
	for _, e := range engines {
		defer e.Close()
	}
	work := func(e *engine.Engine) (seconds float64, busy [2]float64) {
		before := e.Stats()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range sequences {
			wg.Go(func() {
				r := engine.Request{Tokens: make([]int32, prompt), Max: 1, Fresh: true}
				r.Tokens[0] = int32(i)
				if sequences > 1 {
					r.Max = 100
				}
				if _, err := e.Generate(context.Background(), r, nil); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		seconds = time.Since(began).Seconds()
		after := e.Stats()
		for i := range min(2, len(after.Stages)) {
			busy[i] = (after.Stages[i].Busy - before.Stages[i].Busy).Seconds() / seconds
		}
		return seconds, busy
	}
	for _, e := range engines {
		work(e) // warm
	}
	var same, all, first, last, took []float64
	for b.Loop() {
		overlapped, busy := work(engines[0])
		apart, _ := work(engines[1])
		together, _ := work(engines[2])
		same, all = append(same, apart/overlapped), append(all, together/overlapped)
		first, last, took = append(first, busy[0]), append(last, busy[1]), append(took, overlapped)
	}
	b.ReportMetric(100*median(first), "%busy-first")
	b.ReportMetric(100*median(last), "%busy-last")
	b.ReportMetric(median(same), "x-in-turn")
	b.ReportMetric(median(all), "x-one-batch")
	b.ReportMetric(median(took)*1000, "ms")
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
