// act: silu(gate)*up, silu(x) = x/(1+exp(-x)) (internal/ref's swiglu).
//
// In: gate (n, ldgate), up (n, ldup) f32, of which the first dim count. Out:
// Outputs. A block a row. The limit is bandwidth: in prompts 8 bytes in, 2 out
// a value; f16 takes a second pass over the row, from L1 or L2.
#include "outputs.h"

struct Act {
	const float *gate, *up;
	int ldgate, ldup, dim;
	Outputs to;
};

DEVICE float silu(float x) { return x / (1 + exp2_approx(x * -1.44269504f)); }

KERNEL __launch_bounds__(512) act(const Act p) {
	__shared__ float part[32];
	launch_next();
	wait_previous();
	const float *gate = p.gate + (uint64_t)block_x() * p.ldgate, *up = p.up + (uint64_t)block_x() * p.ldup;
	write_row(p.to, block_x(), p.dim, part, [&](int k) {
		float4 g = load4(gate, k, p.dim), u = load4(up, k, p.dim);
		return float4{silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w};
	});
}
