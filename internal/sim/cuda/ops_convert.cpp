// cvt: between all numeric types, with every rounding. Common ones have loops
// of their own, the others go through a description in Instr::offset.
#include <cfenv>
#include <cmath>

#include "decode.h"
#include "half.h"
#include "lanes.h"

namespace sim {
namespace {

enum Round : uint8_t { none, rn, rz, rm, rp, rni, rzi, rmi, rpi, rna };

struct Mode {
  Type to, from;
  Round round;
  bool sat, ftz, relu, wide_d, wide_a;
};

int64_t pack_mode(const Mode& m) {
  int64_t v = 0;
  static_assert(sizeof m <= 8);
  memcpy(&v, &m, sizeof m);
  return v;
}

inline float flush(float x) { return float_of((bits_of(x) & 0x7f800000) ? bits_of(x) : bits_of(x) & 0x80000000); }

double to_integral(double x, Round r) {
  switch (r) {
    case rni: return std::nearbyint(x);
    case rmi: return std::floor(x);
    case rpi: return std::ceil(x);
    case rzi: return std::trunc(x);
    default: return x;
  }
}

// The bits of an integer type's value, clamped to its range.
uint64_t clamped(double x, Type t) {
  if (x != x) return bytes(t) == 8 ? uint64_t{1} << 63 : 0;
  unsigned bits = 8 * bytes(t);
  uint64_t keep = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  if (is_signed(t)) {
    double top = std::ldexp(1.0, static_cast<int>(bits) - 1);
    if (x >= top) return keep >> 1;
    if (x < -top) return (keep >> 1) + 1;
    return static_cast<uint64_t>(static_cast<int64_t>(x)) & keep;
  }
  if (x < 0) return 0;
  return x >= std::ldexp(1.0, static_cast<int>(bits)) ? keep : static_cast<uint64_t>(x);
}

float directed_float(double x, Round r) {
  float f = static_cast<float>(x);
  double back = static_cast<double>(f);
  if (x != x || back == x) return f;
  bool up = r == rp || (r == rz && x < 0), down = r == rm || (r == rz && x > 0);
  if (up && back < x) return std::nextafter(f, INFINITY);
  if (down && back > x) return std::nextafter(f, -INFINITY);
  return f;
}

// 16 bits by directed rounding: nearest, then one step back where it went too far.
template <class H>
uint32_t directed_half(double x, Round r) {
  uint32_t h = H::store(round_to_odd(x));
  double back = static_cast<double>(H::load(h));
  if (x != x || back == x) return h;
  bool toward_zero = r == rz || (r == rm && x > 0) || (r == rp && x < 0);
  bool away = (r == rp && x > 0) || (r == rm && x < 0);
  if (toward_zero && std::fabs(back) > std::fabs(x)) h--;
  if (away && std::fabs(back) < std::fabs(x)) h++;
  return h;
}

float tf32(float f) {
  uint32_t b = bits_of(f);
  return f != f ? float_of(0x7fffffff) : float_of((b + 0x1000) & ~0x1fffu);  // ties away from zero
}

uint64_t from_real(double x, const Mode& m) {
  switch (m.to) {
    case Type::f32: {
      float f = m.round >= rni && m.round <= rpi ? static_cast<float>(to_integral(x, m.round)) : m.round > rn ? directed_float(x, m.round) : static_cast<float>(x);
      if (m.ftz) f = flush(f);
      if (m.sat) f = f != f || f <= 0 ? 0.0f : f > 1 ? 1.0f : f;
      return bits_of(f);
    }
    case Type::f64: return to_cell(m.sat ? (x != x || x <= 0 ? 0 : x > 1 ? 1 : x) : to_integral(x, m.round));
    case Type::tf32: return bits_of(tf32(static_cast<float>(x)));
    case Type::f16: case Type::bf16: {
      if (m.round >= rni && m.round <= rpi) x = to_integral(x, m.round);
      if (m.sat) x = x != x || x <= 0 ? 0 : x > 1 ? 1 : x;
      if (m.relu && x < 0) x = 0;
      bool half = m.to == Type::f16;
      return half ? directed_half<F16>(x, m.round) : directed_half<BF16>(x, m.round);
    }
    default: return clamped(to_integral(x, m.round), m.to);
  }
}

double real_of(uint64_t c, const Mode& m) {
  switch (m.from) {
    case Type::f64: return from_cell<double>(c);
    case Type::f32: return static_cast<double>(m.ftz ? flush(float_of(static_cast<uint32_t>(c))) : float_of(static_cast<uint32_t>(c)));
    case Type::f16: return static_cast<double>(F16::load(static_cast<uint32_t>(c)));
    default: return static_cast<double>(BF16::load(static_cast<uint32_t>(c)));
  }
}

int64_t integer_of(uint64_t c, Type t) {
  switch (t) {
    case Type::s8: return static_cast<int8_t>(c);
    case Type::u8: case Type::b8: return static_cast<uint8_t>(c);
    case Type::s16: return static_cast<int16_t>(c);
    case Type::u16: case Type::b16: return static_cast<uint16_t>(c);
    case Type::s32: return static_cast<int32_t>(c);
    case Type::u32: case Type::b32: return static_cast<uint32_t>(c);
    default: return static_cast<int64_t>(c);
  }
}

// An integer as a real with the rounding of the target: 64 bits may not fit a double.
uint64_t from_integer(uint64_t c, const Mode& m) {
  int64_t v = integer_of(c, m.from);
  bool negative = is_signed(m.from) && v < 0;
  uint64_t size = negative ? -static_cast<uint64_t>(v) : static_cast<uint64_t>(v);
  if (size >> 53 == 0 || m.to == Type::f64) {
    double x;
    if (m.round <= rn || m.to != Type::f64) x = negative ? -static_cast<double>(size) : static_cast<double>(size);
    else x = static_cast<double>(negative ? v : 0);
    return from_real(x, m);
  }
  // keep 53 bits, the last one sticky
  int drop = 11 - __builtin_clzll(size);
  uint64_t top = size >> drop | ((size & ((uint64_t{1} << drop) - 1)) != 0);
  double x = std::ldexp(static_cast<double>(top), drop);
  return from_real(negative ? -x : x, m);
}

uint64_t between_integers(uint64_t c, const Mode& m) {
  int64_t v = integer_of(c, m.from);
  if (m.sat) {
    bool huge = !is_signed(m.from) && v < 0;  // an u64 above the signed range
    unsigned bits = 8 * bytes(m.to);
    int64_t top = is_signed(m.to) ? (bits == 64 ? INT64_MAX : (int64_t{1} << (bits - 1)) - 1) : bits >= 63 ? INT64_MAX : (int64_t{1} << bits) - 1;
    int64_t bottom = is_signed(m.to) ? -top - 1 : 0;
    bool all = !is_signed(m.to) && bits == 64;
    if (huge) v = all ? v : top;
    else v = v < bottom ? bottom : v > top && !all ? top : v;
  }
  return static_cast<uint64_t>(v);
}

void convert(Warp& w, const Instr& i, uint32_t mask) {
  Mode m;
  memcpy(&m, &i.offset, sizeof m);
  unsigned width = bytes(m.to);
  uint64_t keep = width >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * width)) - 1;
  bool extend = is_signed(m.to) && width < 8;
  for (int l = 0; l < 32; l++) {
    if (!on(mask, l)) continue;
    uint64_t c = m.wide_a ? w.row<uint64_t>(i.a)[l] : w.row<uint32_t>(i.a)[l];
    uint64_t r = is_float(m.from) ? from_real(real_of(c, m), m) : is_float(m.to) ? from_integer(c, m) : between_integers(c, m);
    r &= keep;
    if (extend && r >> (8 * width - 1) & 1) r |= ~keep;
    // in a wider register a narrow result is extended; 16 bits keep their upper bits 0
    if (m.wide_d) w.row<uint64_t>(i.d)[l] = r;
    else w.row<uint32_t>(i.d)[l] = static_cast<uint32_t>(r) & static_cast<uint32_t>(i.flag ? 0xffff : ~0u);
  }
}

