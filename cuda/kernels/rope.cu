// rope_K_V: turns queries and keys by their positions (internal/ref's rope) and
// writes keys and values to the cache (internal/ref's write).
//
// In: q (n, heads*head_dim), k and v (n, kv_heads*head_dim) f32, tables cos and
// sin (Context, dims/2), made in float64. Out: q and k in place; the row's place
// in the cache, slot = page*64 + row of the page. A block is (row, kv head) with
// the query heads of its group, so that a decoded row has kv_heads blocks. A
// row of slot -1 is padding: nothing is touched. The limit is latency.
#include "cache.h"

struct Rope {
	float *q, *k;
	const float *v, *cos, *sin;
	const int *pos, *slot;
	void *keys, *values;
	int ldq, ldk, ldv, heads, kv_heads, head_dim, dims, halves;
};

// turn is pair i of one head.
DEVICE void turn(const Rope &p, float *x, const float *cos, const float *sin, int i) {
	int a = p.halves ? i : 2 * i, b = p.halves ? i + p.dims / 2 : 2 * i + 1;
	float xa = x[a], xb = x[b], c = cos[i], s = sin[i];
	x[a] = xa * c - xb * s;
	x[b] = xa * s + xb * c;
}

KERNEL __launch_bounds__(128) KV(rope_, )(const Rope p) {
	__shared__ float rows[2][256];
	launch_next();
	wait_previous();
	int row = block_y(), head = block_x(), slot = p.slot[row], pairs = p.dims / 2;
	if (slot < 0)
		return;
	const float *cos = p.cos + (uint64_t)p.pos[row] * pairs, *sin = p.sin + (uint64_t)p.pos[row] * pairs;
	int group = p.heads / p.kv_heads;
	float *q = p.q + (uint64_t)row * p.ldq + head * group * p.head_dim;
	float *k = p.k + (uint64_t)row * p.ldk + head * p.head_dim;
	const float *v = p.v + (uint64_t)row * p.ldv + head * p.head_dim;
	for (int i = thread(); i < p.head_dim; i += threads()) {
		rows[0][i] = k[i];
		rows[1][i] = v[i];
	}
	barrier();
	for (int i = thread(); i < pairs; i += threads())
		turn(p, rows[0], cos, sin, i);
	barrier();
	for (int i = thread(); i < p.dims; i += threads())
		k[i] = rows[0][i];
	uint8_t *to = (uint8_t *)page_of<K>(p.keys, slot / page_rows, p.kv_heads, head, p.head_dim);
	write_head<K>(to, slot % page_rows, rows[0], p.head_dim);
	to = (uint8_t *)page_of<V>(p.values, slot / page_rows, p.kv_heads, head, p.head_dim);
	write_head<V>(to, slot % page_rows, rows[1], p.head_dim);
	for (int i = thread(); i < group * pairs; i += threads())
		turn(p, q + i / pairs * p.head_dim, cos, sin, i % pairs);
}
