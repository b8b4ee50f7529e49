//go:build linux && cgo

package cuda

import (
	"strconv"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

// TestConformance holds every tier of kernels to the contract: on the software
// device one after the other, on a real machine its first card's.
func TestConformance(t *testing.T) {
	if onCard() {
		all := cards(t, 0)
		t.Run("card", func(t *testing.T) {
			conform(t, all[0], all[1:], nil, backendtest.Options{Card: true, Name: "cuda-card"})
		})
		return
	}
	for _, cc := range []int{80, 90, 120, 75} {
		t.Run(strconv.Itoa(cc), func(t *testing.T) {
			all := cards(t, cc)
			o := backendtest.Options{Name: "cuda-" + all[0].info.ISA}
			if cc != 80 { // tiers differ in few instructions, not in what is around them
				o.Types = []quant.Type{quant.F32, quant.F16, quant.BF16, quant.Q8_0, quant.Q4_0, quant.Q4_K, quant.Q6_K, quant.IQ3_S}
			}
			conform(t, all[0], all[1:2], all[2], o)
		})
	}
}

func conform(t *testing.T, dev *device, others []*device, tight *device, o backendtest.Options) {
	o.Class, o.Tolerance = class, tolerance
	for _, d := range others {
		if d.info.Name == dev.info.Name {
			o.Same = append(o.Same, d)
		}
	}
	if tight != nil {
		s := &small{t: t, d: tight}
		o.Small = s.leave
		defer s.release()
	}
	backendtest.Run(t, dev, o)
}

// tolerance is for inputs of products, and of attention in prompts, rounded to f16
// (bf16 with weights of that kind); F32 weights are multiplied in f32.
func tolerance(typ, k, v quant.Type) backendtest.Tolerance {
	switch {
	case typ == quant.BF16:
		return backendtest.Tolerance{NMSE: 4e-4, Why: "activations rounded to bf16 in prompts: 1e-5 to 2e-4"}
	case typ == quant.F32 && k == quant.F32 && v == quant.F32:
		return backendtest.ToleranceOf(typ, k, v)
	}
	if k == quant.Q8_0 || v == quant.Q8_0 {
		return backendtest.Tolerance{NMSE: 5e-4, Why: "the same, and values on the other side of a rounding in the cache: up to 2e-4"}
	}
	return backendtest.Tolerance{NMSE: 4e-5, Why: "activations, queries, softmax and scaled weights rounded to f16: 1e-7 to 1e-5"}
}

var _ backend.Device = (*device)(nil)
