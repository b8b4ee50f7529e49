package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// pack writes the kernels that make a packed group of 16 rows of a file's
// blocks. The limit is memory: what is read and what is written. The rows are
// read 16 bytes at a time; four registers, with rows i, 4+i, 8+i and 12+i in
// lanes of their own, become vectors of 4 columns by two rounds of unpacking
// within lanes. Fifth and high bits, which lie a bit a column in the file and a
// bit a vector in a group, are transposed by exchanging halves of ever smaller
// fields between registers.
func (s set) pack() {
	for _, f := range []struct {
		name  string
		body  func(p *packer)
		elems int // columns of a file's block
	}{
		{"F32", (*packer).f32, 4}, {"F16", (*packer).f16, 8},
		{"Q8_0", (*packer).q8_0, 32}, {"Q4_0", (*packer).q4_0, 32}, {"Q4_1", (*packer).q4_1, 32},
		{"Q5_0", (*packer).q5_0, 32}, {"Q5_1", (*packer).q5_1, 32},
		{"MXFP4", (*packer).mxfp4, 32}, {"Q2_K", (*packer).q2_k, 256}, {"Q3_K", (*packer).q3_k, 256},
		{"Q4_K", (*packer).q4_k, 256}, {"Q5_K", (*packer).q5_k, 256}, {"Q6_K", (*packer).q6_k, 256},
		{"IQ4_XS", (*packer).iq4_xs, 256},
	} {
		s.text("pack"+f.name, "dst, src *byte, row, cols int", "packer.group of kind"+f.name+", 16 rows.")
		p := &packer{set: s, dst: arg("dst"), stride: arg("row")}
		p.rows[0] = arg("src")
		n := arg("cols")
		SHRQ(U8(uint8(bits.TrailingZeros(uint(f.elems)))), n)
		p.stride3 = times(p.stride, 3)
		for i := range 3 {
			p.rows[i+1] = GP64()
			LEAQ(mem(p.rows[i], 0).Idx(p.stride, 4), p.rows[i+1])
		}
		p.ahead = GP64()
		LEAQ(mem(p.rows[3], 0).Idx(p.stride, 4), p.ahead)
		loop("block", n, func() { f.body(p) })
		s.end()
	}
}

// packer reads blocks of 16 rows.
type packer struct {
	set
	dst             Register
	rows            [4]Register // of rows 0, 4, 8 and 12
	ahead           Register    // as far into the next group as the 16 rows were read
	stride, stride3 Register
}

// row is byte at of row r's block.
func (p *packer) row(r, at int) Mem {
	m := mem(p.rows[r/4], at)
	return []Mem{m, m.Idx(p.stride, 1), m.Idx(p.stride, 2), m.Idx(p.stride3, 1)}[r%4]
}

// next moves on by bytes of the file and of the group.
func (p *packer) next(file, group int) {
	for at := 0; at < 16*file; at += 64 {
		PREFETCHT1(mem(p.ahead, at))
	}
	ADDQ(num(16*file), p.ahead)
	for _, r := range p.rows {
		ADDQ(num(file), r)
	}
	ADDQ(num(group), p.dst)
}

// to is vector j, of which this is part, behind byte at of the group.
func (p *packer) to(at, j, part int) Mem { return mem(p.dst, at+j*64+part*p.bytes()) }

// gather is the 16 bytes at byte at of rows i, 4+i, ... of a part, a row a lane.
func (p *packer) gather(at, part, i int) VecVirtual {
	v, first := p.vec(), part*8+i
	if !p.wide() { // a broadcast costs no more than a load, and avo knows that it writes all of v
		VBROADCASTI128(p.row(first, at), v)
		VINSERTI128(U8(1), p.row(first+4, at), v, v)
		return v
	}
	VBROADCASTI32X4(p.row(first, at), v)
	for lane := range 3 {
		VINSERTI32X4(U8(uint8(lane+1)), p.row(first+4*lane+4, at), v, v)
	}
	return v
}

// chunk is dwords 0 to 3 of the 16 bytes at byte at: one a vector. Only those
// below count are made.
func (p *packer) chunk(at, part, count int) []VecVirtual {
	var in [4]VecVirtual
	for i := range in {
		in[i] = p.gather(at, part, i)
	}
	a, b := p.vec(), p.vec() // dwords 0 and 1 of rows 0 and 1, of 2 and 3
	VPUNPCKLDQ(in[1], in[0], a)
	VPUNPCKLDQ(in[3], in[2], b)
	out := p.vecs(count)
	VPUNPCKLQDQ(b, a, out[0])
	if count > 1 {
		VPUNPCKHQDQ(b, a, out[1])
	}
	if count > 2 {
		VPUNPCKHDQ(in[1], in[0], in[0])
		VPUNPCKHDQ(in[3], in[2], in[2])
		VPUNPCKLQDQ(in[2], in[0], out[2])
		VPUNPCKHQDQ(in[2], in[0], out[3])
	}
	return out
}

