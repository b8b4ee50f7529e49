// Arithmetic in f16 and bf16, single and in pairs, each result rounded once.
#include <cmath>

#include "decode.h"
#include "half.h"
#include "lanes.h"

namespace sim {
namespace {

enum Op3 : uint8_t { add, sub, mul, fma, min, max, neg, abs, ex2, tanh };
enum : uint8_t { relu = 1, sat = 2, strict_nan = 4, ftz = 8 };

// a*b+c rounded to odd in double precision, so that one more rounding is right.
double fused(double a, double b, double c) {
  double p = a * b, s = p + c;
  double z = s - p, e = (p - (s - z)) + (c - z);
  if (e == 0 || e != e || std::isinf(s)) return s;
  uint64_t bits = to_cell(s);
  if (!(bits & 1)) bits = (e > 0) == (s > 0) ? bits + 1 : bits - 1;
  return from_cell<double>(bits);
}

template <class H>
uint32_t extreme(uint32_t a, uint32_t b, bool want_max, bool strict) {
  float x = H::load(a), y = H::load(b);
  if (x != x || y != y) return strict || (x != x && y != y) ? H::nan : (x != x ? b : a) & 0xffff;
  bool first = x == y ? (a >> 15 & 1) != static_cast<uint32_t>(want_max) : (x < y) != want_max;
  return (first ? a : b) & 0xffff;
}

template <class H, Op3 O>
uint32_t one(uint32_t a, uint32_t b, uint32_t c, uint8_t flag) {
  uint32_t r;
  auto load = [&](uint32_t v) {
    float f = H::load(v);
    return flag & ftz && std::fabs(f) < 0x1p-14f && std::is_same_v<H, F16> ? std::copysign(0.0f, f) : f;
  };
  if constexpr (O == neg) return (a ^ 0x8000) & 0xffff;
  else if constexpr (O == abs) return a & 0x7fff;
  else if constexpr (O == min || O == max) r = extreme<H>(a, b, O == max, flag & strict_nan);
  else if constexpr (O == ex2) r = H::store(std::exp2(load(a)));
  else if constexpr (O == tanh) r = H::store(std::tanh(load(a)));
  else if constexpr (O == fma) r = H::store(round_to_odd(fused(static_cast<double>(load(a)), static_cast<double>(load(b)), static_cast<double>(load(c)))));
  else if constexpr (O == mul) r = H::store(load(a) * load(b));
  else {
    double y = static_cast<double>(load(b));
    r = H::store(round_to_odd(fused(static_cast<double>(load(a)), 1.0, O == sub ? -y : y)));
  }
  float f = H::load(r);
  if (flag & relu && f < 0) r = 0;
  if (flag & sat) r = f != f || f <= 0 ? 0 : f > 1 ? H::store(1.0f) : r;
  if (flag & ftz && std::is_same_v<H, F16> && std::fabs(f) < 0x1p-14f) r &= 0x8000;
  return r;
}

template <class H, Op3 O, bool Pair>
void run(Warp& w, const Instr& i, uint32_t m) {
  uint8_t flag = i.flag;
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [flag](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r = one<H, O>(a & 0xffff, b & 0xffff, c & 0xffff, flag);
    return Pair ? r | one<H, O>(a >> 16, b >> 16, c >> 16, flag) << 16 : r;
  });
}

// f16 without modifiers, 8 numbers at once. A sum or product in f32 has the bits
// that make a second rounding right; of a*b+c the sum is rounded to odd.
template <Op3 O>
__m128i eight(__m128i a, __m128i b, __m128i c) {
  __m256 x = _mm256_cvtph_ps(a), y = _mm256_cvtph_ps(b), r;
  if constexpr (O == add) r = _mm256_add_ps(x, y);
  else if constexpr (O == sub) r = _mm256_sub_ps(x, y);
  else if constexpr (O == mul) r = _mm256_mul_ps(x, y);
  else {
    // what the sum lost, exactly (Knuth's two-sum; the product is exact)
    __m256 p = _mm256_mul_ps(x, y), z = _mm256_cvtph_ps(c), s = _mm256_add_ps(p, z), v = _mm256_sub_ps(s, p);
    __m256 lost = _mm256_add_ps(_mm256_sub_ps(p, _mm256_sub_ps(s, v)), _mm256_sub_ps(z, v));
    __m256i bits = _mm256_castps_si256(s), inexact = _mm256_castps_si256(_mm256_cmp_ps(lost, _mm256_setzero_ps(), _CMP_NEQ_OQ));
    // signs that differ: the sum is too large in size, and one less is its truncation
    __m256i less = _mm256_and_si256(_mm256_srai_epi32(_mm256_xor_si256(bits, _mm256_castps_si256(lost)), 31), inexact);
    bits = _mm256_add_epi32(bits, less);
    r = _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_srli_epi32(inexact, 31)));
  }
  __m128i h = _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT), size = _mm_and_si128(h, _mm_set1_epi16(0x7fff));
  return _mm_blendv_epi8(h, _mm_set1_epi16(0x7fff), _mm_cmpgt_epi16(size, _mm_set1_epi16(0x7c00)));
}

