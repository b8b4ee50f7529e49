//go:build !noasm

package cpu

import "time"

// intPeak is the most int8 operations a nanosecond of one core: 12 products a
// round, in registers.
func intPeak(k *kernels) (rate float64) {
	const rounds = 20000
	peak, lanes := peakAVX2, 32
	switch k.isa {
	case "avxvnni":
		peak = peakAVXVNNI
	case "avx512":
		peak, lanes = peakAVX512, 64
	}
	for range 20 {
		start := time.Now()
		peak(rounds)
		rate = max(rate, float64(2*12*lanes*rounds)/float64(time.Since(start).Nanoseconds()))
	}
	return rate
}
