package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// recordsAhead is how many blocks ahead gemv asks for activations: those of a long row, which every group reads
// again, have left the L1 cache meanwhile, since the weights go through it.
const recordsAhead = 2

// gemv adds the products of groups with one row. The limit is the memory that
// brings the weights: they are read in the order in which they lie, group after
// group, and asked for some KiB ahead.
func (s set) gemv(l layout) {
	s.text("gemv"+l.name, "dst *float32, w, act *byte, n, groups, stride int", "gemvGeneric of kind"+l.name+".")
	dst, group, act := arg("dst"), arg("w"), arg("act")
	n, groups, stride := arg("n"), arg("groups"), arg("stride")
	w, a, left := GP64(), GP64(), GP64()
	b, c, d := s.weights(l, w), &scales{set: s, layout: l, w: w}, s.dot(l, a)
	if l.table != "" && d.signed() {
		VPXOR(d.bias8, b.values, b.values)
	}
	acc := s.vecs(s.parts())
	loop("group", groups, func() {
		MOVQ(group, w)
		MOVQ(act, a)
		MOVQ(n, left)
		for p, v := range acc {
			VMOVUPS(mem(dst, p*s.bytes()), v)
		}
		c.blocks(left, func() {
			PREFETCHT0(mem(a, recordsAhead*64))
			d.block(b, c, acc)
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
// AVX-512 and AVX-VNNI have VPDPBUSD. AVX2 has VPMADDUBSW, whose int16 sums of two
// products saturate at 32767: weights up to 15 allow 8 sums to be added before they are
// widened, up to 31 four, up to 63 two, up to 127 one. Weights of bias 128 are
// made signed, and their sign moves to the activation (2*128*127 = 32512).
type dot struct {
	set
	layout
	a           Register
	ones, bias8 VecVirtual
	top         VecVirtual // of shifted
}

// sums are those of a block in one part of the rows.
type sums struct {
	long  [2]VecVirtual // int32, of columns 0-15 and 16-31
	short [2]VecVirtual // int16, to be added to long
	added [2]int        // to short
}

func (s set) dot(l layout, a Register) *dot {
	d := &dot{set: s, layout: l, a: a}
	if !s.vnni {
		d.ones = s.dword(0x00010001)
	}
	if d.signed() {
		d.bias8 = s.dword(0x80808080)
	}
	if d.shifted() {
		d.top = s.dword(0xf0f0f0f0)
	}
	return d
}

// shifted says that the upper nibbles stay where they are, 16 times too large,
// and their sum is divided by 16.
func (d *dot) shifted() bool { return d.vnni && d.most == 15 }

// signed says that AVX2 needs the sign trick, which takes the bias out.
func (d *dot) signed() bool { return !d.vnni && d.most == 0 }

// run is how many int16 sums fit: each is at most 2*most*127.
func (d *dot) run() int {
	if d.most == 0 {
		return 1
	}
	return 32767 / (2 * 127 * d.most)
}

// block adds a block to the rows' sums: all parts at once, which share what they
// need of the activations, or, where vectors that are held need the registers, one
// after another.
func (d *dot) block(b *weights, c *scales, acc []VecVirtual) {
	if !d.held() {
		d.parts(b, c, 0, acc)
		return
	}
	for p := range acc {
		d.parts(b, c, p, acc[p:p+1])
	}
}

// parts adds the parts from p on, as many as acc has.
func (d *dot) parts(b *weights, c *scales, p int, acc []VecVirtual) {
	sum := d.begin(len(acc))
	for i := range acc {
		b.part(p + i)
	}
	for j := range 4 {
		columns, halves := [2]int{j, j + 4}, [2]int{0, 1}
		if d.layout.bytes() {
			columns, halves = [2]int{2 * j, 2*j + 1}, [2]int{j / 2, j / 2}
		}
		q := d.activations(columns)
		for i := range sum {
			for k, u := range d.pair(b, j, p+i) {
				d.mac(&sum[i], halves[k], columns[k], u, q[k])
			}
		}
	}
	d.finish(c, p, sum, acc)
}

// begin starts a block. VPDPBUSD adds to what is there: at first the bias.
func (d *dot) begin(parts int) []sums {
	sum := make([]sums, parts)
	if !d.vnni {
		return sum
	}
	for h := range 2 {
		for i := range sum {
			v := &sum[i].long[h]
			switch {
			case d.layout.bias == 0 || h >= d.count():
				*v = d.vec()
				d.zero(*v)
			case i == 0:
				*v = d.biased(h)
			default:
				*v = d.vec()
				d.move(sum[0].long[h], *v)
			}
		}
	}
	return sum
}

// biased is the bias times the sum of the activations of half h, negative.
func (d *dot) biased(h int) VecVirtual {
	at := 32
	if d.halves {
		at += 4 + 4*h
	}
	v := d.vec()
	VPBROADCASTD(mem(d.a, at), v)
	biased(d.layout.bias, v)
	return v
}

// activations are those of columns 4j, for two j. AVX-512 reads them as it multiplies.
func (d *dot) activations(j [2]int) (q [2]VecVirtual) {
	if !d.wide() {
		q[0], q[1] = d.broadcast(mem(d.a, 4*j[0])), d.broadcast(mem(d.a, 4*j[1]))
	}
	return q
}

// pair is the vectors of step j.
func (d *dot) pair(b *weights, j, p int) [2]VecVirtual {
	switch {
	case d.layout.bytes():
		return pairOf(b.vector(2*j, p), b.vector(2*j+1, p))
	case !d.shifted():
		return pairOf(b.pair(j, p))
	}
	lo, hi := d.vec(), b.vector(j, p)
	d.and(b.nibble, hi, lo)
	d.and(d.top, hi, hi)
	return pairOf(lo, hi)
}

// mac adds weights u times activations q of columns 4j to the sums of half h; u is lost.
func (d *dot) mac(sum *sums, h, j int, u, q VecVirtual) {
	if d.wide() {
		VPDPBUSD_BCST(mem(d.a, 4*j), u, sum.long[h])
		return
	}
	if d.vnni {
		VPDPBUSD(q, u, sum.long[h])
		return
	}
	if !d.halves {
		h = 0
	}
	if d.signed() {
		if d.table == "" {
			VPXOR(d.bias8, u, u)
		}
		signed := d.vec()
		VPSIGNB(u, q, signed)
		VPABSB(u, u)
		q = signed
	}
	VPMADDUBSW(q, u, u)
	if sum.short[h] == nil {
		sum.short[h] = u
	} else {
		VPADDW(u, sum.short[h], sum.short[h])
	}
	if sum.added[h]++; sum.added[h] == d.run() || d.halves && j%4 == 3 || j == 7 {
		d.widen(sum, h)
	}
}

// widen adds the int16 sums to the int32 ones.
func (d *dot) widen(sum *sums, h int) {
	VPMADDWD(d.ones, sum.short[h], sum.short[h])
	if sum.long[h] == nil {
		sum.long[h] = sum.short[h]
	} else {
		VPADDD(sum.short[h], sum.long[h], sum.long[h])
	}
	sum.short[h], sum.added[h] = nil, 0
}

// finish adds a block's parts from p on, scaled, to the rows' sums.
func (d *dot) finish(c *scales, p int, sum []sums, acc []VecVirtual) {
	for _, v := range sum {
		if d.shifted() {
			VPSRAD(U8(4), v.long[1], v.long[1])
		}
		if d.vnni && !d.halves {
			VPADDD(v.long[1], v.long[0], v.long[0])
		}
	}
	var x VecVirtual
	if !d.wide() {
		x = d.broadcast(mem(d.a, 44))
	}
	for h := range d.count() {
		if !d.vnni && !d.signed() && d.layout.bias != 0 {
			bias := d.biased(h)
			for i := range sum {
				VPADDD(bias, sum[i].long[h], sum[i].long[h])
			}
		}
		for i, v := range acc {
			scale := c.scale(h, p+i)
			if d.wide() {
				VMULPS_BCST(mem(d.a, 44), scale, scale)
			} else {
				VMULPS(x, scale, scale)
			}
			VCVTDQ2PS(sum[i].long[h], sum[i].long[h])
			VFMADD231PS(scale, sum[i].long[h], v)
		}
	}
	if !d.min {
		return
	}
	for h := range d.count() {
		at := 48
		if d.halves {
			at += 4 + 4*h
		}
		x := d.broadcast(mem(d.a, at))
		for i, v := range acc {
			if least := c.least(h, p+i); d.super {
				VFNMADD231PS(x, least, v)
			} else {
				VFMADD231PS(x, least, v)
			}
		}
	}
}

// gemvFloat adds the products of groups of float weights with one row: four
// groups at once, to hide the latency of the one sum that each element has,
// then one after another.
func (s set) gemvFloat(kind string) {
	s.text("gemv"+kind, "dst *float32, w, act *byte, n, groups, stride int", "gemvFloatGeneric of kind"+kind+".")
	dst, group, act := arg("dst"), arg("w"), arg("act")
	n, groups, stride := arg("n"), arg("groups"), arg("stride")
	w, near, far, a, left, stride3 := GP64(), variable("nearFloats"), variable("farFloats"), GP64(), GP64(), times(stride, 3)
	some := func(count int, name string) {
		lines := func(w Register) []Mem {
			return []Mem{mem(w, 0), mem(w, 0).Idx(stride, 1), mem(w, 0).Idx(stride, 2), mem(w, 0).Idx(stride3, 1)}[:count]
		}
		at := lines(w)
		fetch := func() {
			l1, l2 := GP64(), GP64()
			LEAQ(mem(w, 0).Idx(near, 1), l1)
			LEAQ(mem(w, 0).Idx(far, 1), l2)
			for _, m := range lines(l1) {
				PREFETCHT0(m)
			}
			for _, m := range lines(l2) {
				PREFETCHT1(m)
			}
		}
		acc := s.vecs(count * s.parts())
		MOVQ(group, w)
		MOVQ(act, a)
		MOVQ(n, left)
		for i, v := range acc {
			VMOVUPS(mem(dst, i*s.bytes()), v)
		}
		columns := func(n int) {
			for c := range n {
				x := s.broadcast(mem(a, 4*c))
				for i, v := range acc {
					VFMADD231PS(x, s.floats(kind, at[i/s.parts()].Offset(c*columnBytes(kind)), i%s.parts()), v)
				}
			}
			ADDQ(num(n*columnBytes(kind)), w)
			ADDQ(num(4*n), a)
		}
		if kind == "F32" { // a column is a line
			loop("columns"+name, left, func() {
				fetch()
				columns(1)
			})
		} else {
			SHRQ(U8(1), left)
			JZ(LabelRef("odd" + name))
			loop("columns"+name, left, func() {
				fetch()
				columns(2)
			})
			Label("odd" + name)
			Load(Param("n"), left)
			TESTQ(U32(1), left)
			JZ(LabelRef("sums" + name))
			columns(1)
			Label("sums" + name)
		}
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
