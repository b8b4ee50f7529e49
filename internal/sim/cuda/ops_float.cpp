// Arithmetic and approximations in f32 and f64. Approximations are computed to
// about one unit in the last place, which is within what PTX promises of them.
#include <cfenv>
#include <cmath>

#include "decode.h"
#include "lanes.h"

namespace sim {
namespace {

inline float flush(float x) {
  uint32_t b = bits_of(x);
  return float_of((b & 0x7f800000) ? b : b & 0x80000000);
}

template <bool Ftz> inline float in(float x) { return Ftz ? flush(x) : x; }
template <bool Ftz> inline double in(double x) { return x; }

struct Add { template <class T> T operator()(T a, T b) const { return a + b; } };
struct Sub { template <class T> T operator()(T a, T b) const { return a - b; } };
struct Mul { template <class T> T operator()(T a, T b) const { return a * b; } };
struct Div { template <class T> T operator()(T a, T b) const { return a / b; } };
// A NaN loses to a number; -0 is less than +0.
struct Min {
  template <class T> T operator()(T a, T b) const { return a != a ? b : b != b ? a : a < b ? a : b < a ? b : std::signbit(a) ? a : b; }
};
struct Max {
  template <class T> T operator()(T a, T b) const { return a != a ? b : b != b ? a : a < b ? b : b < a ? a : std::signbit(a) ? b : a; }
};
struct MinNaN { template <class T> T operator()(T a, T b) const { return a != a || b != b ? from_cell<T>(static_cast<Cell<T>>(sizeof(T) == 4 ? 0x7fffffff : 0x7fffffffffffffff)) : Min()(a, b); } };
struct MaxNaN { template <class T> T operator()(T a, T b) const { return a != a || b != b ? from_cell<T>(static_cast<Cell<T>>(sizeof(T) == 4 ? 0x7fffffff : 0x7fffffffffffffff)) : Max()(a, b); } };
inline float saturated(float x) { return x != x ? 0.0f : x < 0 ? 0.0f : x > 1 ? 1.0f : x == 0 ? 0.0f : x; }

template <class T, class Op, bool Ftz>
void binary(Warp& w, const Instr& i, uint32_t m) {
  map2<T, T, T>(w, i, m, [](T a, T b) { return in<Ftz>(Op()(in<Ftz>(a), in<Ftz>(b))); });
}

template <class T, bool Ftz>
void multiply_add(Warp& w, const Instr& i, uint32_t m) {
  map3<T, T, T, T>(w, i, m, [](T a, T b, T c) { return in<Ftz>(std::fma(in<Ftz>(a), in<Ftz>(b), in<Ftz>(c))); });
}

// The other roundings and saturation: rare, so one lane at a time.
enum Mode : uint8_t { rn, rz, rm, rp, mode_mask = 3, saturate = 4, flushed = 8 };

int host_rounding(int flag) {
  static constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  return modes[flag & mode_mask];
}

enum Kind : uint8_t { add, sub, mul, fma, div, rcp, sqrt };

template <class T>
[[gnu::noinline]] T rounded(Kind kind, T a, T b, T c, int flag) {
  fesetround(host_rounding(flag));
  volatile T x = a, y = b, z = c, r;
  switch (kind) {
    case add: r = x + y; break;
    case sub: r = x - y; break;
    case mul: r = x * y; break;
    case fma: r = std::fma(x, y, z); break;
    case div: r = x / y; break;
    case rcp: r = 1 / x; break;
    default: r = std::sqrt(x); break;
  }
  fesetround(FE_TONEAREST);
  return r;
}

template <class T, Kind K>
void directed(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<Cell<T>>(i.d), *a = w.row<Cell<T>>(i.a), *b = w.row<Cell<T>>(i.b), *c = w.row<Cell<T>>(i.c);
  auto clean = [&](T x) { return i.flag & flushed ? in<true>(x) : x; };
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    T r = clean(rounded<T>(K, clean(from_cell<T>(a[l])), clean(from_cell<T>(b[l])), clean(from_cell<T>(c[l])), i.flag));
    if constexpr (sizeof(T) == 4) r = i.flag & saturate ? saturated(r) : r;
    d[l] = to_cell<T>(r);
  }
}

uint8_t take_mode(Decoder& d) {
  uint8_t flag = rn;
  if (d.take("rz")) flag = rz;
  else if (d.take("rm")) flag = rm;
  else if (d.take("rp")) flag = rp;
  else d.take("rn");
  if (d.take("sat")) flag |= saturate;
  if (d.take("ftz")) flag |= flushed;
  return flag;
}

template <class Op, Kind K>
Handler arithmetic(Type t, uint8_t flag) {
  if (flag & (mode_mask | saturate)) return t == Type::f64 ? Handler(directed<double, K>) : Handler(directed<float, K>);
  if (t == Type::f64) return binary<double, Op, false>;
  return flag & flushed ? Handler(binary<float, Op, true>) : Handler(binary<float, Op, false>);
}

template <class Op, class Strict>
Handler extreme(Type t, bool ftz, bool nan) {
  if (t == Type::f64) return binary<double, Op, false>;
  if (nan) return ftz ? Handler(binary<float, Strict, true>) : Handler(binary<float, Strict, false>);
  return ftz ? Handler(binary<float, Op, true>) : Handler(binary<float, Op, false>);
}

template <class Op, bool Ftz>
void unary(Warp& w, const Instr& i, uint32_t m) {
  map1<float, float>(w, i, m, [](float a) { return in<Ftz>(Op()(in<Ftz>(a))); });
}

template <class Op>
Handler unary_of(bool ftz) {
  return ftz ? Handler(unary<Op, true>) : Handler(unary<Op, false>);
}

// neg and abs touch the sign bit only
template <class C, bool Abs>
void sign(Warp& w, const Instr& i, uint32_t m) {
  constexpr C bit = C{1} << (8 * sizeof(C) - 1);
  map1<C, C>(w, i, m, [](C a) { return static_cast<C>(Abs ? a & ~bit : a ^ bit); });
}

struct Exp2 { float operator()(float x) const {
  float c = x < -200 ? -200 : x > 200 ? 200 : x;
  float n = std::nearbyintf(c), f = c - n;
  // 2^f on [-1/2, 1/2], relative error < 1e-8
  double p = 1.5252733804059841e-5;
  double g = static_cast<double>(f);
  p = p * g + 1.5403530393381608e-4;
  p = p * g + 1.3333558146428443e-3;
  p = p * g + 9.6181291076284772e-3;
  p = p * g + 5.5504108664821580e-2;
  p = p * g + 2.4022650695910072e-1;
  p = p * g + 6.9314718055994531e-1;
  p = p * g + 1.0;
  int64_t e = static_cast<int64_t>(n);
  double scale = from_cell<double>(static_cast<uint64_t>(1023 + e) << 52);
  float r = static_cast<float>(p * scale);
  return x != x ? float_of(0x7fffffff) : r;
} };
struct Log2 { float operator()(float x) const { return static_cast<float>(std::log2(static_cast<double>(x))); } };
struct Rcp { float operator()(float x) const { return 1 / x; } };
struct Rsqrt { float operator()(float x) const { return static_cast<float>(1 / std::sqrt(static_cast<double>(x))); } };
struct Sqrt { float operator()(float x) const { return std::sqrt(x); } };
struct Sin { float operator()(float x) const { return std::sin(x); } };
struct Cos { float operator()(float x) const { return std::cos(x); } };
struct Tanh { float operator()(float x) const { return std::tanh(x); } };
// div.approx: 0 where the divisor's reciprocal would be subnormal
struct DivApprox { float operator()(float a, float b) const {
  float m = std::fabs(b);
  return m > 0x1p126f && m <= 0x1.fffffep127f ? (std::isinf(a) ? float_of(0x7fffffff) : std::copysign(0.0f, a) * std::copysign(1.0f, b)) : a / b;
} };

void decode_fma(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  decode_float_arithmetic(d, i);
}

// ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh
void decode_function(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  auto op = d.statement().op[0];
  bool approx = d.take("approx");
  uint8_t flag = take_mode(d);
  bool ftz = flag & flushed;
  Type t = d.take_type();
  i.a = i.b = i.c = d.src(1, t);
  i.d = d.dst(0, t);
  i.flag = flag;
  if (t == Type::f64) {
    if (op == "rcp") i.run = approx ? Handler([](Warp& w, const Instr& i, uint32_t m) { map1<double, double>(w, i, m, [](double a) { return 1 / a; }); }) : directed<double, rcp>;
    else if (op == "sqrt") i.run = directed<double, sqrt>;
    else if (op == "rsqrt") i.run = [](Warp& w, const Instr& i, uint32_t m) { map1<double, double>(w, i, m, [](double a) { return 1 / std::sqrt(a); }); };
    else d.refuse("f64 is not supported");
    return;
  }
  if (t != Type::f32) d.refuse("type not supported");
  if (op == "ex2") i.run = unary_of<Exp2>(ftz);
  else if (op == "lg2") i.run = unary_of<Log2>(ftz);
  else if (op == "sin") i.run = unary_of<Sin>(ftz);
  else if (op == "cos") i.run = unary_of<Cos>(ftz);
  else if (op == "rsqrt") i.run = unary_of<Rsqrt>(ftz);
  else if (op == "tanh") i.run = unary_of<Tanh>(ftz), d.need(75, 70, "tanh");
  else if (op == "rcp") i.run = !approx && (flag & mode_mask) ? Handler(directed<float, rcp>) : unary_of<Rcp>(ftz);
  else i.run = !approx && (flag & mode_mask) ? Handler(directed<float, sqrt>) : unary_of<Sqrt>(ftz);
  if ((op == "ex2" || op == "lg2" || op == "sin" || op == "cos" || op == "rsqrt" || op == "tanh") && !approx) d.refuse("approx is missing");
}

void decode_testp(Decoder& d, Instr& i) {
  static constexpr const char* kinds[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  i.flag = 255;
  for (uint8_t n = 0; n < 6; n++)
    if (d.take(kinds[n])) i.flag = n;
  Type t = d.take_type();
  if (t != Type::f32 || i.flag == 255) d.refuse("only for f32, with a known test");
  i.a = d.src(1, t);
  i.d = d.dst(0, Type::pred);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint32_t bits = 0;
    for (int l = 0; l < 32; l++) {
      int c = std::fpclassify(float_of(w.row<uint32_t>(i.a)[l]));
      bool is[] = {c != FP_INFINITE && c != FP_NAN, c == FP_INFINITE, c != FP_NAN, c == FP_NAN, c == FP_NORMAL, c == FP_SUBNORMAL};
      bits |= uint32_t{is[i.flag]} << l;
    }
    uint32_t& d = w.pred(i.d);
    d = (d & ~m) | (bits & m);
  };
}

void decode_copysign(Decoder& d, Instr& i) {
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.d = d.dst(0, t);
  i.run = t == Type::f64 ? Handler([](Warp& w, const Instr& i, uint32_t m) { map2<double, double, double>(w, i, m, [](double a, double b) { return std::copysign(b, a); }); })
                         : Handler([](Warp& w, const Instr& i, uint32_t m) { map2<float, float, float>(w, i, m, [](float a, float b) { return std::copysign(b, a); }); });
}

}  // namespace

