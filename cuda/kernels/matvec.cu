// matvec.cu: y[column][row] (+)= W x (+ bias) for 1 to 8 columns, decoding, and
// the same for a gate and an up matrix with the activation.
//
// W is packed weights (weights.h), x is A16 by lanes (outputs.h): f16 with a power
// of two as scale of each 32 columns; f32 for BF16 and F32 weights. Warp w of W has chunks
// w, w + W, ... of its rows; sums of warps are added in their order.
//
// The limit is bandwidth. Weights are read once, 16 bytes a lane, some chunks
// ahead. Their quants are the A operand of tensor cores for all 8 columns at once,
// whether they are there or not: that takes fewer instructions than products of
// one column. A quant 0..255 in 16 bits is the subnormal f16 number quant*2^-24, so
// that it takes an AND and half a shift to make one. Tensor cores keep subnormals,
// but align products by the exponents of their factors, cut some 2^-25 below the
// largest, which leaves products by a quant q some 15 + log2(q) bits. A group's sum of products is multiplied by the scales of weights and of
// activations, in f32; what is subtracted from quants, and mins, are multiplied by
// the group's sum of activations. F16 weights are multiplied as they are, BF16 and
// F32 weights in f32.
//
// A column's result has the same bits whatever the number of columns.
#include "half.h"
#include "outputs.h"

// Partial sums of a block: (warps, tiles, columns, 16 rows), columns 20 floats
// apart so that the lanes of a warp write to different banks.
constexpr int DECODE_COLUMNS = 8, MAX_WARPS = 8, PART_LD = 20, PART = DECODE_COLUMNS * PART_LD;

// Columns says which rows of the input a block's columns are, and where its results go.
struct Columns {
	const int *order; // slots of an expert, or 0
	int n, inverse; // with a shared input: slot/used = slot*inverse >> 16; else 0
};
DEVICE int slot_of(const Columns &c, int j) { return c.order ? (int)load_l2_4(c.order + min(j, c.n - 1)) : min(j, c.n - 1); }
// Columns beyond the last repeat it: the same loads, and results that nobody stores.
DEVICE int input_of(const Columns &c, int j) { return c.inverse ? slot_of(c, j) * c.inverse >> 16 : slot_of(c, j); }

// columns_of is the columns of active expert z, and which expert that is, -1 if there
// is none; without experts 0. Exact for slots*used below 2^16.
DEVICE int columns_of(Columns &c, const Product &p, int z) {
	c = {nullptr, p.n, 0};
	if (!p.experts)
		return 0;
	const int *list = (const int *)p.experts, *first = list + 4 + p.total;
	if (z >= (int)load_l2_4(list))
		return -1;
	int begin = load_l2_4(first + z), used = load_l2_4(list + 1);
	c = {first + p.total + 1 + begin, (int)load_l2_4(first + z + 1) - begin, p.share ? 65536 / used + 1 : 0};
	return load_l2_4(list + 4 + z);
}

// Tiles is the packed tiles that a warp works on at once.
template <int T> struct Tiles {
	const uint8_t *w[T];
	int chunks;
};

// Ring is the registers of weights under way: `depth` chunks of T tiles. Warp w
// of W has chunks w, w + W, ... of every row.
template <class F, int T> struct Ring {
	static constexpr int fit = 32 / (T * (int)sizeof(typename F::Raw) / 4), depth = fit < 1 ? 1 : fit > 4 ? 4 : fit;
	typename F::Raw raw[depth][T];
};
template <class F, int T> DEVICE void load_chunk(typename F::Raw (&raw)[T], const Tiles<T> &tiles, int chunk) {
	if (chunk < tiles.chunks)
#pragma unroll
		for (int t = 0; t < T; t++)
			raw[t] = F::load(tiles.w[t] + (uint32_t)(chunk * F::bytes), lane());
}
template <class F, int T> DEVICE void fill(Ring<F, T> &ring, const Tiles<T> &tiles) {
#pragma unroll
	for (int d = 0; d < ring.depth; d++)
		load_chunk<F, T>(ring.raw[d], tiles, warp() + d * threads() / 32);
}

// launder hides where v comes from: else a loop keeps every address made of it in a register of its own.
DEVICE int launder(int v) {
	asm volatile("" : "+r"(v));
	return v;
}

