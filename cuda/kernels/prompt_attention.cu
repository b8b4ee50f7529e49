// prompt_attention_K_V_D, for batches of more than 8 rows: attention of many
// rows of a sequence over its pages (internal/ref's attend).
//
// In: q (n, ldq) f32 after RoPE, the cache (cache.h), page numbers (seq,
// max_pages), tiles of rows. Out: (n, ldout) f32, heads*head_dim of a row; rows
// of slot -1 are not touched. A block takes a tile, neighbouring rows of one
// sequence, with `share` query heads of a key/value head: its lines, (row, head),
// heads first. All of them read the same keys and values, 32 positions at a time.
//
// The limit is the matrix rate. What the tensor cores read must come from shared
// memory at 128 bytes a clock, so a warp has 32 lines (16 for heads above 128):
// each fragment of keys and values feeds two products of 16 lines, and q stays in
// registers. Scores never leave registers either: the accumulators of q x keys
// are, as pairs of f16, the operands of weights x values. Keys and values of the
// next step are on their way (cp.async) while this one is computed; tiles of
// [position][D] halves. q8_0 is made f16 in shared memory, each thread what it
// copied itself.
//
// q times log2(e)/sqrt(head_dim) is rounded to f16, so are weights, powers of two
// below 1; sums are f32. F32 keys or values, and heads that are not whole pieces
// of 8, go through prompt_plain.h: f32 throughout.
//
// A line's result depends on its own position and window alone: steps are 32
// positions from 0, and a step in which it sees nothing changes none of its bits
// (weights 0, factor 1), so it does not matter which lines share a tile.
#include "prompt_plain.h"

constexpr int step_rows = 32;
constexpr int prompt_stages = __CUDA_ARCH__ >= 800 ? 2 : 1;

// prompt_stride is the bytes of a row of halves in shared memory: 16 more, so that
// 8 rows lie in different banks.
constexpr int prompt_stride(int D) { return 2 * D + 16; }

// thread_again is thread(), in a way that the compilers do not see through: what
// follows from it is computed where it is used. Registers have no room to keep it
// over a step. All lanes take part.
DEVICE uint32_t thread_again() {
#if __CUDA_ARCH__ < 800
	return thread();
#endif
	uint32_t t;
	asm volatile("{ .reg .u32 t, l; mov.u32 t, %%tid.x; mov.u32 l, %%laneid; shfl.sync.idx.b32 %0, t, l, 0x1f, 0xffffffff; }" : "=r"(t));
	return t;
}

// address_of is shared_address, but where it is constant the compiler knows.
DEVICE uint32_t address_of(uint8_t *p) { return (uint32_t)(uint64_t)(__attribute__((address_space(3))) uint8_t *)p; }

// Step is 32 positions from begin, of a page; positions that some line of the
// block sees are first..last.
struct Step {
	int begin, first, last;

	// row is that of the page for row i of the step. Those outside first..last are
	// not there, or seen by none: the nearest takes their place.
	METHOD int row(int i) const { return max(first, min(last, begin + i)) - (begin & ~(page_rows - 1)); }
};

