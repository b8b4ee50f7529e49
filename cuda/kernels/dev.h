// dev.h: the only machine-level header of the kernels. It stands in for the
// CUDA headers, so that clang alone (-nocudainc -nocudalib) compiles them, and
// wraps every instruction that a kernel must get exactly: wide loads, matrix
// products, approximations (each with its error bound from the PTX manual).
//
// Compute capabilities: 7.5 has neither cp.async nor bf16 nor the larger matrix
// shapes; the wrappers compose them from what is there, with equal results.
#pragma once

typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;

#if defined(__clang__)
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#endif
#define DEVICE static __device__ inline __attribute__((always_inline))
#define METHOD __device__ inline __attribute__((always_inline)) // of a struct
#define KERNEL extern "C" __global__ void
#define ALIGN16 __attribute__((aligned(16)))
// The block's dynamic shared memory, 16-byte aligned.
#define DYNAMIC_SHARED(name) extern __shared__ ALIGN16 uint8_t name[]

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 0
#endif

// --- where a thread is

#if defined(__clang__)
DEVICE int thread() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE int threads() { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE int block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE int block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE int block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEVICE int blocks_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEVICE int blocks_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEVICE void barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __nvvm_bar_warp_sync(0xffffffffu); }
#else
DEVICE int thread() { return threadIdx.x; }
DEVICE int threads() { return blockDim.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int block_z() { return blockIdx.z; }
DEVICE int blocks_x() { return gridDim.x; }
DEVICE int blocks_y() { return gridDim.y; }
DEVICE void barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }
#endif
DEVICE int lane() { return thread() & 31; }
DEVICE int warp() { return thread() >> 5; }

// --- programmatic dependent launch (nothing below sm_90, and nothing where the
// kernel was launched without it)

// wait_previous returns when all earlier kernels are complete and what they
// wrote is visible. Every kernel calls it before it reads anything but weights
// and before it writes anything.
DEVICE void wait_previous() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// launch_next lets the next kernel begin.
DEVICE void launch_next() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --- memory

struct alignas(16) word4 { uint32_t x, y, z, w; };
struct alignas(8) word2 { uint32_t x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };

// load_weights reads 16 bytes that no kernel writes, once.
DEVICE word4 load_weights(const void *p) {
	word4 v;
	asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
	return v;
}
DEVICE word2 load_weights8(const void *p) {
	word2 v;
	asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
	return v;
}
DEVICE uint32_t load_weights4(const void *p) {
	uint32_t v;
	asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
	return v;
}

// load_l2 reads 16 bytes that an earlier kernel wrote; not through L1, which is
// not told of other multiprocessors' writes.
DEVICE word4 load_l2(const void *p) {
	word4 v;
	asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
	return v;
}
DEVICE word2 load_l2_8(const void *p) {
	word2 v;
	asm volatile("ld.global.cg.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
	return v;
}
DEVICE uint32_t load_l2_4(const void *p) {
	uint32_t v;
	asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
	return v;
}
DEVICE uint16_t load_l2_2(const void *p) {
	uint16_t v;
	asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
	return v;
}

// load_float_if reads as load_l2 where the condition holds, else it is 0, and store_float_if
// writes: without branches.
DEVICE float load_float_if(bool condition, const float *p) {
	float v;
	asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.f32 %0, 0f00000000; @p ld.global.cg.f32 %0, [%1]; }"
	             : "=&f"(v) : "l"(p), "r"((uint32_t)condition) : "memory");
	return v;
}
DEVICE void store_float_if(bool condition, float *p, float v) {
	asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p st.global.f32 [%0], %1; }" ::"l"(p), "f"(v), "r"((uint32_t)condition) : "memory");
}

// load_cached reads 16 bytes that an earlier kernel wrote, through L1, for what
// several blocks of a multiprocessor read. No block of this kernel may write it.
DEVICE word4 load_cached(const void *p) {
	word4 v;
	asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
	return v;
}

