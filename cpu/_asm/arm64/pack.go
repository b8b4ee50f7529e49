package main

// Kernels that make a packed group of 16 rows of a file's blocks. The limit is
// memory: what is read and what is written. A part is four of the rows: R4 to R7
// are their blocks, R10 where their dwords go, R11 their 16 bits, R12 their bytes.
// 16 bytes of each become four vectors, one a column of dwords, by two rounds of
// ZIP. Fifth and high bits, which lie a bit a column in the file and a bit a vector
// in a group, are transposed by exchanging halves of ever smaller fields between
// registers. V0-V7 hold columns, V16-V27 constants, V28-V31 work.
const (
	partRow   = 4
	toDwords  = 10
	toHalves  = 11
	toBytes   = 12
	flipped   = 16 // 0x80 in every byte
	sixBits   = 17
	quartered = 18 // byte 0 of every dword, then byte 1 and so on
	pairsMask = 19 // 0x33 in every byte
	bitsMask  = 20 // 0x55
	minus32   = 21 // -32
	evenBytes = 22 // 0x00ff00ff in every dword
	swapMasks = 24 // of fifth
	work      = 28
)

// packs are by kind: columns, bytes of a row's block and of the packed one.
var packs = []struct {
	name              string
	cols, file, group int
	part              func()
}{
	{"F32", 8, 32, 512, packF32}, {"F16", 8, 16, 256, packF16},
	{"Q8_0", 32, 34, 544, packQ8_0}, {"Q4_0", 32, 18, 288, packQ4_0}, {"Q4_1", 32, 20, 320, packQ4_1},
	{"Q5_0", 32, 22, 352, packQ5_0}, {"Q5_1", 32, 24, 384, packQ5_1},
	{"MXFP4", 32, 17, 272, packMXFP4}, {"Q2_K", 256, 84, 320 + 8*128, packQ2_K}, {"Q3_K", 256, 110, 288 + 8*192, packQ3_K},
	{"Q4_K", 256, 144, 320 + 8*256, packQ4_K}, {"Q5_K", 256, 176, 320 + 8*320, packQ5_K}, {"Q6_K", 256, 210, 288 + 8*384, packQ6_K},
	{"IQ4_XS", 256, 136, 160 + 8*256, packIQ4_XS},
}

func pack() {
	for _, f := range packs {
		const row, cols, four, back, ahead, parts = 2, 3, 8, 9, 15, 19
		name := "pack" + f.name + "NEON"
		text(name, 32)
		packConstants()
		p("MOVD dst+0(FP), R0")
		p("MOVD src+8(FP), R%d", partRow)
		p("MOVD row+16(FP), R%d", row)
		p("MOVD cols+24(FP), R%d", cols)
		p("LSL $2, R%d, R%d", row, four)
		p("ADD R%d<<4, R%d, R%d", row, partRow, ahead)
		p("MOVD $%d, R%d", f.file, back)
		p("SUB R%d<<4, R%d", row, back)
		p("MOVD $16, R13")
		for i := range 3 {
			p("ADD R%d, R%d, R%d", row, partRow+i, partRow+i+1)
		}
		label("%s_block", name)
		for _, r := range []int{toDwords, toHalves, toBytes} {
			p("MOVD R0, R%d", r)
		}
		p("MOVD $4, R%d", parts)
		label("%s_part", name)
		f.part()
		for i := range 4 {
			p("ADD R%d, R%d", four, partRow+i)
		}
		for i, r := range []int{toDwords, toHalves, toBytes} {
			p("ADD $%d, R%d", 16>>i, r)
		}
		p("SUBS $1, R%d", parts)
		p("BNE %s_part", name)
		for i := range 4 {
			p("ADD R%d, R%d", back, partRow+i)
		}
		for at := 0; at < 16*f.file; at += 64 { // as far into the next group
			p("PRFM %d(R%d), PLDL2KEEP", at, ahead)
		}
		p("ADD $%d, R%d", 16*f.file, ahead)
		p("ADD $%d, R0", f.group)
		p("SUBS $%d, R%d", f.cols, cols)
		p("BNE %s_block", name)
		p("RET")
	}
}

func packConstants() {
	bytesOf(flipped, 0x80)
	bytesOf(sixBits, 63)
	bytesOf(pairsMask, 0x33)
	bytesOf(bitsMask, 0x55)
	bytesOf(minus32, 0xe0)
	dwords(evenBytes, 0x00ff00ff)
	var order [16]byte
	for i := range order {
		order[i] = byte(i%4*4 + i/4)
	}
	sixteen(quartered, order)
	for n, e := range exchanges {
		var mask uint32
		for bit := range 32 {
			if bit>>e.i&1 == 0 && bit>>e.k&1 == 1 {
				mask |= 1 << bit
			}
		}
		dwords(swapMasks+n, mask)
	}
}