// Operand is keys or values on their way to tiles of (32, D) halves: prompt_stages
// tiles; behind them, for q8_0, what was copied: 16 bytes a thread and turn, and
// the words with their scales, each with the selector that doubles it.
template <Format f, int D> struct Operand {
	static constexpr int parts = f == Q8_0 ? D / 16 : D / 8; // of a row, 16 bytes each
	static constexpr int down = prompt_threads / parts, turns = step_rows / down;
	static constexpr int tile = step_rows * prompt_stride(D), raw = prompt_stages * tile, scales = raw + turns * prompt_threads * 16;
	static constexpr int bytes = f == Q8_0 ? scales + turns * prompt_threads * sizeof(word2) : raw;

	static METHOD int part(uint32_t t) { return t % parts; }
	static METHOD int row(uint32_t t, int turn) { return t / parts + turn * down; }
	static METHOD int place(int row, int part) { return row * prompt_stride(D) + part * 16; }
	static METHOD int stage(int begin) { return (uint32_t)begin / step_rows % prompt_stages * tile; }

	// clear makes what lies beyond head_dim zero: of the tiles, or of what becomes them.
	static METHOD void clear(uint8_t *shared) {
		constexpr int from = f == Q8_0 ? raw : 0;
		for (int i = 16 * thread(); i < bytes - from; i += 16 * prompt_threads)
			*(word4 *)(shared + from + i) = {0, 0, 0, 0};
		barrier();
	}

	// fetch begins to copy a step.
	static METHOD void fetch(uint8_t *shared, const uint8_t *page, const Step &step, int head_dim) {
		uint32_t base = address_of(shared);
		uint32_t t = thread_again();
		if (part(t) * (f == Q8_0 ? 16 : 8) >= head_dim)
			return;
#pragma unroll
		for (int i = 0; i < turns; i++) {
			int at = step.row(row(t, i)) * head_dim;
			if (f == Q8_0) {
				at += 16 * part(t);
				int d = at / 32 * 2; // a word without what follows the scale: it may not be there
				copy_async_at(base + raw + (i * prompt_threads + t) * 16, page + at);
				copy_word_at(base + scales + (i * prompt_threads + t) * 8, page + page_rows * head_dim + (d & ~3), 2 + (d & 2));
				((word2 *)(shared + scales))[i * prompt_threads + t].y = d & 2 ? 0x3232 : 0x1010;
			} else {
				copy_async_at(base + stage(step.begin) + place(row(t, i), part(t)), page + (at + 8 * part(t)) * 2);
			}
		}
	}

	// convert makes q8_0 that this thread copied f16: q is exact, q*d rounded.
	static METHOD void convert(uint8_t *shared, int begin) {
		if (f != Q8_0)
			return;
		uint32_t t = thread_again();
#pragma unroll
		for (int i = 0; i < turns; i++) {
			word4 q = *(const word4 *)(shared + raw + (i * prompt_threads + t) * 16);
			word2 scale = ((const word2 *)(shared + scales))[i * prompt_threads + t];
			uint32_t d = permute(scale.x, 0, scale.y);
			uint32_t words[4] = {q.x, q.y, q.z, q.w}, h[8];
#pragma unroll
			for (int j = 0; j < 8; j++) // the byte, its sign turned, is the low mantissa of 1024 + 128 + q
				h[j] = half2_mul(half2_add(permute(words[j / 2] ^ 0x80808080, 0x64646464, j % 2 ? 0x4342 : 0x4140), 0xe480e480), d);
			uint8_t *to = shared + stage(begin);
			*(word4 *)(to + place(row(t, i), 2 * part(t))) = {h[0], h[1], h[2], h[3]};
			*(word4 *)(to + place(row(t, i), 2 * part(t) + 1)) = {h[4], h[5], h[6], h[7]};
		}
	}
};

// Past is what a thread knows of a line: the largest score, and the sum of
// weights of the positions in its columns. It lies in shared memory between
// steps: registers are needed for more.
struct alignas(8) Past {
	float most, sum;
};

// Warp is T tiles of 16 lines; line g + 8*h of tile m is past[2*m + h].
template <int D, int T> struct Warp {
	uint32_t q[T][D / 16][4];
	float out[T][D / 8][4];
	float s[T][4][4];          // scores of a step
	uint32_t weights[2][T][4]; // of 16 positions each

	// line is row g of the warp's first tile.
	static METHOD int line(uint32_t t) { return t / 32 * 16 * T + t % 32 / 4; }

	template <int N> METHOD void load(const PromptAttention &p, const Lines<N> &lines, Past (*past)[prompt_threads]) {
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				past[2 * m + h][thread()] = {minus_infinity, 0};
				int i = line(thread()) + 16 * m + 8 * h;
				const float *x = p.q + (uint64_t)lines.row[i] * p.ldq + lines.head[i] * p.head_dim + lane() % 4 * 2;
#pragma unroll
				for (int k = 0; k < D / 8; k++) {
					bool there = 8 * k < p.head_dim;
					word2 v = load_l2_8(x + (there ? 8 * k : 0));
					uint32_t scaled = pack_half(bits_float(v.x) * p.scale, bits_float(v.y) * p.scale);
					q[m][k / 2][k % 2 * 2 + h] = there ? scaled : 0;
				}
			}
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int n = 0; n < D / 8; n++)
				out[m][n][0] = out[m][n][1] = out[m][n][2] = out[m][n][3] = 0;
	}

	// scores are q x keys. Matrix lane/8 of a load: positions lane/16*8 on, halves lane/8%2*8 on.
	METHOD void scores(uint32_t keys) {
		uint32_t l = thread_again() % 32;
		keys += (l / 16 * 8 + l % 8) * prompt_stride(D) + l / 8 % 2 * 16;
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int n = 0; n < 4; n++)
				s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
		for (int k = 0; k < D / 16; k++)
