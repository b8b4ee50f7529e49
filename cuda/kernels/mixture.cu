// route, list_experts and mix: the mixture of experts around its products
// (internal/ref's experts).
//
// route: logits (n, ldl) f32 -> of each row the used experts with the largest,
// ties by lower id, chosen (n, used), and the softmax over these, weights
// (n, used). list_experts: chosen -> the list that the products of the experts
// go by: {active experts, used, 0, 0}, expert[experts] (the active ones,
// ascending), first[experts+1] (an active expert's slots are order[first[i]] up to
// order[first[i+1]]), order[n*used] (slots = row*used + rank, ascending). A launch of
// route with one block makes the list too. mix: x[row] += sum over ranks, in
// order, of weight*y[slot].
//
// A warp chooses for a row, the logits in its registers; a warp lists an expert.
// Rows of slot -1 are padding: they choose nothing. The limit is latency.
#include "outputs.h"

constexpr int most_experts = 512, route_warps = 8;

struct Route {
	const float *logits;
	const int *slot;
	float *weights;
	int *chosen, *list;
	int n, experts, used, ldl;
};

DEVICE void choose(const Route &p, int row) {
	constexpr int each = most_experts / 32, none = 0x7fffffff;
	uint32_t keys[each];
#pragma unroll
	for (int i = 0; i < each; i++) {
		int e = 32 * i + lane();
		keys[i] = e < p.experts ? ordered(p.logits[(uint64_t)row * p.ldl + e]) : 0;
	}
	uint32_t taken = 0; // bit i: expert 32*i + lane
	float logit = minus_infinity, first = 0;
	for (int rank = 0; rank < p.used; rank++) {
		uint32_t key = 0;
		int id = none;
#pragma unroll
		for (int i = 0; i < each; i++)
			if (32 * i + lane() < p.experts && !(taken >> i & 1) && (keys[i] > key || id == none))
				key = keys[i], id = 32 * i + lane();
		for (int o = 16; o > 0; o /= 2) {
			uint32_t other = shuffle_xor(key, o);
			int its = shuffle_xor(id, o);
			if (other > key || (other == key && its < id))
				key = other, id = its;
		}
		if (id % 32 == lane())
			taken |= 1u << id / 32;
		float value = p.logits[(uint64_t)row * p.ldl + id];
		if (rank == 0)
			first = value;
		if (rank == lane()) {
			logit = value;
			p.chosen[row * p.used + rank] = id;
		}
	}
	float e = lane() < p.used ? exp2_approx((logit - first) * 1.44269504f) : 0.f;
	float sum = warp_sum(e);
	if (lane() < p.used)
		p.weights[row * p.used + lane()] = e / sum;
}

// build lists the experts of this block's warps.
DEVICE void build(const Route &p, int *counts) {
	int slots = p.n * p.used, warps = threads() / 32;
	int *expert = p.list + 4, *first = expert + p.experts, *order = first + p.experts + 1;
	for (int i = thread(); i < p.experts; i += threads())
		counts[i] = 0;
	barrier();
	for (int s = thread(); s < slots; s += threads())
		if (p.chosen[s] >= 0)
			shared_add(counts + p.chosen[s], 1);
	barrier();
	for (int e = block_x() * warps + warp(); e <= p.experts; e += blocks_x() * warps) {
		int before = 0, active = 0;
		for (int i = lane(); i < e; i += 32) {
			before += counts[i];
			active += counts[i] > 0;
		}
		before = warp_sum(before), active = warp_sum(active);
		if (e == p.experts) {
			if (lane() == 0)
				p.list[0] = active, p.list[1] = p.used, p.list[2] = 0, p.list[3] = 0, first[active] = before;
			return;
		}
		if (counts[e] == 0)
			continue;
		if (lane() == 0)
			expert[active] = e, first[active] = before;
		for (int base = 0; base < slots; base += 32) {
			int s = base + lane();
			bool mine = s < slots && p.chosen[s] == e;
			uint32_t mask = ballot(mine);
			if (mine)
				order[before + __builtin_popcount(mask & ((1u << lane()) - 1))] = s;
			before += __builtin_popcount(mask);
		}
	}
}

KERNEL __launch_bounds__(256) route(const Route p) {
	__shared__ int counts[most_experts];
	launch_next();
	wait_previous();
	int row = block_x() * route_warps + warp();
	if (row < p.n) {
		if (p.slot[row] >= 0)
			choose(p, row);
		else if (lane() < p.used)
			p.chosen[row * p.used + lane()] = -1;
	}
	if (blocks_x() > 1)
		return;
	barrier();
	build(p, counts);
}

KERNEL __launch_bounds__(256) list_experts(const Route p) {
	__shared__ int counts[most_experts];
	launch_next();
	wait_previous();
	build(p, counts);
}

struct Mix {
	float *x;
	const float *y, *weights;
	const int *slot;
	int used, dim, ldx, ldy;
};

KERNEL __launch_bounds__(256) mix(const Mix p) {
	launch_next();
	wait_previous();
	int row = block_y(), k = 4 * (256 * block_x() + thread());
	if (k >= p.dim || p.slot[row] < 0)
		return;
	float4 sum = {0, 0, 0, 0};
	for (int rank = 0; rank < p.used; rank++) {
		int slot = row * p.used + rank;
		float w = p.weights[slot];
		float4 y = load4(p.y + (uint64_t)slot * p.ldy, k, p.dim);
		sum = {fma(w, y.x, sum.x), fma(w, y.y, sum.y), fma(w, y.z, sum.z), fma(w, y.w, sum.w)};
	}
	float *x = p.x + (uint64_t)row * p.ldx;
	float4 old = load4(x, k, p.dim);
	store4(x, k, p.dim, {old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w});
}
