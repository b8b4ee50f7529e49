//go:build !noasm

package cpu

import "testing"

// BenchmarkPeak is what BenchmarkGemm is to be compared with: integer products in registers.
func BenchmarkPeak(b *testing.B) {
	const rounds = 10000
	for _, k := range kernelSets() {
		peak, lanes := peakAVX2, 32
		switch k.isa {
		case "avx512":
			peak, lanes = peakAVX512, 64
		case "generic":
			continue
		}
		b.Run(k.isa, func(b *testing.B) {
			rate(b, 2*12*lanes*rounds, "GOP/s", func() { peak(rounds) })
		})
	}
}
