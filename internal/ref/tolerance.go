package ref

import "drover/internal/quant"

// Tolerance is the largest NMSE of a device's values against the reference's,
// and the reason.
type Tolerance struct {
	NMSE float64
	Why  string
}

// ToleranceInt8 is for a device that rounds activations to int8 before products
// with weights in blocks: weights in format t, caches in k and v. Backendtest's
// TestTolerances measures it on the suite's own models.
func ToleranceInt8(t, k, v quant.Type) Tolerance {
	switch {
	case t.BlockElems() > 1:
		return Tolerance{4e-3, "activations rounded to int8 in blocks of 32, whatever the weights' format: 3e-4 to 2e-3 after two or three layers"}
	case k == quant.Q8_0 || v == quant.Q8_0:
		return Tolerance{1e-6, "float32 sums, and the few values that fall on the other side of a rounding to int8 in the cache: up to 4e-7"}
	case k == quant.F16 || v == quant.F16:
		return Tolerance{1e-7, "float32 sums, and the few values that fall on the other side of a rounding to f16 in the cache: up to 2e-8"}
	default:
		return Tolerance{1e-11, "float32 sums: 1e-13 to 1e-12"}
	}
}

// ToleranceHalf is for a device that rounds inputs of products, and of attention
// in prompts, to f16; F32 weights are multiplied in f32.
func ToleranceHalf(t, k, v quant.Type) Tolerance {
	switch {
	case t == quant.F32 && k == quant.F32 && v == quant.F32:
		return ToleranceInt8(t, k, v) // nothing is rounded
	case k == quant.Q8_0 || v == quant.Q8_0:
		return Tolerance{5e-4, "as with other caches, and values on the other side of a rounding in the cache: up to 2e-4"}
	}
	return Tolerance{4e-5, "activations, queries, softmax and scaled weights rounded to f16: 1e-7 to 1e-5"}
}
