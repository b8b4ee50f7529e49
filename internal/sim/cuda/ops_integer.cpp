// Integer arithmetic, bits, comparisons and selection.
#include "decode.h"
#include "lanes.h"

namespace sim {
namespace {

struct Add { template <class T> T operator()(T a, T b) const { return static_cast<T>(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b)); } };
struct Sub { template <class T> T operator()(T a, T b) const { return static_cast<T>(std::make_unsigned_t<T>(a) - std::make_unsigned_t<T>(b)); } };
struct MulLo { template <class T> T operator()(T a, T b) const { return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); } };
struct MulHi {
  template <class T> T operator()(T a, T b) const {
    if constexpr (sizeof(T) == 8 && std::is_signed_v<T>) return static_cast<T>((static_cast<__int128>(a) * b) >> 64);
    else if constexpr (sizeof(T) == 8) return static_cast<T>((static_cast<unsigned __int128>(a) * b) >> 64);
    else {
      using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
      return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (8 * sizeof(T)));
    }
  }
};
struct Min { template <class T> T operator()(T a, T b) const { return a < b ? a : b; } };
struct Max { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct And { template <class T> T operator()(T a, T b) const { return a & b; } };
struct Or { template <class T> T operator()(T a, T b) const { return a | b; } };
struct Xor { template <class T> T operator()(T a, T b) const { return a ^ b; } };
// Division by zero gives all ones, and a remainder of the dividend: what the hardware does, undefined in PTX.
struct Div {
  template <class T> T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub()(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T> T operator()(T a, T b) const {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};

template <class T, class Op>
void binary(Warp& w, const Instr& i, uint32_t m) {
  map2<T, T, T>(w, i, m, [](T a, T b) { return Op()(a, b); });
}

template <class T> using Wider = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                                                    std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T>
void mul_wide(Warp& w, const Instr& i, uint32_t m) {
  map2<Wider<T>, T, T>(w, i, m, [](T a, T b) { return static_cast<Wider<T>>(a) * static_cast<Wider<T>>(b); });
}

template <class T>
void mad_wide(Warp& w, const Instr& i, uint32_t m) {
  using W = Wider<T>;
  map3<W, T, T, W>(w, i, m, [](T a, T b, W c) { return Add()(static_cast<W>(static_cast<W>(a) * static_cast<W>(b)), c); });
}

template <class T, class Mul>
void mad(Warp& w, const Instr& i, uint32_t m) {
  map3<T, T, T, T>(w, i, m, [](T a, T b, T c) { return Add()(Mul()(a, b), c); });
}

template <class Op>
Handler binary_of(Type t) {
  return for_integer(t, [](auto z) -> Handler { return binary<decltype(z), Op>; });
}

void three(Decoder& d, Instr& i, Type t) {
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.d = d.dst(0, t);
}

void use(Decoder& d, Instr& i, Handler h) {
  if (!h) d.refuse("type not supported");
  i.run = h;
}

template <class Op>
void decode_binary(Decoder& d, Instr& i) {
  Type t = d.take_type();
  use(d, i, binary_of<Op>(t));
  three(d, i, t);
}

// --- carries: a mask of lanes

template <bool Subtract, bool In, bool Out>
void carried(Warp& w, const Instr& i, uint32_t m) {
  auto* d = w.row<uint32_t>(i.d);
  auto* a = w.row<uint32_t>(i.a);
  auto* b = w.row<uint32_t>(i.b);
  uint32_t& cc = w.pred(i.c);
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    uint64_t in = In && on(cc, l);
    uint64_t r = Subtract ? uint64_t{a[l]} - b[l] - in : uint64_t{a[l]} + b[l] + in;
    d[l] = static_cast<uint32_t>(r);
    if (Out) cc = (cc & ~(1u << l)) | static_cast<uint32_t>(r >> 32 & 1) << l;
  }
}

template <bool Subtract>
void decode_carried(Decoder& d, Instr& i, bool in) {
  bool out = d.take("cc");
  Type t = d.take_type();
  if (bytes(t) != 4) d.refuse("carries are supported for 32 bits");
  i.run = in ? (out ? carried<Subtract, true, true> : carried<Subtract, true, false>) : carried<Subtract, false, true>;
  three(d, i, t);
  i.c = d.carry();
}

void decode_addc(Decoder& d, Instr& i) { decode_carried<false>(d, i, true); }
void decode_subc(Decoder& d, Instr& i) { decode_carried<true>(d, i, true); }

template <bool High, bool In, bool Out>
void mad_carried(Warp& w, const Instr& i, uint32_t m) {
  auto* d = w.row<uint32_t>(i.d);
  auto *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b), *c = w.row<uint32_t>(i.c);
  uint32_t& cc = w.pred(static_cast<int32_t>(i.offset));
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    uint64_t product = uint64_t{a[l]} * b[l];
    uint64_t r = (High ? product >> 32 : product & 0xffffffff) + c[l] + (In && on(cc, l));
    d[l] = static_cast<uint32_t>(r);
    if (Out) cc = (cc & ~(1u << l)) | static_cast<uint32_t>(r >> 32 & 1) << l;
  }
}

