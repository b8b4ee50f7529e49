// attention_K_V_G, for batches of up to 8 rows: attention split over the
// context (internal/ref's attend); combine adds what the parts give.
//
// A cut is 256 positions counted from position 0. An item is a row, a key/value
// head (up to G of its query heads, which share every load) and a cut; blocks
// loop over the items that the rows' positions and the window make, so that a
// launch is the same whatever the lengths. In: q (n, heads*head_dim) f32, the
// cache (cache.h), page numbers (seq, max_pages). Out: partial (n, heads,
// max_cuts, partial_stride(head_dim)) f32: sums of weight*value (head_dim), the
// scores' maximum, in powers of two, and the sum of weights.
//
// The limit is bandwidth. A warp holds 4 positions in 8 lanes each for scores,
// 32*8/head_dim positions for values, 4 or more loads of each lane in flight.
// Weights of a cut stay in shared memory. What a cut gives depends on its row's
// position and the window alone: every sum is in a fixed order.
#include "cache.h"

constexpr int attention_warps = 8, decode_rows = 8;

struct Attention {
	const float *q;
	const void *keys, *values;
	const int *pos, *slot, *seq, *pages; // of each row; slot < 0: padding
	float *partial;
	int ldq, n, heads, kv_heads, head_dim, window, max_pages, max_cuts;
	float scale; // log2(e)/sqrt(head_dim)
};

// Item is one cut of a row's key/value head.
struct Item {
	int row, cut, kv_head, head, heads; // head: the first of its query heads
	int first, end;                     // positions within the cut
};

// Rows is what the rows' positions say, in shared memory.
struct Rows {
	int first[decode_rows], end[decode_rows]; // positions a row sees
	int items[decode_rows + 1];               // items before the row's
};

DEVICE void count_items(const Attention &p, Rows &rows, int parts) {
	int r = thread();
	if (r < p.n) {
		int end = p.slot[r] < 0 ? 0 : p.pos[r] + 1;
		rows.end[r] = end;
		rows.first[r] = p.window > 0 ? max(0, end - p.window) : 0;
	}
	barrier();
	if (r == 0) {
		int sum = 0;
		for (int i = 0; i < p.n; i++) {
			rows.items[i] = sum;
			if (rows.end[i] > 0)
				sum += ((rows.end[i] - 1) / cut_rows - rows.first[i] / cut_rows + 1) * p.kv_heads * parts;
		}
		rows.items[p.n] = sum;
	}
	barrier();
}

DEVICE Item item_of(const Attention &p, const Rows &rows, int index, int parts, int most) {
	Item m;
	m.row = 0;
	while (index >= rows.items[m.row + 1])
		m.row++;
	index -= rows.items[m.row];
	int part = index % parts, group = p.heads / p.kv_heads;
	m.kv_head = index / parts % p.kv_heads;
	m.cut = rows.first[m.row] / cut_rows + index / parts / p.kv_heads;
	m.head = m.kv_head * group + part * most;
	m.heads = min(most, group - part * most);
	m.first = max(0, rows.first[m.row] - m.cut * cut_rows);
	m.end = min(cut_rows, rows.end[m.row] - m.cut * cut_rows);
	return m;
}

// Cut is a block's shared memory; after the values weights and q are done with,
// and sums lie over them.
struct Cut {
	const uint8_t *keys[cut_rows / page_rows], *values[cut_rows / page_rows];
	float most[8], sum[8];
};

// open_pages finds the pages; those without a position to see are not looked up.
DEVICE void open_pages(const Attention &p, const Item &m, Cut &c) {
	int i = thread();
	if (i < cut_rows / page_rows && i * page_rows < m.end && (i + 1) * page_rows > m.first) {
		int page = p.pages[(uint64_t)p.seq[m.row] * p.max_pages + m.cut * (cut_rows / page_rows) + i];
		c.keys[i] = page_of<K>(p.keys, page, p.kv_heads, m.kv_head, p.head_dim);
		c.values[i] = page_of<V>(p.values, page, p.kv_heads, m.kv_head, p.head_dim);
	}
}

