// weights.metal: how weights lie in memory, one struct for each format.
//
// A row is blocks as a GGUF file has them (internal/quant says what they mean), one
// after the other; INT8 is our own, for formats that have none here. Everything
// reads strips, 16 neighbouring columns: no format has more than one scale for those.
// load fetches a strip, as wide as the blocks' alignment allows, and brings its
// integers to bytes. values makes four columns of it numbers without their scale;
// scaled adds a strip's sum of products of such. quad is four weights, those of
// quant.Dequantize to the bit. Loading four rows before the first values keeps many
// loads under way.
//
// Bytes become numbers without conversions, of which a GPU has few units: the
// bits 0x6400 + q are the f16 number 1024 + q, two of them a word.

// What load gives. w = scale*(q - zero); scale*q + least; scale*table[q]; or the weights.
template <int zero> struct Signed {
	uint4 q;
	float scale;
};
struct Offset {
	uint4 q;
	float scale, least;
};
struct Indices {
	uint4 q;
	float scale;
};
struct Floats {
	float4 v[4];
};
struct Halves {
	half4 v[4];
};
struct Bfloats {
	ushort4 v[4];
};

// numbers is the bytes of a word less zero, exactly.
inline half4 numbers(uint bytes, int zero) {
	half less = half(1024 + zero);
	half2 even = as_type<half2>((bytes & 0x00ff00ff) | 0x64006400) - less, odd = as_type<half2>((bytes >> 8 & 0x00ff00ff) | 0x64006400) - less;
	return half4(even.x, odd.x, even.y, odd.y);
}

template <int zero> inline half4 values(thread const Signed<zero> &s, int i, threadgroup const half *) { return numbers(s.q[i], zero); }
inline half4 values(thread const Offset &s, int i, threadgroup const half *) { return numbers(s.q[i], 0); }
inline half4 values(thread const Indices &s, int i, threadgroup const half *table) {
	uint q = s.q[i];
	return half4(table[q & 15], table[q >> 8 & 15], table[q >> 16 & 15], table[q >> 24]);
}
inline float4 values(thread const Floats &s, int i, threadgroup const half *) { return s.v[i]; }
inline half4 values(thread const Halves &s, int i, threadgroup const half *) { return s.v[i]; }
inline float4 values(thread const Bfloats &s, int i, threadgroup const half *) { return as_type<float4>(uint4(s.v[i]) << 16); }

// scaled is sum + the products of a strip's weights: sum of values times inputs is
// part, the sum of inputs is total.
template <int zero> inline float scaled(thread const Signed<zero> &s, float part, float, float sum) { return fma(s.scale, part, sum); }
inline float scaled(thread const Offset &s, float part, float total, float sum) { return fma(s.least, total, fma(s.scale, part, sum)); }
inline float scaled(thread const Indices &s, float part, float, float sum) { return fma(s.scale, part, sum); }
inline float scaled(thread const Floats &, float part, float, float sum) { return sum + part; }
inline float scaled(thread const Halves &, float part, float, float sum) { return sum + part; }
inline float scaled(thread const Bfloats &, float part, float, float sum) { return sum + part; }

template <int zero> inline float4 quad(thread const Signed<zero> &s, int i, threadgroup const half *table) { return s.scale * float4(values(s, i, table)); }
inline float4 quad(thread const Offset &s, int i, threadgroup const half *table) { return fma(float4(values(s, i, table)), float4(s.scale), float4(s.least)); }
inline float4 quad(thread const Indices &s, int i, threadgroup const half *table) { return s.scale * float4(values(s, i, table)); }
inline float4 quad(thread const Floats &s, int i, threadgroup const half *table) { return values(s, i, table); }
inline float4 quad(thread const Halves &s, int i, threadgroup const half *table) { return float4(values(s, i, table)); }
inline float4 quad(thread const Bfloats &s, int i, threadgroup const half *table) { return values(s, i, table); }

