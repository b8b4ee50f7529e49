package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// rec is the offset of dword i of row t in an activation record of panelRows rows.
func rec(i, t int) int { return (i*panelRows + t) * 4 }

// biasOf, scaleOf and sumOf are the dwords of half h in an activation record.
func (l layout) biasOf(h int) int {
	if l.halves {
		return 9 + h
	}
	return 8
}

func (l layout) sumOf(h int) int {
	if l.halves {
		return 13 + h
	}
	return 12
}

const scaleOf = 11

// biased makes of -128 times a sum of activations -bias times it.
func biased(bias int, v VecVirtual) {
	if shift := 7 - bits.TrailingZeros(uint(bias)); shift > 0 {
		VPSRAD(U8(uint8(shift)), v, v)
	}
}

// span is the vectors [lo, hi) of half h.
func (l layout) span(h int) (lo, hi int) {
	if l.halves {
		return 4 * h, 4*h + 4
	}
	return 0, 8
}

func (s set) gemm(l layout) {
	s.text("gemm"+l.name, "dst *float32, ld int, a, b, act *byte, n int", "gemmGeneric of panel"+l.name+".")
	if s.wide() {
		s.gemmWide(l)
	} else {
		s.gemmNarrow(l)
	}
	s.end()
}

// gemmWide: a tile of 32 rows times 6 activation rows, 12 int32 and 12 float32
// sums in registers. The limit is VPDPBUSD; each broadcast serves two.
func (s set) gemmWide(l layout) {
	dst, ld, act, n := arg("dst"), arg("ld"), arg("act"), arg("n")
	w := [2]GPVirtual{arg("a"), arg("b")}
	acc := s.tile(2)
	for g := range acc {
		for _, v := range acc[g] {
			s.zero(v)
		}
	}
	loop("block", n, func() {
		for h := range l.count() {
			sum := s.dots(l, h, act, mem(w[0], 0), mem(w[1], 0))
			for g := range 2 {
				scale := s.f32(mem(w[g], 512+64*h), 0)
				for t := range panelRows {
					v := s.vec()
					VMULPS_BCST(mem(act, rec(scaleOf, t)), scale, v)
					VCVTDQ2PS(sum[g][t], sum[g][t])
					VFMADD231PS(v, sum[g][t], acc[g][t])
				}
			}
		}
		if l.min {
			for h := range l.count() {
				for g := range 2 {
					least := s.f32(mem(w[g], 512+64*(l.count()+h)), 0)
					for t := range panelRows {
						VFMADD231PS_BCST(mem(act, rec(l.sumOf(h), t)), least, acc[g][t])
					}
				}
			}
		}
		ADDQ(num(l.block), w[0])
		ADDQ(num(l.block), w[1])
		ADDQ(num(64*panelRows), act)
	})
	SHLQ(U8(2), ld)
	s.storeTile(acc, dst, ld)
}

// dots is the integer sums of half h of two vectors of rows, whose weights
// lie at u.
func (s set) dots(l layout, h int, act Register, u ...Mem) [][]VecVirtual {
	sum := s.tile(2)
	for t := range panelRows {
		if l.bias == 0 {
			s.zero(sum[0][t])
		} else {
			VPBROADCASTD(mem(act, rec(l.biasOf(h), t)), sum[0][t])
		}
		s.move(sum[0][t], sum[1][t])
	}
	for j, end := l.span(h); j < end; j++ {
		v := s.vecs(2)
		for i := range v {
			s.move(u[i].Offset(j*64), v[i])
		}
		for t := range panelRows {
			q := s.vec()
			VPBROADCASTD(mem(act, rec(j, t)), q)
			VPDPBUSD(q, v[0], sum[0][t])
			VPDPBUSD(q, v[1], sum[1][t])
		}
	}
	return sum
}

// tile is n by panelRows registers.
func (s set) tile(n int) [][]VecVirtual {
	v := make([][]VecVirtual, n)
	for i := range v {
		v[i] = s.vecs(panelRows)
	}
	return v
}

// narrow is gemm of 256 bits. The float32 sums stay in dst: int32 sums, weights
// and constants fill the 16 registers. With AVX-VNNI it is 16 rows at a time, and
// each broadcast serves two products; with AVX2 8 rows, four passes over the panels.
//
// The limit is two multiplications a cycle: for 8 rows times 6 activation rows 48
// VPDPBUSD; with AVX2 48 VPMADDUBSW and, for each int16 sum, VPMADDWD. Small
// weights allow int16 sums of several products (see dot). Those of Q4_0, Q5_0 and
// Q6_K are small, but share their panels with formats whose are not: so a pass of
// a panel with bias begins with small, and any takes over at the first block that
// is not such.
type narrow struct {
	set
	layout
	w, a           Register
	dst, below, ld Register // rows 0 and 3 of the tile, ld bytes apart
	ones           Register
}