void decode_mad_carried(Decoder& d, Instr& i, bool in, bool out) {
  bool high = d.take("hi");
  if (!high && !d.take("lo")) d.refuse("lo or hi is missing");
  Type t = d.take_type();
  if (t != Type::u32) d.refuse("carries are supported for u32");
  Handler h[2][2] = {{mad_carried<false, false, true>, mad_carried<false, true, true>}, {mad_carried<true, false, true>, mad_carried<true, true, true>}};
  i.run = out ? h[high][in] : high ? mad_carried<true, true, false> : mad_carried<false, true, false>;
  i.c = d.src(3, t);
  three(d, i, t);
  i.offset = d.carry();
}

// --- add, sub, mul, mad

template <class Op, bool Subtract>
void decode_sum(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  for (auto part : d.statement().op)
    if (part == "cc") return decode_carried<Subtract>(d, i, false);
  if (d.take("sat")) {
    Type t = d.take_type();
    if (t != Type::s32) d.refuse("saturation is for s32");
    i.run = [](Warp& w, const Instr& i, uint32_t m) {
      map2<int32_t, int32_t, int32_t>(w, i, m, [](int32_t a, int32_t b) {
        int64_t r = Subtract ? int64_t{a} - b : int64_t{a} + b;
        return static_cast<int32_t>(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
      });
    };
    return three(d, i, t);
  }
  decode_binary<Op>(d, i);
}

void decode_mul(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  bool wide = d.take("wide"), high = d.take("hi");
  if (!wide && !high && !d.take("lo")) d.refuse("lo, hi or wide is missing");
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  if (!wide) {
    use(d, i, high ? binary_of<MulHi>(t) : binary_of<MulLo>(t));
    i.d = d.dst(0, t);
    return;
  }
  if (bytes(t) == 8) d.refuse("type not supported");
  use(d, i, for_integer(t, [](auto z) -> Handler { return mul_wide<decltype(z)>; }));
  i.d = d.dst(0, bytes(t) == 2 ? Type::b32 : Type::b64);
}

void decode_mad(Decoder& d, Instr& i) {
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  for (auto part : d.statement().op)
    if (part == "cc") return d.take("cc"), decode_mad_carried(d, i, false, true);
  bool wide = d.take("wide"), high = d.take("hi");
  if (!wide && !high && !d.take("lo")) d.refuse("lo, hi or wide is missing");
  Type t = d.take_type(), result = wide ? (bytes(t) == 2 ? Type::b32 : Type::b64) : t;
  if (wide && bytes(t) == 8) d.refuse("type not supported");
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.c = d.src(3, result);
  i.d = d.dst(0, result);
  use(d, i, wide   ? for_integer(t, [](auto z) -> Handler { return mad_wide<decltype(z)>; })
            : high ? for_integer(t, [](auto z) -> Handler { return mad<decltype(z), MulHi>; })
                   : for_integer(t, [](auto z) -> Handler { return mad<decltype(z), MulLo>; }));
}

void decode_madc(Decoder& d, Instr& i) {
  bool out = d.take("cc");
  decode_mad_carried(d, i, true, out);
}

template <class Op>
void decode_extreme(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  if (d.take("relu")) d.refuse(".relu is not supported for integers");
  decode_binary<Op>(d, i);
}

void decode_div(Decoder& d, Instr& i) {
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  decode_binary<Div>(d, i);
}

// --- one operand

struct Negate { template <class T> T operator()(T a) const { return Sub()(T{0}, a); } };
struct Absolute { template <class T> T operator()(T a) const { return a < 0 ? Sub()(T{0}, a) : a; } };
struct Complement { template <class T> T operator()(T a) const { return static_cast<T>(~a); } };
struct IsZero { template <class T> T operator()(T a) const { return a == 0; } };

template <class Op>
void decode_signed(Decoder& d, Instr& i) {
  if (is_half(d.peek_type())) return decode_half_arithmetic(d, i);
  if (is_float(d.peek_type())) return decode_float_arithmetic(d, i);
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.d = d.dst(0, t);
  use(d, i, for_integer(t, [](auto z) -> Handler {
        return [](Warp& w, const Instr& i, uint32_t m) { map1<decltype(z), decltype(z)>(w, i, m, Op{}); };
      }));
}

// and, or, xor, not, mov of predicates
template <class Op>
void logic(Warp& w, const Instr& i, uint32_t m) {
  uint32_t& d = w.pred(i.d);
  d = (d & ~m) | (Op()(w.pred(i.a), w.pred(i.b)) & m);
}

template <class Op>
void decode_logic(Decoder& d, Instr& i) {
  if (d.peek_type() != Type::pred) return decode_binary<Op>(d, i);
  d.take_type();
  three(d, i, Type::pred);
  i.run = logic<Op>;
}

void decode_not(Decoder& d, Instr& i) {
  if (d.peek_type() != Type::pred) return decode_signed<Complement>(d, i);
  d.take_type();
  i.a = d.src(1, Type::pred);
  i.d = d.dst(0, Type::pred);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint32_t& d = w.pred(i.d);
    d = (d & ~m) | (~w.pred(i.a) & m);
  };
}

