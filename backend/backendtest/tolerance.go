package backendtest

import (
	"drover/internal/quant"
	"drover/internal/ref"
)

// Tolerance is the largest NMSE of a device's values against the reference's,
// and the reason.
type Tolerance = ref.Tolerance

// ToleranceOf is the suite's table for a device that says no other: weights in
// format t, caches in k and v. TestTolerances measures it on the suite's own
// models.
func ToleranceOf(t, k, v quant.Type) Tolerance { return ref.ToleranceInt8(t, k, v) }