// store writes vectors one after another.
func (p *packer) store(v []VecVirtual, at, part int) {
	for j, v := range v {
		p.move(v, p.to(at, j, part))
	}
}

// halves copies the 16 bits at byte at of every row's block.
func (p *packer) halves(at, to int) {
	for r := range 16 {
		t := GP32()
		MOVWLZX(p.row(r, at), t)
		MOVW(t.As16(), mem(p.dst, to+2*r))
	}
}

// words writes the lower 16 bits of all rows of v, then the upper ones.
func (p *packer) words(v VecVirtual, to, part int) {
	if p.wide() {
		order := p.vec()
		p.move(data("words"), order)
		VPERMW(v, order, v)
		p.move(v, mem(p.dst, to))
		return
	}
	VPSHUFB(data("words"), v, v)
	VPERMQ(U8(0xd8), v, v)
	VMOVDQU(v.AsX(), mem(p.dst, to+16*part))
	VEXTRACTI128(U8(1), v, mem(p.dst, to+32+16*part))
}

// quarters writes byte i of all rows of v, i = 0 to 3, to to(i).
func (p *packer) quarters(v VecVirtual, to func(i int) int, part int) {
	order, quarter := p.vec(), p.vec()
	if p.wide() {
		VBROADCASTI32X4(data("quarters"), quarter)
		p.move(data("unpacked"), order)
		VPSHUFB(quarter, v, v)
		VPERMD(v, order, v)
		VMOVDQU(v.AsX(), mem(p.dst, to(0)))
		for i := 1; i < 4; i++ {
			VEXTRACTI32X4(U8(uint8(i)), v, mem(p.dst, to(i)))
		}
		return
	}
	upper := XMM()
	VBROADCASTI128(data("quarters"), quarter)
	p.move(data("unpacked"), order)
	VPSHUFB(quarter, v, v)
	VPERMD(v, order, v)
	VEXTRACTI128(U8(1), v, upper)
	for i, x := range []Register{v.AsX(), upper} {
		VMOVQ(x, mem(p.dst, to(2*i)+8*part))
		VMOVHPS(x, mem(p.dst, to(2*i+1)+8*part))
	}
}

// swap exchanges the fields of a above mask, shift bits further up, with the
// fields of b below it.
func (p *packer) swap(a, b VecVirtual, shift uint8, mask uint32) {
	m, t := p.constant(mask), p.vec()
	VPSRLD(U8(shift), a, t)
	if p.wide() {
		u := p.vec()
		VPSLLD(U8(shift), b, u)
		VPTERNLOGD(U8(0xe2), u, m, a) // mask ? a : b<<shift
		VPTERNLOGD(U8(0xe2), b, m, t) // mask ? a>>shift : b
		p.move(t, b)
		return
	}
	VPXOR(b, t, t)
	VPAND(m, t, t)
	VPXOR(t, b, b)
	VPSLLD(U8(shift), t, t)
	VPXOR(t, a, a)
}

// exchange swaps bits i and k (i > k) of the number of every bit of x.
func (p *packer) exchange(x VecVirtual, i, k int) {
	var mask uint32
	for bit := range 32 {
		if bit>>i&1 == 0 && bit>>k&1 == 1 {
			mask |= 1 << bit
		}
	}
	m, t, shift := p.constant(mask), p.vec(), U8(uint8(1<<i-1<<k))
	VPSRLD(shift, x, t)
	if p.wide() {
		u := p.vec()
		VPTERNLOGD(U8(0x28), m, x, t) // (t^x) & mask
		VPSLLD(shift, t, u)
		VPTERNLOGD(U8(0x96), u, t, x)
		return
	}
	VPXOR(x, t, t)
	VPAND(m, t, t)
	VPXOR(t, x, x)
	VPSLLD(shift, t, t)
	VPXOR(t, x, x)
}

// fifth moves bit 4j+b to bit 8b+j: j2 j1 j0 b1 b0 becomes b1 b0 j2 j1 j0.
func (p *packer) fifth(x VecVirtual) {
	p.exchange(x, 4, 1)
	p.exchange(x, 3, 0)
	p.exchange(x, 2, 1)
	p.exchange(x, 1, 0)
}

func (p *packer) f32() {
	for part := range p.parts() {
		p.store(p.chunk(0, part, 4), 0, part)
	}
	p.next(16, 256)
}

func (p *packer) f16() {
	for part := range p.parts() {
		for j, v := range p.chunk(0, part, 4) {
			p.words(v, 64*j, part)
		}
	}
	p.next(16, 256)
}

