// outputs.h: how a row of f32 values becomes the input of the next product, and
// what a block finds together.
//
// A row is written by one block in any of these forms (a pointer of 0: not
// wanted). kpad is the row's length rounded up to 256; what lies beyond the
// length is zero, but in out, which ends with the row.
//   out            f32 (row, ldout)
//   half, scale    f16 (row, kpad) times a power of two that brings the largest
//                  magnitude into [2^7, 2^8), and its inverse. Of prompts that is
//                  the row's; with `lanes` each 32 columns have their own: scale (row, kpad/32)
//   sums           with `lanes`: 2^-24 times the sum of 16 columns of half, times
//                  their scale, f32 (row, kpad/16)
//   bf16           bf16 (row, kpad), not scaled
// half and bf16 are pairs of columns 4t, 4t+2 and 4t+1, 4t+3 of each 16, t < 4:
// words t and t+4 of the 16 (for copies to shared memory), or with `lanes` words
// 8t + 2s and 8t + 2s + 1 of each 64, s counting its 16s: a lane's, side by side.
// A thread makes 4 neighbouring values at a time, two words.
#pragma once
#include "dev.h"

constexpr float minus_infinity = -__builtin_inff();

struct Outputs {
	float *out;
	uint16_t *half;
	float *scale, *sums;
	uint16_t *bf16;
	int ldout, kpad, lanes;
};

// ordered has the order of floats; 0 and -0 are equal.
DEVICE uint32_t ordered(float f) {
	uint32_t u = float_bits(f == 0 ? 0.f : f);
	return u >> 31 ? ~u : u | 0x80000000;
}

// block_sum and block_max are over all threads, in a fixed tree; part has 32 floats.
DEVICE float block_sum(float v, float *part) {
	v = warp_sum(v);
	if (lane() == 0)
		part[warp()] = v;
	barrier();
	v = lane() < threads() / 32 ? part[lane()] : 0.f;
	barrier();
	return warp_sum(v);
}
DEVICE float block_max(float v, float *part) {
	v = warp_max(v);
	if (lane() == 0)
		part[warp()] = v;
	barrier();
	v = part[lane() < threads() / 32 ? lane() : 0];
	barrier();
	return warp_max(v);
}

// load4 reads values k..k+3 of a row of n, 16-byte aligned; zeros beyond it.
DEVICE float4 load4(const float *p, int k, int n) {
	if (k + 4 <= n)
		return *(const float4 *)(p + k);
	float4 v = {0, 0, 0, 0};
	if (k < n)
		v.x = p[k];
	if (k + 1 < n)
		v.y = p[k + 1];
	if (k + 2 < n)
		v.z = p[k + 2];
	return v;
}
DEVICE void store4(float *p, int k, int n, float4 v) {
	if (k + 4 <= n) {
		*(float4 *)(p + k) = v;
		return;
	}
	if (k < n)
		p[k] = v.x;
	if (k + 1 < n)
		p[k + 1] = v.y;
	if (k + 2 < n)
		p[k + 2] = v.z;
}
DEVICE float largest(float4 v) { return max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))); }

// write_pairs writes two words of a row: values k, k+2 and k+1, k+3.
DEVICE void write_pairs(uint16_t *to, const Outputs &o, int row, int k, uint32_t even, uint32_t odd) {
	uint32_t *w = (uint32_t *)(to + (uint64_t)row * o.kpad);
	int t = k % 16 / 4;
	if (o.lanes) {
		*(word2 *)(w + k / 64 * 32 + 8 * t + k % 64 / 16 * 2) = {even, odd};
		return;
	}
	w += k / 16 * 8 + t;
	w[0] = even;
	w[4] = odd;
}

// power is 2^(7 - floor(log2(most))), 1 for a row of zeros.
DEVICE float power(float most) {
	int exponent = min(max((int)(float_bits(most) >> 23), 8), 254);
	return most == 0 ? 1.f : bits_float((uint32_t)(261 - exponent) << 23);
}

// write_lanes writes four values of a row, k..k+3, with `lanes`. Eight neighbouring
// lanes have the 32 columns.
DEVICE void write_lanes(const Outputs &o, int row, int k, float4 v) {
	float most = largest(v);
	for (int i = 1; i < 8; i *= 2)
		most = max(most, shuffle_xor(most, i));
	float factor = power(most), scale = 1 / factor;
	uint32_t even = pack_half(v.x * factor, v.z * factor), odd = pack_half(v.y * factor, v.w * factor);
	write_pairs(o.half, o, row, k, even, odd);
	float sum = (half_float((half_bits)even) + half_float((half_bits)(even >> 16))) + (half_float((half_bits)odd) + half_float((half_bits)(odd >> 16)));
	sum += shuffle_xor(sum, 1);
	sum += shuffle_xor(sum, 2);
	if (k % 16 == 0)
		o.sums[(uint64_t)row * (o.kpad / 16) + k / 16] = sum * scale * 5.9604644775390625e-8f;
	if (k % 32 == 0)
		o.scale[(uint64_t)row * (o.kpad / 32) + k / 32] = scale;
}

// write_row writes one row of n values; value(k) gives those at k..k+3, zeros
// beyond n, and may be asked twice. All threads of the block take part.
template <class Value> DEVICE void write_row(const Outputs &o, int row, int n, float *part, Value value) {
	int end = max(o.kpad, (n + 127) & ~127);
	float factor = 1;
	if (o.half && !o.lanes) {
		float most = 0;
		for (int k = 4 * thread(); k < n; k += 4 * threads())
			most = max(most, largest(value(k)));
		factor = power(block_max(most, part));
		if (thread() == 0)
			o.scale[row] = 1 / factor;
	}
	for (int k = 4 * thread(); k < end; k += 4 * threads()) {
		float4 v = value(k);
		if (o.out)
			store4(o.out + (uint64_t)row * o.ldout, k, n, v);
		if (o.half && o.lanes)
			write_lanes(o, row, k, v);
		else if (o.half)
			write_pairs(o.half, o, row, k, pack_half(v.x * factor, v.z * factor), pack_half(v.y * factor, v.w * factor));
		if (o.bf16)
			write_pairs(o.bf16, o, row, k, pair(float_bf16(v.x), float_bf16(v.z)), pair(float_bf16(v.y), float_bf16(v.w)));
	}
}
