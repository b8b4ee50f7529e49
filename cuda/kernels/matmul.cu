// matmul.cu: y[column][row] (+)= W x (+ bias) for 9 and more columns: prompts.
//
// W is packed weights (weights.h), x is A16: f16 (column, kpad) in the order of
// mma slots, with a power of two per column as scale; AB16 for BF16 weights.
//
// A warp owns TILES tiles of 16 rows and all the block's columns, so no weight is
// read or dequantised twice in a block: its fragments of A are made in registers
// (half.h) from 16-byte loads that were issued four steps earlier. B goes
// through shared memory: stages of 64 columns of K, [column][64] halves, whose
// eight 16-byte parts are permuted by part ^ column % 8, so that neither
// copies nor matrix loads meet a bank twice.
//
// Every output element has one accumulator that takes K in steps of 16 in
// ascending order, whatever the kernel's width and the number of warps and
// columns: all kernels of a format give the same bits, and a column's result
// does not depend on the others.
#include "half.h"

constexpr int STAGES = __CUDA_ARCH__ >= 800 ? 4 : 2;

// fetch copies 64 columns of K, from 16-byte part `part` of each row on, to a stage.
// source[column] is where the column's row begins, in 16-byte parts.
template <int COLUMNS, int COPIES> DEVICE void fetch(uint32_t stage, const uint32_t *source, const uint16_t *half, int part) {
	const uint8_t *from = (const uint8_t *)half + (part + thread() % 8) * 16;
	int step = threads() / 8, column = thread() / 8;
	uint32_t to = stage + column * 128 + ((thread() ^ column) % 8) * 16;
	for (; column < COLUMNS; column += COPIES * step, to += COPIES * step * 128)
		for (int i = 0; i < COPIES; i++)
			copy_async_at(to + i * step * 128, from + (uint64_t)source[column + i * step] * 16);
}

template <class F> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<BF16> = true;
template <class F> DEVICE void multiply(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 800
	if constexpr (is_bf16<F>)
		return mma_bf16(d, a, b);
#endif
	mma_f16(d, a, b);
}

// step multiplies 16 columns of K: s counts them in the chunk; b is the lane's
// address in the stage for them, two tiles of 8 columns are 2048 bytes.
template <class F, int TILES, int COLUMNS>
DEVICE void step(float acc[TILES][COLUMNS / 8][4], const typename F::Raw (&raw)[TILES], int s, uint32_t b) {
	uint32_t a[TILES][4];
#pragma unroll
	for (int m = 0; m < TILES; m++)
		fragment<F>(raw[m], s, a[m]);
#pragma unroll
	for (int n = 0; n < COLUMNS / 8; n += 2) {
		uint32_t x[4];
		load_matrix4_at(x, b + n * 1024);
#pragma unroll
		for (int j = 0; j < 2; j++)
#pragma unroll
			for (int m = 0; m < TILES; m++)
				multiply<F>(acc[m][n + j], a[m], x + 2 * j);
	}
}

// What registers allow: weights are loaded `lead` steps before their first use,
// and I16, whose scales are many, has one tile of 16 rows a warp.
template <class F> constexpr int lead = real<F> ? 4 : sizeof(typename F::Raw) > 100 ? 1 : sizeof(typename F::Raw) > 80 ? 2 : 3;
template <class F> constexpr int warp_tiles = 2;
template <> constexpr int warp_tiles<I16> = 1;
template <class F> constexpr int blocks64 = sizeof(typename F::Raw) > 64 || __CUDA_ARCH__ < 800 ? 2 : 3;

// Where a block works: rows first.. of m, columns begin.. of so many.
struct Place {
	Matrix m;
	int first, begin, columns;
	const int *order; // slots of the columns; without experts column i is row i
};

