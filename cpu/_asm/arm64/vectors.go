package main

import "math"

// Kernels of n float32, R9: 16 at a time where that helps, then 4, then one in
// lane 0 by the same instructions, so that an element's result does not depend
// on its place.

// lanes is what one round of a loop takes: whole vectors, or one element.
type lanes struct {
	vectors int
	one     bool
}

func (l lanes) load(v, r, i int) {
	if l.one {
		ldrS(v, r, 0)
	} else {
		ldrQ(v, r, i*16)
	}
}

func (l lanes) store(v, r, i int) {
	if l.one {
		strS(v, r, 0)
	} else {
		strQ(v, r, i*16)
	}
}

// elements repeats body over R9 elements, which may be 0, most of the time for
// most vectors, and moves on the pointers.
func elements(name string, most int, pointers []int, body func(l lanes)) {
	steps := []lanes{{vectors: 1}, {1, true}}
	if most > 1 {
		steps = append([]lanes{{vectors: most}}, steps...)
	}
	for i, l := range steps {
		n := 4 * l.vectors
		if l.one {
			n = 1
		}
		p("CMP $%d, R9", n)
		p("BLT %s_less%d", name, i)
		label("%s_%d", name, i)
		body(l)
		for _, r := range pointers {
			p("ADD $%d, R%d", 4*n, r)
		}
		p("SUB $%d, R9", n)
		p("CMP $%d, R9", n)
		p("BGE %s_%d", name, i)
		label("%s_less%d", name, i)
	}
}

func vectors() {
	maxOf()
	expSum()
	siluMul()
	sumSquares()
	scaleMul()
	add()
}

func maxOf() {
	const name, x, most = "maxOfNEON", 0, 16
	text(name, 20)
	p("MOVD x+0(FP), R0")
	p("MOVD n+8(FP), R9")
	ldrS(most, x, 0)
	for i := range 4 {
		dup(most+i, most, 0)
	}
	elements(name, 4, []int{x}, func(l lanes) {
		for i := range l.vectors {
			l.load(i, x, i)
			if l.one {
				dup(i, i, 0)
			}
			fmax(most+i, most+i, i)
		}
	})
	fold(most, 4, fmax)
	fmaxv(most, most)
	p("FMOVS F%d, most+16(FP)", most)
	p("RET")
}

// fold combines n vectors from v on into the first.
func fold(v, n int, op func(d, a, b int)) {
	for n /= 2; n > 0; n /= 2 {
		for i := range n {
			op(v+i, v+i, v+n+i)
		}
	}
}

// The constants of exp, in every lane: x = k*ln 2 + r with |r| <= ln 2 / 2 (Cody
// and Waite 1980: ln 2 in two parts), exp(r) by its series to r^7, whose rest is
// below 6e-9.
const (
	expLow  = 16 + iota // exp is 0 from here down
	expHigh             // and infinite from here up
	log2e
	ln2
	ln2Rest
	bias // of the exponent, an integer
	series
)

func expConstants() {
	upper := float32(math.Ln2)
	for i, v := range []float32{-104, 89, math.Log2E, upper, float32(math.Ln2 - float64(upper)), math.Float32frombits(127),
		1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040} {
		dwords(expLow+i, math.Float32bits(v))
	}
}

// exp replaces V0 by its exponential and uses V1 to V3; a NaN stays one.
func exp() {
	const x, k, even, odd = 0, 1, 2, 3
	fmax(x, x, expLow)
	fmin(x, x, expHigh)
	fmul(k, x, log2e)
	frintn(k, k)
	fmls(x, k, ln2)
	fmls(x, k, ln2Rest)
	sum, next := series+7, even
	for i := 6; i >= 0; i-- {
		mov(next, series+i)
		fmla(next, sum, x)
		sum, next = next, even+odd-next
	}
	// 2^k in two factors, since k may be -150 or 128
	half := next
	fcvtns(k, k)
	sshrS(half, k, 1)
	subS(k, k, half)
	for _, v := range []int{half, k} {
		addS(v, v, bias)
		shlS(v, v, 23)
		fmul(sum, sum, v)
	}
	mov(x, sum)
}

