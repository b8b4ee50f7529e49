// attention_K_V, for batches of up to 8 rows: attention split over the context
// (internal/ref's attend); combine adds what the parts give.
//
// A cut is 128 positions counted from position 0. A threadgroup is a cut, a
// key/value head (with up to HEADS of its query heads, which share every load) and
// a row. In: q (n, heads*head_dim) f32, the cache (cache.metal), page numbers (seq,
// max_pages). Out: partial (n, heads, max_cuts, partial_stride(head_dim)) f32: sums
// of weight*value (head_dim), the scores' maximum, in powers of two, and the sum of
// weights.
//
// The limit is bandwidth. A simdgroup holds 16 positions, 4 at a time in 8 lanes
// each, for scores; 32*8/head_dim positions for values, several loads of each lane
// in flight. What a cut gives depends on its row's position and the window alone:
// every sum is in a fixed order.

constant constexpr int attention_simds = 8;

struct AttentionArgs {
	ulong values; // where they begin in the layer's cache
	ulong q, pos, seq, pages, partial;
	int first_cut; // of the grid
	int ldq, heads, kv_heads, head_dim, window, max_pages, max_cuts;
	float scale; // log2(e)/sqrt(head_dim)
};

// Item is a threadgroup's cut of a row's key/value head.
struct Item {
	int row, cut, kv_head, head, heads; // head: the first of its query heads
	int first, end;                     // positions within the cut
	device const uchar *keys[2], *values[2];
};

// find_item says what a threadgroup is to do; end is 0 where that is nothing. Pages
// without a position to see are not looked up.
inline Item find_item(constant AttentionArgs &a, device uchar *scratch, device const uchar *cache, uint3 group) {
	Item m;
	int sharing = a.heads / a.kv_heads, parts = (sharing + HEADS - 1) / HEADS, part = (int)group.y % parts;
	m.row = (int)group.z;
	m.cut = a.first_cut + (int)group.x;
	m.kv_head = (int)group.y / parts;
	m.head = m.kv_head * sharing + part * HEADS;
	m.heads = min(HEADS, sharing - part * HEADS);
	int end = at<int>(scratch, a.pos)[m.row] + 1, first = a.window > 0 ? max(0, end - a.window) : 0;
	m.first = max(0, first - m.cut * cut_rows);
	m.end = min(cut_rows, end - m.cut * cut_rows);
	if (m.first >= m.end) {
		m.end = 0;
		return m;
	}
	device const int *pages = at<int>(scratch, a.pages) + (ulong)at<int>(scratch, a.seq)[m.row] * a.max_pages + m.cut * (cut_rows / page_rows);
	for (int i = 0; i < 2; i++) {
		int page = i * page_rows < m.end && (i + 1) * page_rows > m.first ? pages[i] : 0;
		m.keys[i] = cache + page_of<K>(page, a.kv_heads, m.kv_head, a.head_dim);
		m.values[i] = cache + a.values + page_of<V>(page, a.kv_heads, m.kv_head, a.head_dim);
	}
	return m;
}

#ifndef ODD

// scores writes weights[position][head], not yet exponentials. q is (HEADS, head_dim).
inline void scores(thread const Item &m, threadgroup const float *q, threadgroup float *weights, int head_dim, int simd, int lane) {
	int l = lane % 8, sub = lane / 8, pieces = head_dim / 8, base = 16 * simd;
	if (base >= m.end || base + 16 <= m.first)
		return;
	float s[HEADS][4];
	for (int h = 0; h < HEADS; h++)
		for (int u = 0; u < 4; u++)
			s[h][u] = 0;
	for (int piece = l; piece < pieces; piece += 8) {
		Piece<K> k[4];
		for (int u = 0; u < 4; u++) {
			int i = max(m.first, min(m.end - 1, base + 4 * u + sub));
			k[u].load(m.keys[i / page_rows], i % page_rows, 8 * piece, head_dim);
		}
		for (int h = 0; h < HEADS; h++) {
			threadgroup const float4 *x = (threadgroup const float4 *)(q + h * head_dim + 8 * piece);
			float4 low = x[0], high = x[1];
			for (int u = 0; u < 4; u++)
				s[h][u] += dot(k[u].low(), low) + dot(k[u].high(), high);
		}
	}
	for (int h = 0; h < HEADS; h++)
		for (int u = 0; u < 4; u++) {
			float v = s[h][u];
			v += simd_shuffle_xor(v, 1);
			v += simd_shuffle_xor(v, 2);
			v += simd_shuffle_xor(v, 4);
			if (l == h)
				weights[(base + 4 * u + sub) * HEADS + h] = v;
		}
}

// values adds up the simdgroup's positions: lanes below pieces hold 8 sums a head.
inline void values(thread const Item &m, threadgroup const float *weights, int head_dim, int simd, int lane, thread float4 *low, thread float4 *high) {
	constexpr int deep = 4; // loads of a lane in flight
	int pieces = head_dim / 8, together = 32 / pieces, sub = lane / pieces, piece = lane % pieces;
	for (int h = 0; h < HEADS; h++)
		low[h] = high[h] = float4(0.f);
	for (int base = simd * together * deep; base < m.end; base += attention_simds * together * deep) {
		if (base + together * deep <= m.first || sub >= together)
			continue;
		Piece<V> v[deep];
		for (int u = 0; u < deep; u++) {
			int i = max(m.first, min(m.end - 1, base + u * together + sub));
			v[u].load(m.values[i / page_rows], i % page_rows, 8 * piece, head_dim);
		}
		for (int u = 0; u < deep; u++) {
			float4 x = v[u].low(), y = v[u].high();
			int i = base + u * together + sub;
			for (int h = 0; h < HEADS; h++) {
				float w = i < cut_rows ? weights[i * HEADS + h] : 0.f;
				low[h] = fma(float4(w), x, low[h]);
				high[h] = fma(float4(w), y, high[h]);
			}
		}
	}
	simdgroup_barrier(mem_flags::mem_none);
	for (int n = together; n > 1; n = (n + 1) / 2) {
		int apart = (n + 1) / 2;
		ushort from = (ushort)((lane + apart * pieces) & 31);
		for (int h = 0; h < HEADS; h++) {
			float4 x = simd_shuffle(low[h], from), y = simd_shuffle(high[h], from);
			if (sub + apart < n) {
				low[h] += x;
				high[h] += y;
			}
		}
	}
}

