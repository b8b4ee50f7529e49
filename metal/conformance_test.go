//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"os"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
	"drover/internal/ref"
)

// onMac reports whether the tests run on a real GPU.
const onMac = !simulated

// with is a device of so much memory: what others hold of the same GPU is not its.
func (d *device) with(memory uint64) *device {
	g := *d.gpu
	g.working = memory + g.working - d.free()
	return &device{gpu: &g, libraries: map[string]*library{}}
}

// TestConformance holds the kernels to the contract.
func TestConformance(t *testing.T) {
	all := devices(t, 2)
	o := backendtest.Options{Name: "metal-apple8", Same: []backend.Device{all[1]}, Class: class, Tolerance: ref.ToleranceHalf,
		Small: func(memory uint64) backend.Device { return all[0].with(memory) }}
	switch {
	case onMac:
		o.Name, o.Card, o.Small = "metal-mac", true, nil
	case os.Getenv("DROVER_FULL") != "1": // formats differ in how a block is read, which TestMatvec, TestMatmul and TestExperts ask of each
		o.Types = []quant.Type{quant.F32, quant.F16, quant.BF16, quant.Q8_0, quant.Q4_0, quant.Q5_1, quant.Q2_K, quant.Q4_K, quant.Q6_K, quant.IQ4_XS, quant.MXFP4, quant.IQ3_S}
	}
	backendtest.Run(t, all[0], o)
}

// class is the row class of a batch.
func class(rows int) int {
	if rows > decodeRows {
		return 1
	}
	return 0
}

var _ backend.Device = (*device)(nil)
