package cpu

import "math"

// rmsNorm: dst[i] = x[i] / sqrt(mean(x^2) + eps) * w[i].
func (k *kernels) rmsNorm(dst, x, w *float32, eps float32, n int) {
	mean := float64(k.sumSquares(x, n)) / float64(n)
	k.scaleMul(dst, x, w, float32(1/math.Sqrt(mean+float64(eps))), n)
}
