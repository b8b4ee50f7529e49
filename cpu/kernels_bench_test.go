package cpu

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"drover/internal/quant"
)

// Rates of the kernels, one core. Limits to compare with: BenchmarkPeak, and
// for gemv of data in memory the core's read bandwidth.

// inL2 and inMemory are sizes of weights.
const (
	inL2     = 384 << 10
	inMemory = 192 << 20
)

// eachSet runs f for every kernel set but the generic one.
func eachSet(b *testing.B, f func(b *testing.B, k *kernels)) {
	for _, k := range kernelSets() {
		if k.isa != "generic" {
			b.Run(k.isa, func(b *testing.B) { f(b, k) })
		}
	}
}

func (k kind) String() string { return typeOf[k].String() }

// BenchmarkGemv multiplies groups that stay in the L2 cache, and then ones that
// come from memory, 4 MiB at a time.
func BenchmarkGemv(b *testing.B) {
	weights, err := reserve(inMemory, true)
	if err != nil {
		b.Fatal(err)
	}
	defer release(weights)
	fill(weights, 1)
	act, dst := make([]byte, 4096*4), make([]float32, inMemory/1024)
	eachSet(b, func(b *testing.B, k *kernels) {
		for kd := range kinds {
			for _, place := range []struct {
				name            string
				cols, all, each int
			}{{"L2", 1024, inL2, inL2}, {"memory", 4096, inMemory, 4 << 20}} {
				b.Run(kd.String()+"/"+place.name, func(b *testing.B) {
					n, stride := place.cols/blockCols, kd.groupBytes(place.cols)
					if kd.float() {
						n = place.cols
					}
					at, groups := 0, place.each/stride
					rate(b, groups*stride, "GB/s", func() {
						k.gemv[kd](&dst[0], &weights[at], &act[0], n, groups, stride)
						if at += groups * stride; at+groups*stride > place.all {
							at = 0
						}
					})
				})
			}
		}
	})
}

// rate runs f and reports amount/ns (GB/s, GOP/s) of the fastest run, since
// other processes slow down the rest.
func rate(b *testing.B, amount int, unit string, f func()) {
	fastest := time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		f()
		fastest = min(fastest, time.Since(start))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(amount)/float64(fastest.Nanoseconds()), unit)
}

// BenchmarkGemm multiplies two groups of 2048 columns with 8 panels, as prompts do.
func BenchmarkGemm(b *testing.B) {
	const cols, tiles = 2048, 8
	weights, act, dst := make([]byte, cols*128), make([]byte, tiles*cols*4*panelRows), make([]float32, panelRows*32)
	eachSet(b, func(b *testing.B, k *kernels) {
		for p := range panelKinds {
			b.Run("panel"+[...]string{"32", "32M", "16", "16M"}[p], func(b *testing.B) {
				rate(b, 2*tiles*cols*32*panelRows, "GOP/s", func() {
					for t := range tiles {
						k.gemm[p](&dst[0], 32, &weights[0], &weights[cols/32*p.bytes()], &act[t*cols*2*panelRows], cols/32)
					}
				})
			})
		}
		for kd := range kindQ8_0 {
			b.Run(kd.String(), func(b *testing.B) {
				rate(b, 2*tiles*cols/4*32*panelRows, "GOP/s", func() {
					for range tiles {
						k.gemmFloat[kd](&dst[0], 32, &weights[0], &weights[kd.groupBytes(cols/4)], &act[0], cols/4)
					}
				})
			})
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	const cols = 2048
	eachSet(b, func(b *testing.B, k *kernels) {
		for kd := kindQ8_0; kd < kindI8; kd++ {
			b.Run(kd.String(), func(b *testing.B) {
				w, panel := make([]byte, kd.groupBytes(cols)), make([]byte, cols/32*kd.panel().bytes())
				rate(b, len(panel), "GB/s", func() { k.unpack[kd](&panel[0], &w[0], cols/32) })
			})
		}
	})
}

// BenchmarkVectors reports bytes of the float32 (or cache) values read.
func BenchmarkVectors(b *testing.B) {
	const n, keys, dim = 4096, 256, 128
	x, y, z := make([]float32, n), make([]float32, n), make([]float32, n)
	act, cache := make([]byte, n*4*panelRows), make([]byte, keys*dim*4)
	for i := range x {
		x[i], y[i] = float32(i%17)-8, float32(i%13)-6
	}
	eachSet(b, func(b *testing.B, k *kernels) {
		for _, c := range []struct {
			name  string
			bytes int
			f     func()
		}{
			{"quantize1", n * 4, func() { k.quantize(&act[0], &x[0], n/32, 1, 0) }},
			{"quantize6", n * 4, func() { k.quantize(&act[0], &x[0], n/32, panelRows, 3) }},
			{"scoreF32", keys * dim * 4, func() { k.scoreF32(&z[0], &x[0], &cache[0], keys, dim) }},
			{"scoreF16", keys * dim * 2, func() { k.scoreF16(&z[0], &x[0], &cache[0], keys, dim) }},
			{"scoreQ8", keys * dim / 32 * 34, func() { k.scoreQ8(&z[0], &x[0], &cache[0], keys, dim) }},
			{"accumF32", keys * dim * 4, func() { k.accumF32(&z[0], &x[0], &cache[0], keys, dim) }},
			{"accumF16", keys * dim * 2, func() { k.accumF16(&z[0], &x[0], &cache[0], keys, dim) }},
			{"accumQ8", keys * dim / 32 * 34, func() { k.accumQ8(&z[0], &x[0], &cache[0], keys, dim) }},
			{"maxOf", n * 4, func() { k.maxOf(&x[0], n) }},
			{"expSum", n * 4, func() { k.expSum(&z[0], n, 1) }},
			{"siluMul", n * 8, func() { k.siluMul(&z[0], &x[0], &y[0], n) }},
			{"sumSquares", n * 4, func() { k.sumSquares(&x[0], n) }},
			{"scaleMul", n * 8, func() { k.scaleMul(&z[0], &x[0], &y[0], 2, n) }},
			{"add", n * 8, func() { k.add(&z[0], &x[0], n) }},
		} {
			b.Run(c.name, func(b *testing.B) {
				clear(z)
				rate(b, c.bytes, "GB/s", c.f)
			})
		}
	})
}

// fill writes weights that are finite in every layout.
func fill(w []byte, seed uint64) {
	quant.Random(quant.F32, w[:len(w)/2], seed, 1)
	copy(w[len(w)/2:], w[:len(w)/2])
	f := unsafe.Slice((*uint32)(unsafe.Pointer(&w[0])), len(w)/4)
	for i := range f {
		f[i] &= 0x3fff3fff
	}
}
