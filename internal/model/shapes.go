package model

import "drover/backend"

// shape is a model's published dimensions.
type shape struct {
	name         string
	dim, layers  int
	heads, kv    int
	headDim      int // 0: dim/heads
	ffn, vocab   int
	context      int
	eps          float32
	base         float64 // of the rope
	window       int
	experts      int
	used         int
	tied, biases bool
	llama3       float64 // the factor of Llama 3's rope scaling; 0: none
}

// shapes are the models that can be generated, with the figures of their
// config.json on huggingface.co (params.json for the first LLaMA).
func shapes() []shape {
	return []shape{
		{name: "llama-7b", dim: 4096, layers: 32, heads: 32, kv: 32, ffn: 11008, vocab: 32000, context: 2048, eps: 1e-6, base: 1e4},
		{name: "llama-13b", dim: 5120, layers: 40, heads: 40, kv: 40, ffn: 13824, vocab: 32000, context: 2048, eps: 1e-6, base: 1e4},
		{name: "llama-33b", dim: 6656, layers: 60, heads: 52, kv: 52, ffn: 17920, vocab: 32000, context: 2048, eps: 1e-6, base: 1e4},
		{name: "llama-65b", dim: 8192, layers: 80, heads: 64, kv: 64, ffn: 22016, vocab: 32000, context: 2048, eps: 1e-5, base: 1e4},
		{name: "llama2-70b", dim: 8192, layers: 80, heads: 64, kv: 8, ffn: 28672, vocab: 32000, context: 4096, eps: 1e-5, base: 1e4},
		{name: "llama3-8b", dim: 4096, layers: 32, heads: 32, kv: 8, ffn: 14336, vocab: 128256, context: 8192, eps: 1e-5, base: 5e5},
		{name: "llama3-70b", dim: 8192, layers: 80, heads: 64, kv: 8, ffn: 28672, vocab: 128256, context: 8192, eps: 1e-5, base: 5e5},
		{name: "llama3.2-1b", dim: 2048, layers: 16, heads: 32, kv: 8, ffn: 8192, vocab: 128256, context: 131072, eps: 1e-5, base: 5e5, tied: true, llama3: 32},
		{name: "llama3.2-3b", dim: 3072, layers: 28, heads: 24, kv: 8, ffn: 8192, vocab: 128256, context: 131072, eps: 1e-5, base: 5e5, tied: true, llama3: 32},
		{name: "tinyllama-1.1b", dim: 2048, layers: 22, heads: 32, kv: 4, ffn: 5632, vocab: 32000, context: 2048, eps: 1e-5, base: 1e4},
		{name: "mistral-7b", dim: 4096, layers: 32, heads: 32, kv: 8, ffn: 14336, vocab: 32000, context: 32768, eps: 1e-5, base: 1e4, window: 4096}, // v0.1
		{name: "mixtral-8x7b", dim: 4096, layers: 32, heads: 32, kv: 8, ffn: 14336, vocab: 32000, context: 32768, eps: 1e-5, base: 1e6, experts: 8, used: 2},
		{name: "qwen2.5-7b", dim: 3584, layers: 28, heads: 28, kv: 4, ffn: 18944, vocab: 152064, context: 131072, eps: 1e-6, base: 1e6, biases: true},
	}
}

// config is the shape in the contract's terms. Models with biases are qwen2;
// mistral and mixtral files call themselves llama.
func (s *shape) config() backend.Config {
	c := backend.Config{
		Arch: "llama", Name: "synthetic " + s.name,
		Dim: s.dim, Layers: s.layers, Heads: s.heads, KVHeads: s.kv, HeadDim: s.headDim,
		FFN: s.ffn, Vocab: s.vocab, Context: s.context, NormEps: s.eps, Window: s.window,
		Experts: s.experts, ExpertsUsed: s.used,
	}
	if s.biases {
		c.Arch = "qwen2"
	}
	if c.HeadDim == 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	c.Rope = backend.Rope{Base: s.base, Dims: c.HeadDim, Halves: s.biases, Factor: 1, OrigContext: s.context,
		BetaFast: 32, BetaSlow: 1, ExtFactor: 1, AttnFactor: 1}
	if s.llama3 > 0 {
		c.Rope.Factors = llama3Factors(&c.Rope, s.llama3)
	}
	return c
}