// --- shifts: an amount beyond the width counts as the width

template <class T>
void shift_left(Warp& w, const Instr& i, uint32_t m) {
  map2<T, T, uint32_t>(w, i, m, [](T a, uint32_t n) { return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(std::make_unsigned_t<T>(a) << n); });
}

template <class T>
void shift_right(Warp& w, const Instr& i, uint32_t m) {
  constexpr uint32_t last = 8 * sizeof(T) - 1;
  map2<T, T, uint32_t>(w, i, m, [](T a, uint32_t n) {
    if (std::is_signed_v<T>) return static_cast<T>(a >> (n > last ? last : n));
    return n > last ? T{0} : static_cast<T>(a >> n);
  });
}

void decode_shift(Decoder& d, Instr& i) {
  Type t = d.take_type();
  bool left = d.statement().op[0] == "shl";
  use(d, i, left ? for_integer(t, [](auto z) -> Handler { return shift_left<decltype(z)>; })
                 : for_integer(t, [](auto z) -> Handler { return shift_right<decltype(z)>; }));
  i.a = d.src(1, t);
  i.b = d.src(2, Type::u32);
  i.d = d.dst(0, t);
}

template <bool Left, bool Wrap>
void funnel(Warp& w, const Instr& i, uint32_t m) {
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t n = Wrap ? c & 31 : c > 32 ? 32 : c;
    uint64_t v = uint64_t{b} << 32 | a;
    return static_cast<uint32_t>(Left ? (v << n) >> 32 : v >> n);
  });
}

void decode_funnel(Decoder& d, Instr& i) {
  bool left = d.take("l"), wrap;
  if (!left && !d.take("r")) d.refuse("l or r is missing");
  wrap = d.take("wrap");
  if (!wrap && !d.take("clamp")) d.refuse("wrap or clamp is missing");
  Type t = d.take_type();
  i.c = d.src(3, Type::u32);
  three(d, i, t);
  i.run = left ? (wrap ? funnel<true, true> : funnel<true, false>) : (wrap ? funnel<false, true> : funnel<false, false>);
}

// --- bits