// Inputs is where a lane's part of the activations begins: of A16, in halves, in
// column g, and their scales; of A32, in floats, of every column.
struct HalfInputs {
	uint32_t half, of32[2]; // of32: of columns 2t and 2t+1, where 32s are counted
};
struct FloatInputs {
	uint32_t x[DECODE_COLUMNS];
};
DEVICE void locate(HalfInputs &in, const Product &p, const Columns &c) {
	in.half = input_of(c, lane() / 4) * p.kpad + 16 * (lane() % 4);
	for (int i = 0; i < 2; i++)
		in.of32[i] = input_of(c, lane() % 4 * 2 + i) * (p.kpad / 32);
}
DEVICE void locate(FloatInputs &in, const Product &p, const Columns &c) {
#pragma unroll
	for (int j = 0; j < DECODE_COLUMNS; j++)
		in.x[j] = input_of(c, j) * p.ldx;
}

// --- tensor cores

// integers makes four quants in w pairs of f16 numbers quant*2^-24: columns 4t, 4t+2 and 4t+1, 4t+3.
template <class F> DEVICE void integers(uint32_t w, uint32_t &even, uint32_t &odd) {
	constexpr uint32_t bytes = 0x00ff00ff, flip = F::unsigned_quants ? 0 : 0x00800080;
	even = (w & bytes) ^ flip;
	odd = (w >> 8 & bytes) ^ flip;
}

// Scales64 is scales of 64 columns of one column of the batch: of 32s, and sums of 16s.
struct Scales64 {
	float scale[2], sum[4];
};
template <bool sums> DEVICE void load_scales(Scales64 &s, const Product &p, uint32_t of32) {
	word2 a = load_cached8(p.scale + of32);
	s.scale[0] = bits_float(a.x), s.scale[1] = bits_float(a.y);
	if (!sums)
		return;
	word4 b = load_cached(p.sums + 2 * of32);
#pragma unroll
	for (int i = 0; i < 4; i++)
		s.sum[i] = bits_float(word(b, i));
}

// What a lane's sums are of: rows g and g+8, column 2t, or with N = 2 also 2t+1.
// With one column in the batch it is in all lanes.
template <int N> using Sums = float[2][N];

// add_products adds what a group's products give.
template <class F, int N> DEVICE void add_products(Sums<N> &acc, const float products[4], const typename F::Raw &raw, int block, int half, const Scales64 (&s)[N]) {
#pragma unroll
	for (int row = 0; row < 2; row++) {
		constexpr float zero = F::zero + (F::unsigned_quants ? 0 : 128);
		float d = F::scale(raw, block, half, row), high = row ? F::high : 1, m = F::has_min ? F::min(raw, block, half, row) * high : 0;
#pragma unroll
		for (int i = 0; i < N; i++) {
			float sum = F::group == 16 ? s[i].sum[block % 2 * 2 + half] : s[i].sum[block % 2 * 2] + s[i].sum[block % 2 * 2 + 1];
			float x = products[2 * row + i] * s[i].scale[block % 2];
			if (zero != 0)
				x = fma(-zero * high, sum, x);
			acc[row][i] = fma(d, x, acc[row][i]);
			if (F::has_min)
				acc[row][i] = fma(m, sum, acc[row][i]);
		}
	}
}

// add_block adds 32 columns; x is the lane's four words of the activations.
template <class F, int N> DEVICE void add_block(Sums<N> &acc, const typename F::Raw &raw, int block, const word4 &x, const Scales64 (&s)[N]) {
	float products[4] = {};
	uint32_t b[4] = {x.x, x.y, x.z, x.w};
	if constexpr (real<F>) {
		for (int half = 0; half < 2; half++) {
			uint32_t a[4];
			fragment<F>(raw, 2 * block + half, a);
			mma_f16(products, a, b + 2 * half);
		}
		for (int row = 0; row < 2; row++)
			for (int i = 0; i < N; i++)
				acc[row][i] = fma(products[2 * row + i], s[i].scale[block % 2], acc[row][i]);
	} else {
		uint32_t q[4];
		F::quants(raw, block, q);
#pragma unroll
		for (int half = 0; half < 2; half++) {
			uint32_t a[4];
			integers<F>(q[2 * half], a[0], a[2]);
			integers<F>(q[2 * half + 1], a[1], a[3]);
			mma_f16(products, a, b + 2 * half);
			if (F::group == 16 || half == 1)
				add_products<F, N>(acc, products, raw, block, half, s);
			if (F::group == 16)
				products[0] = products[1] = products[2] = products[3] = 0;
		}
	}
}

