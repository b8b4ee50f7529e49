//go:build noasm || !amd64

package cpu

// intPeak is int8 operations a nanosecond of one core, by the prompt product:
// there is no kernel that shows the hardware's own.
func intPeak(k *kernels) (rate float64) {
	d, p := &device{k: k}, newPool(1, places{})
	for range 5 {
		rate = max(rate, d.matrixRate(p)/1e9)
	}
	return rate
}
