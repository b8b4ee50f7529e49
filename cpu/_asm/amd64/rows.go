package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// fewRows is that of package cpu.
const fewRows = 8

// gemvRows adds the products of groups with up to fewRows rows, whose weights
// are unpacked once, into registers. A block costs eight VPDPBUSD and five or six
// other instructions a row, so that four rows take about as long as the memory.
// Rows that are not there are read, wherever that is, and not written.
func (s set) gemvRows(l layout) {
	s.text("gemvRows"+l.name, "dst *float32, ld int, w, act *byte, step, n, groups, stride, rows int", "gemv"+l.name+" of several rows.")
	dst, ld, group, act := arg("dst"), arg("ld"), arg("w"), arg("act")
	step, groups, stride := arg("step"), arg("groups"), arg("stride")
	SHLQ(U8(2), ld)
	w, a, a4, left, step3 := GP64(), GP64(), GP64(), GP64(), times(step, 3)
	b, c := s.weights(l, w), &scales{set: s, layout: l, w: w, rows: true}
	records := strided(a, a4, step, step3, 8)
	some := func(rows int) {
		name := fmt.Sprint(rows)
		acc := s.vecs(rows)
		// each passes the sums of the rows that there are
		each := func(at Register, name string, row func(at Mem, sum VecVirtual)) {
			MOVQ(dst, at)
			Load(Param("rows"), left)
			for t, v := range acc {
				row(mem(at, 0), v)
				if t < rows-1 {
					ADDQ(ld, at)
					DECQ(left)
					JZ(LabelRef(name))
				}
			}
			Label(name)
		}
		loop("group"+name, groups, func() {
			for _, v := range acc {
				s.zero(v)
			}
			each(w, "loaded"+name, func(from Mem, sum VecVirtual) { VMOVUPS(from, sum) })
			MOVQ(group, w)
			MOVQ(act, a)
			LEAQ(mem(act, 0).Idx(step, 4), a4)
			Load(Param("n"), left)
			c.named(name, left, func() {
				var u [8]VecVirtual
				b.part(0)
				for j := range 4 {
					u[j], u[j+4] = b.pair(j, 0)
				}
				scale, least := make([]VecVirtual, l.count()), make([]VecVirtual, l.count())
				for h := range scale {
					scale[h] = c.scale(h, 0)
					if l.min {
						least[h] = c.least(h, 0)
					}
				}
				s.rowsTimes(l, records[:rows], u, scale, least, acc)
				ADDQ(num(64), a)
				ADDQ(num(64), a4)
			})
			each(w, "stored"+name, func(to Mem, sum VecVirtual) { VMOVUPS(sum, to) })
			ADDQ(num(64), dst)
			ADDQ(stride, group)
		})
		s.end()
	}
	Load(Param("rows"), left)
	CMPQ(left, U8(fewRows/2))
	JGT(LabelRef("many"))
	some(fewRows / 2)
	Label("many")
	some(fewRows)
}

// rowsTimes adds a block, scaled, times the activations of rows, whose records are at rec, to their sums.
// A row's products wait for one another: rows take turns.
func (s set) rowsTimes(l layout, rec []Mem, u [8]VecVirtual, scale, least, acc []VecVirtual) {
	for h := range l.count() {
		sum := s.vecs(len(rec))
		for t, v := range sum {
			if l.bias == 0 {
				s.zero(v)
				continue
			}
			at := 32
			if l.halves {
				at += 4 + 4*h
			}
			VPBROADCASTD(rec[t].Offset(at), v)
			biased(l.bias, v)
		}
		for j, end := l.span(h); j < end; j++ {
			for t, v := range sum {
				VPDPBUSD_BCST(rec[t].Offset(4*j), u[j], v)
			}
		}
		for t, v := range sum {
			x := s.vec()
			VMULPS_BCST(rec[t].Offset(44), scale[h], x)
			VCVTDQ2PS(v, v)
			VFMADD231PS(x, v, acc[t])
		}
	}
	if !l.min {
		return
	}
	for h := range l.count() {
		at := 48
		if l.halves {
			at += 4 + 4*h
		}
		for t, v := range acc {
			if l.super {
				VFNMADD231PS_BCST(rec[t].Offset(at), least[h], v)
			} else {
				VFMADD231PS_BCST(rec[t].Offset(at), least[h], v)
			}
		}
	}
}
