// prompt_attention_K_V, for batches of more than 8 rows: attention of many rows of
// a sequence over its pages (internal/ref's attend).
//
// In: q (n, ldq) f32 after RoPE, the cache (cache.metal), page numbers (seq,
// max_pages), tiles of rows. Out: (n, ldout) f32, heads*head_dim of a row. A
// threadgroup takes a tile, neighbouring rows of one sequence, with `share` query
// heads of a key/value head: its 32 lines, (row, head), heads first, 8 a simdgroup.
// All of them read the same keys and values, 32 positions at a time (16 for heads
// above 128), which lie in threadgroup memory meanwhile, in half, or in float where
// the cache is f32.
//
// The limit is the rate of simdgroup matrices. q and the sums stay in registers, as
// 8x8 matrices; scores go through threadgroup memory, since nobody may know which
// lane has which element, and sums are made smaller, where a larger score came, by
// the product with a diagonal matrix: exact where the factor is 1, so that it may
// be left out where all are.
//
// A line's result depends on its own position and window alone: steps are counted
// from position 0, and a step in which it sees nothing changes none of its bits
// (weights 0, factor 1), so it does not matter which lines share a tile.

constant constexpr int lines = 32, prompt_threads = 128, step_rows = WIDTH > 128 ? 16 : 32; // WIDTH: head_dim, rounded up to 32

template <Format f> struct Element { typedef half type; };
template <> struct Element<F32> { typedef float type; };
typedef Element<K>::type Key;
typedef Element<V>::type Value;

// stride_of is the elements from row to row in threadgroup memory: 16 bytes more
// than it holds, so that 8 rows lie in different banks.
template <class T> constexpr int stride_of(int n) { return n + 16 / (int)sizeof(T); }

constant constexpr int key_stride = stride_of<Key>(WIDTH), value_stride = stride_of<Value>(WIDTH), score_stride = step_rows + 4,
		weight_stride = stride_of<Value>(step_rows), chunk = 32, query_stride = stride_of<Key>(chunk), out_stride = chunk + 4;

// matrices must stay in registers, which have no addresses
#define UNROLLED _Pragma("clang loop unroll(full)")

constexpr int larger(int a, int b) { return a > b ? a : b; }

// bytes of the tile, which holds keys, then values; before that queries and behind
// it results, a chunk of columns at a time
constant constexpr int key_bytes = step_rows * key_stride * (int)sizeof(Key), value_bytes = step_rows * value_stride * (int)sizeof(Value),
		query_bytes = lines * query_stride * (int)sizeof(Key), out_bytes = lines * out_stride * 4;
constant constexpr int tile_bytes = larger(larger(key_bytes, value_bytes), larger(query_bytes, out_bytes));

struct PromptAttentionArgs {
	ulong values; // where they begin in the layer's cache
	ulong q, pos, seq, pages, tiles, out; // tiles: (first row, rows)
	int ldq, ldout, heads, kv_heads, head_dim, window, max_pages, share;
	float scale; // log2(e)/sqrt(head_dim)
};

// fetch makes rows from.. of a page a tile; rows outside first..last are as those.
template <Format f, class T> inline void fetch(threadgroup T *tile, device const uchar *page, int from, int first, int last, int head_dim, int t) {
	for (int i = t; i < step_rows * (WIDTH / 8); i += prompt_threads) {
		int row = i / (WIDTH / 8), k = i % (WIDTH / 8) * 8;
		float4 low = float4(0.f), high = float4(0.f);
		if (k < head_dim) {
			Piece<f> piece;
			piece.load(page, max(first, min(last, from + row)), k, head_dim);
			low = piece.low();
			high = piece.high();
		}
		threadgroup vec<T, 4> *to = (threadgroup vec<T, 4> *)(tile + row * stride_of<T>(WIDTH) + k);
		to[0] = vec<T, 4>(low);
		to[1] = vec<T, 4>(high);
	}
}

// Line is what a lane keeps of its line, a quarter of which it has.
struct Line {
	int pos, seen; // positions seen..pos are seen; pos < 0: there is no line
	float most, sum;
};

