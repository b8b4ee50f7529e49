package model

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// TestShapes: the sizes that are published for these models.
func TestShapes(t *testing.T) {
	for name, want := range map[string]uint64{
		"llama-7b":       6738415616,
		"llama-13b":      13015864320,
		"llama-33b":      32528943616,
		"llama-65b":      65285660672,
		"llama2-70b":     68976648192,
		"llama3-8b":      8030261248,
		"llama3-70b":     70553706496,
		"llama3.2-1b":    1235814400,
		"llama3.2-3b":    3212749824,
		"tinyllama-1.1b": 1100048384,
		"mistral-7b":     7241732096,
		"mixtral-8x7b":   46702792704,
		"qwen2.5-7b":     7615616512,
	} {
		f, err := Open("synthetic:" + name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.Params != want {
			t.Errorf("%s has %d weights, want %d", name, f.Params, want)
		}
		if f.TypeName != "Q4_0" || f.Path != "synthetic:"+name {
			t.Errorf("%s: %s, %s", name, f.TypeName, f.Path)
		}
	}
}

// TestEveryType: each format, also where rows are no whole blocks of it.
func TestEveryType(t *testing.T) {
	for _, dims := range []string{"dim=256,layers=2,heads=4,kv=2,ffn=512,vocab=300", "dim=96,layers=2,heads=4,kv=2,ffn=160,vocab=300", "dim=36,layers=1,heads=2,ffn=20,vocab=300"} {
		for _, q := range append(quant.Types(), 0) {
			spec := dims + ":" + q.String()
			f, err := Open("synthetic:" + spec)
			if err != nil {
				t.Errorf("%s: %v", spec, err)
				continue
			}
			down := f.Model.Layers[0].Down
			if strings.HasPrefix(dims, "dim=256") && down.Type != q || down.Cols%down.Type.BlockElems() != 0 {
				t.Errorf("%s: ffn_down is %v", spec, down.Type)
			}
			b := all(t, down)
			x := make([]float32, down.Rows*down.Cols)
			quant.Dequantize(down.Type, x, b)
			sum := 0.0
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			rms, want := math.Sqrt(sum/float64(len(x))), 1/math.Sqrt(float64(down.Cols))
			if !(rms > want/2 && rms < want*2) {
				t.Errorf("%s: ffn_down has the standard deviation %g, want about %g", spec, rms, want)
			}
		}
	}
}

// TestRows: any rows, in any order, are the same; another seed gives others.
func TestRows(t *testing.T) {
	open := func(seed string) *backend.Tensor {
		f, err := Open("synthetic:dim=64,layers=2,heads=4,ffn=96,vocab=300:Q4_0" + seed)
		if err != nil {
			t.Fatal(err)
		}
		return f.Model.Layers[1].Up
	}
	up := open("")
	whole, row := all(t, up), up.Type.RowBytes(up.Cols)
	for r := up.Rows - 1; r >= 0; r -= 7 {
		b := make([]byte, row)
		if err := up.Source.Rows(b, r, r+1); err != nil || !bytes.Equal(b, whole[r*row:(r+1)*row]) {
			t.Fatalf("row %d differs from the whole's (%v)", r, err)
		}
	}
	if bytes.Equal(whole[:row], whole[row:2*row]) {
		t.Error("two rows are equal")
	}
	if !bytes.Equal(all(t, open(":0")), whole) {
		t.Error("the seed is not 0 where none is given")
	}
	if bytes.Equal(all(t, open(":7")), whole) {
		t.Error("another seed gives the same weights")
	}
}

// TestMix holds the mixtures to what llama-quantize gives these models.
func TestMix(t *testing.T) {
	count := func(spec string) (map[string]quant.Type, map[quant.Type]int) {
		f, err := Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		types, counts, seen := map[string]quant.Type{}, map[quant.Type]int{}, map[string]bool{}
		for _, x := range f.Model.Tensors(backend.Range{Lo: 0, Hi: f.Model.Config.Blocks()}) {
			if !seen[x.Name] {
				seen[x.Name] = true
				types[x.Name] = x.Type
				counts[x.Type]++
			}
		}
		return types, counts
	}
	for _, c := range []struct {
		spec string
		want map[quant.Type]int
	}{
		// the counts that llama.cpp prints when it loads the published files
		{"llama-7b:Q4_K_M", map[quant.Type]int{quant.F32: 65, quant.Q4_K: 193, quant.Q6_K: 33}},
		{"llama-7b:q5_k_m", map[quant.Type]int{quant.F32: 65, quant.Q5_K: 193, quant.Q6_K: 33}},
		{"llama-13b:Q4_K_M", map[quant.Type]int{quant.F32: 81, quant.Q4_K: 241, quant.Q6_K: 41}},
		{"llama2-70b:Q4_K_M", map[quant.Type]int{quant.F32: 161, quant.Q4_K: 441, quant.Q5_K: 40, quant.Q6_K: 81}},
		{"llama3-8b:Q4_K_M", map[quant.Type]int{quant.F32: 65, quant.Q4_K: 193, quant.Q6_K: 33}},
		{"tinyllama-1.1b:Q4_K_M", map[quant.Type]int{quant.F32: 45, quant.Q4_K: 135, quant.Q6_K: 21}},
		{"llama-7b:Q4_0", map[quant.Type]int{quant.F32: 65, quant.Q4_0: 226}},
	} {
		if _, got := count(c.spec); len(got) != len(c.want) {
			t.Errorf("%s: got %v, want %v", c.spec, got, c.want)
		} else {
			for q, n := range c.want {
				if got[q] != n {
					t.Errorf("%s: %d tensors are %v, want %d", c.spec, got[q], q, n)
				}
			}
		}
	}
	types, _ := count("llama3.2-1b:Q4_K_M")
	if got := types["token_embd.weight"]; got != quant.Q6_K {
		t.Errorf("a tied embedding is %v, want Q6_K", got)
	}
	types, _ = count("mixtral-8x7b:Q4_K_M")
	for name, want := range map[string]quant.Type{
		"blk.5.attn_k.weight": quant.Q8_0, "blk.5.attn_v.weight": quant.Q8_0, "blk.5.attn_output.weight": quant.Q5_K, "blk.5.attn_q.weight": quant.Q4_K,
		"blk.0.ffn_down_exps.weight": quant.Q6_K, "blk.5.ffn_down_exps.weight": quant.Q4_K, "blk.0.ffn_gate_inp.weight": quant.F32, "output.weight": quant.Q6_K,
	} {
		if types[name] != want {
			t.Errorf("mixtral: %s is %v, want %v", name, types[name], want)
		}
	}
	types, _ = count("dim=96,layers=8,heads=4,ffn=256,vocab=300:Q4_K_M")
	for name, want := range map[string]quant.Type{"blk.0.attn_q.weight": quant.Q5_0, "blk.0.attn_v.weight": quant.Q8_0, "blk.0.ffn_down.weight": quant.Q6_K} {
		if types[name] != want {
			t.Errorf("rows of 96: %s is %v, want %v", name, types[name], want)
		}
	}
}

func TestSyntheticFeatures(t *testing.T) {
	open := func(spec string) *backend.Model {
		f, err := Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		return f.Model
	}
	m := open("qwen2.5-7b")
	if l := m.Layers[3]; m.Config.Arch != "qwen2" || !m.Config.Rope.Halves || l.QBias == nil || l.KBias == nil || l.VBias == nil || l.OBias != nil || l.KBias.Cols != 512 {
		t.Errorf("qwen2.5-7b: %+v", m.Config)
	}
	m = open("llama3.2-3b")
	f := m.Config.Rope.Factors
	if m.Output != m.Embed || m.Config.HeadDim != 128 || len(f) != 64 || f[0] != 1 || f[63] != 32 {
		t.Errorf("llama3.2-3b: %+v", m.Config)
	}
	for i := 1; i < len(f); i++ {
		if f[i] < f[i-1] {
			t.Errorf("factor %d is %g after %g", i, f[i], f[i-1])
		}
	}
	m = open("mixtral-8x7b")
	if l := m.Layers[0]; m.Config.Experts != 8 || m.Config.ExpertsUsed != 2 || l.Router.Rows != 8 || l.Down.Rows != 8*4096 || l.Down.Cols != 14336 {
		t.Errorf("mixtral-8x7b: %+v", m.Config)
	}
	m = open("dim=48,layers=3,heads=2,kv=1,head_dim=32,ffn=64,vocab=260,experts=3,ctx=99:F16:18446744073709551615")
	c := m.Config
	if c.HeadDim != 32 || c.KVHeads != 1 || c.Context != 99 || c.ExpertsUsed != 2 || m.Layers[2].Q.Rows != 64 || m.Layers[0].Gate.Type != quant.F16 {
		t.Errorf("custom: %+v", c)
	}
}

func TestSpecRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		"":                                   "llama-7b, llama-13b",
		"lama-7b":                            "is it llama-7b?",
		"llama-7b:Q4_O":                      "is it Q4_0?",
		"llama-7b:Q4_0x":                     "IQ4_XS",
		"llama-7b:":                          "Q4_K_M",
		"llama-7b:Q4_0:":                     "seed",
		"llama-7b:Q4_0:-1":                   "seed",
		"llama-7b:Q4_0:18446744073709551616": "seed",
		"llama-7b:Q4_0:1:2":                  "SHAPE:TYPE:SEED",
		"dim=64":                             "layers is missing",
		"dim=64,layers=1,heads=2,ffn=8":      "vocab is missing",
		"dim=64,layers=1,heads=2,ffn=8,vocab=258":                  "from 259",
		"dim=64,layers=1,heads=3,ffn=8,vocab=300":                  "head_dim",
		"dim=64,layers=1,heads=4,kv=3,ffn=8,vocab=300":             "multiple",
		"dim=12,layers=1,heads=4,ffn=8,vocab=300":                  "even",
		"dim=0,layers=1,heads=4,ffn=8,vocab=300":                   "dim=",
		"dim=x,layers=1,heads=4,ffn=8,vocab=300":                   "dim=",
		"dim=64,dim=64,layers=1,heads=4,ffn=8,vocab=300":           "twice",
		"dim=64,layer=1,heads=4,ffn=8,vocab=300":                   "is it layers?",
		"dim=64,layers=1,heads=4,ffn=8,vocab=300,used=2":           "experts",
		"dim=9999999999999999999,layers=1":                         "dim=",
		"dim=64,layers=1,heads=4,ffn=8,vocab=300,":                 `no ""`,
		"dim=64,layers=5000,heads=4,ffn=8,vocab=300":               "4096",
		"dim=64,layers=1,heads=4,ffn=8,vocab=300,ctx=0":            "ctx",
		"dim=64,layers=1,heads=9999,head_dim=9998,ffn=8,vocab=300": "wider",
	} {
		for _, open := range []func(string) (*File, error){Open, OpenVocab} {
			_, err := open("synthetic:" + spec)
			if !errors.Is(err, ErrSpec) || errors.Is(err, ErrBad) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want %q in it", spec, err, want)
			}
		}
	}
}

