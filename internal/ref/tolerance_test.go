package ref

import (
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// A block is judged by what its device rounds: only where every matrix is in blocks
// can the reference follow.
func TestArithmeticOf(t *testing.T) {
	for _, c := range []struct {
		kind   string
		types  []quant.Type
		cache  quant.Type
		device bool
		name   string
		rounds bool
		q, att float64
	}{
		{"cpu", []quant.Type{quant.Q4_K, quant.Q6_K}, quant.F16, false, "int8 in blocks of 32", true, 3e-4, 5e-4},
		{"cpu", []quant.Type{quant.F16, quant.F32}, quant.F16, false, "float32", false, 1e-9, 1e-6},
		{"cpu", []quant.Type{quant.BF16}, quant.Q8_0, false, "float32", false, 1e-9, 5e-5},
		{"cpu", []quant.Type{quant.Q8_0, quant.F16}, quant.F16, false, "int8 and float32", false, 4e-3, 4e-3},
		{"cuda", []quant.Type{quant.F32}, quant.F32, false, "float32", false, 1e-9, 1e-9},
		{"cuda", []quant.Type{quant.Q4_0}, quant.F16, false, "f16", false, 2e-5, 4e-5},
		{"metal", []quant.Type{quant.Q4_0}, quant.Q8_0, false, "f16", false, 2e-5, 5e-4},
		{"cuda", []quant.Type{quant.BF16}, quant.F32, false, "bf16", false, 1e-4, 2e-4},
		{"cuda", []quant.Type{quant.Q4_0}, quant.F16, true, "each in its own", false, 4e-3, 4e-3},
	} {
		a := ArithmeticOf(c.kind, c.types, c.cache, c.cache, c.device)
		if a.Name != c.name || a.Rounds != c.rounds || a.Block(backend.OpQ, false).NMSE != c.q || a.Block(backend.OpAttnOut, false).NMSE != c.att {
			t.Errorf("%+v: %+v", c, a)
		}
		first := a.Block(backend.OpQ, true).NMSE
		if wider := first > c.q; wider != c.rounds || a.Whole(1) != a.Whole(3) || a.Whole(6).NMSE != 2*a.Whole(3).NMSE || a.Block(backend.OpEmbed, true).NMSE > 1e-11 {
			t.Errorf("%+v: first block %g, logits %g", c, first, a.Whole(3).NMSE)
		}
	}
}
