package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"drover/backend"
	"drover/internal/sample"
)

// idle is a device that takes no time, so that what is left is the engine's.
type idle struct{ *fakeDevice }

type idleStage struct{ backend.Stage }

func (d idle) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	s, err := d.fakeDevice.Load(ctx, m, runs, l, progress)
	return idleStage{s}, err
}

func (idleStage) Forward(_ context.Context, _ int, b *backend.Batch) error {
	clear(b.Logits)
	for i := range b.Out {
		b.Logits[i*fakeVocab+int(b.Tokens[b.Out[i]]+1)%26] = 5
	}
	return nil
}

// An engine's decode step allocates nothing; what is counted is the growth of
// the results.
func TestDecodeAllocations(t *testing.T) {
	for stages := 1; stages <= 3; stages++ {
		const n, sequences = 8_000, 2
		e, devices := idleEngine(t, stages, n+64, sequences)
		var wg sync.WaitGroup
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range sequences {
			r := Request{Tokens: []int32{1}, Max: n, Stream: &letters{}, Stop: []string{"never@"}, Sampler: sample.New(sample.Params{Temp: 0.1, TopK: 40, TopP: 0.95, MinP: 0.05, Typical: 1, RepeatPenalty: 1.01, RepeatLastN: 20})}
			wg.Go(func() {
				if _, err := e.Generate(context.Background(), r, func(int32, string) error { return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		runtime.ReadMemStats(&after)
		t.Logf("%d stages: %d allocations in %d tokens", stages, after.Mallocs-before.Mallocs, n*sequences)
		// held-back text joined to what follows it, and the growth of the results
		if per := float64(after.Mallocs-before.Mallocs) / (n * sequences); per > 0.2 {
			t.Errorf("%d stages: %.3f allocations a token", stages, per)
		}
		settle(t, e, devices...)
	}
}

// idleEngine is a model on idle stages.
func idleEngine(tb testing.TB, stages, context, sequences int) (*Engine, []*fakeDevice) {
	tb.Helper()
	m := fakeModel(2, 0, context)
	places, devices := split(m, []int{2, 4}[:stages-1], []int{0, 1, 2})
	for i := range places {
		places[i].Device = idle{devices[i]}
	}
	e, err := Load(tb.Context(), m, Fixed(m, places, Options{Sequences: sequences}), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return e, devices
}

// What the engine adds to a token: scheduling, sampling, handing out; with two
// stages also the changes of goroutine.
func BenchmarkDecode(b *testing.B) {
	for stages := 1; stages <= 2; stages++ {
		b.Run(fmt.Sprint("stages=", stages), func(b *testing.B) {
			e, devices := idleEngine(b, stages, 1<<16, 1)
			defer settle(b, e, devices...)
			b.ReportAllocs()
			for left := b.N; left > 0; {
				n := min(left, 1<<15)
				if _, err := e.Generate(context.Background(), Request{Tokens: []int32{1}, Max: n}, func(int32, string) error { return nil }); err != nil {
					b.Fatal(err)
				}
				left -= n
			}
		})
	}
}
