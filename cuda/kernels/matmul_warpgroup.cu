// matmul_warpgroup.cu: the products of matmul.cu on the tensor cores of compute
// capability 9.0, by wgmma. The module of one weight format, -DFORMAT=Q4_0.
//
// A warpgroup owns TILES times 64 rows and all the block's columns. As in matmul.cu
// A is made in registers (half.h) and B goes through shared memory, where its
// stages lie as wgmma takes them. Packed weights come through shared memory too,
// 256 columns ahead: registers hold one chunk of them, beside the sums and the
// fragments of two steps of 16 columns. While one step multiplies, the
// fragments of the next are made.
//
// A of F16 and BF16 would be a copy of what was loaded, and ptxas up to 13.0 lets
// such copies share registers with the next loads, which then write into products
// under way; a card gave wrong results. So A is made of it by an exclusive or with a
// zero that no compiler knows to be one.
//
// The limit is the tensor cores' rate. Every output element has one accumulator
// that takes K in steps of 16 in ascending order, in every kernel.
#include "matmul.h"
#include "names.h"
#include "warpgroup.h"

// Activations are copied LEAD stages of 64 columns before they are multiplied. A
// stage is written again two stages later: products of the one before may run yet.
constexpr int LEAD = 3;
constexpr int STAGES = LEAD + 2;

// Ring is what a warp has of weights in shared memory: TILES tiles of 256 columns.
template <class F, int TILES> struct Ring {
	static constexpr int chunks = 256 / F::columns, bytes = TILES * F::bytes;
};

// refill copies chunk `chunk` of a warp's tiles into its place.
template <class F, int TILES> DEVICE void refill(uint32_t ring, const uint8_t *weights, uint32_t apart, int chunk) {
	using R = Ring<F, TILES>;
	uint32_t to = ring + chunk % R::chunks * R::bytes + lane() * 16;
	const uint8_t *from = weights + (uint64_t)chunk * F::bytes + lane() * 16;
#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int i = 0; i < F::bytes; i += 512)
			if (i + 512 <= F::bytes || lane() < (F::bytes - i) / 16)
				copy_async_at(to + m * F::bytes + i, from + m * apart + i);
}

// The scales that the compiler would decode for a whole chunk at once, into registers that are not there.
template <class F> constexpr bool many_scales = false;
template <> constexpr bool many_scales<Q4_K> = true;
template <> constexpr bool many_scales<Q5_K> = true;
template <class Raw> DEVICE void held_scales(Raw &r) {
	for (int row = 0; row < 2; row++)
		held(r.s[row].x), held(r.s[row].y), held(r.s[row].z), held(r.s[row].w);
}

template <class F, int TILES> DEVICE void fragments(typename F::Raw (&raw)[TILES], int step, uint32_t zero, uint32_t (&a)[TILES][4]) {
#pragma unroll
	for (int m = 0; m < TILES; m++) {
		if constexpr (many_scales<F>)
			held_scales(raw[m]);
		fragment<F>(raw[m], step, a[m]);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if constexpr (real<F>)
				a[m][i] ^= zero;
			held(a[m][i]);
		}
	}
}

