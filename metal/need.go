package metal

import (
	"os"

	"drover/backend"
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
	if err := most().Check("metal", m, runs, l); err != nil {
		return backend.Need{}, err
	}
	return newLayout(m, runs, l, pageOf(i.Simulated)).need(), nil
}

// What the kernels' registers and threadgroup memory hold.
func most() backend.Most { return backend.Most{HeadDim: 256, Experts: 512, ExpertsUsed: 32} }