#pragma unroll
			for (int n = 0; n < 4; n += 2) {
				uint32_t x[4];
				load_matrix4_at(x, keys + n * 8 * prompt_stride(D) + k * 32);
#pragma unroll
				for (int j = 0; j < 2; j++)
#pragma unroll
					for (int m = 0; m < T; m++)
						mma_f16(s[m][n + j], q[m][k], x + 2 * j);
			}
	}

	// mask hides positions that a line does not see; begin is the step's first.
	template <int N> METHOD void mask(const Lines<N> &lines, int begin, int window) {
		uint32_t t = thread_again();
		int from = line(t);
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				int pos = lines.pos[from + 16 * m + 8 * h], first = first_seen(pos, window);
#pragma unroll
				for (int n = 0; n < 4; n++)
#pragma unroll
					for (int j = 0; j < 2; j++) {
						int at = begin + 8 * n + (int)(t % 4) * 2 + j;
						if (at < first || at > pos)
							s[m][n][2 * h + j] = minus_infinity;
					}
			}
	}

	// weigh makes weights of the scores, and old sums smaller where a larger score came.
	METHOD void weigh(Past (*past)[prompt_threads]) {
		uint32_t t = thread_again();
		float factor[T][2];
		bool larger = false;
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				Past *line = &past[2 * m + h][t];
				float most = line->most, top = most;
#pragma unroll
				for (int n = 0; n < 4; n++)
					top = max(top, max(s[m][n][2 * h], s[m][n][2 * h + 1]));
				top = max(top, shuffle_xor(top, 1));
				top = max(top, shuffle_xor(top, 2));
				float zero = top == minus_infinity ? 0.f : top; // nothing seen yet
				larger |= top > most;
				factor[m][h] = exp2_flushed(most - zero);
				float part = 0;
#pragma unroll
				for (int n = 0; n < 4; n++) {
					float a = exp2_flushed(s[m][n][2 * h] - zero), b = exp2_flushed(s[m][n][2 * h + 1] - zero);
					part += a;
					part += b;
					weights[n / 2][m][n % 2 * 2 + h] = pack_half(a, b);
				}
				*line = {top, fma(line->sum, factor[m][h], part)};
			}
		if (ballot(larger))
#pragma unroll
			for (int m = 0; m < T; m++)
#pragma unroll
				for (int n = 0; n < D / 8; n++)
#pragma unroll
					for (int j = 0; j < 4; j++)
						out[m][n][j] *= factor[m][j / 2];
	}

	// add is out += weights x values. Matrix lane/8 of a load: positions lane/8%2*8 on, halves lane/16*8 on.
	METHOD void add(uint32_t values) {
		uint32_t l = thread_again() % 32;
		values += l % 16 * prompt_stride(D) + l / 16 * 16;
#pragma unroll
		for (int n = 0; n < D / 8; n += 2)
#pragma unroll
			for (int k = 0; k < 2; k++) {
				uint32_t x[4];
				load_matrix4_transposed_at(x, values + k * 16 * prompt_stride(D) + n * 16);
#pragma unroll
				for (int j = 0; j < 2; j++)
#pragma unroll
					for (int m = 0; m < T; m++)
						mma_f16(out[m][n + j], weights[k][m], x + 2 * j);
			}
	}

	template <int N> METHOD void store(const PromptAttention &p, const Lines<N> &lines, const Past (*past)[prompt_threads]) {
		uint32_t t = thread_again();
#pragma unroll
		for (int m = 0; m < T; m++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				float all = past[2 * m + h][t].sum;
				all += shuffle_xor(all, 1);
				all += shuffle_xor(all, 2);
				int i = line(t) + 16 * m + 8 * h;
				if (lines.pos[i] < 0)
					continue;
				float inverse = rcp_approx(all);
				float *to = p.out + (uint64_t)lines.row[i] * p.ldout + lines.head[i] * p.head_dim + t % 4 * 2;
#pragma unroll
				for (int n = 0; n < D / 8; n++)
					if (8 * n < p.head_dim)
						((float2 *)to)[4 * n] = {out[m][n][2 * h] * inverse, out[m][n][2 * h + 1] * inverse};
			}
	}
};

// Source is where page 0 of a key/value head lies, and the bytes from page to page.
struct ALIGN16 Source {
	const uint8_t *keys, *values;
	uint32_t key_bytes, value_bytes;
};

