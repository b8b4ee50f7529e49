// norm: rows divided by their root mean square, times a weight (internal/ref's
// norm), and convert: rows as they are; both into the forms of outputs.h.
//
// In: x (n, ldx) f32, weight (dim). Out: Outputs. A block a row; the sum of
// squares is made in a tree that depends on dim alone. The limit is latency in
// decode (one row: one trip to L2, two barriers) and bandwidth in prompts; a
// row's second reading comes from L1.
#include "outputs.h"

struct Norm {
	const float *x, *weight;
	const int *rows; // row i of the output is row rows[i] of x; 0: row i
	int dim, ldx;
	float eps;
	Outputs to;
};

KERNEL __launch_bounds__(512) norm(const Norm p) {
	__shared__ float part[32];
	launch_next();
	wait_previous();
	int row = block_x();
	const float *x = p.x + (uint64_t)(p.rows ? p.rows[row] : row) * p.ldx;
	float sum = 0;
	for (int k = 4 * thread(); k < p.dim; k += 4 * threads()) {
		float4 v = load4(x, k, p.dim);
		sum = fma(v.x, v.x, fma(v.y, v.y, fma(v.z, v.z, fma(v.w, v.w, sum))));
	}
	sum = block_sum(sum, part);
	float scale = 1 / __builtin_sqrtf(sum / (float)p.dim + p.eps);
	write_row(p.to, row, p.dim, part, [&](int k) {
		float4 v = load4(x, k, p.dim), w = load4(p.weight, k, p.dim);
		return float4{v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w};
	});
}

struct Convert {
	const float *x;
	int dim, ldx;
	Outputs to;
};

KERNEL __launch_bounds__(512) convert(const Convert p) {
	__shared__ float part[32];
	launch_next();
	wait_previous();
	const float *x = p.x + (uint64_t)block_x() * p.ldx;
	write_row(p.to, block_x(), p.dim, part, [&](int k) { return load4(x, k, p.dim); });
}