func (s set) gemmNarrow(l layout) {
	dst, ld, act, n := arg("dst"), arg("ld"), arg("act"), arg("n")
	first, second := arg("a"), arg("b")
	groups, halves, left := GP64(), GP64(), GP64()
	g := &narrow{set: s, layout: l, w: GP64(), a: GP64(), dst: dst, below: GP64(), ld: ld}
	SHLQ(U8(2), ld)
	LEAQ(mem(dst, 0).Idx(ld, 2), g.below)
	ADDQ(ld, g.below)
	if !s.vnni {
		g.ones = s.dword(0x00010001)
	}
	pass := func() {
		MOVQ(first, g.w)
		MOVQ(act, g.a)
		MOVQ(n, left)
		g.clear()
		g.pass(left)
		for _, r := range []Register{dst, g.below, first} {
			ADDQ(num(32*g.across()), r)
		}
	}
	MOVQ(U32(2), groups)
	loop("group", groups, func() {
		if s.vnni {
			pass()
		} else {
			MOVQ(U32(2), halves)
			loop("half", halves, pass)
		}
		MOVQ(second, first)
	})
}

// across is how many vectors of rows a pass makes.
func (g *narrow) across() int {
	if g.vnni {
		return 2
	}
	return 1
}

// at is row t of the tile, vector i.
func (g *narrow) at(t, i int) Mem {
	m := mem(g.dst, 32*i)
	if t >= 3 {
		m = mem(g.below, 32*i)
	}
	if t%3 > 0 {
		m = m.Idx(g.ld, uint8(t%3))
	}
	return m
}

func (g *narrow) clear() {
	zero := g.vec()
	g.zero(zero)
	for t := range panelRows {
		for i := range g.across() {
			VMOVUPS(zero, g.at(t, i))
		}
	}
}

func (g *narrow) pass(left Register) {
	next := func() {
		ADDQ(num(g.block), g.w)
		ADDQ(num(64*panelRows), g.a)
	}
	switch {
	case g.vnni:
		loop("block", left, func() {
			g.vnniBlock()
			next()
		})
	case g.bias != 0:
		less := g.dword(uint32(128-g.smallBias()) * 0x01010101)
		bias8 := g.dword(0x80808080)
		loop("small", left, func() {
			g.small(less, "any")
			next()
		})
		JMP(LabelRef("done"))
		loop("any", left, func() {
			g.any(bias8)
			next()
		})
		Label("done")
	default:
		loop("block", left, func() {
			g.small(nil, "")
			next()
		})
	}
}

// smallBias: small are weights of at most 31 of bias 16, which allow four products
// in an int16 sum, or of at most 63 of bias 32, which allow two.
func (g *narrow) smallBias() int {
	if g.halves {
		return 32
	}
	return 16
}

// small adds a block of small weights, less taken from them; of others it goes
// to the label before it has added anything.
func (g *narrow) small(less Register, others string) {
	u := g.vecs(8)
	for j, v := range u {
		g.move(mem(g.w, j*64), v)
		if less != nil {
			VPSUBB(less, v, v)
		}
	}
	if less != nil {
		all := g.vec()
		VPOR(u[0], u[1], all)
		for _, v := range u[2:] {
			VPOR(v, all, all)
		}
		VPTEST(g.constant(^uint32(2*g.smallBias()-1)&0xff*0x01010101), all)
		JNZ(LabelRef(others))
	}
	run := 4 // products in an int16 sum
	if less != nil && g.halves {
		run = 2
	}
	for h := range g.count() {
		f := g.factors(h, 0)
		lo, hi := g.span(h)
		for t := range panelRows {
			var sum VecVirtual
			for j := lo; j < hi; j += run {
				short := g.product(u[j], j, t)
				for i := j + 1; i < j+run; i++ {
					VPADDW(g.product(u[i], i, t), short, short)
				}
				VPMADDWD(g.ones, short, short)
				sum = g.plus(sum, short)
			}
			if less != nil {
				bias := g.broadcast(mem(g.a, rec(g.biasOf(h), t)))
				biased(g.smallBias(), bias)
				sum = g.plus(sum, bias)
			}
			f.add(sum, t)
		}
	}
}

// product is the int16 sums of pairs of products of weights u and row t.
func (g *narrow) product(u VecVirtual, j, t int) VecVirtual {
	q := g.broadcast(mem(g.a, rec(j, t)))
	VPMADDUBSW(q, u, q)
	return q
}

// plus adds v to sum, if there is one.
func (g *narrow) plus(sum, v VecVirtual) VecVirtual {
	if sum == nil {
		return v
	}
	VPADDD(v, sum, sum)
	return sum
}

