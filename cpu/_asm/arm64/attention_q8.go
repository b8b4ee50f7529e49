package main

import (
	"fmt"
	"math"
)

// Attention over a q8_0 cache (see cpu/kernels.go): queries and weights are int16, two of them a dword; keys and values are
// taken sixteen lanes at a time. V0-V3 are the lines' dwords, V16-V31 sums.

const (
	blockCols  = 32
	blockData  = 2 * pageRows // where a block's bytes begin, behind its scales
	blockBytes = 34 * pageRows
	// a line's weights of a page
	weightBytes = 2 * pageRows
)

func attentionQ8() {
	fix()
	weigh()
	scoreQ8()
	accumQ8()
}

// walk sets registers to base and stride bytes after the one before.
func walk(registers []int, base, stride int) {
	p("MOVD R%d, R%d", base, registers[0])
	for i := 1; i < len(registers); i++ {
		p("ADD R%d, R%d, R%d", stride, registers[i-1], registers[i])
	}
}

// pairSums is, for each of lines, the sums of 16*groups lanes of pairs: a dword of each line, which moves on, times the bytes
// from after R14, step bytes on for the next pair. R24 is used up.
func pairSums(name string, lines []int, groups, pairs, from, step, ahead int) {
	const even, odd, left = 6, 7, 24
	for i := range len(lines) * groups * 4 {
		zero(16 + i)
	}
	p("MOVD $%d, R%d", pairs, left)
	label("%s_pair", name)
	for i, r := range lines {
		p("FMOVS.P 4(R%d), F%d", r, i)
	}
	for g := range groups {
		ldrQ(4, 14, from+32*g)
		ldrQ(5, 14, from+32*g+16)
		uzp1B(even, 4, 5)
		uzp2B(odd, 4, 5)
		for which, v := range []int{even, odd} {
			sxtlH(8+2*which, v)
			sxtl2H(9+2*which, v)
		}
		for which := range 2 {
			for i := range lines {
				for half := range 2 {
					acc := 16 + (i*groups+g)*4 + 2*half
					smlal(acc, 8+2*which+half, i, which)
					smlal2(acc+1, 8+2*which+half, i, which)
				}
			}
		}
	}
	prefetch(ahead)
	p("ADD $%d, R15", ahead)
	p("ADD $%d, R14", step)
	p("SUBS $1, R%d", left)
	p("BNE %s_pair", name)
}

// scoreQ8: a lane is a position; pairs are of dimensions.
func scoreQ8() {
	const query, keys, next, dim, stride, blocks, left = 1, 2, 3, 5, 6, 19, 24
	const name = "scoreQ8NEON"
	registers := []int{7, 8, 9, 10}
	scoreArgs(name)
	p("LSL $2, R%d, R%d", dim, stride)
	chunk := func(name string, count, groups, first int) {
		lines := registers[:count]
		out := func(i, j int) int { return 4 * (i*cutRows + first + 4*j) }
		zero(0)
		for i := range count {
			for j := range 4 * groups {
				strQ(0, dst, out(i, j))
			}
		}
		walk(lines, query, stride)
		p("ADD $%d, R%d, R14", first*2, keys)
		p("LSR $5, R%d, R%d", dim, blocks)
		label("%s_block", name)
		pairSums(name, lines, groups, blockCols/2, blockData, 2*pageRows, 32*groups)
		p("SUB $%d, R14", blockCols*pageRows)
		for g := range groups {
			ldrQ(12, 14, 32*g)
			ldrQ(13, 14, 32*g+16)
			halves4(4, 12)
			for i := range count {
				for v := range 4 {
					acc := 16 + (i*groups+g)*4 + v
					ldrQ(8+v, dst, out(i, 4*g+v))
					scvtf(acc, acc)
					fmla(8+v, acc, 4+v)
					strQ(8+v, dst, out(i, 4*g+v))
				}
			}
		}
		p("ADD $%d, R14", blockBytes)
		p("SUBS $1, R%d", blocks)
		p("BNE %s_block", name)
		for i, r := range lines { // behind a line's integers stands its scale
			ldrS(0, r, 0)
			for j := range 4 * groups {
				ldrQ(4, dst, out(i, j))
				fmulE(4, 4, 0, 0)
				strQ(4, dst, out(i, j))
			}
		}
	}
	byLines(name, func(name string, count int) {
		groups := 4 / count
		p("MOVD R%d, R15", next)
		for first := 0; first < pageRows; first += 16 * groups {
			chunk(fmt.Sprintf("%s_%d", name, first), count, groups, first)
		}
		p("ADD $%d, R%d", 4*cutRows*count, dst)
		p("MOVD $%d, R%d", count, left)
		p("MADD R%d, R%d, R%d, R%d", stride, query, left, query)
	})
}

