package main

// Six rows times two groups, eight weight rows at a time: V0-V11 accumulators
// (token, quad), V12-V23 integer sums, V24 and V25 what the six rows' records
// hold at one place, V26 and V27 weights or scales.

const tokens = 6

func gemmBegin(name string) {
	text(name, 48)
	p("MOVD dst+0(FP), R0")
	p("MOVD ld+8(FP), R5")
	p("LSL $2, R5")
	p("MOVD n+40(FP), R3")
}

// eight opens rows 8*h of group a or b.
func eight(name string, h, rowBytes int) {
	p("MOVD %s(FP), R6", []string{"a+16", "a+16", "b+24", "b+24"}[h])
	if h%2 == 1 {
		p("ADD $%d, R6", rowBytes)
	}
	p("MOVD act+32(FP), R8")
	p("MOVD R3, R9")
	for i := range 2 * tokens {
		zero(i)
	}
	label("%s_%d", name, h)
}

func eightEnd(name string, h int) {
	p("SUBS $1, R9")
	p("BNE %s_%d", name, h)
	storeEight(h)
}

// storeEight writes V0 to V11 to rows 8*h of the result.
func storeEight(h int) {
	p("ADD $%d, R0, R10", h*32)
	for t := range tokens {
		strQ(2*t, 10, 0)
		strQ(2*t+1, 10, 16)
		if t < tokens-1 {
			p("ADD R5, R10")
		}
	}
}

// six loads into v and v+1 the dwords of six rows that lie off bytes after
// general register r.
func six(v, r, off int) {
	ldurQ(v, r, off)
	ldurD(v+1, r, off+16)
}

func lane(t int) (v, i int) { return 24 + t/4, t % 4 }

func gemm(k panel) {
	name := "gemmPanel" + k.name + "NEON"
	gemmBegin(name)
	bytesOf(28, 128)
	parts := k.parts()
	for h := range 4 {
		eight(name, h, 32)
		p("ADD $256, R8, R11")
		for part := range parts {
			for i := range 2 * tokens {
				zero(12 + i)
			}
			for j := part * 4; j < part*4+8/parts; j++ {
				ldrQ(26, wp, j*64)
				ldrQ(27, wp, j*64+16)
				if k.biased {
					eor(26, 26, 28)
					eor(27, 27, 28)
				}
				six(24, ap, j*4*tokens)
				for t := range tokens {
					v, i := lane(t)
					sdot(12+2*t, 26, v, i)
					sdot(13+2*t, 27, v, i)
				}
			}
			ldrQ(26, wp, 512+part*64)
			ldrQ(27, wp, 512+part*64+16)
			six(24, far, 11*4*tokens-256)
			for t := range tokens {
				v, i := lane(t)
				for q := range 2 {
					fmulE(29, 26+q, v, i)
					scvtf(12+2*t+q, 12+2*t+q)
					fmla(2*t+q, 12+2*t+q, 29)
				}
			}
		}
		if k.mins {
			for part := range parts {
				ldrQ(26, wp, 512+(parts+part)*64)
				ldrQ(27, wp, 512+(parts+part)*64+16)
				six(24, far, (11+parts+part)*4*tokens-256) // 12: fsum; 13, 14: flo, fhi
				for t := range tokens {
					v, i := lane(t)
					fmlaE(2*t, 26, v, i)
					fmlaE(2*t+1, 27, v, i)
				}
			}
		}
		p("ADD $%d, R6", k.size)
		p("ADD $%d, R8", 64*tokens)
		eightEnd(name, h)
	}
	p("RET")
}

func gemmFloat(format string) {
	name := "gemm" + format + "NEON"
	gemmBegin(name)
	for h := range 4 {
		eight(name, h, columnBytes(format)/2)
		floatColumn(format, 26, 2)
		six(24, ap, 0)
		for t := range tokens {
			v, i := lane(t)
			fmlaE(2*t, 26, v, i)
			fmlaE(2*t+1, 27, v, i)
		}
		p("ADD $%d, R6", columnBytes(format))
		p("ADD $%d, R8", 4*tokens)
		eightEnd(name, h)
	}
	p("RET")
}
