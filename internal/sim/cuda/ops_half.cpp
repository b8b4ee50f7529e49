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
    return;
  }
  d.refuse("type not supported");
}

}  // namespace sim
