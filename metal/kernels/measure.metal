// read, copy, matrix_rate and nothing: what a GPU's limits are (backend.Rates).
//
// read: `rounds` times as many vectors of 16 bytes as there are threads, side by
// side; a sum for each thread, so that nothing is left out. copy: the same vectors to
// where they are `apart` bytes further on. matrix_rate: products of 8x8 matrices of
// half, sums in float, that stay in registers: 8 a round, each 1024 operations.

struct MeasureArgs {
	ulong out, apart;
	uint rounds;
};

[[max_total_threads_per_threadgroup(256)]] kernel void read(constant MeasureArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint i [[thread_position_in_grid]], uint threads [[threads_per_grid]]) {
	device const uint4 *data = (device const uint4 *)scratch;
	uint4 sum = uint4(0);
	for (uint r = 0; r < a.rounds; r++)
		sum += data[(ulong)r * threads + i];
	at<uint>(scratch, a.out)[i] = sum.x + sum.y + sum.z + sum.w;
}

[[max_total_threads_per_threadgroup(256)]] kernel void copy(constant MeasureArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint i [[thread_position_in_grid]], uint threads [[threads_per_grid]]) {
	device const uint4 *from = (device const uint4 *)scratch;
	device uint4 *to = at<uint4>(scratch, a.apart);
	for (uint r = 0; r < a.rounds; r++)
		to[(ulong)r * threads + i] = from[(ulong)r * threads + i];
}

[[max_total_threads_per_threadgroup(256)]] kernel void matrix_rate(constant MeasureArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint i [[thread_position_in_grid]],
		uint simd [[simdgroup_index_in_threadgroup]], uint group [[threadgroup_position_in_grid]]) {
	simdgroup_matrix<half, 8, 8> x = make_filled_simdgroup_matrix<half, 8, 8>(0.5h), y = make_filled_simdgroup_matrix<half, 8, 8>(0.25h);
	simdgroup_matrix<float, 8, 8> sums[8];
	for (int j = 0; j < 8; j++)
		sums[j] = make_filled_simdgroup_matrix<float, 8, 8>((float)j);
	for (uint r = 0; r < a.rounds; r++)
		for (int j = 0; j < 8; j++)
			simdgroup_multiply_accumulate(sums[j], x, y, sums[j]);
	for (int j = 1; j < 8; j++)
		simdgroup_multiply_accumulate(sums[0], x, y, sums[j]);
	simdgroup_store(sums[0], at<float>(scratch, a.out) + 64 * (8 * group + simd), 8);
}

[[max_total_threads_per_threadgroup(256)]] kernel void nothing(constant MeasureArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint i [[thread_position_in_grid]]) {
	if (i == 0)
		at<uint>(scratch, a.out)[0] = a.rounds;
}
