// cache.metal: rows of the cache in their formats. It stands, behind outputs.metal
// and the definitions of K and V, before the kernels that touch the cache.
//
// A layer's keys, and behind them its values: (pages, kv_heads, 64, head_dim). In
// f32 and f16 a head's page is its 64 rows. In q8_0 it is int8 (64, head_dim), then
// f16 scales (64, head_dim/32): the blocks of quant.Q8_0, set apart so that both are
// aligned. A piece is 8 neighbouring values of a row.
enum Format { F32, F16, Q8_0 };
constant constexpr int page_rows = 64;
constant constexpr int cut_rows = 128; // positions that decoding sums at a time

// partial_stride is the floats that a head's part of a cut takes: sums of
// weight*value (head_dim), the largest score, in powers of two, the sum of weights.
inline int partial_stride(int head_dim) { return (head_dim + 5) & ~3; }

template <Format f> inline ulong page_bytes(int head_dim) {
	return (ulong)page_rows * (f == Q8_0 ? head_dim + head_dim / 16 : f == F16 ? 2 * head_dim : 4 * head_dim);
}

// page_of is where a page's part of a key/value head begins.
template <Format f> inline ulong page_of(int page, int kv_heads, int kv_head, int head_dim) {
	return ((ulong)page * kv_heads + kv_head) * page_bytes<f>(head_dim);
}

// Piece is 8 values as they lie in the cache, for rows of whole pieces; one reads a
// value of rows of any length.
template <Format f> struct Piece;

template <> struct Piece<F32> {
	float4 a, b;
	void load(device const uchar *page, int row, int k, int head_dim) {
		device const float4 *p = (device const float4 *)(page + 4 * (row * head_dim + k));
		a = p[0];
		b = p[1];
	}
	float4 low() const { return a; }
	float4 high() const { return b; }
	static float one(device const uchar *page, int row, int k, int head_dim) { return ((device const float *)page)[row * head_dim + k]; }
};

template <> struct Piece<F16> {
	uint4 w;
	void load(device const uchar *page, int row, int k, int head_dim) { w = *(device const uint4 *)(page + 2 * (row * head_dim + k)); }
	float4 low() const { return float4(as_type<half4>(w.xy)); }
	float4 high() const { return float4(as_type<half4>(w.zw)); }
	static float one(device const uchar *page, int row, int k, int head_dim) { return (float)((device const half *)page)[row * head_dim + k]; }
};

template <> struct Piece<Q8_0> {
	uint2 w;
	float scale;
	void load(device const uchar *page, int row, int k, int head_dim) {
		w = *(device const uint2 *)(page + row * head_dim + k);
		scale = (float)((device const half *)(page + page_rows * head_dim))[(row * head_dim + k) / 32];
	}
	float4 low() const { return float4(as_type<char4>(w.x)) * scale; }
	float4 high() const { return float4(as_type<char4>(w.y)) * scale; }
	static float one(device const uchar *page, int row, int k, int head_dim) {
		int i = row * head_dim + k;
		return (float)((device const char *)page)[i] * (float)((device const half *)(page + page_rows * head_dim))[i / 32];
	}
};

// write_head writes a head's row from threadgroup memory, rounded as quant.Quantize
// does, to the bit. All threads take part.
template <Format f> inline void write_head(device uchar *page, int row, threadgroup const float *x, int head_dim, int t, int threads) {
	if (f == F32) {
		for (int k = t; k < head_dim; k += threads)
			((device float *)page)[row * head_dim + k] = x[k];
		return;
	}
	if (f == F16) {
		for (int k = t; k < head_dim; k += threads)
			((device half *)page)[row * head_dim + k] = (half)x[k];
		return;
	}
	int lane = t % 32;
	for (int block = t / 32; block < head_dim / 32; block += threads / 32) {
		float v = x[32 * block + lane];
		// bits have the order of magnitudes, NaN above infinity
		float d = as_type<float>(simd_max(as_type<uint>(v) & 0x7fffffff)) / 127.f;
		float y = round(v * (d == 0 ? 0.f : 1 / d)); // half away from zero
		y = y == y ? max(-127.f, min(127.f, y)) : 0.f;
		((device char *)page)[row * head_dim + 32 * block + lane] = (char)y;
		if (lane == 0)
			((device half *)(page + page_rows * head_dim))[row * head_dim / 32 + block] = (half)d;
	}
}
