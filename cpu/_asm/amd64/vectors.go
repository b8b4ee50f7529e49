package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vectors writes the kernels of n float32: whole vectors, then the rest under a
// mask, so that an element's result does not depend on its place.
func (s set) vectors() {
	s.softmax()
	s.siluMul()
	s.sumSquares()
	s.scaleMul()
	s.add()
	s.rotate()
	s.rotateHalves()
	s.prefetch()
	s.addTile()
}

// lanes is a whole vector, or the lanes of the rest.
type lanes struct {
	set
	mask Register
}

// elements repeats body over n elements, which may be 0, and moves on the pointers.
func (s set) elements(n Register, pointers []Register, body func(l lanes)) {
	s.named("", n, pointers, body)
}

// named is elements under labels of another name.
func (s set) named(name string, n Register, pointers []Register, body func(l lanes)) {
	vectors, rest, done := "vectors"+name, "rest"+name, "done"+name
	Label(vectors)
	CMPQ(n, U8(uint8(s.lanes())))
	JLT(LabelRef(rest))
	body(lanes{set: s})
	for _, r := range pointers {
		ADDQ(num(s.bytes()), r)
	}
	SUBQ(num(s.lanes()), n)
	JMP(LabelRef(vectors))
	Label(rest)
	TESTQ(n, n)
	JZ(LabelRef(done))
	body(lanes{set: s, mask: s.mask(n)})
	Label(done)
}

// mask is that of the first n lanes.
func (s set) mask(n Register) Register {
	table := GP64()
	LEAQ(data("masks"), table)
	if s.wide() {
		k := K()
		KMOVW(mem(table, 0).Idx(n, 2), k)
		return k
	}
	v := YMM()
	NEGQ(n)
	VMOVDQU(mem(table, 32).Idx(n, 4), v)
	return v
}

// load reads the lanes; the others are 0.
func (l lanes) load(m Mem) VecVirtual {
	v := l.vec()
	switch {
	case l.mask == nil:
		VMOVUPS(m, v)
	case l.wide():
		VMOVUPS_Z(m, l.mask, v)
	default:
		VMASKMOVPS(m, l.mask, v)
	}
	return v
}

func (l lanes) store(v Register, m Mem) {
	switch {
	case l.mask == nil:
		VMOVUPS(v, m)
	case l.wide():
		VMOVUPS(v, l.mask, m)
	default:
		VMASKMOVPS(v, l.mask, m)
	}
}

// keep makes the other lanes of v those of old.
func (l lanes) keep(v, old Register) {
	switch {
	case l.mask == nil:
	case l.wide():
		VBLENDMPS(v, old, l.mask, v)
	default:
		VBLENDVPS(l.mask, v, old, v)
	}
}

// fold combines the lanes of v, pairwise, into its first.
func (s set) fold(v VecVirtual, op func(a, b, to Op)) {
	t := YMM()
	x, y := v.AsX(), t.AsX()
	if s.wide() {
		VEXTRACTF64X4(U8(1), v, t)
		op(t, v.AsY(), v.AsY())
	}
	VEXTRACTF128(U8(1), v.AsY(), y)
	op(y, x, x)
	VPSHUFD(U8(0x4e), x, y)
	op(y, x, x)
	VPSHUFD(U8(0xb1), x, y)
	op(y, x, x)
}

func addFloats(a, b, to Op) { VADDPS(a, b, to) }
func maxFloats(a, b, to Op) { VMAXPS(a, b, to) }
func maxInts(a, b, to Op)   { VPMAXSD(a, b, to) }

// largest is the largest of n values at x, in the first lane: of many with several chains, since a maximum takes longer
// than a load.
func (s set) largest(name string, x, n Register) VecVirtual {
	const chains = 4
	most := make([]VecVirtual, chains)
	for i := range most {
		most[i] = s.broadcast(mem(x, 0))
	}
	s.several(name, chains, x, n, func() {
		for i, m := range most {
			VMAXPS(mem(x, i*s.bytes()), m, m)
		}
	})
	for i := 1; i < chains; i++ {
		VMAXPS(most[i], most[0], most[0])
	}
	s.named(name, n, []Register{x}, func(l lanes) {
		v := l.load(mem(x, 0))
		VMAXPS(v, most[0], v)
		l.keep(v, most[0])
		s.move(v, most[0])
	})
	s.fold(most[0], maxFloats)
	return most[0]
}