// column makes v and after of dwords 0 to 3 of the 16 bytes at byte at of the
// rows: one a vector. Only those below count are made.
func column(v, at, count int) {
	for i := range 4 {
		ldurQ(v+i, partRow+i, at)
	}
	zip1(work, v, v+1)
	zip1(work+1, v+2, v+3)
	if count > 2 {
		zip2(work+2, v, v+1)
		zip2(work+3, v+2, v+3)
	}
	for i := 0; i < count; i += 2 {
		zip1D(v+i, work+i, work+i+1)
		if i+1 < count {
			zip2D(v+i+1, work+i, work+i+1)
		}
	}
}

// put writes count vectors one after another.
func put(v, count, at int) {
	for j := range count {
		strQ(v+j, toDwords, at+64*j)
	}
}

// copyHalves copies the 16 bits at byte at of every row's block.
func copyHalves(at, to int) {
	for r := range 4 {
		p("MOVHU %d(R%d), R14", at, partRow+r)
		p("MOVH R14, %d(R%d)", to+2*r, toHalves)
	}
}

// words writes the lower 16 bits of all rows of v, then the upper ones.
func words(v, to int) {
	xtn(work, v)
	shrn16(work+1, v)
	strD(work, toHalves, to)
	strD(work+1, toHalves, to+32)
}

// scalesOf gives quarters the places of scales 4i to 4i+3 of a superblock: two a
// block, behind its weights.
func scalesOf(head, weights, i int) func(j int) int {
	return func(j int) int { return head + (2*i+j/2)*(weights+32) + weights + j%2*16 }
}

// quarters writes byte i of all rows of v, i = 0 to 3, to to(i).
func quarters(v int, to func(i int) int) {
	tbl(v, v, quartered)
	for i := range 4 {
		p("ADD $%d, R%d, R14", to(i), toBytes)
		st1S(v, i, 14, 13)
	}
}

// swap exchanges the upper halves of a's fields of 2*shift bits with the lower
// halves of b's.
func swap(a, b, shift int) {
	if shift == 4 {
		mov(work, a)
		sliB(a, b, 4)
		sriB(b, work, 4)
		return
	}
	mask := map[int]int{2: pairsMask, 1: bitsMask}[shift]
	ushrB(work, a, shift)
	shlB(work+1, b, shift)
	bif(a, work+1, mask)
	bit(b, work, mask)
}

// exchanges swap bits i and k of the number of every bit of a dword. In this
// order they move bit 4j+b to bit 8b+j: j2 j1 j0 b1 b0 becomes b1 b0 j2 j1 j0.
var exchanges = [4]struct{ i, k int }{{4, 1}, {3, 0}, {2, 1}, {1, 0}}

func spreadFifth(x int) {
	for n, e := range exchanges {
		shift := 1<<e.i - 1<<e.k
		ushrS(work, x, shift)
		eor(work, work, x)
		and(work, work, swapMasks+n)
		eor(x, x, work)
		shlS(work, work, shift)
		eor(x, x, work)
	}
}

func packF32() {
	for i := range 2 {
		column(0, 16*i, 4)
		put(0, 4, 256*i)
	}
}

func packF16() {
	column(0, 0, 4)
	for j := range 4 {
		words(j, 64*j)
	}
}

func packQ8_0() {
	for i := range 2 {
		column(0, 2+16*i, 4)
		for j := range 4 {
			eor(j, j, flipped)
		}
		put(0, 4, 256*i)
	}
	copyHalves(0, 512)
}

func packQ4_0() {
	column(0, 2, 4)
	put(0, 4, 0)
	copyHalves(0, 256)
}

func packQ4_1() {
	column(0, 4, 4)
	put(0, 4, 0)
	column(0, 0, 1)
	words(0, 256)
}

func packQ5_0() {
	column(0, 6, 4)
	put(0, 4, 0)
	column(0, 2, 1)
	spreadFifth(0)
	put(0, 1, 256)
	copyHalves(0, 320)
}

func packQ5_1() {
	column(0, 8, 4)
	put(0, 4, 0)
	column(0, 0, 2)
	words(0, 320)
	spreadFifth(1)
	put(1, 1, 256)
}

func packMXFP4() {
	column(0, 1, 4)
	put(0, 4, 0)
	for r := range 4 {
		p("MOVBU (R%d), R14", partRow+r)
		p("MOVB R14, %d(R%d)", 256+r, toBytes)
	}
}

// packOneBit packs 32 bytes of bits, one of each of 8 blocks of size bytes.
func packOneBit(at, to, size int) {
	column(0, at, 4)
	column(4, at+16, 4)
	for i := range 4 {
		swap(i, i+4, 4)
	}
	for _, i := range []int{0, 1, 4, 5} {
		swap(i, i+2, 2)
	}
	for i := 0; i < 8; i += 2 {
		swap(i, i+1, 1)
	}
	for b := range 8 {
		put(b, 1, to+size*b)
	}
}