// pick goes on to matrix j where the row is beyond the ones before. Field by
// field: a copy of p.m[j] would put p into local memory.
template <int j> DEVICE void pick(const Product &p, int rows, Place &at) {
	int before = (at.m.rows + rows - 1) / rows * rows;
	bool on = j < p.matrices && at.first >= before;
	const Matrix &m = p.m[j];
	at.first -= on ? before : 0;
	at.m.w = on ? m.w : at.m.w;
	at.m.y = on ? m.y : at.m.y;
	at.m.bias = on ? m.bias : at.m.bias;
	at.m.rows = on ? m.rows : at.m.rows;
	at.m.ldy = on ? m.ldy : at.m.ldy;
}

// place finds where a block of so many rows works; false: nowhere. Blocks that
// run at the same time share rows and columns: they go through 8 tiles of rows
// and all columns before the next 8, so that what a wave reads stays in L2.
template <int COLUMNS> DEVICE bool place(const Product &p, int rows, Place &at) {
	int across = blocks_x(), down = blocks_y(), linear = block_y() * across + block_x();
	int before = linear / (8 * down) * 8, width = min(across - before, 8), i = linear % (8 * down);
	at.first = (before + i % width) * rows;
	at.begin = i / width * COLUMNS;
	at.m = p.m[0];
	pick<1>(p, rows, at);
	pick<2>(p, rows, at);
	at.order = 0;
	at.columns = p.n;
	if (p.experts) {
		const int *expert = (const int *)(p.experts + 1), *first = expert + p.total;
		int active = block_z();
		if (active >= (int)load_l2_4(&p.experts->count))
			return false;
		int begin = load_l2_4(first + active);
		at.columns = load_l2_4(first + active + 1) - begin;
		at.order = first + p.total + 1 + begin;
		at.m.w += load_l2_4(expert + active) * at.m.stride;
	}
	return at.begin < at.columns;
}

// What lies in shared memory behind the stages.
template <int COLUMNS> struct Table {
	uint32_t source[COLUMNS]; // where the column's row of x begins, in 16-byte parts
	int slot[COLUMNS];        // row of y, -1: none
	float scale[COLUMNS];
	float *y; // as in Matrix
	const float *bias;
	int rows, ldy;
};

// list fills the table. Columns beyond the last are computed like it, and not stored.
template <int COLUMNS> DEVICE void list(const Product &p, const Place &at, Table<COLUMNS> *table) {
	int used = p.experts ? load_l2_4(&p.experts->used) : 1;
	for (int i = thread(); i < COLUMNS; i += threads()) {
		int column = min(at.begin + i, at.columns - 1);
		int slot = p.experts ? load_l2_4(at.order + column) : column;
		int row = p.experts && p.share ? slot / used : slot;
		table->source[i] = row * (p.kpad / 8);
		table->slot[i] = at.begin + i < at.columns ? slot : -1;
		table->scale[i] = p.scale ? bits_float(load_l2_4(p.scale + row)) : 1.f;
	}
	if (thread() == 0) { // kept from registers for the end
		table->y = at.m.y;
		table->bias = at.m.bias;
		table->rows = at.m.rows;
		table->ldy = at.m.ldy;
	}
	barrier();
}

// store writes a warp's rows, from `row` on.
template <int TILES, int COLUMNS> DEVICE void store(const float acc[TILES][COLUMNS / 8][4], int row, int add, const Table<COLUMNS> *table) {
	row += lane() / 4;
#pragma unroll
	for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
		for (int j = 0; j < 2; j++) {
			int column = n * 8 + lane() % 4 * 2 + j, slot = table->slot[column];
			if (slot < 0)
				continue;
			float scale = table->scale[column];
			auto y = global_pointer(table->y + (uint64_t)slot * table->ldy + row);
#pragma unroll
			for (int r = 0; r < 2 * TILES; r++) {
				if (row + 8 * r >= table->rows)
					break;
				float v = acc[r / 2][n][r % 2 * 2 + j] * scale;
				if (table->bias)
					v += global_pointer(table->bias)[row + 8 * r];
				y[8 * r] = add ? bits_float(load_l2_4((float *)y + 8 * r)) + v : v;
			}
		}
}

