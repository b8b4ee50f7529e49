package main

import "fmt"

// Attention over a page of keys or values (see cpu/attention.go). V0-V15 are
// sums, of four lines times four vectors or of one line, V16-V19 the lines'
// factors, V20-V23 four vectors of the page. A factor multiplies by element, so that loading it takes no vector arithmetic.

// These are those of package cpu.
const (
	pageRows = 64
	cutRows  = 256
)

const (
	tileLines = 4
	factor    = 16
	page      = 20
)

func attention() {
	for _, kind := range []string{"F32", "F16"} {
		score(kind)
		accumulate(kind)
	}
	widenF16()
	combine()
	attentionQ8()
}

// sizeOf is the bytes of an element.
func sizeOf(kind string) int { return map[string]int{"F32": 4, "F16": 2}[kind] }

// byLines calls body for every tileLines lines of R4, and for each of the rest.
func byLines(name string, body func(name string, count int)) {
	for _, count := range []int{tileLines, 1} {
		at := fmt.Sprintf("%s_by%d", name, count)
		label("%s", at)
		p("CMP $%d, R4", count)
		p("BLT %s_end", at)
		body(at, count)
		p("SUB $%d, R4", count)
		p("B %s", at)
		label("%s_end", at)
	}
	p("RET")
}

// widened loads count vectors, four at most, as float32 into V20 and on.
func widened(kind string, count, r, off int) {
	switch {
	case kind == "F32":
		for i := range count {
			ldrQ(page+i, r, off+i*16)
		}
	case count == 1:
		ldurD(page, r, off)
		fcvtl(page, page)
	default:
		for i := 0; i < count; i += 2 {
			ldrQ(page+i, r, off+i*8)
			fcvtl2(page+i+1, page+i)
			fcvtl(page+i, page+i)
		}
	}
}

// prefetch asks for bytes after R15, of the next page.
func prefetch(bytes int) {
	for line := 0; line < bytes; line += 64 {
		p("PRFM %d(R15), PLDL1KEEP", line)
	}
}

// scoreArgs begins a kernel of scores, its arguments in R0 to R5.
func scoreArgs(name string) {
	text(name, 48)
	p("MOVD dst+0(FP), R0")
	p("MOVD q+8(FP), R1")
	p("MOVD k+16(FP), R2")
	p("MOVD next+24(FP), R3")
	p("MOVD lines+32(FP), R4")
	p("MOVD dim+40(FP), R5")
}

// score: each lane is one position; as many of them at a time as there are
// registers for, dimension after dimension.
func score(kind string) {
	const query, keys, next, dim, stride, k, left = 1, 2, 3, 5, 6, 14, 20
	lines := [tileLines]int{7, 8, 9, 10}
	name, size := "score"+kind+"NEON", sizeOf(kind)
	scoreArgs(name)
	p("LSL $2, R%d, R%d", dim, stride)
	chunk := func(name string, count, vectors, first int) {
		for i := range count * vectors {
			zero(i)
		}
		p("MOVD R%d, R%d", query, lines[0])
		for i := 1; i < count; i++ {
			p("ADD R%d, R%d, R%d", stride, lines[i-1], lines[i])
		}
		p("ADD $%d, R%d, R%d", first*size, keys, k)
		p("ADD $%d, R%d, R15", first*size, next)
		p("MOVD R%d, R%d", dim, left)
		label("%s_dim", name)
		for i := range count {
			p("FMOVS.P 4(R%d), F%d", lines[i], factor+i)
		}
		for j := 0; j < vectors; j += 4 {
			widened(kind, 4, k, j*4*size)
			for v := range 4 {
				for i := range count {
					fmlaE(i*vectors+j+v, page+v, factor+i, 0)
				}
			}
		}
		prefetch(vectors * 4 * size)
		for _, r := range []int{k, 15} {
			p("ADD $%d, R%d", pageRows*size, r)
		}
		p("SUBS $1, R%d", left)
		p("BNE %s_dim", name)
		for i := range count {
			for j := range vectors {
				strQ(i*vectors+j, dst, 4*(i*cutRows+first+4*j))
			}
		}
	}
	byLines(name, func(name string, count int) {
		vectors := 16 / count
		for first := 0; first < pageRows; first += 4 * vectors {
			chunk(fmt.Sprintf("%s_%d", name, first), count, vectors, first)
		}
		p("ADD $%d, R%d", 4*cutRows*count, dst)
		p("MOVD $%d, R%d", count, left)
		p("MADD R%d, R%d, R%d, R%d", stride, query, left, query)
	})
}

