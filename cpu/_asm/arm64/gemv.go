package main

// One row times packed groups. V0-V3 are the 16 rows' accumulators, V16 and
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
		zero(i)
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

func nibbleBlock(bias int) {
	if bias > 0 {
		shlS(29, 18, bias)
	}
	for q := range 4 {
		if bias > 0 {
			dup(4+q, 29, 0)
		} else {
			zero(4 + q)
		}
	}
	for j := range 4 {
		for q := range 4 {
			ldrQ(20, wp, j*64+q*16)
			and(21, 20, 28)
			ushrB(20, 20, 4)
			sdot(4+q, 21, 16, j)
			sdot(4+q, 20, 17, j)
		}
	}
}

func gemvQ4() {
	const name = "gemvQ4_0NEON"
	gemvBegin(name)
	bytesOf(28, 15)
	groupBegin(name)
	label("%s_block", name)
	loadAct()
	nibbleBlock(3)
	ldrQ(20, wp, 256)
	ldrQ(21, wp, 272)
	halves4(22, 20)
	scaled(4, 22)
	blockEnd(name, 288)
	gemvEnd(name)
}

func gemvQ8() {
	const name = "gemvQ8_0NEON"
	gemvBegin(name)
	bytesOf(28, 128)
	groupBegin(name)
	label("%s_block", name)
	loadAct()
	for q := range 4 {
		zero(4 + q)
	}
	for j := range 8 {
		for q := range 4 {
			ldrQ(20+q, wp, j*64+q*16)
			eor(20+q, 20+q, 28)
			sdot(4+q, 20+q, 16+j/4, j%4)
		}
	}
	ldrQ(20, wp, 512)
	ldrQ(21, wp, 528)
	halves4(22, 20)
	scaled(4, 22)
	blockEnd(name, 544)
	gemvEnd(name)
}

// superBegin opens a superblock of 8 blocks behind a head of size bytes: R7 is the head,
// R10 walks its byte scales, R11 counts.
func superBegin(name string, bytes, size int) {
	label("%s_super", name)
	p("MOVD R6, R7")
	p("ADD $%d, R7, R10", bytes)
	p("ADD $%d, R6", size)
	p("MOVD $8, R11")
}

func superEnd(name string, vec, step int) {
	p("ADD $%d, R6", vec)
	p("ADD $%d, R10", step)
	p("SUBS $1, R11")
	p("BNE %s_block", name)
	p("SUBS $8, R9")
	p("BNE %s_super", name)
}

func gemvQ4K() {
	const name = "gemvQ4_KNEON"
	gemvBegin(name)
	bytesOf(28, 15)
	groupBegin(name)
	superBegin(name, 64, 320)
	label("%s_block", name)
	loadAct()
	nibbleBlock(0)
	for m, at := range []int{0, 128} { // scales, then mins
		ldrQ(20, sp, m*32)
		ldrQ(21, sp, m*32+16)
		halves4(22, 20)
		ldrQ(20, bp, at)
		for q := range 4 {
			widen(21, 20, q, false)
			ucvtf(21, 21)
			fmul(22+q, 22+q, 21)
		}
		if m == 0 {
			scaled(4, 22)
			continue
		}
		for q := range 4 { // acc -= dmin*min * sum
			fmlsE(q, 22+q, 19, 0)
		}
	}
	p("ADD $64, R8")
	superEnd(name, 256, 16)
	gemvEnd(name)
}

func gemvQ6K() {
	const name = "gemvQ6_KNEON"
	gemvBegin(name)
	bytesOf(30, 15)
	bytesOf(31, 3)
	groupBegin(name)
	superBegin(name, 32, 288)
	label("%s_block", name)
	loadAct()
	shlS(29, 18, 5)
	ldrQ(12, sp, 0)
	ldrQ(13, sp, 16)
	ldrQ(14, bp, 0)
	ldrQ(15, bp, 16)
	for q := range 4 {
		dup(4, 29, 1)
		dup(5, 29, 2)
		ldrQ(8, wp, 256+q*16)
		ldrQ(9, wp, 320+q*16)
		for j := range 4 {
			ldrQ(20, wp, j*64+q*16)
			and(21, 20, 30)
			ushrB(20, 20, 4)
			for h, v := range []int{21, 20} {
				high := 8 + h
				if j > 0 {
					ushrB(22, 8+h, 2*j)
					high = 22
				}
				and(22, high, 31)
				shlB(22, 22, 4)
				orr(v, v, 22)
				sdot(4+h, v, 16+h, j)
			}
		}
		if q%2 == 0 {
			fcvtl(22, 12+q/2)
		} else {
			fcvtl2(22, 12+q/2)
		}
		for h := range 2 {
			widen(23, 14+h, q, true)
			scvtf(23, 23)
			fmul(23, 23, 22)
			fmulE(23, 23, 18, 3)
			scvtf(4+h, 4+h)
			fmla(q, 4+h, 23)
		}
	}
	p("ADD $64, R8")
	superEnd(name, 384, 32)
	gemvEnd(name)
}

// gemvPanel adds n panel blocks to 16 accumulators in memory.
func gemvPanel(k panel) {
	name := "gemvPanel" + k.name + "NEON"
	text(name, 32)
	p("MOVD acc+0(FP), R0")
	p("MOVD panel+8(FP), R6")
	p("MOVD act+16(FP), R8")
	p("MOVD n+24(FP), R9")
	bytesOf(28, 128)
	for i := range 4 {
		ldrQ(i, dst, i*16)
	}
	label("%s_block", name)
	loadAct()
	parts := k.parts()
	for h := range parts {
		for q := range 4 {
			zero(4 + q)
		}
		for j := h * 4; j < h*4+8/parts; j++ {
			for q := range 4 {
				ldrQ(20+q, wp, j*64+q*16)
				if k.biased {
					eor(20+q, 20+q, 28)
				}
				sdot(4+q, 20+q, 16+j/4, j%4)
			}
		}
		for q := range 4 {
			ldrQ(20+q, wp, 512+h*64+q*16)
		}
		scaled(4, 20)
	}
	if k.mins {
		for h := range parts {
			for q := range 4 {
				ldrQ(20, wp, 512+(parts+h)*64+q*16)
				fmlaE(q, 20, 19, h+parts-1) // fsum, or flo and fhi
			}
		}
	}
	blockEnd(name, k.size)
	for i := range 4 {
		strQ(i, dst, i*16)
	}
	p("RET")
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
		zero(i)
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
