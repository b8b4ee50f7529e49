package main

// layout is a packed layout of quantised weights (see cpu/kernels.go).
type layout struct {
	name   string
	block  int // bytes of weights in a block
	scales int // bytes of scales and mins after a block
	high   int // bits above the nibble: 1 (fifth) or 2
	bias   int // value = weight - bias
	min    bool
	halves bool // scales of 16 columns
	super  bool // superblocks of 8 blocks, after f16 scales and mins of their scales and mins
	table  bool // nibbles are indices of IQ4_NL's table
}

var layouts = []layout{
	{name: "Q8_0", block: 512, scales: 32, bias: 128},
	{name: "Q4_0", block: 256, scales: 32, bias: 8},
	{name: "Q4_1", block: 256, scales: 64, min: true},
	{name: "Q5_0", block: 320, scales: 32, high: 1, bias: 16},
	{name: "Q5_1", block: 320, scales: 64, high: 1, min: true},
	{name: "Q4_K", block: 256, scales: 32, min: true, super: true},
	{name: "Q5_K", block: 320, scales: 32, high: 1, min: true, super: true},
	{name: "Q6_K", block: 384, scales: 32, high: 2, bias: 32, halves: true, super: true},
	{name: "IQ4_NL", block: 256, scales: 32, bias: 128, table: true},
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

// Registers of weights: V20 and V21 are unpacked, V26 works, the others hold
// constants.
const (
	second, first     = 20, 21 // vectors j+4 and j
	nibble, upper, nl = 28, 30, 31
)

// above are the registers of the bits above nibbles.
var above = [8]int{12, 13, 14, 15, 22, 23, 24, 25}

// constants sets those of weights; flip changes values of a table.
func (l layout) constants(flip byte) {
	bytesOf(nibble, 15)
	switch l.high {
	case 1:
		bytesOf(upper, 0x10)
	case 2:
		bytesOf(upper, 0x30)
	}
	if !l.table {
		return
	}
	var values [16]byte
	for i, v := range []int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113} {
		values[i] = byte(v) ^ flip
	}
	sixteen(nl, values)
}

// loadAbove loads the bits above a block's nibbles.
func (l layout) loadAbove() {
	for i := range 4 * l.high {
		ldrQ(above[i], wp, 256+i*16)
	}
}

// unpackPair makes unsigned weights of quad q of vectors j and j+4.
func (l layout) unpackPair(j, q int) {
	if l.block == 512 {
		ldrQ(first, wp, j*64+q*16)
		ldrQ(second, wp, (j+4)*64+q*16)
		return
	}
	ldrQ(second, wp, j*64+q*16)
	and(first, second, nibble)
	ushrB(second, second, 4)
	for h, v := range []int{first, second} {
		switch l.high {
		case 1: // the fifth bit lies at bit j
			addBits(v, above[q], 4-j-4*h)
		case 2: // bits 4 and 5 lie at bits 2j%8
			addBits(v, above[4*h+q], 4-2*j)
		}
		if l.table {
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
	switch {
	case !l.super:
		for i := range l.scales / 32 {
			halvesAt(22, wp, l.block+32*i)
			storeQuads(22, to, 512+64*i)
		}
	case l.halves:
		for h := range 2 {
			timesBytes(22, d, 16*h, true)
			storeQuads(22, to, 512+64*h)
		}
	default:
		timesBytes(22, d, 0, false)
		storeQuads(22, to, 512)
		timesBytes(22, dmin, 16, false)
		for q := range 4 {
			fneg(22+q, 22+q)
		}
		storeQuads(22, to, 576)
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

// timesBytes makes v..v+3 of d..d+3 times the 16 byte scales off bytes after R10.
func timesBytes(v, d, off int, signed bool) {
	ldrQ(20, bp, off)
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