// Byte n of the result is that of b:a which bits 4n to 4n+2 of c name, or with bit
// 4n+3 that byte's sign, eight times.
void permute(Warp& w, const Instr& i, uint32_t m) {
  auto *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b), *c = w.row<uint32_t>(i.c), *d = w.row<uint32_t>(i.d);
  auto load = [](const uint32_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); };
  const __m256i cell = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
  alignas(32) uint32_t r[32];
  for (int l = 0; l < 32; l += 8) {
    // the selectors' nibbles, one a byte
    __m256i s = _mm256_and_si256(load(c + l), _mm256_set1_epi32(0xffff));
    s = _mm256_and_si256(_mm256_or_si256(s, _mm256_slli_epi32(s, 8)), _mm256_set1_epi32(0x00ff00ff));
    s = _mm256_and_si256(_mm256_or_si256(s, _mm256_slli_epi32(s, 4)), _mm256_set1_epi32(0x0f0f0f0f));
    __m256i at = _mm256_or_si256(_mm256_and_si256(s, _mm256_set1_epi8(3)), cell);
    __m256i byte = _mm256_blendv_epi8(_mm256_shuffle_epi8(load(a + l), at), _mm256_shuffle_epi8(load(b + l), at), _mm256_slli_epi32(s, 5));
    __m256i sign = _mm256_cmpgt_epi8(_mm256_setzero_si256(), byte);
    _mm256_store_si256(reinterpret_cast<__m256i*>(r + l), _mm256_blendv_epi8(byte, sign, _mm256_slli_epi32(s, 4)));
  }
  if (m == all_lanes) memcpy(d, r, sizeof r);
  else LANES d[l] = on(m, l) ? r[l] : d[l];
}

void permute_mode(Warp& w, const Instr& i, uint32_t m) {
  static constexpr uint16_t rows[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123}, {0x0000, 0x1111, 0x2222, 0x3333},
                                          {0x3210, 0x3211, 0x3222, 0x3333}, {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  const uint16_t* table = rows[i.flag - 1];
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [table](uint32_t a, uint32_t b, uint32_t c) {
    uint64_t v = uint64_t{b} << 32 | a;
    uint32_t r = 0;
    for (int n = 0; n < 4; n++) r |= (static_cast<uint32_t>(v >> (8 * (table[c & 3] >> (4 * n) & 7))) & 255) << (8 * n);
    return r;
  });
}

void decode_prmt(Decoder& d, Instr& i) {
  static constexpr const char* modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  for (uint8_t n = 0; n < 6; n++)
    if (d.take(modes[n])) i.flag = n + 1;
  Type t = d.take_type();
  i.c = d.src(3, t);
  three(d, i, t);
  i.run = i.flag ? permute_mode : permute;
}

void decode_lop3(Decoder& d, Instr& i) {
  d.take("b32");
  if (d.take("and") || d.take("or")) d.refuse("the form with a predicate is not supported");
  i.c = d.src(3, Type::b32);
  three(d, i, Type::b32);
  if (d.arg(4).kind != Operand::integer) d.refuse("the table must be a number");
  i.flag = static_cast<uint8_t>(d.arg(4).value);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint32_t t = i.flag, pick[8];
    for (int n = 0; n < 8; n++) pick[n] = t >> n & 1 ? ~0u : 0;
    map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [&pick](uint32_t a, uint32_t b, uint32_t c) {
      return (pick[0] & ~a & ~b & ~c) | (pick[1] & ~a & ~b & c) | (pick[2] & ~a & b & ~c) | (pick[3] & ~a & b & c) | (pick[4] & a & ~b & ~c) |
             (pick[5] & a & ~b & c) | (pick[6] & a & b & ~c) | (pick[7] & a & b & c);
    });
  };
}