// weigh makes weights of 8 lines' scores, and gives the factor of the lane's line.
inline float weigh(thread Line &line, threadgroup const float *scores, threadgroup Value *weights, int begin, int lane) {
	constexpr int each = step_rows / 4;
	int from = lane % 4 * each;
	float s[each], top = line.most, part = 0;
	for (int i = 0; i < each; i++) {
		int at = begin + from + i;
		s[i] = at >= line.seen && at <= line.pos ? scores[lane / 4 * score_stride + from + i] : -INFINITY;
		top = max(top, s[i]);
	}
	top = max(top, simd_shuffle_xor(top, 1));
	top = max(top, simd_shuffle_xor(top, 2));
	float zero = top == -INFINITY ? 0.f : top, factor = line.most == -INFINITY ? 1.f : exp2(line.most - zero);
	for (int i = 0; i < each; i++) {
		float e = exp2(s[i] - zero);
		weights[lane / 4 * weight_stride + from + i] = (Value)e;
		part += e;
	}
	line.sum = fma(line.sum, factor, part);
	line.most = top;
	return factor;
}

[[max_total_threads_per_threadgroup(128)]] kernel void NAME(prompt_attention)(constant PromptAttentionArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], device const uchar *cache [[buffer(5)]],
		uint2 group [[threadgroup_position_in_grid]], uint2 groups [[threadgroups_per_grid]], uint thread_index [[thread_index_in_threadgroup]]) {
	threadgroup float4 tile[(tile_bytes + 15) / 16];
	threadgroup float all_scores[4][8 * score_stride], diagonals[4][64];
	threadgroup Value all_weights[4][8 * weight_stride];
	threadgroup Key *keys = (threadgroup Key *)tile;
	threadgroup Value *values = (threadgroup Value *)tile;

	// the lane's line, and the positions of the threadgroup and of the simdgroup
	int t = (int)thread_index, simd = t / 32, lane = t % 32, head_dim = a.head_dim, sharing = a.heads / a.kv_heads;
	int kv_head = (int)group.x % a.kv_heads, part = (int)group.x / a.kv_heads;
	device const int *tiles = at<int>(scratch, a.tiles) + 2 * (groups.y - 1 - group.y); // the longest first
	device const int *positions = at<int>(scratch, a.pos);
	int first_row = tiles[0], rows = tiles[1], window = a.window > 0 ? a.window : 0x7fffffff;
	int line_row = t / 4 / a.share, line_head = part * a.share + t / 4 % a.share;
	bool there = line_row < rows && line_head < sharing;
	int row = first_row + min(line_row, rows - 1), head = kv_head * sharing + min(line_head, sharing - 1);
	Line line;
	line.pos = there ? positions[row] : -1;
	line.seen = max(0, line.pos - window + 1);
	line.most = -INFINITY;
	line.sum = 0;
	int first = max(0, positions[first_row] - window + 1), end = positions[first_row + rows - 1] + 1;
	int simd_first = simd_min(there ? line.seen : 0x7fffffff), simd_end = simd_max(line.pos + 1);

	// q, a chunk of columns at a time
	simdgroup_matrix<Key, 8, 8> q[WIDTH / 8];
	simdgroup_matrix<float, 8, 8> out[WIDTH / 8];
	threadgroup Key *mine = keys + 8 * simd * query_stride;
	device const float *from = at<float>(scratch, a.q) + (ulong)row * a.ldq + head * head_dim;
	UNROLLED
	for (int c = 0; c < WIDTH / chunk; c++) {
		int k = c * chunk + lane % 4 * 8;
		for (int i = 0; i < 8; i++)
			mine[lane / 4 * query_stride + lane % 4 * 8 + i] = (Key)(there && k < head_dim ? from[k + i] * a.scale : 0.f);
		simdgroup_barrier(mem_flags::mem_threadgroup);
		UNROLLED
		for (int i = 0; i < chunk / 8; i++) {
			simdgroup_load(q[c * (chunk / 8) + i], mine + 8 * i, query_stride);
			out[c * (chunk / 8) + i] = make_filled_simdgroup_matrix<float, 8, 8>(0.f);
		}
		simdgroup_barrier(mem_flags::mem_threadgroup);
	}
	diagonals[simd][lane] = diagonals[simd][32 + lane] = 0;

	device const int *pages = at<int>(scratch, a.pages) + (ulong)at<int>(scratch, a.seq)[first_row] * a.max_pages;
	threadgroup float *scores = all_scores[simd], *diagonal = diagonals[simd];
	threadgroup Value *weights = all_weights[simd];
	for (int begin = first / step_rows * step_rows; begin < end; begin += step_rows) {
		int page = pages[begin / page_rows], page_begin = begin / page_rows * page_rows;
		bool sees = begin < simd_end && begin + step_rows > simd_first;
		threadgroup_barrier(mem_flags::mem_threadgroup);
		fetch<K>(keys, cache + page_of<K>(page, a.kv_heads, kv_head, head_dim), begin - page_begin, first - page_begin, end - 1 - page_begin, head_dim, t);
		threadgroup_barrier(mem_flags::mem_threadgroup);
		if (sees)
			for (int j = 0; j < step_rows / 8; j++) {
				simdgroup_matrix<float, 8, 8> s = make_filled_simdgroup_matrix<float, 8, 8>(0.f);
				UNROLLED
				for (int k = 0; k < WIDTH / 8; k++) {
					simdgroup_matrix<Key, 8, 8> key;
					simdgroup_load(key, keys + 8 * j * key_stride + 8 * k, key_stride, ulong2(0), true);
					simdgroup_multiply_accumulate(s, q[k], key, s);
				}
				simdgroup_store(s, scores + 8 * j, score_stride);
			}
		threadgroup_barrier(mem_flags::mem_threadgroup);
		fetch<V>(values, cache + a.values + page_of<V>(page, a.kv_heads, kv_head, head_dim), begin - page_begin, first - page_begin, end - 1 - page_begin, head_dim, t);
		bool smaller = false;
		if (sees) {
			float factor = weigh(line, scores, weights, begin, lane);
			if (lane % 4 == 0)
				diagonal[lane / 4 * 9] = factor;
			smaller = simd_any(factor != 1);
		}
		threadgroup_barrier(mem_flags::mem_threadgroup);
		if (!sees)
			continue;
		if (smaller) {
			simdgroup_matrix<float, 8, 8> factors;
			simdgroup_load(factors, diagonal, 8);
			UNROLLED
			for (int k = 0; k < WIDTH / 8; k++)
				simdgroup_multiply(out[k], factors, out[k]);
		}
		for (int j = 0; j < step_rows / 8; j++) {
			simdgroup_matrix<Value, 8, 8> weight;
			simdgroup_load(weight, weights + 8 * j, weight_stride);
			UNROLLED
			for (int k = 0; k < WIDTH / 8; k++) {
				simdgroup_matrix<Value, 8, 8> value;
				simdgroup_load(value, values + 8 * j * value_stride + 8 * k, value_stride);
				simdgroup_multiply_accumulate(out[k], weight, value, out[k]);
			}
		}
	}

	// results, a chunk of columns at a time
	threadgroup_barrier(mem_flags::mem_threadgroup);
	float sum = line.sum;
	sum += simd_shuffle_xor(sum, 1);
	sum += simd_shuffle_xor(sum, 2);
	threadgroup float *results = (threadgroup float *)tile + 8 * simd * out_stride;
	device float *to = at<float>(scratch, a.out) + (ulong)row * a.ldout + head * head_dim;
	UNROLLED
	for (int c = 0; c < WIDTH / chunk; c++) {
		UNROLLED
		for (int i = 0; i < chunk / 8; i++)
			simdgroup_store(out[c * (chunk / 8) + i], results + 8 * i, out_stride);
		simdgroup_barrier(mem_flags::mem_threadgroup);
		int k = c * chunk + lane % 4 * 8;
		if (there && k < head_dim)
			for (int i = 0; i < 8; i++)
				to[k + i] = results[lane / 4 * out_stride + lane % 4 * 8 + i] / sum;
		simdgroup_barrier(mem_flags::mem_threadgroup);
	}
}
