// combine: adds the cuts of every row and head that attention_K_V_G made; the
// result is the input of the output matrix.
//
// In: partial (n, heads, max_cuts, partial_stride(head_dim)). Out: f32 and f16 of
// outputs.h, rows of heads*head_dim. A block makes 256 columns of a row, 64
// threads 4 each, in 4 groups that take every fourth cut; the order of sums
// depends on the row's position alone. The limit is latency: a few trips to L2.
#include "cache.h"

struct Combine {
	const float *partial;
	const int *pos, *slot;
	Outputs to;
	int heads, head_dim, window, max_cuts;
};

// Sum is weighted values on their way: value/sum is their mean.
struct Sum {
	float value, most, sum;
};

DEVICE void add(Sum &a, const Sum &b) {
	float most = max(a.most, b.most);
	float wa = a.sum > 0 ? exp2_approx(a.most - most) : 0.f, wb = b.sum > 0 ? exp2_approx(b.most - most) : 0.f;
	a = {a.value * wa + b.value * wb, most, a.sum * wa + b.sum * wb};
}

constexpr int ahead = 4; // cuts whose loads are in flight

// gather sums n neighbouring values of a head over every fourth cut.
template <int n> DEVICE void gather(const Combine &p, int row, int column, int first, int end, Sum *to) {
	int head = column / p.head_dim, k = column % p.head_dim, stride = partial_stride(p.head_dim);
	const float *part = p.partial + (uint64_t)(row * p.heads + head) * p.max_cuts * stride;
	float most = minus_infinity, sum = 0, v[n] = {};
	for (int cut = first; cut < end; cut += 4)
		most = max(most, part[(uint64_t)cut * stride + p.head_dim]);
	for (int from = first; from < end; from += 4 * ahead) {
		float w[ahead], x[ahead][n], weights[ahead];
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			bool there = from + 4 * i < end;
			const float *at = part + (uint64_t)(there ? from + 4 * i : from) * stride;
			w[i] = there ? at[p.head_dim] : minus_infinity;
			weights[i] = at[p.head_dim + 1];
			if (n == 4) {
				float4 y = *(const float4 *)(at + k);
				x[i][0] = y.x, x[i][1 % n] = y.y, x[i][2 % n] = y.z, x[i][3 % n] = y.w;
			} else {
				x[i][0] = at[k];
			}
		}
#pragma unroll
		for (int i = 0; i < ahead; i++) {
			float e = exp2_approx(w[i] - most);
			sum = fma(e, weights[i], sum);
#pragma unroll
			for (int j = 0; j < n; j++)
				v[j] = fma(e, x[i][j], v[j]);
		}
	}
	for (int i = 0; i < n; i++)
		to[i] = {v[i], most, sum};
}

KERNEL __launch_bounds__(256) combine(const Combine p) {
	__shared__ Sum sums[4][64][4];
	launch_next();
	wait_previous();
	int row = block_y(), column = 256 * block_x() + thread() % 64 * 4, group = thread() / 64, width = p.heads * p.head_dim;
	if (p.slot[row] < 0)
		return;
	int pos = p.pos[row], first = (p.window > 0 ? max(0, pos + 1 - p.window) : 0) / cut_rows + group, end = pos / cut_rows + 1;
	Sum *mine = sums[group][thread() % 64];
	if (p.head_dim % 4 == 0) {
		if (column < width)
			gather<4>(p, row, column, first, end, mine);
	} else {
		for (int i = 0; i < 4; i++)
			if (column + i < width)
				gather<1>(p, row, column + i, first, end, mine + i);
	}
	barrier();
	if (group > 0)
		return; // whole warps
	float v[4] = {};
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (column + i < width) {
			Sum s = mine[i];
#pragma unroll
			for (int g = 1; g < 4; g++)
				add(s, sums[g][thread()][i]);
			v[i] = s.value / s.sum;
		}
	float4 y = {v[0], v[1], v[2], v[3]};
	if (p.to.out)
		store4(p.to.out + (uint64_t)row * p.to.ldout, column, width, y);
	if (!p.to.half)
		return;
	write_lanes(p.to, row, column, y);
}
