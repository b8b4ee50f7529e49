// dev.metal: what all kernels begin with. Ours is MSL 3.1 without fast math: sums
// that must have the same bits in several kernels are written with fma.
#include <metal_stdlib>
using namespace metal;

#define JOIN_NAMES(a, b) a##_##b
#define JOIN(a, b) JOIN_NAMES(a, b)

// floats is a place in a buffer as f32.
inline device float *floats(device uchar *buffer, ulong at) { return (device float *)(buffer + at); }

inline float silu(float x) { return x / (1.f + exp(-x)); }