DEVICE word2 load_cached8(const void *p) {
	word2 v;
	asm volatile("ld.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
	return v;
}

// global_pointer tells the compiler that p is in global memory, where it cannot see it.
template <class T> DEVICE __attribute__((address_space(1))) T *global_pointer(T *p) { return (__attribute__((address_space(1))) T *)p; }

// shared_address is a shared pointer as the instructions below want it.
DEVICE uint32_t shared_address(const void *p) {
	uint32_t a;
	asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(a) : "l"(p));
	return a;
}

// load_shared reads 16 bytes at a shared_address.
DEVICE word4 load_shared(uint32_t p) {
	word4 v;
	asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
	return v;
}
DEVICE word2 load_shared8(uint32_t p) {
	word2 v;
	asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(p) : "memory");
	return v;
}
DEVICE uint32_t load_shared4(uint32_t p) {
	uint32_t v;
	asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(p) : "memory");
	return v;
}

// copy_async moves 16 bytes from global to shared memory; size < 16 fills the
// rest with zeros (0: reads nothing). Data are there after copy_wait and a barrier.
DEVICE void copy_async(void *shared, const void *global, int size = 16) {
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(size) : "memory");
#else
	word4 v = {0, 0, 0, 0};
	if (size == 16)
		v = load_l2(global);
	else
		for (int i = 0; i < size; i++)
			((uint8_t *)&v)[i] = ((const uint8_t *)global)[i];
	*(word4 *)shared = v;
#endif
}
DEVICE void copy_commit() {
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// copy_wait returns when all but the last n groups of this thread are there.
template <int n> DEVICE void copy_wait() {
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
#endif
}
// copy_async_at is copy_async of 16 bytes to a shared_address.
DEVICE void copy_async_at(uint32_t shared, const void *global) {
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
#else
	word4 v = load_l2(global);
	asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}
// copy_word_at moves 4 bytes, or the first 2 and zeros, to a shared_address.
DEVICE void copy_word_at(uint32_t shared, const void *global, int size) {
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(global), "r"(size) : "memory");
#else
	uint32_t v = size == 2 ? load_l2_2(global) : load_l2_4(global);
	asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(v) : "memory");
#endif
}

// --- arithmetic

typedef uint16_t half_bits;
typedef uint16_t bf16_bits;

