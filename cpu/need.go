package cpu

import (
	"fmt"

	"drover/backend"
	"drover/internal/quant"
)

// Need is the memory that a stage takes, in bytes. It builds the stage on an
// arena that only counts.
func Need(o Options, m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	if err := supported(m, runs, l); err != nil {
		return backend.Need{}, err
	}
	s := &stage{}
	s.layout(o, m, runs, l)
	return s.used(), nil
}

// used is what the arenas hold.
func (s *stage) used() backend.Need {
	return backend.Need{Weights: s.weights.used, Cache: s.cache.used, Scratch: s.scratch.used}
}

// supported says why a model cannot run here, or nil.
func supported(m *backend.Model, runs []backend.Range, l backend.Limits) error {
	c := &m.Config
	for _, t := range [...]quant.Type{l.K, l.V} {
		switch t {
		case quant.F32, quant.F16:
		case quant.Q8_0:
			if c.HeadDim%32 != 0 {
				return fmt.Errorf("cpu: %w: a q8_0 cache wants a head size that is a multiple of 32, and this model's is %d; use f16", backend.ErrUnsupported, c.HeadDim)
			}
		default:
			return fmt.Errorf("cpu: %w: cache format %v; use f32, f16 or q8_0", backend.ErrUnsupported, t)
		}
	}
	for _, r := range runs {
		if r.Lo < 0 || r.Hi > c.Blocks() || r.Lo >= r.Hi {
			return fmt.Errorf("cpu: %w: blocks [%d, %d) of %d", backend.ErrUnsupported, r.Lo, r.Hi, c.Blocks())
		}
		for _, t := range m.Tensors(r) {
			if !t.Type.Known() {
				return fmt.Errorf("cpu: %w: %s is in %v", backend.ErrUnsupported, t.Name, t.Type)
			}
		}
	}
	return nil
}
