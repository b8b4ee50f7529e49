package backendtest

import (
	"math"

	"drover/internal/quant"
)

// Tolerance is the largest NMSE of a device's values against the reference's,
// and the reason.
type Tolerance struct {
	NMSE float64
	Why  string
}

// ToleranceOf is the suite's only table: weights in format t, caches in k and
// v. TestTolerances measures it on the suite's own models.
func ToleranceOf(t, k, v quant.Type) Tolerance {
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

// Int8Blocks is the usual rounding of activations: 32 values share a float32
// scale, their largest magnitude over 127, and each is the nearest multiple of
// it, ties to even.
func Int8Blocks(row []float64) {
	for len(row) > 0 {
		n := min(32, len(row))
		var most float32
		for _, v := range row[:n] {
			most = max(most, float32(math.Abs(v)))
		}
		if most > 0 {
			inv, scale := 127/most, float64(most/127)
			for i, v := range row[:n] {
				row[i] = math.RoundToEven(float64(float32(v)*inv)) * scale
			}
		}
		row = row[n:]
	}
}
