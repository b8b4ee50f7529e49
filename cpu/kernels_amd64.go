//go:build !noasm

package cpu

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd _asm && go run ./amd64 -set avx2 -out ../avx2_amd64.s -stubs ../avx2_amd64.go -pkg cpu"
//go:generate sh -c "cd _asm && go run ./amd64 -set avxvnni -out ../avxvnni_amd64.s -stubs ../avxvnni_amd64.go -pkg cpu"
//go:generate sh -c "cd _asm && go run ./amd64 -set amx -out ../amx_amd64.s -stubs ../amx_amd64.go -pkg cpu"
//go:generate sh -c "cd _asm && go run ./amd64 -set avx512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg cpu"

// How far ahead of their use kernels ask for lines into the L1 cache (near) and into L2 (far): bytes of weights that one row is
// multiplied with, of those of several rows, and of each of the four groups of floats that they read at once; values of a
// cache's pages that one query head reads, and bytes of those in q8_0 that several do.
var nearWeights, farWeights, nearRows, farRows, nearFloats, farFloats, nearPages, nearBlocks = ahead(processor())

// ahead is that for a vendor's processors of a family, as it was measured.
//
// L1 of Intel's processors waits for no more than 16 lines, or 8.5 GB/s from memory, but for many more from L2.
//
// One core of a Zen 5, of the bandwidth that it reads with, when nothing is asked for, 4096 bytes ahead into L1 and 8192:
// Q4_K 90, 93 and 104 %, Q5_K 72, 88 and 103 %, Q6_K 58, 79 and 96 %, farther no more; two cores of it, where F32 is read with
// 69 GB/s and nothing is asked for: F16 62, 1536 to 2560 bytes ahead 65 to 66, 4096 and 8192 less.
//
// A Zen 4 finds by itself what is read in a row, as fast as memory gives it, and is slowed down by what it is asked for: one
// row of Q4_0 29.0 GB/s, 24.8 with what suits a Zen 5, 21.2 with what suits Intel's. It does not where products take longer:
// 8 rows of Q8_0 9.1, 12.6 and 24.2, of Q4_0 7.6, 11.7 and 13.2, as from L2. Two cores of it read a cache in q8_0 for four query
// heads with 25.6 GB/s, 2048 bytes ahead 28.4, 4096 31.6, 8192 27.8; for eight 17.0, 17.9, 18.8 and 17.0.
func ahead(vendor string, family uint32) (near, far, nearRows, farRows, nearFloats, farFloats, nearPages, nearBlocks uintptr) {
	const zen4 = 0x19
	switch {
	case vendor == "GenuineIntel":
		return 1024, 8192, 1024, 8192, 512, 2048, 1024, 1024
	case vendor == "AuthenticAMD" && family <= zen4:
		return 0, 0, 1024, 8192, 0, 0, 0, 4096
	}
	return 8192, 8192, 8192, 8192, 2048, 2048, 1024, 1024
}

// processor is the processor's maker and family, as CPUID has them.
func processor() (vendor string, family uint32) {
	_, b, c, d := cpuid(0)
	var name []byte
	for _, part := range []uint32{b, d, c} {
		name = binary.LittleEndian.AppendUint32(name, part)
	}
	version, _, _, _ := cpuid(1)
	return string(name), version>>8&0xf + version>>20&0xff
}

// kernelSets are the sets that this CPU and its system run, best first.
func kernelSets() []*kernels {
	var sets []*kernels
	x := &cpu.X86
	narrow := x.HasAVX2 && x.HasFMA && x.HasF16C
	if narrow && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI {
		if x.HasAMXTile && x.HasAMXBF16 && tilesAllowed() {
			sets = append(sets, amx())
		}
		sets = append(sets, avx512())
	}
	if narrow && x.HasAVXVNNI {
		sets = append(sets, avxvnni())
	}
	if narrow {
		sets = append(sets, avx2())
	}
	for _, k := range sets {
		k.alone = nearPages == 0
	}
	return append(sets, generic())
}