DEVICE float bits_float(uint32_t v) { return __builtin_bit_cast(float, v); }
DEVICE uint32_t float_bits(float v) { return __builtin_bit_cast(uint32_t, v); }
DEVICE float half_float(half_bits h) {
	float f;
	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
}
DEVICE half_bits float_half(float f) {
	half_bits h;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
	return h;
}
DEVICE bf16_bits float_bf16(float f) { // round to nearest even; NaN stays NaN
	uint32_t u = float_bits(f);
	return (u & 0x7fffffff) > 0x7f800000 ? (bf16_bits)(u >> 16 | 64) : (bf16_bits)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
// half2 pairs: lo in the low 16 bits.
DEVICE uint32_t pack_half(float lo, float hi) {
#if __CUDA_ARCH__ >= 800
	uint32_t d;
	asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
	return d;
#else
	return (uint32_t)float_half(hi) << 16 | float_half(lo);
#endif
}
DEVICE uint32_t pair(half_bits lo, half_bits hi) { return (uint32_t)hi << 16 | lo; }
DEVICE uint32_t half2_add(uint32_t a, uint32_t b) {
	uint32_t d;
	asm("add.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
	return d;
}
DEVICE uint32_t half2_mul(uint32_t a, uint32_t b) {
	uint32_t d;
	asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
	return d;
}
DEVICE uint32_t half2_fma(uint32_t a, uint32_t b, uint32_t c) {
	uint32_t d;
	asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
	return d;
}
DEVICE uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
	uint32_t d;
	asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
	return d;
}
// lop3 with an immediate truth table; and_or is a&b|c.
DEVICE uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
	uint32_t d;
	asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
	return d;
}
// exp2 and reciprocal: relative error at most 2^-22 and 2^-23.
DEVICE float exp2_approx(float x) {
	float y;
	asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
// exp2_flushed has the same error, but results below 2^-126 are 0: a third of the instructions.
DEVICE float exp2_flushed(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
DEVICE float rcp_approx(float x) {
	float y;
	asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float abs(float x) { return __builtin_fabsf(x); }
DEVICE float max(float a, float b) { return __builtin_fmaxf(a, b); }
DEVICE float min(float a, float b) { return __builtin_fminf(a, b); }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE float log2_approx(float x) { // absolute error at most 2^-22 in (0.5, 2), elsewhere a relative one
	float y;
	asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
DEVICE float multiply(float a, float b) { // rounded by itself, never part of an fma
	float y;
	asm("mul.rn.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
	return y;
}
DEVICE int round_even(float x) { // nearest, ties to even
	int i;
	asm("cvt.rni.s32.f32 %0, %1;" : "=r"(i) : "f"(x));
	return i;
}

// --- a warp together; all 32 lanes take part

DEVICE uint32_t shuffle(uint32_t v, int from) {
	uint32_t r;
	asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(from));
	return r;
}
DEVICE uint32_t shuffle_xor(uint32_t v, int mask) {
	uint32_t r;
	asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(mask));
	return r;
}
DEVICE float shuffle(float v, int from) { return bits_float(shuffle(float_bits(v), from)); }
DEVICE float shuffle_xor(float v, int mask) { return bits_float(shuffle_xor(float_bits(v), mask)); }
DEVICE int shuffle_xor(int v, int mask) { return (int)shuffle_xor((uint32_t)v, mask); }
DEVICE float warp_sum(float v) {
	for (int o = 16; o > 0; o >>= 1)
		v += shuffle_xor(v, o);
	return v;
}
DEVICE int warp_sum(int v) {
	for (int o = 16; o > 0; o >>= 1)
		v += shuffle_xor(v, o);
	return v;
}
DEVICE float warp_max(float v) {
	for (int o = 16; o > 0; o >>= 1)
		v = max(v, shuffle_xor(v, o));
	return v;
}
// ballot has bit i set where lane i's condition holds.
DEVICE uint32_t ballot(bool condition) {
	uint32_t r;
	asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }" : "=r"(r) : "r"((uint32_t)condition));
	return r;
}
// shared_add adds to an integer in shared memory, from any number of threads.
DEVICE void shared_add(int *p, int v) { asm volatile("red.shared.add.s32 [%0], %1;" ::"r"(shared_address(p)), "r"(v) : "memory"); }

// --- matrix products of a warp. With g = lane/4 and t = lane%4:
// D and C (16 x 8): d[0] (g, 2t), d[1] (g, 2t+1), d[2] (g+8, 2t), d[3] (g+8, 2t+1).

// mma_f16: D += A (16 x 16) B (16 x 8) in f16, sums in f32. a[0] (g; 2t, 2t+1),
// a[1] (g+8; the same), a[2] (g; 2t+8, 2t+9), a[3] (g+8; the same); b[0] (2t, 2t+1; g), b[1] (2t+8, 2t+9; g).
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
	for (int i = 0; i < 2; i++)
		asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
		             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		             : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#endif
}
#if __CUDA_ARCH__ >= 800
// mma_bf16: the same in bf16; not on 7.5.
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// load_matrix4 fills r with four 8 x 8 matrices of 16-bit values; p is the
// address of row lane%8 of matrix lane/8, in shared memory, 16-byte aligned.
DEVICE void load_matrix4(uint32_t r[4], const void *p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)) : "memory");
}
// load_matrix4_at and load_matrix4_transposed_at take a shared_address.
DEVICE void load_matrix4_at(uint32_t r[4], uint32_t p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(p) : "memory");
}
DEVICE void load_matrix4_transposed_at(uint32_t r[4], uint32_t p) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(p) : "memory");
}
