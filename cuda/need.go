package cuda

import (
	"fmt"

	"drover/backend"
	"drover/internal/quant"
)

// realGranule is what a card's memory is given out in; overhead is what modules
// and graphs take of it beside the stage.
const realGranule, overhead = 2 << 20, 24 << 20

// Need is the memory that a stage takes on a card, in bytes, from the card's
// description alone: its ISA says which kernels it runs.
// Errors: backend.ErrUnsupported.
func Need(i backend.Info, m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	return need(i.ISA, realGranule, m, runs, l)
}

func need(isa string, granule uint64, m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	if err := supported(m, runs, l); err != nil {
		return backend.Need{}, err
	}
	n := newLayout(m, runs, l, tierNumber(isa), 0).need(granule)
	if granule == realGranule {
		n.Scratch += overhead
	}
	return n, nil
}

// warpgroupTier stands for sm_90a: sm_90 but for products for prompts.
const warpgroupTier = 91

// tierNumber is 80 for sm_80.
func tierNumber(isa string) int {
	switch isa {
	case "sm_75":
		return 75
	case "sm_80":
		return 80
	case "sm_90a":
		return warpgroupTier
	}
	return 90
}

// mostHeadDim is what the kernels' registers and shared memory hold.
const mostHeadDim = 256

// supported says why a model cannot run here, or nil.
func supported(m *backend.Model, runs []backend.Range, l backend.Limits) error {
	c := &m.Config
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("cuda: %w: %s", backend.ErrUnsupported, fmt.Sprintf(format, args...))
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
