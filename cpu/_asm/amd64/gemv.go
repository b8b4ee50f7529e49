package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// gemv writes the products of groups with one row. The limit is the memory that
// brings the weights: they are read in the order in which they lie, group after
// group, and asked for some KiB ahead.
func (s set) gemv(l layout) {
	s.text("gemv"+l.name, "dst *float32, w, act *byte, n, groups, stride int", "gemvGeneric of kind"+l.name+".")
	dst, group, act := arg("dst"), arg("w"), arg("act")
	n, groups, stride := arg("n"), arg("groups"), arg("stride")
	w, a, left := GP64(), GP64(), GP64()
	b, c, d := s.weights(l, w), &scales{set: s, layout: l, w: w}, s.dot(l, a)
	acc := s.vecs(s.parts())
	loop("group", groups, func() {
		MOVQ(group, w)
		MOVQ(act, a)
		MOVQ(n, left)
		for _, v := range acc {
			s.zero(v)
		}
		c.blocks(left, func() {
			for p, v := range acc {
				d.block(b, c, p, v)
			}
			ADDQ(num(64), a)
		})
		for p, v := range acc {
			VMOVUPS(v, mem(dst, p*s.bytes()))
		}
		ADDQ(num(64), dst)
		ADDQ(stride, group)
	})
	s.end()
}

// dot is the integer products of a block with one row's activations at a.
//
// AVX-512 has VPDPBUSD. AVX2 has VPMADDUBSW, whose int16 sums of two products
// saturate at 32767: weights up to 15 allow 8 sums to be added before they are
// widened, up to 31 four, up to 63 two, up to 127 one. Weights of bias 128 are
// made signed, and their sign moves to the activation (2*128*127 = 32512).
type dot struct {
	set
	layout
	a           Register
	ones, bias8 Op
	top         Op            // of shifted
	sum         [2]VecVirtual // int32, of columns 0-15 and 16-31
	short       [2]VecVirtual // int16, to be added to sum
	added       [2]int        // to short
}

func (s set) dot(l layout, a Register) *dot {
	d := &dot{set: s, layout: l, a: a}
	if !s.wide() {
		d.ones, d.bias8 = s.constant(0x00010001), s.constant(0x80808080)
	} else if d.shifted() {
		d.top = s.constant(0xf0f0f0f0)
	}
	return d
}

// shifted says that the upper nibbles stay where they are, 16 times too large,
// and their sum is divided by 16.
func (d *dot) shifted() bool { return d.wide() && d.most == 15 }

func (d *dot) pair(b *weights, j, p int) (lo, hi VecVirtual) {
	if !d.shifted() {
		return b.pair(j, p)
	}
	lo, hi = d.vec(), d.vec()
	d.move(mem(b.w, j*64), hi)
	d.and(b.nibble, hi, lo)
	d.and(d.top, hi, hi)
	return lo, hi
}

// signed says that AVX2 needs the sign trick, which takes the bias out.
func (d *dot) signed() bool { return !d.wide() && d.most == 0 }

// sums is how many int16 sums fit: each is at most 2*most*127.
func (d *dot) sums() int {
	if d.most == 0 {
		return 1
	}
	return 32767 / (2 * 127 * d.most)
}

// block adds part p of a block to the rows' sums.
func (d *dot) block(b *weights, c *scales, p int, acc VecVirtual) {
	d.begin()
	b.part(p)
	for j := range 4 {
		if d.layout.bytes() {
			d.mac(j/2, 2*j, b.vector(2*j, p))
			d.mac(j/2, 2*j+1, b.vector(2*j+1, p))
			continue
		}
		lo, hi := d.pair(b, j, p)
		d.mac(0, j, lo)
		d.mac(1, j+4, hi)
	}
	d.finish(c, p, acc)
}

// begin starts a block: the bias times the sums of activations.
func (d *dot) begin() {
	d.sum, d.short, d.added = [2]VecVirtual{}, [2]VecVirtual{}, [2]int{}
	if d.layout.bias != 0 && !d.signed() {
		shift := map[int]uint8{8: 3, 16: 4, 32: 5, 128: 7}[d.layout.bias]
		for h := range d.count() {
			d.sum[h] = d.vec()
			at := 32
			if d.halves {
				at += 4 + 4*h
			}
			VPBROADCASTD(mem(d.a, at), d.sum[h])
			VPSLLD(U8(shift), d.sum[h], d.sum[h])
		}
	}
	if d.wide() {
		for h := range 2 {
			if d.sum[h] == nil {
				d.sum[h] = d.vec()
				d.zero(d.sum[h])
			}
		}
	}
}

