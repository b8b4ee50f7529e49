// matmul.metal: y[column][row] (+)= W x (+ bias) for 9 and more columns: prompts.
//
// A threadgroup of four simdgroups makes 64 rows x C columns of y, K in steps of
// 32: both parts of a step are put into threadgroup memory as 8x8 blocks, and
// each simdgroup multiplies half the rows by half the columns with simdgroup
// matrices. The next step is loaded into registers before the products of this
// one, so that loads and products overlap. The limit is the rate of products.
//
// Weights are rounded to f16, which is exact for F16 ones and costs an NMSE near 4e-8
// for others; beyond its range they become its largest numbers. F32 and BF16
// weights stay f32. So do activations: in f16 they would need a scale for each row,
// and another kernel to find it, while threadgroup memory is not the limit. Sums
// are f32.
//
// Every element of y has one accumulator that takes K in ascending order, whatever C
// and the number of columns: a column's result does not depend on the others.

constant constexpr int tile_rows = 64, tile_k = 32;

// Blocks of W are [k/8][row/8][8 k][8 rows], 8 elements apart so that lanes of neighbouring rows
// write to different banks; those of x are [column/8][k/8][8 columns][8 k].
constant constexpr int w_block = 72, x_block = 64, w_elements = tile_k / 8 * (tile_rows / 8) * w_block;

template <class T> inline vec<T, 4> tile_value(float4 w);
template <> inline float4 tile_value<float>(float4 w) { return w; }
template <> inline half4 tile_value<half>(float4 w) { return half4(clamp(w, float4(-65504), float4(65504))); }

// put_weights writes strip 0 or 1 of a step's row.
template <class F> inline void put_weights(threadgroup typename F::Tile *tile, thread const typename F::Raw &raw, uint row, uint strip, threadgroup const half *table) {
#pragma unroll
	for (uint i = 0; i < 4; i++) {
		vec<typename F::Tile, 4> v = tile_value<typename F::Tile>(quad(raw, i, table));
		threadgroup typename F::Tile *to = tile + ((strip * 2 + i / 2) * (tile_rows / 8) + row / 8) * w_block + i % 2 * 32 + row % 8;
#pragma unroll
		for (uint k = 0; k < 4; k++)
			to[8 * k] = v[k];
	}
}

// multiply_step adds the products of a step: 32 rows from 8x8 block `rows` on, C/2
// columns from block `columns` on.
template <class T, int C>
inline void multiply_step(thread simdgroup_float8x8 (&acc)[C / 16][4], threadgroup const T *w, threadgroup const float *x, uint rows, uint columns) {
#pragma unroll
	for (int k = 0; k < tile_k / 8; k++) {
		simdgroup_matrix<T, 8, 8> a[4];
#pragma unroll
		for (int j = 0; j < 4; j++)
			simdgroup_load(a[j], w + (k * (tile_rows / 8) + rows + j) * w_block, 8);
#pragma unroll
		for (int i = 0; i < C / 16; i++) {
			simdgroup_float8x8 b;
			simdgroup_load(b, x + ((columns + i) * (tile_k / 8) + k) * x_block, 8);
#pragma unroll
			for (int j = 0; j < 4; j++)
				simdgroup_multiply_accumulate(acc[i][j], b, a[j], acc[i][j]);
		}
	}
}

// store writes a simdgroup's 32 rows and C/2 columns, eight at a time through its part of threadgroup memory.
template <int C>
inline void store(thread simdgroup_float8x8 (&acc)[C / 16][4], constant Product &p, thread const Place &at, thread const Columns &c, uint row, uint column,
                  device uchar *scratch, device const uchar *constants, uint lane, threadgroup float *part) {
	row += lane;
	float bias = at.bias && row < at.rows ? ((device const float *)(constants + at.bias))[row] : 0;
	for (int i = 0; i < C / 16; i++, column += 8) {
		simdgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
		for (int j = 0; j < 4; j++)
			simdgroup_store(acc[i][j], part + 8 * j, 32);
		simdgroup_barrier(mem_flags::mem_threadgroup);
		for (uint n = 0; n < 8 && column + n < c.n; n++) {
			if (row >= at.rows)
				break;
			device float *y = floats(scratch, at.y) + (ulong(slot_of(c, column + n)) * at.ldy + row);
			float v = part[32 * n + lane];
			if (at.bias)
				v += bias;
			*y = p.add ? *y + v : v;
		}
	}
}

