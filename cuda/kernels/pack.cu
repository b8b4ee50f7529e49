// pack.cu: weights as files have them, rows of blocks, to the layout of
// weights.h. Runs once at load, beside the copies from the host; it should keep
// up with the link (50 GB/s), a hundredth of the memory's rate, so it takes the
// plain way: a warp writes a chunk, its lanes fetch the quants of their words
// one by one, and lanes 0-15 a row's scales each.
//
// Defined by quant.Dequantize: the test unpacks with embed and compares.

struct Pack {
	const uint8_t *raw; // (rows) rows of blocks; I16: int8 (rows, cols), then f32 (rows, cols/16)
	uint8_t *w;         // the packed matrix
	int rows, first, cols, total; // first is a multiple of 16; rows ends with a tile or with the matrix
};

// A file's format: `elems` weights in `size` bytes; quant(block, k) is the
// integer of weight k before zero is subtracted (or the index into a table), of
// low + high bits; scales are runs of bytes in a block (Scales).
template <class F> struct File;

// Scales says that each of a chunk's `count` blocks has `bytes` bytes of scales
// at `field`, and that a row's lie together, `room` bytes, from byte `at` of a
// chunk's scales on.
struct Scales {
	int field, bytes, count, at, room;
};

DEVICE int nibble(const uint8_t *b, int byte, int high) { return b[byte] >> 4 * high & 15; }
DEVICE int bit(const uint8_t *b, int i) { return b[i / 8] >> i % 8 & 1; }
DEVICE int two_bits(const uint8_t *b, int k) { return b[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3; }

template <> struct File<Q8_0> {
	static constexpr int elems = 32, size = 34, low = 8, high = 0;
	static constexpr Scales scales[] = {{0, 2, 4, 0, 8}};
	DEVICE int quant(const uint8_t *b, int k) { return b[2 + k]; }
};
template <> struct File<Q4_0> {
	static constexpr int elems = 32, size = 18, low = 4, high = 0;
	static constexpr Scales scales[] = {{0, 2, 4, 0, 8}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 2 + k % 16, k / 16); }
};
template <> struct File<IQ4_NL> : File<Q4_0> {};
template <> struct File<Q4_1> {
	static constexpr int elems = 32, size = 20, low = 4, high = 0;
	static constexpr Scales scales[] = {{0, 2, 4, 0, 8}, {2, 2, 4, 128, 8}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 4 + k % 16, k / 16); }
};
template <> struct File<Q5_0> {
	static constexpr int elems = 32, size = 22, low = 4, high = 1;
	static constexpr Scales scales[] = {{0, 2, 8, 0, 16}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 6 + k % 16, k / 16) | bit(b + 2, k) << 4; }
};
template <> struct File<Q5_1> {
	static constexpr int elems = 32, size = 24, low = 4, high = 1;
	static constexpr Scales scales[] = {{0, 2, 8, 0, 16}, {2, 2, 8, 256, 16}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 8 + k % 16, k / 16) | bit(b + 4, k) << 4; }
};
template <> struct File<MXFP4> {
	static constexpr int elems = 32, size = 17, low = 4, high = 0;
	static constexpr Scales scales[] = {{0, 1, 8, 0, 8}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 1 + k % 16, k / 16); }
};
template <> struct File<Q2_K> {
	static constexpr int elems = 256, size = 84, low = 2, high = 0;
	static constexpr Scales scales[] = {{0, 16, 1, 0, 16}, {80, 4, 1, 256, 4}};
	DEVICE int quant(const uint8_t *b, int k) { return two_bits(b + 16, k); }
};
template <> struct File<Q3_K> {
	static constexpr int elems = 256, size = 110, low = 2, high = 1;
	static constexpr Scales scales[] = {{96, 14, 1, 0, 16}};
	DEVICE int quant(const uint8_t *b, int k) { return two_bits(b + 32, k) | bit(b, 8 * (k % 32) + k / 32) << 2; }
};
template <> struct File<Q4_K> {
	static constexpr int elems = 256, size = 144, low = 4, high = 0;
	static constexpr Scales scales[] = {{0, 16, 1, 0, 16}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 16 + k / 64 * 32 + k % 32, k % 64 / 32); }
};
template <> struct File<Q5_K> {
	static constexpr int elems = 256, size = 176, low = 4, high = 1;
	static constexpr Scales scales[] = {{0, 16, 1, 0, 16}};
	DEVICE int quant(const uint8_t *b, int k) {
		return nibble(b, 48 + k / 64 * 32 + k % 32, k % 64 / 32) | bit(b + 16, 8 * (k % 32) + k / 32) << 4;
	}
};
template <> struct File<Q6_K> {
	static constexpr int elems = 256, size = 210, low = 4, high = 2;
	static constexpr Scales scales[] = {{192, 16, 1, 0, 16}, {208, 2, 1, 256, 2}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, k / 128 * 64 + k % 64, k % 128 / 64) | two_bits(b + 128, k) << 4; }
};
template <> struct File<IQ4_XS> {
	static constexpr int elems = 256, size = 136, low = 4, high = 0;
	static constexpr Scales scales[] = {{0, 8, 1, 0, 8}};
	DEVICE int quant(const uint8_t *b, int k) { return nibble(b, 8 + k / 32 * 16 + k % 16, k % 32 / 16); }
};
template <> struct File<I16> {
	static constexpr int elems = 16, size = 16, low = 8, high = 0;
	static constexpr Scales scales[] = {{0, 4, 8, 0, 32}}; // of the second part of raw
	DEVICE int quant(const uint8_t *b, int k) { return b[k]; }
};