template <class D, class A>
void plain(Warp& w, const Instr& i, uint32_t m) {
  map1<D, A>(w, i, m, [](A a) { return static_cast<D>(a); });
}

int32_t nearest_integer(float a) {
  float r = std::nearbyintf(a);
  return a != a ? 0 : r >= 0x1p31f ? INT32_MAX : r < -0x1p31f ? INT32_MIN : static_cast<int32_t>(r);
}

int32_t truncated(float a) { return a != a ? 0 : a >= 0x1p31f ? INT32_MAX : a < -0x1p31f ? INT32_MIN : static_cast<int32_t>(a); }

// The loops of their own; null where there is none.
Handler common(const Mode& m, bool d16) {
  auto is = [&](Type to, Type from) { return m.to == to && m.from == from; };
  if (m.sat || m.ftz || m.relu) return nullptr;
  bool a32 = !m.wide_a, d32 = !m.wide_d;
  if (a32 && is(Type::f32, Type::f16)) return [](Warp& w, const Instr& i, uint32_t k) { map1<float, uint32_t>(w, i, k, [](uint32_t a) { return f16_to_float(a & 0xffff); }); };
  if (a32 && is(Type::f32, Type::bf16)) return [](Warp& w, const Instr& i, uint32_t k) { map1<float, uint32_t>(w, i, k, bf16_to_float); };
  if (m.round == rn) {
    if (is(Type::f16, Type::f32)) return [](Warp& w, const Instr& i, uint32_t k) { map1<uint32_t, float>(w, i, k, float_to_f16); };
    if (is(Type::bf16, Type::f32)) return [](Warp& w, const Instr& i, uint32_t k) { map1<uint32_t, float>(w, i, k, float_to_bf16); };
    if (a32 && is(Type::f32, Type::s32)) return plain<float, int32_t>;
    if (a32 && is(Type::f32, Type::u32)) return plain<float, uint32_t>;
    if (a32 && is(Type::f32, Type::u16)) return plain<float, uint16_t>;
    if (a32 && is(Type::f32, Type::s16)) return plain<float, int16_t>;
  }
  if (d32 && is(Type::s32, Type::f32) && m.round == rzi) return [](Warp& w, const Instr& i, uint32_t k) { map1<int32_t, float>(w, i, k, truncated); };
  if (d32 && is(Type::s32, Type::f32) && m.round == rni) return [](Warp& w, const Instr& i, uint32_t k) { map1<int32_t, float>(w, i, k, nearest_integer); };
  if (m.round != none || is_float(m.to) || is_float(m.from)) return nullptr;
  unsigned to = bytes(m.to);
  if (m.wide_d && a32 && to == 8) {
    switch (m.from) {
      case Type::u32: return plain<uint64_t, uint32_t>;
      case Type::s32: return plain<int64_t, int32_t>;
      case Type::u16: return plain<uint64_t, uint16_t>;
      case Type::s16: return plain<int64_t, int16_t>;
      default: return nullptr;
    }
  }
  if (d32 && m.wide_a && to == 4) return plain<uint32_t, uint64_t>;
  if (d32 && a32 && to == 4) {
    switch (m.from) {
      case Type::u32: case Type::s32: return plain<uint32_t, uint32_t>;
      case Type::u16: return plain<uint32_t, uint16_t>;
      case Type::s16: return plain<int32_t, int16_t>;
      case Type::u8: return plain<uint32_t, uint8_t>;
      case Type::s8: return plain<int32_t, int8_t>;
      default: return nullptr;
    }
  }
  if (d16 && a32 && to == 2) {
    switch (m.from) {
      case Type::u32: case Type::s32: case Type::u16: case Type::s16: return plain<uint16_t, uint16_t>;
      case Type::u8: return plain<uint16_t, uint8_t>;
      case Type::s8: return plain<int16_t, int8_t>;
      default: return nullptr;
    }
  }
  return nullptr;
}