template <class F> constexpr bool wants_sums() {
	if constexpr (real<F>)
		return false;
	else
		return F::zero != 0 || !F::unsigned_quants || F::has_min;
}

// add_chunk adds a chunk's products to acc.
template <class F, int T, int N> DEVICE void add_chunk(Sums<N> (&acc)[T], const typename F::Raw (&raw)[T], const Product &p, const HalfInputs &in, int chunk) {
	const uint16_t *half = p.half + (in.half + chunk * F::columns);
#pragma unroll
	for (int part = 0; part < F::columns / 64; part++) {
		word4 x[2] = {load_cached(half + 64 * part), load_cached(half + 64 * part + 8)};
		Scales64 s[N];
#pragma unroll
		for (int i = 0; i < N; i++)
			load_scales<wants_sums<F>()>(s[i], p, in.of32[i] + chunk * (F::columns / 32) + 2 * part);
#pragma unroll
		for (int block = 0; block < 2; block++)
#pragma unroll
			for (int t = 0; t < T; t++)
				add_block<F, N>(acc[t], raw[t], 2 * part + block, x[block], s);
	}
}

// unit_of is what sums of rows g (row 0) and g+8 (1) are multiplied by.
template <class F> DEVICE float unit_of(int row) {
	if constexpr (real<F>)
		return 1.f;
	else
		return row ? 16777216.f / F::high : 16777216.f;
}

// partial_sums writes the warp's part of the tiles' products to part[T].
template <class F, int T, int N> DEVICE void partial_sums(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const HalfInputs &in) {
	Sums<N> acc[T] = {};
	int warps = threads() / 32;
	for (int chunk = warp(); chunk < tiles.chunks; chunk += ring.depth * warps)
#pragma unroll
		for (int d = 0; d < ring.depth; d++) {
			int c = launder(chunk + d * warps);
			if (c < tiles.chunks)
				add_chunk<F, T, N>(acc, ring.raw[d], p, in, c);
			load_chunk<F, T>(ring.raw[d], tiles, c + ring.depth * warps);
		}
	int g = lane() / 4, t = lane() % 4;
#pragma unroll
	for (int i = 0; i < T; i++)
#pragma unroll
		for (int row = 0; row < 2; row++)
#pragma unroll
			for (int j = 0; j < N; j++)
				part[i * PART + (2 * t + j) * PART_LD + g + 8 * row] = acc[i][row][j] * unit_of<F>(row);
}

// --- floating point: FMA in f32

// add_step adds 16 columns, of which the lane has columns k..k+3, for N columns of the batch.
template <class F, int T, int N> DEVICE void add_step(float (&acc)[T][2][N], const typename F::Raw (&raw)[T], int step, const float *x, const FloatInputs &in, int k) {
#pragma unroll
	for (int j = 0; j < N; j++) {
		word4 v = load_cached(x + (in.x[j] + k));
#pragma unroll
		for (int t = 0; t < T; t++)
#pragma unroll
			for (int row = 0; row < 2; row++)
#pragma unroll
				for (int i = 0; i < 4; i++)
					acc[t][row][j] = fma(bits_float(word(v, i)), F::value(raw[t], step, row, i), acc[t][row][j]);
	}
}

template <class F, int T, int N> DEVICE void partial_float_sums(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const FloatInputs &in) {
	float acc[T][2][N] = {};
	int warps = threads() / 32, t = lane() % 4;
	for (int chunk = warp(); chunk < tiles.chunks; chunk += ring.depth * warps)
#pragma unroll
		for (int d = 0; d < ring.depth; d++) {
			int c = launder(chunk + d * warps);
			if (c < tiles.chunks)
#pragma unroll
				for (int step = 0; step < F::columns / 16; step++) {
					int k = c * F::columns + 16 * step + 4 * t;
					add_step<F, T, N>(acc, ring.raw[d], step, p.x, in, k < p.cols ? k : 0); // weights beyond are 0
				}
			load_chunk<F, T>(ring.raw[d], tiles, c + ring.depth * warps);
		}
#pragma unroll
	for (int i = 0; i < T; i++)
#pragma unroll
		for (int row = 0; row < 2; row++)
#pragma unroll
			for (int j = 0; j < N; j++) {
				float sum = acc[i][row][j];
				sum += shuffle_xor(sum, 1);
				sum += shuffle_xor(sum, 2);
				if (j % 4 == t)
					part[i * PART + j * PART_LD + lane() / 4 + 8 * row] = sum;
			}
}