func expSum() {
	const name, x, sum, most = "expSumNEON", 0, 30, 31
	text(name, 28)
	p("MOVD x+0(FP), R0")
	p("MOVD n+8(FP), R9")
	p("FMOVS max+16(FP), F%d", most)
	dup(most, most, 0)
	expConstants()
	zero(sum)
	elements(name, 1, []int{x}, func(l lanes) {
		l.load(0, x, 0)
		fsub(0, 0, most)
		exp()
		l.store(0, x, 0)
		if l.one {
			fmovS(0, 0) // the other lanes are not 0
		}
		fadd(sum, sum, 0)
	})
	faddp(sum, sum, sum)
	faddp(sum, sum, sum)
	p("FMOVS F%d, sum+24(FP)", sum)
	p("RET")
}

// siluMul: with e = exp(-|g|), silu(g) is g/(1+e) from 0 up and g*e/(1+e) below,
// where nothing overflows.
func siluMul() {
	const name, dst, gate, up = "siluMulNEON", 0, 1, 2
	const g, small, below, sign = 4, 5, 6, 31
	text(name, 32)
	p("MOVD dst+0(FP), R0")
	p("MOVD gate+8(FP), R1")
	p("MOVD up+16(FP), R2")
	p("MOVD n+24(FP), R9")
	expConstants()
	dwords(sign, 0x80000000)
	elements(name, 1, []int{dst, gate, up}, func(l lanes) {
		l.load(g, gate, 0)
		orr(0, g, sign)
		exp()
		fmul(small, g, 0)
		negative(below, g)
		bsl(below, small, g)
		fadd(0, 0, series)
		fdiv(0, below, 0)
		l.load(g, up, 0)
		fmul(0, 0, g)
		l.store(0, dst, 0)
	})
	p("RET")
}

// sumSquares adds in float64.
func sumSquares() {
	const name, x, sum = "sumSquaresNEON", 0, 16
	text(name, 20)
	p("MOVD x+0(FP), R0")
	p("MOVD n+8(FP), R9")
	for i := range 8 {
		zero(sum + i)
	}
	elements(name, 4, []int{x}, func(l lanes) {
		for i := range l.vectors {
			l.load(i, x, i)
			fcvtlD(4+i, i)
			fcvtl2D(i, i)
			fmlaD(sum+2*i, 4+i, 4+i)
			fmlaD(sum+2*i+1, i, i)
		}
	})
	fold(sum, 8, faddD)
	faddpD(sum, sum)
	fcvtSD(sum, sum)
	p("FMOVS F%d, sum+16(FP)", sum)
	p("RET")
}

func scaleMul() {
	const name, dst, x, w, scale = "scaleMulNEON", 0, 1, 2, 16
	text(name, 40)
	p("MOVD dst+0(FP), R0")
	p("MOVD x+8(FP), R1")
	p("MOVD w+16(FP), R2")
	p("FMOVS scale+24(FP), F%d", scale)
	p("MOVD n+32(FP), R9")
	elements(name, 4, []int{dst, x, w}, func(l lanes) {
		for i := range l.vectors {
			l.load(i, x, i)
			l.load(4+i, w, i)
			fmulE(i, i, scale, 0)
			fmul(i, i, 4+i)
			l.store(i, dst, i)
		}
	})
	p("RET")
}

func add() {
	const name, dst, x = "addNEON", 0, 1
	text(name, 24)
	p("MOVD dst+0(FP), R0")
	p("MOVD x+8(FP), R1")
	p("MOVD n+16(FP), R9")
	elements(name, 4, []int{dst, x}, func(l lanes) {
		for i := range l.vectors {
			l.load(i, x, i)
			l.load(4+i, dst, i)
			fadd(i, 4+i, i)
			l.store(i, dst, i)
		}
	})
	p("RET")
}