// several repeats body as long as there are count whole vectors at x.
func (s set) several(name string, count int, x, n Register, body func()) {
	Label("several" + name)
	CMPQ(n, num(count*s.lanes()))
	JLT(LabelRef("fewer" + name))
	body()
	ADDQ(num(count*s.bytes()), x)
	SUBQ(num(count*s.lanes()), n)
	JMP(LabelRef("several" + name))
	Label("fewer" + name)
}

// Constants of exp: x = k*ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite 1980:
// ln 2 in two parts), exp(r) by its series to r^7, whose rest is below 6e-9.
var (
	expLow  = float32(-104) // exp is 0 from here down
	expHigh = float32(89)   // and infinite from here up
	log2e   = float32(math.Log2E)
	ln2     = float32(math.Ln2)
	ln2Rest = float32(math.Ln2 - float64(ln2))
	series  = [8]float32{1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040}
)

func expConstants() (c []uint32) {
	for _, v := range append([]float32{expLow, expHigh, log2e, ln2, ln2Rest}, series[1:]...) {
		c = append(c, math.Float32bits(v))
	}
	return c
}

// exp holds the constants in registers, or, for AVX2, in memory.
type exp struct {
	set
	low, high, log2e, ln2, ln2Rest, bias Op
	series                               [8]Op
}

func (s set) exp() *exp {
	c := func(v float32) Op { return s.constant(math.Float32bits(v)) }
	e := &exp{set: s, low: c(expLow), high: c(expHigh), log2e: c(log2e), ln2: c(ln2), ln2Rest: c(ln2Rest)}
	for i, v := range series {
		if i > 0 {
			e.series[i] = c(v)
		}
	}
	e.series[0] = e.series[1]
	if !s.wide() {
		e.bias = s.constant(127)
	}
	return e
}

// of replaces each x by its exponential; a NaN stays one.
func (e *exp) of(x ...VecVirtual) {
	k, p := e.vecs(len(x)), e.vecs(len(x))
	each := func(do func(x, k, p VecVirtual)) {
		for i := range x {
			do(x[i], k[i], p[i])
		}
	}
	if e.wide() {
		each(func(x, _, _ VecVirtual) { VMAXPS(x, e.low, x) }) // of a NaN and a number it takes the first operand
		each(func(x, _, _ VecVirtual) { VMINPS(x, e.high, x) })
	} else {
		each(func(x, _, p VecVirtual) { e.move(e.low, p); VMAXPS(x, p, x) })
		each(func(x, _, p VecVirtual) { e.move(e.high, p); VMINPS(x, p, x) })
	}
	each(func(x, k, _ VecVirtual) { VMULPS(e.log2e, x, k) })
	each(func(_, k, _ VecVirtual) {
		if e.wide() {
			VRNDSCALEPS(U8(8), k, k)
		} else {
			VROUNDPS(U8(8), k, k)
		}
	})
	each(func(x, k, _ VecVirtual) { VFNMADD231PS(e.ln2, k, x) })
	each(func(x, k, _ VecVirtual) { VFNMADD231PS(e.ln2Rest, k, x) })
	each(func(_, _, p VecVirtual) { e.move(e.series[7], p) })
	for i := 6; i >= 0; i-- {
		each(func(x, _, p VecVirtual) { VFMADD213PS(e.series[i], x, p) })
	}
	if e.wide() {
		each(func(x, k, p VecVirtual) { VSCALEFPS(k, p, x) })
		return
	}
	// 2^k in two factors, since k may be -150 or 128
	each(func(x, k, p VecVirtual) {
		half := e.vec()
		VCVTPS2DQ(k, k)
		VPSRAD(U8(1), k, half)
		VPSUBD(half, k, k)
		for _, v := range []VecVirtual{half, k} {
			VPADDD(e.bias, v, v)
			VPSLLD(U8(23), v, v)
			VMULPS(v, p, p)
		}
		e.move(p, x)
	})
}

