package backendtest

import "drover/internal/quant"

// Tolerance is the largest NMSE of a device's values against the reference's
// for weights in format t, and the reason.
func Tolerance(t quant.Type) (nmse float64, why string) {
	switch t {
	case quant.F32, quant.F16, quant.BF16:
		return 1e-9, "float32 arithmetic"
	default:
		return 1e-3, "activations rounded to int8"
	}
}
