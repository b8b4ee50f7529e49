//go:build arm64 && !noasm

package cpu

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd _asm && go run ./arm64 > ../neon_arm64.s"

// kernelSets are the sets that this CPU runs, best first.
func kernelSets() []*kernels {
	var sets []*kernels
	if cpu.ARM64.HasASIMDDP || runtime.GOOS == "darwin" { // every Apple processor since the M1 has it
		if cpu.ARM64.HasI8MM {
			sets = append(sets, i8mm())
		}
		sets = append(sets, neon())
	}
	return append(sets, generic())
}

// i8mm is the set for processors with int8 matrix products (Armv8.6 I8MM). They
// serve prompts; with one row half of each would go unused. Results are neon's,
// bit for bit.
func i8mm() *kernels {
	k := neon()
	k.isa = "i8mm"
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		gemmPanel32I8MM, gemmPanel32MI8MM, gemmPanel16I8MM, gemmPanel16MI8MM}
	return k
}

// neon is the set for processors with dot products (Armv8.2 DotProd).
func neon() *kernels {
	k := generic()
	k.isa = "neon"
	k.gemv = [kinds]func(dst *float32, w, act *byte, n, groups, stride int){
		kindF32: gemvF32NEON, kindF16: gemvF16NEON, kindBF16: gemvBF16NEON,
		kindQ8_0: gemvQ8_0NEON, kindQ4_0: gemvQ4_0NEON, kindQ4_1: gemvQ4_1NEON, kindQ5_0: gemvQ5_0NEON,
		kindQ5_1: gemvQ5_1NEON, kindQ4_K: gemvQ4_KNEON, kindQ5_K: gemvQ5_KNEON, kindQ6_K: gemvQ6_KNEON,
		kindIQ4_NL: gemvIQ4_NLNEON, kindIQ4_XS: gemvIQ4_XSNEON, kindMXFP4: gemvMXFP4NEON, kindQ2_K: gemvQ2_KNEON,
		kindQ3_K: gemvQ3_KNEON, kindI8: gemvI8NEON}
	k.gemmFloat = [kinds]func(dst *float32, ld int, a, b, act *byte, n int){
		kindF32: gemmF32NEON, kindF16: gemmF16NEON, kindBF16: gemmBF16NEON}
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		gemmPanel32NEON, gemmPanel32MNEON, gemmPanel16NEON, gemmPanel16MNEON}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0NEON, kindQ4_0: unpackQ4_0NEON, kindQ4_1: unpackQ4_1NEON, kindQ5_0: unpackQ5_0NEON,
		kindQ5_1: unpackQ5_1NEON, kindQ4_K: unpackQ4_KNEON, kindQ5_K: unpackQ5_KNEON, kindQ6_K: unpackQ6_KNEON,
		kindIQ4_NL: unpackIQ4_NLNEON, kindIQ4_XS: unpackIQ4_XSNEON, kindMXFP4: unpackMXFP4NEON, kindQ2_K: unpackQ2_KNEON,
		kindQ3_K: unpackQ3_KNEON}
	k.pack = [kinds]func(dst, src *byte, row, cols int){
		kindF32: packF32NEON, kindF16: packF16NEON, kindBF16: packF16NEON, kindQ8_0: packQ8_0NEON,
		kindQ4_0: packQ4_0NEON, kindIQ4_NL: packQ4_0NEON, kindQ4_1: packQ4_1NEON, kindQ5_0: packQ5_0NEON,
		kindQ5_1: packQ5_1NEON, kindQ4_K: packQ4_KNEON, kindQ5_K: packQ5_KNEON, kindQ6_K: packQ6_KNEON, kindIQ4_XS: packIQ4_XSNEON,
		kindMXFP4: packMXFP4NEON, kindQ2_K: packQ2_KNEON, kindQ3_K: packQ3_KNEON}
	k.quantize = quantizeNEON
	k.scoreF32, k.scoreF16, k.scoreQ8 = scoreF32NEON, scoreF16NEON, scoreQ8NEON
	k.accumF32 = byDim(4, accumF32NEON, accumF32Generic)
	k.accumF16 = byDim(4, accumF16NEON, accumF16Generic)
	k.fix, k.weigh, k.accumQ8 = fixNEON, weighNEON, accumQ8NEON
	k.widen[kindF16], k.widen[kindBF16] = widenF16NEON, nil
	k.widenF16, k.combine = widenF16NEON, combineNEON
	k.softmax, k.siluMul = softmaxNEON, siluMulNEON
	k.sumSquares, k.scaleMul, k.add = sumSquaresNEON, scaleMulNEON, addNEON
	return k
}

