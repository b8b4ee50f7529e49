// weights.h: how weights lie on the device, one struct for each format.
//
// A matrix (rows, cols) is tiles of 16 rows, a tile is chunks of `columns`
// columns, a chunk is `bytes` contiguous bytes: [tile][chunk][bytes]; what is
// beyond the matrix is zero bytes. A chunk begins with its quants in units of 512
// bytes, 16 bytes a lane; then come the scales. With g = lane/4 and t = lane%4 a
// lane holds columns 4t..4t+3 of each 16 of rows g and g+8, as an mma wants them
// of it. For a block of 32 columns that is four words: A0 (row g), A1 (row g+8)
// of the first 16 columns, A2, A3 of the others, column 4t + i in byte i.
//   8-bit unit, 1 block: A0 A1 A2 A3
//   4-bit unit, 2 blocks, two words each: A0 | A1 << 4, A2 | A3 << 4
//   2-bit unit, 4 blocks, a word each: A0 | A1 << 2 | A2 << 4 | A3 << 6
//   1-bit unit, 8 blocks, a word for blocks 2p, 2p+1: A[n] << (4*(block%2) + n)
//   f16, bf16: a unit is 16 columns: row g: k0 k2 k1 k3, row g+8: k0 k2 k1 k3 (column 4t + index)
//   f32: 16 columns are two units, of rows g and g+8
// Formats of 5 bits are a 4-bit part and a 1-bit part above it; Q6_K 4 and 2 bits,
// Q3_K 2 and 1. Scales lie by g, row g's and then row g+8's, so that the lanes of
// a quad read the same 16 bytes.
//
// A format has
//   Raw, load(chunk, lane)    the lane's part of a chunk; scales(d), mins(d) of lanes of a quad are equal
//   columns, bytes            of a chunk
//   group                     columns that share a scale, 16 or 32
//   zero                      what is subtracted from a quant
//   unsigned_quants           quants are bytes 0..255 (else int8)
//   high                      what the quants of rows g+8 are multiplied by in quants()
//   has_min                   weight = scale*(quant - zero) + min, else scale*(quant - zero)
//   quants(raw, block, a)     a[0..3] = A0..A3; block counts within the chunk
//   scale(raw, block, half, row), min(...)   of columns 32*block + 16*half.., of row g (row 0) or g+8 (row 1): equal
//                             to the scale and min of quant.Ints, to the bit
// All indices but the lane are constants after unrolling.
#pragma once
#include "dev.h"

constexpr uint32_t NIBBLES = 0x0f0f0f0f, HIGH_NIBBLES = 0xf0f0f0f0;

