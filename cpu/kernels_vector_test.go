package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// cacheFormat is a format of keys and values.
type cacheFormat struct {
	name  string
	typ   quant.Type
	score func(k *kernels) func(dst, q *float32, k, next *byte, lines, dim int)
	accum func(k *kernels) func(acc, p *float32, v, next *byte, lines, n, dim int)
	// widen makes float32 of a page of keys, and of values; nil for float32
	widen func(k *kernels, keys, values *float32, k0, v0 *byte, dim int)
}

var cacheFormats = []cacheFormat{
	{"f32", quant.F32,
		func(k *kernels) func(dst, q *float32, k, next *byte, lines, dim int) { return k.scoreF32 },
		func(k *kernels) func(acc, p *float32, v, next *byte, lines, n, dim int) { return k.accumF32 }, nil},
	{"f16", quant.F16,
		func(k *kernels) func(dst, q *float32, k, next *byte, lines, dim int) { return k.scoreF16 },
		func(k *kernels) func(acc, p *float32, v, next *byte, lines, n, dim int) { return k.accumF16 },
		func(k *kernels, keys, values *float32, k0, v0 *byte, dim int) {
			k.widenF16(keys, k0, backend.PageRows*dim)
			k.widenF16(values, v0, backend.PageRows*dim)
		}},
}

// TestAttentionKernels compares with float64 sums, lines and rows alone with
// those among others, and formats with their widened pages, to the bit.
func TestAttentionKernels(t *testing.T) {
	const seed = 21
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for _, f := range cacheFormats {
			for _, dim := range []int{2, 8, 16, 20, 24, 32, 40, 64, 80, 96, 128, 160, 192, 256} {
				for _, lines := range []int{1, 2, 3, 4, 5, 7, 8, 13} {
					c := newAttentionCase(t, r, k, f, lines, dim)
					c.scores()
					for _, n := range []int{1, 2, 5, 63, 64} {
						c.sums(n)
					}
				}
			}
		}
	}
}

// attentionCase is one page of keys and values, and lines that see it.
type attentionCase struct {
	t            *testing.T
	r            *rand.Rand
	k            *kernels
	f            cacheFormat
	lines, dim   int
	row          int       // bytes
	keys, values []byte    // a page each
	key, value   []float32 // (PageRows, dim) what they hold
	wide         [2][]float32
}

func newAttentionCase(t *testing.T, r *rand.Rand, k *kernels, f cacheFormat, lines, dim int) *attentionCase {
	row, n := f.typ.RowBytes(dim), backend.PageRows*dim
	c := &attentionCase{t: t, r: r, k: k, f: f, lines: lines, dim: dim, row: row,
		keys: guarded(t, backend.PageRows*row), values: guarded(t, backend.PageRows*row),
		key: make([]float32, n), value: make([]float32, n)}
	quant.Random(f.typ, c.values, r.Uint64(), 1)
	quant.Dequantize(f.typ, c.value, c.values)
	space, back := make([]byte, row), make([]float32, dim)
	for i := range backend.PageRows {
		for d := range back {
			back[d] = float32(r.NormFloat64())
		}
		k.storeKey(f.typ, c.keys, i, back, space)
		if err := quant.Quantize(f.typ, space, back); err != nil {
			t.Fatal(err)
		}
		quant.Dequantize(f.typ, c.key[i*dim:(i+1)*dim], space)
	}
	if f.widen != nil {
		c.wide = [2][]float32{guardedFloats(t, n), guardedFloats(t, n)}
		f.widen(k, &c.wide[0][0], &c.wide[1][0], &c.keys[0], &c.values[0], dim)
		for i, v := range c.value {
			if c.wide[1][i] != v || c.wide[0][i%dim*backend.PageRows+i/dim] != c.key[i] {
				t.Fatalf("%s %s: element %d of a page of %d is widened to %g and %g, want %g and %g", k.isa, f.name, i, dim,
					c.wide[0][i%dim*backend.PageRows+i/dim], c.wide[1][i], c.key[i], v)
			}
		}
	}
	return c
}

