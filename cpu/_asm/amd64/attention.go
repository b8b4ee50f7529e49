package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// cached are the formats of keys and values.
var cached = []string{"F32", "F16", "Q8"}

func (s set) attention() {
	for _, kind := range cached {
		s.score(kind)
		s.accumulate(kind)
	}
}

// step is how many values of a row a kernel takes at once, and their bytes.
func (s set) step(kind string) (values, bytes int) {
	switch kind {
	case "F32":
		return s.lanes(), 4 * s.lanes()
	case "F16":
		return s.lanes(), 2 * s.lanes()
	}
	return 32, 34
}

// rowBytes turns a number of values into bytes: dim, which is a multiple of step.
func (s set) rowBytes(kind string, dim Register) GPVirtual {
	switch kind {
	case "F32":
		return times(dim, 4)
	case "F16":
		return times(dim, 2)
	}
	r := times(dim, 34)
	SHRQ(U8(5), r)
	return r
}

// q8Scale is the scale of the block at m in every lane.
func (s set) q8Scale(m Mem) VecVirtual {
	d := s.vec()
	if s.wide() {
		VPBROADCASTW(m, d.AsY())
		VCVTPH2PS(d.AsY(), d)
	} else {
		VPBROADCASTW(m, d.AsX())
		VCVTPH2PS(d.AsX(), d)
	}
	return d
}

// q8 is part i of the integers of the block at m, as float32.
func (s set) q8(m Mem, i int) VecVirtual {
	v := s.vec()
	VPMOVSXBD(m.Offset(2+i*s.lanes()), v)
	VCVTDQ2PS(v, v)
	return v
}

// score writes the products of one query with rows of keys, four at once. Each
// has one sum in every lane; the lanes are added in the same order whether four
// rows end together or one.
func (s set) score(kind string) {
	s.text("score"+kind, "dst, q *float32, k *byte, n, dim int", "score"+kind+"Generic.")
	dst, query, keys, n, dim := arg("dst"), arg("q"), arg("k"), arg("n"), arg("dim")
	row := s.rowBytes(kind, dim)
	row3 := times(row, 3)
	values, bytes := s.step(kind)
	SHRQ(U8(uint8(shift(values))), dim)
	q, k, left := GP64(), GP64(), GP64()
	rows := []Mem{mem(k, 0), mem(k, 0).Idx(row, 1), mem(k, 0).Idx(row, 2), mem(k, 0).Idx(row3, 1)}
	some := func(count int, name string) []VecVirtual {
		acc := s.vecs(count)
		for _, v := range acc {
			s.zero(v)
		}
		MOVQ(query, q)
		MOVQ(keys, k)
		MOVQ(dim, left)
		loop("dims"+name, left, func() {
			for i, v := range acc {
				if kind != "Q8" {
					VFMADD231PS(mem(q, 0), s.floats(kind, rows[i], 0), v)
					continue
				}
				t := s.q8(rows[i], 0)
				VMULPS(mem(q, 0), t, t)
				for part := 1; part < 32/s.lanes(); part++ {
					VFMADD231PS(mem(q, part*s.bytes()), s.q8(rows[i], part), t)
				}
				VFMADD231PS(s.q8Scale(rows[i]), t, v)
			}
			ADDQ(num(4*values), q)
			ADDQ(num(bytes), k)
		})
		for _, v := range acc {
			s.quarter(v)
		}
		return acc
	}
	Label("four")
	CMPQ(n, U8(4))
	JLT(LabelRef("one"))
	x := some(4, "4")
	VHADDPS(x[1].AsX(), x[0].AsX(), x[0].AsX())
	VHADDPS(x[3].AsX(), x[2].AsX(), x[2].AsX())
	VHADDPS(x[2].AsX(), x[0].AsX(), x[0].AsX())
	VMOVUPS(x[0].AsX(), mem(dst, 0))
	ADDQ(num(16), dst)
	LEAQ(mem(keys, 0).Idx(row, 4), keys)
	SUBQ(num(4), n)
	JMP(LabelRef("four"))
	Label("one")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	y := some(1, "1")[0].AsX()
	VHADDPS(y, y, y)
	VHADDPS(y, y, y)
	VMOVSS(y, mem(dst, 0))
	ADDQ(num(4), dst)
	ADDQ(row, keys)
	DECQ(n)
	JMP(LabelRef("one"))
	Label("done")
	s.end()
}

// shift is log2 of a power of two.
func shift(n int) (k int) {
	for n > 1 {
		n, k = n/2, k+1
	}
	return k
}

// quarter adds the quarters (AVX2: halves) of v into its lowest 128 bits.
func (s set) quarter(v VecVirtual) {
	t := YMM()
	if s.wide() {
		VEXTRACTF64X4(U8(1), v, t)
		VADDPS(t, v.AsY(), v.AsY())
	}
	VEXTRACTF128(U8(1), v.AsY(), t.AsX())
	VADDPS(t.AsX(), v.AsX(), v.AsX())
}

// accumulate writes the sum of rows of values, each times its weight: as many
// columns at once as there are registers for.
func (s set) accumulate(kind string) {
	s.text("accum"+kind, "acc, p *float32, v *byte, n, dim int", "accum"+kind+"Generic.")
	sum, weights, rows, n, dim := arg("acc"), arg("p"), arg("v"), arg("n"), arg("dim")
	row := s.rowBytes(kind, dim)
	values, bytes := s.step(kind)
	p, v, left := GP64(), GP64(), GP64()
	TESTQ(n, n)
	JZ(LabelRef("done"))
	for count := 8 * s.lanes() / values; count > 0; count /= 2 {
		name := string(rune('0' + count))
		Label("dims" + name)
		CMPQ(dim, num(count*values))
		JLT(LabelRef("less" + name))
		acc := s.vecs(count * values / s.lanes())
		for i, a := range acc {
			VMOVUPS(mem(sum, i*s.bytes()), a)
		}
		MOVQ(weights, p)
		MOVQ(rows, v)
		MOVQ(n, left)
		loop("rows"+name, left, func() {
			w := s.broadcast(mem(p, 0))
			var d VecVirtual
			for i, a := range acc {
				if kind != "Q8" {
					VFMADD231PS(w, s.floats(kind, mem(v, i*bytes), 0), a)
					continue
				}
				part := i % (32 / s.lanes())
				block := mem(v, i*s.lanes()/32*34)
				if part == 0 {
					d = s.q8Scale(block)
				}
				x := s.q8(block, part)
				VMULPS(d, x, x) // exact
				VFMADD231PS(w, x, a)
			}
			ADDQ(num(4), p)
			ADDQ(row, v)
		})
		for i, a := range acc {
			VMOVUPS(a, mem(sum, i*s.bytes()))
		}
		ADDQ(num(4*count*values), sum)
		ADDQ(num(count*bytes), rows)
		SUBQ(num(count*values), dim)
		JMP(LabelRef("dims" + name))
		Label("less" + name)
	}
	Label("done")
	s.end()
}
