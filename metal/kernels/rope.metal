// rope_K_V: turns queries and keys by their positions (internal/ref's rope) and
// writes keys and values to the cache (internal/ref's write).
//
// In: q (n, heads*head_dim), k and v (n, kv_heads*head_dim) f32, tables cos and
// sin (context, dims/2) of the constants, made in float64. Out: q and k in place;
// the row's place in the cache, slot = page*64 + row of the page. A threadgroup is
// (kv head, row) with the query heads of its group. The limit is latency.

struct RopeArgs {
	ulong values; // where they begin in the layer's cache
	ulong q, k, v, pos, slot, cos, sin;
	int ldq, ldkv, heads, kv_heads, head_dim, dims, halves;
};

[[max_total_threads_per_threadgroup(128)]] kernel void NAME(rope)(constant RopeArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], device uchar *cache [[buffer(5)]], device const uchar *constants [[buffer(6)]],
		uint2 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]], uint2 size [[threads_per_threadgroup]]) {
	threadgroup float rows[2][256];
	int head = (int)group.x, t = (int)thread_index, threads = (int)size.x, pairs = a.dims / 2, head_dim = a.head_dim;
	int slot = at<int>(scratch, a.slot)[group.y], pos = at<int>(scratch, a.pos)[group.y];
	device const float *cos = (device const float *)(constants + a.cos) + (ulong)pos * pairs;
	device const float *sin = (device const float *)(constants + a.sin) + (ulong)pos * pairs;
	device float *k = at<float>(scratch, a.k) + (ulong)group.y * a.ldkv + head * head_dim;
	device const float *v = at<float>(scratch, a.v) + (ulong)group.y * a.ldkv + head * head_dim;
	for (int i = t; i < head_dim; i += threads) {
		rows[0][i] = k[i];
		rows[1][i] = v[i];
	}
	threadgroup_barrier(mem_flags::mem_threadgroup);
	int step = a.halves ? 1 : 2, apart = a.halves ? pairs : 1;
	for (int i = t; i < pairs; i += threads) {
		float x = rows[0][step * i], y = rows[0][step * i + apart];
		rows[0][step * i] = x * cos[i] - y * sin[i];
		rows[0][step * i + apart] = x * sin[i] + y * cos[i];
	}
	threadgroup_barrier(mem_flags::mem_threadgroup);
	for (int i = t; i < a.dims; i += threads)
		k[i] = rows[0][i];
	write_head<K>(cache + page_of<K>(slot / page_rows, a.kv_heads, head, head_dim), slot % page_rows, rows[0], head_dim, t, threads);
	write_head<V>(cache + a.values + page_of<V>(slot / page_rows, a.kv_heads, head, head_dim), slot % page_rows, rows[1], head_dim, t, threads);
	int sharing = a.heads / a.kv_heads;
	device float *q = at<float>(scratch, a.q) + (ulong)group.y * a.ldq + head * sharing * head_dim;
	for (int i = t; i < sharing * pairs; i += threads) {
		int j = i % pairs;
		device float *to = q + i / pairs * head_dim + step * j;
		float x = to[0], y = to[apart];
		to[0] = x * cos[j] - y * sin[j];
		to[apart] = x * sin[j] + y * cos[j];
	}
}
