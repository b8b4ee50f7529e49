package main

import "fmt"

// Six rows times two groups by USMMLA, which multiplies 8 columns of two weight
// rows with those of two tokens: 4 sums of 8 products, where SDOT makes 4 of 4.
// Zipped, vectors 2j and 2j+1 of a block give such pairs of rows, and dwords 2j and
// 2j+1 of a record such pairs of tokens. Weights stay unsigned; sums begin with
// the record's -128 times its sum. Sums, scales and accumulators are in this order
// of 2 rows by 2 tokens until the end.
//
// Eight weight rows at a time, as in gemm. So that the four passes need not zip
// the activations each, room on the stack takes those of chunk blocks; the
// accumulators wait behind it for the next chunk.
//
// Instructions for a block of 6x32x32 products: all, and of these vector
// arithmetic, which is the limit. Its floor is products, scvtf, fmul and fmla.
//
//	                 panel32     32M          16           16M
//	SDOT            804, 592    804, 576    1012, 736    1076, 768
//	    floor            528         576          672          768
//	USMMLA          675, 436    757, 498     913, 601    1077, 725
//	    floor            336         384          480          576
//
// The rest of USMMLA's arithmetic is zips: 64 of weights, 16 of each scale or min,
// 12 of activations. Accumulators that wait add 7 to all.

const chunk = 16 // blocks: 5 KB of room

// paired is a panel whose activations are in room: for a block 4 pairs of dwords,
// the scales, and by part what sums begin with or mins are multiplied with; of
// each, three pairs of tokens.
type paired struct{ panel }

const (
	pairsOf  = tokens / 2
	scalesAt = 4 * pairsOf * 16
	partsAt  = scalesAt + pairsOf*16
	accBytes = 4 * 4 * pairsOf * 16
)

func (k paired) room() int { return partsAt + k.parts()*pairsOf*16 }

func (k paired) gemm() {
	name := "gemmPanel" + k.name + "I8MM"
	frame := chunk*k.room() + accBytes
	fmt.Printf("\n// %s: see kernels.go.\nTEXT ·%s(SB), 0, $%d-48\n\tNO_LOCAL_POINTERS\n", name, name, frame)
	p("MOVD a+16(FP), R1")
	p("MOVD b+24(FP), R2")
	p("MOVD act+32(FP), R8")
	p("MOVD n+40(FP), R3")
	p("MOVD $room-%d(SP), R13", frame)
	p("ADD $%d, R13, R10", chunk*k.room())
	zero(0)
	for i := range accBytes / 16 {
		strQ(0, 10, i*16)
	}
	label("%s_chunk", name)
	p("MOVD $%d, R12", chunk)
	p("CMP R12, R3")
	p("CSEL LT, R3, R12, R12")
	k.pair(name)
	for h := range 4 {
		k.eight(name, h)
	}
	p("ADD $%d, R1", chunk*k.size)
	p("ADD $%d, R2", chunk*k.size)
	p("SUBS R12, R3")
	p("BNE %s_chunk", name)
	p("MOVD dst+0(FP), R0")
	p("MOVD ld+8(FP), R5")
	p("LSL $2, R5")
	p("MOVD R10, R6")
	for h := range 4 {
		for i := range 2 * tokens {
			ldrQ(12+i, 6, (h*2*tokens+i)*16)
		}
		for q := range 2 {
			for u := range pairsOf {
				a, b := 12+2*q*pairsOf+u, 12+(2*q+1)*pairsOf+u
				uzp1(4*u+q, a, b)
				uzp2(4*u+2+q, a, b)
			}
		}
		storeEight(h)
	}
	p("RET")
}

// pair fills room with R12 blocks of R8.
func (k paired) pair(name string) {
	p("MOVD R13, R7")
	p("MOVD R12, R9")
	label("%s_pair", name)
	for j := range 4 {
		six(24, 8, 2*j*4*tokens)
		six(26, 8, (2*j+1)*4*tokens)
		zip1(0, 24, 26)
		zip2(1, 24, 26)
		zip1(2, 25, 27)
		k.put(j * pairsOf * 16)
	}
	p("ADD $192, R8, R11")
	both := func(dword, at int) {
		six(24, 11, dword*4*tokens-192)
		dupD(0, 24, 0)
		dupD(1, 24, 1)
		dupD(2, 25, 0)
		k.put(at)
	}
	both(11, scalesAt)
	for part := range k.parts() {
		at := partsAt + part*pairsOf*16
		if k.mins {
			both(11+k.parts()+part, at) // 12: fsum; 13, 14: flo, fhi
		} else {
			both(7+k.parts()+part, at) // 8: of all; 9, 10: of halves
		}
	}
	p("ADD $%d, R7", k.room())
	p("ADD $%d, R8", 64*tokens)
	p("SUBS $1, R9")
	p("BNE %s_pair", name)
}

// put stores V0 to V2.
func (k paired) put(at int) {
	for u := range pairsOf {
		strQ(u, 7, at+u*16)
	}
}

// get loads three pairs of tokens into v and on.
func (k paired) get(v, at int) {
	for u := range pairsOf {
		ldrQ(v+u, 7, at+u*16)
	}
}

// eight multiplies rows 8*h to 8*h+7 of R12 blocks.
func (k paired) eight(name string, h int) {
	p("ADD $%d, R%d, R6", h%2*32, 1+h/2)
	p("MOVD R13, R7")
	p("MOVD R12, R9")
	for i := range 2 * tokens {
		ldrQ(i, 10, (h*2*tokens+i)*16)
	}
	label("%s_%d", name, h)
	for part := range k.parts() {
		for r := range 4 {
			if k.biased {
				k.get(12+r*pairsOf, partsAt+part*pairsOf*16)
				continue
			}
			for u := range pairsOf {
				zero(12 + r*pairsOf + u)
			}
		}
		for j := part * 2; j < part*2+4/k.parts(); j++ {
			k.get(24, j*pairsOf*16)
			for q := range 2 {
				ldrQ(27, wp, 2*j*64+q*16)
				ldrQ(28, wp, (2*j+1)*64+q*16)
				zip1(29, 27, 28)
				zip2(30, 27, 28)
				for r := range 2 {
					for u := range pairsOf {
						usmmla(12+(2*q+r)*pairsOf+u, 29+r, 24+u)
					}
				}
			}
		}
		k.get(24, scalesAt)
		k.eachRows(512+part*64, func(r int) {
			for u := range pairsOf {
				i := r*pairsOf + u
				fmul(31, 29+r%2, 24+u)
				scvtf(12+i, 12+i)
				fmla(i, 12+i, 31)
			}
		})
	}
	if k.mins {
		for part := range k.parts() {
			k.get(24, partsAt+part*pairsOf*16)
			k.eachRows(512+(k.parts()+part)*64, func(r int) {
				for u := range pairsOf {
					fmla(r*pairsOf+u, 29+r%2, 24+u)
				}
			})
		}
	}
	p("ADD $%d, R6", k.size)
	p("ADD $%d, R7", k.room())
	p("SUBS $1, R9")
	p("BNE %s_%d", name, h)
	for i := range 2 * tokens {
		strQ(i, 10, (h*2*tokens+i)*16)
	}
}

// eachRows calls f for every two rows r, whose float32 at is in V29+r%2, twice each.
func (k paired) eachRows(at int, f func(r int)) {
	for q := range 2 {
		ldrQ(27, wp, at+q*16)
		zip1(29, 27, 27)
		zip2(30, 27, 27)
		f(2 * q)
		f(2*q + 1)
	}
}