// TestWords: as many tokens as asked for, all different.
func TestWords(t *testing.T) {
	for _, n := range []int{leastVocab, 300, 32000, 600000} {
		v := words(n)
		seen := make(map[string]bool, n)
		for _, s := range v.Tokens {
			seen[s] = true
		}
		if len(v.Tokens) != n || len(seen) != n || len(v.Scores) != n || len(v.Types) != n {
			t.Errorf("%d tokens asked for: %d, %d different, %d scores, %d types", n, len(v.Tokens), len(seen), len(v.Scores), len(v.Types))
		}
	}
	v := words(32000)
	if v.Tokens[0] != "<unk>" || v.Tokens[3+10] != "<0x0A>" || v.Types[3+10] != typeByte || v.Types[2] != typeControl || v.Types[31999] != typeNormal {
		t.Error("the special tokens are not in their places")
	}
}

// TestActivations: through 80 layers the hidden state stays of a size that
// every format holds, and the logits are those of a model, not of noise that
// died out or blew up.
func TestActivations(t *testing.T) {
	for _, spec := range []string{
		"dim=128,layers=80,heads=4,kv=2,ffn=256,vocab=300:Q4_0",
		"dim=128,layers=40,heads=4,kv=2,ffn=256,vocab=300,experts=4:IQ2_XXS",
	} {
		f, err := Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		c := f.Model.Config
		s, err := ref.New().Load(t.Context(), f.Model, []backend.Range{{Lo: 0, Hi: c.Blocks()}},
			backend.Limits{Pages: 1, Rows: 4, Seqs: 1, Context: 64, Outs: 1, K: quant.F32, V: quant.F32}, nil)
		if err != nil {
			t.Fatal(err)
		}
		rms := func(x []float32) float64 {
			sum := 0.0
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			return math.Sqrt(sum / float64(len(x)))
		}
		b := &backend.Batch{Tokens: []int32{1, 290, 291, 292}, Pos: []int32{0, 1, 2, 3}, Seqs: []backend.Seq{{Rows: 4, Pages: []int32{0}}},
			Out: []int32{3}, Logits: make([]float32, c.Vocab)}
		b.Trace = func(layer int, op backend.Op, x []float32) {
			if r := rms(x); op == backend.OpFFNOut && !(r > 0.1 && r < 100) {
				t.Errorf("%s: after layer %d the hidden state is %g", spec, layer, r)
			}
		}
		if err := s.Forward(t.Context(), 0, b); err != nil {
			t.Fatal(err)
		}
		if r := rms(b.Logits); !(r > 0.5 && r < 2) {
			t.Errorf("%s: the logits' standard deviation is %g", spec, r)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
