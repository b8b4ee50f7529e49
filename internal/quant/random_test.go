package quant

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
)

// Mean and standard deviation of 2^18 weights.
func TestRandomStatistics(t *testing.T) {
	for _, f := range Types() {
		for _, sigma := range []float64{0.02, 1e-4, 3} {
			if f == NVFP4 && sigma < 1e-3 {
				continue // its smallest scale is 2^-10
			}
			n := 1 << 18
			b, w := make([]byte, f.RowBytes(n)), make([]float32, n)
			Random(f, b, seed, float32(sigma))
			Dequantize(f, w, b)
			var sum, square float64
			for _, x := range w {
				sum += float64(x)
				square += float64(x) * float64(x)
			}
			mean := sum / float64(n)
			std := math.Sqrt(square/float64(n) - mean*mean)
			tolerance := 0.02 // the sample's, where the scale is a normal f16
			if sigma < 1e-3 {
				tolerance = 0.05 // Q6_K mixes scales of one and two f16 units
			}
			if math.Abs(std/sigma-1) > tolerance {
				t.Errorf("%v: standard deviation %v, want %v (seed %d)", f, std, sigma, seed)
			}
			if math.Abs(mean/sigma) > 0.02 {
				t.Errorf("%v: mean %v with sigma %v (seed %d)", f, mean, sigma, seed)
			}
		}
	}
}

// Whatever sigma is, weights are finite; without sigma, 0 or MXFP4's smallest.
func TestRandomFinite(t *testing.T) {
	for _, f := range Types() {
		for _, sigma := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat32, 1e30, 1e5, 1e-45, 1e-30} {
			n := 4 * 256
			b, w := make([]byte, f.RowBytes(n)), make([]float32, n)
			Random(f, b, seed, float32(sigma))
			Dequantize(f, w, b)
			for i, x := range w {
				if math.IsInf(float64(x), 0) || x != x || !(sigma > 0) && math.Abs(float64(x)) > 1e-37 {
					t.Fatalf("%v with sigma %v: weight %d is %v", f, sigma, i, x)
				}
			}
		}
	}
}

// A seed gives the same bytes, another seed others; and the bytes are these, on
// every platform.
func TestRandomDeterministic(t *testing.T) {
	all := sha256.New()
	for _, f := range Types() {
		for _, n := range []int{1, 3, 1000} {
			a, b := make([]byte, n*f.BlockBytes()), make([]byte, n*f.BlockBytes())
			Random(f, a, seed, 0.02)
			Random(f, b, seed, 0.02)
			if !bytes.Equal(a, b) {
				t.Errorf("%v: one seed, two results", f)
			}
			all.Write(a)
			Random(f, b, seed+1, 0.02)
			if n == 1000 && bytes.Equal(a, b) {
				t.Errorf("%v: two seeds, one result", f)
			}
		}
	}
	const want = "d4bdc89d97078009b25e56279dd615396a9a5e18dec4d96331ff135d505dd8b1"
	if got := fmt.Sprintf("%x", all.Sum(nil)); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
}
