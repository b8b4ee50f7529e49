// top_parts and top_merge: of each row of logits the largest, in order, and the
// log of the sum of exponentials (internal/ref's top and logSum).
//
// In: logits (n, ldl) f32, of which vocab count. Out: ids and values (n, top),
// largest first, ties by lower id; log_sum (n). A part is 1024 logits: a block
// sorts its keys (the float's bits in the order of floats above the inverse of
// the id, so that no two are equal), keeps the first, and sums its exponentials.
// Then a warp finds each kept key's rank: its place in its part and, by binary
// search, how many of every other part's are greater. The limit is latency;
// for a few of 128k logits some 1024 loads deep, for all of them bandwidth of L2.
#include "outputs.h"

constexpr int part_logits = 1024;

struct Top {
	const float *logits;
	uint64_t *keys; // (n, parts, kept), kept = min(top, 1024)
	float *stats;   // (n, parts, 2): maximum, sum of exp(logit - maximum)
	int *ids;
	float *values, *log_sum;
	int vocab, ldl, top, parts, kept;
};

KERNEL __launch_bounds__(256) top_parts(const Top p) {
	__shared__ uint64_t keys[part_logits];
	__shared__ float part[32];
	launch_next();
	wait_previous();
	const float *x = p.logits + (uint64_t)block_y() * p.ldl;
	float v[part_logits / 256], most = minus_infinity, sum = 0;
#pragma unroll
	for (int i = 0; i < part_logits / 256; i++) {
		int at = 256 * i + thread(), id = block_x() * part_logits + at;
		v[i] = id < p.vocab ? x[id] : minus_infinity;
		keys[at] = id < p.vocab ? (uint64_t)ordered(v[i]) << 32 | ~(uint32_t)id : 0;
		most = max(most, v[i]);
	}
	most = block_max(most, part);
	float shift = most == minus_infinity ? 0.f : most;
#pragma unroll
	for (int i = 0; i < part_logits / 256; i++)
		sum += exp2_approx((v[i] - shift) * 1.44269504f);
	sum = block_sum(sum, part);
	uint64_t at = (uint64_t)block_y() * p.parts + block_x();
	if (thread() == 0)
		p.stats[2 * at] = most, p.stats[2 * at + 1] = sum;
	for (int size = 2; size <= part_logits; size *= 2)
		for (int stride = size / 2; stride > 0; stride /= 2) {
#pragma unroll
			for (int i = 0; i < part_logits / 512; i++) {
				int pair = 256 * i + thread(), a = 2 * pair - (pair & (stride - 1)), b = a + stride;
				uint64_t ka = keys[a], kb = keys[b];
				if ((ka < kb) == ((a & size) == 0))
					keys[a] = kb, keys[b] = ka;
			}
			barrier();
		}
	for (int i = thread(); i < p.kept; i += 256)
		p.keys[at * p.kept + i] = keys[i];
}

// greater is how many of n descending keys are greater.
DEVICE int greater(const uint64_t *keys, int n, uint64_t key) {
	int lo = 0, hi = n;
	while (lo < hi) {
		int middle = (lo + hi) / 2;
		if (keys[middle] > key)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

KERNEL __launch_bounds__(256) top_merge(const Top p) {
	launch_next();
	wait_previous();
	int row = block_y(), index = block_x() * 8 + warp();
	if (index == 0) {
		const float *stats = p.stats + (uint64_t)row * p.parts * 2;
		float most = minus_infinity, sum = 0;
		for (int i = lane(); i < p.parts; i += 32)
			most = max(most, stats[2 * i]);
		most = warp_max(most);
		for (int i = lane(); i < p.parts; i += 32)
			sum = fma(stats[2 * i + 1], exp2_approx((stats[2 * i] - most) * 1.44269504f), sum);
		sum = warp_sum(sum);
		if (lane() == 0)
			p.log_sum[row] = fma(log2_approx(sum), 0.693147181f, most);
	}
	if (index >= p.parts * p.kept)
		return;
	int part = index / p.kept, at = index % p.kept, rank = 0;
	const uint64_t *keys = p.keys + (uint64_t)row * p.parts * p.kept;
	uint64_t key = keys[index];
	for (int i = lane(); i < p.parts; i += 32)
		rank += i == part ? at : greater(keys + (uint64_t)i * p.kept, p.kept, key);
	rank = warp_sum(rank);
	if (lane() == 0 && key && rank < p.top) {
		uint32_t id = ~(uint32_t)key;
		p.ids[(uint64_t)row * p.top + rank] = id;
		p.values[(uint64_t)row * p.top + rank] = p.logits[(uint64_t)row * p.ldl + id];
	}
}
