package main

import "math/bits"

// One row times packed groups, added to what is there. V0-V3 are the 16 rows' accumulators, V16 and
// V17 the 32 activations of a block, V18 its sums and scale, V19 its products.

func gemvBegin(name string) {
	text(name, 48)
	p("MOVD dst+0(FP), R0")
	p("MOVD w+8(FP), R1")
	p("MOVD act+16(FP), R2")
	p("MOVD n+24(FP), R3")
	p("MOVD groups+32(FP), R4")
	p("MOVD stride+40(FP), R5")
}

func gemvEnd(name string) {
	for i := range 4 {
		strQ(i, dst, i*16)
	}
	p("ADD $64, R0")
	p("ADD R5, R1")
	p("SUBS $1, R4")
	p("BNE %s_group", name)
	p("RET")
}

func groupBegin(name string) {
	label("%s_group", name)
	p("MOVD R1, R6")
	p("MOVD R2, R8")
	p("MOVD R3, R9")
	for i := range 4 {
		ldrQ(i, dst, i*16)
	}
}

func loadAct() {
	for i := range 4 {
		ldrQ(16+i, ap, i*16)
	}
}

func blockEnd(name string, vec int) {
	p("ADD $%d, R6", vec)
	p("ADD $64, R8")
	p("SUBS $1, R9")
	p("BNE %s_block", name)
}

// scaled adds integer sums v..v+3 times scales s..s+3 times the activation's scale.
func scaled(v, s int) {
	for i := range 4 {
		fmulE(s+i, s+i, 18, 3)
		scvtf(v+i, v+i)
		fmla(i, v+i, s+i)
	}
}

// superBegin opens a superblock of 8 blocks: R7 is its head, R10 the byte scales
// after each block, R11 counts.
func (l layout) superBegin(name string) {
	label("%s_super", name)
	p("MOVD R6, R7")
	p("ADD $%d, R6", 32*l.heads())
	p("ADD $%d, R6, R10", l.block)
	p("MOVD $8, R11")
}

func (l layout) superEnd(name string) {
	p("ADD $%d, R6", l.block+l.scales)
	p("ADD $%d, R10", l.block+l.scales)
	p("SUBS $1, R11")
	p("BNE %s_block", name)
	p("SUBS $8, R9")
	p("BNE %s_super", name)
}

// gemv multiplies a block at a time: V4-V7 are sums of products, and V8-V11 those
// of the last 16 columns where these have scales of their own.
func gemv(l layout) {
	const sum, bias, scales, d = 4, 29, 22, 12
	name, parts := "gemv"+l.name+"NEON", l.unpacked().parts()
	wide := l.block == 512
	gemvBegin(name)
	l.constants(0)
	if wide {
		bytesOf(bias, 128)
	}
	groupBegin(name)
	if l.super {
		l.superBegin(name)
	}
	label("%s_block", name)
	loadAct()
	l.loadAbove()
	biased := l.bias > 0 && !wide && l.table == nil // then sums begin with -bias times those of activations
	if biased {
		sshrS(bias, 18, 7-bits.TrailingZeros(uint(l.bias)))
	}
	for i := range 4 * parts {
		if biased {
			dup(sum+i, bias, i/4+parts-1)
		} else {
			zero(sum + i)
		}
	}
	for j := range 4 {
		for q := range 4 {
			l.unpackPair(j, q)
			for h, v := range []int{first, second} {
				if wide {
					eor(v, v, bias)
				}
				sdot(sum+h*(parts-1)*4+q, v, 16+h, j)
			}
		}
	}
	if !l.super {
		l.scale(scales, d, 0)
		scaled(sum, scales)
		if l.min {
			l.least(scales, d, 0)
			for q := range 4 {
				fmlaE(q, scales+q, 19, 0)
			}
		}
		blockEnd(name, l.block+l.scales)
		gemvEnd(name)
		return
	}
	halvesAt(d, sp, 0)
	for h := range parts {
		l.scale(scales, d, h)
		scaled(sum+4*h, scales)
	}
	if l.min {
		halvesAt(d, sp, 32)
		for h := range parts {
			l.least(scales, d, h)
			for q := range 4 {
				fmlsE(q, scales+q, 19, h+parts-1) // fsum, or flo and fhi
			}
		}
	}
	p("ADD $64, R8")
	l.superEnd(name)
	gemvEnd(name)
}

// gemvI8 multiplies formats that are panels already.
func gemvI8() {
	const name = "gemvI8NEON"
	gemvBegin(name)
	bytesOf(28, 128)
	groupBegin(name)
	label("%s_block", name)
	loadAct()
	for h := range 2 {
		for q := range 4 {
			zero(4 + q)
		}
		for j := h * 4; j < h*4+4; j++ {
			for q := range 4 {
				ldrQ(20+q, wp, j*64+q*16)
				eor(20+q, 20+q, 28)
				sdot(4+q, 20+q, 16+h, j%4)
			}
		}
		for q := range 4 {
			ldrQ(20+q, wp, 512+h*64+q*16)
		}
		scaled(4, 20)
	}
	blockEnd(name, 640)
	gemvEnd(name)
}

// gemvFloat multiplies one column after another.
func gemvFloat(format string) {
	name := "gemv" + format + "NEON"
	gemvBegin(name)
	label("%s_group", name)
	p("MOVD R1, R6")
	p("MOVD R2, R8")
	p("MOVD R3, R9")
	for i := range 4 {
		ldrQ(i, dst, i*16)
	}
	label("%s_column", name)
	p("FMOVS (R8), F16")
	floatColumn(format, 4, 4)
	for q := range 4 {
		fmlaE(q, 4+q, 16, 0)
	}
	p("ADD $%d, R6", columnBytes(format))
	p("ADD $4, R8")
	p("SUBS $1, R9")
	p("BNE %s_column", name)
	gemvEnd(name)
}

func columnBytes(format string) int {
	if format == "F32" {
		return 64
	}
	return 32
}

// floatColumn loads quads 4-row quads of a column at R6 into d...
func floatColumn(format string, d, quads int) {
	if format == "F32" {
		for q := range quads {
			ldrQ(d+q, wp, q*16)
		}
		return
	}
	for i := range quads / 2 {
		ldrQ(30+i, wp, i*16)
		if format == "F16" {
			fcvtl(d+2*i, 30+i)
			fcvtl2(d+2*i+1, 30+i)
		} else {
			shll16(d+2*i, 30+i)
			shll2(d+2*i+1, 30+i)
		}
	}
}