template <class F, int TILES, int COLUMNS, int COPIES> DEVICE void matmul(const Product &p) {
	using R = Ring<F, TILES>;
	constexpr int steps = F::columns / 16, stages = F::columns / 64, stage_bytes = COLUMNS * 128;
	extern __shared__ __attribute__((aligned(1024))) uint8_t shared[];
	launch_next();
	wait_previous();
	Place at;
	if (!place<COLUMNS>(p, threads() / 32 * 16 * TILES, at))
		return;

	int chunks = (p.cols + F::columns - 1) / F::columns, last_tile = (at.m.rows + 15) / 16 - 1;
	int first = at.first + warp() * 16 * TILES, tile = min(first / 16, last_tile); // beyond the matrix: its last tile
	const uint8_t *weights = at.m.w + (uint64_t)tile * chunks * F::bytes;
	uint32_t apart = tile < last_tile ? chunks * F::bytes : 0; // a warp's second tile
	typename F::Raw raw[TILES];
#pragma unroll
	for (int m = 0; m < TILES; m++)
		raw[m] = F::load(weights + m * apart, lane());

	uint32_t base = (uint32_t)(uint64_t)(__attribute__((address_space(3))) uint8_t *)shared;
	uint32_t ring = base + STAGES * stage_bytes + warp() * R::chunks * R::bytes;
	Table<COLUMNS> *table = (Table<COLUMNS> *)(shared + STAGES * stage_bytes + threads() / 32 * R::chunks * R::bytes);
	list<COLUMNS>(p, at, table);
#pragma unroll
	for (int i = 0; i < LEAD; i++) {
		if (i < chunks * stages)
			fetch<COLUMNS, COPIES>(base + i * stage_bytes, table->source, p.half, i * 8);
#pragma unroll
		for (int chunk = i + 1; chunk < (i + 1 < LEAD ? min(i + 2, R::chunks) : R::chunks); chunk++)
			if (chunk < chunks)
				refill<F, TILES>(ring, weights, apart, chunk);
		copy_commit();
	}
	list_scales<COLUMNS>(p, table);

	float acc[TILES][COLUMNS / 8][4] = {};
	uint32_t a[2][TILES][4];
	uint32_t zero = (uint32_t)p.matrices >> 2; // there are three at most
	fragments<F, TILES>(raw, 0, zero, a[0]);
	copy_wait<LEAD - 1>();
	copies_to_products();
	int slot = 0, free = LEAD; // of stages: to multiply and to fill
	for (int chunk = 0; chunk < chunks; chunk++)
#pragma unroll
		for (int s = 0; s < steps; s++) {
			if (s % 4 == 0)
				barrier();
			uint64_t b = descriptor(base + slot * stage_bytes) + s % 4 * 2;
			group_begin();
#pragma unroll
			for (int m = 0; m < TILES; m++)
				product<is_bf16<F>>(acc[m], a[s % 2][m], b);
			group_commit();
			if (s % 4 == 0) {
				int ahead = chunk * stages + s / 4 + LEAD;
				if (ahead < chunks * stages)
					fetch<COLUMNS, COPIES>(base + free * stage_bytes, table->source, p.half, ahead * 8);
				if (s == 0 && chunk + R::chunks < chunks)
					refill<F, TILES>(ring, weights, apart, chunk + R::chunks);
				copy_commit();
				free = free + 1 < STAGES ? free + 1 : 0;
			}
			if (s % 4 == 3) {
				slot = slot + 1 < STAGES ? slot + 1 : 0;
				copy_wait<LEAD - 1>();
				copies_to_products();
			}
			if (s == steps - 1 && chunk + 1 < chunks)
#pragma unroll
				for (int m = 0; m < TILES; m++)
					raw[m] = F::load(Staged{ring + (chunk + 1) % R::chunks * R::bytes + m * F::bytes}, lane());
			group_wait<1>();
			fragments<F, TILES>(raw, (s + 1) % steps, zero, a[(s + 1) % 2]);
		}
	group_wait<0>();
#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				held(acc[m][n][i]);
	store<TILES, COLUMNS>(acc, first, p.add, table);
}

// Two blocks a multiprocessor where shared memory and registers have room for them.
template <class F> constexpr int blocks_half = sizeof(typename F::Raw) <= 64 ? 2 : 1;

#ifdef WIDE
KERNEL __launch_bounds__(256, 1) MATMUL(256)(const Product p) { matmul<FORMAT, 1, 256, 4>(p); }
#else
KERNEL __launch_bounds__(256, 1) MATMUL(128)(const Product p) { matmul<FORMAT, 2, 128, 4>(p); }
#endif
KERNEL __launch_bounds__(256, blocks_half<FORMAT>) MATMUL(128_half)(const Product p) { matmul<FORMAT, 1, 128, 4>(p); }
KERNEL __launch_bounds__(256, 1) MATMUL(64)(const Product p) { matmul<FORMAT, 1, 64, 2>(p); }
KERNEL __launch_bounds__(128, 3) MATMUL(32)(const Product p) { matmul<FORMAT, 1, 32, 2>(p); }