// Block is shared memory of a block; behind it are keys and values.
template <int T> struct ALIGN16 Block {
	Lines<64 * T> lines;
	Source source;
	Past past[2 * T][prompt_threads];
};

template <int D, int T> DEVICE void fetch_step(const PromptAttention &p, const Block<T> &block, uint8_t *shared, int begin) {
	Step step = {begin, block.lines.first, block.lines.end - 1};
	Source from = block.source;
	uint32_t page = p.pages[block.lines.pages + (uint32_t)begin / page_rows]; // in L1, but for one step in 64
	Operand<K, D>::fetch(shared, from.keys + (uint64_t)page * from.key_bytes, step, p.head_dim);
	Operand<V, D>::fetch(shared + Operand<K, D>::bytes, from.values + (uint64_t)page * from.value_bytes, step, p.head_dim);
	copy_commit();
}

template <int D, int T> DEVICE void prompt(const PromptAttention &p) {
	using Keys = Operand<K, D>;
	using Values = Operand<V, D>;
	DYNAMIC_SHARED(shared);
	Block<T> &block = *(Block<T> *)shared;
	Lines<64 * T> &lines = block.lines;
	Past (*past)[prompt_threads] = block.past;
	uint8_t *tiles = shared + sizeof(Block<T>);
	launch_next();
	wait_previous();
	Tile tile = p.tiles[blocks_y() - 1 - block_y()]; // the longest first
	int kv_head = block_x() % p.kv_heads;
	find_lines(p, tile, kv_head, block_x() / p.kv_heads, lines);
	if (thread() == 0)
		block.source = {page_of<K>(p.keys, 0, p.kv_heads, kv_head, p.head_dim), page_of<V>(p.values, 0, p.kv_heads, kv_head, p.head_dim),
		                p.kv_heads * (uint32_t)page_bytes<K>(p.head_dim), p.kv_heads * (uint32_t)page_bytes<V>(p.head_dim)};
	find_spans(lines, warp() * 16 * T, 16 * T, p.window);

	uint32_t base = address_of(tiles);
	int begin = lines.first & ~(step_rows - 1);
	if (p.head_dim < D) {
		Keys::clear(tiles);
		Values::clear(tiles + Keys::bytes);
	}
	if (prompt_stages > 1 && begin < lines.end)
		fetch_step<D>(p, block, tiles, begin);
	Warp<D, T> w;
	w.load(p, lines, past);
	for (; begin < lines.end; begin += step_rows) {
		if (prompt_stages == 1) {
			barrier();
			fetch_step<D>(p, block, tiles, begin);
		}
		copy_wait<0>();
		Keys::convert(tiles, begin);
		Values::convert(tiles + Keys::bytes, begin);
		barrier();
		if (prompt_stages > 1 && begin + step_rows < lines.end)
			fetch_step<D>(p, block, tiles, begin + step_rows);
		Span span = lines.span[thread_again() / 32];
		if (begin >= span.end || begin + step_rows <= span.first)
			continue;
		w.scores(base + Keys::stage(begin));
		if (begin < span.all_first || begin + step_rows > span.all_end)
			w.mask(lines, begin, p.window);
		w.weigh(past);
		w.add(base + Keys::bytes + Values::stage(begin));
	}
	w.store(p, lines, past);
}

// prompt_kernel is the kernel for heads of up to 64*J; T: tiles of 16 lines a warp.
template <Format k, Format v, int J, int T> DEVICE void prompt_kernel(const PromptAttention &p) {
	if constexpr (k == F32 || v == F32)
		plain_prompt<J, J == 4 ? 16 : 32, false>(p);
	else
		prompt<64 * J, T>(p);
}

KERNEL __launch_bounds__(128, 3) KV(prompt_attention_, _64)(const PromptAttention p) { prompt_kernel<K, V, 1, 2>(p); }
KERNEL __launch_bounds__(128, 2) KV(prompt_attention_, _128)(const PromptAttention p) { prompt_kernel<K, V, 2, 2>(p); }
KERNEL __launch_bounds__(128, 2) KV(prompt_attention_, _256)(const PromptAttention p) { prompt_kernel<K, V, 4, 1>(p); }
KERNEL __launch_bounds__(128, 2) KV(prompt_attention_, _odd)(const PromptAttention p) { plain_prompt<4, 16, true>(p); }
