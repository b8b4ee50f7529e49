package cuda

import (
	"drover/backend"
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
	if err := most().Check("cuda", m, runs, l); err != nil {
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

// most is what the kernels' registers and shared memory hold.
func most() backend.Most {
	return backend.Most{HeadDim: 256, Experts: mostExperts, ExpertsUsed: mostUsed}
}