// cvt.rn.f16x2.f32 d, a, b: a to the upper half
template <class H, bool Relu>
void pair_of(Warp& w, const Instr& i, uint32_t m) {
  map2<uint32_t, float, float>(w, i, m, [](float a, float b) {
    if (Relu) a = a < 0 ? 0 : a, b = b < 0 ? 0 : b;
    return H::store(a) << 16 | H::store(b);
  });
}

void decode_pair(Decoder& d, Instr& i, const Mode& m) {
  bool half = m.to == Type::f16x2;
  d.need(80, 70, half ? "cvt to f16x2" : "cvt to bf16x2");
  if (m.round != rn || m.sat || m.from != Type::f32) d.refuse("this form of conversion is not supported");
  i.a = d.src(1, Type::f32);
  i.b = d.src(2, Type::f32);
  i.d = d.dst(0, m.to);
  i.run = half ? (m.relu ? pair_of<F16, true> : pair_of<F16, false>) : (m.relu ? pair_of<BF16, true> : pair_of<BF16, false>);
}

// cvt.pack.sat.u8.s32.b32 d, a, b, c: a and b saturated above what is left of c
void decode_pack(Decoder& d, Instr& i) {
  d.need(72, 65, "cvt.pack");
  if (!d.take("sat")) d.refuse("sat is missing");
  Type to = d.take_type(), from = d.take_type();
  bool with = d.take("b32");
  if (from != Type::s32 || bytes(to) > 2 || (with && bytes(to) != 1)) d.refuse("type not supported");
  i.a = d.src(1, from);
  i.b = d.src(2, from);
  i.c = with ? d.src(3, Type::b32) : d.constant(false, 0);
  i.d = d.dst(0, Type::b32);
  i.offset = pack_mode({to, from, none, true, false, false, false, false});
  i.run = [](Warp& w, const Instr& i, uint32_t k) {
    Mode m;
    memcpy(&m, &i.offset, sizeof m);
    unsigned bits = 8 * bytes(m.to);
    map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, k, [&](uint32_t a, uint32_t b, uint32_t c) {
      uint32_t keep = (1u << bits) - 1;
      uint32_t x = static_cast<uint32_t>(between_integers(a, m)) & keep, y = static_cast<uint32_t>(between_integers(b, m)) & keep;
      return static_cast<uint32_t>(uint64_t{c} << (2 * bits)) | x << bits | y;
    });
  };
}

