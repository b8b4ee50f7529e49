//go:build !noasm

package cpu

import "golang.org/x/sys/cpu"

//go:generate sh -c "cd _asm && go run ./amd64 -set avx2 -out ../avx2_amd64.s -stubs ../avx2_amd64.go -pkg cpu"
//go:generate sh -c "cd _asm && go run ./amd64 -set avx512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg cpu"

// kernelSets are the sets that this CPU and its system run, best first.
func kernelSets() []*kernels {
	var sets []*kernels
	x := &cpu.X86
	narrow := x.HasAVX2 && x.HasFMA && x.HasF16C
	if narrow && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI {
		sets = append(sets, avx512())
	}
	if narrow {
		sets = append(sets, avx2())
	}
	return append(sets, generic())
}

// avx512 is the set for processors with AVX-512 F, BW, DQ, VL and VNNI.
func avx512() *kernels {
	k := generic()
	k.isa = "avx512"
	k.gemv = [kinds]func(dst *float32, w, act *byte, n, groups, stride int){
		kindF32: gemvF32AVX512, kindF16: gemvF16AVX512, kindBF16: gemvBF16AVX512,
		kindQ8_0: gemvQ8_0AVX512, kindQ4_0: gemvQ4_0AVX512, kindQ4_1: gemvQ4_1AVX512, kindQ5_0: gemvQ5_0AVX512,
		kindQ5_1: gemvQ5_1AVX512, kindQ4_K: gemvQ4_KAVX512, kindQ5_K: gemvQ5_KAVX512, kindQ6_K: gemvQ6_KAVX512,
		kindIQ4_NL: gemvIQ4_NLAVX512, kindI8: gemvI8AVX512, kindI8M: gemvI8MAVX512}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0AVX512, kindQ4_0: unpackQ4_0AVX512, kindQ4_1: unpackQ4_1AVX512, kindQ5_0: unpackQ5_0AVX512,
		kindQ5_1: unpackQ5_1AVX512, kindQ4_K: unpackQ4_KAVX512, kindQ5_K: unpackQ5_KAVX512, kindQ6_K: unpackQ6_KAVX512,
		kindIQ4_NL: unpackIQ4_NLAVX512}
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		panel32: gemm32AVX512, panel32M: gemm32MAVX512, panel16: gemm16AVX512, panel16M: gemm16MAVX512}
	k.gemmFloat = [kinds]func(dst *float32, ld int, a, b, act *byte, n int){
		kindF32: gemmF32AVX512, kindF16: gemmF16AVX512, kindBF16: gemmBF16AVX512}
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
		kindIQ4_NL: gemvIQ4_NLAVX2, kindI8: gemvI8AVX2, kindI8M: gemvI8MAVX2}
	k.unpack = [kinds]func(panel, w *byte, n int){
		kindQ8_0: unpackQ8_0AVX2, kindQ4_0: unpackQ4_0AVX2, kindQ4_1: unpackQ4_1AVX2, kindQ5_0: unpackQ5_0AVX2,
		kindQ5_1: unpackQ5_1AVX2, kindQ4_K: unpackQ4_KAVX2, kindQ5_K: unpackQ5_KAVX2, kindQ6_K: unpackQ6_KAVX2,
		kindIQ4_NL: unpackIQ4_NLAVX2}
	k.gemm = [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int){
		panel32: gemm32AVX2, panel32M: gemm32MAVX2, panel16: gemm16AVX2, panel16M: gemm16MAVX2}
	k.gemmFloat = [kinds]func(dst *float32, ld int, a, b, act *byte, n int){
		kindF32: gemmF32AVX2, kindF16: gemmF16AVX2, kindBF16: gemmBF16AVX2}
	return k
}