DEVICE uint32_t word(const word4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
DEVICE uint32_t word(const word2 &v, int i) { return i == 0 ? v.x : v.y; }

// half_at is f16 number i of the words, as f32.
template <class Words> DEVICE float half_at(const Words &v, int i) { return half_float((half_bits)(word(v, i / 2) >> 16 * (i % 2))); }

// scaled is d*byte i of v, byte 0..255, exact for d with 16 bits of mantissa: 2^23 + byte comes by one permute.
DEVICE float scaled(float d, uint32_t v, int i) { return fma(bits_float(permute(v, 0x4b000000, 0x7440 | i)), d, -8388608.f * d); }

// Staged is weights in shared memory; P below is that or const uint8_t *.
struct Staged {
	uint32_t at; // shared_address
	METHOD Staged operator+(uint32_t n) const { return {at + n}; }
};
DEVICE word4 load_weights(Staged p) { return load_shared(p.at); }
DEVICE word2 load_weights8(Staged p) { return load_shared8(p.at); }
DEVICE uint32_t load_weights4(Staged p) { return load_shared4(p.at); }

// unit reads 16 bytes a lane, unit u of the chunk.
template <class P> DEVICE word4 unit(P chunk, int lane, int u) { return load_weights(chunk + 512 * u + 16 * lane); }

// low_nibbles gives A0..A3 of a block in 4-bit units, high nibbles where they are: rows g+8 are 16 times their value.
template <int units> DEVICE void nibbles16(const word4 (&q)[units], int block, uint32_t a[4]) {
	for (int i = 0; i < 2; i++) {
		uint32_t w = word(q[block / 2], block % 2 * 2 + i);
		a[2 * i] = w & NIBBLES;
		a[2 * i + 1] = w & HIGH_NIBBLES;
	}
}
// nibbles gives them all in place.
template <int units> DEVICE void nibbles(const word4 (&q)[units], int block, uint32_t a[4]) {
	for (int i = 0; i < 2; i++) {
		uint32_t w = word(q[block / 2], block % 2 * 2 + i);
		a[2 * i] = w & NIBBLES;
		a[2 * i + 1] = w >> 4 & NIBBLES;
	}
}
// shifted is v << n, or v >> -n.
DEVICE uint32_t shifted(uint32_t v, int n) { return n >= 0 ? v << n : v >> -n; }
// add_bits puts a 1-bit unit's bits at bit `at` of A0..A3.
DEVICE void add_bits(const word4 &h, int block, int at, uint32_t a[4]) {
	for (int n = 0; n < 4; n++)
		a[n] = and_or(shifted(word(h, block / 2), at - block % 2 * 4 - n), 0x01010101u << at, a[n]);
}
// pairs gives A0..A3 of a block in 2-bit units.
template <int units> DEVICE void pairs(const word4 (&q)[units], int block, uint32_t a[4]) {
	for (int n = 0; n < 4; n++)
		a[n] = word(q[block / 4], block % 4) >> 2 * n & 0x03030303;
}

// table16 replaces the eight nibbles of w by bytes of a table of 16: A0 | A1 << 4 to A0 and A1.
DEVICE void table16(const uint32_t (&table)[4], uint32_t w, uint32_t &a0, uint32_t &a1) {
	uint32_t low = w & 0x77777777, pick = and_or(w >> 1, 0x44444444, 0x32103210), x[2];
	for (int i = 0; i < 2; i++) { // 4 nibbles: A0, A1, A0, A1
		uint32_t l = permute(table[0], table[1], low >> 16 * i), h = permute(table[2], table[3], low >> 16 * i);
		x[i] = permute(l, h, pick >> 16 * i);
	}
	a0 = permute(x[0], x[1], 0x6420);
	a1 = permute(x[0], x[1], 0x7531);
}

// --- 32 weights with one f16 scale, and perhaps a min

struct Q8_0 {
	static constexpr int columns = 128, bytes = 2176, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = false, has_min = false;
	struct Raw {
		word4 q[4], d; // d: f16 (2 rows, 4 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		Raw r;
		for (int u = 0; u < 4; u++)
			r.q[u] = unit(chunk, lane, u);
		r.d = load_weights(chunk + 2048 + lane / 4 * 16);
		return r;
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		for (int i = 0; i < 4; i++)
			a[i] = word(r.q[block], i);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d, 4 * row + block); }
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct Q4_0 {
	static constexpr int columns = 128, bytes = 1152, group = 32, zero = 8, high = 16;
	static constexpr bool unsigned_quants = true, has_min = false;
	struct Raw {
		word4 q[2], d; // d: f16 (2 rows, 4 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1)}, load_weights(chunk + 1024 + lane / 4 * 16)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) { nibbles16(r.q, block, a); }
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d, 4 * row + block); }
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct Q4_1 {
	static constexpr int columns = 128, bytes = 1280, group = 32, zero = 0, high = 16;
	static constexpr bool unsigned_quants = true, has_min = true;
	struct Raw {
		word4 q[2], d, m; // f16 (2 rows, 4 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 1024 + lane / 4 * 16;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1)}, load_weights(s), load_weights(s + 128)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) { nibbles16(r.q, block, a); }
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d, 4 * row + block); }
	DEVICE float min(const Raw &r, int block, int, int row) { return half_at(r.m, 4 * row + block); }
};

