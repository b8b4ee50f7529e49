// outputs.metal: what the kernels on rows of f32 values share: their types of
// places, and what a threadgroup finds together. It stands before each of them.
//
// A place is bytes from the beginning of the buffer that holds it: the stage's
// scratch at buffer(4), its f32 constants at buffer(6). Rows are ld floats apart,
// a multiple of 4.
#include <metal_stdlib>
using namespace metal;

template <class T> device T *at(device uchar *base, ulong place) { return (device T *)(base + place); }

// ordered has the order of floats; 0 and -0 are equal.
inline uint ordered(float f) {
	uint u = as_type<uint>(f == 0 ? 0.f : f);
	return u >> 31 ? ~u : u | 0x80000000;
}

// group_sum and group_max are over all threads, in an order that the number of
// threads alone decides; part has 32 floats.
inline float group_sum(float v, threadgroup float *part, uint simd, uint lane, uint simds) {
	v = simd_sum(v);
	if (lane == 0)
		part[simd] = v;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	v = lane < simds ? part[lane] : 0.f;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	return simd_sum(v);
}
inline float group_max(float v, threadgroup float *part, uint simd, uint lane, uint simds) {
	v = simd_max(v);
	if (lane == 0)
		part[simd] = v;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	v = part[lane < simds ? lane : 0];
	threadgroup_barrier(mem_flags::mem_threadgroup);
	return simd_max(v);
}
