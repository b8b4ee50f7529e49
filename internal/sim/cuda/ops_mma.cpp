// Matrix products of a warp (mma.sync). Rows of operands are loaded from the
// registers as they lie (fragments.h).
#include "decode.h"
#include "fragments.h"
#include "half.h"

namespace sim {
namespace {

struct Shape {
  uint8_t m, n, k;
  Number a, b;
  bool half_sum, saturates;
};

const uint32_t* source(Warp& w, const Instr& i, int n) { return w.row<uint32_t>(w.block->kernel->rows[static_cast<size_t>(i.more + n)]); }
uint32_t* result(Warp& w, const Instr& i, int n) { return w.row<uint32_t>(w.block->kernel->rows[static_cast<size_t>(i.more + n)]); }

void counted(Warp& w, uint64_t macs) {
  w.block->tally.mma++;
  w.block->tally.macs += macs;
  w.sync++;
}

// 16 rows. Products are exact; they are added in f32 in the order of k.
template <int K, Number N>
void mma_real(Warp& w, const Instr& i, uint32_t) {
  Shape s;
  memcpy(&s, &i.offset, sizeof s);
  int sums = s.half_sum ? 2 : 4, a_at = sums, b_at = a_at + K / 4, c_at = b_at + K / 8;
  alignas(32) float a[16][K];
  __m256 b[K], c[16], columns[8];
  for (int r = 0; r < K / 4; r++) {
    const uint32_t* v = source(w, i, a_at + r);
    for (int q = 0; q < 8; q++) _mm256_store_ps(&a[r % 2 * 8 + q][r / 2 * 8], eight<N>(v + 4 * q));
  }
  for (int r = 0; r < K / 8; r++) {
    const uint32_t* v = source(w, i, b_at + r);
    for (int q = 0; q < 8; q++) columns[q] = eight<N>(v + 4 * q);
    transpose(columns, b + 8 * r);
  }
  for (int r = 0; r < 16; r++)
    c[r] = s.half_sum ? eight<Number::f16>(source(w, i, c_at + r / 8) + r % 8 * 4)
                      : _mm256_castsi256_ps(joined(source(w, i, c_at + r / 8 * 2), source(w, i, c_at + r / 8 * 2 + 1), r % 8));
  add_products<K>(a, b, c);
  for (int r = 0; r < 16; r++) {
    if (!s.half_sum) {
      part(_mm256_castps_si256(c[r]), result(w, i, r / 8 * 2), result(w, i, r / 8 * 2 + 1), r % 8);
      continue;
    }
    alignas(32) float f[8];
    _mm256_store_ps(f, c[r]);
    uint32_t* d = result(w, i, r / 8) + r % 8 * 4;
    for (int n = 0; n < 4; n++) d[n] = float_to_f16(f[2 * n]) | float_to_f16(f[2 * n + 1]) << 16;
  }
  counted(w, 16 * 8 * K);
}

// 16 bytes as numbers of 16 bits.
__m256i sixteen(Number t, const uint32_t* p) {
  __m128i v = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
  return t == Number::s8 ? _mm256_cvtepi8_epi16(v) : _mm256_cvtepu8_epi16(v);
}

// The sum of each of 8 vectors.
__m256i sums_of(const __m256i* s) {
  __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
  __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(s[4], s[5]), _mm256_hadd_epi32(s[6], s[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

__m256i saturated_sum(__m256i a, __m256i b) {
  alignas(32) int32_t x[8], y[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(x), a);
  _mm256_store_si256(reinterpret_cast<__m256i*>(y), b);
  for (int n = 0; n < 8; n++) {
    int64_t sum = int64_t{x[n]} + y[n];
    x[n] = static_cast<int32_t>(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
  }
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(x));
}

template <int M, int K>
void mma_integer(Warp& w, const Instr& i, uint32_t) {
  Shape s;
  memcpy(&s, &i.offset, sizeof s);
  constexpr int steps = K / 16, bands = M / 8;
  int a_at = 2 * bands, b_at = a_at + bands * steps, c_at = b_at + steps;
  __m256i b[steps][8], sums[M];
  for (int k = 0; k < steps; k++)
    for (int n = 0; n < 8; n++) b[k][n] = sixteen(s.b, source(w, i, b_at + k) + 4 * n);
  for (int r = 0; r < M; r++) {
    __m256i row[8];
    __m256i a = sixteen(s.a, source(w, i, a_at + r / 8) + r % 8 * 4);
    for (int n = 0; n < 8; n++) row[n] = _mm256_madd_epi16(a, b[0][n]);
    for (int k = 1; k < steps; k++) {
      a = sixteen(s.a, source(w, i, a_at + k * bands + r / 8) + r % 8 * 4);
      for (int n = 0; n < 8; n++) row[n] = _mm256_add_epi32(row[n], _mm256_madd_epi16(a, b[k][n]));
    }
    __m256i c = joined(source(w, i, c_at + r / 8 * 2), source(w, i, c_at + r / 8 * 2 + 1), r % 8);
    sums[r] = s.saturates ? saturated_sum(c, sums_of(row)) : _mm256_add_epi32(c, sums_of(row));
  }
  for (int r = 0; r < M; r++) part(sums[r], result(w, i, r / 8 * 2), result(w, i, r / 8 * 2 + 1), r % 8);
  counted(w, M * 8 * K);
}

Handler product(const Shape& s) {
  if (s.a == Number::s8 || s.a == Number::u8)
    return s.m == 8 && s.k == 16 ? mma_integer<8, 16> : s.m == 16 && s.k == 16 ? mma_integer<16, 16> : s.m == 16 && s.k == 32 ? mma_integer<16, 32> : nullptr;
  if (s.m != 16) return nullptr;
  bool half = s.a == Number::f16;
  return s.k == 8 ? (half ? mma_real<8, Number::f16> : mma_real<8, Number::bf16>) : s.k == 16 ? (half ? mma_real<16, Number::f16> : mma_real<16, Number::bf16>) : nullptr;
}

Number take_number(Decoder& d) {
  switch (d.take_type()) {
    case Type::f16: return Number::f16;
    case Type::bf16: return Number::bf16;
    case Type::s8: return Number::s8;
    case Type::u8: return Number::u8;
    default: d.refuse("type not supported");
  }
}

void decode_mma(Decoder& d, Instr& i) {
  if (!d.take("sync") || !d.take("aligned")) d.refuse("sync.aligned is missing");
  static constexpr struct { const char* name; uint8_t m, n, k; } shapes[] = {{"m16n8k8", 16, 8, 8}, {"m16n8k16", 16, 8, 16},
                                                                              {"m16n8k32", 16, 8, 32}, {"m8n8k16", 8, 8, 16}};
  Shape s{};
  for (auto& shape : shapes)
    if (d.take(shape.name)) s.m = shape.m, s.n = shape.n, s.k = shape.k;
  if (!s.m) d.refuse("shape not supported");
  if (!d.take("row") || !d.take("col")) d.refuse("only row.col");
  s.saturates = d.take("satfinite");
  Type sum = d.take_type();
  s.a = take_number(d);
  s.b = take_number(d);
  Type c = d.take_type();
  bool integer = s.a == Number::s8 || s.a == Number::u8;
  s.half_sum = sum == Type::f16;
  if (sum != c || (integer ? sum != Type::s32 : sum != Type::f32 && !(s.half_sum && s.a == Number::f16))) d.refuse("types of the sums not supported");
  if (!integer && (s.a != s.b || s.saturates)) d.refuse("types not supported");
  i.run = product(s);
  if (!i.run) d.refuse("shape not supported for these types");
  bool turing = (s.a == Number::f16 && s.k == 8) || (integer && s.m == 8);
  d.need(turing ? 75 : 80, turing ? 65 : 70, "this mma");
  int per = integer ? 4 : 2;
  size_t sums = static_cast<size_t>(s.half_sum ? s.m / 8 : s.m / 4), as = static_cast<size_t>(s.m / 8 * s.k / (4 * per)), bs = static_cast<size_t>(s.k / (4 * per));
  std::vector<int32_t> rows, sources;
  auto take = [&](size_t n, size_t count, bool to) {
    const Operand& o = d.arg(n);
    std::vector<Operand> parts = o.kind == Operand::vector ? o.parts : std::vector<Operand>{o};
    if (parts.size() != count) d.refuse("operand " + std::to_string(n) + " has " + std::to_string(parts.size()) + " registers instead of " + std::to_string(count));
    for (auto& part : parts) (to ? rows : sources).push_back(to ? d.dst(part, Type::b32) : d.src(part, Type::b32));
  };
  take(1, as, false);
  take(2, bs, false);
  take(3, sums, false);
  take(0, sums, true);
  rows.insert(rows.end(), sources.begin(), sources.end());
  i.more = d.more(rows);
  i.flow = Flow::collective;
  memcpy(&i.offset, &s, sizeof s);
}

}  // namespace

std::vector<Op> mma_ops() { return {{"mma", decode_mma}}; }

}  // namespace sim
