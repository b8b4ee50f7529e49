#include "weights.h"

// Partial sums of a block: (warps, tiles, columns, 16 rows), columns 20 floats
// apart so that the lanes of a warp write to different banks.
constexpr int DECODE_COLUMNS = 8, MAX_WARPS = 8, PART_LD = 20, PART = DECODE_COLUMNS * PART_LD;
constexpr int MAGIC = 0x4b400000; // the bits of 1.5 * 2^23

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

// --- block formats: int8 products

// Inputs is where a lane's part of the activations begins: in A8, in bytes, the
// fragments of column g and the records of columns 2t and 2t + 1; in A32, in
// floats, every column.
struct BlockInputs {
	uint32_t q, records[2];
};
struct FloatInputs {
	uint32_t x[DECODE_COLUMNS];
};
DEVICE void locate(BlockInputs &in, const Product &p, const Columns &c) {
	int g = lane() / 4, t = lane() % 4;
	in.q = input_of(c, g) * p.kpad + 16 * t;
	for (int i = 0; i < 2; i++)
		in.records[i] = input_of(c, 2 * t + i) * (p.kpad / 4);
}
DEVICE void locate(FloatInputs &in, const Product &p, const Columns &c) {
#pragma unroll
	for (int j = 0; j < DECODE_COLUMNS; j++)
		in.x[j] = input_of(c, j) * p.ldx;
}