// scores writes weights[position][head], not yet exponentials. q is (G, width).
template <int G> DEVICE void scores(const Item &m, const Cut &c, const float *q, float *weights, int head_dim, int width) {
	constexpr int deep = K == F32 ? 1 : 2; // pieces of a position in a lane's hands
	int l = lane() % 8, sub = lane() / 8, pieces = head_dim / 8;
	for (int base = 16 * warp(); base < m.end; base += 16 * attention_warps) {
		if (base + 16 <= m.first)
			continue;
		float s[G][4] = {};
		for (int from = l; from - l < pieces; from += 8 * deep) {
			Piece<K> k[deep][4];
#pragma unroll
			for (int d = 0; d < deep; d++)
#pragma unroll
				for (int u = 0; u < 4; u++) {
					int i = max(m.first, min(m.end - 1, base + 4 * u + sub));
					if (from + 8 * d < pieces)
						k[d][u].load(c.keys[i / page_rows], i % page_rows, 8 * (from + 8 * d), head_dim);
					else
						k[d][u].clear();
				}
#pragma unroll
			for (int d = 0; d < deep; d++) {
				if (from - l + 8 * d >= pieces)
					break;
				float v[4][8];
#pragma unroll
				for (int u = 0; u < 4; u++)
					k[d][u].values(v[u]);
#pragma unroll
				for (int h = 0; h < G; h++) {
					const float4 *x = (const float4 *)(q + h * width + 8 * (from + 8 * d));
					float4 a = x[0], b = x[1];
#pragma unroll
					for (int u = 0; u < 4; u++) {
						float t = fma(v[u][3], a.w, fma(v[u][2], a.z, fma(v[u][1], a.y, fma(v[u][0], a.x, s[h][u]))));
						s[h][u] = fma(v[u][7], b.w, fma(v[u][6], b.z, fma(v[u][5], b.y, fma(v[u][4], b.x, t))));
					}
				}
			}
		}
#pragma unroll
		for (int h = 0; h < G; h++)
#pragma unroll
			for (int u = 0; u < 4; u++) {
				float t = s[h][u];
				t += shuffle_xor(t, 1);
				t += shuffle_xor(t, 2);
				t += shuffle_xor(t, 4);
				if (l == h)
					weights[(base + 4 * u + sub) * G + h] = t;
			}
	}
}

// softmax makes powers of two of the scores; 0 where there is no position.
template <int G> DEVICE void softmax(const Item &m, Cut &c, float *weights) {
	for (int h = warp(); h < G; h += attention_warps) {
		float s[cut_rows / 32], most = minus_infinity, sum = 0;
#pragma unroll
		for (int j = 0; j < cut_rows / 32; j++) {
			int i = 32 * j + lane();
			s[j] = i >= m.first && i < m.end ? weights[i * G + h] : minus_infinity;
			most = max(most, s[j]);
		}
		most = warp_max(most);
#pragma unroll
		for (int j = 0; j < cut_rows / 32; j++) {
			float e = exp2_approx(s[j] - most);
			weights[(32 * j + lane()) * G + h] = e;
			sum += e;
		}
		sum = warp_sum(sum);
		if (lane() == 0)
			c.most[h] = most, c.sum[h] = sum;
	}
}

// values leaves the sums of a warp's positions in lanes below pieces: acc[head][8 values].
template <int G> DEVICE void values(const Item &m, const Cut &c, const float *weights, int head_dim, float acc[G][8]) {
	constexpr int deep = V == F32 ? 4 : 8;
	int pieces = head_dim / 8, together = 32 / pieces, sub = lane() / pieces, piece = lane() % pieces;
	for (int base = warp() * together * deep; base < m.end && sub < together; base += attention_warps * together * deep) {
		if (base + together * deep <= m.first)
			continue;
		Piece<V> v[deep];
#pragma unroll
		for (int u = 0; u < deep; u++) {
			int i = max(m.first, min(m.end - 1, base + u * together + sub));
			v[u].load(c.values[i / page_rows], i % page_rows, 8 * piece, head_dim);
		}
#pragma unroll
		for (int u = 0; u < deep; u++) {
			float x[8];
			v[u].values(x);
			int i = base + u * together + sub;
#pragma unroll
			for (int h = 0; h < G; h++) {
				float w = i < cut_rows ? weights[i * G + h] : 0.f;
#pragma unroll
				for (int j = 0; j < 8; j++)
					acc[h][j] = fma(w, x[j], acc[h][j]);
			}
		}
	}
	warp_barrier();
	for (int s = 1; s < together; s++)
#pragma unroll
		for (int h = 0; h < G; h++)
#pragma unroll
			for (int j = 0; j < 8; j++) {
				float other = shuffle(acc[h][j], lane() + s * pieces & 31);
				if (sub == 0)
					acc[h][j] += other;
			}
}