func (c *attentionCase) scores() {
	c.t.Helper()
	q := guardedFloats(c.t, c.lines*c.dim)
	for i := range q {
		q[i] = float32(c.r.NormFloat64())
	}
	size := (c.lines-1)*cutRows + backend.PageRows
	got, wide, alone := guardedFloats(c.t, size), guardedFloats(c.t, size), guardedFloats(c.t, backend.PageRows)
	c.f.score(c.k)(&got[0], &q[0], &c.keys[0], &c.keys[0], c.lines, c.dim)
	if c.f.widen != nil {
		c.k.scoreF32(&wide[0], &q[0], bytesOf(&c.wide[0][0]), &c.keys[0], c.lines, c.dim)
		same(c.t, c.k.isa+" score "+c.f.name+" widened", wide, got)
	}
	for l := range c.lines {
		c.f.score(c.k)(&alone[0], &q[l*c.dim], &c.keys[0], &c.keys[0], 1, c.dim)
		same(c.t, c.k.isa+" score "+c.f.name+" alone", alone, got[l*cutRows:][:backend.PageRows])
		for i, v := range alone {
			var want, size float64
			for d, w := range q[l*c.dim:][:c.dim] {
				x := float64(w) * float64(c.key[i*c.dim+d])
				want, size = want+x, size+math.Abs(x)
			}
			if !(math.Abs(float64(v)-want) <= 1e-6*size) {
				c.t.Fatalf("%s score %s, line %d, position %d of %d dimensions: got %g, want %g", c.k.isa, c.f.name, l, i, c.dim, v, want)
			}
		}
	}
}

func (c *attentionCase) sums(n int) {
	c.t.Helper()
	p, acc := guardedFloats(c.t, (c.lines-1)*cutRows+n), guardedFloats(c.t, c.lines*c.dim)
	for i := range acc {
		acc[i] = float32(c.r.NormFloat64())
	}
	for i := range p {
		p[i] = c.r.Float32()
	}
	v := guarded(c.t, n*c.row) // rows behind the last are not read
	copy(v, c.values)
	stepwise, wide, before := append([]float32(nil), acc...), append([]float32(nil), acc...), append([]float32(nil), acc...)
	c.f.accum(c.k)(&acc[0], &p[0], &v[0], &c.keys[0], c.lines, n, c.dim)
	if c.f.widen != nil {
		c.k.accumF32(&wide[0], &p[0], bytesOf(&c.wide[1][0]), &c.keys[0], c.lines, n, c.dim)
		same(c.t, c.k.isa+" accum "+c.f.name+" widened", wide, acc)
	}
	for l := range c.lines {
		for i := range n {
			c.f.accum(c.k)(&stepwise[l*c.dim], &p[l*cutRows+i], &c.values[i*c.row], &c.keys[0], 1, 1, c.dim)
		}
	}
	same(c.t, c.k.isa+" accum "+c.f.name+" row by row", stepwise, acc)
	for at, got := range acc {
		l, d := at/c.dim, at%c.dim
		want, size := float64(before[at]), math.Abs(float64(before[at]))
		for i, w := range p[l*cutRows:][:n] {
			x := float64(w) * float64(c.value[i*c.dim+d])
			want, size = want+x, size+math.Abs(x)
		}
		if !(math.Abs(float64(got)-want) <= 1e-6*size) {
			c.t.Fatalf("%s accum %s, line %d of %d, column %d of %d: got %g, want %g", c.k.isa, c.f.name, l, c.lines, d, c.dim, got, want)
		}
	}
}

// TestAttentionQ8 holds the kernels of q8_0 caches to their definitions: what is in integers to the bit, lines alone to
// those among others, and sums to float64.
func TestAttentionQ8(t *testing.T) {
	const seed = 25
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for _, dim := range []int{32, 64, 96, 128} {
			for _, lines := range []int{1, 3, 4, 5, 8, 13} {
				c := q8Case{t: t, r: r, k: k, lines: lines, dim: dim}
				c.scores()
				for _, seen := range []span{{0, backend.PageRows}, {0, 1}, {17, 40}, {1, 63}} {
					c.sums(seen)
				}
			}
		}
	}
}

type q8Case struct {
	t          *testing.T
	r          *rand.Rand
	k          *kernels
	lines, dim int
}