// Floating point: size of a weight; a lane's 16 bytes of unit u as words of the file.
template <> struct File<F16> {
	static constexpr int size = 2;
};
template <> struct File<BF16> {
	static constexpr int size = 2;
};
template <> struct File<F32> {
	static constexpr int size = 4;
};

// A tile's chunk on its way: raw rows `row_bytes` apart, of which `rows` exist,
// and columns first_column on, of which the row has `cols`.
struct Piece {
	const uint8_t *raw;
	uint64_t row_bytes;
	int rows, first_column, cols;
};

// bits_of is a word A[n] of a block, each byte cut to `bits` bits from `shift` on.
template <class F> DEVICE uint32_t bits_of(const Piece &p, int block, int n, int shift, int bits) {
	int row = lane() / 4 + n % 2 * 8, k = p.first_column + 32 * block + n / 2 * 16 + lane() % 4 * 4;
	if (row >= p.rows || k >= p.cols)
		return 0;
	const uint8_t *b = p.raw + row * p.row_bytes + k / File<F>::elems * File<F>::size;
	uint32_t a = 0;
	for (int i = 0; i < 4; i++)
		a |= (uint32_t)(File<F>::quant(b, k % File<F>::elems + i) >> shift & (1 << bits) - 1) << 8 * i;
	return a;
}

// plane writes the units of `bits` bits: a word is 8/bits of A[0..3] of successive blocks.
template <class F, int bits> DEVICE void plane(uint8_t *to, const Piece &p, int shift) {
	for (int u = 0; u < F::columns * bits / 256; u++) {
		uint32_t w[4] = {};
#pragma unroll
		for (int i = 0; i < 32 / bits; i++) {
			int s = u * (32 / bits) + i, at = i % (8 / bits) * bits;
			w[i / (8 / bits)] |= bits_of<F>(p, s / 4, s % 4, shift, bits) << at;
		}
		*(word4 *)(to + 512 * u + 16 * lane()) = {w[0], w[1], w[2], w[3]};
	}
}

template <class F> DEVICE void pack_scales(uint8_t *to, const Piece &p, const uint8_t *scales, uint64_t row_bytes, int elems, int size) {
	int row = lane();
	if (row >= 16)
		return;
#pragma unroll
	for (const Scales &s : File<F>::scales) {
		uint8_t *at = to + s.at + (row % 8 * 2 + row / 8) * s.room;
		for (int i = 0; i < s.room; i++) {
			int block = i / s.bytes, k = p.first_column + block * elems;
			bool there = row < p.rows && block < s.count && k < p.cols;
			at[i] = there ? scales[row * row_bytes + k / elems * size + s.field + i % s.bytes] : 0;
		}
	}
}

template <class F> DEVICE void pack_chunk(uint8_t *to, const Pack &p, const Piece &piece) {
	using Raw = File<F>;
	constexpr int low = F::columns * Raw::low / 256 * 512, high = F::columns * Raw::high / 256 * 512;
	plane<F, Raw::low>(to, piece, 0);
	if constexpr (Raw::high > 0)
		plane<F, Raw::high>(to + low, piece, Raw::low);
	if constexpr (Raw::elems == 16) { // I16: scales follow the quants of all rows
		uint64_t row_bytes = piece.cols / 4;
		const uint8_t *scales = p.raw + (uint64_t)p.rows * p.cols + 16 * block_y() * row_bytes;
		pack_scales<F>(to + low, piece, scales, row_bytes, 16, 4);
	} else
		pack_scales<F>(to + low + high, piece, piece.raw, piece.row_bytes, Raw::elems, Raw::size);
}

// float_at is a weight's bits, 0 beyond the matrix.
template <class F> DEVICE uint32_t float_at(const Piece &p, int row, int k) {
	if (row >= p.rows || k >= p.cols)
		return 0;
	const uint8_t *at = p.raw + row * p.row_bytes + k * File<F>::size;
	return File<F>::size == 4 ? *(const uint32_t *)at : *(const uint16_t *)at;
}

template <class F> DEVICE void pack_floats(uint8_t *to, const Piece &p) {
	for (int u = 0; u < F::bytes / 512; u++) {
		int g = lane() / 4, k = p.first_column + lane() % 4 * 4;
		uint32_t w[4];
		for (int i = 0; i < 4; i++) {
			if (File<F>::size == 4)
				w[i] = float_at<F>(p, g + u % 2 * 8, k + u / 2 * 16 + i);
			else { // k0 k2 k1 k3 of row g, then of row g+8
				int row = g + i / 2 * 8, c = k + u * 16 + i % 2;
				w[i] = float_at<F>(p, row, c) | float_at<F>(p, row, c + 2) << 16;
			}
		}
		*(word4 *)(to + 512 * u + 16 * lane()) = {w[0], w[1], w[2], w[3]};
	}
}

// Grid: x = chunks/8, y = tiles of the piece.
template <class F> DEVICE void pack(const Pack &p) {
	int chunks = (p.cols + F::columns - 1) / F::columns, chunk = block_x() * 8 + warp(), row = 16 * block_y();
	launch_next();
	wait_previous();
	if (chunk >= chunks)
		return;
	uint64_t row_bytes;
	if constexpr (is_float<F>)
		row_bytes = (uint64_t)p.cols * File<F>::size;
	else
		row_bytes = (uint64_t)p.cols / File<F>::elems * File<F>::size;
	Piece piece = {p.raw + row * row_bytes, row_bytes, min(16, p.rows - row), chunk * F::columns, p.cols};
	uint8_t *to = p.w + ((uint64_t)(p.first / 16 + block_y()) * chunks + chunk) * F::bytes;
	if constexpr (is_float<F>)
		pack_floats<F>(to, piece);
	else
		pack_chunk<F>(to, p, piece);
}

WEIGHT_KERNEL(pack)(const Pack p) { pack<FORMAT>(p); }