// store adds the simdgroups' sums, 4..7 to 0..3, then these in order. sums is (4,
// HEADS, head_dim).
inline void store(thread const Item &m, threadgroup float *sums, device float *to, int head_dim, int stride, int t, thread const float4 *low, thread const float4 *high) {
	int simd = t / 32, lane = t % 32, size = HEADS * head_dim;
	for (int round = 0; round < 2; round++) {
		if (simd / 4 != round && lane < head_dim / 8)
			for (int h = 0; h < HEADS; h++) {
				threadgroup float4 *mine = (threadgroup float4 *)(sums + simd % 4 * size + h * head_dim + 8 * lane);
				mine[0] = round ? mine[0] + low[h] : low[h];
				mine[1] = round ? mine[1] + high[h] : high[h];
			}
		threadgroup_barrier(mem_flags::mem_threadgroup);
	}
	for (int i = t; i < m.heads * head_dim; i += 32 * attention_simds)
		to[i / head_dim * stride + i % head_dim] = sums[i] + sums[size + i] + sums[2 * size + i] + sums[3 * size + i];
}

#else

// For rows that are not whole pieces of 8, a value at a time; HEADS is 1.
inline void scores(thread const Item &m, threadgroup const float *q, threadgroup float *weights, int head_dim, int simd, int lane) {
	for (int i = m.first + simd; i < m.end; i += attention_simds) {
		float s = 0;
		for (int k = lane; k < head_dim; k += 32)
			s = fma(Piece<K>::one(m.keys[i / page_rows], i % page_rows, k, head_dim), q[k], s);
		s = simd_sum(s);
		if (lane == 0)
			weights[i] = s;
	}
}
inline void odd_values(thread const Item &m, threadgroup const float *weights, device float *to, int head_dim, int t) {
	for (int k = t; k < head_dim; k += 32 * attention_simds) {
		float s = 0;
		for (int i = m.first; i < m.end; i++)
			s = fma(Piece<V>::one(m.values[i / page_rows], i % page_rows, k, head_dim), weights[i], s);
		to[k] = s;
	}
}

#endif

// weigh makes powers of two of the scores, 0 where there is no position, and writes
// their maximum and sum.
inline void weigh(thread const Item &m, threadgroup float *weights, device float *to, int stride, int simd, int lane) {
	for (int h = simd; h < HEADS; h += attention_simds) {
		float s[cut_rows / 32], most = -INFINITY, sum = 0;
		for (int j = 0; j < cut_rows / 32; j++) {
			int i = 32 * j + lane;
			s[j] = i >= m.first && i < m.end ? weights[i * HEADS + h] : -INFINITY;
			most = max(most, s[j]);
		}
		most = simd_max(most);
		for (int j = 0; j < cut_rows / 32; j++) {
			float e = exp2(s[j] - most);
			weights[(32 * j + lane) * HEADS + h] = e;
			sum += e;
		}
		sum = simd_sum(sum);
		if (lane == 0 && h < m.heads) {
			to[h * stride] = most;
			to[h * stride + 1] = sum;
		}
	}
}

// shared_floats is weights (128, HEADS) and q (HEADS, head_dim), then over both sums
// (4, HEADS, head_dim), for heads of up to WIDTH.
constant constexpr int shared_floats = HEADS * (cut_rows + WIDTH > 4 * WIDTH ? cut_rows + WIDTH : 4 * WIDTH);

[[max_total_threads_per_threadgroup(256)]] kernel void NAME(attention)(constant AttentionArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], device const uchar *cache [[buffer(5)]],
		uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]]) {
	threadgroup float4 all[shared_floats / 4];
	Item m = find_item(a, scratch, cache, group);
	if (m.end == 0)
		return;
	int t = (int)thread_index, simd = t / 32, lane = t % 32, head_dim = a.head_dim, stride = partial_stride(head_dim);
	threadgroup float *shared = (threadgroup float *)all, *weights = shared, *q = shared + cut_rows * HEADS;
	device const float *from = at<float>(scratch, a.q) + (ulong)m.row * a.ldq + m.head * head_dim;
	for (int i = t; i < HEADS * head_dim; i += 32 * attention_simds)
		q[i] = i < m.heads * head_dim ? from[i] * a.scale : 0.f;
	threadgroup_barrier(mem_flags::mem_threadgroup);
	scores(m, q, weights, head_dim, simd, lane);
	threadgroup_barrier(mem_flags::mem_threadgroup);
	stride *= a.max_cuts; // from head to head
	device float *to = at<float>(scratch, a.partial) + (ulong)(m.row * a.heads + m.head) * stride + m.cut * partial_stride(head_dim);
	weigh(m, weights, to + head_dim, stride, simd, lane);
	threadgroup_barrier(mem_flags::mem_threadgroup);
#ifdef ODD
	odd_values(m, weights, to, head_dim, t);
#else
	float4 low[HEADS], high[HEADS];
	values(m, weights, head_dim, simd, lane, low, high);
	threadgroup_barrier(mem_flags::mem_threadgroup);
	store(m, shared, to, head_dim, stride, t, low, high);
#endif
}