// page is one of q8_0 that store fills, and the float32 (PageRows, dim) that it holds.
func (c *q8Case) page(store func(t quant.Type, page []byte, at int, x []float32, space []byte)) (page []byte, held []float32) {
	row := quant.Q8_0.RowBytes(c.dim)
	page, held = guarded(c.t, backend.PageRows*row), make([]float32, backend.PageRows*c.dim)
	space, x := make([]byte, row), make([]float32, c.dim)
	for i := range backend.PageRows {
		for d := range x {
			x[d] = float32(c.r.NormFloat64() * math.Exp(c.r.NormFloat64()))
		}
		if i%7 == 3 { // a block at its extremes, one of zeros
			for d := range blockCols {
				x[d] = []float32{1, -1}[d%2]
			}
			clear(x[c.dim-blockCols:])
		}
		store(quant.Q8_0, page, i, x, space)
		if err := quant.Quantize(quant.Q8_0, space, x); err != nil {
			c.t.Fatal(err)
		}
		quant.Dequantize(quant.Q8_0, held[i*c.dim:(i+1)*c.dim], space)
	}
	return page, held
}

// fixed is n int16 and their scale as float64.
func fixed(q []float32, scale float32, n int) []float64 {
	x := make([]float64, n)
	for i, v := range at[int16](bytesOf(&q[0]), 0, n) {
		x[i] = float64(v) * float64(scale)
	}
	return x
}

// near says that got is a sum of products whose sizes add up to size.
func (c *q8Case) near(what string, got float32, want, size float64) {
	c.t.Helper()
	if !(math.Abs(float64(got)-want) <= 1e-6*size) {
		c.t.Fatalf("%s %s, %d lines of %d: got %g, want %g", c.k.isa, what, c.lines, c.dim, got, want)
	}
}

func (c *q8Case) scores() {
	c.t.Helper()
	keys, held := c.page(c.k.storeKey)
	q := guardedFloats(c.t, c.lines*c.dim)
	for i := range q {
		q[i] = float32(c.r.NormFloat64())
		switch l := i / c.dim; {
		case l%5 == 4 && i%c.dim > 0: // one great dimension
			q[i] *= 1e-4
		case l%11 == 3:
			q[i] = 0
		}
	}
	before, want := append([]float32(nil), q...), append([]float32(nil), q...)
	c.k.fix(&q[0], c.lines, c.dim)
	fixGeneric(&want[0], c.lines, c.dim)
	size := (c.lines-1)*cutRows + backend.PageRows
	got, alone := guardedFloats(c.t, size), guardedFloats(c.t, backend.PageRows)
	c.k.scoreQ8(&got[0], &q[0], &keys[0], &keys[0], c.lines, c.dim)
	for l := range c.lines {
		line := q[l*c.dim:][:c.dim]
		same(c.t, c.k.isa+" fix", line[:c.dim/2+1], want[l*c.dim:][:c.dim/2+1])
		scale := line[c.dim/2]
		x := fixed(line, scale, c.dim)
		for d, v := range before[l*c.dim:][:c.dim] {
			if !(math.Abs(x[d]-float64(v)) <= 0.505*float64(scale)) {
				c.t.Fatalf("%s fix: %g became %g, with a scale of %g", c.k.isa, v, x[d], scale)
			}
		}
		c.k.scoreQ8(&alone[0], &line[0], &keys[0], &keys[0], 1, c.dim)
		same(c.t, c.k.isa+" score q8_0 alone", alone, got[l*cutRows:][:backend.PageRows])
		for i, v := range alone {
			var want, size float64
			for d, w := range x {
				y := w * float64(held[i*c.dim+d])
				want, size = want+y, size+math.Abs(y)
			}
			c.near("score q8_0", v, want, size)
		}
	}
}

