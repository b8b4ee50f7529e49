// matvec.metal: y[column][row] (+)= W x (+ bias) for 1 to 8 columns, decoding, and
// the same for a gate and an up matrix with the activation.
//
// The limit is bandwidth. A simdgroup takes four rows (of a gate and an up matrix two
// each) and reads them once for all columns: lane l has strips l, l+32, ... of every
// row, so that its lanes read neighbouring memory, and four rows' loads are under way
// at once. The values of a strip, integers in f16 but for real formats, are multiplied by
// x, f32 as it lies in scratch, and their sum by the scale, which spares a product
// a weight; sums are f32, per lane in ascending order by fma, then over the lanes in a
// tree that is the same for every number of columns.
//
// A column's result has the same bits whatever the number of columns.

constant constexpr int simdgroup_rows = 4;

// Rows is where four rows of weights begin.
struct Rows {
	device const uchar *w[simdgroup_rows];
};

// dot4 is sum + a . b in a fixed order.
inline float dot4(float4 a, float4 b, float sum) { return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum)))); }

// multiply is the lane's part of the products of four rows and N columns, which
// begin at x + at[column].
template <class F, int N>
inline void multiply(thread float (&sum)[simdgroup_rows * N], thread const Rows &rows, device const float *x, thread const uint (&at)[N], uint cols, uint lane,
                     threadgroup const half *table) {
	for (uint strip = lane; 16 * strip < cols; strip += 32) {
		typename F::Raw raw[simdgroup_rows];
#pragma unroll
		for (int r = 0; r < simdgroup_rows; r++)
			raw[r] = F::load(rows.w[r], strip, cols);
		vec<typename F::Value, 4> w[simdgroup_rows][4];
#pragma unroll
		for (int r = 0; r < simdgroup_rows; r++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				w[r][i] = values(raw[r], i, table);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float part[simdgroup_rows] = {0, 0, 0, 0}, total = 0;
#pragma unroll
			for (int i = 0; i < 4; i++) {
				float4 v = input4<F>(x + at[j], 16 * strip + 4 * i, cols);
				total += (v.x + v.y) + (v.z + v.w);
#pragma unroll
				for (int r = 0; r < simdgroup_rows; r++)
					part[r] = dot4(float4(w[r][i]), v, part[r]);
			}
#pragma unroll
			for (int r = 0; r < simdgroup_rows; r++)
				sum[r * N + j] = scaled(raw[r], part[r], total, sum[r * N + j]);
		}
	}
}

// over_lanes gives lane l the sum over all lanes of value l*M/32: lanes that differ in a bit
// share the values between them, half each, so that 32 sums take 31 shuffles.
template <int M> inline float over_lanes(thread float (&v)[M], uint lane) {
	int n = M;
#pragma unroll
	for (ushort bit = 16; bit > 0; bit /= 2) {
		bool upper = lane & bit;
		n /= 2;
#pragma unroll
		for (int i = 0; i < n; i++)
			v[i] = (upper ? v[i + n] : v[i]) + simd_shuffle_xor(upper ? v[i] : v[i + n], bit);
		if (n == 0)
			v[0] += simd_shuffle_xor(v[0], bit);
	}
	return v[0];
}

// sums is the products of four rows and the columns of c: lanes 8r.. have those of
// row r, lane 8r + 8j/N that of column j.
template <class F, int N>
inline float sums(thread const Rows &rows, constant Product &p, thread const Columns &c, device const uchar *scratch, uint lane, threadgroup const half *table) {
	uint at[N];
	float sum[simdgroup_rows * N];
#pragma unroll
	for (int j = 0; j < N; j++)
		at[j] = input_of(c, j) * uint(p.ldx);
#pragma unroll
	for (int i = 0; i < simdgroup_rows * N; i++)
		sum[i] = 0;
	multiply<F, N>(sum, rows, (device const float *)(scratch + p.x), at, uint(p.cols), lane, table);
	return over_lanes(sum, lane);
}

// product is four rows of a matrix, from `first` on, and N columns.
template <class F, int N>
inline void product(constant Product &p, thread const Place &at, uint first, thread const Columns &c, device uchar *scratch, device const uchar *constants, uint lane,
                    threadgroup const half *table) {
	Rows rows;
#pragma unroll
	for (int r = 0; r < simdgroup_rows; r++)
		rows.w[r] = at.w + min(first + r, at.rows - 1) * row_bytes<F>(uint(p.cols));
	float sum = sums<F, N>(rows, p, c, scratch, lane, table);
	uint row = first + lane / 8, column = lane % 8 * N / 8;
	if (lane % (8 / N) != 0 || row >= at.rows || column >= c.n)
		return;
	if (at.bias)
		sum += ((device const float *)(constants + at.bias))[row];
	device float *y = floats(scratch, at.y) + (ulong(slot_of(c, column)) * at.ldy + row);
	*y = p.add ? *y + sum : sum;
}

