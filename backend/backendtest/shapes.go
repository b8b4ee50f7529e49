package backendtest

import (
	"fmt"
	"hash/fnv"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// shape is one kind of model, tiny. Its widths depend on the weight format's
// blocks: rows are whole blocks, and no power of two where that is possible.
type shape struct {
	name               string
	heads, kv, headDim int  // heads*headDim is a multiple of 256, so of every block
	layers             int  // 0: 2, of blocks of 256 weights 1
	wide               bool // a feed-forward wider than the hidden state, for every format
	qkvBias, oBias     bool
	tied               bool
	rope               backend.Rope // Base and Dims 0: 10000 and headDim
	llama3             bool         // rope factors
	window             int
	experts, used      int
}

var shapes = []shape{
	{name: "mha", heads: 4, kv: 4, headDim: 64},
	{name: "gqa", heads: 8, kv: 2, headDim: 32, layers: 3, wide: true},
	{name: "mqa", heads: 8, kv: 1, headDim: 32, rope: backend.Rope{Base: 500000}},
	{name: "head8", heads: 32, kv: 4, headDim: 8},
	{name: "head96", heads: 8, kv: 2, headDim: 96, rope: backend.Rope{Dims: 64}},
	{name: "head128", heads: 2, kv: 1, headDim: 128, rope: backend.Rope{Halves: true}},
	{name: "bias", heads: 8, kv: 4, headDim: 32, qkvBias: true, oBias: true},
	{name: "qwen2", heads: 4, kv: 2, headDim: 64, qkvBias: true, tied: true, rope: backend.Rope{Base: 1e6, Halves: true}},
	{name: "linear", heads: 8, kv: 8, headDim: 32, tied: true, rope: backend.Rope{Scaling: backend.ScaleLinear, Factor: 4}},
	{name: "yarn", heads: 4, kv: 2, headDim: 64, rope: backend.Rope{Scaling: backend.ScaleYaRN, Factor: 4, OrigContext: 64, BetaFast: 32, BetaSlow: 1, ExtFactor: 1, AttnFactor: 1}},
	{name: "llama3", heads: 8, kv: 2, headDim: 32, llama3: true},
	{name: "window", heads: 8, kv: 2, headDim: 32, window: 5},
	{name: "window70", heads: 4, kv: 1, headDim: 64, window: 70, rope: backend.Rope{Halves: true}},
	{name: "moe", heads: 8, kv: 2, headDim: 32, experts: 4, used: 2},
	{name: "moe-all", heads: 4, kv: 2, headDim: 64, experts: 5, used: 3, window: 67, qkvBias: true, oBias: true, rope: backend.Rope{Halves: true}},
}

// vocab is prime, so that no kernel's tile divides it.
const vocab = 67

// config gives the shape's widths for weights in blocks of elems.
func (s *shape) config(elems int) backend.Config {
	dim := map[int]int{1: 52, 32: 96, 64: 192, 128: 128, 256: 256}[elems]
	ffn := map[int]int{1: 84, 32: 160, 64: 128, 128: 384, 256: 512}[elems]
	if elems == 256 && !s.wide {
		ffn = 256
	}
	layers := s.layers
	if layers == 0 {
		layers = 2 - elems/256
	}
	c := backend.Config{Arch: "llama", Name: s.name, Dim: dim, Layers: layers, Heads: s.heads, KVHeads: s.kv, HeadDim: s.headDim,
		FFN: ffn, Vocab: vocab, Context: 192, NormEps: 1e-5, Rope: s.rope, Window: s.window, Experts: s.experts, ExpertsUsed: s.used}
	r := &c.Rope
	if r.Base == 0 {
		r.Base = 10000
	}
	if r.Dims == 0 {
		r.Dims = s.headDim
	}
	if r.Factor == 0 {
		r.Factor = 1
	}
	if s.llama3 {
		for i := range r.Dims / 2 {
			r.Factors = append(r.Factors, 1+7*float32(i)/float32(r.Dims/2))
		}
	}
	return c
}

// caches is the n-th pair of cache formats.
func (s *shape) caches(n int) (k, v quant.Type) {
	formats := []quant.Type{quant.F32, quant.F16, quant.Q8_0}
	if s.headDim%32 != 0 {
		formats = formats[:2]
	}
	return formats[n%len(formats)], formats[n/len(formats)%len(formats)]
}

// model makes a random model of the shape with matrices in format typ; norms,
// biases and routers are F32, as in files.
func (s *shape) model(typ quant.Type, seed uint64) *backend.Model {
	c := s.config(typ.BlockElems())
	q, kv, experts := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, max(1, c.Experts)
	matrix := func(name string, rows, cols int, gain float64) *backend.Tensor {
		return random(name, typ, rows, cols, seed, gain/math.Sqrt(float64(cols)))
	}
	m := &backend.Model{Config: c, Embed: matrix("token_embd", vocab, c.Dim, 4), Norm: around1("output_norm", c.Dim, seed)}
	m.Output = m.Embed
	if !s.tied {
		m.Output = matrix("output", vocab, c.Dim, 2)
	}
	for i := range c.Layers {
		name := func(end string) string { return fmt.Sprintf("blk.%d.%s", i, end) }
		bias := func(wanted bool, end string, n int) *backend.Tensor {
			if !wanted {
				return nil
			}
			return random(name(end), quant.F32, 1, n, seed, 0.5)
		}
		l := backend.Layer{
			AttnNorm: around1(name("attn_norm"), c.Dim, seed), FFNNorm: around1(name("ffn_norm"), c.Dim, seed),
			Q: matrix(name("attn_q"), q, c.Dim, 1.5), K: matrix(name("attn_k"), kv, c.Dim, 1.5),
			V: matrix(name("attn_v"), kv, c.Dim, 1), O: matrix(name("attn_output"), c.Dim, q, 1),
			QBias: bias(s.qkvBias, "attn_q.bias", q), KBias: bias(s.qkvBias, "attn_k.bias", kv), VBias: bias(s.qkvBias, "attn_v.bias", kv),
			OBias: bias(s.oBias, "attn_output.bias", c.Dim),
			Gate:  matrix(name("ffn_gate"), experts*c.FFN, c.Dim, 1), Up: matrix(name("ffn_up"), experts*c.FFN, c.Dim, 1),
			Down: matrix(name("ffn_down"), experts*c.Dim, c.FFN, 2),
		}
		if c.Experts > 0 {
			l.Router = random(name("ffn_gate_inp"), quant.F32, c.Experts, c.Dim, seed, 1/math.Sqrt(float64(c.Dim)))
		}
		m.Layers = append(m.Layers, l)
	}
	return m
}

// random is a tensor of that standard deviation.
func random(name string, typ quant.Type, rows, cols int, seed uint64, sigma float64) *backend.Tensor {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", name, seed)
	data := make(memory, rows*typ.RowBytes(cols))
	quant.Random(typ, data, h.Sum64(), float32(sigma))
	return &backend.Tensor{Name: name, Type: typ, Rows: rows, Cols: cols, Source: data}
}

// around1 is a norm's weights: 1 plus or minus a little.
func around1(name string, n int, seed uint64) *backend.Tensor {
	t := random(name, quant.F32, 1, n, seed, 0.2)
	w := floats(t)
	for i := range w {
		w[i]++
	}
	if err := quant.Quantize(quant.F32, t.Source.(memory), w); err != nil {
		panic("BUG: " + err.Error())
	}
	return t
}

// floats is an F32 tensor's values.
func floats(t *backend.Tensor) []float32 {
	w := make([]float32, t.Rows*t.Cols)
	data := make([]byte, 4*len(w))
	if err := t.Source.Rows(data, 0, t.Rows); err != nil {
		panic("BUG: " + err.Error())
	}
	quant.Dequantize(quant.F32, w, data)
	return w
}

// memory is a tensor's bytes. A tensor's row count is not known to it: rows
// are as long as what is asked for.
type memory []byte

func (m memory) Rows(dst []byte, lo, hi int) error {
	size := len(dst) / max(1, hi-lo)
	copy(dst, m[lo*size:hi*size])
	return nil
}
func (m memory) Mapped() []byte  { return nil }
func (m memory) Drop(lo, hi int) {}

// repeated gives row i%period of another tensor as row i: rows that are equal
// to the bit give logits that tie.
type repeated struct {
	of     *backend.Tensor
	period int
}

func repeat(t *backend.Tensor, period int) *backend.Tensor {
	r := *t
	r.Source = repeated{t, period}
	return &r
}

func (r repeated) Rows(dst []byte, lo, hi int) error {
	size := r.of.Type.RowBytes(r.of.Cols)
	for i := lo; i < hi; i++ {
		if err := r.of.Source.Rows(dst[(i-lo)*size:(i-lo+1)*size], i%r.period, i%r.period+1); err != nil {
			return err
		}
	}
	return nil
}
func (r repeated) Mapped() []byte  { return nil }
func (r repeated) Drop(lo, hi int) {}
