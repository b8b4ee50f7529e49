// half.h: packed weights as the A operands of tensor cores, 16 columns at a time.
//
// Fragment order is that of weights.h, so a word of quants is a lane's four
// columns 4t..4t+3 of a row, and two permutes with 0x64 make it two pairs of f16
// numbers 1024 + quant: columns 4t, 4t+2 and 4t+1, 4t+3, which is the order of
// A16. Subtracting is exact. Then they are multiplied by their scale in f16: two
// roundings to 11 bits a weight (scale, product) and a third with a min, which
// leaves an NMSE near 1e-7. A scale that is f16 times integers keeps its 11 bits
// below the normal numbers too, as both are multiples of 2^-24. MXFP4 and I16
// have scales of wider range: weights below 2^-24 become 0, which counts for
// nothing beside others of a usual size, and there is nothing above 65504.
#pragma once
#include "weights.h"

// Formats that lie as f16 or bf16 already.
template <class F> constexpr bool real = false;
template <> constexpr bool real<F16> = true;
template <> constexpr bool real<BF16> = true;

// Formats whose scales (and mins) are f16 in the file: d (and m) of Raw.
template <class F> constexpr bool f16_scales = false;
template <> constexpr bool f16_scales<Q8_0> = true;
template <> constexpr bool f16_scales<Q4_0> = true;
template <> constexpr bool f16_scales<Q4_1> = true;
template <> constexpr bool f16_scales<Q5_0> = true;
template <> constexpr bool f16_scales<Q5_1> = true;
template <> constexpr bool f16_scales<IQ4_NL> = true;

// pick_half is number i of f16 in v, twice.
DEVICE uint32_t pick_half(const word4 &v, int i) { return permute(word(v, i / 2), 0, i % 2 ? 0x3232 : 0x1010); }
DEVICE uint32_t pick_half(const word4 &d, int block, int row) { return pick_half(d, 4 * row + block); }
DEVICE uint32_t pick_half(const word4 (&d)[2], int block, int row) { return pick_half(d[row], block); }

// pair_scales gives scale and min of columns 16*step.. of row g (row 0) or g+8 (1), twice each.
template <class F> DEVICE void pair_scales(const typename F::Raw &raw, int step, int row, uint32_t &scale, uint32_t &min) {
	if constexpr (f16_scales<F>) {
		scale = pick_half(raw.d, step / 2, row);
		if constexpr (F::has_min)
			min = pick_half(raw.m, step / 2, row);
	} else {
		float d = F::scale(raw, step / 2, step % 2, row), m = F::min(raw, step / 2, step % 2, row);
		if (!F::has_min)
			d = ::min(d, 65504.f); // 0 times infinity is no weight
		scale = pack_half(d, d);
		min = pack_half(m, m);
	}
}

// halves makes four quants in w the pairs a[0] and a[2], each less ZERO.
template <class F, int row> DEVICE void halves(uint32_t w, uint32_t a[4]) {
	constexpr uint32_t ones = 0x10001;
	if (!F::unsigned_quants)
		w ^= 0x80808080;
	for (int i = 0; i < 2; i++) {
		uint32_t h = permute(w, 0x64646464, 0x4240 + i * 0x101);
		if (row == 1 && F::high == 16) // (1024 + 16 q)/16 - (64 + zero)
			a[2 * i] = half2_fma(h, 0x2c00 * ones, (0xd400 + 16 * F::zero) * ones);
		else
			a[2 * i] = half2_add(h, (0xe400 + F::zero + (F::unsigned_quants ? 0 : 128)) * ones);
	}
}

// fragment is columns 16*step.. of a chunk: a[0] (g; 4t, 4t+2), a[1] (g+8; the
// same), a[2] (g; 4t+1, 4t+3), a[3] (g+8; the same).
template <class F> DEVICE void fragment(const typename F::Raw &raw, int step, uint32_t a[4]) {
	if constexpr (real<F>) {
		for (int i = 0; i < 4; i++)
			a[i] = word(raw.q[step], i % 2 * 2 + i / 2);
	} else {
		uint32_t q[4];
		F::quants(raw, step / 2, q);
		halves<F, 0>(q[step % 2 * 2], a);
		halves<F, 1>(q[step % 2 * 2 + 1], a + 1);
		for (int row = 0; row < 2; row++) {
			uint32_t d, m = 0;
			pair_scales<F>(raw, step, row, d, m);
			for (int i = row; i < 4; i += 2)
				a[i] = F::has_min ? half2_fma(a[i], d, m) : half2_mul(a[i], d);
		}
	}
}