func (p *packer) q8_0() {
	bias := p.constant(0x80808080)
	for part := range p.parts() {
		for i := range 2 {
			v := p.chunk(2+16*i, part, 4)
			for _, v := range v {
				p.xor(bias, v, v)
			}
			p.store(v, 256*i, part)
		}
	}
	p.halves(0, 512)
	p.next(34, 544)
}

func (p *packer) q4_0() {
	for part := range p.parts() {
		p.store(p.chunk(2, part, 4), 0, part)
	}
	p.halves(0, 256)
	p.next(18, 288)
}

func (p *packer) q4_1() {
	for part := range p.parts() {
		p.store(p.chunk(4, part, 4), 0, part)
		p.words(p.chunk(0, part, 1)[0], 256, part)
	}
	p.next(20, 320)
}

func (p *packer) q5_0() {
	for part := range p.parts() {
		p.store(p.chunk(6, part, 4), 0, part)
		h := p.chunk(2, part, 1)[0]
		p.fifth(h)
		p.move(h, p.to(256, 0, part))
	}
	p.halves(0, 320)
	p.next(22, 352)
}

func (p *packer) q5_1() {
	for part := range p.parts() {
		p.store(p.chunk(8, part, 4), 0, part)
		v := p.chunk(0, part, 2)
		p.words(v[0], 320, part)
		p.fifth(v[1])
		p.move(v[1], p.to(256, 0, part))
	}
	p.next(24, 384)
}

func (p *packer) mxfp4() {
	for part := range p.parts() {
		p.store(p.chunk(1, part, 4), 0, part)
	}
	for r := range 16 {
		t := GP32()
		MOVBLZX(p.row(r, 0), t)
		MOVB(t.As8(), mem(p.dst, 256+r))
	}
	p.next(17, 272)
}

// scalesOf gives quarters the places of scales 4i to 4i+3 of a superblock: two a
// block, behind its weights.
func scalesOf(head, weights, i int) func(j int) int {
	return func(j int) int { return head + (2*i+j/2)*(weights+32) + weights + j%2*16 }
}

// head packs the scales of a superblock of Q4_K or Q5_K, whose blocks are weights
// of so many bytes.
func (p *packer) head(weights int) {
	for part := range p.parts() {
		v := p.chunk(0, part, 4)
		p.words(v[0], 0, part)
		for i, v := range p.scalesAndMins(v) {
			p.quarters(v, func(j int) int { return 64 + (4*(i%2)+j)*(weights+32) + weights + 16*(i/2) }, part)
		}
	}
}

// scalesAndMins is scales 0-3, 4-7, mins 0-3 and 4-7, a byte each, of the head of a
// superblock of Q4_K or Q5_K. In it lie 6 bits of scales 0-3 and mins 0-3 with the
// upper two of 4-7 above them, then the lower four of 4-7.
func (p *packer) scalesAndMins(v []VecVirtual) [4]VecVirtual {
	nibble, two, six := p.constant(0x0f0f0f0f), p.constant(0x30303030), p.constant(0x3f3f3f3f)
	scale, min, t := p.vec(), p.vec(), p.vec()
	p.and(nibble, v[3], scale)
	VPSRLD(U8(2), v[1], t)
	p.and(two, t, t)
	p.or(t, scale, scale)
	VPSRLD(U8(4), v[3], min)
	p.and(nibble, min, min)
	VPSRLD(U8(2), v[2], t)
	p.and(two, t, t)
	p.or(t, min, min)
	p.and(six, v[1], v[1])
	p.and(six, v[2], v[2])
	return [4]VecVirtual{v[1], scale, v[2], min}
}

// pair packs 32 bytes of nibbles: of one block the lower ones, of another the upper.
func (p *packer) pair(at, lower, upper int) {
	for part := range p.parts() {
		x, y := p.chunk(at, part, 4), p.chunk(at+16, part, 4)
		for j := range x {
			p.swap(x[j], y[j], 4, 0x0f0f0f0f)
		}
		p.store(x, lower, part)
		p.store(y, upper, part)
	}
}

// pairs packs the four pairs of a superblock of Q4_K or Q5_K, of blocks of size bytes.
func (p *packer) pairs(size int) {
	n := GP64()
	MOVQ(num(4), n)
	loop("pair", n, func() {
		p.pair(0, 0, size)
		p.next(32, 2*size)
	})
}

func (p *packer) q4_k() {
	p.head(256)
	p.next(16, 64)
	p.pairs(256 + 32)
}

func (p *packer) q5_k() {
	p.head(320)
	p.oneBit(16, 64+256, 320+32)
	p.next(48, 64)
	p.pairs(320 + 32)
}

