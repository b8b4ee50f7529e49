package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"drover/backend"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/ref"
	"drover/internal/sample"
)

// Real attention over real pages: many sequences on the reference, whole and
// cut over two stages, give the texts that each gives alone.
func TestReference(t *testing.T) {
	for _, c := range []struct {
		name   string
		window int
		o      Options
	}{
		{"f32 cache", 0, Options{Context: 256, Sequences: 6, Batch: 48, Pages: 7}},
		{"q8_0 cache, window", 40, Options{Context: 256, Sequences: 6, Batch: 48, K: quant.Q8_0, V: quant.F16}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := model.Open("synthetic:dim=32,layers=2,heads=1,kv=1,ffn=32,vocab=300,ctx=256:F32:7")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := f.Model
			m.Config.Window = c.window
			alone, err := Load(t.Context(), m, Fixed(m, Whole(m, ref.New()), Options{Context: 256, Batch: 7, K: c.o.K, V: c.o.V}), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer settle(t, alone)
			all := requests(m, 10, 30, 13)
			for i := range all {
				q := &all[i]
				q.prompt = q.prompt[:min(len(q.prompt), 150)]
				r := q.request()
				r.Fresh = true
				got, err := alone.Generate(t.Context(), r, nil)
				if err != nil {
					t.Fatal(err)
				}
				q.want = got.Tokens
			}
			last := m.Config.Blocks()
			for _, places := range [][]Placement{
				Whole(m, ref.New()),
				{{ref.New(), []backend.Range{{Lo: 0, Hi: 2}, {Lo: 5, Hi: last}}}, {ref.New(), []backend.Range{{Lo: 2, Hi: 5}}}},
			} {
				e, err := Load(t.Context(), m, Fixed(m, places, c.o), nil)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i, q := range all {
					wg.Go(func() {
						got, err := e.Generate(t.Context(), q.request(), nil)
						if err != nil || !slices.Equal(got.Tokens, q.want) {
							t.Errorf("request %d on %d stages (%d tokens, reused %d): %v\n got %v\nwant %v",
								i, len(places), len(q.prompt), got.Reused, err, got.Tokens, q.want)
						}
					})
				}
				wg.Wait()
				settle(t, e)
			}
		})
	}
}

// golden is the folder of reference data.
func golden(t *testing.T) string {
	dir := os.Getenv("DROVER_GOLDEN")
	if dir == "" {
		t.Skip("DROVER_GOLDEN is not set: nothing is compared with llama.cpp's results")
	}
	return dir
}

// llama.cpp's greedy texts and negative log-likelihoods of stories260K, all
// prompts at once.
func TestGolden(t *testing.T) {
	dir := golden(t)
	f, err := model.Open(filepath.Join(dir, "models", "s260k-f32.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := os.ReadFile(filepath.Join(dir, "refs", "s260k-f32.native.json"))
	if err != nil {
		t.Fatal(err)
	}
	var refs struct {
		Items []struct {
			ID     string
			Tokens []int32
			NLLSum float64   `json:"nll_sum"`
			Greedy []int32   `json:"greedy"`
			Margin []float64 `json:"greedy_margin"`
		}
	}
	if err := json.Unmarshal(data, &refs); err != nil {
		t.Fatal(err)
	}
	e, err := Load(t.Context(), f.Model, Fixed(f.Model, Whole(f.Model, ref.New()), Options{Context: 512, Sequences: len(refs.Items)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer settle(t, e)
	var wg sync.WaitGroup
	for _, item := range refs.Items {
		wg.Go(func() {
			got, err := e.Generate(context.Background(), Request{Tokens: item.Tokens, Max: len(item.Greedy), Sampler: sample.New(sample.Greedy())}, nil)
			if err != nil {
				t.Errorf("%s: %v", item.ID, err)
				return
			}
			for i, id := range item.Greedy {
				if item.Margin[i] < 1e-3 {
					break // two right engines may differ from here on
				}
				if got.Tokens[i] != id {
					t.Errorf("%s: token %d is %d, want %d (margin %v)", item.ID, i, got.Tokens[i], id, item.Margin[i])
					break
				}
			}
		})
		wg.Go(func() {
			sum := 0.0
			err := e.Logits(context.Background(), item.Tokens, true, func(pos int, logits []float32) error {
				if pos+1 < len(item.Tokens) {
					sum += surprise(logits, item.Tokens[pos+1])
				}
				return nil
			})
			if err != nil || math.Abs(sum-item.NLLSum) > 1e-4*math.Max(1, item.NLLSum) { // 0 for one token
				t.Errorf("%s: nll %v, want %v: %v", item.ID, sum, item.NLLSum, err)
			}
		})
	}
	wg.Wait()
	if len(refs.Items) < 6 {
		t.Errorf("only %d prompts", len(refs.Items))
	}
}
