package backend

import (
	"context"
	"fmt"
	"sync"

	"drover/internal/quant"
)

// Most is the largest shapes that a GPU backend's kernels are made for.
type Most struct{ HeadDim, Experts, ExpertsUsed int }

// Check says whether they can run these blocks. Errors: ErrUnsupported with the
// backend's name, what is too large and what to use instead.
func (most Most) Check(name string, m *Model, runs []Range, l Limits) error {
	c := &m.Config
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %s", name, ErrUnsupported, fmt.Sprintf(format, args...))
	}
	for _, t := range [...]quant.Type{l.K, l.V} {
		switch t {
		case quant.F32, quant.F16:
		case quant.Q8_0:
			if c.HeadDim%32 != 0 {
				return refuse("a q8_0 cache wants a head size that is a multiple of 32, and this model's is %d; use f16", c.HeadDim)
			}
		default:
			return refuse("cache format %v; use f32, f16 or q8_0", t)
		}
	}
	if c.HeadDim > most.HeadDim {
		return refuse("heads of %d values, at most %d; use the CPU", c.HeadDim, most.HeadDim)
	}
	if c.Experts > most.Experts || c.ExpertsUsed > most.ExpertsUsed {
		return refuse("%d of %d experts, at most %d of %d; use the CPU", c.ExpertsUsed, c.Experts, most.ExpertsUsed, most.Experts)
	}
	for _, r := range runs {
		if r.Lo < 0 || r.Hi > c.Blocks() || r.Lo >= r.Hi {
			return refuse("blocks [%d, %d) of %d", r.Lo, r.Hi, c.Blocks())
		}
		for _, t := range m.Tensors(r) {
			if !t.Type.Known() {
				return refuse("%s is in %v", t.Name, t.Type)
			}
		}
	}
	return nil
}

// Pieces hands out parts of a load to the goroutines that read them, until one fails
// or the context ends, and counts their bytes.
type Pieces[P any] struct {
	ctx      context.Context
	progress func(done, total uint64) // or nil
	total    uint64

	mu    sync.Mutex
	left  []P
	done  uint64
	first error
}

// NewPieces hands out all, of total bytes, in their order.
func NewPieces[P any](ctx context.Context, all []P, total uint64, progress func(done, total uint64)) *Pieces[P] {
	return &Pieces[P]{ctx: ctx, progress: progress, total: total, left: all}
}

// Next gives the next piece, after so many bytes of the last one were read or err came
// of it; false where there is none, or after the first error.
func (p *Pieces[P]) Next(read uint64, err error) (next P, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.ctx.Err()
	}
	if p.first == nil {
		p.first = err
	}
	p.done += read
	if p.progress != nil && read > 0 {
		p.progress(p.done, p.total)
	}
	if p.first != nil || len(p.left) == 0 {
		return next, false
	}
	next, p.left = p.left[0], p.left[1:]
	return next, true
}

// Err is the first error, the context's included.
func (p *Pieces[P]) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == nil {
		return p.ctx.Err()
	}
	return p.first
}