struct Q5_0 {
	static constexpr int columns = 256, bytes = 2816, group = 32, zero = 16, high = 1;
	static constexpr bool unsigned_quants = true, has_min = false;
	struct Raw {
		word4 q[4], h, d[2]; // d[row]: f16 (8 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 2560 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)},
		        unit(chunk, lane, 4), {load_weights(s), load_weights(s + 16)}};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		nibbles(r.q, block, a);
		add_bits(r.h, block, 4, a);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d[row], block); }
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct Q5_1 {
	static constexpr int columns = 256, bytes = 3072, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = true, has_min = true;
	struct Raw {
		word4 q[4], h, d[2], m[2]; // d[row], m[row]: f16 (8 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 2560 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)},
		        unit(chunk, lane, 4), {load_weights(s), load_weights(s + 16)}, {load_weights(s + 256), load_weights(s + 272)}};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		nibbles(r.q, block, a);
		add_bits(r.h, block, 4, a);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d[row], block); }
	DEVICE float min(const Raw &r, int block, int, int row) { return half_at(r.m[row], block); }
};

// --- 256 weights with d, and small integers as scales

// scales45 decodes the 12 bytes of Q4_K and Q5_K in s (d, dmin, then the bytes)
// to words: scales of blocks 0-3, 4-7, mins of blocks 0-3, 4-7, a byte each.
DEVICE uint32_t scales45(const word4 &s, int mins, int block) {
	uint32_t low = mins ? s.z : s.y;
	if (block < 4)
		return low & 0x3f3f3f3f;
	return and_or(low >> 2, 0x30303030, s.w >> 4 * mins & NIBBLES);
}

struct Q4_K {
	static constexpr int columns = 256, bytes = 2304, group = 32, zero = 0, high = 16;
	static constexpr bool unsigned_quants = true, has_min = true;
	struct Raw {
		word4 q[4], s[2]; // s[row]: f16 d, dmin, 12 bytes as in the file
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 2048 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)},
		        {load_weights(s), load_weights(s + 16)}};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) { nibbles16(r.q, block, a); }
	DEVICE float scale(const Raw &r, int block, int, int row) { return scaled(half_at(r.s[row], 0), scales45(r.s[row], 0, block), block % 4); }
	DEVICE float min(const Raw &r, int block, int, int row) { return scaled(-half_at(r.s[row], 1), scales45(r.s[row], 1, block), block % 4); }
};

struct Q5_K {
	static constexpr int columns = 256, bytes = 2816, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = true, has_min = true;
	struct Raw {
		word4 q[4], h, s[2]; // s[row]: as Q4_K
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 2560 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)},
		        unit(chunk, lane, 4), {load_weights(s), load_weights(s + 16)}};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		nibbles(r.q, block, a);
		add_bits(r.h, block, 4, a);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { return scaled(half_at(r.s[row], 0), scales45(r.s[row], 0, block), block % 4); }
	DEVICE float min(const Raw &r, int block, int, int row) { return scaled(-half_at(r.s[row], 1), scales45(r.s[row], 1, block), block % 4); }
};

