// combine: adds the cuts of every row and head that attention made; the result is
// the input of the output matrix.
//
// In: partial (n, heads, max_cuts, partial_stride(head_dim)). Out: (n, ldout) f32,
// rows of heads*head_dim. A threadgroup makes 32 columns of a row; its 8 simdgroups
// take every eighth cut. The order of sums depends on the row's position alone. The
// limit is latency.

constant constexpr int combine_simds = 8;

struct CombineArgs {
	ulong partial, pos, out;
	int heads, head_dim, window, max_cuts, ldout;
};

[[max_total_threads_per_threadgroup(256)]] kernel void combine(constant CombineArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint2 group [[threadgroup_position_in_grid]],
		uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
	threadgroup float sums[combine_simds][3][32]; // weighted values, maximum, weights
	int row = (int)group.y, head_dim = a.head_dim, width = a.heads * head_dim, stride = partial_stride(head_dim);
	int column = 32 * (int)group.x + (int)lane, within = min(column, width - 1), k = within % head_dim;
	int pos = at<int>(scratch, a.pos)[row], first = (a.window > 0 ? max(0, pos + 1 - a.window) : 0) / cut_rows, end = pos / cut_rows + 1;
	device const float *part = at<float>(scratch, a.partial) + (ulong)(row * a.heads + within / head_dim) * a.max_cuts * stride;
	float most = -INFINITY, sum = 0, value = 0;
	for (int cut = first + (int)simd; cut < end; cut += combine_simds)
		most = max(most, part[cut * stride + head_dim]);
	for (int cut = first + (int)simd; cut < end; cut += combine_simds) {
		float e = exp2(part[cut * stride + head_dim] - most);
		sum = fma(e, part[cut * stride + head_dim + 1], sum);
		value = fma(e, part[cut * stride + k], value);
	}
	sums[simd][0][lane] = value;
	sums[simd][1][lane] = most;
	sums[simd][2][lane] = sum;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	if (simd > 0 || column >= width)
		return;
	for (int i = 1; i < combine_simds; i++)
		most = max(most, sums[i][1][lane]);
	value = sum = 0;
	for (int i = 0; i < combine_simds; i++) {
		float e = exp2(sums[i][1][lane] - most); // 0 where the simdgroup had no cut
		value = fma(e, sums[i][0][lane], value);
		sum = fma(e, sums[i][2][lane], sum);
	}
	at<float>(scratch, a.out)[(ulong)row * a.ldout + column] = value / sum;
}
