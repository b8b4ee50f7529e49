package backend

import (
	"fmt"
	"runtime/debug"

	"drover/internal/quant"
)

// Config is a model's shape. internal/model checks it once: every count is
// positive and bounded, Heads is a multiple of KVHeads, and so on.
type Config struct {
	Arch    string // as the file names it: llama, mistral, qwen2
	Name    string // the model's own name, or empty
	Dim     int    // width of the hidden state
	Layers  int
	Heads   int
	KVHeads int // = Heads: MHA; < Heads: GQA; 1: MQA
	HeadDim int // even
	FFN     int // width of a feed-forward (of one expert's)
	Vocab   int
	Context int // positions the model was trained for
	NormEps float32
	Rope    Rope
	Window  int // a row sees itself and the Window-1 positions before it; 0: all

	Experts     int // 0: a dense feed-forward
	ExpertsUsed int // the router's top k; weights are a softmax over these
}

// Blocks is the number of blocks: embed, two a layer, head.
func (c *Config) Blocks() int { return 2*c.Layers + 2 }

// Group is the number of query heads that share a key/value head.
func (c *Config) Group() int { return c.Heads / c.KVHeads }

// Model is a model's shape and where its weights come from.
type Model struct {
	Config Config
	Embed  *Tensor // (vocab, dim)
	Layers []Layer
	Norm   *Tensor // (dim)
	Output *Tensor // (vocab, dim); == Embed where the two are tied
}

// Layer is one layer's tensors; optional ones are nil.
type Layer struct {
	AttnNorm *Tensor // (dim)
	Q        *Tensor // (heads*headDim, dim)
	K, V     *Tensor // (kvHeads*headDim, dim)
	O        *Tensor // (dim, heads*headDim)
	QBias    *Tensor // (heads*headDim), optional
	KBias    *Tensor // (kvHeads*headDim), optional
	VBias    *Tensor // (kvHeads*headDim), optional
	OBias    *Tensor // (dim), optional
	FFNNorm  *Tensor // (dim)
	Router   *Tensor // (experts, dim), with experts only
	Gate, Up *Tensor // (ffn, dim); with experts (experts*ffn, dim), expert after expert
	Down     *Tensor // (dim, ffn); with experts (experts*dim, ffn)
}

// Tensor is a matrix (Rows, Cols), rows contiguous in Type's blocks; a vector
// has one row.
type Tensor struct {
	Name       string // as the file names it
	Type       quant.Type
	Rows, Cols int
	Source     Source
}

// Bytes is the size of the tensor's blocks.
func (t *Tensor) Bytes() uint64 { return uint64(t.Rows) * uint64(t.Type.RowBytes(t.Cols)) }

// Read fills dst with rows [lo, hi). The error names the tensor.
func (t *Tensor) Read(dst []byte, lo, hi int) error {
	return t.Guard(func() error { return t.Source.Rows(dst, lo, hi) })
}

// Guard runs f, which reads the tensor's mapped memory, and makes an error of what
// would end the process: a file that has become shorter faults. The error names
// the tensor.
func (t *Tensor) Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault {
				panic(p)
			}
			err = fmt.Errorf("read %s: the file was changed while it was read", t.Name)
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("read %s: %w", t.Name, err)
	}
	return nil
}

// Source gives a tensor's bytes. It may be used from several goroutines.
type Source interface {
	// Rows fills dst with the blocks of rows [lo, hi).
	Rows(dst []byte, lo, hi int) error
	// Mapped is the whole tensor where it lies in mapped memory, else nil.
	Mapped() []byte
	// Drop says that rows [lo, hi) will not be read again soon: a mapped file
	// lets go of their pages.
	Drop(lo, hi int)
}

// Tensors lists every tensor that blocks [r.Lo, r.Hi) read, in their order.
func (m *Model) Tensors(r Range) []*Tensor {
	var all []*Tensor
	add := func(ts ...*Tensor) {
		for _, t := range ts {
			if t != nil {
				all = append(all, t)
			}
		}
	}
	for b := r.Lo; b < r.Hi; b++ {
		switch {
		case b == 0:
			add(m.Embed)
		case b == m.Config.Blocks()-1:
			add(m.Norm, m.Output)
		case b%2 == 1:
			l := &m.Layers[(b-1)/2]
			add(l.AttnNorm, l.Q, l.K, l.V, l.QBias, l.KBias, l.VBias, l.O, l.OBias)
		default:
			l := &m.Layers[(b-1)/2]
			add(l.FFNNorm, l.Router, l.Gate, l.Up, l.Down)
		}
	}
	return all
}