// accumQ8: a lane is a dimension; pairs are of positions.
func accumQ8() {
	const weights, values, next, stride, scales, row, left = 1, 2, 3, 6, 12, 8, 24
	const name = "accumQ8NEON"
	lines, sums := []int{7, 9, 10, 11}, []int{20, 21, 22, 23}
	text(name, 48)
	p("MOVD acc+0(FP), R0")
	p("MOVD w+8(FP), R1")
	p("MOVD v+16(FP), R2")
	p("MOVD next+24(FP), R3")
	p("MOVD lines+32(FP), R4")
	p("MOVD dim+40(FP), R%d", stride)
	p("LSL $2, R%d", stride)
	p("MOVD $%d, R%d", weightBytes, row)
	p("MADD R%d, R%d, R4, R%d", row, weights, scales)
	byLines(name, func(name string, count int) {
		groups := min(2, 4/count)
		p("MOVD R%d, R15", next)
		for part := 0; part < blockCols; part += 16 * groups {
			p("MOVD R%d, R14", values)
			walk(lines[:count], weights, row)
			pairSums(fmt.Sprintf("%s_%d", name, part), lines[:count], groups, pageRows/2, blockData+2*part, 2*blockCols, 32*groups)
			walk(sums[:count], dst, stride)
			for i := range count {
				ldrS(0, scales, 4*i)
				for j := range 4 * groups {
					acc := 16 + i*4*groups + j
					ldrQ(4, sums[i], 4*part+16*j)
					scvtf(acc, acc)
					fmlaE(4, acc, 0, 0)
					strQ(4, sums[i], 4*part+16*j)
				}
			}
		}
		p("ADD $%d, R%d", weightBytes*count, weights)
		p("ADD $%d, R%d", 4*count, scales)
		p("MOVD $%d, R%d", count, left)
		p("MADD R%d, R%d, R%d, R%d", stride, dst, left, dst)
	})
}

// fix makes int16 of lines, and their scales.
func fix() {
	const name, lines, in, n, out, left = "fixNEON", 1, 6, 2, 7, 9
	const most, inverse, small, tiny, top = 8, 9, 10, 29, 30
	text(name, 24)
	p("MOVD x+0(FP), R0")
	p("MOVD lines+8(FP), R1")
	p("MOVD n+16(FP), R2")
	p("LSR $5, R%d", n)
	dwords(tiny, math.Float32bits(0x1p-100))
	dwords(top, math.Float32bits(32767))
	label("%s_line", name)
	zero(most)
	p("MOVD R0, R%d", in)
	p("MOVD R%d, R%d", n, left)
	label("%s_largest", name)
	for i := range 8 {
		ldrQ(i, in, 16*i)
		fabs(i, i)
	}
	fold(0, 8, fmax)
	fmax(most, most, 0)
	p("ADD $%d, R%d", 4*blockCols, in)
	p("SUBS $1, R%d", left)
	p("BNE %s_largest", name)
	fmaxv(most, most)
	factors(inverse, most, tiny, top, small)
	p("MOVD R0, R%d", in)
	p("MOVD R0, R%d", out)
	p("MOVD R%d, R%d", n, left)
	label("%s_values", name)
	for i := range 8 {
		ldrQ(i, in, 16*i)
		fmulE(i, i, inverse, 0)
		fcvtns(i, i)
	}
	for i := range 4 {
		uzp1H(i, 2*i, 2*i+1)
		strQ(i, out, 16*i)
	}
	p("ADD $%d, R%d", 4*blockCols, in)
	p("ADD $%d, R%d", 2*blockCols, out)
	p("SUBS $1, R%d", left)
	p("BNE %s_values", name)
	strS(most, out, 0)
	p("MOVD R%d, R0", in)
	p("SUBS $1, R%d", lines)
	p("BNE %s_line", name)
	p("RET")
}

