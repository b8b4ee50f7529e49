package quant

import "testing"

// Figures are GB/s on one core: of float32 for Dequantize and Quantize, of
// integers for Ints, of blocks for Random.
func report(b *testing.B, bytes int) {
	b.ReportMetric(float64(bytes)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
	b.ReportMetric(0, "ns/op")
}

const benchWeights = 1 << 14

func BenchmarkDequantize(b *testing.B) {
	for _, f := range Types() {
		src, dst := make([]byte, f.RowBytes(benchWeights)), make([]float32, benchWeights)
		Random(f, src, seed, 0.02)
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Dequantize(f, dst, src)
			}
			report(b, 4*len(dst))
		})
	}
}

func BenchmarkInts(b *testing.B) {
	for _, f := range blockTypes() {
		src, q := make([]byte, f.RowBytes(benchWeights)), make([]int8, benchWeights)
		scale, min := make([]float32, benchWeights/16), make([]float32, benchWeights/16)
		Random(f, src, seed, 0.02)
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Ints(f, q, scale, min, src)
			}
			report(b, len(q))
		})
	}
}

func BenchmarkRandom(b *testing.B) {
	for _, f := range Types() {
		dst := make([]byte, f.RowBytes(benchWeights))
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Random(f, dst, seed, 0.02)
			}
			report(b, len(dst))
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	for _, f := range encoders() {
		src, raw := make([]float32, benchWeights), make([]byte, 4*benchWeights)
		Random(F32, raw, seed, 1)
		Dequantize(F32, src, raw)
		dst := make([]byte, f.RowBytes(benchWeights))
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := Quantize(f, dst, src); err != nil {
					b.Fatal(err)
				}
			}
			report(b, 4*len(src))
		})
	}
}

// A row at a time, as synthetic models are made.
func BenchmarkRandomRow(b *testing.B) {
	dst := make([]byte, Q4_0.RowBytes(4096))
	for i := uint64(0); b.Loop(); i++ {
		Random(Q4_0, dst, i, 0.02)
	}
	report(b, len(dst))
}