void decode_float_arithmetic(Decoder& d, Instr& i) {
  auto op = d.statement().op[0];
  bool approx = d.take("approx"), full = d.take("full"), nan = d.take("NaN");
  uint8_t flag = take_mode(d);
  bool ftz = flag & flushed;
  Type t = d.take_type();
  if (t != Type::f32 && t != Type::f64) d.refuse("type not supported");
  i.flag = flag;
  i.a = i.b = i.c = d.src(1, t);
  if (op == "neg" || op == "abs") {
    i.run = op == "abs" ? (t == Type::f64 ? Handler(sign<uint64_t, true>) : Handler(sign<uint32_t, true>))
                        : (t == Type::f64 ? Handler(sign<uint64_t, false>) : Handler(sign<uint32_t, false>));
  } else {
    i.b = i.c = d.src(2, t);
  }
  if (op == "fma" || op == "mad") {
    i.c = d.src(3, t);
    i.run = flag & (mode_mask | saturate) ? (t == Type::f64 ? Handler(directed<double, fma>) : Handler(directed<float, fma>))
            : t == Type::f64              ? Handler(multiply_add<double, false>)
            : ftz                         ? Handler(multiply_add<float, true>)
                                          : Handler(multiply_add<float, false>);
  }
  i.d = d.dst(0, t);
  if (op == "add") i.run = arithmetic<Add, add>(t, flag);
  if (op == "sub") i.run = arithmetic<Sub, sub>(t, flag);
  if (op == "mul") i.run = arithmetic<Mul, mul>(t, flag);
  if (op == "min") i.run = extreme<Min, MinNaN>(t, ftz, nan);
  if (op == "max") i.run = extreme<Max, MaxNaN>(t, ftz, nan);
  if (op == "div") {
    if (approx) i.run = ftz ? Handler(binary<float, DivApprox, true>) : Handler(binary<float, DivApprox, false>);
    else i.run = arithmetic<Div, div>(t, full ? flag & flushed : flag);
  }
}

std::vector<Op> float_ops() {
  return {{"fma", decode_fma}, {"ex2", decode_function}, {"lg2", decode_function}, {"rcp", decode_function}, {"rsqrt", decode_function},
          {"sqrt", decode_function}, {"sin", decode_function}, {"cos", decode_function}, {"tanh", decode_function}, {"testp", decode_testp},
          {"copysign", decode_copysign}};
}

}  // namespace sim