template <class F, int T> DEVICE void sums_of_warp(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const HalfInputs &in, int n) {
	if (n == 1)
		partial_sums<F, T, 1>(part, ring, tiles, p, in);
	else
		partial_sums<F, T, 2>(part, ring, tiles, p, in);
}
template <class F, int T> DEVICE void sums_of_warp(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const FloatInputs &in, int n) {
	if (n == 1)
		partial_float_sums<F, T, 1>(part, ring, tiles, p, in);
	else if (n == 2)
		partial_float_sums<F, T, 2>(part, ring, tiles, p, in);
	else if (n <= 4)
		partial_float_sums<F, T, 4>(part, ring, tiles, p, in);
	else
		partial_float_sums<F, T, 8>(part, ring, tiles, p, in);
}
template <class F> struct InputsOf {
	typedef HalfInputs type;
};
template <> struct InputsOf<F32> {
	typedef FloatInputs type;
};
template <> struct InputsOf<BF16> : InputsOf<F32> {};

// --- kernels

// total adds the warps' partial sums, in their order, of a tile's row and column.
DEVICE float total(const float *part, int tiles, int tile, int column, int row) {
	float sum = 0;
	for (int w = 0; w < threads() / 32; w++)
		sum += part[(w * tiles + tile) * PART + column * PART_LD + row];
	return sum;
}

// tiles_at is tiles `tile`... of a matrix; beyond the last that again, for rows that nobody stores.
template <class F, int T> DEVICE Tiles<T> tiles_at(const uint8_t *w, int rows, int cols, int tile) {
	Tiles<T> tiles;
	tiles.chunks = (cols + F::columns - 1) / F::columns;
#pragma unroll
	for (int t = 0; t < T; t++)
		tiles.w[t] = w + (uint64_t)min(tile + t, (rows - 1) / 16) * tiles.chunks * F::bytes;
	return tiles;
}

// gate_tiles is T tiles in the order gate, up.
template <class F, int T> DEVICE Tiles<T> gate_tiles(const Product &p, int i, int tile, int expert) {
	Tiles<T> tiles;
	tiles.chunks = (p.cols + F::columns - 1) / F::columns;
	uint64_t at = (uint64_t)min(tile, (p.m[0].rows - 1) / 16) * tiles.chunks * F::bytes;
#pragma unroll
	for (int t = 0; t < T; t++)
		tiles.w[t] = ((i + t) % 2 ? p.m[1].w + expert * p.m[1].stride : p.m[0].w + expert * p.m[0].stride) + at;
	return tiles;
}

// matrix_of is which matrix block x works on; x becomes its block in there.
template <int T> DEVICE int matrix_of(const Product &p, int &x) {
	int of_first = (p.m[0].rows + 16 * T - 1) / (16 * T), of_second = (p.m[1].rows + 16 * T - 1) / (16 * T);
	if (p.matrices == 1 || x < of_first)
		return 0;
	x -= of_first;
	if (p.matrices == 2 || x < of_second)
		return 1;
	x -= of_second;
	return 2;
}
// pick is the value for matrix i of three. The asm keeps the choice among values:
// among their addresses, the parameters would be copied to local memory.
template <class V> DEVICE V pick(int i, V v0, V v1, V v2) {
	if constexpr (sizeof(V) == 8)
		asm("" : "+l"(v0), "+l"(v1), "+l"(v2));
	else
		asm("" : "+r"(v0), "+r"(v1), "+r"(v2));
	return i == 0 ? v0 : i == 1 ? v1 : v2;
}
#define OF_MATRIX(p, i, member) pick(i, (p).m[0].member, (p).m[1].member, (p).m[2].member)

// store_sums adds up the partial sums of T tiles and writes them.
template <int T> DEVICE void store_sums(const Product &p, const float *part) {
	int x = launder(block_x()); // what is needed again is found again, not kept in registers
	Columns columns;
	columns_of(columns, p, launder(block_z()));
	int which = matrix_of<T>(p, x), rows = OF_MATRIX(p, which, rows), ldy = OF_MATRIX(p, which, ldy);
	auto bias = global_pointer(OF_MATRIX(p, which, bias));
	auto y = global_pointer(OF_MATRIX(p, which, y));
	for (int i = thread(); i < T * 16 * columns.n; i += threads()) {
		int row = i % (16 * T), column = i / (16 * T), at = 16 * T * x + row;
		if (at >= rows)
			continue;
		float sum = total(part, T, row / 16, column, row % 16);
		if (bias)
			sum += bias[at];
		auto to = y + (int64_t)slot_of(columns, column) * ldy + at;
		*to = p.add ? *to + sum : sum;
	}
}