// amx is the set for processors with AMX and its products of bf16: that of AVX-512, but for products with many rows.
func amx() *kernels {
	k := avx512()
	k.isa = "amx"
	k.few = fewTiles
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){}
	k.gemmTiles = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n, records int, ring *byte){
		panel32: gemmTiles32AMX, panel32M: gemmTiles32MAMX, panel16: gemmTiles16AMX, panel16M: gemmTiles16MAMX}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0AMX, kindQ4_0: unpackQ4_0AMX, kindQ4_1: unpackQ4_1AMX, kindQ5_0: unpackQ5_0AMX,
		kindQ5_1: unpackQ5_1AMX, kindQ4_K: unpackQ4_KAMX, kindQ5_K: unpackQ5_KAMX, kindQ6_K: unpackQ6_KAMX,
		kindIQ4_NL: unpackIQ4_NLAMX, kindIQ4_XS: unpackIQ4_XSAMX, kindMXFP4: unpackMXFP4AMX, kindQ2_K: unpackQ2_KAMX,
		kindQ3_K: unpackQ3_KAMX, kindI8: unpackI8AMX}
	k.quantizeTiles = quantizeTilesAMX
	return k
}

// fewTiles is up to how many rows are multiplied without tiles, 8 at a time: they need no weights in bf16. With tiles 12
// rows of Q4_0 and Q4_K took 1.4 to 2 times as long, 16 up to 1.7 times, 32 about the same, 64 0.6 to 1.3 times.
const fewTiles = 24

// avx512 is the set for processors with AVX-512 F, BW, DQ, VL and VNNI.
func avx512() *kernels {
	k := generic()
	k.isa = "avx512"
	k.gemv = [kinds]func(dst *float32, w, act *byte, n, groups, stride int){
		kindF32: gemvF32AVX512, kindF16: gemvF16AVX512, kindBF16: gemvBF16AVX512,
		kindQ8_0: gemvQ8_0AVX512, kindQ4_0: gemvQ4_0AVX512, kindQ4_1: gemvQ4_1AVX512, kindQ5_0: gemvQ5_0AVX512,
		kindQ5_1: gemvQ5_1AVX512, kindQ4_K: gemvQ4_KAVX512, kindQ5_K: gemvQ5_KAVX512, kindQ6_K: gemvQ6_KAVX512,
		kindIQ4_NL: gemvIQ4_NLAVX512, kindIQ4_XS: gemvIQ4_XSAVX512, kindMXFP4: gemvMXFP4AVX512, kindQ2_K: gemvQ2_KAVX512,
		kindQ3_K: gemvQ3_KAVX512, kindI8: gemvI8AVX512}
	k.few = mostFew // panels of six are half as fast for 12 rows, and equal for 72
	k.gemvRows = [kinds]func(dst *float32, ld int, w, act *byte, step, n, groups, stride, rows int){
		kindQ8_0: gemvRowsQ8_0AVX512, kindQ4_0: gemvRowsQ4_0AVX512, kindQ4_1: gemvRowsQ4_1AVX512, kindQ5_0: gemvRowsQ5_0AVX512, kindQ5_1: gemvRowsQ5_1AVX512,
		kindQ4_K: gemvRowsQ4_KAVX512, kindQ5_K: gemvRowsQ5_KAVX512, kindQ6_K: gemvRowsQ6_KAVX512, kindIQ4_NL: gemvRowsIQ4_NLAVX512, kindIQ4_XS: gemvRowsIQ4_XSAVX512, kindMXFP4: gemvRowsMXFP4AVX512, kindQ2_K: gemvRowsQ2_KAVX512,
		kindQ3_K: gemvRowsQ3_KAVX512, kindI8: gemvRowsI8AVX512}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0AVX512, kindQ4_0: unpackQ4_0AVX512, kindQ4_1: unpackQ4_1AVX512, kindQ5_0: unpackQ5_0AVX512,
		kindQ5_1: unpackQ5_1AVX512, kindQ4_K: unpackQ4_KAVX512, kindQ5_K: unpackQ5_KAVX512, kindQ6_K: unpackQ6_KAVX512,
		kindIQ4_NL: unpackIQ4_NLAVX512, kindIQ4_XS: unpackIQ4_XSAVX512, kindMXFP4: unpackMXFP4AVX512, kindQ2_K: unpackQ2_KAVX512,
		kindQ3_K: unpackQ3_KAVX512}
	k.pack = [kinds]func(dst, src *byte, row, cols int){
		kindF32: packF32AVX512, kindF16: packF16AVX512, kindBF16: packF16AVX512, kindQ8_0: packQ8_0AVX512,
		kindQ4_0: packQ4_0AVX512, kindIQ4_NL: packQ4_0AVX512, kindQ4_1: packQ4_1AVX512, kindQ5_0: packQ5_0AVX512,
		kindQ5_1: packQ5_1AVX512, kindQ4_K: packQ4_KAVX512, kindQ5_K: packQ5_KAVX512, kindQ6_K: packQ6_KAVX512, kindIQ4_XS: packIQ4_XSAVX512,
		kindMXFP4: packMXFP4AVX512, kindQ2_K: packQ2_KAVX512, kindQ3_K: packQ3_KAVX512}
	k.raw = [kinds]func(dst *float32, src, act *byte, row, n int){
		kindF32: rawF32AVX512, kindF16: rawF16AVX512, kindBF16: rawBF16AVX512,
		kindQ8_0: rawQ8_0AVX512, kindQ4_0: rawQ4_0AVX512, kindQ4_1: rawQ4_1AVX512, kindQ5_0: rawQ5_0AVX512, kindQ5_1: rawQ5_1AVX512,
		kindQ4_K: rawQ4_KAVX512, kindQ5_K: rawQ5_KAVX512, kindQ6_K: rawQ6_KAVX512, kindIQ4_NL: rawIQ4_NLAVX512}
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		panel32: gemm32AVX512, panel32M: gemm32MAVX512, panel16: gemm16AVX512, panel16M: gemm16MAVX512}
	k.gemmFloat = [kinds]func(dst *float32, ld int, a, b, act *byte, n int){
		kindF32: gemmF32AVX512, kindF16: gemmF16AVX512, kindBF16: gemmBF16AVX512}
	k.quantize = quantizeAVX512
	narrow := avx2() // for head dimensions that AVX-512 does not divide
	k.scoreF32, k.scoreF16, k.scoreQ8 = scoreF32AVX512, scoreF16AVX512, scoreQ8AVX512
	k.accumF32 = byDim(16, accumF32AVX512, narrow.accumF32)
	k.accumF16 = byDim(16, accumF16AVX512, narrow.accumF16)
	k.fix, k.weigh, k.accumQ8 = fixAVX512, weighAVX512, accumQ8AVX512
	k.widen[kindF16], k.widen[kindBF16] = widenF16AVX512, widenBF16AVX512
	k.widenF16, k.combine = widenF16AVX512, combineAVX512
	k.narrowF16 = narrowF16AVX512
	k.rotate, k.rotateHalves, k.prefetch = byPairs(8, rotateAVX512, rotateGeneric), rotateHalvesAVX512, prefetchAVX512
	k.softmax, k.siluMul = softmaxAVX512, siluMulAVX512
	k.sumSquares, k.scaleMul, k.add, k.addTile = sumSquaresAVX512, scaleMulAVX512, addAVX512, addTileAVX512
	return k
}

