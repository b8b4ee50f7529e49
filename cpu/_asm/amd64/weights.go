package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// layout is a packed layout of quantised weights (see cpu/kernels.go).
type layout struct {
	name   string
	block  int  // bytes of weights in a block; of all of it for panel
	scales int  // bytes of scales and mins after a block
	two    bool // two bits a weight in place of a nibble
	high   int  // bits above them: 1 or 2
	bias   int  // value = weight - bias
	most   int  // largest weight; 0: up to 255, of bias 128
	min    bool
	halves bool   // scales of 16 columns
	super  bool   // superblocks of 8 blocks, after f16 scales and mins of their scales and mins
	e8m0   bool   // scales are exponents
	table  string // nibbles are indices of it
	panel  bool   // an unpacked block, with float32 scales and mins
}

var layouts = []layout{
	{name: "Q8_0", block: 512, scales: 32, bias: 128},
	{name: "Q4_0", block: 256, scales: 32, bias: 8, most: 15},
	{name: "Q4_1", block: 256, scales: 64, most: 15, min: true},
	{name: "Q5_0", block: 320, scales: 32, high: 1, bias: 16, most: 31},
	{name: "Q5_1", block: 320, scales: 64, high: 1, most: 31, min: true},
	{name: "Q2_K", block: 128, scales: 32, two: true, most: 3, min: true, halves: true, super: true},
	{name: "Q3_K", block: 192, scales: 32, two: true, high: 1, bias: 4, most: 7, halves: true, super: true},
	{name: "Q4_K", block: 256, scales: 32, most: 15, min: true, super: true},
	{name: "Q5_K", block: 320, scales: 32, high: 1, most: 31, min: true, super: true},
	{name: "Q6_K", block: 384, scales: 32, high: 2, bias: 32, most: 63, halves: true, super: true},
	{name: "IQ4_NL", block: 256, scales: 32, bias: 128, table: "iq4nl"},
	{name: "IQ4_XS", block: 256, scales: 16, bias: 128, super: true, table: "iq4nl"},
	{name: "MXFP4", block: 256, scales: 16, bias: 128, e8m0: true, table: "e2m1"},
	{name: "I8", block: 640, bias: 128, halves: true, panel: true},
}

// panels are the layouts of unpacked blocks. Weights of panel32M have 5 bits
// at most, in panel16M 2: AVX2 relies on it.
var panels = []layout{
	{name: "32", block: 576, bias: 128, panel: true},
	{name: "32M", block: 640, most: 31, min: true, panel: true},
	{name: "16", block: 640, bias: 128, halves: true, panel: true},
	{name: "16M", block: 768, most: 3, min: true, halves: true, panel: true},
}

// size is the bytes of a block and its scales.
func (l layout) size() int {
	if l.panel {
		return l.block
	}
	return l.block + l.scales
}

// head is the bytes before a superblock's blocks.
func (l layout) head() int {
	if l.min {
		return 64
	}
	return 32
}

// bytes says that weights are bytes already.
func (l layout) bytes() bool { return l.name == "Q8_0" || l.panel }

// held says that a part's vectors are loaded before weights are made of them.
func (l layout) held() bool { return l.two || l.high > 0 }

// joint says that a byte holds a scale and, above, its min.
func (l layout) joint() bool { return l.super && l.min && l.halves }

// lower is how many vectors come before the bits above.
func (l layout) lower() int {
	if l.two {
		return 2
	}
	return 4
}

// unpacked is the layout that unpack makes.
func (l layout) unpacked() layout {
	i := 0
	if l.halves {
		i += 2
	}
	if l.min {
		i++
	}
	return panels[i]
}

// weights makes vectors of unsigned weights from a block at w.
type weights struct {
	set
	layout
	w            Register
	nibble, bits VecVirtual
	values       VecVirtual    // of the table
	loaded       [4]VecVirtual // nibbles of the part, or two vectors of two bits a weight
	above        [2]VecVirtual // bits above them
}

// weights prepares the constants.
func (s set) weights(l layout, w Register) *weights {
	b := &weights{set: s, layout: l, w: w}
	if l.bytes() {
		return b
	}
	b.nibble = s.dword(0x0f0f0f0f)
	if l.two {
		b.nibble = s.dword(0x03030303)
	}
	switch {
	case l.two && l.high == 1:
		b.bits = s.dword(0x04040404)
	case l.high == 1:
		b.bits = s.dword(0x10101010)
	case l.high == 2:
		b.bits = s.dword(0x30303030)
	case l.table != "":
		b.values = s.vec()
		if s.wide() {
			VBROADCASTI32X4(data(l.table), b.values)
		} else {
			VBROADCASTI128(data(l.table), b.values)
		}
	}
	return b
}