// oneBit packs 32 bytes of bits, one of each of 8 blocks of size bytes.
func (p *packer) oneBit(at, to, size int) {
	for part := range p.parts() {
		v := append(p.chunk(at, part, 4), p.chunk(at+16, part, 4)...)
		for i := range 4 {
			p.swap(v[i], v[i+4], 4, 0x0f0f0f0f)
		}
		for _, i := range []int{0, 1, 4, 5} {
			p.swap(v[i], v[i+2], 2, 0x33333333)
		}
		for i := 0; i < 8; i += 2 {
			p.swap(v[i], v[i+1], 1, 0x55555555)
		}
		for b, v := range v {
			p.move(v, p.to(to+size*b, 0, part))
		}
	}
}

// twoBits packs twice 32 bytes of 2 bits of each of 4 blocks of size bytes.
func (p *packer) twoBits(at, to, size int) {
	for half := range 2 {
		for part := range p.parts() {
			for h := range 2 {
				v := p.chunk(at+32*half+16*h, part, 4)
				p.swap(v[0], v[2], 4, 0x0f0f0f0f)
				p.swap(v[1], v[3], 4, 0x0f0f0f0f)
				p.swap(v[0], v[1], 2, 0x33333333)
				p.swap(v[2], v[3], 2, 0x33333333)
				for quarter, v := range v {
					p.move(v, p.to(to+size*(4*half+quarter), h, part))
				}
			}
		}
	}
}

func (p *packer) q2_k() {
	const head, weights = 64, 128
	const block = weights + 32
	for part := range p.parts() {
		p.words(p.chunk(68, part, 4)[3], 0, part)
		for i, v := range p.chunk(0, part, 4) {
			p.quarters(v, scalesOf(head, weights, i), part)
		}
	}
	p.twoBits(16, head, block)
	p.next(84, head+8*block)
}

func (p *packer) q3_k() {
	const head, weights = 32, 192
	const block = weights + 32
	p.halves(108, 0)
	for part := range p.parts() {
		v := p.chunk(92, part, 4) // the scales' low nibbles in 1 and 2, their upper bits in 3
		for i := range 4 {
			scale := p.shifted(v[1+i%2], i/2*4)
			p.sixBits(scale, p.shifted(v[3], 2*i-4))
			p.quarters(scale, scalesOf(head, weights, i), part)
		}
	}
	p.oneBit(0, head+128, block)
	p.twoBits(32, head, block)
	p.next(110, head+8*block)
}

// sixBits makes scales of their nibbles in low and their bits 4 and 5 in high, whose
// other bits are noise; 32 stands for 0.
func (p *packer) sixBits(low, high VecVirtual) {
	p.and(p.constant(0x0f0f0f0f), low, low)
	p.and(p.constant(0x30303030), high, high)
	p.or(high, low, low)
	VPADDB(p.constant(0xe0e0e0e0), low, low)
}

func (p *packer) q6_k() {
	const head, weights = 32, 384
	const block = weights + 32
	p.halves(208, 0)
	for part := range p.parts() {
		for i, v := range p.chunk(192, part, 4) {
			p.quarters(v, scalesOf(head, weights, i), part)
		}
	}
	p.twoBits(128, head+256, block)
	for half := range 2 {
		for i := range 2 {
			lower := head + block*(4*half+i)
			p.pair(64*half+32*i, lower, lower+2*block)
		}
	}
	p.next(210, head+8*block)
}

func (p *packer) iq4_xs() {
	const head, weights = 32, 256
	const block = weights + 16
	p.halves(0, 0)
	for part := range p.parts() {
		v := p.chunk(0, part, 2) // the scales' upper bits in the upper half of 0, their nibbles in 1
		high, t, odd := v[0], p.vec(), p.vec()
		VPSRLD(U8(16), high, high) // a nibble for each two scales, to be spread to a byte
		VPSLLD(U8(8), high, t)
		p.or(t, high, high)
		p.and(p.constant(0x00ff00ff), high, high)
		VPSLLD(U8(4), high, t)
		p.or(t, high, high)
		VPSLLD(U8(4), high, t)
		VPSLLD(U8(2), high, high)
		VPSRLD(U8(4), v[1], odd)
		p.sixBits(v[1], t)
		p.sixBits(odd, high)
		VPUNPCKLBW(odd, v[1], t) // rows 0 and 1 of a lane
		VPUNPCKHBW(odd, v[1], high)
		VSHUFPS(U8(0x88), high, t, v[1])
		VSHUFPS(U8(0xdd), high, t, odd)
		for i, v := range []VecVirtual{v[1], odd} {
			p.quarters(v, func(j int) int { return head + (4*i+j)*block + weights }, part)
		}
	}
	p.next(8, head)
	n := GP64()
	MOVQ(num(8), n)
	loop("nibbles", n, func() {
		for part := range p.parts() {
			p.store(p.chunk(0, part, 4), 0, part)
		}
		p.next(16, block)
	})
}
