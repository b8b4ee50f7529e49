package engine

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

func TestFit(t *testing.T) {
	m := fakeModel(2, 0, 64*100)
	for _, c := range []struct {
		name    string
		free    uint64
		o       Options
		context int // 0: an error
		limit   string
	}{
		{"all fits", 1024 + 100*100, Options{}, 6400, "model"},
		{"shrunk", 1024 + 100*99, Options{}, 64 * 92, "memory"}, // (10924 - 10924/16 - 1024) / 100 = 92.1
		{"shrunk by two sequences", 1024 + 100*99, Options{Sequences: 2}, 64 * 46, "memory"},
		{"asked for and fits", 1024 + 100*3, Options{Context: 192}, 192, "flag"},
		{"asked for and does not fit", 1024 + 100*3, Options{Context: 193}, 0, ""},
		{"not to be shrunk", 1024 + 100*99, Options{FitOff: true}, 0, ""},
		{"too small", 1024 + 100*3, Options{}, 0, ""},
		{"fewer pages than a context", 1 << 30, Options{Context: 1000, Pages: 4}, 256, "flag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &fakeDevice{id: "fake", free: c.free, perPage: 100}
			e, err := Load(context.Background(), m, Fixed(m, Whole(m, d), c.o), nil)
			if c.context == 0 {
				var short *backend.MemoryError
				if !errors.As(err, &short) || !errors.Is(err, backend.ErrMemory) || short.Need <= short.Free || d.loads.Load() != 0 {
					t.Fatalf("%v, %d loads", err, d.loads.Load())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer settle(t, e, d)
			if p := e.Plan(); p.Context != c.context || p.Limit != c.limit || e.Context() != c.context {
				t.Errorf("context %d, limit %q; want %d, %q", p.Context, p.Limit, c.context, c.limit)
			}
		})
	}
}

// Memory that goes between planning and loading is planned for once more.
func TestFitAgain(t *testing.T) {
	m := fakeModel(1, 0, 64*100)
	d := &fakeDevice{id: "fake", free: 1024 + 100*100, perPage: 100, failure: &backend.MemoryError{Device: "fake", Need: 11024, Free: 1024 + 100*50}}
	e, err := Load(context.Background(), m, Fixed(m, Whole(m, d), Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e, d)
	if got := e.Plan(); got.Context != 64*46 || got.Limit != "memory" || got.Wanted != 6400 { // (6024 - 376 - 1024) / 100 = 46.2
		t.Errorf("%+v", got)
	}
	d = &fakeDevice{id: "fake", free: 1024 + 100*100, perPage: 100, failure: errTest}
	if _, err := Load(context.Background(), m, Fixed(m, Whole(m, d), Options{}), nil); !errors.Is(err, errTest) || d.loads.Load() != 1 {
		t.Errorf("another error: %v after %d loads", err, d.loads.Load())
	}
}

// All stages or none; progress never goes back.
func TestLoadStages(t *testing.T) {
	m := fakeModel(2, 0, 64)
	a, b := &fakeDevice{id: "fake:0"}, &fakeDevice{id: "fake:1", failure: errTest}
	places := []Placement{{b, []backend.Range{{Lo: 3, Hi: 5}}}, {a, []backend.Range{{Lo: 0, Hi: 3}, {Lo: 5, Hi: 6}}}}
	if _, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil); !errors.Is(err, errTest) || !strings.Contains(err.Error(), "fake:1") {
		t.Errorf("got %v", err)
	}
	a.failure = errTest
	if _, err := Load(context.Background(), m, Fixed(m, places, Options{}), nil); !errors.Is(err, errTest) || b.open.Load() != 0 {
		t.Errorf("%v, %d stages left open", err, b.open.Load())
	}
	var last uint64
	e, err := Load(context.Background(), m, Fixed(m, places, Options{}), func(done, total uint64) {
		if done < last || done > total || total != 2000 {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != 2000 {
		t.Fatal(err, last)
	}
	defer settle(t, e, a, b)
	q := requests(m, 1, 50, 12)[0]
	q.prompt = q.prompt[:min(len(q.prompt), 10)]
	want := newOracle(m).text(q.prompt, 20, q.params)
	q.max = 20
	if got, err := e.Generate(context.Background(), q.request(), nil); err != nil || len(got.Tokens) != 20 || got.Tokens[19] != want[19] {
		t.Errorf("two stages, one with two runs: %v, got %v, want %v", err, got.Tokens, want)
	}
	for _, runs := range [][]backend.Range{nil, {{Lo: 0, Hi: 5}}, {{Lo: 1, Hi: 6}}, {{Lo: 0, Hi: 3}, {Lo: 2, Hi: 6}}, {{Lo: 0, Hi: 6}, {Lo: 6, Hi: 6}}, {{Lo: 0, Hi: 9}}} {
		if _, err := Load(context.Background(), m, Fixed(m, []Placement{{a, runs}}, Options{}), nil); err == nil {
			t.Errorf("runs %v passed", runs)
		}
	}
	for _, o := range []Options{{Context: -1}, {Batch: -1}, {K: quant.Q4_0}, {V: quant.BF16}, {Sequences: -2}} {
		if _, err := Load(context.Background(), m, Fixed(m, Whole(m, a), o), nil); err == nil {
			t.Errorf("%+v passed", o)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	m := fakeModel(2, 0, 64)
	tensor := func(t quant.Type, rows, cols int) *backend.Tensor {
		return &backend.Tensor{Type: t, Rows: rows, Cols: cols}
	}
	for i := range m.Layers {
		m.Layers[i] = backend.Layer{Q: tensor(quant.F32, 10, 10), Gate: tensor(quant.F32, 80, 10), Up: tensor(quant.F32, 80, 10), Down: tensor(quant.F32, 80, 10)}
	}
	m.Config.Experts, m.Config.ExpertsUsed = 8, 2
	m.Embed, m.Norm, m.Output = tensor(quant.F16, 1000, 10), tensor(quant.F32, 1, 10), tensor(quant.F16, 60, 10)
	d := &fakeDevice{id: "fake", free: 1 << 20, perPage: 10}
	p, err := plan(m, []Placement{{d, []backend.Range{{Lo: 0, Hi: 2}, {Lo: 5, Hi: 6}}}, {d, []backend.Range{{Lo: 2, Hi: 5}}}}, Options{Sequences: 3}, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(p)
	want := `{"ctx":64,"limit":"model","predicted_tokens_per_s":null,"stages":[` +
		`{"device":"fake","isa":"fake","blocks":[[0,2],[5,6]],"layers":[0,1],"weights":1000,"cache":30,"scratch":24,"host":0,"predicted_ms":null},` +
		`{"device":"fake","isa":"fake","blocks":[[2,5]],"layers":[0,2],"weights":1000,"cache":30,"scratch":24,"host":0,"predicted_ms":null}]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
	// stage 0: Q 400 and norm 40 bytes, output 1200; stage 1: Q 400, two of eight experts twice
	p.Predict([]backend.Rates{{Read: 1000, Format: map[quant.Type]float64{quant.F16: 2400}, Launch: 0.02}, {Read: 1000}})
	for i, ms := range []float64{440 + 500 + 60, 400 + 2*2400} {
		if got := *p.Stages[i].PredictedMS; math.Abs(got-ms) > 1e-9 {
			t.Errorf("stage %d: predicted %v ms, want %v", i, got, ms)
		}
	}
	if got := *p.Predicted; math.Abs(got-1000./6200) > 1e-9 {
		t.Errorf("predicted %v tokens/s", got)
	}
}