// weigh makes the int16 of lines' weights in a block of a page of values.
func weigh() {
	const name, w, line, values, lines, at, counted, left = "weighNEON", 0, 1, 2, 3, 6, 7, 8
	const scale, most, more, small, added = 16, 20, 24, 25, 31
	const nearlyNext, least, exponent, below, above = 26, 27, 28, 29, 30 // as weightScale has them
	for i := range 2 * pageRows {                                        // as many dwords that are set as that are not
		fmt.Printf("\nDATA counted<>+%d(SB)/4, $%d", 4*i, i/pageRows-1)
	}
	fmt.Printf("\nGLOBL counted<>(SB), RODATA|NOPTR, $%d\n", 8*pageRows)
	text(name, 40)
	p("MOVD w+0(FP), R%d", w)
	p("MOVD p+8(FP), R%d", line)
	p("MOVD v+16(FP), R%d", values)
	p("MOVD lines+24(FP), R%d", lines)
	p("MOVD n+32(FP), R%d", left)
	p("MOVD $counted<>+%d(SB), R%d", 4*pageRows, counted)
	p("SUB R%d<<2, R%d", left, counted)
	p("MOVD $%d, R%d", weightBytes, left)
	p("MADD R%d, R%d, R%d, R%d", left, w, lines, at)
	dwords(nearlyNext, 0x80)
	dwords(least, 15<<23)
	dwords(exponent, 0xff<<23)
	dwords(below, 14<<23)
	dwords(above, 9<<23|1<<22)
	label("%s_line", name)
	quarter := func(q int, do func(i, scale int)) {
		ldrQ(more, values, 8*q)
		ldrQ(small, values, 8*q+16)
		halves4(scale, more)
		for i := q; i < q+4; i++ {
			ldrQ(small, counted, 16*i)
			and(scale+i-q, scale+i-q, small)
			ldrQ(i, line, 16*i)
			do(i, scale+i-q)
		}
	}
	for q := 0; q < 16; q += 4 {
		quarter(q, func(i, scale int) {
			fmul(i, i, scale)
			if q == 0 {
				mov(most+i, i)
			} else {
				fmax(most+i-q, most+i-q, i)
			}
		})
	}
	fold(most, 4, fmax)
	fmaxv(most, most)
	dup(most, most, 0)
	addS(most, most, nearlyNext)
	smaxS(most, most, least)
	and(most, most, exponent)
	addS(added, most, above)
	subS(most, most, below)
	for q := 0; q < 16; q += 4 {
		quarter(q, func(i, scale int) {
			mov(small, added)
			fmla(small, i, scale)
			mov(i, small)
		})
	}
	for h := range 2 {
		for i := range 4 {
			sliS(8*h+i, 8*h+4+i, 16)
			strQ(8*h+i, w, 64*h+16*i)
		}
	}
	strS(most, at, 0)
	p("ADD $%d, R%d", 4*cutRows, line)
	p("ADD $%d, R%d", weightBytes, w)
	p("ADD $4, R%d", at)
	p("SUBS $1, R%d", lines)
	p("BNE %s_line", name)
	p("RET")
}
