package main

// layout is a packed layout of quantised weights (see cpu/kernels.go).
type layout struct {
	name   string
	block  int  // bytes of weights in a block
	scales int  // bytes of scales and mins after a block
	two    bool // two bits a weight in place of a nibble
	high   int  // bits above them: 1 or 2
	bias   int  // value = weight - bias
	min    bool
	halves bool   // scales of 16 columns
	super  bool   // superblocks of 8 blocks, after f16 scales and mins of their scales and mins
	e8m0   bool   // scales are exponents
	table  []int8 // nibbles are indices of it
}

var (
	iq4nl = []int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	e2m1  = []int8{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
)

var layouts = []layout{
	{name: "Q8_0", block: 512, scales: 32, bias: 128},
	{name: "Q4_0", block: 256, scales: 32, bias: 8},
	{name: "Q4_1", block: 256, scales: 64, min: true},
	{name: "Q5_0", block: 320, scales: 32, high: 1, bias: 16},
	{name: "Q5_1", block: 320, scales: 64, high: 1, min: true},
	{name: "Q2_K", block: 128, scales: 32, two: true, min: true, halves: true, super: true},
	{name: "Q3_K", block: 192, scales: 32, two: true, high: 1, bias: 4, halves: true, super: true},
	{name: "Q4_K", block: 256, scales: 32, min: true, super: true},
	{name: "Q5_K", block: 320, scales: 32, high: 1, min: true, super: true},
	{name: "Q6_K", block: 384, scales: 32, high: 2, bias: 32, halves: true, super: true},
	{name: "IQ4_NL", block: 256, scales: 32, bias: 128, table: iq4nl},
	{name: "IQ4_XS", block: 256, scales: 16, bias: 128, super: true, table: iq4nl},
	{name: "MXFP4", block: 256, scales: 16, bias: 128, e8m0: true, table: e2m1},
}

// unpacked is the layout that unpack makes.
func (l layout) unpacked() panel {
	i := 0
	if l.halves {
		i += 2
	}
	if l.min {
		i++
	}
	return panels[i]
}

// heads is how many f16 a superblock has for a row.
func (l layout) heads() int {
	if l.min {
		return 2
	}
	return 1
}

// joint says that a byte holds a scale and, above, its min.
func (l layout) joint() bool { return l.super && l.min && l.halves }

// lower is how many bits lie below those above.
func (l layout) lower() int {
	if l.two {
		return 2
	}
	return 4
}

// Registers of weights: V20 and V21 are unpacked, V26 works, the others hold
// constants.
const (
	second, first     = 20, 21 // vectors j+4 and j
	nibble, upper, nl = 28, 30, 31
)

// Registers of exponents, in whose formats they are free.
const (
	one       = 27 // in every byte
	half      = 29 // the bits of 2^-128
	subnormal = 30 // those that 2^-128 and 2^-127 have
)

// above are the registers of the bits above nibbles.
var above = [8]int{12, 13, 14, 15, 22, 23, 24, 25}

// constants sets those of weights; flip changes values of a table.
func (l layout) constants(flip byte) {
	bytesOf(nibble, 1<<l.lower()-1)
	if l.high > 0 {
		bytesOf(upper, (1<<l.high-1)<<l.lower())
	}
	if l.e8m0 {
		bytesOf(one, 1)
		dwords(half, 0x00200000)
		dwords(subnormal, 0x00600000)
	}
	if l.table == nil {
		return
	}
	var values [16]byte
	for i, v := range l.table {
		values[i] = byte(v) ^ flip
	}
	sixteen(nl, values)
}

// loadAbove loads the bits above the lower ones of a block.
func (l layout) loadAbove() {
	for i := range 4 * l.high {
		ldrQ(above[i], wp, l.block-64*l.high+i*16)
	}
}

// unpackPair makes unsigned weights of quad q of vectors j and j+4.
func (l layout) unpackPair(j, q int) {
	if l.block == 512 {
		ldrQ(first, wp, j*64+q*16)
		ldrQ(second, wp, (j+4)*64+q*16)
		return
	}
	if l.two {
		for h, v := range []int{first, second} {
			ldrQ(v, wp, h*64+q*16)
			if j > 0 {
				ushrB(v, v, 2*j)
			}
			and(v, v, nibble)
		}
	} else {
		ldrQ(second, wp, j*64+q*16)
		and(first, second, nibble)
		ushrB(second, second, 4)
	}
	for h, v := range []int{first, second} {
		switch l.high {
		case 1: // the third or fifth bit lies at bit j
			addBits(v, above[q], l.lower()-j-4*h)
		case 2: // bits 4 and 5 lie at bits 2j%8
			addBits(v, above[4*h+q], 4-2*j)
		}
		if l.table != nil {
			tbl(v, nl, v)
		}
	}
}

// addBits adds to v those bits of from that are bits after a shift to the left.
func addBits(v, from, left int) {
	const t = 26
	switch {
	case left > 0:
		shlB(t, from, left)
		from = t
	case left < 0:
		ushrB(t, from, -left)
		from = t
	}
	and(t, from, upper)
	orr(v, v, t)
}

// unpack writes the kernel that makes panel blocks of a packed group.
func unpack(l layout) {
	const to, d, dmin, add = 0, 0, 4, 29
	name, panel := "unpack"+l.name+"NEON", l.unpacked()
	text(name, 24)
	p("MOVD panel+0(FP), R0")
	p("MOVD w+8(FP), R6")
	p("MOVD n+16(FP), R9")
	l.constants(128)
	bias := 0
	if panel.biased {
		bias = 128 - l.bias
	}
	if bias != 0 {
		bytesOf(add, uint32(bias))
	}
	if l.super {
		l.superBegin(name)
		for i := range l.heads() {
			halvesAt(d+i*(dmin-d), sp, 32*i)
		}
	}
	label("%s_block", name)
	l.loadAbove()
	for j := range 4 {
		for q := range 4 {
			l.unpackPair(j, q)
			for h, v := range []int{first, second} {
				if bias != 0 {
					addB(v, v, add)
				}
				strQ(v, to, (j+4*h)*64+q*16)
			}
		}
	}
	for h := range panel.parts() {
		l.scale(22, d, h)
		storeQuads(22, to, 512+64*h)
	}
	if l.min {
		for h := range panel.parts() {
			l.least(22, dmin, h)
			if l.super {
				for q := range 4 {
					fneg(22+q, 22+q)
				}
			}
			storeQuads(22, to, 512+64*(panel.parts()+h))
		}
	}
	p("ADD $%d, R0", panel.size)
	if l.super {
		l.superEnd(name)
	} else {
		p("ADD $%d, R6", l.block+l.scales)
		p("SUBS $1, R9")
		p("BNE %s_block", name)
	}
	p("RET")
}

// halvesAt loads 16 f16 as float32 into v..v+3; V20 and V21 work.
func halvesAt(v, r, off int) {
	ldrQ(20, r, off)
	ldrQ(21, r, off+16)
	halves4(v, 20)
}

// scale loads that of half h into v..v+3; d..d+3 are the superblock's. V20, V21
// and V26 work.
func (l layout) scale(v, d, h int) {
	switch {
	case l.e8m0:
		l.exponential(v)
	case !l.super:
		halvesAt(v, wp, l.block)
	default:
		ldrQ(20, bp, 16*h)
		if l.joint() {
			shlB(20, 20, 4)
			ushrB(20, 20, 4)
		}
		timesBytes(v, d, !l.min)
	}
}

// least is scale of mins, for super their negatives.
func (l layout) least(v, dmin, h int) {
	switch {
	case !l.super:
		halvesAt(v, wp, l.block+32)
	case l.joint():
		ldrQ(20, bp, 16*h)
		ushrB(20, 20, 4)
		timesBytes(v, dmin, false)
	default:
		ldrQ(20, bp, 16)
		timesBytes(v, dmin, false)
	}
}

// exponential makes v..v+3 2^(e-128) of the 16 exponents e after a block. Its bits
// are e-1 above bit 23, but for the subnormal numbers of e = 0 and 1, which have bit
// 21+e.
func (l layout) exponential(v int) {
	ldrQ(20, wp, l.block)
	uqsubB(21, 20, one)
	for q := range 4 {
		widen(v+q, 20, q, false)
		ushl(v+q, half, v+q)
		and(v+q, v+q, subnormal)
		widen(26, 21, q, false)
		shlS(26, 26, 23)
		orr(v+q, v+q, 26)
	}
}

// timesBytes makes v..v+3 of d..d+3 times the 16 bytes of V20.
func timesBytes(v, d int, signed bool) {
	for q := range 4 {
		widen(v+q, 20, q, signed)
		if signed {
			scvtf(v+q, v+q)
		} else {
			ucvtf(v+q, v+q)
		}
		fmul(v+q, v+q, d+q)
	}
}

func storeQuads(v, r, off int) {
	for q := range 4 {
		strQ(v+q, r, off+q*16)
	}
}
