// prompt_plain.h: prompt attention in f32 throughout, by FMA: for keys or values in
// f32, and for heads that are not whole pieces of 8.
//
// Layouts are those of prompt_attention.cu. A block has 32 lines; a step is 32
// positions, 16 for heads above 128. A thread has 4 lines; 16 threads share their
// positions, 16 apart, and then their columns, 4 neighbours of every 64. The limit
// is the f32 rate: a thread loads 6 vectors of 4 for 32 products. Rows lie 4 floats
// further apart than they are long, so that rows side by side use all banks.
#pragma once
#include "prompt_lines.h"

constexpr int plain_lines = 32;

// Plain is shared memory of a block: rows of up to 64*J values, P positions a step.
template <int J, int P> struct Plain {
	float q[plain_lines][64 * J + 4];
	float x[P][64 * J + 4]; // keys, then values
	float weights[plain_lines][P + 4];
	Lines<plain_lines> lines;
};

// load_plain makes rows from.. of a page f32; rows outside first..last are as those.
template <Format f, bool odd, int J, int P> DEVICE void load_plain(float (*to)[64 * J + 4], const uint8_t *page, int from, int first, int last, int head_dim) {
	if (odd) {
		for (int i = thread(); i < P * 64 * J; i += prompt_threads) {
			int r = i / (64 * J), k = i % (64 * J);
			to[r][k] = k < head_dim ? Piece<f>::one(page, max(first, min(last, from + r)), k, head_dim) : 0.f;
		}
		return;
	}
	constexpr int turns = P * 8 * J / prompt_threads;
	Piece<f> pieces[turns];
#pragma unroll
	for (int i = 0; i < turns; i++) {
		int at = i * prompt_threads + thread(), r = at / (8 * J), k = at % (8 * J) * 8;
		if (k < head_dim)
			pieces[i].load(page, max(first, min(last, from + r)), k, head_dim);
		else
			pieces[i].clear();
	}
#pragma unroll
	for (int i = 0; i < turns; i++) {
		int at = i * prompt_threads + thread(), r = at / (8 * J), k = at % (8 * J) * 8;
		float v[8];
		pieces[i].values(v);
		*(float4 *)&to[r][k] = {v[0], v[1], v[2], v[3]};
		*(float4 *)&to[r][k + 4] = {v[4], v[5], v[6], v[7]};
	}
}

// Four is a thread's lines, from `line` on, and its columns or positions.
template <int J, int P> struct Four {
	int line, column;
	float most[4], sum[4], s[4][P / 16], out[J][4][4];

	METHOD void start() {
		line = thread() / 16 * 4, column = thread() % 16;
		for (int i = 0; i < 4; i++) {
			most[i] = minus_infinity, sum[i] = 0;
			for (int j = 0; j < J; j++)
				out[j][i][0] = out[j][i][1] = out[j][i][2] = out[j][i][3] = 0;
		}
	}

	// scores are q x keys.
	METHOD void scores(const Plain<J, P> &b, int head_dim) {
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int j = 0; j < P / 16; j++)
				s[i][j] = 0;
#pragma unroll 4
		for (int k = 0; k < (head_dim + 3 & ~3); k += 4) {
			float4 q[4];
#pragma unroll
			for (int i = 0; i < 4; i++)
				q[i] = *(const float4 *)&b.q[line + i][k];
#pragma unroll
			for (int j = 0; j < P / 16; j++) {
				float4 x = *(const float4 *)&b.x[column + 16 * j][k];
#pragma unroll
				for (int i = 0; i < 4; i++)
					s[i][j] = fma(x.w, q[i].w, fma(x.z, q[i].z, fma(x.y, q[i].y, fma(x.x, q[i].x, s[i][j]))));
			}
		}
	}

	// weigh makes weights of the scores, and old sums smaller where a larger score came.
	METHOD void weigh(Plain<J, P> &b, int begin, int window) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int pos = b.lines.pos[line + i], seen = first_seen(pos, window);
			float top = most[i];
#pragma unroll
			for (int j = 0; j < P / 16; j++) {
				int at = begin + column + 16 * j;
				s[i][j] = at >= seen && at <= pos ? s[i][j] : minus_infinity;
				top = max(top, s[i][j]);
			}
			for (int o = 1; o < 16; o *= 2)
				top = max(top, shuffle_xor(top, o));
			float zero = top == minus_infinity ? 0.f : top, factor = exp2_approx(most[i] - zero), part = 0;
			most[i] = top;
