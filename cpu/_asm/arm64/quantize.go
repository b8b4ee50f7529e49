package main

import "math"

// quantize makes one row of an activation record, a block at a time: R0 walks
// the row's dwords, R4 bytes apart. FMAX keeps a NaN, which makes the scale one.
func quantize() {
	const name, x = "quantizeNEON", 1
	const most, inverse, small, sum, first, float = 8, 9, 10, 16, 17, 18
	const tiny, most127, ones = 29, 30, 31
	text(name, 48)
	p("MOVD dst+0(FP), R0")
	p("MOVD x+8(FP), R1")
	p("MOVD n+16(FP), R9")
	p("MOVD T+24(FP), R4")
	p("MOVD t+32(FP), R5")
	p("MOVD step+40(FP), R6")
	p("LSL $2, R4")
	p("SUB R4<<4, R6")
	p("ADD R4, R6") // from dword 15 to the next block
	p("ADD R5<<2, R0")
	dwords(tiny, math.Float32bits(0x1p-100))
	dwords(most127, math.Float32bits(127))
	bytesOf(ones, 1)
	label("%s_block", name)
	for i := range 8 {
		ldrQ(i, x, i*16)
		fabs(most+i, i)
	}
	fold(most, 8, fmax)
	fmaxv(most, most)
	factors(inverse, most, tiny, most127, small) // most is the scale from here on
	for i := range 8 {
		fmulE(i, i, inverse, 0)
		fcvtns(i, i)
	}
	for i := range 4 {
		uzp1H(i, 2*i, 2*i+1)
	}
	for i := range 2 {
		uzp1B(i, 2*i, 2*i+1)
		zero(sum + i)
		sdotV(sum+i, i, ones)
	}
	addpS(sum, sum, first)
	addpS(sum, sum, sum)   // of the first 16, of the last, and again
	addpS(first, sum, sum) // of all
	ext(sum, first, sum, 12)
	scvtf(float, sum)
	fmulE(float, float, most, 0)
	negS(sum, sum)
	shlS(sum, sum, 7)
	insS(sum, 3, most, 0)
	for _, v := range []int{0, 1, sum} {
		for i := range 4 {
			st1S(v, i, 0, 4)
		}
	}
	for i := range 3 {
		st1S(float, i, 0, 4)
	}
	p("ADD R6, R0")
	p("ADD $128, R1")
	p("SUBS $1, R9")
	p("BNE %s_block", name)
	p("RET")
}

// factors makes of the largest in v what values are multiplied by, and the scale, v itself: both 0 if it is below tiny.
func factors(inverse, v, tiny, top, small int) {
	fdivS(inverse, top, v)
	fcmgt(small, tiny, v)
	fdivS(v, v, top)
	bic(inverse, inverse, small)
	bic(v, v, small)
}