// accumulate: each lane is one dimension; as many of them at a time as there are
// registers for, row after row.
func accumulate(kind string) {
	const weights, values, next, n, dim, stride, row = 1, 2, 3, 5, 6, 7, 8
	const value, ahead, columns, weight, at, left = 10, 11, 12, 13, 14, 19
	sums := [tileLines]int{9, 20, 21, 22}
	name := "accum" + kind + "NEON"
	text(name, 56)
	p("MOVD acc+0(FP), R0")
	p("MOVD p+8(FP), R1")
	p("MOVD v+16(FP), R2")
	p("MOVD next+24(FP), R3")
	p("MOVD lines+32(FP), R4")
	p("MOVD n+40(FP), R5")
	p("MOVD dim+48(FP), R6")
	p("CBNZ R%d, %s_some", n, name)
	p("RET")
	label("%s_some", name)
	p("LSL $2, R%d, R%d", dim, stride)
	bytes := 4 * sizeOf(kind) // of a vector in a row
	p("MOVD $%d, R%d", sizeOf(kind), left)
	p("MUL R%d, R%d, R%d", left, dim, row)
	// some adds to so many vectors after R9
	some := func(name string, count, vectors int) {
		for i := range count {
			for j := range vectors {
				ldrQ(i*vectors+j, sums[i], j*16)
			}
		}
		p("MOVD R%d, R%d", weights, weight)
		p("MOVD R%d, R%d", value, at)
		p("MOVD R%d, R15", ahead)
		p("MOVD R%d, R%d", n, left)
		label("%s_row", name)
		for i := range count {
			ldrS(factor+i, weight, 4*cutRows*i)
		}
		for j := 0; j < vectors; j += 4 {
			many, off := min(4, vectors-j), j*bytes
			widened(kind, many, at, off)
			for v := range many {
				for i := range count {
					fmlaE(i*vectors+j+v, page+v, factor+i, 0)
				}
			}
		}
		prefetch(vectors * bytes)
		p("ADD $4, R%d", weight)
		for _, r := range []int{at, 15} {
			p("ADD R%d, R%d", row, r)
		}
		p("SUBS $1, R%d", left)
		p("BNE %s_row", name)
		for i := range count {
			for j := range vectors {
				strQ(i*vectors+j, sums[i], j*16)
			}
		}
	}
	byLines(name, func(name string, count int) {
		p("MOVD R%d, R%d", dst, sums[0])
		for i := 1; i < count; i++ {
			p("ADD R%d, R%d, R%d", stride, sums[i-1], sums[i])
		}
		p("MOVD R%d, R%d", values, value)
		p("MOVD R%d, R%d", next, ahead)
		p("MOVD R%d, R%d", dim, columns)
		for vectors := 16 / count; vectors >= 1; vectors /= 2 {
			name := fmt.Sprintf("%s_cols%d", name, vectors)
			label("%s", name)
			p("CMP $%d, R%d", 4*vectors, columns)
			p("BLT %s_end", name)
			some(name, count, vectors)
			for i := range count {
				p("ADD $%d, R%d", 16*vectors, sums[i])
			}
			for _, r := range []int{value, ahead} {
				p("ADD $%d, R%d", vectors*bytes, r)
			}
			p("SUB $%d, R%d", 4*vectors, columns)
			p("B %s", name)
			label("%s_end", name)
		}
		p("ADD $%d, R%d", 4*cutRows*count, weights)
		p("MOVD $%d, R%d", count, left)
		p("MADD R%d, R%d, R%d, R%d", stride, dst, left, dst)
	})
}

func widenF16() {
	const name, src = "widenF16NEON", 1
	text(name, 24)
	p("MOVD dst+0(FP), R0")
	p("MOVD src+8(FP), R1")
	p("MOVD n+16(FP), R9")
	label("%s_values", name)
	for i := range 4 {
		widened("F16", 4, src, 32*i)
		storeQuads(page, dst, 64*i)
	}
	p("ADD $128, R1")
	p("ADD $256, R0")
	p("SUBS $64, R9")
	p("BNE %s_values", name)
	p("RET")
}

// combine rounds both products, as combineGeneric does.
func combine() {
	const name, dst, x, old, now = "combineNEON", 0, 1, 16, 17
	text(name, 32)
	p("MOVD dst+0(FP), R0")
	p("MOVD x+8(FP), R1")
	p("FMOVS old+16(FP), F%d", old)
	p("FMOVS now+20(FP), F%d", now)
	p("MOVD n+24(FP), R9")
	elements(name, 4, []int{dst, x}, func(l lanes) {
		for i := range l.vectors {
			l.load(i, dst, i)
			l.load(4+i, x, i)
			fmulE(i, i, old, 0)
			fmulE(4+i, 4+i, now, 0)
			fadd(i, i, 4+i)
			l.store(i, dst, i)
		}
	})
	p("RET")
}