#pragma unroll
			for (int j = 0; j < P / 16; j++) {
				float e = exp2_approx(s[i][j] - zero);
				b.weights[line + i][column + 16 * j] = e;
				part += e;
			}
			sum[i] = fma(sum[i], factor, part);
#pragma unroll
			for (int j = 0; j < J; j++)
#pragma unroll
				for (int n = 0; n < 4; n++)
					out[j][i][n] *= factor;
		}
	}

	// add is out += weights x values.
	METHOD void add(const Plain<J, P> &b) {
#pragma unroll 2
		for (int at = 0; at < P; at += 4) {
			float4 w[4];
#pragma unroll
			for (int i = 0; i < 4; i++)
				w[i] = *(const float4 *)&b.weights[line + i][at];
#pragma unroll
			for (int n = 0; n < 4; n++)
#pragma unroll
				for (int j = 0; j < J; j++) {
					float4 x = *(const float4 *)&b.x[at + n][64 * j + 4 * column];
#pragma unroll
					for (int i = 0; i < 4; i++) {
						float v = n == 0 ? w[i].x : n == 1 ? w[i].y : n == 2 ? w[i].z : w[i].w;
						out[j][i][0] = fma(v, x.x, out[j][i][0]), out[j][i][1] = fma(v, x.y, out[j][i][1]);
						out[j][i][2] = fma(v, x.z, out[j][i][2]), out[j][i][3] = fma(v, x.w, out[j][i][3]);
					}
				}
		}
	}

	METHOD void store(const PromptAttention &p, const Lines<plain_lines> &lines) const {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			float all = sum[i];
			for (int o = 1; o < 16; o *= 2)
				all += shuffle_xor(all, o);
			if (lines.pos[line + i] < 0)
				continue;
			float inverse = rcp_approx(all);
			float *to = p.out + (uint64_t)lines.row[line + i] * p.ldout + lines.head[line + i] * p.head_dim;
#pragma unroll
			for (int j = 0; j < J; j++)
#pragma unroll
				for (int n = 0; n < 4; n++)
					if (64 * j + 4 * column + n < p.head_dim)
						to[64 * j + 4 * column + n] = out[j][i][n] * inverse;
		}
	}
};

template <int J, int P, bool odd> DEVICE void plain_prompt(const PromptAttention &p) {
	DYNAMIC_SHARED(shared);
	Plain<J, P> &b = *(Plain<J, P> *)shared;
	launch_next();
	wait_previous();
	Tile tile = p.tiles[blocks_y() - 1 - block_y()];
	int kv_head = block_x() % p.kv_heads;
	find_lines(p, tile, kv_head, block_x() / p.kv_heads, b.lines);
	find_spans(b.lines, 0, plain_lines, p.window);
	for (int i = thread(); i < plain_lines * 64 * J; i += prompt_threads) {
		int line = i / (64 * J), k = i % (64 * J);
		float v = 0;
		if (b.lines.pos[line] >= 0 && k < p.head_dim)
			v = bits_float(load_l2_4(p.q + (uint64_t)b.lines.row[line] * p.ldq + b.lines.head[line] * p.head_dim + k)) * p.scale;
		b.q[line][k] = v;
	}
	Four<J, P> four;
	four.start();
	int first = b.lines.first, end = b.lines.end;
	for (int begin = first & ~(P - 1); begin < end; begin += P) {
		int page = p.pages[b.lines.pages + begin / page_rows], at = begin & ~(page_rows - 1);
		const uint8_t *keys = page_of<K>(p.keys, page, p.kv_heads, kv_head, p.head_dim);
		const uint8_t *values = page_of<V>(p.values, page, p.kv_heads, kv_head, p.head_dim);
		barrier();
		load_plain<K, odd, J, P>(b.x, keys, begin - at, first - at, end - 1 - at, p.head_dim);
		barrier();
		four.scores(b, p.head_dim);
		four.weigh(b, begin, p.window);
		barrier();
		load_plain<V, odd, J, P>(b.x, values, begin - at, first - at, end - 1 - at, p.head_dim);
		barrier();
		four.add(b);
	}
	four.store(p, b.lines);
}