func (c *q8Case) sums(seen span) {
	c.t.Helper()
	values, held := c.page(c.k.storeValue)
	p, acc := guardedFloats(c.t, (c.lines-1)*cutRows+backend.PageRows), guardedFloats(c.t, c.lines*c.dim)
	for i := range acc {
		acc[i] = float32(c.r.NormFloat64())
	}
	for l := range c.lines {
		for i := seen.lo; i < seen.hi; i++ {
			p[l*cutRows+i] = c.r.Float32()
			switch l % 4 {
			case 1:
				p[l*cutRows+i] *= 0x1p-50
			case 2:
				p[l*cutRows+i] *= float32(math.Exp2(-80 * c.r.Float64()))
			case 3:
				p[l*cutRows+i] = 0
			}
		}
	}
	for i := range backend.PageRows { // what comes behind may hold anything
		if i >= seen.hi {
			for b := range c.dim / blockCols {
				le.PutUint16(values[b*34*backend.PageRows+2*i:], 0x7e00)
			}
		}
	}
	before, alone := append([]float32(nil), acc...), append([]float32(nil), acc...)
	size := weightsSize(c.lines)
	w, single, want := guardedFloats(c.t, size), guardedFloats(c.t, weightsSize(1)), make([]float32, size)
	for b := range c.dim / blockCols {
		block, cols := &values[b*34*backend.PageRows], b*blockCols
		c.k.weigh(&w[0], &p[0], block, c.lines, seen.hi)
		weighGeneric(&want[0], &p[0], block, c.lines, seen.hi)
		same(c.t, c.k.isa+" weigh", w, want)
		c.k.accumQ8(&acc[cols], &w[0], block, block, c.lines, c.dim)
		for l := range c.lines {
			c.k.weigh(&single[0], &p[l*cutRows], block, 1, seen.hi)
			c.k.accumQ8(&alone[l*c.dim+cols], &single[0], block, block, 1, c.dim)
			scale := w[c.lines*backend.PageRows/2+l]
			x := fixed(w[l*backend.PageRows/2:], scale, backend.PageRows)
			for d := cols; d < cols+blockCols; d++ {
				want := float64(before[l*c.dim+d])
				size := math.Abs(want)
				exact, off := want, 1e-6*size
				for i := seen.lo; i < seen.hi; i++ {
					pair, which := pairedPosition(i)
					f, v := float64(p[l*cutRows+i]), float64(held[i*c.dim+d])
					s := float64(quant.F16ToF32(le.Uint16(values[b*34*backend.PageRows+2*i:])))
					y := 0.0
					if s > 0 {
						y = x[2*pair+which] * (v / s)
						off += 0.505 * float64(scale) * math.Abs(v/s)
					}
					want, size = want+y, size+math.Abs(y)
					exact += f * v
				}
				c.near("accum q8_0", acc[l*c.dim+d], want, size)
				if off += 1e-6*size + 0x1p-90; !(math.Abs(float64(acc[l*c.dim+d])-exact) <= off) {
					c.t.Fatalf("%s weigh and accum q8_0: got %g, exactly %g, not within %g", c.k.isa, acc[l*c.dim+d], exact, off)
				}
			}
		}
	}
	same(c.t, c.k.isa+" accum q8_0 alone", alone, acc)
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

func TestSoftmax(t *testing.T) {
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
			x[r.IntN(n)] = -r.Float32() // so that not all are infinite
			copy(before, x)
			got, most, sum := k.softmax1(x), slices.Max(before), 0.0
			if got.most != most {
				t.Fatalf("%s: the largest of %d is %g, want %g", k.isa, n, got.most, most)
			}
			for i, v := range before {
				want := math.Exp(float64(v - most))
				worst = max(worst, ulps(x[i], want))
				if want < 1e-46 && x[i] != 0 {
					t.Fatalf("%s: exp(%g) is %g", k.isa, v-most, x[i])
				}
				sum += float64(x[i])
				two := []float32{v, most}
				if k.softmax1(two); two[0] != x[i] {
					t.Fatalf("%s: exp(%g) is %g of two and %g of %d", k.isa, v-most, two[0], x[i], n)
				}
			}
			if math.Abs(float64(got.total)-sum) > 1e-5*sum {
				t.Fatalf("%s: the sum of %d is %g, want %g", k.isa, n, got.total, sum)
			}
			// every place of the largest, all of them negative
			for i := range before {
				copy(x, before)
				for j := range x {
					x[j]--
				}
				x[i] = -1e-3
				if got := k.softmax1(x); got.most != -1e-3 {
					t.Fatalf("%s: the largest of %d, at %d, is %g", k.isa, n, i, got.most)
				}
			}
		}
		if worst > 1.5 {
			t.Errorf("%s: exp is off by %.2f units in the last place", k.isa, worst)
		}
		x := [3]float32{0, float32(math.NaN()), -1}
		if got := k.softmax1(x[:]); !math.IsNaN(float64(got.total)) || !math.IsNaN(float64(x[1])) {
			t.Errorf("%s: a NaN vanishes: %v, sum %g", k.isa, x, got.total)
		}
	}
}

