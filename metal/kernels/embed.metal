// embed.metal: rows of weights as f32, for token embeddings: x[i] = row tokens[i].
// Bit for bit as quant.Dequantize. A thread writes a strip; the limit is latency.

struct Embed {
	ulong x, tokens;
	int n, dim, ldx, spare;
};

// Grid: x = strips/64, y = n.
template <class F> inline void embed(constant Embed &p, device const uchar *w, device uchar *scratch, uint2 group, uint t, threadgroup const half *table) {
	uint strip = group.x * 64 + t, dim = uint(p.dim);
	if (16 * strip >= dim)
		return;
	int token = ((device const int *)(scratch + p.tokens))[group.y];
	typename F::Raw raw = F::load(w + ulong(token) * row_bytes<F>(dim), strip, dim);
	device float *x = floats(scratch, p.x) + (ulong(group.y) * uint(p.ldx) + 16 * strip);
#pragma unroll
	for (uint i = 0; i < 4; i++) {
		float4 v = quad(raw, i, table);
		uint left = dim - min(dim, 16 * strip + 4 * i);
		if (left >= 4)
			*(device float4 *)(x + 4 * i) = v;
		else
			for (uint k = 0; k < left; k++)
				x[4 * i + k] = v[k];
	}
}

[[max_total_threads_per_threadgroup(64)]] kernel void JOIN(embed, NAME)(constant Embed &p [[buffer(0)]], device const uchar *w [[buffer(1)]], device uchar *scratch [[buffer(4)]],
		uint3 group [[threadgroup_position_in_grid]], uint t [[thread_index_in_threadgroup]]) {
	threadgroup half table[16];
	copy_table<FORMAT>(table, t);
	embed<FORMAT>(p, w, scratch, group.xy, t, table);
}
