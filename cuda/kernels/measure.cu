// read, matrix_rate and nothing: what Measure times.
//
// read sums words of 16 bytes, 8 loads of a thread in flight: bandwidth. matrix_rate
// multiplies in registers only, 8 independent sums a warp: rounds*8 m16n8k16
// products, 4096 operations each. nothing is a launch. Their definitions are
// these sentences.
#include "dev.h"

struct Read {
	const void *data;
	uint32_t *out;  // (blocks): the sums, so that the loads are not dropped
	uint64_t words; // a multiple of 8*256*blocks
};

KERNEL __launch_bounds__(256) read(const Read p) {
	launch_next();
	wait_previous();
	uint32_t sum = 0;
	uint64_t step = (uint64_t)blocks_x() * 256;
	const word4 *at = (const word4 *)p.data + (uint64_t)block_x() * 256 + thread();
	for (uint64_t i = 0; i < p.words; i += 8 * step) {
		word4 w[8];
#pragma unroll
		for (int j = 0; j < 8; j++)
			w[j] = load_weights(at + i + j * step);
#pragma unroll
		for (int j = 0; j < 8; j++)
			sum += w[j].x + w[j].y + w[j].z + w[j].w;
	}
	sum = (uint32_t)warp_sum((int)sum);
	__shared__ uint32_t sums[8];
	if (lane() == 0)
		sums[warp()] = sum;
	barrier();
	if (thread() == 0)
		p.out[block_x()] = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

struct MatrixRate {
	float *out; // (blocks*threads)
	int rounds;
};

KERNEL __launch_bounds__(256) matrix_rate(const MatrixRate p) {
	launch_next();
	wait_previous();
	float d[8][4] = {};
	uint32_t a[4] = {(uint32_t)lane(), 0x3c003c00, 0x38003800, (uint32_t)warp()}, b[2] = {0x3c003800, (uint32_t)lane()};
	for (int i = 0; i < p.rounds; i++)
#pragma unroll
		for (int j = 0; j < 8; j++)
			mma_f16(d[j], a, b);
	float sum = 0;
#pragma unroll
	for (int j = 0; j < 8; j++)
		sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
	p.out[block_x() * 256 + thread()] = sum;
}

struct Nothing {
	int unused;
};

KERNEL nothing(const Nothing p) {
	launch_next();
	wait_previous();
}