template <Op3 O>
void pairs(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<uint32_t>(i.d), *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b), *c = w.row<uint32_t>(i.c);
  auto load = [](const uint32_t* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); };
  alignas(32) uint32_t r[32];
  for (int l = 0; l < 32; l += 4) _mm_store_si128(reinterpret_cast<__m128i*>(r + l), eight<O>(load(a + l), load(b + l), load(c + l)));
  if (m == all_lanes) memcpy(d, r, sizeof r);
  else LANES d[l] = on(m, l) ? r[l] : d[l];
}

Handler quick(std::string_view op) { return op == "add" ? pairs<add> : op == "sub" ? pairs<sub> : op == "mul" ? pairs<mul> : op == "fma" ? pairs<fma> : nullptr; }

template <Op3 O>
Handler handler(Type t) {
  switch (t) {
    case Type::f16: return run<F16, O, false>;
    case Type::f16x2: return run<F16, O, true>;
    case Type::bf16: return run<BF16, O, false>;
    default: return run<BF16, O, true>;
  }
}

struct Known {
  const char* name;
  int operands;
  Handler (*of)(Type);
};

constexpr Known known[] = {{"add", 2, handler<add>}, {"sub", 2, handler<sub>}, {"mul", 2, handler<mul>}, {"fma", 3, handler<fma>}, {"min", 2, handler<min>},
                           {"max", 2, handler<max>}, {"neg", 1, handler<neg>}, {"abs", 1, handler<abs>}, {"ex2", 1, handler<ex2>}, {"tanh", 1, handler<tanh>}};

}  // namespace

void decode_half_arithmetic(Decoder& d, Instr& i) {
  auto op = d.statement().op[0];
  d.take("rn");
  if (d.take("approx") != (op == "ex2" || op == "tanh")) d.refuse("approx is missing or misplaced");
  if (d.take("ftz")) i.flag |= ftz;
  if (d.take("sat")) i.flag |= sat;
  if (d.take("relu")) i.flag |= relu;
  if (d.take("NaN")) i.flag |= strict_nan;
  Type t = d.take_type();
  bool bf16 = t == Type::bf16 || t == Type::bf16x2;
  if (op == "add" || op == "sub" || op == "mul") bf16 ? d.need(90, 78, "bf16 add, sub and mul") : d.need(53, 42, "f16 arithmetic");
  else if (op == "min" || op == "max" || bf16) d.need(80, 70, "this form");
  if (op == "ex2" || op == "tanh") bf16 ? d.need(90, 78, "this form") : d.need(75, 70, "this form");
  for (auto& k : known) {
    if (op != k.name) continue;
    i.a = i.b = i.c = d.src(1, t);
    if (k.operands > 1) i.b = i.c = d.src(2, t);
    if (k.operands > 2) i.c = d.src(3, t);
    i.d = d.dst(0, t);
    i.run = k.of(t);
    if (Handler h = quick(op); h && t == Type::f16x2 && !i.flag) i.run = h;
    return;
  }
  d.refuse("type not supported");
}

}  // namespace sim
