package main

import (
	"math/bits"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// raw writes the products of 16 rows of a file's blocks with one row of
// activations. The limit is the memory that brings the weights. A register holds
// the same 16 columns of 4 rows (2 with AVX2), a row a lane, as in pack; its
// products with the activations leave 4 sums a lane, and a transposition of four
// such registers, with additions, makes the sums of 16 rows (8) of it. From there on
// it is gemv. Rows lie behind each other, so that the next group's bytes are
// asked for in their order, as many as were read of this one.
func (s set) raw() {
	for _, f := range []struct {
		name       string
		body       func(r *raw)
		bytes, per int // of a file's block, and of n
	}{
		{"F32", (*raw).floats, 16, 4}, {"F16", (*raw).floats, 16, 8}, {"BF16", (*raw).floats, 16, 8},
		{"Q8_0", (*raw).q8_0, 34, 1}, {"Q4_0", (*raw).q4, 18, 1}, {"Q4_1", (*raw).q4, 20, 1},
		{"Q5_0", (*raw).q5, 22, 1}, {"Q5_1", (*raw).q5, 24, 1}, {"IQ4_NL", (*raw).q4, 18, 1},
		{"Q4_K", (*raw).q4_k, 144, 8}, {"Q5_K", (*raw).q4_k, 176, 8}, {"Q6_K", (*raw).q6_k, 210, 8},
	} {
		l, step := layout{name: f.name}, 4*f.per
		if i := slices.IndexFunc(layouts, func(l layout) bool { return l.name == f.name }); i >= 0 {
			l, step = layouts[i], 64*f.per
		} else if s.productsOnly() {
			continue
		}
		s.text("raw"+f.name, "dst *float32, src, act *byte, row, n int", "gemv"+f.name+" of what pack"+f.name+" makes.")
		dst, src, act, n, row := arg("dst"), arg("src"), arg("act"), arg("n"), arg("row")
		SHRQ(U8(uint8(bits.TrailingZeros(uint(f.per)))), n)
		r := &raw{dot: &dot{set: s, layout: l, a: GP64()}, file: f.bytes, step: step, acc: s.vec(),
			from: &packer{set: s, stride: row, stride3: times(row, 3), ahead: GP64()}}
		r.constants()
		MOVQ(row, r.from.ahead)
		SHLQ(U8(4), r.from.ahead)
		ADDQ(src, r.from.ahead)
		parts := GP64()
		MOVQ(num(s.parts()), parts)
		loop("part", parts, func() {
			r.part(src, act, n, f.body)
			VMOVUPS(r.acc, mem(dst, 0))
			ADDQ(num(s.bytes()), dst)
			LEAQ(mem(src, 0).Idx(row, 8), src)
		})
		s.end()
	}
}

// raw multiplies the blocks of 16 rows, or of 8 with AVX2, with the activations at a.
type raw struct {
	*dot
	from       *packer // the rows
	file, step int     // bytes of a file's block, of its activations
	acc        VecVirtual

	nibble, values VecVirtual
	spread         [2]VecVirtual // which byte of a block has the fifth bits of columns 0-15, of 16-31
	bit, above     VecVirtual    // which bit of it; what the bits above a nibble count
	upperWord      VecVirtual
}

// part multiplies the rows from src on, as many as a register has lanes.
func (r *raw) part(src, act, n Register, body func(r *raw)) {
	rows, left := r.from.rows[:r.lanes()/4], GP64()
	for i := range rows {
		rows[i] = GP64()
		if i == 0 {
			MOVQ(src, rows[0])
		} else {
			LEAQ(mem(rows[i-1], 0).Idx(r.from.stride, 4), rows[i])
		}
	}
	MOVQ(act, r.a)
	MOVQ(n, left)
	r.zero(r.acc)
	loop("block", left, func() {
		body(r)
		ADDQ(num(r.lanes()*r.file), r.from.ahead)
		for _, row := range rows {
			ADDQ(num(r.file), row)
		}
		ADDQ(num(r.step), r.a)
	})
}

// constants prepares them.
func (r *raw) constants() {
	switch r.name {
	case "F32", "F16":
		return
	case "BF16":
		r.upperWord = r.dword(0xffff0000)
		return
	}
	if !r.vnni {
		r.ones = r.dword(0x00010001)
	}
	if r.name == "Q8_0" {
		if r.vnni {
			r.bias8 = r.dword(0x80808080)
		}
		return
	}
	r.nibble = r.dword(0x0f0f0f0f)
	switch {
	case r.table != "":
		r.values = r.lanesOf(data(r.table))
		if r.signed() {
			VPXOR(r.constant(0x80808080), r.values, r.values)
		}
	case r.high == 1 && r.super:
		r.above = r.dword(0x10101010)
	case r.high == 1:
		r.above, r.bit = r.dword(0x10101010), r.lanesOf(data("bit"))
		for h := range r.spread {
			at := r.file - 20 + 2*h
			r.spread[h] = r.lanesOf(data("eighth"))
			VPADDB(r.dword(0x01010101*uint32(at)), r.spread[h], r.spread[h])
		}
	case r.high == 2:
		r.above = r.dword(0x30303030)
	}
}

// lanesOf is the 16 bytes at m in every lane.
func (r *raw) lanesOf(m Mem) VecVirtual {
	v := r.vec()
	if r.wide() {
		VBROADCASTI32X4(m, v)
	} else {
		VBROADCASTI128(m, v)
	}
	return v
}

// fetch asks for part i of what lies ahead as far as the next group: a fourth of
// what a block is of it. The processor drops what comes in bursts.
func (r *raw) fetch(i int) {
	lines, parts := (r.lanes()*r.file+63)/64, 4
	if r.super {
		parts *= 8
	}
	for j := lines * i / parts; j < lines*(i+1)/parts; j++ {
		PREFETCHT0(mem(r.from.ahead, 64*j))
	}
}

// block adds block b behind a to the rows' sums. weights gives columns 0-15 and
// 16-31 of rows i, 4+i, ..., scale and least the rows' scales and mins.
func (r *raw) block(b int, weights func(i int) [2]VecVirtual, scale func(h int) VecVirtual, least func() VecVirtual) {
	q := [2]VecVirtual{r.lanesOf(mem(r.a, 64*b)), r.lanesOf(mem(r.a, 64*b+16))}
	sum := make([][]VecVirtual, r.count())
	for i := range 4 {
		r.fetch(4*b + i)
		u := weights(i)
		if r.halves {
			sum[0], sum[1] = append(sum[0], r.dots(u[:1], q[:1])), append(sum[1], r.dots(u[1:], q[1:]))
		} else {
			sum[0] = append(sum[0], r.dots(u[:], q[:]))
		}
		for h, v := range sum {
			if n := len(v); i%2 == 1 {
				sum[h] = append(v[:n-2], r.merge(v[n-2], v[n-1], false))
			}
		}
	}
	for h, v := range sum {
		total := r.merge(v[0], v[1], true)
		if r.bias != 0 && !r.signed() {
			at := 64*b + 32
			if r.halves {
				at += 4 + 4*h
			}
			bias := r.broadcast(mem(r.a, at))
			biased(r.bias, bias)
			VPADDD(bias, total, total)
		}
		VCVTDQ2PS(total, total)
		x := scale(h)
		if r.wide() {
			VMULPS_BCST(mem(r.a, 64*b+44), x, x)
		} else {
			VMULPS(r.broadcast(mem(r.a, 64*b+44)), x, x)
		}
		VFMADD231PS(x, total, r.acc)
	}
	if !r.min {
		return
	}
	x := r.broadcast(mem(r.a, 64*b+48))
	if r.super {
		VFNMADD231PS(x, least(), r.acc)
	} else {
		VFMADD231PS(x, least(), r.acc)
	}
}

// dots is weights u times activations q: 4 sums of a row, in int32. u is lost.
func (r *raw) dots(u, q []VecVirtual) (sum VecVirtual) {
	if r.vnni {
		sum = r.vec()
		r.zero(sum)
		for h := range u {
			VPDPBUSD(q[h], u[h], sum)
		}
		return sum
	}
	for h, u := range u {
		if r.signed() {
			signed := r.vec()
			VPSIGNB(u, q[h], signed)
			VPABSB(u, u)
			VPMADDUBSW(signed, u, u)
			VPMADDWD(r.ones, u, u)
		} else {
			VPMADDUBSW(q[h], u, u)
		}
	}
	sum = u[0]
	if len(u) == 2 {
		if r.signed() {
			VPADDD(u[1], sum, sum)
		} else { // up to 31: of four products
			VPADDW(u[1], sum, sum)
		}
	}
	if !r.signed() {
		VPMADDWD(r.ones, sum, sum)
	}
	return sum
}

// merge adds the dwords of each lane of a and b by twos, and leaves sums of a and of b by
// turns. last adds what that has left of four registers: a sum each, in their order.
func (r *raw) merge(a, b VecVirtual, last bool) VecVirtual {
	t := r.vec()
	if last {
		VPUNPCKHQDQ(b, a, t)
		VPUNPCKLQDQ(b, a, a)
	} else {
		VPUNPCKHDQ(b, a, t)
		VPUNPCKLDQ(b, a, a)
	}
	VPADDD(t, a, a)
	return a
}

// half is the f16 in the lower words of v, or the upper.
func (r *raw) half(v VecVirtual, upper bool) VecVirtual {
	to := r.vec()
	if upper {
		VPSRLD(U8(16), v, to)
		v = to
	}
	if r.wide() {
		VPMOVDW(v, to.AsY())
		VCVTPH2PS(to.AsY(), to)
		return to
	}
	VPSHUFB(data("words"), v, to)
	VPERMQ(U8(0xd8), to, to)
	VCVTPH2PS(to.AsX(), to)
	return to
}

// head gives the scale and the min that the first dword of every row's block is.
func (r *raw) head() (scale func(int) VecVirtual, least func() VecVirtual) {
	head := r.from.chunk(0, 0, 1)[0]
	return func(int) VecVirtual { return r.half(head, false) }, func() VecVirtual { return r.half(head, true) }
}

// nibbles splits the 16 bytes in each lane of v, which is lost.
func (r *raw) nibbles(v VecVirtual) [2]VecVirtual {
	lo := r.vec()
	r.and(r.nibble, v, lo)
	VPSRLD(U8(4), v, v)
	r.and(r.nibble, v, v)
	return pairOf(lo, v)
}

func (r *raw) q8_0() {
	scale, least := r.head()
	r.block(0, func(i int) [2]VecVirtual {
		u := pairOf(r.from.gather(2, 0, i), r.from.gather(18, 0, i))
		if r.vnni {
			r.xor(r.bias8, u[0], u[0])
			r.xor(r.bias8, u[1], u[1])
		}
		return u
	}, scale, least)
}

// q4 is Q4_0, Q4_1 and IQ4_NL.
func (r *raw) q4() {
	scale, least := r.head()
	r.block(0, func(i int) [2]VecVirtual {
		u := r.nibbles(r.from.gather(r.file-16, 0, i))
		if r.table != "" {
			VPSHUFB(u[0], r.values, u[0])
			VPSHUFB(u[1], r.values, u[1])
		}
		return u
	}, scale, least)
}

// q5 is Q5_0 and Q5_1, whose fifth bits lie before the nibbles, a bit a column.
func (r *raw) q5() {
	scale, least := r.head()
	r.block(0, func(i int) [2]VecVirtual {
		u, five := r.nibbles(r.from.gather(r.file-16, 0, i)), r.from.gather(0, 0, i)
		for h := range u {
			t := r.vec()
			VPSHUFB(r.spread[h], five, t)
			if r.wide() {
				set := K()
				VPTESTMB(r.bit, t, set)
				VPADDB(r.above, u[h], set, u[h])
				continue
			}
			VPAND(r.bit, t, t)
			VPCMPEQB(r.bit, t, t)
			VPAND(r.above, t, t)
			VPOR(t, u[h], u[h])
		}
		return u
	}, scale, least)
}

// floats is F32, F16 and BF16, 16 bytes of every row at a time.
func (r *raw) floats() {
	add := func(column int, v VecVirtual) {
		VFMADD231PS(r.broadcast(mem(r.a, 4*column)), v, r.acc)
	}
	for i, v := range r.from.chunk(0, 0, 4) {
		r.fetch(i)
		switch r.name {
		case "F32":
			add(i, v)
		case "F16":
			add(2*i, r.half(v, false))
			add(2*i+1, r.half(v, true))
		case "BF16":
			lower := r.vec()
			VPSLLD(U8(16), v, lower)
			add(2*i, lower)
			r.and(r.upperWord, v, v)
			add(2*i+1, v)
		}
	}
}

// keep is v for the length of a superblock: AVX2 puts it on the stack.
func (r *raw) keep(v VecVirtual) Op {
	if r.wide() {
		return v
	}
	m := AllocLocal(r.set.bytes())
	VMOVDQU(v, m)
	return m
}

// byteOf is byte i of the kept dwords times the kept d.
func (r *raw) byteOf(kept Op, i int, d Op) VecVirtual {
	v := r.vec()
	from := kept
	if !r.wide() {
		VMOVDQU(kept, v)
		from = v
	}
	if i < 3 {
		VPSLLD(U8(uint8(24-8*i)), from, v)
		from = v
	}
	if r.min {
		VPSRLD(U8(24), from, v)
	} else {
		VPSRAD(U8(24), from, v)
	}
	VCVTDQ2PS(v, v)
	VMULPS(d, v, v)
	return v
}

// hold gives 16 bytes of rows i, 4+i, ...: AVX2 reads them each time.
func (r *raw) hold(at int) func(i int) VecVirtual {
	if !r.wide() {
		return func(i int) VecVirtual { return r.from.gather(at, 0, i) }
	}
	var v [4]VecVirtual
	for i := range v {
		v[i] = r.from.gather(at, 0, i)
	}
	return func(i int) VecVirtual { return v[i] }
}

// field moves the bits of v from bit from to bit to, and keeps those of mask.
func (r *raw) field(v VecVirtual, from, to int, mask VecVirtual) VecVirtual {
	t := r.vec()
	switch {
	case from < to:
		VPSLLD(U8(uint8(to-from)), v, t)
		v = t
	case from > to:
		VPSRLD(U8(uint8(from-to)), v, t)
		v = t
	}
	r.and(mask, v, t)
	return t
}

// q4_k is Q4_K and Q5_K.
func (r *raw) q4_k() {
	head := r.from.chunk(0, 0, 4)
	d, dmin := r.keep(r.half(head[0], false)), r.keep(r.half(head[0], true))
	var six [4]Op
	for i, v := range r.from.scalesAndMins(head) {
		six[i] = r.keep(v)
	}
	var five [2]func(i int) VecVirtual
	if r.high == 1 {
		five = [2]func(i int) VecVirtual{r.hold(16), r.hold(32)}
	}
	for pair := range 4 {
		at := r.file - 128 + 32*pair
		q := [2]func(i int) VecVirtual{r.hold(at), r.hold(at + 16)}
		for upper := range 2 {
			b := 2*pair + upper
			r.block(b, func(i int) (u [2]VecVirtual) {
				for h := range u {
					u[h] = r.field(q[h](i), 4*upper, 0, r.nibble)
					if r.high == 1 {
						r.or(r.field(five[h](i), b, 4, r.above), u[h], u[h])
					}
				}
				return u
			}, func(int) VecVirtual { return r.byteOf(six[b/4], b%4, d) },
				func() VecVirtual { return r.byteOf(six[2+b/4], b%4, dmin) })
		}
	}
}

func (r *raw) q6_k() {
	d := r.keep(r.half(r.from.chunk(194, 0, 4)[3], true))
	var scales [4]Op
	for i, v := range r.from.chunk(192, 0, 4) {
		scales[i] = r.keep(v)
	}
	for half := range 2 {
		upper := [2]func(i int) VecVirtual{r.hold(128 + 32*half), r.hold(144 + 32*half)}
		for quarter := range 4 {
			b, at := 4*half+quarter, 64*half+quarter%2*32
			r.block(b, func(i int) (u [2]VecVirtual) {
				for h := range u {
					u[h] = r.field(r.from.gather(at+16*h, 0, i), quarter/2*4, 0, r.nibble)
					r.or(r.field(upper[h](i), 2*quarter, 4, r.above), u[h], u[h])
				}
				return u
			}, func(h int) VecVirtual { return r.byteOf(scales[b/2], b%2*2+h, d) }, nil)
		}
	}
}