func softmaxNEON(parts, x *float32, n, lines int) {
	out := floats(parts, 2*lines)
	for l := range lines {
		line := &at[float32](bytesOf(x), 4*l*cutRows, n)[0]
		out[2*l] = maxOfNEON(line, n)
		out[2*l+1] = expSumNEON(line, n, out[2*l])
	}
}

//go:noescape
func gemvF32NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvF16NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvBF16NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ8_0NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ4_0NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ4_1NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ5_0NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ5_1NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ2_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ3_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ4_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ5_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ6_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvIQ4_NLNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvIQ4_XSNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvMXFP4NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvI8NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemmPanel32NEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel32MNEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel16NEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel16MNEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel32I8MM(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel32MI8MM(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel16I8MM(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmPanel16MI8MM(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmF32NEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmF16NEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func gemmBF16NEON(dst *float32, ld int, a, b, act *byte, n int)

//go:noescape
func unpackQ8_0NEON(panel, w *byte, n int)

//go:noescape
func unpackQ4_0NEON(panel, w *byte, n int)

//go:noescape
func unpackQ4_1NEON(panel, w *byte, n int)

//go:noescape
func unpackQ5_0NEON(panel, w *byte, n int)

//go:noescape
func unpackQ5_1NEON(panel, w *byte, n int)

//go:noescape
func unpackQ2_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ3_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ4_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ5_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ6_KNEON(panel, w *byte, n int)

//go:noescape
func unpackIQ4_NLNEON(panel, w *byte, n int)

//go:noescape
func unpackIQ4_XSNEON(panel, w *byte, n int)

//go:noescape
func unpackMXFP4NEON(panel, w *byte, n int)

//go:noescape
func packF32NEON(dst, src *byte, row, cols int)

//go:noescape
func packF16NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ8_0NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ4_0NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ4_1NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ5_0NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ5_1NEON(dst, src *byte, row, cols int)

//go:noescape
func packMXFP4NEON(dst, src *byte, row, cols int)

//go:noescape
func packQ2_KNEON(dst, src *byte, row, cols int)

//go:noescape
func packQ3_KNEON(dst, src *byte, row, cols int)

//go:noescape
func packQ4_KNEON(dst, src *byte, row, cols int)

//go:noescape
func packQ5_KNEON(dst, src *byte, row, cols int)

//go:noescape
func packQ6_KNEON(dst, src *byte, row, cols int)

//go:noescape
func packIQ4_XSNEON(dst, src *byte, row, cols int)

//go:noescape
func scoreF32NEON(dst, q *float32, k, next *byte, lines, dim int)

//go:noescape
func accumF32NEON(acc, p *float32, v, next *byte, lines, n, dim int)

//go:noescape
func scoreF16NEON(dst, q *float32, k, next *byte, lines, dim int)

//go:noescape
func accumF16NEON(acc, p *float32, v, next *byte, lines, n, dim int)

//go:noescape
func scoreQ8NEON(dst, q *float32, k, next *byte, lines, dim int)

//go:noescape
func fixNEON(x *float32, lines, n int)

//go:noescape
func weighNEON(w, p *float32, v *byte, lines, n int)

//go:noescape
func accumQ8NEON(acc, w *float32, v, next *byte, lines, dim int)

//go:noescape
func widenF16NEON(dst *float32, src *byte, n int)

//go:noescape
func combineNEON(dst, x *float32, old, now float32, n int)

//go:noescape
func quantizeNEON(dst *byte, x *float32, n, T, t, step int)

// maxOfNEON is the largest of n >= 1 values.
//
//go:noescape
func maxOfNEON(x *float32, n int) (most float32)

// expSumNEON replaces each value by its exponential less max, and is their sum.
//
//go:noescape
func expSumNEON(x *float32, n int, max float32) (sum float32)

//go:noescape
func siluMulNEON(dst, gate, up *float32, n int)

//go:noescape
func sumSquaresNEON(x *float32, n int) (sum float32)

//go:noescape
func scaleMulNEON(dst, x, w *float32, scale float32, n int)

//go:noescape
func addNEON(dst, x *float32, n int)

// pause tells the processor that this is a spin.
func pause()