// any adds a block of weights of bias 128, whose sign moves to the activation.
func (g *narrow) any(bias8 Register) {
	for h := range g.count() {
		sum := make([]VecVirtual, panelRows)
		for j, end := g.span(h); j < end; j++ {
			u := g.vec()
			g.move(mem(g.w, j*64), u)
			magnitude := g.vec()
			VPXOR(bias8, u, u)
			VPABSB(u, magnitude)
			for t := range sum {
				q := g.broadcast(mem(g.a, rec(j, t)))
				VPSIGNB(u, q, q)
				VPMADDUBSW(q, magnitude, q)
				VPMADDWD(g.ones, q, q)
				sum[t] = g.plus(sum[t], q)
			}
		}
		f := g.factors(h, 0)
		for t, v := range sum {
			f.add(v, t)
		}
	}
}

// vnniBlock adds a block.
func (g *narrow) vnniBlock() {
	for h := range g.count() {
		for i, sum := range g.dots(g.layout, h, g.a, mem(g.w, 0), mem(g.w, 32)) {
			f := g.factors(h, i)
			for t, v := range sum {
				f.add(v, t)
			}
		}
	}
}

// factors are the scales of half h and, with the last half, the mins, of vector
// i of the rows.
type factors struct {
	*narrow
	i     int
	scale VecVirtual
	mins  []VecVirtual
}

func (g *narrow) factors(h, i int) *factors {
	f := &factors{narrow: g, i: i, scale: g.f32(mem(g.w, 512+64*h), i)}
	if g.min && h == g.count()-1 {
		for k := range g.count() {
			f.mins = append(f.mins, g.f32(mem(g.w, 512+64*(g.count()+k)), i))
		}
	}
	return f
}

// add adds integer sums to row t of the tile.
func (f *factors) add(sum VecVirtual, t int) {
	v := f.broadcast(mem(f.a, rec(scaleOf, t)))
	VMULPS(f.scale, v, v)
	VCVTDQ2PS(sum, sum)
	VFMADD213PS(f.at(t, f.i), v, sum)
	for k, least := range f.mins {
		VFMADD231PS(f.broadcast(mem(f.a, rec(f.sumOf(k), t))), least, sum)
	}
	VMOVUPS(sum, f.at(t, f.i))
}

// gemmFloat: a tile of 32 rows (AVX2: 16 rows, twice) times 6 activation rows;
// the limit is FMA.
func (s set) gemmFloat(kind string) {
	s.text("gemm"+kind, "dst *float32, ld int, a, b, act *byte, n int", "gemmFloatGeneric of kind"+kind+".")
	dst, ld, act, n := arg("dst"), arg("ld"), arg("act"), arg("n")
	first, second := arg("a"), arg("b")
	SHLQ(U8(2), ld)
	acc := s.tile(2)
	product := func(w [2]Mem, p [2]int, x, left Register, advance ...Register) {
		for _, row := range acc {
			for _, v := range row {
				s.zero(v)
			}
		}
		loop("column", left, func() {
			u := [2]VecVirtual{s.floats(kind, w[0], p[0]), s.floats(kind, w[1], p[1])}
			for t := range panelRows {
				q := s.broadcast(mem(x, 4*t))
				VFMADD231PS(q, u[0], acc[0][t])
				VFMADD231PS(q, u[1], acc[1][t])
			}
			for _, r := range advance {
				ADDQ(num(columnBytes(kind)), r)
			}
			ADDQ(num(4*panelRows), x)
		})
	}
	if s.wide() {
		product([2]Mem{mem(first, 0), mem(second, 0)}, [2]int{}, act, n, first, second)
		s.storeTile(acc, dst, ld)
		s.end()
		return
	}
	groups, x, left, to := GP64(), GP64(), GP64(), GP64()
	MOVQ(U32(2), groups)
	loop("group", groups, func() {
		MOVQ(act, x)
		MOVQ(n, left)
		product([2]Mem{mem(first, 0), mem(first, 0)}, [2]int{0, 1}, x, left, first)
		MOVQ(dst, to)
		s.storeTile(acc, to, ld)
		ADDQ(num(64), dst)
		MOVQ(second, first)
	})
	s.end()
}

// storeTile writes rows ld bytes apart.
func (s set) storeTile(acc [][]VecVirtual, dst, ld Register) {
	for t := range panelRows {
		for i := range acc {
			VMOVUPS(acc[i][t], mem(dst, i*s.bytes()))
		}
		ADDQ(ld, dst)
	}
}

// peak writes the yardstick of gemm's benchmark: n rounds of 12 integer
// products of vectors that stay in registers.
func (s set) peak() {
	s.text("peak", "n int", "n times 12 integer products of vectors, for benchmarks.")
	n, u := arg("n"), s.dword(0x01010101)
	sum := s.vecs(12)
	for _, v := range sum {
		s.zero(v)
	}
	loop("round", n, func() {
		for _, v := range sum {
			if s.vnni {
				VPDPBUSD(u, u, v)
				continue
			}
			t := s.vec()
			VPMADDUBSW(u, u, t)
			VPMADDWD(u, t, t)
			VPADDD(t, v, v)
		}
	})
	s.end()
}
