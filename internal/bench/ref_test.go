package bench

import (
	"encoding/json"
	"math"
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// random is a tensor's weights, the same for the same seed.
type random struct {
	t    *backend.Tensor
	seed uint64
}

func (r random) Rows(dst []byte, lo, hi int) error {
	all := make([]byte, r.t.Bytes())
	quant.Random(r.t.Type, all, r.seed, 0.05)
	row := r.t.Type.RowBytes(r.t.Cols)
	copy(dst, all[lo*row:hi*row])
	return nil
}
func (r random) Mapped() []byte { return nil }
func (r random) Drop(_, _ int)  {}

// The reference holds every batch to the contract, and a real device's rates
// make limits.
func TestOnReference(t *testing.T) {
	for _, window := range []int{0, 40} { // with one, pages are let go of that a later repeat wants again
		onReference(t, window)
	}
}

func onReference(t *testing.T, window int) {
	const seed = 7
	t.Logf("seed %d, window %d", seed, window)
	m := model()
	m.Config.Context, m.Config.NormEps, m.Config.Window = 256, 1e-5, window
	m.Config.Rope = backend.Rope{Base: 10000, Dims: 32, Factor: 1}
	vector := func() *backend.Tensor { return &backend.Tensor{Type: quant.F32, Rows: 1, Cols: 64} }
	m.Norm = vector()
	for i := range m.Layers {
		m.Layers[i].AttnNorm, m.Layers[i].FFNNorm = vector(), vector()
	}
	for i, w := range m.Tensors(backend.Range{Lo: 0, Hi: m.Config.Blocks()}) {
		w.Source = random{w, seed + uint64(i)}
	}
	var got []Record
	tests := Tests([]int{40}, []int{3}, []int{0, 70, 150}, []int{1, 2})
	o := Options{Batch: 32, Repeats: 2, Warmup: true, K: quant.F16, V: quant.F16}
	place(m, ref.New(), tests, &o)
	err := Run(t.Context(), Subject{Model: m, Filename: "random", TypeName: "Q4_0", Params: 1, Bytes: 1}, tests, o, func(r Record) error { got = append(got, r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(tests) {
		t.Fatalf("%d records of %d tests", len(got), len(tests))
	}
	for i, r := range got {
		if r.Prompt != tests[i].Prompt || r.Gen != tests[i].Gen || r.Depth != tests[i].Depth || len(r.SamplesTS) != 2 {
			t.Errorf("record %d: %+v, want of %s", i, r, tests[i].Name())
		}
		if r.LimitTS == nil || r.LimitShare == nil || math.Abs(*r.LimitShare**r.LimitTS-r.AvgTS) > 1e-6*r.AvgTS {
			t.Errorf("record %d: no limit, or a share that is not of it", i)
		}
		if r.CPUInfo != nil || r.GPUInfo != nil || r.Threads != nil || r.Joules != nil || r.Throttled != nil || r.Clocks != nil {
			t.Errorf("record %d tells what nobody told: %+v", i, r)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	}
}
