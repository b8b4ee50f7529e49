package sched

import (
	"math"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// Where a layer of n weights takes a + n/b, every size on that line is met, inside the
// timed ones and beyond; below, no layer costs less than its share of the smallest.
func TestLayerTimes(t *testing.T) {
	line := func(n float64) float64 { return 2e-6 + n/4e12 }
	times := []backend.LayerTime{{Weights: 1e7, Decode: line(1e7), Prompt: 9 * line(1e7)}, {Weights: 1e8, Decode: line(1e8), Prompt: 9 * line(1e8)}, {Weights: 1e9, Decode: line(1e9), Prompt: 9 * line(1e9)}}
	for _, n := range []float64{1e7, 3e7, 1e8, 7e8, 1e9, 5e9} {
		if got := atSize(times, n); math.Abs(got.Decode/line(n)-1) > 1e-12 || math.Abs(got.Prompt/line(n)/9-1) > 1e-12 {
			t.Errorf("%g weights: %+v, want %g", n, got, line(n))
		}
	}
	if got := slope(times); math.Abs(got.Decode*4e12-1) > 1e-12 {
		t.Errorf("slope %+v", got)
	}
	steep := []backend.LayerTime{{Weights: 2e7, Decode: 1e-5, Prompt: 1e-4}, {Weights: 4e7, Decode: 5e-5, Prompt: 5e-4}}
	if got := atSize(steep, 1e7); got.Decode != 5e-6 || got.Prompt != 5e-5 {
		t.Errorf("below the smallest: %+v", got)
	}
	if got := atSize(steep[:1], 4e7); got.Decode != 2e-5 {
		t.Errorf("with one size: %+v", got)
	}
	falling := []backend.LayerTime{{Weights: 2e7, Decode: 5e-5, Prompt: 5e-4}, {Weights: 4e7, Decode: 4e-5, Prompt: 4e-4}}
	if got := slope(falling); math.Abs(got.Decode-1e-12) > 1e-24 {
		t.Errorf("slope of times that fall: %+v", got)
	}
}

// A model whose layers were timed is predicted by those times; another format's are of
// no use to it.
func TestTimedModel(t *testing.T) {
	m := open(t, "llama-7b:Q4_0")
	const layer, head, seconds = 4*4096*4096 + 3*4096*11008, 32000 * 4096, 2e-3
	place := func(format quant.Type) *Plan {
		devices := roomy()[2:]
		devices[0].Rates.Layers = map[quant.Type][]backend.LayerTime{format: {{Weights: layer, Decode: seconds, Prompt: 100 * seconds}}}
		p, err := Place(devices, m, Limits{Context: 1024, Least: 1024, At: limitsAt(&m.Config)}, Wishes{GPULayers: -1, Request: Request{Prompt: 256, Generate: 2}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const cache = 32 * 258 * 32 * 128 * 2 * 2 / 5e10 // 256 + 2/2 positions and the token's own
	p := place(quant.Q4_0)
	if got, want := 1/float64(p.Predicted), 32*seconds+head*seconds/layer+cache+4e-6; math.Abs(got-want) > 1e-9*want {
		t.Errorf("a token in %v s, want %v", got, want)
	}
	if got, want := 256/float64(p.Prompt), 32*100*seconds/2+head*seconds/layer+4e-6; math.Abs(got-want) > 1e-9*want {
		t.Errorf("half of 512 rows in %v s, want %v", got, want)
	}
	if got, want := float64(place(quant.Q8_0).Predicted), float64(p.Predicted); got < want/2 || math.Abs(got-want) < 1e-3*want {
		t.Errorf("predicted %v tokens/s by another format's times, %v by its own", got, want)
	}
}
