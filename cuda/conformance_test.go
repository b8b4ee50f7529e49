//go:build linux && cgo

package cuda

import (
	"strconv"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
	"drover/internal/ref"
)

// TestConformance holds every tier of kernels to the contract: on the software
// device one after the other, on a real machine its first card's. With -short two
// shapes stand for all in every tier but one.
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
				if testing.Short() {
					o.Shapes = []string{"gqa", "moe"}
				}
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

// tolerance is the usual one but for bf16, to which activations are rounded where
// weights are of that kind.
func tolerance(typ, k, v quant.Type) backendtest.Tolerance {
	if typ == quant.BF16 {
		return ref.ToleranceBF16(k, v)
	}
	return ref.ToleranceHalf(typ, k, v)
}

var _ backend.Device = (*device)(nil)