// part loads the vectors of part p that pair unpacks, if not pair itself: in
// the order in which they lie, which lets the processor fetch ahead.
func (b *weights) part(p int) {
	if !b.held() {
		return
	}
	for j := range b.lower() {
		b.loaded[j] = b.vector(j, p)
	}
	for i := range b.high {
		b.above[i] = b.vector(b.lower()+i, p)
	}
}

// vector is what lies at vector j.
func (b *weights) vector(j, p int) VecVirtual {
	v := b.vec()
	b.move(mem(b.w, j*64+p*b.set.bytes()), v)
	return v
}

// pair is vectors j and j+4 of part p.
func (b *weights) pair(j, p int) (lo, hi VecVirtual) {
	switch {
	case b.layout.bytes():
		return b.vector(j, p), b.vector(j+4, p)
	case b.two:
		lo, hi = b.shifted(b.loaded[0], 2*j), b.shifted(b.loaded[1], 2*j)
	case b.high == 0:
		lo = b.vector(j, p)
		hi = b.shifted(lo, 4)
	default:
		lo = b.loaded[j]
		hi = b.shifted(lo, 4)
	}
	b.addHigh(lo, j)
	b.addHigh(hi, j+4)
	if b.table != "" {
		VPSHUFB(lo, b.values, lo)
		VPSHUFB(hi, b.values, hi)
	}
	return lo, hi
}

// addHigh makes weights of vector j of the lower bits in v, whose other bits are noise.
func (b *weights) addHigh(v Register, j int) {
	if b.high == 0 {
		b.and(b.nibble, v, v)
		return
	}
	t := b.vec()
	from, left := b.above[0], b.lower()-j // the third or fifth bit lies at bit j
	if b.high == 2 {
		from, left = b.above[j/4], 4-j%4*2 // bits 4 and 5 lie at bits 2j%8
	}
	switch {
	case left > 0:
		VPSLLD(U8(uint8(left)), from, t)
		b.and(b.bits, t, t)
	case left < 0:
		VPSRLD(U8(uint8(-left)), from, t)
		b.and(b.bits, t, t)
	default:
		b.and(b.bits, from, t)
	}
	if b.wide() {
		VPTERNLOGD(U8(0xea), t, b.nibble, v) // v&nibble | t
		return
	}
	VPAND(b.nibble, v, v)
	VPOR(t, v, v)
}

// scales gives the scales and mins of the rows of a group.
type scales struct {
	set
	layout
	w        Register
	rows     bool     // several are multiplied
	head     Register // for super: of the superblock
	d, dmin  []VecVirtual
	nibble   Op         // for joint
	half     VecVirtual // for e8m0: the bits of 2^-128
	low, one Op         // for e8m0: the bits that 2^-128 and 2^-127 have; 1
}

// superblock loads the scales of the blocks' scales; AVX2, which has no
// registers for them where there are bits above the lower ones, loads them when it
// needs them.
func (c *scales) superblock() {
	c.d, c.dmin = nil, nil
	if c.joint() {
		c.nibble = c.constant(0x0f0f0f0f)
	}
	if !c.wide() && c.high > 0 {
		return
	}
	for p := range c.parts() {
		c.d = append(c.d, c.f16(mem(c.head, 0), p))
		if c.min {
			c.dmin = append(c.dmin, c.f16(mem(c.head, 32), p))
		}
	}
}

// scale is that of half h.
func (c *scales) scale(h, p int) VecVirtual {
	switch {
	case c.panel:
		return c.f32(mem(c.w, 512+64*h), p)
	case c.e8m0:
		return c.exponential(mem(c.w, c.block), p)
	case !c.super:
		return c.f16(mem(c.w, c.block), p)
	case c.joint():
		v := c.bytes32(mem(c.w, c.block+16*h), p)
		c.and(c.nibble, v, v)
		VCVTDQ2PS(v, v)
		return c.product(v, c.d, 0, p)
	case c.min:
		return c.product(c.u8(mem(c.w, c.block), p), c.d, 0, p)
	}
	return c.product(c.i8(mem(c.w, c.block+16*h), p), c.d, 0, p)
}

// least is the min of half h; for super its negative.
func (c *scales) least(h, p int) VecVirtual {
	switch {
	case c.panel && c.halves:
		return c.f32(mem(c.w, 640+64*h), p)
	case c.panel:
		return c.f32(mem(c.w, 576), p)
	case !c.super:
		return c.f16(mem(c.w, c.block+32), p)
	case c.joint():
		v := c.bytes32(mem(c.w, c.block+16*h), p)
		VPSRLD(U8(4), v, v)
		VCVTDQ2PS(v, v)
		return c.product(v, c.dmin, 32, p)
	}
	return c.product(c.u8(mem(c.w, c.block+16), p), c.dmin, 32, p)
}