// Gate is act = silu(m[0] x) * (m[1] x), (n, ldact) f32.
struct Gate {
	Product p;
	ulong act;
	int ldact, spare;
};

// gate is two rows of the activation, from `first` on, and N columns.
template <class F, int N>
inline void gate(constant Gate &g, device const uchar *w0, device const uchar *w1, uint first, thread const Columns &c, device uchar *scratch, uint lane,
                 threadgroup const half *table) {
	constant Product &p = g.p;
	uint count = uint(p.m[0].rows);
	Rows rows;
#pragma unroll
	for (int r = 0; r < 2; r++) {
		ulong row = min(first + r, count - 1) * row_bytes<F>(uint(p.cols));
		rows.w[2 * r] = w0 + ulong(c.expert) * p.m[0].stride + row;
		rows.w[2 * r + 1] = w1 + ulong(c.expert) * p.m[1].stride + row;
	}
	float sum = sums<F, N>(rows, p, c, scratch, lane, table), up = simd_shuffle_xor(sum, 8);
	uint row = first + lane / 16, column = lane % 8 * N / 8;
	if (lane / 8 % 2 != 0 || lane % (8 / N) != 0 || row >= count || column >= c.n)
		return;
	floats(scratch, g.act)[ulong(slot_of(c, column)) * uint(g.ldact) + row] = silu(sum) * up;
}

// FOR_COLUMNS calls f<FORMAT, N> with the least N that has room for n columns: of those
// of an expert there may be fewer than the batch has.
#define FOR_COLUMNS(n, f, ...) \
	if ((n) == 1) \
		f<FORMAT, 1>(__VA_ARGS__); \
	else if ((n) == 2) \
		f<FORMAT, 2>(__VA_ARGS__); \
	else if ((n) <= 4) \
		f<FORMAT, 4>(__VA_ARGS__); \
	else \
		f<FORMAT, 8>(__VA_ARGS__)

// --- kernels. Grid: x = blocks of 8 rows of every matrix (4 of a gate and an up
// matrix), z = active experts at most; two simdgroups. The kernels for one column
// need a third of the registers of those for 2 to 8, so that more of them run.

#define MATVEC(RUN) \
	threadgroup half table[16]; \
	Columns c = columns_of(p, scratch, group.z); \
	if (c.expert < 0) \
		return; \
	copy_table<FORMAT>(table, t); \
	Place at = place(p, w0, w1, w2, group.x, 2 * simdgroup_rows, c.expert); \
	uint first = at.first + simdgroup * simdgroup_rows; \
	if (first >= at.rows) \
		return; \
	RUN

[[max_total_threads_per_threadgroup(64)]] kernel void JOIN(matvec, NAME)(constant Product &p [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) {
	MATVEC((product<FORMAT, 1>(p, at, first, c, scratch, constants, lane, table)));
}
[[max_total_threads_per_threadgroup(64)]] kernel void JOIN(matvec8, NAME)(constant Product &p [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) {
	MATVEC(FOR_COLUMNS(c.n, product, p, at, first, c, scratch, constants, lane, table));
}

#define MATVEC_GATE(RUN) \
	threadgroup half table[16]; \
	Columns c = columns_of(g.p, scratch, group.z); \
	if (c.expert < 0) \
		return; \
	copy_table<FORMAT>(table, t); \
	uint first = group.x * simdgroup_rows + simdgroup * 2; \
	if (first >= uint(g.p.m[0].rows)) \
		return; \
	RUN

[[max_total_threads_per_threadgroup(64)]] kernel void JOIN(matvec_gate, NAME)(constant Gate &g [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) {
	MATVEC_GATE((gate<FORMAT, 1>(g, w0, w1, first, c, scratch, lane, table)));
}
[[max_total_threads_per_threadgroup(64)]] kernel void JOIN(matvec8_gate, NAME)(constant Gate &g [[buffer(0)]], PRODUCT_BUFFERS, PRODUCT_POSITION) {
	MATVEC_GATE(FOR_COLUMNS(c.n, gate, g, w0, w1, first, c, scratch, lane, table));
}