struct Q6_K {
	static constexpr int columns = 256, bytes = 3360, group = 16, zero = 32, high = 1;
	static constexpr bool unsigned_quants = true, has_min = false;
	struct Raw {
		word4 q[4], h[2], s[2]; // h: 2-bit units; s[row]: int8 (16 groups)
		uint32_t d;             // f16 (2 rows)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 3072 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)},
		        {unit(chunk, lane, 4), unit(chunk, lane, 5)}, {load_weights(s), load_weights(s + 16)},
		        load_weights4(chunk + 3328 + lane / 4 * 4)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		nibbles(r.q, block, a);
		for (int n = 0; n < 4; n++)
			a[n] = and_or(shifted(word(r.h[block / 4], block % 4), 4 - 2 * n), 0x30303030, a[n]);
	}
	DEVICE float scale(const Raw &r, int block, int half, int row) {
		// the byte plus 128 is unsigned; taking 2^23 + 128 away is exact
		uint32_t s = word(r.s[row], block / 2) ^ 0x80808080;
		float v = bits_float(permute(s, 0x4b000000, 0x7440 | (block % 2 * 2 + half))) - 8388736.f;
		return v * half_float((half_bits)(r.d >> 16 * row));
	}
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct Q3_K {
	static constexpr int columns = 256, bytes = 1792, group = 16, zero = 4, high = 1;
	static constexpr bool unsigned_quants = true, has_min = false;
	struct Raw {
		word4 q[2], h, s[2]; // q: 2-bit units; s[row]: 12 bytes as in the file, f16 d
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 1536 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1)}, unit(chunk, lane, 2), {load_weights(s), load_weights(s + 16)}};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		pairs(r.q, block, a);
		add_bits(r.h, block, 2, a);
	}
	DEVICE float scale(const Raw &r, int block, int half, int row) {
		// groups 4k..4k+3: nibbles of word k%2, low for k < 2; high bits 2k.. of the third word
		const word4 &s = r.s[row];
		int k = block / 2;
		uint32_t v = word(s, k % 2) >> 4 * (k / 2) & NIBBLES;
		v = and_or(shifted(s.z, 4 - 2 * k), 0x30303030, v);
		return (bits_float(permute(v, 0x4b000000, 0x7440 | (block % 2 * 2 + half))) - 8388640.f) * half_at(s, 6);
	}
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct Q2_K {
	static constexpr int columns = 256, bytes = 1344, group = 16, zero = 0, high = 1;
	static constexpr bool unsigned_quants = true, has_min = true;
	struct Raw {
		word4 q[2], s[2]; // q: 2-bit units; s[row]: (16 groups) scale in the low nibble, min in the high one
		word2 d;          // f16 (2 rows) of d, dmin
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		P s = chunk + 1024 + lane / 4 * 32;
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1)}, {load_weights(s), load_weights(s + 16)}, load_weights8(chunk + 1280 + lane / 4 * 8)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) { pairs(r.q, block, a); }
	DEVICE float scale(const Raw &r, int block, int half, int row) {
		return scaled(half_at(r.d, 2 * row), word(r.s[row], block / 2) & NIBBLES, block % 2 * 2 + half);
	}
	DEVICE float min(const Raw &r, int block, int half, int row) {
		return scaled(-half_at(r.d, 2 * row + 1), word(r.s[row], block / 2) >> 4 & NIBBLES, block % 2 * 2 + half);
	}
};

// --- indices into a table of 16 int8 values

// The table of IQ4_NL and IQ4_XS, and twice the values of E2M1; as in internal/quant/fp4.go.
constexpr uint32_t IQ4NL[4] = {0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535};
constexpr uint32_t E2M1[4] = {0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc};

struct IQ4_NL {
	static constexpr int columns = 128, bytes = 1152, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = false, has_min = false;
	struct Raw {
		word4 q[2], d; // d: f16 (2 rows, 4 blocks)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1)}, load_weights(chunk + 1024 + lane / 4 * 16)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		for (int i = 0; i < 2; i++)
			table16(IQ4NL, word(r.q[block / 2], block % 2 * 2 + i), a[2 * i], a[2 * i + 1]);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { return half_at(r.d, 4 * row + block); }
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct IQ4_XS {
	static constexpr int columns = 256, bytes = 2176, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = false, has_min = false;
	struct Raw {
		word4 q[4], s; // s (2 rows): f16 d, high bits of scales (uint16), low nibbles (4 bytes)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)}, load_weights(chunk + 2048 + lane / 4 * 16)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		for (int i = 0; i < 2; i++)
			table16(IQ4NL, word(r.q[block / 2], block % 2 * 2 + i), a[2 * i], a[2 * i + 1]);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) {
		uint32_t head = word(r.s, 2 * row), low = word(r.s, 2 * row + 1) >> 4 * block & 15;
		uint32_t s = and_or(shifted(head, 4 - 16 - 2 * block), 0x30, low);
		return (bits_float(0x4b000000 | s) - 8388640.f) * half_float((half_bits)head);
	}
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

struct MXFP4 {
	static constexpr int columns = 256, bytes = 2176, group = 32, zero = 0, high = 1;
	static constexpr bool unsigned_quants = false, has_min = false;
	struct Raw {
		word4 q[4], e; // e (2 rows, 8 blocks): exponents
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)}, load_weights(chunk + 2048 + lane / 4 * 16)};
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		for (int i = 0; i < 2; i++)
			table16(E2M1, word(r.q[block / 2], block % 2 * 2 + i), a[2 * i], a[2 * i + 1]);
	}
	DEVICE float scale(const Raw &r, int block, int, int row) { // 2^(e-128); below 2 a subnormal
		uint32_t e = word(r.e, 2 * row + block / 4) >> 8 * (block % 4) & 255;
		return bits_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
	}
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

// I16: every other block format, as the host converts it: int8 with an f32 scale per 16.
struct I16 {
	static constexpr int columns = 128, bytes = 2560, group = 16, zero = 0, high = 1;
	static constexpr bool unsigned_quants = false, has_min = false;
	struct Raw {
		word4 q[4], s[4]; // s: f32 (2 rows, 8 groups)
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		Raw r;
		for (int u = 0; u < 4; u++)
			r.q[u] = unit(chunk, lane, u);
		for (int i = 0; i < 4; i++)
			r.s[i] = load_weights(chunk + 2048 + lane / 4 * 64 + 16 * i);
		return r;
	}
	DEVICE void quants(const Raw &r, int block, uint32_t a[4]) {
		for (int i = 0; i < 4; i++)
			a[i] = word(r.q[block], i);
	}
	DEVICE float scale(const Raw &r, int block, int half, int row) { return bits_float(word(r.s[2 * row + block / 2], block % 2 * 2 + half)); }
	DEVICE float min(const Raw &, int, int, int) { return 0; }
};

// --- floating point; value(raw, step, row, i) is column 16*step + 4t + i of row g (0) or g+8 (1)

struct F16 {
	static constexpr int columns = 64, bytes = 2048;
	struct Raw {
		word4 q[4];
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)}};
	}
	DEVICE float value(const Raw &r, int step, int row, int i) { return half_at(r.q[step], 4 * row + i / 2 + i % 2 * 2); }
};