void decode_count(Decoder& d, Instr& i) {
  Type t = d.take_type();
  bool wide = bytes(t) == 8;
  auto op = d.statement().op[0];
  i.a = d.src(1, t);
  i.d = d.dst(0, Type::u32);
  if (op == "popc" && wide) i.run = [](Warp& w, const Instr& i, uint32_t m) { map1<uint32_t, uint64_t>(w, i, m, [](uint64_t a) { return static_cast<uint32_t>(__builtin_popcountll(a)); }); };
  if (op == "popc" && !wide) i.run = [](Warp& w, const Instr& i, uint32_t m) { map1<uint32_t, uint32_t>(w, i, m, [](uint32_t a) { return static_cast<uint32_t>(__builtin_popcount(a)); }); };
  if (op == "clz" && wide) i.run = [](Warp& w, const Instr& i, uint32_t m) { map1<uint32_t, uint64_t>(w, i, m, [](uint64_t a) { return a ? static_cast<uint32_t>(__builtin_clzll(a)) : 64u; }); };
  if (op == "clz" && !wide) i.run = [](Warp& w, const Instr& i, uint32_t m) { map1<uint32_t, uint32_t>(w, i, m, [](uint32_t a) { return a ? static_cast<uint32_t>(__builtin_clz(a)) : 32u; }); };
}

template <class T>
T reversed(T a) {
  T r = 0;
  for (unsigned n = 0; n < 8 * sizeof(T); n++) r |= (a >> n & 1) << (8 * sizeof(T) - 1 - n);
  return r;
}

void decode_brev(Decoder& d, Instr& i) {
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.d = d.dst(0, t);
  i.run = bytes(t) == 8 ? Handler([](Warp& w, const Instr& i, uint32_t m) { map1<uint64_t, uint64_t>(w, i, m, reversed<uint64_t>); })
                        : Handler([](Warp& w, const Instr& i, uint32_t m) { map1<uint32_t, uint32_t>(w, i, m, reversed<uint32_t>); });
}

// Position of the highest bit that differs from the sign, or with shiftamt its
// distance from the top; all ones when there is none.
template <class T>
void find_bit(Warp& w, const Instr& i, uint32_t m) {
  uint32_t amount = i.flag;
  map1<uint32_t, T>(w, i, m, [amount](T a) {
    uint64_t v = static_cast<std::make_unsigned_t<T>>(std::is_signed_v<T> && a < 0 ? ~a : a);
    if (!v) return ~0u;
    uint32_t at = 63 - static_cast<uint32_t>(__builtin_clzll(v));
    return amount ? 8 * static_cast<uint32_t>(sizeof(T)) - 1 - at : at;
  });
}

void decode_bfind(Decoder& d, Instr& i) {
  i.flag = d.take("shiftamt");
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.d = d.dst(0, Type::u32);
  use(d, i, for_integer(t, [](auto z) -> Handler { return find_bit<decltype(z)>; }));
}

template <class T>
void extract(Warp& w, const Instr& i, uint32_t m) {
  map3<T, T, uint32_t, uint32_t>(w, i, m, [](T a, uint32_t pos, uint32_t len) {
    using U = std::make_unsigned_t<T>;
    constexpr uint32_t bits = 8 * sizeof(T);
    pos &= 255;
    len &= 255;
    uint32_t top = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    bool sign = std::is_signed_v<T> && len != 0 && (static_cast<U>(a) >> top & 1);
    U v = pos >= bits ? 0 : static_cast<U>(a) >> pos;
    uint32_t have = pos >= bits ? 0 : len < bits - pos ? len : bits - pos;
    U keep = have >= bits ? ~U{0} : (U{1} << have) - 1;
    return static_cast<T>((v & keep) | (sign ? ~keep : 0));
  });
}

void decode_bfe(Decoder& d, Instr& i) {
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.b = d.src(2, Type::u32);
  i.c = d.src(3, Type::u32);
  i.d = d.dst(0, t);
  if (bytes(t) == 2) d.refuse("type not supported");
  use(d, i, for_integer(t, [](auto z) -> Handler { return extract<decltype(z)>; }));
}

template <class T>
void insert(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<T>(i.d), *a = w.row<T>(i.a), *b = w.row<T>(i.b);
  auto *pos = w.row<uint32_t>(i.c), *len = w.row<uint32_t>(static_cast<int32_t>(i.offset));
  constexpr uint32_t bits = 8 * sizeof(T);
  LANES {
    uint32_t p = pos[l] & 255, n = len[l] & 255;
    T mask = n >= bits ? ~T{0} : static_cast<T>((T{1} << (n & (bits - 1))) - 1);
    T r = p >= bits ? b[l] : (b[l] & ~(mask << (p & (bits - 1)))) | ((a[l] & mask) << (p & (bits - 1)));
    d[l] = on(m, l) ? r : d[l];
  }
}

