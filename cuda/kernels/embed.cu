// embed.cu: rows of packed weights as f32, for token embeddings:
// x[i] = row tokens[i]. Bit for bit as quant.Dequantize (0 may differ in sign).
//
// A tile's 16 rows lie interleaved, so a quad of lanes plays the quad that holds
// the wanted row, and each quad of a warp has another chunk. Of every 512 bytes it
// reads 64; a prompt's embeddings are still little beside one layer's weights.

struct Embed {
	const uint8_t *w;
	float *x;
	const int *tokens;
	int n, dim, ldx;
};

// integer is byte i of a word of quants, as a number.
template <class F> DEVICE int integer(uint32_t a, int i) {
	return F::unsigned_quants ? (int)(a >> 8 * i & 255) : (int)(int8_t)(a >> 8 * i);
}

// row_values writes columns 16*step + 4t.. of row g (high = 0) or g+8.
template <class F> DEVICE void row_values(const typename F::Raw &raw, int step, int high, float v[4]) {
	if constexpr (is_float<F>) {
		for (int i = 0; i < 4; i++)
			v[i] = high ? F::value(raw, step, 1, i) : F::value(raw, step, 0, i);
	} else {
		uint32_t a[4];
		F::quants(raw, step / 2, a);
		uint32_t word = high ? a[step % 2 * 2 + 1] : a[step % 2 * 2];
		float scale = high ? F::scale(raw, step / 2, step % 2, 1) : F::scale(raw, step / 2, step % 2, 0);
		float least = high ? F::min(raw, step / 2, step % 2, 1) : F::min(raw, step / 2, step % 2, 0);
		for (int i = 0; i < 4; i++) {
			float q = (float)(integer<F>(word, i) / (high ? F::high : 1) - F::zero);
			v[i] = F::has_min ? fma(scale, q, least) : scale * q;
		}
	}
}

// Grid: x = chunks/64, y = n.
template <class F> DEVICE void embed(const Embed &p) {
	launch_next();
	wait_previous();
	int chunks = (p.dim + F::columns - 1) / F::columns, chunk = block_x() * 64 + thread() / 4;
	if (chunk >= chunks)
		return;
	int row = p.tokens[block_y()], t = lane() % 4, high = row % 16 / 8;
	typename F::Raw raw = F::load(p.w + ((uint64_t)(row / 16) * chunks + chunk) * F::bytes, row % 8 * 4 + t);
	float *x = p.x + (uint64_t)block_y() * p.ldx;
#pragma unroll
	for (int step = 0; step < F::columns / 16; step++) {
		float v[4];
		row_values<F>(raw, step, high, v);
		int k = chunk * F::columns + 16 * step + 4 * t;
		for (int i = 0; i < 4; i++)
			if (k + i < p.dim)
				x[k + i] = v[i];
	}
}

WEIGHT_KERNEL(embed)(const Embed p) { embed<FORMAT>(p); }
