package model

import (
	"fmt"

	"drover/backend"
)

// weights finds a model's tensors by name, or makes them. Shapes are those of
// backend.Layer.
type weights interface {
	// matrix is (rows, cols).
	matrix(name string, rows, cols int) (*backend.Tensor, error)
	// vector is (1, n), F32, F16 or BF16.
	vector(name string, n int) (*backend.Tensor, error)
	// experts is n matrices (rows, cols), one after another.
	experts(layer int, kind string, n, rows, cols int) (*backend.Tensor, error)
	// has reports whether an optional tensor is there.
	has(name string) bool
}

// assembler puts a model together. The first error stays.
type assembler struct {
	w   weights
	err error
}

// assemble names every tensor of a model of that shape (names: llama.cpp,
// llama-arch.cpp).
func assemble(c *backend.Config, w weights) (*backend.Model, error) {
	a := &assembler{w: w}
	m := &backend.Model{Config: *c}
	m.Embed = a.matrix("token_embd.weight", c.Vocab, c.Dim)
	m.Norm = a.vector("output_norm.weight", c.Dim)
	m.Output = m.Embed
	if w.has("output.weight") {
		m.Output = a.matrix("output.weight", c.Vocab, c.Dim)
	}
	for i := 0; i < c.Layers && a.err == nil; i++ {
		m.Layers = append(m.Layers, a.layer(c, i))
	}
	if a.err != nil {
		return nil, a.err
	}
	return m, nil
}

func (a *assembler) layer(c *backend.Config, i int) backend.Layer {
	blk := func(kind string) string { return fmt.Sprintf("blk.%d.%s", i, kind) }
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	l := backend.Layer{
		AttnNorm: a.vector(blk("attn_norm.weight"), c.Dim),
		Q:        a.matrix(blk("attn_q.weight"), q, c.Dim),
		K:        a.matrix(blk("attn_k.weight"), kv, c.Dim),
		V:        a.matrix(blk("attn_v.weight"), kv, c.Dim),
		O:        a.matrix(blk("attn_output.weight"), c.Dim, q),
		QBias:    a.optional(blk("attn_q.bias"), q),
		KBias:    a.optional(blk("attn_k.bias"), kv),
		VBias:    a.optional(blk("attn_v.bias"), kv),
		OBias:    a.optional(blk("attn_output.bias"), c.Dim),
		FFNNorm:  a.vector(blk("ffn_norm.weight"), c.Dim),
	}
	if c.Experts == 0 {
		l.Gate = a.matrix(blk("ffn_gate.weight"), c.FFN, c.Dim)
		l.Up = a.matrix(blk("ffn_up.weight"), c.FFN, c.Dim)
		l.Down = a.matrix(blk("ffn_down.weight"), c.Dim, c.FFN)
		return l
	}
	l.Router = a.matrix(blk("ffn_gate_inp.weight"), c.Experts, c.Dim)
	l.Gate = a.experts(i, "ffn_gate", c.Experts, c.FFN, c.Dim)
	l.Up = a.experts(i, "ffn_up", c.Experts, c.FFN, c.Dim)
	l.Down = a.experts(i, "ffn_down", c.Experts, c.Dim, c.FFN)
	return l
}

// keep returns t, or remembers the first error.
func (a *assembler) keep(t *backend.Tensor, err error) *backend.Tensor {
	if a.err == nil {
		a.err = err
	}
	return t
}

func (a *assembler) matrix(name string, rows, cols int) *backend.Tensor {
	return a.keep(a.w.matrix(name, rows, cols))
}

func (a *assembler) vector(name string, n int) *backend.Tensor {
	return a.keep(a.w.vector(name, n))
}

func (a *assembler) optional(name string, n int) *backend.Tensor {
	if !a.w.has(name) {
		return nil
	}
	return a.vector(name, n)
}

func (a *assembler) experts(layer int, kind string, n, rows, cols int) *backend.Tensor {
	return a.keep(a.w.experts(layer, kind, n, rows, cols))
}
