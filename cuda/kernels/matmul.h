// matmul.h: what products for prompts share, on tensor cores of warps (matmul.cu)
// and of warpgroups (matmul_warpgroup.cu): where a block works, how activations
// come into shared memory, and how results leave.
#pragma once
#include "half.h"

template <class F> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<BF16> = true;

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

// list fills the table but for scales. Columns beyond the last are computed like it, and not stored.
template <int COLUMNS> DEVICE void list(const Product &p, const Place &at, Table<COLUMNS> *table) {
	int used = p.experts ? load_l2_4(&p.experts->used) : 1;
	for (int i = thread(); i < COLUMNS; i += threads()) {
		int column = min(at.begin + i, at.columns - 1);
		int slot = p.experts ? load_l2_4(at.order + column) : column;
		int row = p.experts && p.share ? slot / used : slot;
		table->source[i] = row * (p.kpad / 8);
		table->slot[i] = at.begin + i < at.columns ? slot : -1;
	}
	if (thread() == 0) { // kept from registers for the end
		table->y = at.m.y;
		table->bias = at.m.bias;
		table->rows = at.m.rows;
		table->ldy = at.m.ldy;
	}
	barrier();
}

// list_scales fills in the scales, which are wanted last: copies of activations go before them.
template <int COLUMNS> DEVICE void list_scales(const Product &p, Table<COLUMNS> *table) {
	for (int i = thread(); i < COLUMNS; i += threads())
		table->scale[i] = p.scale ? bits_float(load_l2_4(p.scale + table->source[i] / (p.kpad / 8))) : 1.f;
}

// store writes a warp's rows, from `row` on. Without branches, and what is added
// to is read for several columns at once.
template <int TILES, int COLUMNS> DEVICE void store(const float acc[TILES][COLUMNS / 8][4], int row, int add, const Table<COLUMNS> *table) {
	constexpr int BATCH = 4;
	row += lane() / 4;
	int rows = table->rows - row, ldy = table->ldy;
	float *y = table->y + row;
	float more[2 * TILES];
#pragma unroll
	for (int r = 0; r < 2 * TILES; r++)
		more[r] = load_float_if(table->bias && 8 * r < rows, table->bias + row + 8 * r);
#pragma unroll
	for (int first = 0; first < COLUMNS / 8; first += BATCH) {
		float *to[2 * BATCH], before[2 * BATCH][2 * TILES];
		bool wanted[2 * BATCH];
#pragma unroll
		for (int i = 0; i < 2 * BATCH; i++) {
			int slot = table->slot[(first + i / 2) * 8 + lane() % 4 * 2 + i % 2];
			wanted[i] = slot >= 0;
			to[i] = y + (uint64_t)(uint32_t)slot * ldy;
#pragma unroll
			for (int r = 0; r < 2 * TILES; r++)
				before[i][r] = load_float_if(add && wanted[i] && 8 * r < rows, to[i] + 8 * r);
		}
#pragma unroll
		for (int i = 0; i < 2 * BATCH; i++) {
			float scale = table->scale[(first + i / 2) * 8 + lane() % 4 * 2 + i % 2];
#pragma unroll
			for (int r = 0; r < 2 * TILES; r++)
				store_float_if(wanted[i] && 8 * r < rows, to[i] + 8 * r, before[i][r] + (acc[r / 2][first + i / 2][r % 2 * 2 + i % 2] * scale + more[r]));
		}
	}
}
