// norm: rows divided by their root mean square, times a weight (internal/ref's
// norm).
//
// In: x (n, ldx) f32, weight (dim) of the constants. Out: (n, ldout) f32. A
// threadgroup a row; the sum of squares is made in an order that dim alone
// decides. The limit is latency in decode (one row: one trip to memory, two
// barriers) and bandwidth in prompts; a row's second reading comes from cache.

struct NormArgs {
	ulong x, out, weight;
	ulong rows; // where the rows' numbers lie: row i of out is row rows[i] of x; 0: row i
	int dim, ldx, ldout;
	float eps;
};

// norm_scale is what a row is multiplied by.
inline float norm_scale(device const float *x, int dim, float eps, threadgroup float *part, uint t, uint threads) {
	int whole = dim & ~3, step = 4 * (int)threads;
	float sum = 0;
	for (int k = 4 * (int)t; k < whole; k += step) {
		float4 v = *(device const float4 *)(x + k);
		sum = fma(v.x, v.x, fma(v.y, v.y, fma(v.z, v.z, fma(v.w, v.w, sum))));
	}
	if (whole + (int)t < dim)
		sum = fma(x[whole + t], x[whole + t], sum);
	sum = group_sum(sum, part, t / 32, t % 32, threads / 32);
	return 1 / sqrt(sum / (float)dim + eps);
}

// norm_row is one row, by all threads of a threadgroup; part has 32 floats.
inline void norm_row(device const float *x, device const float *w, device float *out, int dim, float eps, threadgroup float *part, uint t, uint threads) {
	int whole = dim & ~3, step = 4 * (int)threads;
	float scale = norm_scale(x, dim, eps, part, t, threads);
	for (int k = 4 * (int)t; k < whole; k += step)
		*(device float4 *)(out + k) = *(device const float4 *)(x + k) * scale * *(device const float4 *)(w + k);
	if (whole + (int)t < dim)
		out[whole + t] = x[whole + t] * scale * w[whole + t];
}

[[max_total_threads_per_threadgroup(512)]] kernel void norm(constant NormArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], device const uchar *constants [[buffer(6)]],
		uint row [[threadgroup_position_in_grid]], uint t [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
	threadgroup float part[32];
	uint from = a.rows ? at<uint>(scratch, a.rows)[row] : row;
	device const float *w = (device const float *)(constants + a.weight);
	norm_row(at<float>(scratch, a.x) + (ulong)from * a.ldx, w, at<float>(scratch, a.out) + (ulong)row * a.ldout, a.dim, a.eps, part, t, threads);
}