template <class F, int TILES, int COLUMNS, int COPIES> DEVICE void matmul(const Product &p) {
	constexpr int steps = F::columns / 16, stage_bytes = COLUMNS * 128;
	DYNAMIC_SHARED(shared);
	launch_next();
	wait_previous();
	Place at;
	if (!place<COLUMNS>(p, threads() / 32 * 16 * TILES, at))
		return;

	int chunks = (p.cols + F::columns - 1) / F::columns, last_tile = (at.m.rows + 15) / 16 - 1;
	int first = at.first + warp() * 16 * TILES, tile = min(first / 16, last_tile); // beyond the matrix: its last tile
	const uint8_t *weights = at.m.w + (uint64_t)tile * chunks * F::bytes;
	uint32_t apart = tile < last_tile ? chunks * F::bytes : 0; // a warp's second tile
	typename F::Raw raw[TILES], next[TILES];
#pragma unroll
	for (int m = 0; m < TILES; m++)
		raw[m] = F::load(weights + m * apart, lane());

	Table<COLUMNS> *table = (Table<COLUMNS> *)(shared + STAGES * stage_bytes);
	list<COLUMNS>(p, at, table);
	uint32_t base = (uint32_t)(uint64_t)(__attribute__((address_space(3))) uint8_t *)shared;
	for (int i = 0; i < STAGES - 1; i++) {
		if (i < chunks * (steps / 4))
			fetch<COLUMNS, COPIES>(base + i * stage_bytes, table->source, p.half, i * 8);
		copy_commit();
	}

	float acc[TILES][COLUMNS / 8][4] = {};
	// matrix lane/8 of a load: columns lane/16*8 + lane%8, halves lane/8%2*8 on.
	uint32_t b = (lane() / 16 * 8 + lane() % 8) * 128 + ((lane() / 8 % 2) ^ (lane() % 8)) * 16;
	for (int chunk = 0; chunk < chunks; chunk++)
#pragma unroll
		for (int s = 0; s < steps; s++) {
			int stage = chunk * (steps / 4) + s / 4;
			if (s % 4 == 0) {
				copy_wait<STAGES - 2>();
				barrier();
				int ahead = stage + STAGES - 1, later = (s / 4 + STAGES - 1) / (steps / 4); // chunks
				if (chunk + later < chunks)
					fetch<COLUMNS, COPIES>(base + ahead % STAGES * stage_bytes, table->source, p.half, ahead * 8);
				copy_commit();
			}
			if (s == steps - lead<F>) {
				weights += chunk + 1 < chunks ? F::bytes : 0;
#pragma unroll
				for (int m = 0; m < TILES; m++)
					next[m] = F::load(weights + m * apart, lane());
			}
			step<F, TILES, COLUMNS>(acc, raw, s, base + stage % STAGES * stage_bytes + (b ^ s % 4 * 32));
			if (s == steps - 1)
#pragma unroll
				for (int m = 0; m < TILES; m++)
					raw[m] = next[m];
		}
	store<TILES, COLUMNS>(acc, first, p.add, table);
}

#define FLOAT_F32 1
#define FLOAT_BF16 2
#define FLOAT_OF(format) JOIN(FLOAT_, format)
#define MATMUL_NAME(name, columns) matmul_##name##_##columns
#define MATMUL_JOIN(name, columns) MATMUL_NAME(name, columns)
#define MATMUL(columns) MATMUL_JOIN(NAME_OF(FORMAT), columns)

#if FLOAT_OF(FORMAT) == 0 || (FLOAT_OF(FORMAT) == 2 && __CUDA_ARCH__ >= 800)
#if __CUDA_ARCH__ >= 800 // 7.5 lacks shared memory and registers for 128
KERNEL __launch_bounds__(256, 1) MATMUL(128)(const Product p) { matmul<FORMAT, warp_tiles<FORMAT>, 128, 4>(p); }
#endif
KERNEL __launch_bounds__(128, blocks64<FORMAT>) MATMUL(64)(const Product p) { matmul<FORMAT, warp_tiles<FORMAT>, 64, 4>(p); }
KERNEL __launch_bounds__(128, 3) MATMUL(32)(const Product p) { matmul<FORMAT, 1, 32, 2>(p); }
#endif