// The tables of Indices, by F::table: none, IQ4_NL's, and twice the values of E2M1.
// They are read from threadgroup memory, whose banks each have two of 16 numbers.
constant half tables[3][16] = {
	{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
	{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
};
// copy_table is for all threads of a threadgroup, at least 16.
template <class F> inline void copy_table(threadgroup half *table, uint thread_index) {
	if (F::table == 0)
		return;
	if (thread_index < 16)
		table[thread_index] = tables[F::table][thread_index];
	threadgroup_barrier(mem_flags::mem_threadgroup);
}

// --- loads

// load16_N is 16 bytes that lie at a multiple of N.
inline uint4 load16_16(device const uchar *p) { return *(device const uint4 *)p; }
inline uint4 load16_4(device const uchar *p) { return uint4(*(device const packed_uint4 *)p); }
inline uint2 load8_2(device const uchar *p) { return as_type<uint2>(ushort4(*(device const packed_ushort4 *)p)); }
inline uint4 load16_2(device const uchar *p) { return uint4(load8_2(p), load8_2(p + 8)); }
inline uint load4_1(device const uchar *p) { return as_type<uint>(uchar4(*(device const packed_uchar4 *)p)); }
inline uint4 load16_1(device const uchar *p) { return uint4(load4_1(p), load4_1(p + 4), load4_1(p + 8), load4_1(p + 12)); }
inline uint load2(device const uchar *p) { return *(device const ushort *)p; }
inline float load_half(device const uchar *p) { return float(*(device const half *)p); }

// Fields of every byte: nibble i, bits 2i and 2i+1.
inline uint4 nibbles(uint4 q, uint i) { return q >> 4 * i & 0x0f0f0f0f; }
inline uint4 pairs(uint4 q, uint i) { return q >> 2 * i & 0x03030303; }
// fifth is bit 4 of 16 bytes, from 16 bits.
inline uint4 fifth(uint bits) { return (uint4(bits & 15, bits >> 4 & 15, bits >> 8 & 15, bits >> 12) * 0x00204081 & 0x01010101) << 4; }

// --- formats that may end within a strip: columns beyond the row are zeros

struct F32 {
	enum { columns = 1, bytes = 4, table = 0 };
	typedef Floats Raw;
	typedef float Value; // of values
	typedef float Tile;  // as what matmul multiplies
	static Floats load(device const uchar *row, uint strip, uint cols) {
		device const float *p = (device const float *)row + 16 * strip;
		Floats s;
#pragma unroll
		for (uint i = 0; i < 4; i++) {
			uint k = 16 * strip + 4 * i;
			if (k + 4 <= cols)
				s.v[i] = float4(*(device const packed_float4 *)(p + 4 * i));
			else
				s.v[i] = float4(k < cols ? p[4 * i] : 0, k + 1 < cols ? p[4 * i + 1] : 0, k + 2 < cols ? p[4 * i + 2] : 0, 0);
		}
		return s;
	}
};

struct BF16 {
	enum { columns = 1, bytes = 2, table = 0 };
	typedef Bfloats Raw;
	typedef float Value;
	typedef float Tile;
	static Bfloats load(device const uchar *row, uint strip, uint cols) {
		device const ushort *p = (device const ushort *)row + 16 * strip;
		Bfloats s;
#pragma unroll
		for (uint i = 0; i < 4; i++) {
			uint k = 16 * strip + 4 * i;
			if (k + 4 <= cols)
				s.v[i] = ushort4(*(device const packed_ushort4 *)(p + 4 * i));
			else
				s.v[i] = ushort4(k < cols ? p[4 * i] : 0, k + 1 < cols ? p[4 * i + 1] : 0, k + 2 < cols ? p[4 * i + 2] : 0, 0);
		}
		return s;
	}
};

struct F16 {
	enum { columns = 1, bytes = 2, table = 0 };
	typedef Halves Raw;
	typedef half Value;
	typedef half Tile;
	static Halves load(device const uchar *row, uint strip, uint cols) {
		Bfloats bits = BF16::load(row, strip, cols);
		Halves s;
#pragma unroll
		for (uint i = 0; i < 4; i++)
			s.v[i] = as_type<half4>(bits.v[i]);
		return s;
	}
};

// --- blocks of 32: strip i is the low (0) or high (1) nibbles of 16 bytes

struct Q8_0 {
	enum { columns = 32, bytes = 34, table = 0 };
	typedef Signed<128> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{load16_2(b + 2 + 16 * (strip % 2)) ^ 0x80808080, load_half(b)};
	}
};

struct Q4_0 {
	enum { columns = 32, bytes = 18, table = 0 };
	typedef Signed<8> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_2(b + 2), strip % 2), load_half(b)};
	}
};

struct Q4_1 {
	enum { columns = 32, bytes = 20, table = 0 };
	typedef Offset Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_4(b + 4), strip % 2), load_half(b), load_half(b + 2)};
	}
};

