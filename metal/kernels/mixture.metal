// router, route, list_experts, mix_experts and mix_norm: the mixture of experts around
// its products (internal/ref's experts).
//
// router, for few rows: x -> rows normalised, as norm does it, and their product with
// the router, f32 (experts, dim) at buffer(1), logits (n, ldl). route: logits (n, ldl) f32 -> of each row the used experts with the largest,
// ties by lower id, chosen (n, used), and the softmax over these, weights
// (n, used). list_experts: chosen -> the list that the products of the experts
// go by: {active experts, used, 0, 0}, expert[experts] (the active ones,
// ascending), first[experts+1] (an active expert's slots are order[first[i]] up to
// order[first[i+1]]), order[n*used] (slots = row*used + rank, ascending). A dispatch
// of route with one threadgroup makes the list too. mix_experts: x[row] += sum over ranks,
// in order, of weight*y[slot]. mix_norm, for few rows: the same, and then what norm does
// for the block that follows.
//
// A simdgroup chooses for a row, the logits in its registers; a simdgroup lists an
// expert. The limit is latency.

constant constexpr int most_experts = 512, route_simds = 8;

struct RouterArgs {
	ulong x, out, weight, logits; // weight: of the norm, among the constants
	int dim, ldx, ldout, experts, ldl;
	float eps;
};

// A threadgroup has a row and 16 experts, one a simdgroup at a time.
[[max_total_threads_per_threadgroup(512)]] kernel void router(constant RouterArgs &a [[buffer(0)]], device const uchar *weights [[buffer(1)]],
		device uchar *scratch [[buffer(4)]], device const uchar *constants [[buffer(6)]], uint2 group [[threadgroup_position_in_grid]],
		uint t [[thread_index_in_threadgroup]], uint2 size [[threads_per_threadgroup]]) {
	threadgroup float part[32];
	int dim = a.dim, whole = dim & ~3, lane = (int)t % 32, simds = (int)size.x / 32;
	device const float *x = at<float>(scratch, a.x) + (ulong)group.y * a.ldx;
	device const float *w = (device const float *)(constants + a.weight);
	if (group.x == 0)
		norm_row(x, w, at<float>(scratch, a.out) + (ulong)group.y * a.ldout, dim, a.eps, part, t, size.x);
	float scale = norm_scale(x, dim, a.eps, part, t, size.x);
	for (int e = 16 * (int)group.x + (int)t / 32; e < min(a.experts, 16 * (int)group.x + 16); e += simds) {
		device const float *row = (device const float *)weights + (ulong)e * dim;
		float sum = 0;
		for (int k = 4 * lane; k < whole; k += 128) {
			float4 v = *(device const float4 *)(x + k) * scale * *(device const float4 *)(w + k);
			sum = fma(v.x, row[k], fma(v.y, row[k + 1], fma(v.z, row[k + 2], fma(v.w, row[k + 3], sum))));
		}
		if (whole + lane < dim)
			sum = fma(x[whole + lane] * scale * w[whole + lane], row[whole + lane], sum);
		sum = simd_sum(sum);
		if (lane == 0)
			at<float>(scratch, a.logits)[(ulong)group.y * a.ldl + e] = sum;
	}
}

struct RouteArgs {
	ulong logits, weights, chosen, list;
	int n, experts, used, ldl;
};

inline void choose(constant RouteArgs &a, device uchar *scratch, int row, int lane) {
	constexpr int each = most_experts / 32, none = 0x7fffffff;
	device const float *logits = at<float>(scratch, a.logits) + (ulong)row * a.ldl;
	uint keys[each];
	for (int i = 0; i < each; i++)
		keys[i] = 32 * i + lane < a.experts ? ordered(logits[32 * i + lane]) : 0;
	uint taken = 0; // bit i: expert 32*i + lane
	float logit = -INFINITY, first = 0;
	for (int rank = 0; rank < a.used; rank++) {
		uint key = 0;
		int id = none;
		for (int i = 0; i < each; i++)
			if (32 * i + lane < a.experts && !(taken >> i & 1) && (keys[i] > key || id == none)) {
				key = keys[i];
				id = 32 * i + lane;
			}
		uint best = simd_max(id == none ? 0 : key);
		id = simd_min(key == best ? id : none);
		if (id % 32 == lane)
			taken |= 1u << id / 32;
		float value = logits[id];
		if (rank == 0)
			first = value;
		if (rank == lane) {
			logit = value;
			at<int>(scratch, a.chosen)[row * a.used + rank] = id;
		}
	}
	float e = lane < a.used ? exp(logit - first) : 0.f;
	float sum = simd_sum(e);
	if (lane < a.used)
		at<float>(scratch, a.weights)[row * a.used + lane] = e / sum;
}

