// matmul.cu: y[column][row] (+)= W x (+ bias) for 9 and more columns: prompts.
// The module of one weight format, -DFORMAT=Q4_0.
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
#include "matmul.h"
#include "names.h"

constexpr int STAGES = __CUDA_ARCH__ >= 800 ? 4 : 2;

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
	list_scales<COLUMNS>(p, table);

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

#if __CUDA_ARCH__ >= 800 // 7.5 lacks shared memory and registers for 128
KERNEL __launch_bounds__(256, 1) MATMUL(128)(const Product p) { matmul<FORMAT, warp_tiles<FORMAT>, 128, 4>(p); }
#endif
KERNEL __launch_bounds__(128, blocks64<FORMAT>) MATMUL(64)(const Product p) { matmul<FORMAT, warp_tiles<FORMAT>, 64, 4>(p); }
KERNEL __launch_bounds__(128, 3) MATMUL(32)(const Product p) { matmul<FORMAT, 1, 32, 2>(p); }