void decode_cvt(Decoder& d, Instr& i) {
  if (d.take("pack")) return decode_pack(d, i);
  Mode m{};
  static constexpr struct { const char* name; Round r; } rounds[] = {{"rn", rn}, {"rz", rz}, {"rm", rm}, {"rp", rp}, {"rni", rni}, {"rzi", rzi}, {"rmi", rmi}, {"rpi", rpi}, {"rna", rna}};
  for (auto& r : rounds)
    if (d.take(r.name)) m.round = r.r;
  m.sat = d.take("sat");
  m.ftz = d.take("ftz");
  m.relu = d.take("relu");
  m.to = d.take_type();
  m.from = d.take_type();
  if (m.to == Type::f16x2 || m.to == Type::bf16x2) return decode_pair(d, i, m);
  if (is_half(m.from) && bytes(m.from) == 4) d.refuse("type not supported");
  if (m.to == Type::bf16 && m.from == Type::f32) d.need(80, 70, "cvt to bf16");
  else if (m.to == Type::bf16) d.need(90, 78, "cvt to bf16 from this type");
  if (m.from == Type::bf16 && m.to == Type::f32) d.need(80, 71, "cvt from bf16");
  else if (m.from == Type::bf16) d.need(90, 78, "cvt from bf16 to this type");
  if (m.to == Type::tf32) d.need(80, 70, "cvt to tf32");
  if (m.relu) d.need(80, 70, "cvt with .relu");
  bool narrows = is_float(m.to) && (!is_float(m.from) || bytes(m.from) > bytes(m.to) || m.to == Type::tf32);
  if (narrows && m.round == none) d.refuse("a rounding is missing");
  if (is_float(m.from) && !is_float(m.to) && m.round < rni) d.refuse("an integer rounding is missing");
  i.a = d.src_any(d.arg(1), m.from, m.wide_a);
  i.d = d.dst_any(d.arg(0), m.wide_d);
  bool d16 = d.register_bytes(0) == 2;
  i.flag = d16;
  i.offset = pack_mode(m);
  i.run = common(m, d16);
  if (!i.run) i.run = convert;
}

}  // namespace

std::vector<Op> convert_ops() { return {{"cvt", decode_cvt}}; }

}  // namespace sim
