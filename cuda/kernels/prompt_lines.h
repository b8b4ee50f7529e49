// prompt_lines.h: what the kernels of prompt attention share: their parameters, and
// what a block is to do.
#pragma once
#include "cache.h"

constexpr int prompt_threads = 128;

// A tile is rows first.. of the batch, of one sequence, so many.
struct Tile {
	int first, rows;
};

struct PromptAttention {
	const float *q;
	const void *keys, *values;
	const int *pos, *slot, *seq, *pages; // of each row; slot < 0: padding
	const Tile *tiles;                   // blocks_y() of them
	float *out;
	int ldq, ldout, heads, kv_heads, head_dim, window, max_pages, share;
	float scale; // log2(e)/sqrt(head_dim)
};

// Span is positions: those that some line sees, and those that all see.
struct alignas(16) Span {
	int first, end, all_first, all_end;
};

// Lines is what a block's lines are, (row, head), in shared memory.
template <int N> struct Lines {
	int pos[N];                     // -1: none
	int row[N], head[N];            // of the batch; where there is no line those of one that there is
	Span span[prompt_threads / 32]; // of each warp
	int first, end;                 // of the block
	int pages;                      // where the sequence's begin in the table
};

DEVICE int warp_least(int v) {
	for (int i = 16; i > 0; i /= 2)
		v = min(v, shuffle_xor(v, i));
	return v;
}
DEVICE int warp_most(int v) {
	for (int i = 16; i > 0; i /= 2)
		v = max(v, shuffle_xor(v, i));
	return v;
}

DEVICE int first_seen(int pos, int window) { return window > 0 ? max(0, pos + 1 - window) : 0; }

// find_lines fills lines; block_x() is the key/value head and, where a group has
// more heads than a block takes, the part of the group.
template <int N> DEVICE void find_lines(const PromptAttention &p, const Tile &tile, int kv_head, int part, Lines<N> &lines) {
	int group = p.heads / p.kv_heads;
	for (int i = thread(); i < N; i += prompt_threads) {
		int line_row = i / p.share, line_head = part * p.share + i % p.share;
		int row = tile.first + min(line_row, tile.rows - 1), head = min(line_head, group - 1);
		bool there = line_row < tile.rows && line_head < group && (int)load_l2_4(p.slot + row) >= 0;
		lines.pos[i] = there ? load_l2_4(p.pos + row) : -1;
		lines.row[i] = row;
		lines.head[i] = kv_head * group + head;
	}
	if (thread() == 0)
		lines.pages = load_l2_4(p.seq + tile.first) * p.max_pages;
	barrier();
}

// find_spans: a warp has `count` lines, at most 32, `from` and on.
template <int N> DEVICE void find_spans(Lines<N> &lines, int from, int count, int window) {
	constexpr int never = 0x7fffffff;
	int pos = lane() < count ? lines.pos[from + lane()] : -1, first = first_seen(pos, window);
	Span span = {warp_least(pos < 0 ? never : first), warp_most(pos + 1), warp_most(pos < 0 ? 0 : first), warp_least(pos < 0 ? never : pos + 1)};
	if (lane() == 0)
		lines.span[warp()] = span;
	barrier();
	if (thread() == 0) {
		lines.first = never, lines.end = 0;
		for (int w = 0; w < prompt_threads / 32; w++)
			lines.first = min(lines.first, lines.span[w].first), lines.end = max(lines.end, lines.span[w].end);
	}
	barrier();
}