// packTwoBits packs twice 32 bytes of 2 bits of each of 4 blocks of size bytes.
func packTwoBits(at, to, size int) {
	for half := range 2 {
		for h := range 2 {
			column(0, at+32*half+16*h, 4)
			swap(0, 2, 4)
			swap(1, 3, 4)
			swap(0, 1, 2)
			swap(2, 3, 2)
			for quarter := range 4 {
				put(quarter, 1, to+size*(4*half+quarter)+64*h)
			}
		}
	}
}

func packQ2_K() {
	column(0, 68, 4)
	words(3, 0)
	column(0, 0, 4)
	for i := range 4 {
		quarters(i, scalesOf(64, 128, i))
	}
	packTwoBits(16, 64, 128+32)
}

func packQ3_K() {
	const scale = 4
	copyHalves(108, 0)
	column(0, 92, 4) // the scales' low nibbles in 1 and 2, their upper bits in 3
	for i := range 4 {
		if i < 2 {
			mov(scale, 1+i)
		} else {
			ushrB(scale, i-1, 4)
		}
		packSixBits(scale, 3)
		quarters(scale, scalesOf(32, 192, i))
		ushrB(3, 3, 2)
	}
	packOneBit(0, 32+128, 192+32)
	packTwoBits(32, 32, 192+32)
}

// packSixBits makes scales of their nibbles in low and bits 4 and 5 in bits 0 and 1
// of high; 32 stands for 0.
func packSixBits(low, high int) {
	sliB(low, high, 4)
	and(low, low, sixBits)
	addB(low, low, minus32)
}

// packHead packs the scales of a superblock of Q4_K or Q5_K, whose blocks are weights
// of so many bytes: 6 bits each, scales 0-3, mins 0-3, and the upper two bits of 4-7.
func packHead(weights int) {
	const scale, min = 4, 5
	column(0, 0, 4)
	words(0, 0)
	mov(scale, 3)
	ushrB(work, 1, 6)
	sliB(scale, work, 4)
	ushrB(min, 3, 4)
	ushrB(work, 2, 6)
	sliB(min, work, 4)
	and(1, 1, sixBits)
	and(2, 2, sixBits)
	for i, v := range []int{1, scale, 2, min} {
		quarters(v, func(j int) int { return 64 + (4*(i%2)+j)*(weights+32) + weights + 16*(i/2) })
	}
}

// packPair packs 32 bytes of nibbles: of one block the lower ones, of another the upper.
func packPair(at, lower, upper int) {
	column(0, at, 4)
	column(4, at+16, 4)
	for j := range 4 {
		swap(j, 4+j, 4)
	}
	put(0, 4, lower)
	put(4, 4, upper)
}

func packQ4_K() {
	const block = 256 + 32
	packHead(256)
	for i := range 4 {
		packPair(16+32*i, 64+2*block*i, 64+2*block*i+block)
	}
}

func packQ5_K() {
	const block = 320 + 32
	packHead(320)
	packOneBit(16, 64+256, block)
	for i := range 4 {
		packPair(48+32*i, 64+2*block*i, 64+2*block*i+block)
	}
}

func packQ6_K() {
	const head, weights = 32, 384
	const block = weights + 32
	copyHalves(208, 0)
	column(0, 192, 4)
	for i := range 4 {
		quarters(i, scalesOf(head, weights, i))
	}
	packTwoBits(128, head+256, block)
	for half := range 2 {
		for i := range 2 {
			lower := head + block*(4*half+i)
			packPair(64*half+32*i, lower, lower+2*block)
		}
	}
}

func packIQ4_XS() {
	const even, odd = 4, 5
	copyHalves(0, 0)
	column(0, 0, 2) // the scales' upper bits in the upper half of 0, their nibbles in 1
	ushrS(0, 0, 16) // a nibble for each two scales, to be spread to a byte
	shlS(work, 0, 8)
	orr(0, 0, work)
	and(0, 0, evenBytes)
	shlS(work, 0, 4)
	orr(0, 0, work)
	mov(even, 1)
	packSixBits(even, 0)
	ushrB(odd, 1, 4)
	ushrB(0, 0, 2)
	packSixBits(odd, 0)
	zip1B(0, even, odd) // rows 0 and 1
	zip2B(1, even, odd)
	uzp1(even, 0, 1)
	uzp2(odd, 0, 1)
	const head, weights = 32, 256
	for i, v := range []int{even, odd} {
		quarters(v, func(j int) int { return head + (4*i+j)*(weights+16) + weights })
	}
	for b := range 8 {
		column(0, 8+16*b, 4)
		put(0, 4, head+(weights+16)*b)
	}
}
