package sched

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// roomy is two cards and a CPU that hold everything; the second card is slower.
func roomy() []Device {
	device := func(id, kind string, read float64) Device {
		f := &fake{packed: 1, granule: 1, keepsTable: kind == "cpu"}
		d := Device{Info: backend.Info{ID: id, Kind: kind, Total: 1 << 40, Free: 1 << 40}, Need: f.need,
			Rates: backend.Rates{Read: read, Matrix: 100 * read, Launch: 1e-6, Link: 1e10}}
		if kind == "cpu" {
			d.Rates.Link = 0
		}
		return d
	}
	return []Device{device("cuda:0", "cuda", 1e12), device("cuda:1", "cuda", 3e11), device("cpu", "cpu", 5e10)}
}

func lies(p *Plan) string {
	var parts []string
	for i := range p.Stages {
		parts = append(parts, p.Stages[i].Device+": "+p.Stages[i].What)
	}
	return strings.Join(parts, "; ")
}

// Every wish decides what it is about, and nothing else.
func TestWishes(t *testing.T) {
	dense, mixture := open(t, "dim=4096,layers=8,heads=32,ffn=8192,vocab=1000"), open(t, "dim=4096,layers=8,heads=32,ffn=8192,vocab=1000,experts=4")
	for _, c := range []struct {
		name string
		m    *backend.Model
		w    Wishes
		want string // what lies where, or the error
	}{
		{"none", dense, Wishes{GPULayers: -1}, "cuda:0: embed, layers 0-7, head"},
		{"strict", dense, Wishes{GPULayers: -1, Strict: true}, "cuda:0: embed, layers 0-7, head"},
		{"no layer on a GPU", dense, Wishes{GPULayers: 0}, "cpu: embed, layers 0-7, head"},
		{"3 layers on GPUs", dense, Wishes{GPULayers: 3}, "cpu: embed, layers 0-4; cuda:0: layers 5-7, head"},
		{"all layers on GPUs", dense, Wishes{GPULayers: 9}, "cuda:0: embed, layers 0-7, head"},
		{"a split", dense, Wishes{GPULayers: -1, Split: []float64{3, 1, 0}}, "cuda:0: embed, layers 0-5; cuda:1: layers 6-7, head"},
		{"a split with the CPU last", dense, Wishes{GPULayers: -1, Split: []float64{0, 1, 1}}, "cuda:1: embed, layers 0-3; cpu: layers 4-7, head"},
		{"experts on the CPU", mixture, Wishes{GPULayers: -1, ExpertsOnCPU: 2}, "cuda:0: embed, attention 0-1, layers 2-7, head; cpu: experts 0-1"},
		{"all experts on the CPU", mixture, Wishes{GPULayers: -1, ExpertsOnCPU: 99}, "cuda:0: embed, attention 0-7, head; cpu: experts 0-7"},
		{"experts of none", dense, Wishes{GPULayers: -1, ExpertsOnCPU: 2}, "no experts"},
		{"experts and strict", mixture, Wishes{GPULayers: -1, ExpertsOnCPU: 2, Strict: true}, "may not be used"},
		{"layers and strict", dense, Wishes{GPULayers: 3, Strict: true}, "no CPU for the others"},
		{"a split and layers", dense, Wishes{GPULayers: 3, Split: []float64{1, 1, 1}}, "leaves nothing"},
		{"a short split", dense, Wishes{GPULayers: -1, Split: []float64{1, 1}}, "2 shares for 3 devices"},
		{"an empty split", dense, Wishes{GPULayers: -1, Split: []float64{0, 0, 0}}, "must be above 0"},
		{"a split to the CPU and strict", dense, Wishes{GPULayers: -1, Split: []float64{1, 0, 1}, Strict: true}, "where nothing may lie"},
		{"a share that is none", dense, Wishes{GPULayers: -1, Split: []float64{1, math.NaN(), 1}}, "a share of NaN"},
	} {
		p, err := Place(roomy(), c.m, Limits{Context: 1024, Least: 1024, At: limitsAt(&c.m.Config)}, c.w)
		if err != nil {
			if text, wish := IsWish(err); !wish || !errors.Is(err, ErrWish) || !strings.Contains(text, c.want) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if lies(p) != c.want {
			t.Errorf("%s: got %s; want %s", c.name, lies(p), c.want)
		}
	}
}

// The time of a plan is what the formulas of the design give.
func TestPredicted(t *testing.T) {
	m := open(t, "dim=512,layers=2,heads=8,kv=4,ffn=1024,vocab=1000:F16")
	devices := roomy()[1:]
	devices[0].Rates.Latency = 5e-5
	devices[0].Rates.Format = map[quant.Type]float64{quant.F16: 2e11}
	p, err := Place(devices, m, Limits{Context: 1024, Least: 1024, At: limitsAt(&m.Config)}, Wishes{GPULayers: 1})
	if err != nil {
		t.Fatal(err)
	}
	const (
		attention = 2 * (512*512*2 + 2*256*512) // bytes of matrices
		ffn       = 2 * 3 * 512 * 1024
		head      = 2 * 512 * 1000
		norm      = 4 * 512
		cache     = 577 * 4 * 64 * 2 * 2 // a layer's, of 512 + 128/2 positions and the token's own
	)
	cpu := (attention+ffn+2*norm+cache)/5e10 + 10e-6 + 1e-6
	gpu := (attention+ffn+head)/2e11 + (3*norm+cache)/3e11 + 13e-6 + 4*1000/1e10
	crossing := 5e-5 + 4*512/1e10
	if got, want := 1/float64(p.Predicted), cpu+gpu+crossing; math.Abs(got-want) > 1e-9*want {
		t.Errorf("a token in %v s, want %v", got, want)
	}
	devices[0].Speed = map[quant.Type]float64{quant.F16: 0.8}
	slower, err := Place(devices, m, Limits{Context: 1024, Least: 1024, At: limitsAt(&m.Config)}, Wishes{GPULayers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := 1/float64(slower.Predicted), 1/float64(p.Predicted)+(attention+ffn+head)/2e11*0.25; math.Abs(got-want) > 1e-9*want {
		t.Errorf("where F16 has shown four fifths of its rate: a token in %v s, want %v", got, want)
	}
	if got, want := float64(p.Stages[1].MS)/1000, gpu+crossing; math.Abs(got-want) > 1e-9*want {
		t.Errorf("%s: a token in %v s, want %v", p.Stages[1].Device, got, want)
	}
	products := func(rate float64) float64 { return 512 * (attention + ffn) / rate } // 2 bytes a weight, 2 operations
	attend := func(rate float64) float64 { return 4 * 512 * 257 * 512 / rate }
	prompt := products(5e12) + attend(5e12) + 10e-6 + 1e-6 + products(3e13) + attend(3e13) + 10e-6 +
		float64(head)/2e11 + norm/3e11 + 3e-6 + 4*1000/1e10 + 5e-5 + 512*4*512/1e10
	if got, want := 512/float64(p.Prompt), prompt; math.Abs(got-want) > 1e-9*want {
		t.Errorf("the prompt in %v s, want %v", got, want)
	}
}

// A context that may shrink is the longest that fits the same devices; one that
// may not is an error with what is missing.
func TestShrink(t *testing.T) {
	m := open(t, "dim=2048,layers=32,heads=16,ffn=5632,vocab=32000,ctx=65536")
	devices := roomy()
	devices[0].Info.Free = 2600 << 20
	devices = []Device{devices[0], devices[2]}
	l := Limits{Context: 65536, Least: 256, Asked: "model", At: limitsAt(&m.Config)}
	p, err := Place(devices, m, l, Wishes{GPULayers: -1})
	if err != nil {
		t.Fatal(err)
	}
	if p.Limit != "memory" || p.Context <= 4096 || p.Context >= 65536 || p.Stages[len(p.Stages)-1].What != "layers 0-31, head" {
		t.Errorf("context %d (%s), %s", p.Context, p.Limit, lies(p))
	}
	longer, err := Place(devices, m, Limits{Context: p.Context + 256, Least: p.Context + 256, At: l.At}, Wishes{GPULayers: -1})
	if err != nil || longer.carriers() == p.carriers() {
		t.Errorf("context %d: %v, %s", p.Context+256, err, lies(longer))
	}
	l.Least = l.Context
	_, err = Place(devices, m, l, Wishes{GPULayers: -1, Strict: true})
	var short *backend.MemoryError
	if !errors.As(err, &short) || short.Device != "cuda:0" || short.Free != 2600<<20 {
		t.Errorf("got %v", err)
	}
	if p.Explain(); p.Binding.What != "memory" || p.Binding.Device != "cuda:0" || len(p.Advice) == 0 {
		t.Errorf("binds %+v, advice %+v", p.Binding, p.Advice)
	}
}

// A device alone is planned for without rates: nothing is predicted, all else is
// as with them. Two are not.
func TestBlind(t *testing.T) {
	m := open(t, "dim=512,layers=2,heads=8,kv=4,ffn=1024,vocab=1000,ctx=65536:IQ3_S")
	devices := roomy()[:1]
	devices[0].Info.Free = 10 << 20
	devices[0].Converts = func(t quant.Type) bool { return t == quant.IQ3_S }
	l := Limits{Context: 65536, Least: 256, Asked: "model", At: limitsAt(&m.Config)}
	want, err := Place(devices, m, l, Wishes{GPULayers: -1})
	if err != nil {
		t.Fatal(err)
	}
	devices[0].Rates = backend.Rates{}
	got, err := Place(devices, m, l, Wishes{GPULayers: -1})
	if err != nil {
		t.Fatal(err)
	}
	got.Explain()
	if got.Predicted != 0 || got.Prompt != 0 || got.Stages[0].MS != 0 || got.Binding != nil || want.Predicted == 0 {
		t.Errorf("without rates: %+v", got)
	}
	if got.Context != want.Context || got.Context == 65536 || lies(got) != lies(want) || got.Stages[0].Cache != want.Stages[0].Cache {
		t.Errorf("without rates %d, %s; with %d, %s", got.Context, lies(got), want.Context, lies(want))
	}
	if c := got.Stages[0].Converted; len(c) != 1 || c[0] != "IQ3_S" {
		t.Errorf("converted: %v", c)
	}
	doc, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(doc), `"predicted_tokens_per_s":null`) || !strings.Contains(string(doc), `"predicted_ms":null`) || !strings.Contains(string(doc), `"converted":["IQ3_S"]`) {
		t.Errorf("%s, %v", doc, err)
	}
	var text strings.Builder
	if err := got.Write(&text); err != nil || strings.Contains(text.String(), "tokens/s") || !strings.Contains(text.String(), "no kernels for IQ3_S") {
		t.Errorf("%s, %v", text.String(), err)
	}
	two := roomy()[:2]
	two[1].Rates.Read = 0
	if _, err := Place(two, m, l, Wishes{GPULayers: -1}); err == nil || !strings.Contains(err.Error(), "cuda:1: its read rate is 0") {
		t.Errorf("two devices, one without rates: %v", err)
	}
}

// A placement's predictions for another request are those of a plan for it.
func TestFor(t *testing.T) {
	m := open(t, "dim=512,layers=2,heads=8,kv=4,ffn=1024,vocab=1000:F16")
	l := Limits{Context: 1024, Least: 1024, At: limitsAt(&m.Config)}
	r := Request{Depth: 100, Prompt: 20, Generate: 300}
	p, err := Place(roomy(), m, l, Wishes{GPULayers: 1})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Place(roomy(), m, l, Wishes{GPULayers: 1, Request: r})
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.For(r)
	if err != nil || got.Predicted != want.Predicted || got.Prompt != want.Prompt || got.At != 270 || got.Predicted == p.Predicted || len(got.Stages) != len(p.Stages) {
		t.Errorf("%v: got %+v, want %+v", err, got, want)
	}
}
