package engine

import (
	"context"
	"runtime"
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
	const n = 20_000
	m := fakeModel(1, 0, n+64)
	d := &fakeDevice{id: "fake"}
	e, err := Load(context.Background(), m, Fixed(m, Whole(m, idle{d}), Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e, d)
	r := Request{Tokens: []int32{1}, Max: n, Stream: &letters{}, Stop: []string{"never@"}, Sampler: sample.New(sample.Params{Temp: 0.1, TopK: 40, TopP: 0.95, MinP: 0.05, Typical: 1, RepeatPenalty: 1.01, RepeatLastN: 20})}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = e.Generate(context.Background(), r, func(int32, string) error { return nil })
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d allocations in %d tokens", after.Mallocs-before.Mallocs, n)
	// held-back text joined to what follows it, and the growth of the results
	if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.2 {
		t.Errorf("%.3f allocations a token", per)
	}
}

// What the engine adds to a token: scheduling, sampling, handing out.
func BenchmarkDecode(b *testing.B) {
	m := fakeModel(1, 0, 1<<16)
	d := &fakeDevice{id: "fake"}
	e, err := Load(context.Background(), m, Fixed(m, Whole(m, idle{d}), Options{}), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer settle(b, e, d)
	b.ReportAllocs()
	for left := b.N; left > 0; {
		n := min(left, 1<<15)
		if _, err := e.Generate(context.Background(), Request{Tokens: []int32{1}, Max: n}, func(int32, string) error { return nil }); err != nil {
			b.Fatal(err)
		}
		left -= n
	}
}