// build lists the experts of this threadgroup's simdgroups.
inline void build(constant RouteArgs &a, device uchar *scratch, threadgroup atomic_uint *counts, int group, int groups, int t, int threads) {
	int slots = a.n * a.used, simds = threads / 32, lane = t % 32;
	device const int *chosen = at<int>(scratch, a.chosen);
	device int *list = at<int>(scratch, a.list);
	device int *expert = list + 4, *first = expert + a.experts, *order = first + a.experts + 1;
	for (int i = t; i < a.experts; i += threads)
		atomic_store_explicit(counts + i, 0, memory_order_relaxed);
	threadgroup_barrier(mem_flags::mem_threadgroup);
	for (int s = t; s < slots; s += threads)
		atomic_fetch_add_explicit(counts + chosen[s], 1, memory_order_relaxed);
	threadgroup_barrier(mem_flags::mem_threadgroup);
	for (int e = group * simds + t / 32; e <= a.experts; e += groups * simds) {
		int before = 0, active = 0;
		for (int i = lane; i < e; i += 32) {
			int n = (int)atomic_load_explicit(counts + i, memory_order_relaxed);
			before += n;
			active += n > 0;
		}
		before = simd_sum(before);
		active = simd_sum(active);
		if (e == a.experts) {
			if (lane == 0) {
				list[0] = active;
				list[1] = a.used;
				list[2] = 0;
				list[3] = 0;
				first[active] = before;
			}
			continue;
		}
		if (atomic_load_explicit(counts + e, memory_order_relaxed) == 0)
			continue;
		if (lane == 0) {
			expert[active] = e;
			first[active] = before;
		}
		for (int base = 0; base < slots; base += 32) {
			int s = base + lane;
			bool mine = s < slots && chosen[s] == e;
			int place = simd_prefix_exclusive_sum(mine ? 1 : 0);
			if (mine)
				order[before + place] = s;
			before += simd_sum(mine ? 1 : 0);
		}
	}
}

[[max_total_threads_per_threadgroup(256)]] kernel void route(constant RouteArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint group [[threadgroup_position_in_grid]],
		uint groups [[threadgroups_per_grid]], uint t [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
	threadgroup atomic_uint counts[most_experts];
	int row = (int)group * route_simds + (int)t / 32;
	if (row < a.n)
		choose(a, scratch, row, (int)t % 32);
	if (groups > 1)
		return;
	threadgroup_barrier(mem_flags::mem_device);
	build(a, scratch, counts, 0, 1, (int)t, (int)threads);
}

[[max_total_threads_per_threadgroup(256)]] kernel void list_experts(constant RouteArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint group [[threadgroup_position_in_grid]],
		uint groups [[threadgroups_per_grid]], uint t [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
	threadgroup atomic_uint counts[most_experts];
	build(a, scratch, counts, (int)group, (int)groups, (int)t, (int)threads);
}

struct MixArgs {
	ulong x, y, weights;
	ulong out, weight; // of mix_norm
	int used, dim, ldx, ldy, ldout;
	float eps;
};

// mixed is column k of a row.
inline float mixed(constant MixArgs &a, device uchar *scratch, int row, int k) {
	float sum = 0;
	for (int rank = 0; rank < a.used; rank++) {
		int slot = row * a.used + rank;
		sum = fma(at<float>(scratch, a.weights)[slot], at<float>(scratch, a.y)[(ulong)slot * a.ldy + k], sum);
	}
	return sum;
}

[[max_total_threads_per_threadgroup(256)]] kernel void mix_experts(constant MixArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint2 i [[thread_position_in_grid]]) {
	if ((int)i.x < a.dim)
		at<float>(scratch, a.x)[(ulong)i.y * a.ldx + i.x] += mixed(a, scratch, (int)i.y, (int)i.x);
}

[[max_total_threads_per_threadgroup(512)]] kernel void mix_norm(constant MixArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], device const uchar *constants [[buffer(6)]],
		uint row [[threadgroup_position_in_grid]], uint t [[thread_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]) {
	threadgroup float part[32];
	device float *x = at<float>(scratch, a.x) + (ulong)row * a.ldx;
	for (int k = (int)t; k < a.dim; k += (int)threads)
		x[k] += mixed(a, scratch, (int)row, k);
	threadgroup_barrier(mem_flags::mem_device);
	norm_row(x, (device const float *)(constants + a.weight), at<float>(scratch, a.out) + (ulong)row * a.ldout, a.dim, a.eps, part, t, threads);
}