void decode_bfi(Decoder& d, Instr& i) {
  Type t = d.take_type();
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.c = d.src(3, Type::u32);
  i.offset = d.src(4, Type::u32);
  i.d = d.dst(0, t);
  i.run = bytes(t) == 8 ? insert<uint64_t> : insert<uint32_t>;
}

template <class T>
void absolute_difference(Warp& w, const Instr& i, uint32_t m) {
  map3<T, T, T, T>(w, i, m, [](T a, T b, T c) { return Add()(c, a < b ? Sub()(b, a) : Sub()(a, b)); });
}

void decode_sad(Decoder& d, Instr& i) {
  Type t = d.take_type();
  i.c = d.src(3, t);
  three(d, i, t);
  use(d, i, for_integer(t, [](auto z) -> Handler { return absolute_difference<decltype(z)>; }));
}

// --- dot products of bytes

template <class A, class B>
void dp4a(Warp& w, const Instr& i, uint32_t m) {
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [](uint32_t a, uint32_t b, uint32_t c) {
    int32_t s = 0;
    for (int n = 0; n < 32; n += 8) s += static_cast<int32_t>(static_cast<A>(a >> n)) * static_cast<int32_t>(static_cast<B>(b >> n));
    return c + static_cast<uint32_t>(s);
  });
}

template <class A, class B, bool High>
void dp2a(Warp& w, const Instr& i, uint32_t m) {
  using A16 = std::conditional_t<std::is_signed_v<A>, int16_t, uint16_t>;
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t half = High ? b >> 16 : b;
    int64_t s = int64_t{static_cast<A16>(a)} * static_cast<B>(half) + int64_t{static_cast<A16>(a >> 16)} * static_cast<B>(half >> 8);
    return c + static_cast<uint32_t>(s);
  });
}

template <class A, class B>
Handler dot(bool two, bool high) {
  return !two ? dp4a<A, B> : high ? Handler(dp2a<A, B, true>) : Handler(dp2a<A, B, false>);
}

void decode_dot(Decoder& d, Instr& i) {
  bool two = d.statement().op[0] == "dp2a", high = two && d.take("hi");
  if (two && !high && !d.take("lo")) d.refuse("lo or hi is missing");
  Type a = d.take_type(), b = d.take_type();
  if (bytes(a) != 4 || bytes(b) != 4) d.refuse("type not supported");
  i.c = d.src(3, Type::b32);
  three(d, i, Type::b32);
  i.run = is_signed(a) ? (is_signed(b) ? dot<int8_t, int8_t>(two, high) : dot<int8_t, uint8_t>(two, high))
                       : (is_signed(b) ? dot<uint8_t, int8_t>(two, high) : dot<uint8_t, uint8_t>(two, high));
}

}  // namespace

std::vector<Op> integer_ops() {
  return {{"add", decode_sum<Add, false>}, {"sub", decode_sum<Sub, true>}, {"addc", decode_addc}, {"subc", decode_subc}, {"mul", decode_mul}, {"mad", decode_mad},
          {"madc", decode_madc}, {"min", decode_extreme<Min>}, {"max", decode_extreme<Max>}, {"div", decode_div}, {"rem", decode_binary<Rem>},
          {"and", decode_logic<And>}, {"or", decode_logic<Or>}, {"xor", decode_logic<Xor>}, {"not", decode_not}, {"cnot", decode_signed<IsZero>},
          {"neg", decode_signed<Negate>}, {"abs", decode_signed<Absolute>}, {"shl", decode_shift}, {"shr", decode_shift}, {"shf", decode_funnel},
          {"prmt", decode_prmt}, {"lop3", decode_lop3}, {"popc", decode_count}, {"clz", decode_count}, {"brev", decode_brev}, {"bfind", decode_bfind},
          {"bfe", decode_bfe}, {"bfi", decode_bfi}, {"sad", decode_sad}, {"dp4a", decode_dot}, {"dp2a", decode_dot}};
}

}  // namespace sim