// sum replaces n values at x by the exponentials of what they are above most, and
// is their sum, in the first lane.
func (e *exp) sum(name string, x, n, most Register) VecVirtual {
	sum := e.vec()
	e.zero(sum)
	if e.wide() {
		e.several(name, 4, x, n, func() {
			v := e.vecs(4)
			for i, v := range v {
				VMOVUPS(mem(x, i*e.bytes()), v)
				VSUBPS(most, v, v)
			}
			e.of(v...)
			for i, v := range v {
				VMOVUPS(v, mem(x, i*e.bytes()))
				VADDPS(v, sum, sum)
			}
		})
	}
	e.named(name, n, []Register{x}, func(l lanes) {
		v := l.load(mem(x, 0))
		VSUBPS(most, v, v)
		e.of(v)
		l.store(v, mem(x, 0))
		VADDPS(sum, v, v)
		l.keep(v, sum)
		e.move(v, sum)
	})
	e.fold(sum, addFloats)
	return sum
}

// softmax takes one line after another: a line's exponentials need not wait for those
// of the line before.
func (s set) softmax() {
	s.text("softmax", "parts, x *float32, n, lines int", "softmaxGeneric.")
	parts, x, n, lines := arg("parts"), arg("x"), arg("n"), arg("lines")
	e, at, left := s.exp(), GP64(), GP64()
	loop("line", lines, func() {
		MOVQ(x, at)
		MOVQ(n, left)
		most := s.largest("Most", at, left)
		VMOVSS(most.AsX(), mem(parts, 0))
		VBROADCASTSS(most.AsX(), most)
		MOVQ(x, at)
		MOVQ(n, left)
		sum := e.sum("Sum", at, left, most)
		VMOVSS(sum.AsX(), mem(parts, 4))
		ADDQ(num(8), parts)
		ADDQ(num(4*cutRows), x)
	})
	s.end()
}

// siluMul: with e = exp(-|g|), silu(g) is g/(1+e) from 0 up and g*e/(1+e) below,
// where nothing overflows.
func (s set) siluMul() {
	s.text("siluMul", "dst, gate, up *float32, n int", "siluMulGeneric.")
	dst, gate, up, n := arg("dst"), arg("gate"), arg("up"), arg("n")
	e := s.exp()
	sign := s.constant(0x80000000)
	s.elements(n, []Register{dst, gate, up}, func(l lanes) {
		g, x := l.load(mem(gate, 0)), s.vec()
		s.or(sign, g, x)
		e.of(x)
		if s.wide() {
			below := K()
			VPMOVD2M(g, below)
			VMULPS(x, g, below, g)
		} else {
			small := s.vec()
			VMULPS(x, g, small)
			VBLENDVPS(g, small, g, g)
		}
		VADDPS(e.series[0], x, x)
		VDIVPS(x, g, g)
		VMULPS(l.load(mem(up, 0)), g, g)
		l.store(g, mem(dst, 0))
	})
	s.end()
}

// sumSquares adds in float64.
func (s set) sumSquares() {
	s.text("sumSquares", "x *float32, n int) (sum float32", "sumSquaresGeneric.")
	x, n := arg("x"), arg("n")
	sum := s.vecs(2)
	s.zero(sum[0])
	s.zero(sum[1])
	s.elements(n, []Register{x}, func(l lanes) {
		v, d := l.load(mem(x, 0)), s.vec()
		if s.wide() {
			VCVTPS2PD(v.AsY(), d)
			VEXTRACTF64X4(U8(1), v, v.AsY())
			VCVTPS2PD(v.AsY(), v)
		} else {
			VCVTPS2PD(v.AsX(), d)
			VEXTRACTF128(U8(1), v, v.AsX())
			VCVTPS2PD(v.AsX(), v)
		}
		VFMADD231PD(d, d, sum[0])
		VFMADD231PD(v, v, sum[1])
	})
	v, t := sum[0], YMM()
	VADDPD(sum[1], v, v)
	if s.wide() {
		VEXTRACTF64X4(U8(1), v, t)
		VADDPD(t, v.AsY(), v.AsY())
	}
	VEXTRACTF128(U8(1), v.AsY(), t.AsX())
	VADDPD(t.AsX(), v.AsX(), v.AsX())
	VPSHUFD(U8(0x4e), v.AsX(), t.AsX())
	VADDSD(t.AsX(), v.AsX(), v.AsX())
	VCVTSD2SS(v.AsX(), v.AsX(), v.AsX())
	Store(v.AsX(), ReturnIndex(0))
	s.end()
}