// Grid: x = blocks of 16*T rows of every matrix, z = active experts at most.
template <class F, int T> DEVICE void matvec(const Product &p) {
	__shared__ float part[MAX_WARPS * T * PART];
	int x = block_x();
	int which = matrix_of<T>(p, x), rows = OF_MATRIX(p, which, rows);
	const uint8_t *w = OF_MATRIX(p, which, w);
	launch_next();
	Columns columns;
	if (p.experts)
		wait_previous();
	int expert = columns_of(columns, p, block_z());
	if (expert < 0)
		return;
	w += expert * OF_MATRIX(p, which, stride);
	Ring<F, T> ring;
	Tiles<T> tiles = tiles_at<F, T>(w, rows, p.cols, x * T);
	fill(ring, tiles);
	if (!p.experts)
		wait_previous();
	typename InputsOf<F>::type in;
	locate(in, p, columns);
	sums_of_warp<F, T>(part + warp() * T * PART, ring, tiles, p, in, columns.n);
	barrier();
	store_sums<T>(p, part);
}

// Gate is act = silu(m[0] x) * (m[1] x) for the two matrices of a product, in the
// forms that the next one takes, but bf16.
struct Gate {
	Product p;
	Outputs to;
};

DEVICE float silu(float x) { return x / (1.f + exp2_approx(-1.4426950408889634f * x)); }

// Grid: x = blocks of 32 rows, z = active experts at most.
template <class F, int T> DEVICE void matvec_gate(const Gate &g) {
	const Product &p = g.p;
	__shared__ float part[MAX_WARPS * 4 * PART]; // gate, up of 16 rows; gate, up of the next
	int first = 32 * block_x();
	launch_next();
	Columns columns;
	if (p.experts)
		wait_previous();
	int expert = columns_of(columns, p, block_z());
	if (expert < 0)
		return;
	typename InputsOf<F>::type in;
#pragma unroll 1
	for (int i = 0; i < 4; i += T) {
		if (i > 0)
			expert = columns_of(columns, p, launder(block_z()));
		// T = 2: gate and up of a tile together; T = 1: one after the other
		Tiles<T> tiles = gate_tiles<F, T>(p, i, first / 16 + i / 2, expert);
		Ring<F, T> ring;
		fill(ring, tiles);
		if (i == 0 && !p.experts)
			wait_previous();
		locate(in, p, columns);
		sums_of_warp<F, T>(part + (warp() * 4 + i) * PART, ring, tiles, p, in, columns.n);
	}
	barrier();
	columns_of(columns, p, launder(block_z()));
	int k = first + 4 * (lane() % 8);
#pragma unroll 1
	for (int j = warp(); j < columns.n; j += threads() / 32) {
		int tile = lane() / 16 * 2, row = lane() % 16, slot = slot_of(columns, j);
		float act = 0;
		if (first + lane() < p.m[0].rows) {
			act = silu(total(part, 4, tile, j, row)) * total(part, 4, tile + 1, j, row);
			if (g.to.out)
				global_pointer(g.to.out)[(int64_t)slot * g.to.ldout + first + lane()] = act;
		}
		if (!g.to.half)
			continue;
		// four rows a lane, four times over; the last block makes the zeros that end the row of half
		float4 v = {shuffle(act, 4 * (lane() % 8)), shuffle(act, 4 * (lane() % 8) + 1), shuffle(act, 4 * (lane() % 8) + 2), shuffle(act, 4 * (lane() % 8) + 3)};
		int end = block_x() == blocks_x() - 1 ? g.to.kpad : k + 1;
#pragma unroll 1
		for (int at = k; at < end; at += 32) {
			write_lanes(g.to, slot, at, v);
			v = {0, 0, 0, 0};
		}
	}
}

__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec)(const Product p) { matvec<FORMAT, 1>(p); }
#if !ONE_TILE_OF(FORMAT)
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec2)(const Product p) { matvec<FORMAT, 2>(p); }
#endif
#if ONE_TILE_OF(FORMAT) || GATE_TILES_OF(FORMAT)
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec_gate)(const Gate p) { matvec_gate<FORMAT, 1>(p); }
#else
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec_gate)(const Gate p) { matvec_gate<FORMAT, 2>(p); }
#endif
