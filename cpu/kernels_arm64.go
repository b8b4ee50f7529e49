//go:build arm64 && !noasm

package cpu

import (
	"runtime"
	"unsafe"

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
	k.gemv[kindF32], k.gemmFloat[kindF32] = gemvF32NEON, gemmF32NEON
	k.gemv[kindF16], k.gemmFloat[kindF16] = gemvF16NEON, gemmF16NEON
	k.gemv[kindBF16], k.gemmFloat[kindBF16] = gemvBF16NEON, gemmBF16NEON
	panelGemv := [panelKinds]func(acc *float32, panel, act *byte, n int){
		gemvPanel32NEON, gemvPanel32MNEON, gemvPanel16NEON, gemvPanel16MNEON}
	for kd := kindQ8_0; kd < kinds; kd++ {
		k.gemv[kd] = gemvUnpacked(kd, panelGemv[kd.panel()])
	}
	k.gemv[kindQ8_0] = gemvQ8_0NEON
	k.gemv[kindQ4_0] = gemvQ4_0NEON
	k.gemv[kindQ4_K] = gemvQ4_KNEON
	k.gemv[kindQ6_K] = gemvQ6_KNEON
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		gemmPanel32NEON, gemmPanel32MNEON, gemmPanel16NEON, gemmPanel16MNEON}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0NEON, kindQ4_0: unpackQ4_0NEON, kindQ4_1: unpackQ4_1NEON, kindQ5_0: unpackQ5_0NEON,
		kindQ5_1: unpackQ5_1NEON, kindQ4_K: unpackQ4_KNEON, kindQ5_K: unpackQ5_KNEON, kindQ6_K: unpackQ6_KNEON,
		kindIQ4_NL: unpackIQ4_NLNEON}
	k.quantize = quantizeNEON
	k.scoreF32, k.scoreF16, k.scoreQ8 = scoreF32NEON, scoreF16NEON, scoreQ8NEON
	k.accumF32 = byDim(4, accumF32NEON, accumF32Generic)
	k.accumF16 = byDim(4, accumF16NEON, accumF16Generic)
	k.accumQ8 = accumQ8NEON
	k.widenF16, k.widenKeysQ8, k.widenQ8, k.combine = widenF16NEON, widenKeysQ8NEON, widenQ8NEON, combineNEON
	k.maxOf, k.expSum, k.siluMul = maxOfNEON, expSumNEON, siluMulNEON
	k.sumSquares, k.scaleMul, k.add = sumSquaresNEON, scaleMulNEON, addNEON
	return k
}

// gemvUnpacked multiplies kinds without a kernel of their own: block after
// block is unpacked and added to the accumulators.
func gemvUnpacked(kd kind, gemv func(acc *float32, panel, act *byte, n int)) func(dst *float32, w, act *byte, n, groups, stride int) {
	return func(dst *float32, w, act *byte, n, groups, stride int) {
		var block panelBlock
		var panel [768]byte
		out := floats(dst, groups*groupRows)
		clear(out)
		for g := range groups {
			from := (*byte)(unsafe.Add(unsafe.Pointer(w), g*stride))
			if kd >= kindI8 {
				gemv(&out[g*groupRows], from, act, n)
				continue
			}
			for b := range n {
				block.load(kd, from, b)
				block.storePanel(kd.panel(), panel[:kd.panel().bytes()])
				gemv(&out[g*groupRows], &panel[0], (*byte)(unsafe.Add(unsafe.Pointer(act), b*64)), 1)
			}
		}
	}
}

//go:noescape
func gemvQ4_0NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ8_0NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ4_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvQ6_KNEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvF32NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvF16NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvBF16NEON(dst *float32, w, act *byte, n, groups, stride int)

//go:noescape
func gemvPanel32NEON(acc *float32, panel, act *byte, n int)

//go:noescape
func gemvPanel32MNEON(acc *float32, panel, act *byte, n int)

//go:noescape
func gemvPanel16NEON(acc *float32, panel, act *byte, n int)

//go:noescape
func gemvPanel16MNEON(acc *float32, panel, act *byte, n int)

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
func unpackQ4_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ5_KNEON(panel, w *byte, n int)

//go:noescape
func unpackQ6_KNEON(panel, w *byte, n int)

//go:noescape
func unpackIQ4_NLNEON(panel, w *byte, n int)

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
func accumQ8NEON(acc, p *float32, v, next *byte, lines, n, dim int)

//go:noescape
func widenF16NEON(dst *float32, src *byte, n int)

//go:noescape
func widenKeysQ8NEON(dst *float32, src *byte, dim int)

//go:noescape
func widenQ8NEON(dst *float32, src *byte, n int)

//go:noescape
func combineNEON(dst, x *float32, old, now float32, n int)

//go:noescape
func quantizeNEON(dst *byte, x *float32, n, T, t int)

//go:noescape
func maxOfNEON(x *float32, n int) (most float32)

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
