//go:build !noasm

package cpu

import "time"

// intPeak is the most int8 operations a nanosecond of one core: 12 products a
// round, in registers; of tiles those of bf16, 4 a round.
func intPeak(k *kernels) (rate float64) {
	const rounds = 20000
	peak, each := peakAVX2, 2*12*32
	switch k.isa {
	case "avxvnni":
		peak = peakAVXVNNI
	case "avx512":
		peak, each = peakAVX512, 2*12*64
	case "amx":
		peak, each = peakAMX, 2*4*tileRows*groupRows*blockCols
	}
	for range 20 {
		start := time.Now()
		peak(rounds)
		rate = max(rate, float64(each*rounds)/float64(time.Since(start).Nanoseconds()))
	}
	return rate
}