template <class F, int C>
inline void matmul(constant Product &p, thread const Place &at, thread const Columns &c, uint begin, device uchar *scratch, device const uchar *constants, uint t, uint lane,
                   uint simdgroup, threadgroup typename F::Tile *w, threadgroup float4 *x, threadgroup const half *table) {
	uint cols = uint(p.cols), row = t % tile_rows, strip = t / tile_rows;
	device const uchar *weights = at.w + min(at.first + row, at.rows - 1) * row_bytes<F>(cols);
	// this thread's part of a step: a strip of a row, and four values, from 4*(t%8) on, of every 16th column
	device const float *input[C / 16];
#pragma unroll
	for (int i = 0; i < C / 16; i++)
		input[i] = (device const float *)(scratch + p.x) + ulong(input_of(c, begin + t / 8 + 16 * i)) * uint(p.ldx);
	// what this simdgroup multiplies
	uint rows = simdgroup % 2 * 32, columns = simdgroup / 2 * (C / 2);
	bool busy = at.first + rows < at.rows && begin + columns < c.n;
	simdgroup_float8x8 acc[C / 16][4];
#pragma unroll
	for (int i = 0; i < C / 16; i++)
#pragma unroll
		for (int j = 0; j < 4; j++)
			acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.f);

	typename F::Raw raw = F::load(weights, strip, cols);
	float4 values[C / 16];
#pragma unroll
	for (int i = 0; i < C / 16; i++)
		values[i] = input4<F>(input[i], t % 8 * 4, cols);
	for (uint k = 0; k < cols; k += tile_k) {
		threadgroup_barrier(mem_flags::mem_threadgroup);
		put_weights<F>(w, raw, row, strip, table);
#pragma unroll
		for (int i = 0; i < C / 16; i++)
			x[(((t / 8 + 16 * i) / 8 * (tile_k / 8) + t % 8 / 2) * x_block + t / 8 % 8 * 8) / 4 + t % 2] = values[i];
		threadgroup_barrier(mem_flags::mem_threadgroup);
		if (k + tile_k < cols) {
			raw = F::load(weights, (k + tile_k) / 16 + strip, cols);
#pragma unroll
			for (int i = 0; i < C / 16; i++)
				values[i] = input4<F>(input[i], k + tile_k + t % 8 * 4, cols);
		}
		if (busy)
			multiply_step<typename F::Tile, C>(acc, w, (threadgroup const float *)x, rows / 8, columns / 8);
	}
	threadgroup_barrier(mem_flags::mem_threadgroup);
	if (busy)
		store<C>(acc, p, at, c, at.first + rows, begin + columns, scratch, constants, lane, (threadgroup float *)x + 256 * simdgroup);
}

// Grid: x = blocks of C columns, so that threadgroups that run at the same time share weights, y = blocks of 64 rows
// of every matrix, z = active experts at most.
#define MATMUL(C) \
	threadgroup half table[16]; \
	threadgroup FORMAT::Tile w[w_elements]; \
	threadgroup float4 x[C * tile_k / 4]; \
	Columns c = columns_of(p, scratch, group.z); \
	if (c.expert < 0 || group.x * C >= c.n) \
		return; \
	copy_table<FORMAT>(table, t); \
	Place at = place(p, w0, w1, w2, group.y, tile_rows, c.expert); \
	matmul<FORMAT, C>(p, at, c, group.x * C, scratch, constants, t, lane, simdgroup, w, x, table)

[[max_total_threads_per_threadgroup(128)]] kernel void JOIN(matmul, JOIN(NAME, 32))(constant Product &p [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) { MATMUL(32); }
[[max_total_threads_per_threadgroup(128)]] kernel void JOIN(matmul, JOIN(NAME, 64))(constant Product &p [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) { MATMUL(64); }
