// cache.h: rows of the cache in their formats.
//
// A layer's keys, and its values: (pages, kv_heads, 64, head_dim). In f32 and
// f16 a head's page is its 64 rows. In q8_0 it is int8 (64, head_dim), then f16
// scales (64, head_dim/32): the blocks of quant.Q8_0, set apart so that both are
// aligned. A piece is 8 neighbouring values of a row.
#pragma once
#include "outputs.h"

enum Format { F32, F16, Q8_0 };
constexpr int page_rows = 64;
constexpr int cut_rows = 256; // positions that decoding sums at a time

// partial_stride is the floats that a head's part of a cut takes: sums of
// weight*value (head_dim), the largest score, in powers of two, the sum of weights.
DEVICE int partial_stride(int head_dim) { return (head_dim + 5) & ~3; }

template <Format f> DEVICE uint64_t page_bytes(int head_dim) {
	if (f == Q8_0)
		return (uint64_t)page_rows * (head_dim + head_dim / 16);
	return (uint64_t)page_rows * head_dim * (f == F32 ? 4 : 2);
}

// page_of is where a page's part of a key/value head begins.
template <Format f> DEVICE const uint8_t *page_of(const void *cache, int page, int kv_heads, int kv_head, int head_dim) {
	return (const uint8_t *)cache + ((uint64_t)page * kv_heads + kv_head) * page_bytes<f>(head_dim);
}

// Piece is 8 values as they lie in the cache. Its load is for rows of whole
// pieces; odd reads values of rows of any length one by one, zeros beyond it.
template <Format f> struct Piece;

template <> struct Piece<F32> {
	float4 a, b;
	METHOD void load(const uint8_t *page, int row, int k, int head_dim) {
		const uint8_t *p = page + 4 * (row * head_dim + k);
		word4 lo = load_l2(p), hi = load_l2(p + 16);
		a = {bits_float(lo.x), bits_float(lo.y), bits_float(lo.z), bits_float(lo.w)};
		b = {bits_float(hi.x), bits_float(hi.y), bits_float(hi.z), bits_float(hi.w)};
	}
	METHOD void clear() { a = b = {0, 0, 0, 0}; }
	METHOD void values(float v[8]) const {
		v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
		v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
	}
	static METHOD float one(const uint8_t *page, int row, int k, int head_dim) { return bits_float(load_l2_4(page + 4 * (row * head_dim + k))); }
};

template <> struct Piece<F16> {
	word4 w;
	METHOD void load(const uint8_t *page, int row, int k, int head_dim) { w = load_l2(page + 2 * (row * head_dim + k)); }
	METHOD void clear() { w = {0, 0, 0, 0}; }
	METHOD void values(float v[8]) const {
		uint32_t u[4] = {w.x, w.y, w.z, w.w};
		for (int i = 0; i < 4; i++) {
			v[2 * i] = half_float((half_bits)u[i]);
			v[2 * i + 1] = half_float((half_bits)(u[i] >> 16));
		}
	}
	static METHOD float one(const uint8_t *page, int row, int k, int head_dim) { return half_float(load_l2_2(page + 2 * (row * head_dim + k))); }
};

template <> struct Piece<Q8_0> {
	word2 w;
	half_bits d;
	METHOD void load(const uint8_t *page, int row, int k, int head_dim) {
		w = load_l2_8(page + row * head_dim + k);
		d = load_l2_2(page + page_rows * head_dim + (row * head_dim + k) / 32 * 2);
	}
	METHOD void clear() { w = {0, 0}, d = 0; }
	METHOD void values(float v[8]) const {
		float scale = half_float(d);
		for (int i = 0; i < 8; i++) {
			// the byte, its sign turned, is the low mantissa of 2^23 + 128 + q
			uint32_t u = permute((i < 4 ? w.x : w.y) ^ 0x80808080, 0x4b000000, 0x7440 + i % 4);
			v[i] = (bits_float(u) - 8388736.f) * scale;
		}
	}
	static METHOD float one(const uint8_t *page, int row, int k, int head_dim) {
		int at = row * head_dim + k;
		float d = half_float(load_l2_2(page + page_rows * head_dim + at / 32 * 2));
		return (float)(int8_t)(load_l2_4(page + (at & ~3)) >> 8 * (at & 3)) * d;
	}
};

// write_head writes a head's row from shared memory, rounded as quant.Quantize
// does, to the bit. All warps of the block take part.
template <Format f> DEVICE void write_head(uint8_t *page, int row, const float *x, int head_dim) {
	if (f != Q8_0) {
		for (int k = thread(); k < head_dim; k += threads())
			if (f == F32)
				((float *)page)[row * head_dim + k] = x[k];
			else
				((half_bits *)page)[row * head_dim + k] = float_half(x[k]);
		return;
	}
	for (int block = warp(); block < head_dim / 32; block += threads() / 32) {
		float v = x[32 * block + lane()];
		uint32_t most = float_bits(v) & 0x7fffffff; // bits have the order of magnitudes, NaN above infinity
		for (int i = 16; i > 0; i /= 2) {
			uint32_t other = shuffle_xor(most, i);
			most = other > most ? other : most;
		}
		float d = bits_float(most) / 127.f, inverse = d == 0 ? 0.f : 1 / d;
		// half away from zero: the part cut off is exact, so it is compared, not added
		float y = multiply(v, inverse), cut = __builtin_truncf(y);
		if (abs(y - cut) >= 0.5f)
			cut += __builtin_copysignf(1, y);
		int q = round_even(max(-127.f, min(127.f, cut)));
		((int8_t *)page)[row * head_dim + 32 * block + lane()] = y == y ? (int8_t)q : (int8_t)0;
		if (lane() == 0)
			((half_bits *)(page + page_rows * head_dim))[(row * head_dim) / 32 + block] = float_half(d);
	}
}
