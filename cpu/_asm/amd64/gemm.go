package main

import (
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
			sum := s.tile(2)
			for t := range panelRows {
				if l.bias == 0 {
					s.zero(sum[0][t])
				} else {
					VPBROADCASTD(mem(act, rec(l.biasOf(h), t)), sum[0][t])
					VPSLLD(U8(7), sum[0][t], sum[0][t])
				}
				s.move(sum[0][t], sum[1][t])
			}
			for j, end := l.span(h); j < end; j++ {
				var u [2]VecVirtual
				for g := range u {
					u[g] = s.vec()
					s.move(mem(w[g], j*64), u[g])
				}
				for t := range panelRows {
					q := s.vec()
					VPBROADCASTD(mem(act, rec(j, t)), q)
					VPDPBUSD(q, u[0], sum[0][t])
					VPDPBUSD(q, u[1], sum[1][t])
				}
			}
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

// tile is n by panelRows registers.
func (s set) tile(n int) [][]VecVirtual {
	v := make([][]VecVirtual, n)
	for i := range v {
		v[i] = s.vecs(panelRows)
	}
	return v
}

// gemmNarrow: 8 rows at a time, so that 6 sums fit in 16 registers beside the
// weights: four passes over the panels.
func (s set) gemmNarrow(l layout) {
	dst, ld, act, n := arg("dst"), arg("ld"), arg("act"), arg("n")
	first, second := arg("a"), arg("b")
	SHLQ(U8(2), ld)
	groups, halves := GP64(), GP64()
	w, a, left, to := GP64(), GP64(), GP64(), GP64()
	acc := s.vecs(panelRows)
	MOVQ(U32(2), groups)
	loop("group", groups, func() {
		MOVQ(U32(2), halves)
		loop("half", halves, func() {
			MOVQ(first, w)
			MOVQ(act, a)
			MOVQ(n, left)
			for _, v := range acc {
				s.zero(v)
			}
			loop("block", left, func() {
				for h := range l.count() {
					if l.most == 31 {
						s.products31(w, a, acc)
					} else {
						s.products(l, h, w, a, acc)
					}
				}
				if l.min {
					for h := range l.count() {
						least := s.f32(mem(w, 512+64*(l.count()+h)), 0)
						for t, v := range acc {
							VFMADD231PS(s.broadcast(mem(a, rec(l.sumOf(h), t))), least, v)
						}
					}
				}
				ADDQ(num(l.block), w)
				ADDQ(num(64*panelRows), a)
			})
			MOVQ(dst, to)
			for _, v := range acc {
				VMOVUPS(v, mem(to, 0))
				ADDQ(ld, to)
			}
			ADDQ(num(32), dst)
			ADDQ(num(32), first)
		})
		MOVQ(second, first)
	})
}

// products adds half h of a block, whose weights are of bias 128 or up to 127,
// to acc. See dot.
func (s set) products(l layout, h int, w, a Register, acc []VecVirtual) {
	ones, bias8 := s.constant(0x00010001), s.constant(0x80808080)
	sum := make([]VecVirtual, panelRows)
	for j, end := l.span(h); j < end; j++ {
		u := s.vec()
		s.move(mem(w, j*64), u)
		magnitude := u
		if l.bias != 0 {
			magnitude = s.vec()
			VPXOR(bias8, u, u)
			VPABSB(u, magnitude)
		}
		for t := range sum {
			q := s.vec()
			VPBROADCASTD(mem(a, rec(j, t)), q)
			if l.bias != 0 {
				VPSIGNB(u, q, q)
			}
			VPMADDUBSW(q, magnitude, q)
			VPMADDWD(ones, q, q)
			if sum[t] == nil {
				sum[t] = q
			} else {
				VPADDD(q, sum[t], sum[t])
			}
		}
	}
	for t, v := range sum {
		s.addScaled(v, mem(w, 512+64*h), mem(a, rec(scaleOf, t)), acc[t])
	}
}

// products31 adds a block whose weights are at most 31: four int16 sums fit.
func (s set) products31(w, a Register, acc []VecVirtual) {
	ones := s.constant(0x00010001)
	u := s.vecs(7) // the eighth is loaded each time: there are 16 registers
	for j, v := range u {
		s.move(mem(w, j*64), v)
	}
	for t, v := range acc {
		var sum VecVirtual
		for h := range 2 {
			var short VecVirtual
			for i := range 4 {
				j := 4*h + 3 - i
				q := s.vec()
				VPBROADCASTD(mem(a, rec(j, t)), q)
				if j < len(u) {
					VPMADDUBSW(q, u[j], q)
				} else {
					last := s.vec()
					s.move(mem(w, j*64), last)
					VPMADDUBSW(q, last, q)
				}
				if short == nil {
					short = q
				} else {
					VPADDW(q, short, short)
				}
			}
			VPMADDWD(ones, short, short)
			if sum == nil {
				sum = short
			} else {
				VPADDD(short, sum, sum)
			}
		}
		s.addScaled(sum, mem(w, 512), mem(a, rec(scaleOf, t)), v)
	}
}

// addScaled: acc += float32(sum) * (scale * factor).
func (s set) addScaled(sum VecVirtual, scale, factor Mem, acc VecVirtual) {
	v := s.broadcast(factor)
	VMULPS(scale, v, v)
	VCVTDQ2PS(sum, sum)
	VFMADD231PS(v, sum, acc)
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
			if s.wide() {
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
