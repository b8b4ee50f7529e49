package ref

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

func TestNMSE(t *testing.T) {
	for _, c := range []struct {
		got, want []float32
		nmse      float64
	}{
		{[]float32{1, 2}, []float32{1, 2}, 0},
		{[]float32{1, 3}, []float32{1, 2}, 0.2},
		{[]float32{0, 0}, []float32{0, 0}, 0},
		{[]float32{0, 1}, []float32{0, 0}, math.Inf(1)},
	} {
		if got := NMSE(c.got, c.want); got != c.nmse {
			t.Errorf("NMSE(%v, %v) = %v, want %v", c.got, c.want, got, c.nmse)
		}
	}
	if got := NMSE([]float32{float32(math.NaN())}, []float32{1}); !math.IsNaN(got) {
		t.Errorf("NMSE of NaN = %v", got)
	}
}

func TestKL(t *testing.T) {
	want := []float32{0, float32(math.Log(3))} // probabilities 1/4 and 3/4
	if got := KL([]float32{5, 5}, want); math.Abs(got-(0.25*math.Log(0.5)+0.75*math.Log(1.5))) > 1e-7 {
		t.Errorf("KL from even odds = %v", got)
	}
	if got := KL([]float32{7, 7 + want[1]}, want); math.Abs(got) > 1e-7 {
		t.Errorf("KL of the same distribution = %v", got)
	}
}

func TestTop(t *testing.T) {
	got := top([]float32{1, 3, 2, 3, 3, 0}, 4)
	for i, want := range []int{1, 3, 4, 2} {
		if got[i] != want {
			t.Fatalf("top = %v", got)
		}
	}
}

func TestCompare(t *testing.T) {
	want := []Point{{-1, backend.OpEmbed, []float32{1}}, {0, backend.OpQ, []float32{1, 2}}, {0, backend.OpFFNOut, []float32{2}}}
	diffs, err := Compare([]Point{want[0], {0, backend.OpFFNOut, []float32{3}}}, want)
	if err != nil || len(diffs) != 2 || diffs[0].NMSE != 0 || diffs[1] != (Difference{0, backend.OpFFNOut, 0.25}) {
		t.Errorf("Compare = %v, %v", diffs, err)
	}
	for name, got := range map[string][]Point{
		"out of order": {want[1], want[0]}, "twice": {want[0], want[0]},
		"unknown": {{1, backend.OpQ, nil}}, "another length": {{0, backend.OpQ, []float32{1}}},
	} {
		if _, err := Compare(got, want); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A batch that breaks the contract is the caller's mistake, and is named.
func TestBrokenBatches(t *testing.T) {
	m := readTiny(t)[0].model(true)
	lim := backend.Limits{Pages: 2, Rows: 4, Seqs: 1, Context: 100, Outs: 2, K: quant.F32, V: quant.F32}
	s, err := New().Load(context.Background(), m, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}, lim, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for want, change := range map[string]func(b *backend.Batch){
		"0 rows":                         func(b *backend.Batch) { b.Tokens = nil },
		"5 rows":                         func(b *backend.Batch) { b.Tokens = make([]int32, 5) },
		"token 48":                       func(b *backend.Batch) { b.Tokens[1] = 48 },
		"position 100":                   func(b *backend.Batch) { b.Pos[1] = 100 },
		"position 5 does not follow":     func(b *backend.Batch) { b.Pos[1] = 5 },
		"position 63 with 0 pages":       func(b *backend.Batch) { b.Seqs[0].Pages = nil },
		"position 63 has no page":        func(b *backend.Batch) { b.Seqs[0].Pages[0] = -1 },
		"page 2":                         func(b *backend.Batch) { b.Seqs[0].Pages[1] = 2 },
		"sequences have 1 rows of 2":     func(b *backend.Batch) { b.Seqs[0].Rows = 1 },
		"2 sequences":                    func(b *backend.Batch) { b.Seqs = append(b.Seqs, backend.Seq{}) },
		"results of row 2":               func(b *backend.Batch) { b.Out[0] = 2 },
		"47 logits":                      func(b *backend.Batch) { b.Logits = b.Logits[1:] },
		"1 normed values":                func(b *backend.Batch) { b.Norm = make([]float32, 1) },
		"no room for the top 3":          func(b *backend.Batch) { b.Top = 3 },
		"page was released":              func(b *backend.Batch) { b.Pos = []int32{64, 65}; b.Seqs[0].Pages[0] = -1 },
		"results of row 1 out of order":  func(b *backend.Batch) { b.Out = []int32{1, 1}; b.Logits = make([]float32, 96) },
		"results of 3 rows, limit 2":     func(b *backend.Batch) { b.Out = []int32{0, 1, 2} },
		"hidden state of 1 values for 2": nil,
	} {
		b := &backend.Batch{Tokens: []int32{3, 4}, Pos: []int32{63, 64}, Seqs: []backend.Seq{{Rows: 2, Pages: []int32{1, 0}}}, Out: []int32{1}, Logits: make([]float32, 48)}
		stage := s
		if change == nil {
			half, err := New().Load(context.Background(), m, []backend.Range{{Lo: 1, Hi: 3}}, lim, nil)
			if err != nil {
				t.Fatal(err)
			}
			stage, change = half, func(b *backend.Batch) { b.Hidden = make([]float32, 1) }
		}
		change(b)
		func() {
			defer func() {
				if said, _ := recover().(string); !strings.HasPrefix(said, "BUG: ") || !strings.Contains(said, want) {
					t.Errorf("panic %q, want %q", said, want)
				}
			}()
			err := stage.Forward(context.Background(), 0, b)
			t.Errorf("%s: accepted, %v", want, err)
		}()
	}
}

func TestUnsupported(t *testing.T) {
	m := readTiny(t)[0].model(true)
	whole := []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}
	for _, k := range []quant.Type{quant.Q4_0, quant.Q8_0} { // heads of 16 hold no block of 32
		if _, err := New().Need(m, whole, backend.Limits{K: k, V: quant.F32}); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("a cache in %v: %v", k, err)
		}
	}
	odd := *m.Embed
	odd.Type = 99
	m.Embed = &odd
	if _, err := New().Load(context.Background(), m, whole, backend.Limits{}, nil); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("weights in %v: %v", odd.Type, err)
	}
}

func TestMeasure(t *testing.T) {
	r, err := New().Measure(context.Background())
	if err != nil || r.Read <= 0 || r.Matrix <= 0 || r.Format[quant.F32] <= 0 {
		t.Errorf("Measure = %+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New().Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure with a cancelled context: %v", err)
	}
}