struct Q5_0 {
	enum { columns = 32, bytes = 22, table = 0 };
	typedef Signed<16> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_2(b + 6), strip % 2) | fifth(load2(b + 2 + 2 * (strip % 2))), load_half(b)};
	}
};

struct Q5_1 {
	enum { columns = 32, bytes = 24, table = 0 };
	typedef Offset Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_4(b + 8), strip % 2) | fifth(load2(b + 4 + 2 * (strip % 2))), load_half(b), load_half(b + 2)};
	}
};

struct IQ4_NL {
	enum { columns = 32, bytes = 18, table = 1 };
	typedef Indices Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_2(b + 2), strip % 2), load_half(b)};
	}
};

// e8m0_half is 2^(e-128); below 2^-126 a GPU may take it for 0.
inline float e8m0_half(uint e) { return as_type<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

struct MXFP4 {
	enum { columns = 32, bytes = 17, table = 2 };
	typedef Indices Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 2 * bytes;
		return Raw{nibbles(load16_1(b + 1), strip % 2), e8m0_half(b[0])};
	}
};

// --- blocks of 256, 16 strips

struct Q2_K {
	enum { columns = 256, bytes = 84, table = 0 };
	typedef Offset Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16, scale = b[s];
		uint4 q = pairs(load16_4(b + 16 + s / 8 * 32 + s % 2 * 16), s % 8 / 2);
		return Raw{q, load_half(b + 80) * float(scale & 15), -(load_half(b + 82) * float(scale >> 4))};
	}
};

struct Q3_K {
	enum { columns = 256, bytes = 110, table = 0 };
	typedef Signed<4> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16;
		uint4 low = pairs(load16_2(b + 32 + s / 8 * 32 + s % 2 * 16), s % 8 / 2), high = load16_2(b + s % 2 * 16) >> s / 2 & 0x01010101;
		int scale = int((b[96 + s % 8] >> s / 8 * 4 & 15) | (b[104 + s % 4] >> s / 4 * 2 & 3) << 4) - 32;
		return Raw{low | high << 2, load_half(b + 108) * float(scale)};
	}
};

// scale_and_min is of group g of the 32s of a Q4_K or Q5_K block, whose first 16 bytes are head.
inline float2 scale_and_min(uint4 head, uint g) {
	float2 d = float2(as_type<half2>(head.x));
	uint at = g % 4 * 8;
	uint s = head.y >> at, m = head.z >> at, both = head.w >> at;
	if (g < 4)
		s = s & 63, m = m & 63;
	else
		s = (both & 15) | (s >> 2 & 0x30), m = (both >> 4 & 15) | (m >> 2 & 0x30);
	return float2(d.x * float(s), -(d.y * float(m)));
}

struct Q4_K {
	enum { columns = 256, bytes = 144, table = 0 };
	typedef Offset Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16;
		float2 scale = scale_and_min(load16_16(b), s / 2);
		return Raw{nibbles(load16_16(b + 16 + s / 4 * 32 + s % 2 * 16), s / 2 % 2), scale.x, scale.y};
	}
};

struct Q5_K {
	enum { columns = 256, bytes = 176, table = 0 };
	typedef Offset Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16;
		float2 scale = scale_and_min(load16_16(b), s / 2);
		uint4 low = nibbles(load16_16(b + 48 + s / 4 * 32 + s % 2 * 16), s / 2 % 2), high = load16_16(b + 16 + s % 2 * 16) >> s / 2 & 0x01010101;
		return Raw{low | high << 4, scale.x, scale.y};
	}
};

struct Q6_K {
	enum { columns = 256, bytes = 210, table = 0 };
	typedef Signed<32> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16, half_block = s / 8;
		uint4 low = nibbles(load16_2(b + half_block * 64 + s % 4 * 16), s % 8 / 4), high = pairs(load16_2(b + 128 + half_block * 32 + s % 2 * 16), s % 8 / 2);
		return Raw{low | high << 4, load_half(b + 208) * float(as_type<char>(b[192 + s]))};
	}
};

struct IQ4_XS {
	enum { columns = 256, bytes = 136, table = 1 };
	typedef Indices Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 16 * bytes;
		uint s = strip % 16, g = s / 2;
		int scale = int((b[4 + g / 2] >> g % 2 * 4 & 15) | (load2(b + 2) >> 2 * g & 3) << 4) - 32;
		return Raw{nibbles(load16_4(b + 8 + 16 * g), s % 2), load_half(b) * float(scale)};
	}
};