// avxvnni is the set for processors with AVX2 and AVX-VNNI.
func avxvnni() *kernels {
	k := avx2()
	k.isa = "avxvnni"
	gemv := [kinds]func(dst *float32, w, act *byte, n, groups, stride int){
		kindQ8_0: gemvQ8_0AVXVNNI, kindQ4_0: gemvQ4_0AVXVNNI, kindQ4_1: gemvQ4_1AVXVNNI, kindQ5_0: gemvQ5_0AVXVNNI,
		kindQ5_1: gemvQ5_1AVXVNNI, kindQ4_K: gemvQ4_KAVXVNNI, kindQ5_K: gemvQ5_KAVXVNNI, kindQ6_K: gemvQ6_KAVXVNNI,
		kindIQ4_NL: gemvIQ4_NLAVXVNNI, kindIQ4_XS: gemvIQ4_XSAVXVNNI, kindMXFP4: gemvMXFP4AVXVNNI, kindQ2_K: gemvQ2_KAVXVNNI,
		kindQ3_K: gemvQ3_KAVXVNNI, kindI8: gemvI8AVXVNNI}
	copy(k.gemv[kindQ8_0:], gemv[kindQ8_0:])
	raw := [kinds]func(dst *float32, src, act *byte, row, n int){
		kindQ8_0: rawQ8_0AVXVNNI, kindQ4_0: rawQ4_0AVXVNNI, kindQ4_1: rawQ4_1AVXVNNI, kindQ5_0: rawQ5_0AVXVNNI, kindQ5_1: rawQ5_1AVXVNNI,
		kindQ4_K: rawQ4_KAVXVNNI, kindQ5_K: rawQ5_KAVXVNNI, kindQ6_K: rawQ6_KAVXVNNI, kindIQ4_NL: rawIQ4_NLAVXVNNI}
	copy(k.raw[kindQ8_0:], raw[kindQ8_0:])
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		panel32: gemm32AVXVNNI, panel32M: gemm32MAVXVNNI, panel16: gemm16AVXVNNI, panel16M: gemm16MAVXVNNI}
	return k
}

