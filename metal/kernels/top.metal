// top_parts and top_merge: of each row of logits the largest, in order, and the
// log of the sum of exponentials (internal/ref's top and logSum).
//
// In: logits (n, ldl) f32, of which vocab count. Out: ids and values (n, top),
// largest first, ties by lower id; log_sum (n). A part is 1024 logits: a
// threadgroup sorts its keys (the float's bits in the order of floats above the
// inverse of the id, so that no two are equal), keeps the first, and sums its
// exponentials. Then a simdgroup finds each kept key's rank: its place in its part
// and, by binary search, how many of every other part's are greater. The limit is
// latency.

constant constexpr int part_logits = 1024, top_threads = 256;

struct TopArgs {
	ulong logits, keys; // keys (n, parts, kept), kept = min(top, 1024)
	ulong stats;        // (n, parts, 2): maximum, sum of exp(logit - maximum)
	ulong ids, values, log_sum;
	int vocab, ldl, top, parts, kept;
};

[[max_total_threads_per_threadgroup(256)]] kernel void top_parts(constant TopArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint2 group [[threadgroup_position_in_grid]],
		uint t [[thread_index_in_threadgroup]], uint simd [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
	constexpr int each = part_logits / top_threads;
	threadgroup ulong keys[part_logits];
	threadgroup float part[32];
	device const float *x = at<float>(scratch, a.logits) + (ulong)group.y * a.ldl;
	float v[each], most = -INFINITY, sum = 0;
	for (int i = 0; i < each; i++) {
		int place = top_threads * i + (int)t, id = (int)group.x * part_logits + place;
		v[i] = id < a.vocab ? x[id] : -INFINITY;
		keys[place] = id < a.vocab ? (ulong)ordered(v[i]) << 32 | ~(uint)id : 0;
		most = max(most, v[i]);
	}
	most = group_max(most, part, simd, lane, top_threads / 32);
	float shift = most == -INFINITY ? 0.f : most;
	for (int i = 0; i < each; i++)
		sum += exp(v[i] - shift);
	sum = group_sum(sum, part, simd, lane, top_threads / 32);
	ulong where = (ulong)group.y * a.parts + group.x;
	if (t == 0) {
		at<float>(scratch, a.stats)[2 * where] = most;
		at<float>(scratch, a.stats)[2 * where + 1] = sum;
	}
	// bitonic, descending
	for (int size = 2; size <= part_logits; size *= 2)
		for (int stride = size / 2; stride > 0; stride /= 2) {
			for (int i = 0; i < each / 2; i++) {
				int pair = top_threads * i + (int)t, low = 2 * pair - (pair & (stride - 1)), high = low + stride;
				ulong first = keys[low], second = keys[high];
				if ((first < second) == ((low & size) == 0)) {
					keys[low] = second;
					keys[high] = first;
				}
			}
			threadgroup_barrier(mem_flags::mem_threadgroup);
		}
	for (int i = (int)t; i < a.kept; i += top_threads)
		at<ulong>(scratch, a.keys)[where * a.kept + i] = keys[i];
}

// greater is how many of n descending keys are greater.
inline int greater(device const ulong *keys, int n, ulong key) {
	int low = 0, high = n;
	while (low < high) {
		int middle = (low + high) / 2;
		if (keys[middle] > key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

[[max_total_threads_per_threadgroup(256)]] kernel void top_merge(constant TopArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint2 group [[threadgroup_position_in_grid]],
		uint simd [[simdgroup_index_in_threadgroup]], uint lane_index [[thread_index_in_simdgroup]]) {
	int row = (int)group.y, index = (int)group.x * (top_threads / 32) + (int)simd, lane = (int)lane_index;
	if (index == 0) {
		device const float *stats = at<float>(scratch, a.stats) + (ulong)row * a.parts * 2;
		float most = -INFINITY, sum = 0;
		for (int i = lane; i < a.parts; i += 32)
			most = max(most, stats[2 * i]);
		most = simd_max(most);
		for (int i = lane; i < a.parts; i += 32)
			sum = fma(stats[2 * i + 1], exp(stats[2 * i] - most), sum);
		sum = simd_sum(sum);
		if (lane == 0)
			at<float>(scratch, a.log_sum)[row] = most + log(sum);
	}
	if (index >= a.parts * a.kept)
		return;
	int part = index / a.kept, place = index % a.kept, rank = 0;
	device const ulong *keys = at<ulong>(scratch, a.keys) + (ulong)row * a.parts * a.kept;
	ulong key = keys[index];
	for (int i = lane; i < a.parts; i += 32)
		rank += i == part ? place : greater(keys + (ulong)i * a.kept, a.kept, key);
	rank = simd_sum(rank);
	if (lane == 0 && key != 0 && rank < a.top) {
		uint id = ~(uint)key;
		at<uint>(scratch, a.ids)[(ulong)row * a.top + rank] = id;
		at<float>(scratch, a.values)[(ulong)row * a.top + rank] = at<float>(scratch, a.logits)[(ulong)row * a.ldl + id];
	}
}