func (s set) scaleMul() {
	s.text("scaleMul", "dst, x, w *float32, scale float32, n int", "scaleMulGeneric, to the bit.")
	dst, x, w, n := arg("dst"), arg("x"), arg("w"), arg("n")
	scale := s.vec()
	VBROADCASTSS(NewParamAddr("scale", 24), scale)
	s.elements(n, []Register{dst, x, w}, func(l lanes) {
		v := l.load(mem(x, 0))
		VMULPS(scale, v, v)
		VMULPS(l.load(mem(w, 0)), v, v)
		l.store(v, mem(dst, 0))
	})
	s.end()
}

func (s set) add() {
	s.text("add", "dst, x *float32, n int", "addGeneric, to the bit.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	s.elements(n, []Register{dst, x}, func(l lanes) {
		v := l.load(mem(dst, 0))
		VADDPS(l.load(mem(x, 0)), v, v)
		l.store(v, mem(dst, 0))
	})
	s.end()
}

// addTile adds the 32 columns of a tile's rows.
func (s set) addTile() {
	s.text("addTile", "dst *float32, ld int, x *float32, rows int", "add of a tile's rows.")
	dst, ld, x, rows := arg("dst"), arg("ld"), arg("x"), arg("rows")
	SHLQ(U8(2), ld)
	loop("row", rows, func() {
		for i := range 32 / s.lanes() {
			v := s.f32(mem(x, 0), i)
			VADDPS(mem(dst, i*s.bytes()), v, v)
			VMOVUPS(v, mem(dst, i*s.bytes()))
		}
		ADDQ(num(128), x)
		ADDQ(ld, dst)
	})
	s.end()
}

// rotate has pairs side by side: x*cos + swapped x*(-sin, sin).
func (s set) rotate() {
	s.text("rotate", "x, cos, sin *float32, n int", "rotateGeneric, to the bit, of whole vectors.")
	x, cos, sin, n := arg("x"), arg("cos"), arg("sin"), arg("n")
	twice, sign := s.vec(), s.vec()
	s.move(data("twice"), twice)
	s.move(data("minusPlus"), sign)
	SHRQ(U8(uint8(shift(s.lanes()/2))), n)
	double := func(m Mem) VecVirtual {
		v := s.vec()
		if s.wide() {
			VMOVUPS(m, v.AsY())
		} else {
			VMOVUPS(m, v.AsX())
		}
		VPERMPS(v, twice, v)
		return v
	}
	loop("pairs", n, func() {
		c, d, v, w := double(mem(cos, 0)), double(mem(sin, 0)), s.vec(), s.vec()
		VMOVUPS(mem(x, 0), v)
		VPERMILPS(U8(0xb1), v, w)
		s.xor(sign, d, d)
		VMULPS(c, v, v)
		VMULPS(d, w, w)
		VADDPS(w, v, v)
		VMOVUPS(v, mem(x, 0))
		ADDQ(num(s.bytes()), x)
		ADDQ(num(s.bytes()/2), cos)
		ADDQ(num(s.bytes()/2), sin)
	})
	s.end()
}

// shift is log2 of a power of two.
func shift(n int) (k int) {
	for n > 1 {
		n, k = n/2, k+1
	}
	return k
}

func (s set) rotateHalves() {
	s.text("rotateHalves", "x, cos, sin *float32, n int", "rotateHalvesGeneric, to the bit.")
	x, cos, sin, n := arg("x"), arg("cos"), arg("sin"), arg("n")
	half := GP64()
	LEAQ(mem(x, 0).Idx(n, 4), half)
	s.elements(n, []Register{x, half, cos, sin}, func(l lanes) {
		u, v, c, d := l.load(mem(x, 0)), l.load(mem(half, 0)), l.load(mem(cos, 0)), l.load(mem(sin, 0))
		a, b := s.vec(), s.vec()
		VMULPS(c, u, a)
		VMULPS(d, v, b)
		VSUBPS(b, a, a)
		VMULPS(d, u, u)
		VMULPS(c, v, v)
		VADDPS(v, u, u)
		l.store(a, mem(x, 0))
		l.store(u, mem(half, 0))
	})
	s.end()
}

func (s set) prefetch() {
	s.text("prefetch", "x *float32, ld, rows int", "two lines of each row.")
	x, ld, rows := arg("x"), arg("ld"), arg("rows")
	SHLQ(U8(2), ld)
	loop("row", rows, func() {
		PREFETCHT0(mem(x, 0))
		PREFETCHT0(mem(x, 64))
		ADDQ(ld, x)
	})
	RET()
}