// mac adds weights u times activations of columns 4j to the sums of half h; u is lost.
func (d *dot) mac(h, j int, u VecVirtual) {
	if d.wide() {
		VPDPBUSD_BCST(mem(d.a, 4*j), u, d.sum[h])
		return
	}
	if !d.halves {
		h = 0
	}
	q := d.vec()
	VPBROADCASTD(mem(d.a, 4*j), q)
	if d.signed() {
		VPXOR(d.bias8, u, u)
		VPSIGNB(u, q, q)
		VPABSB(u, u)
	}
	VPMADDUBSW(q, u, q)
	if d.short[h] == nil {
		d.short[h] = q
	} else {
		VPADDW(q, d.short[h], d.short[h])
	}
	if d.added[h]++; d.added[h] == d.sums() || d.halves && j%4 == 3 || j == 7 {
		d.widen(h)
	}
}

// widen adds the int16 sums to the int32 ones.
func (d *dot) widen(h int) {
	VPMADDWD(d.ones, d.short[h], d.short[h])
	if d.sum[h] == nil {
		d.sum[h] = d.short[h]
	} else {
		VPADDD(d.short[h], d.sum[h], d.sum[h])
	}
	d.short[h], d.added[h] = nil, 0
}

// finish adds the block, scaled, to the rows' sums.
func (d *dot) finish(c *scales, p int, acc VecVirtual) {
	if d.shifted() {
		VPSRAD(U8(4), d.sum[1], d.sum[1])
	}
	if d.wide() && !d.halves {
		VPADDD(d.sum[1], d.sum[0], d.sum[0])
	}
	for h := range d.count() {
		v := c.scale(h, p)
		d.scaleBy(mem(d.a, 44), v)
		VCVTDQ2PS(d.sum[h], d.sum[h])
		VFMADD231PS(v, d.sum[h], acc)
	}
	if !d.min {
		return
	}
	for h := range d.count() {
		at := 48
		if d.halves {
			at += 4 + 4*h
		}
		v := c.least(h, p)
		x := d.broadcast(mem(d.a, at))
		if d.super {
			VFNMADD231PS(x, v, acc)
		} else {
			VFMADD231PS(x, v, acc)
		}
	}
}

// gemvFloat writes the products of groups of float weights with one row: four
// groups at once, to hide the latency of the one sum that each element has,
// then one after another.
func (s set) gemvFloat(kind string) {
	s.text("gemv"+kind, "dst *float32, w, act *byte, n, groups, stride int", "gemvFloatGeneric of kind"+kind+".")
	dst, group, act := arg("dst"), arg("w"), arg("act")
	n, groups, stride := arg("n"), arg("groups"), arg("stride")
	w, a, left, stride3 := GP64(), GP64(), GP64(), times(stride, 3)
	some := func(count int, name string) {
		at := []Mem{mem(w, 0), mem(w, 0).Idx(stride, 1), mem(w, 0).Idx(stride, 2), mem(w, 0).Idx(stride3, 1)}
		acc := s.vecs(count * s.parts())
		MOVQ(group, w)
		MOVQ(act, a)
		MOVQ(n, left)
		for _, v := range acc {
			s.zero(v)
		}
		loop("column"+name, left, func() {
			x := s.broadcast(mem(a, 0))
			for i, v := range acc {
				VFMADD231PS(x, s.floats(kind, at[i/s.parts()], i%s.parts()), v)
			}
			ADDQ(num(columnBytes(kind)), w)
			ADDQ(num(4), a)
		})
		for i, v := range acc {
			VMOVUPS(v, mem(dst, i*s.bytes()))
		}
		ADDQ(num(64*count), dst)
		SUBQ(num(count), groups)
	}
	Label("four")
	CMPQ(groups, U8(4))
	JLT(LabelRef("one"))
	some(4, "4")
	LEAQ(mem(group, 0).Idx(stride, 4), group)
	JMP(LabelRef("four"))
	Label("one")
	TESTQ(groups, groups)
	JZ(LabelRef("done"))
	some(1, "1")
	ADDQ(stride, group)
	JMP(LabelRef("one"))
	Label("done")
	s.end()
}

// columnBytes is the size of a column of a group of a float kind.
func columnBytes(kind string) int {
	if kind == "F32" {
		return 64
	}
	return 32
}
