package backendtest

import (
	"drover/backend"
	"drover/internal/quant"
)

// mapped is a tensor's bytes that lie in memory, as those of a mapped file do.
type mapped struct{ memory }

func (m mapped) Mapped() []byte { return m.memory }

// Tensor is a random tensor in memory, for tests of a backend's own.
func Tensor(typ quant.Type, rows, cols int, seed uint64) *backend.Tensor {
	t := &backend.Tensor{Name: "test", Type: typ, Rows: rows, Cols: cols}
	data := make([]byte, t.Bytes())
	quant.Random(typ, data, seed, 0.02)
	t.Source = mapped{data}
	return t
}

// Llama is a random model of that shape with every matrix in typ, norms and
// routers in F32; of experts two are used.
func Llama(typ quant.Type, layers, dim, heads, kv, ffn, vocab, experts int) *backend.Model {
	c := backend.Config{Arch: "llama", Dim: dim, Layers: layers, Heads: heads, KVHeads: kv, HeadDim: dim / heads, FFN: ffn,
		Vocab: vocab, Context: 4096, NormEps: 1e-5, Rope: backend.Rope{Base: 10000, Dims: dim / heads, Factor: 1}, Experts: experts, ExpertsUsed: min(experts, 2)}
	seed := uint64(0)
	next := func(typ quant.Type, rows, cols int) *backend.Tensor {
		seed++
		return Tensor(typ, rows, cols, seed)
	}
	m := &backend.Model{Config: c, Embed: next(typ, vocab, dim), Output: next(typ, vocab, dim), Norm: next(quant.F32, 1, dim)}
	for range layers {
		l := backend.Layer{AttnNorm: next(quant.F32, 1, dim), FFNNorm: next(quant.F32, 1, dim),
			Q: next(typ, dim, dim), K: next(typ, kv*c.HeadDim, dim), V: next(typ, kv*c.HeadDim, dim), O: next(typ, dim, dim),
			Gate: next(typ, max(1, experts)*ffn, dim), Up: next(typ, max(1, experts)*ffn, dim), Down: next(typ, max(1, experts)*dim, ffn)}
		if experts > 0 {
			l.Router = next(quant.F32, experts, dim)
		}
		m.Layers = append(m.Layers, l)
	}
	return m
}