struct BF16 {
	static constexpr int columns = 64, bytes = 2048;
	struct Raw {
		word4 q[4];
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		return {{unit(chunk, lane, 0), unit(chunk, lane, 1), unit(chunk, lane, 2), unit(chunk, lane, 3)}};
	}
	DEVICE float value(const Raw &r, int step, int row, int i) {
		uint32_t w = word(r.q[step], 2 * row + i % 2); // k0 k2, k1 k3
		return bits_float(i / 2 ? w & 0xffff0000 : w << 16);
	}
};

struct F32 {
	static constexpr int columns = 64, bytes = 4096;
	struct Raw {
		word4 q[8];
	};
	template <class P> DEVICE Raw load(P chunk, int lane) {
		Raw r;
		for (int u = 0; u < 8; u++)
			r.q[u] = unit(chunk, lane, u);
		return r;
	}
	DEVICE float value(const Raw &r, int step, int row, int i) { return bits_float(word(r.q[2 * step + row], i)); }
};

template <class F> constexpr bool is_float = F::columns == 64;

// --- what products take

// Experts is the work list of a mixture, made by route: slots are pairs (row,
// rank), slot = row*used + rank. In 32-bit words: count of active experts, used,
// 2 spare; expert[experts], the id of active i; first[experts + 1]; order[slots]:
// the slots of active i are order[first[i]..first[i+1]), ascending.
struct Experts {
	int count, used, spare[2];
};

// Matrix is one packed matrix; bias may be 0, ldy is floats between columns of y, stride bytes of one expert.
struct Matrix {
	const uint8_t *w;
	float *y;
	const float *bias;
	int rows, ldy;
	uint64_t stride;
};

// Product is y[column][row] = W x (+ bias) (+ y) for up to three matrices of one
// format that share their input. An input is A32 (x, ldx) or A16 (half, scale,
// kpad), whose words lie as outputs.h says: by lanes for matvec. With experts the columns are slots: active expert i
// makes those of order[first[i]..first[i+1]), and a column of y is a slot.
struct Product {
	Matrix m[3];
	int matrices, cols, n, add;
	int kpad, ldx;
	const float *x;
	const uint16_t *half;
	const float *scale, *sums; // sums: for matvec alone
	const Experts *experts;
	int share, total; // with experts: share 1: the input row of a slot is slot/used, 0: the slot itself; total: how many experts there are
};