// softmax1 is softmax of one line.
func (k *kernels) softmax1(x []float32) (p part) {
	k.softmax(&p.most, &x[0], len(x), 1)
	return p
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
			k.combine(&dst[0], &x[0], 0.73, 1.9, n)
			combineGeneric(&want[0], &x[0], 0.73, 1.9, n)
			same(t, k.isa+" combine", dst, want)
			if n%2 == 0 {
				copy(dst, x)
				copy(want, x)
				k.rotate(&dst[0], &w[n/2], &sum[n/2], n/2)
				rotateGeneric(&want[0], &w[n/2], &sum[n/2], n/2)
				same(t, k.isa+" rotate", dst, want)
				k.rotateHalves(&dst[0], &w[n/2], &sum[n/2], n/2)
				rotateHalvesGeneric(&want[0], &w[n/2], &sum[n/2], n/2)
				same(t, k.isa+" rotateHalves", dst, want)
			}
			if got := k.sumSquares(&x[0], n); ulps(got, squares) > 0.51 {
				t.Fatalf("%s: the squares of %d sum to %g, want %g", k.isa, n, got, squares)
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

// TestWiden holds widen to its definition, over every value of 16 bits.
func TestWiden(t *testing.T) {
	for _, k := range kernelSets() {
		for _, kd := range []kind{kindF16, kindBF16} {
			if k.widen[kd] == nil {
				continue
			}
			const n = 1 << 16
			src, got, want := guarded(t, 2*n), make([]float32, n), make([]float32, n)
			for i := range n {
				le.PutUint16(src[2*i:], uint16(i))
			}
			k.widen[kd](&got[0], &src[0], n)
			generic().widen[kd](&want[0], &src[0], n)
			for i, v := range got {
				if w := want[i]; math.Float32bits(v) != math.Float32bits(w) && !(v != v && w != w) {
					t.Fatalf("%s: %#x of kind %d becomes %g, want %g", k.isa, i, kd, v, w)
				}
			}
		}
	}
}

// TestNarrow holds narrowF16 to its definition, over every f16, the values half
// way between two, and those next to these.
func TestNarrow(t *testing.T) {
	x := []float32{float32(math.Inf(1)), 65519.996, 65520, 1e30, 0x1p-25, 0x1.000002p-25, 1e-40}
	for h := range uint16(0x7c00) {
		v, next := quant.F16ToF32(h), quant.F16ToF32(h+1)
		half := v + (next-v)/2
		x = append(x, v, half, math.Nextafter32(half, 0), math.Nextafter32(half, 1e9))
	}
	for i := range len(x) {
		x = append(x, -x[i])
	}
	for _, k := range kernelSets() {
		got, want := guarded(t, 2*len(x)), make([]byte, 2*len(x))
		k.narrowF16(&got[0], &x[0], len(x))
		narrowF16Generic(&want[0], &x[0], len(x))
		for i, v := range x {
			if g, w := le.Uint16(got[2*i:]), le.Uint16(want[2*i:]); g != w {
				t.Fatalf("%s: %g becomes %#x, want %#x", k.isa, v, g, w)
			}
		}
		for n := range 40 {
			some, nan := guarded(t, 2*n), float32(math.NaN())
			if n > 0 {
				k.narrowF16(&some[0], &x[0], n)
				k.narrowF16(&some[2*n-2], &nan, 1)
				if v := quant.F16ToF32(le.Uint16(some[2*n-2:])); v == v {
					t.Fatalf("%s: a NaN becomes %g", k.isa, v)
				}
			}
		}
	}
}

// TestLinesAndTiles holds the kernels of several lines or rows to those of one.
func TestLinesAndTiles(t *testing.T) {
	const lines = 5
	for _, k := range kernelSets() {
		for n := 1; n <= cutRows; n += 1 + n/3 {
			x := values(lines * cutRows)
			if n > 2 {
				x[1] = float32(math.NaN())
				x[cutRows+1] = float32(math.Inf(-1))
			}
			want := append([]float32(nil), x...)
			got := make([]part, lines)
			k.softmax(&got[0].most, &x[0], n, lines)
			for l := range got {
				alone := k.softmax1(want[l*cutRows:][:n])
				same(t, fmt.Sprintf("%s softmax of %d", k.isa, n), []float32{got[l].most, got[l].total}, []float32{alone.most, alone.total})
			}
			same(t, fmt.Sprintf("%s softmax of %d", k.isa, n), x, want)
		}
		const ld = 3 * groupRows
		for rows := 1; k.addTile != nil && rows <= panelRows; rows++ {
			x, dst := values(tileSize), values(panelRows*ld)
			want := append([]float32(nil), dst...)
			k.addTile(&dst[0], ld, &x[0], rows)
			for row := range rows {
				addGeneric(&want[row*ld], &x[row*2*groupRows], 2*groupRows)
			}
			same(t, k.isa+" addTile", dst, want)
		}
	}
}