// product is v times the superblock's d, which is loaded from byte at of the
// head if it is not in a register. It is exact: 11 bits times 8.
func (c *scales) product(v VecVirtual, d []VecVirtual, at, p int) VecVirtual {
	if d == nil {
		d = make([]VecVirtual, c.parts())
		d[p] = c.f16(mem(c.head, at), p)
	}
	VMULPS(d[p], v, v)
	return v
}

// exponential is 2^(e-128) of the exponents e at m. Its bits are e-1 above bit
// 23, but for the subnormal numbers of e = 0 and 1, which have bit 21+e.
func (c *scales) exponential(m Mem, p int) VecVirtual {
	v, t := c.bytes32(m, p), c.vec()
	VPSLLVD(v, c.half, t)
	c.and(c.low, t, t)
	VPSUBUSW(c.one, v, v)
	VPSLLD(U8(23), v, v)
	c.or(t, v, v)
	return v
}

// unpack writes the kernel that makes panel blocks of a packed group.
func (s set) unpack(l layout) {
	s.text("unpack"+l.name, "panel, w *byte, n int", "unpackGeneric of kind"+l.name+".")
	dst, w, n := arg("panel"), arg("w"), arg("n")
	b := s.weights(l, w)
	c := &scales{set: s, layout: l, w: w}
	to := l.unpacked()
	var bias, sign Op
	if add := to.bias - l.bias; add != 0 {
		bias = s.dword(uint32(add) * 0x01010101)
	}
	if l.super && l.min {
		sign = s.constant(0x80000000)
	}
	block := func() {
		for p := range s.parts() {
			b.part(p)
			for j := range 4 {
				for i, v := range pairOf(b.pair(j, p)) {
					if bias != nil {
						VPADDB(bias, v, v)
					}
					s.move(v, mem(dst, (j+4*i)*64+p*s.bytes()))
				}
			}
			for h := range to.count() {
				VMOVUPS(c.scale(h, p), mem(dst, 512+64*h+p*s.bytes()))
			}
			if !l.min {
				continue
			}
			for h := range to.count() {
				v := c.least(h, p)
				if sign != nil {
					s.xor(sign, v, v)
				}
				VMOVUPS(v, mem(dst, 512+64*(to.count()+h)+p*s.bytes()))
			}
		}
		ADDQ(num(to.block), dst)
	}
	c.blocks(n, block)
	s.end()
}

func pairOf(a, b VecVirtual) [2]VecVirtual { return [2]VecVirtual{a, b} }

// count is the number of scales of a row in a block.
func (l layout) count() int {
	if l.halves {
		return 2
	}
	return 1
}

// fetch asks for the lines that lie near and far bytes behind the next bytes at w, into L1 and L2 (see ahead
// in package cpu). Where many rows are multiplied no register is left to keep the two in.
func (c *scales) fetch(bytes int) {
	nearName, farName := "nearWeights", "farWeights"
	if c.rows {
		nearName, farName = "nearRows", "farRows"
	}
	near := variable(nearName)
	for at := 0; at < bytes; at += 64 {
		PREFETCHT0(mem(c.w, at).Idx(near, 1))
	}
	far := variable(farName)
	for at := 0; at < bytes; at += 64 {
		PREFETCHT1(mem(c.w, at).Idx(far, 1))
	}
}

// variable is the value of one of package cpu.
func variable(name string) GPVirtual {
	r := GP64()
	MOVQ(NewDataAddr(Symbol{Name: "·" + name}, 0), r)
	return r
}

// blocks repeats block n times and moves w on; n is used up.
func (c *scales) blocks(n Register, block func()) { c.named("", n, block) }

// named is blocks under labels of another name.
func (c *scales) named(name string, n Register, block func()) {
	if c.e8m0 {
		c.half, c.low, c.one = c.dword(0x00200000), c.constant(0x00600000), c.constant(1)
	}
	if !c.super {
		loop("block"+name, n, func() {
			c.fetch(c.size())
			block()
			ADDQ(num(c.size()), c.w)
		})
		return
	}
	eight := GP64()
	c.head = GP64()
	SHRQ(U8(3), n)
	loop("superblock"+name, n, func() {
		MOVQ(c.w, c.head)
		c.fetch(c.layout.head())
		ADDQ(num(c.layout.head()), c.w)
		c.superblock()
		MOVQ(num(8), eight)
		loop("block"+name, eight, func() {
			c.fetch(c.size())
			block()
			ADDQ(num(c.size()), c.w)
		})
	})
}