// avx2 is the set for processors with AVX2, FMA and F16C.
func avx2() *kernels {
	k := generic()
	k.isa = "avx2"
	k.gemv = [kinds]func(dst *float32, w, act *byte, n, groups, stride int){
		kindF32: gemvF32AVX2, kindF16: gemvF16AVX2, kindBF16: gemvBF16AVX2,
		kindQ8_0: gemvQ8_0AVX2, kindQ4_0: gemvQ4_0AVX2, kindQ4_1: gemvQ4_1AVX2, kindQ5_0: gemvQ5_0AVX2,
		kindQ5_1: gemvQ5_1AVX2, kindQ4_K: gemvQ4_KAVX2, kindQ5_K: gemvQ5_KAVX2, kindQ6_K: gemvQ6_KAVX2,
		kindIQ4_NL: gemvIQ4_NLAVX2, kindIQ4_XS: gemvIQ4_XSAVX2, kindMXFP4: gemvMXFP4AVX2, kindQ2_K: gemvQ2_KAVX2,
		kindQ3_K: gemvQ3_KAVX2, kindI8: gemvI8AVX2}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0AVX2, kindQ4_0: unpackQ4_0AVX2, kindQ4_1: unpackQ4_1AVX2, kindQ5_0: unpackQ5_0AVX2,
		kindQ5_1: unpackQ5_1AVX2, kindQ4_K: unpackQ4_KAVX2, kindQ5_K: unpackQ5_KAVX2, kindQ6_K: unpackQ6_KAVX2,
		kindIQ4_NL: unpackIQ4_NLAVX2, kindIQ4_XS: unpackIQ4_XSAVX2, kindMXFP4: unpackMXFP4AVX2, kindQ2_K: unpackQ2_KAVX2,
		kindQ3_K: unpackQ3_KAVX2}
	k.pack = [kinds]func(dst, src *byte, row, cols int){
		kindF32: packF32AVX2, kindF16: packF16AVX2, kindBF16: packF16AVX2, kindQ8_0: packQ8_0AVX2,
		kindQ4_0: packQ4_0AVX2, kindIQ4_NL: packQ4_0AVX2, kindQ4_1: packQ4_1AVX2, kindQ5_0: packQ5_0AVX2,
		kindQ5_1: packQ5_1AVX2, kindQ4_K: packQ4_KAVX2, kindQ5_K: packQ5_KAVX2, kindQ6_K: packQ6_KAVX2, kindIQ4_XS: packIQ4_XSAVX2,
		kindMXFP4: packMXFP4AVX2, kindQ2_K: packQ2_KAVX2, kindQ3_K: packQ3_KAVX2}
	k.raw = [kinds]func(dst *float32, src, act *byte, row, n int){
		kindF32: rawF32AVX2, kindF16: rawF16AVX2, kindBF16: rawBF16AVX2,
		kindQ8_0: rawQ8_0AVX2, kindQ4_0: rawQ4_0AVX2, kindQ4_1: rawQ4_1AVX2, kindQ5_0: rawQ5_0AVX2, kindQ5_1: rawQ5_1AVX2,
		kindQ4_K: rawQ4_KAVX2, kindQ5_K: rawQ5_KAVX2, kindQ6_K: rawQ6_KAVX2, kindIQ4_NL: rawIQ4_NLAVX2}
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		panel32: gemm32AVX2, panel32M: gemm32MAVX2, panel16: gemm16AVX2, panel16M: gemm16MAVX2}
	k.gemmFloat = [kinds]func(dst *float32, ld int, a, b, act *byte, n int){
		kindF32: gemmF32AVX2, kindF16: gemmF16AVX2, kindBF16: gemmBF16AVX2}
	k.quantize = quantizeAVX2
	k.scoreF32, k.scoreF16, k.scoreQ8 = scoreF32AVX2, scoreF16AVX2, scoreQ8AVX2
	k.accumF32 = byDim(8, accumF32AVX2, accumF32Generic)
	k.accumF16 = byDim(8, accumF16AVX2, accumF16Generic)
	k.fix, k.weigh, k.accumQ8 = fixAVX2, weighAVX2, accumQ8AVX2
	k.widen[kindF16], k.widen[kindBF16] = widenF16AVX2, widenBF16AVX2
	k.widenF16, k.combine = widenF16AVX2, combineAVX2
	k.narrowF16 = narrowF16AVX2
	k.rotate, k.rotateHalves, k.prefetch = byPairs(4, rotateAVX2, rotateGeneric), rotateHalvesAVX2, prefetchAVX2
	k.softmax, k.siluMul = softmaxAVX2, siluMulAVX2
	k.sumSquares, k.scaleMul, k.add, k.addTile = sumSquaresAVX2, scaleMulAVX2, addAVX2, addTileAVX2
	return k
}
