package metal

import (
	"fmt"
	"os"

	"drover/backend"
	"drover/internal/quant"
)

// macPage is the size of a page of memory on Apple silicon.
const macPage = 16 << 10

// pageOf is the size of a page on the machine of a device: this one's, if it is a
// software device.
func pageOf(simulated bool) uint64 {
	if simulated {
		return uint64(os.Getpagesize())
	}
	return macPage
}

// Need is the memory that a stage takes on an Apple GPU, in bytes, from the GPU's
// description alone. Weights of a mapped file count by its pages, though nothing is
// copied: they are memory that the GPU holds. Errors: backend.ErrUnsupported.
func Need(i backend.Info, m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	if err := supported(m, runs, l); err != nil {
		return backend.Need{}, err
	}
	return newLayout(m, runs, l, pageOf(i.Simulated)).need(), nil
}

// What the kernels' registers and threadgroup memory hold.
const mostHeadDim, mostExperts, mostUsed = 256, 512, 32

// supported says why a model cannot run here, or nil.
func supported(m *backend.Model, runs []backend.Range, l backend.Limits) error {
	c := &m.Config
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("metal: %w: %s", backend.ErrUnsupported, fmt.Sprintf(format, args...))
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
	if c.HeadDim > mostHeadDim {
		return refuse("heads of %d values, at most %d; use the CPU", c.HeadDim, mostHeadDim)
	}
	if c.Experts > mostExperts || c.ExpertsUsed > mostUsed {
		return refuse("%d of %d experts, at most %d of %d; use the CPU", c.ExpertsUsed, c.Experts, mostUsed, mostExperts)
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