// store adds the warps' sums, 4..7 to 0..3, then these in order.
template <int G> DEVICE void store(const Attention &p, const Item &m, const Cut &c, float acc[G][8], float *sums) {
	int pieces = p.head_dim / 8, size = G * p.head_dim;
	float *mine = sums + warp() % 4 * size + 8 * lane();
	for (int round = 0; round < 2; round++) {
		if (warp() / 4 != round && lane() < pieces)
#pragma unroll
			for (int h = 0; h < G; h++) {
				float4 *to = (float4 *)(mine + h * p.head_dim);
				float4 a = {acc[h][0], acc[h][1], acc[h][2], acc[h][3]}, b = {acc[h][4], acc[h][5], acc[h][6], acc[h][7]};
				if (round == 1) {
					float4 x = to[0], y = to[1];
					a = {a.x + x.x, a.y + x.y, a.z + x.z, a.w + x.w}, b = {b.x + y.x, b.y + y.y, b.z + y.z, b.w + y.w};
				}
				to[0] = a, to[1] = b;
			}
		barrier();
	}
	int stride = partial_stride(p.head_dim);
	for (int i = thread(); i < m.heads * p.head_dim; i += threads()) {
		int h = i / p.head_dim, k = i % p.head_dim;
		float *to = p.partial + ((uint64_t)(m.row * p.heads + m.head + h) * p.max_cuts + m.cut) * stride;
		to[k] = sums[i] + sums[size + i] + sums[2 * size + i] + sums[3 * size + i];
		if (k == 0)
			to[p.head_dim] = c.most[h], to[p.head_dim + 1] = c.sum[h];
	}
}

// The same for rows that are not whole pieces of 8: a value at a time, slowly.
DEVICE void odd_scores(const Item &m, const Cut &c, const float *q, float *weights, int head_dim) {
	for (int i = m.first + warp(); i < m.end; i += attention_warps) {
		float s = 0;
		for (int k = lane(); k < head_dim; k += 32)
			s = fma(Piece<K>::one(c.keys[i / page_rows], i % page_rows, k, head_dim), q[k], s);
		s = warp_sum(s);
		if (lane() == 0)
			weights[i] = s;
	}
}
DEVICE void odd_values(const Attention &p, const Item &m, const Cut &c, const float *weights) {
	float *to = p.partial + ((uint64_t)(m.row * p.heads + m.head) * p.max_cuts + m.cut) * partial_stride(p.head_dim);
	for (int k = thread(); k < p.head_dim; k += threads()) {
		float s = 0;
		for (int i = m.first; i < m.end; i++)
			s = fma(Piece<V>::one(c.values[i / page_rows], i % page_rows, k, p.head_dim), weights[i], s);
		to[k] = s;
	}
	if (thread() == 0)
		to[p.head_dim] = c.most[0], to[p.head_dim + 1] = c.sum[0];
}

// attend is a block's share of the items. Shared memory: weights (256, G) and q
// (G, width), then over both sums (4, G, head_dim).
template <int G, bool odd = false> DEVICE void attend(const Attention &p, float *weights) {
	__shared__ Rows rows;
	__shared__ Cut c;
	launch_next();
	wait_previous();
	int group = p.heads / p.kv_heads, parts = (group + G - 1) / G, width = (p.head_dim + 127) & ~127;
	float *q = weights + cut_rows * G;
	count_items(p, rows, parts);
	for (int index = block_x(); index < rows.items[p.n]; index += blocks_x()) {
		Item m = item_of(p, rows, index, parts, G);
		open_pages(p, m, c);
		for (int i = thread(); i < G * width; i += threads()) {
			int h = i / width, k = i % width;
			q[i] = h < m.heads && k < p.head_dim ? p.q[(uint64_t)m.row * p.ldq + (m.head + h) * p.head_dim + k] * p.scale : 0.f;
		}
		barrier();
		if (odd)
			odd_scores(m, c, q, weights, p.head_dim);
		else
			scores<G>(m, c, q, weights, p.head_dim, width);
		barrier();
		softmax<G>(m, c, weights);
		barrier();
		if (odd) {
			odd_values(p, m, c, weights);
			barrier();
			continue;
		}
		float acc[G][8] = {};
		values<G>(m, c, weights, p.head_dim, acc);
		barrier();
		store<G>(p, m, c, acc, weights);
		barrier();
	}
}

KERNEL __launch_bounds__(256, 2) KV(attention_, _1)(const Attention p) {
	DYNAMIC_SHARED(shared);
	attend<1>(p, (float *)shared);
}
KERNEL __launch_bounds__(256, 2) KV(attention_, _2)(const Attention p) {
	DYNAMIC_SHARED(shared);
	attend<2>(p, (float *)shared);
}
KERNEL __launch_bounds__(256, 2) KV(attention_, _4)(const Attention p) {
	DYNAMIC_SHARED(shared);
	attend<4>(p, (float *)shared);
}
KERNEL __launch_bounds__(256, 1) KV(attention_, _8)(const Attention p) {
	DYNAMIC_SHARED(shared);
	attend<8>(p, (float *)shared);
}
KERNEL __launch_bounds__(256, 2) KV(attention_, _odd)(const Attention p) {
	DYNAMIC_SHARED(shared);
	attend<1, true>(p, (float *)shared);
}
