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

// A layer of experts takes what one like it took, of which attention has its part as in a
// dense layer; experts of another shape are of no use to it.
func TestTimedMixture(t *testing.T) {
	m := open(t, "dim=4096,layers=8,heads=32,kv=8,ffn=8192,vocab=1000,experts=4,used=2:Q4_0")
	const attention, experts, head = 2*4096*4096 + 2*4096*1024, 2 * 3 * 4096 * 8192, 1000 * 4096
	const dense, seconds = 1e-3, 5e-3 // of layers of the same weights for a row
	place := func(used int) *Plan {
		devices := roomy()[2:]
		devices[0].Rates.Layers = map[quant.Type][]backend.LayerTime{quant.Q4_0: {{Weights: attention + experts, Decode: dense, Prompt: 100 * dense}}}
		devices[0].Rates.Mixtures = []backend.MixtureTime{{Mixture: backend.Mixture{Format: quant.Q4_0, Dim: 4096, FFN: 8192, Experts: 4, Used: used},
			LayerTime: backend.LayerTime{Weights: attention + experts, Decode: seconds, Prompt: 100 * seconds}}}
		p, err := Place(devices, m, Limits{Context: 1024, Least: 1024, At: limitsAt(&m.Config)}, Wishes{GPULayers: -1, Request: Request{Prompt: 256, Generate: 2}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const cache = 8 * 258 * 8 * 128 * 2 * 2 / 5e10 // 256 + 2/2 positions and the token's own
	p := place(2)
	if got, want := 1/float64(p.Predicted), 8*seconds+head*dense/(attention+experts)+cache+4e-6; math.Abs(got-want) > 1e-9*want {
		t.Errorf("a token in %v s, want %v", got, want)
	}
	if got, want := 256/float64(p.Prompt), 8*100*seconds/2+head*dense/(attention+experts)+4e-6; math.Abs(got-want) > 1e-9*want {
		t.Errorf("half of 512 rows in %v s, want %v", got, want)
	}
	if got, want := float64(place(1).Predicted), float64(p.Predicted); got < 2*want {
		t.Errorf("predicted %v tokens/s by experts of another shape, %v by its own", got, want)
	}
}

// Experts take no less than their part of the layer, whatever noise there is.
func TestRest(t *testing.T) {
	for _, c := range []struct{ mixture, dense, want float64 }{{5, 1, 4.75}, {1, 1, 0.75}, {0.5, 1, 0.375}, {1, 8, 0.75}} {
		got := rest(&backend.LayerTime{Weights: 8, Decode: c.mixture, Prompt: 2 * c.mixture}, &backend.LayerTime{Decode: c.dense, Prompt: 2 * c.dense}, 0.25)
		if got != (backend.LayerTime{Weights: 6, Decode: c.want, Prompt: 2 * c.want}) {
			t.Errorf("%v of experts, %v dense: %+v", c.mixture, c.dense, got)
		}
	}
}