// add_block adds the product of a tile and a block of 32 columns to acc: (g, 2t),
// (g, 2t+1), (g+8, 2t), (g+8, 2t+1). sums is the records' {s0, s1}, d their scales.
template <class F> DEVICE void add_block(float acc[4], const typename F::Raw &raw, int block, const uint32_t b[2], const float d[2], const uint32_t sums[2]) {
	constexpr int halves = 32 / F::group;
	constexpr uint32_t low = -F::zero & 255, high = -F::zero * F::high & 255;
	uint32_t a[4];
	F::quants(raw, block, a);
#pragma unroll
	for (int h = 0; h < halves; h++) {
		// which of s0, s1 count
		constexpr uint32_t both = halves == 1 ? 0x0101 : 1;
		uint32_t which = both << 8 * h;
		int c[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
		if (F::zero)
#pragma unroll
			for (int i = 0; i < 2; i++) {
				c[i] = dp2a(sums[i], low * which, MAGIC);
				c[2 + i] = dp2a(sums[i], high * which, MAGIC);
			}
		if constexpr (halves == 1)
			mma_s8_32<F::unsigned_quants>(c, a, b);
		else
			mma_s8_16<F::unsigned_quants>(c, a[2 * h], a[2 * h + 1], b[h]);
		float scale[2] = {F::scale(raw, block, h, 0), F::scale(raw, block, h, 1)};
#pragma unroll
		for (int i = 0; i < 4; i++)
			acc[i] = fma((bits_float(c[i]) - 12582912.f) * d[i % 2], scale[i / 2], acc[i]);
		if constexpr (F::has_min) {
			float least[2] = {F::min(raw, block, h, 0), F::min(raw, block, h, 1) * F::high};
#pragma unroll
			for (int i = 0; i < 4; i++) {
				float sum = bits_float(dp2a(sums[i % 2], which, MAGIC)) - 12582912.f;
				acc[i] = fma(d[i % 2] * sum, least[i / 2], acc[i]);
			}
		}
	}
}

// add_chunk adds a chunk's products, 64 columns at a time.
template <class F, int T> DEVICE void add_chunk(float (&acc)[T][4], const typename F::Raw (&raw)[T], const Product &p, const BlockInputs &at, int chunk) {
	const int8_t *q = p.q + (at.q + chunk * F::columns);
	const uint8_t *records = (const uint8_t *)p.records, *r0 = records + (at.records[0] + chunk * (F::columns / 4)), *r1 = records + (at.records[1] + chunk * (F::columns / 4));
#pragma unroll
	for (int pair = 0; pair < F::columns / 64; pair++) {
		word4 b = load_cached(q + 64 * pair), u = load_cached(r0 + 16 * pair), v = load_cached(r1 + 16 * pair);
#pragma unroll
		for (int i = 0; i < 2; i++) {
			uint32_t fragment[2] = {word(b, 2 * i), word(b, 2 * i + 1)}, sums[2] = {word(u, 2 * i + 1), word(v, 2 * i + 1)};
			float d[2] = {bits_float(word(u, 2 * i)), bits_float(word(v, 2 * i))};
#pragma unroll
			for (int t = 0; t < T; t++)
				add_block<F>(acc[t], raw[t], 2 * pair + i, fragment, d, sums);
		}
	}
}

// partial_sums writes the warp's part of the tiles' products to part[T].
template <class F, int T> DEVICE void partial_sums(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const BlockInputs &in) {
	float acc[T][4] = {};
	int warps = threads() / 32;
	for (int chunk = warp(); chunk < tiles.chunks; chunk += ring.depth * warps)
#pragma unroll
		for (int d = 0; d < ring.depth; d++) {
			int c = launder(chunk + d * warps);
			if (c < tiles.chunks)
				add_chunk<F, T>(acc, ring.raw[d], p, in, c);
			load_chunk<F, T>(ring.raw[d], tiles, c + ring.depth * warps);
		}
	int g = lane() / 4, t = lane() % 4;
#pragma unroll
	for (int i = 0; i < T; i++)
#pragma unroll
		for (int j = 0; j < 4; j++)
			part[i * PART + (2 * t + j % 2) * PART_LD + g + j / 2 * 8] = j < 2 ? acc[i][j] : acc[i][j] * (1.f / F::high);
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

template <class F, int T> DEVICE void sums_of_warp(float *part, Ring<F, T> &ring, const Tiles<T> &tiles, const Product &p, const BlockInputs &in, int) {
	partial_sums<F, T>(part, ring, tiles, p, in);
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
	typedef BlockInputs type;
};
template <> struct InputsOf<F32> {
	typedef FloatInputs type;
};
template <> struct InputsOf<F16> : InputsOf<F32> {};
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

// Gate is act = silu(m[0] x) * (m[1] x) for the two matrices of a product: as A8
// (q2, records2, kpad2) and as A32 (act, ldact), what is not 0.
struct Gate {
	Product p;
	int8_t *q2;
	void *records2;
	float *act;
	int kpad2, ldact;
};

DEVICE float silu(float x) { return x / (1.f + exp2_approx(-1.4426950408889634f * x)); }

// store_act writes a column's 32 rows from `first` on, lane by lane, as the
// products that follow want them. v is 0 beyond the matrix.
DEVICE void store_act(const Gate &p, int column, int first, float v) {
	int row = first + lane();
	if (p.act && row < p.p.m[0].rows)
		p.act[(int64_t)column * p.ldact + row] = v;
	if (!p.q2 || first >= p.kpad2)
		return;
	float most = warp_max(abs(v));
	int q = round_even(v * (most > 0 ? 127.f / most : 0.f));
	int sum = q;
	for (int o = 1; o < 16; o *= 2)
		sum += shuffle_xor(sum, o);
	int other = shuffle_xor(sum, 16), k = row % 64;
	p.q2[(int64_t)column * p.kpad2 + (row & ~63) + k % 16 / 4 * 16 + k / 32 * 8 + k % 32 / 16 * 4 + k % 4] = q;
	if (lane() == 0)
		*(word2 *)((uint8_t *)p.records2 + (int64_t)column * (p.kpad2 / 4) + first / 4) = {float_bits(most / 127.f), (uint32_t)(sum & 0xffff) | (uint32_t)other << 16};
}

// Two tiles of Q4_K do not fit in the registers of a loop that comes back to them.
template <class F> constexpr int tiles_of_gate = 2;
template <> constexpr int tiles_of_gate<Q4_K> = 1;

// Grid: x = blocks of 32 rows, up to kpad2 if A8 is wanted, z = active experts at most.
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
	if (first < p.m[0].rows) {
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
	} else
		wait_previous();
	barrier();
	columns_of(columns, p, launder(block_z()));
	for (int j = warp(); j < columns.n; j += threads() / 32) {
		float v = 0;
		if (first + lane() < p.m[0].rows) {
			int tile = lane() / 16 * 2, row = lane() % 16;
			v = silu(total(part, 4, tile, j, row)) * total(part, 4, tile + 1, j, row);
		}
		store_act(g, slot_of(columns, j), first, v);
	}
}

__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec)(const Product p) { matvec<FORMAT, 1>(p); }
#if ONE_TILE_OF(FORMAT)
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec_gate)(const Gate p) { matvec_gate<FORMAT, 1>(p); }
#else
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec2)(const Product p) { matvec<FORMAT, 2>(p); }
__launch_bounds__(256, 2) WEIGHT_KERNEL(matvec_gate)(const Gate p) { matvec_gate<FORMAT, tiles_of_gate<FORMAT>>(p); }
#endif
