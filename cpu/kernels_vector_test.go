package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"drover/internal/quant"
)

// cacheFormat is a format of keys and values.
type cacheFormat struct {
	name         string
	typ          quant.Type
	score, accum func(k *kernels) func(out, in *float32, cache *byte, n, dim int)
}

var cacheFormats = []cacheFormat{
	{"f32", quant.F32,
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.scoreF32 },
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.accumF32 }},
	{"f16", quant.F16,
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.scoreF16 },
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.accumF16 }},
	{"q8_0", quant.Q8_0,
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.scoreQ8 },
		func(k *kernels) func(out, in *float32, cache *byte, n, dim int) { return k.accumQ8 }},
}

// TestAttentionKernels compares with float64 sums, and rows alone with rows among others.
func TestAttentionKernels(t *testing.T) {
	const seed = 21
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for _, f := range cacheFormats {
			for _, dim := range []int{2, 8, 16, 20, 24, 32, 40, 64, 80, 96, 128, 160, 192, 256} {
				if f.typ == quant.Q8_0 && dim%32 != 0 {
					continue
				}
				for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 64} {
					checkAttention(t, r, k, f, n, dim)
				}
			}
		}
	}
}

func checkAttention(t *testing.T, r *rand.Rand, k *kernels, f cacheFormat, n, dim int) {
	t.Helper()
	row := f.typ.RowBytes(dim)
	cache, values := guarded(t, n*row), make([]float32, n*dim)
	quant.Random(f.typ, cache, r.Uint64(), 1)
	quant.Dequantize(f.typ, values, cache)
	q, p := guardedFloats(t, dim), guardedFloats(t, n)
	scores, acc := guardedFloats(t, n), guardedFloats(t, dim)
	for i := range q {
		q[i], acc[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
	}
	for i := range p {
		p[i] = r.Float32()
	}
	f.score(k)(&scores[0], &q[0], &cache[0], n, dim)
	for i, got := range scores {
		var want, size float64
		for d, v := range q {
			x := float64(v) * float64(values[i*dim+d])
			want, size = want+x, size+math.Abs(x)
		}
		if math.Abs(float64(got)-want) > 3e-7*size {
			t.Fatalf("%s score %s, %d of %d rows of %d: got %g, want %g", k.isa, f.name, i, n, dim, got, want)
		}
		var alone float32
		f.score(k)(&alone, &q[0], &cache[i*row], 1, dim)
		if alone != got {
			t.Fatalf("%s score %s, row %d of %d of %d: %g, alone %g", k.isa, f.name, i, n, dim, got, alone)
		}
	}
	want, size := make([]float64, dim), make([]float64, dim)
	stepwise := append([]float32(nil), acc...)
	for d := range dim {
		want[d], size[d] = float64(acc[d]), math.Abs(float64(acc[d]))
		for i, w := range p {
			x := float64(w) * float64(values[i*dim+d])
			want[d], size[d] = want[d]+x, size[d]+math.Abs(x)
		}
	}
	f.accum(k)(&acc[0], &p[0], &cache[0], n, dim)
	for i := range n {
		f.accum(k)(&stepwise[0], &p[i], &cache[i*row], 1, dim)
	}
	for d, got := range acc {
		if math.Abs(float64(got)-want[d]) > 1e-6*size[d] {
			t.Fatalf("%s accum %s, %d rows, column %d of %d: got %g, want %g", k.isa, f.name, n, d, dim, got, want[d])
		}
		if stepwise[d] != got {
			t.Fatalf("%s accum %s, %d rows, column %d of %d: %g, row by row %g", k.isa, f.name, n, d, dim, got, stepwise[d])
		}
	}
}

// lengths are the vectors' lengths: every rest, and long ones.
func lengths() []int {
	n := []int{100, 128, 1000, 1027}
	for i := 1; i <= 70; i++ {
		n = append(n, i)
	}
	return n
}

// ulps is the distance of got from want in units of want's last place.
func ulps(got float32, want float64) float64 {
	w := float32(math.Abs(want))
	unit := float64(math.Nextafter32(w, math.MaxFloat32)) - float64(w)
	return math.Abs(float64(got)-want) / unit
}

func TestExpSum(t *testing.T) {
	const seed = 22
	r := rand.New(rand.NewPCG(seed, 0))
	inf := float32(math.Inf(-1))
	for _, k := range kernelSets() {
		worst := 0.0
		for _, n := range lengths() {
			x, before := guardedFloats(t, n), make([]float32, n)
			for i := range x {
				x[i] = -r.Float32() * []float32{1e-6, 0.5, 20, 110}[r.IntN(4)]
				if r.IntN(8) == 0 {
					x[i] = []float32{0, inf, -104, -103.5, -1e30, -87.4}[r.IntN(6)]
				}
			}
			most := float32(r.IntN(3))
			copy(before, x)
			got := k.expSum(&x[0], n, most)
			sum := 0.0
			for i, v := range before {
				want := math.Exp(float64(v - most))
				worst = max(worst, ulps(x[i], want))
				if want < 1e-46 && x[i] != 0 {
					t.Fatalf("%s: exp(%g) is %g", k.isa, v-most, x[i])
				}
				sum += float64(x[i])
				one := []float32{v}
				if k.expSum(&one[0], 1, most); one[0] != x[i] {
					t.Fatalf("%s: exp(%g) is %g alone and %g among %d", k.isa, v-most, one[0], x[i], n)
				}
			}
			if math.Abs(float64(got)-sum) > 1e-5*sum {
				t.Fatalf("%s: the sum of %d is %g, want %g", k.isa, n, got, sum)
			}
		}
		if worst > 1.5 {
			t.Errorf("%s: exp is off by %.2f units in the last place", k.isa, worst)
		}
		x := [3]float32{0, float32(math.NaN()), -1}
		if sum := k.expSum(&x[0], 3, 0); !math.IsNaN(float64(sum)) || !math.IsNaN(float64(x[1])) {
			t.Errorf("%s: a NaN vanishes: %v, sum %g", k.isa, x, sum)
		}
	}
}

func TestSiluMul(t *testing.T) {
	const seed = 23
	r := rand.New(rand.NewPCG(seed, 0))
	special := []float32{0, float32(math.Copysign(0, -1)), 88.8, -88.8, 103, -103, 200, -200, 1e30, -1e30, 1e-40, -1e-40}
	for _, k := range kernelSets() {
		for _, n := range lengths() {
			gate, up, dst := guardedFloats(t, n), guardedFloats(t, n), guardedFloats(t, n)
			for i := range gate {
				gate[i], up[i] = float32(r.NormFloat64()*20), float32(r.NormFloat64())
				if r.IntN(4) == 0 {
					gate[i] = special[r.IntN(len(special))]
				}
			}
			k.siluMul(&dst[0], &gate[0], &up[0], n)
			for i, g := range gate {
				silu := float64(g) / (1 + math.Exp(-float64(g)))
				want := silu * float64(up[i])
				if diff := math.Abs(float64(dst[i]) - want); !(diff <= 4e-7*math.Abs(want)+1e-37) {
					t.Fatalf("%s: silu(%g)*%g is %g, want %g", k.isa, g, up[i], dst[i], want)
				}
				var one float32
				if k.siluMul(&one, &gate[i], &up[i], 1); one != dst[i] {
					t.Fatalf("%s: silu(%g)*%g is %g alone and %g among %d", k.isa, g, up[i], one, dst[i], n)
				}
			}
			k.siluMul(&gate[0], &gate[0], &up[0], n) // in place
			for i, v := range gate {
				if v != dst[i] {
					t.Fatalf("%s: in place %g, apart %g", k.isa, v, dst[i])
				}
			}
		}
	}
}

func TestElementwise(t *testing.T) {
	const seed = 24
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for _, n := range lengths() {
			x, w, dst, sum := guardedFloats(t, n), guardedFloats(t, n), guardedFloats(t, n), guardedFloats(t, n)
			squares := 0.0
			for i := range x {
				x[i], w[i], sum[i] = float32(r.NormFloat64()*5)-20, float32(r.NormFloat64()), float32(r.NormFloat64())
				squares += float64(x[i]) * float64(x[i])
			}
			want := append([]float32(nil), sum...)
			k.add(&sum[0], &x[0], n)
			addGeneric(&want[0], &x[0], n)
			same(t, k.isa+" add", sum, want)
			k.scaleMul(&dst[0], &x[0], &w[0], 0.37, n)
			scaleMulGeneric(&want[0], &x[0], &w[0], 0.37, n)
			same(t, k.isa+" scaleMul", dst, want)
			if got := k.sumSquares(&x[0], n); ulps(got, squares) > 0.51 {
				t.Fatalf("%s: the squares of %d sum to %g, want %g", k.isa, n, got, squares)
			}
			// every place of the largest, all of them negative
			for i := range x {
				old := x[i]
				x[i] = -1e-3
				if got := k.maxOf(&x[0], n); got != maxOfGeneric(&x[0], n) {
					t.Fatalf("%s: the largest of %d is %g, want %g", k.isa, n, got, maxOfGeneric(&x[0], n))
				}
				x[i] = old
			}
		}
	}
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d of %d is %g, want %g", what, i, len(got), v, want[i])
		}
	}
}