// Our own (format.go's convert): blocks of 64, four f32 scales and 64 integers of 8 bits.
struct INT8 {
	enum { columns = 64, bytes = 80, table = 0 };
	typedef Signed<128> Raw;
	typedef half Value;
	typedef half Tile;
	static Raw load(device const uchar *row, uint strip, uint) {
		device const uchar *b = row + strip / 4 * bytes;
		uint s = strip % 4;
		return Raw{load16_16(b + 16 + 16 * s) ^ 0x80808080, *(device const float *)(b + 4 * s)};
	}
};

// row_bytes is the size of a row.
template <class F> inline ulong row_bytes(uint cols) { return ulong(cols / uint(F::columns)) * uint(F::bytes); }

// --- what all products share (products.go)

struct Matrix {
	ulong stride, y, bias;
	int rows, ldy;
};

// Product is y[column][row] = W x (+ bias) (+ y) for up to three matrices that
// share their input; a column is a row of the batch, or a slot of one.
struct Product {
	Matrix m[3];
	ulong x, experts;
	int matrices, cols, n, add;
	int ldx, share, total, spare;
};

// Columns says which rows of the input a threadgroup's columns are, and where its
// results go. Columns beyond the last repeat it, and nobody stores their results.
struct Columns {
	device const int *order; // slots of an expert, or 0
	uint n, used;            // with a shared input: slots of a row; else 0
	int expert;              // 0 without experts; -1: nothing to do
};
inline uint slot_of(thread const Columns &c, uint j) {
	j = min(j, c.n - 1);
	return c.order ? uint(c.order[j]) : j;
}
inline uint input_of(thread const Columns &c, uint j) { return c.used ? slot_of(c, j) / c.used : slot_of(c, j); }

// columns_of is the columns of active expert z; the list is mixture.metal's: {active, used, 0, 0},
// expert[total], first[total+1], order[n*used].
inline Columns columns_of(constant Product &p, device const uchar *scratch, uint z) {
	if (p.experts == 0)
		return Columns{nullptr, uint(p.n), 0, 0};
	device const int *list = (device const int *)(scratch + p.experts), *first = list + 4 + p.total;
	if (int(z) >= list[0])
		return Columns{nullptr, 0, 0, -1};
	int begin = first[z];
	return Columns{first + p.total + 1 + begin, uint(first[z + 1] - begin), p.share ? uint(list[1]) : 0, list[4 + z]};
}

// Place is where a threadgroup works: rows first.. of a matrix.
struct Place {
	device const uchar *w;
	ulong y, bias;
	uint first, rows, ldy;
};

// place is that of block `block` of `each` rows, counted through all matrices.
inline Place place(constant Product &p, device const uchar *w0, device const uchar *w1, device const uchar *w2, uint block, uint each, int expert) {
	int i = 0;
	for (; i + 1 < p.matrices; i++) {
		uint blocks = (uint(p.m[i].rows) + each - 1) / each;
		if (block < blocks)
			break;
		block -= blocks;
	}
	device const uchar *w = (i == 0 ? w0 : i == 1 ? w1 : w2) + ulong(expert) * p.m[i].stride;
	return Place{w, p.m[i].y, p.m[i].bias, block * each, uint(p.m[i].rows), uint(p.m[i].ldy)};
}

// input4 is values k..k+3 of a row; for formats that may end within a strip, zeros beyond.
template <class F> inline float4 input4(device const float *x, uint k, uint cols) {
	if (F::columns > 1 || k + 4 <= cols)
		return *(device const float4 *)(x + k);
	return float4(k < cols ? x[k] : 0, k + 1 < cols ? x[k + 1] : 0, k + 2 < cols ? x[k + 2] : 0, 0);
}

#define PRODUCT_BUFFERS \
	device const uchar *w0 [[buffer(1)]], device const uchar *w1 [[buffer(2)]], device const uchar *w2 [[buffer(3)]], device uchar *scratch [[buffer(4)]], \
	device const uchar *constants [[buffer(6)]]
#define PRODUCT_POSITION \
	uint3 group [[threadgroup_position_in_grid]], uint t [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]], \
	uint simdgroup [[simdgroup_index_in_threadgroup]]
