// outputs.h: how a row of f32 values becomes the input of the next product, and
// what a block finds together.
//
// A row is written by one block in any of these forms (a pointer of 0: not
// wanted). kpad is the row's length rounded up to 256; what lies beyond the
// length is zero, but in out, which ends with the row.
//   out            f32 (row, ldout)
//   q, records     int8 (row, kpad) in fragment order, (row, kpad/32) of {d, s0, s1}
//   half, scale    f16 (row, kpad) in the order of mma slots times a power of
//                  two that brings the largest magnitude into [2^7, 2^8), and its inverse
//   bf16           the same order, not scaled
// A thread makes 4 neighbouring values at a time: a word of q, two of half.
#pragma once
#include "dev.h"

constexpr float minus_infinity = -__builtin_inff();

struct Outputs {
	float *out;
	int8_t *q;
	void *records;
	uint16_t *half;
	float *scale;
	uint16_t *bf16;
	int ldout, kpad;
};

struct alignas(8) Record {
	float d;
	int16_t s0, s1;
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

// write_a8 writes values k..k+3 of a row; the whole warp takes part, with k = 4*lane() beyond a multiple of 128.
DEVICE void write_a8(const Outputs &o, int row, int k, float4 v) {
	float most = largest(v);
	for (int i = 1; i < 8; i *= 2)
		most = max(most, shuffle_xor(most, i));
	float inverse = most > 0 ? 127.f / most : 0.f;
	int q0 = round_even(v.x * inverse), q1 = round_even(v.y * inverse), q2 = round_even(v.z * inverse), q3 = round_even(v.w * inverse);
	uint32_t word = (q0 & 255) | (q1 & 255) << 8 | (q2 & 255) << 16 | (uint32_t)q3 << 24;
	int sum = q0 + q1 + q2 + q3;
	sum += shuffle_xor(sum, 1);
	sum += shuffle_xor(sum, 2);
	int other = shuffle_xor(sum, 4);
	int block = k / 32 & 1, part = k % 32 / 16, t = k % 16 / 4;
	*(uint32_t *)(o.q + (uint64_t)row * o.kpad + (k & ~63) + t * 16 + block * 8 + part * 4) = word;
	if (lane() % 8 == 0) {
		Record r = {most / 127.f, (int16_t)sum, (int16_t)other};
		((Record *)o.records)[(uint64_t)row * (o.kpad / 32) + k / 32] = r;
	}
}

// slot_words gives where a row's values k..k+3 go: (k, k+2) to word 0, (k+1, k+3) to word 4.
DEVICE uint32_t *slot_words(uint16_t *to, const Outputs &o, int row, int k) {
	return (uint32_t *)(to + (uint64_t)row * o.kpad + (k & ~15)) + k % 16 / 4;
}

// power is 2^(7 - floor(log2(most))), 1 for a row of zeros.
DEVICE float power(float most) {
	int exponent = min(max((int)(float_bits(most) >> 23), 8), 254);
	return most == 0 ? 1.f : bits_float((uint32_t)(261 - exponent) << 23);
}

// write_row writes one row of n values; value(k) gives those at k..k+3, zeros
// beyond n, and may be asked twice. All threads of the block take part.
template <class Value> DEVICE void write_row(const Outputs &o, int row, int n, float *part, Value value) {
	int end = max(o.kpad, (n + 127) & ~127);
	float factor = 1;
	if (o.half) {
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
		if (o.q)
			write_a8(o, row, k, v);
		if (o.half) {
			uint32_t *w = slot_words(o.half, o, row, k);
			w[0] = pack_half(v.x * factor, v.z * factor);
			w[4] = pack_half(v.y * factor, v.w * factor);
		}
		if (o.bf16) {
			uint32_t *w = slot_words(o.bf16, o, row, k);
			w[0] = pair(float_bf16(v.x), float_bf16(v.z));
			w[4] = pair(float_bf16(v.y), float_bf16(v.w));
		}
	}
}
