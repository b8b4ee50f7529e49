// Comparison, selection, moves, branches and leaving.
#include "decode.h"
#include "half.h"
#include "lanes.h"

namespace sim {
namespace {

struct Eq { template <class T> bool operator()(T a, T b) const { return a == b; } };
struct Ne { template <class T> bool operator()(T a, T b) const { return a < b || b < a; } };  // false of NaN
struct Lt { template <class T> bool operator()(T a, T b) const { return a < b; } };
struct Le { template <class T> bool operator()(T a, T b) const { return a <= b; } };
struct Gt { template <class T> bool operator()(T a, T b) const { return a > b; } };
struct Ge { template <class T> bool operator()(T a, T b) const { return a >= b; } };
struct Num { template <class T> bool operator()(T a, T b) const { return a == a && b == b; } };
template <class Op>  // true also of NaN
struct Unordered { template <class T> bool operator()(T a, T b) const { return Op()(a, b) || a != a || b != b; } };
struct NaN { template <class T> bool operator()(T a, T b) const { return a != a || b != b; } };

// f32 with subnormals taken as 0
struct Flushed {};

template <class T, class Op>
uint32_t compared(Warp& w, const Instr& i) {
  if constexpr (std::is_same_v<T, Flushed>) {
    return compare<float>(w, i, [](float a, float b) {
      auto flush = [](float x) { return float_of((bits_of(x) & 0x7f800000) ? bits_of(x) : bits_of(x) & 0x80000000); };
      return Op()(flush(a), flush(b));
    });
  } else if constexpr (std::is_same_v<T, F16> || std::is_same_v<T, BF16>) {
    return compare<uint32_t>(w, i, [](uint32_t a, uint32_t b) { return Op()(T::load(a), T::load(b)); });
  } else {
    return compare<T>(w, i, [](T a, T b) { return Op()(a, b); });
  }
}

using Compare = uint32_t (*)(Warp&, const Instr&);

template <class Op>
Compare comparison(Type t, bool ftz) {
  switch (t) {
    case Type::s16: return compared<int16_t, Op>;
    case Type::u16: case Type::b16: return compared<uint16_t, Op>;
    case Type::s32: return compared<int32_t, Op>;
    case Type::u32: case Type::b32: return compared<uint32_t, Op>;
    case Type::s64: return compared<int64_t, Op>;
    case Type::u64: case Type::b64: return compared<uint64_t, Op>;
    case Type::f32: return ftz ? compared<Flushed, Op> : compared<float, Op>;
    case Type::f64: return compared<double, Op>;
    case Type::f16: return compared<F16, Op>;
    case Type::bf16: return compared<BF16, Op>;
    default: return nullptr;
  }
}

struct Named {
  const char* name;
  Compare (*of)(Type, bool);
};

constexpr Named comparisons[] = {
    {"eq", comparison<Eq>}, {"ne", comparison<Ne>}, {"lt", comparison<Lt>}, {"le", comparison<Le>}, {"gt", comparison<Gt>}, {"ge", comparison<Ge>},
    {"lo", comparison<Lt>}, {"ls", comparison<Le>}, {"hi", comparison<Gt>}, {"hs", comparison<Ge>}, {"num", comparison<Num>}, {"nan", comparison<NaN>},
    {"equ", comparison<Unordered<Eq>>}, {"neu", comparison<Unordered<Ne>>}, {"ltu", comparison<Unordered<Lt>>}, {"leu", comparison<Unordered<Le>>},
    {"gtu", comparison<Unordered<Gt>>}, {"geu", comparison<Unordered<Ge>>}};

enum Combine : uint8_t { none, with_and, with_or, with_xor, combine_mask = 3, not_c = 4 };

uint32_t combined(Warp& w, const Instr& i, uint32_t bits) {
  uint32_t c = i.flag & not_c ? ~w.pred(i.c) : w.pred(i.c);
  switch (i.flag & combine_mask) {
    case with_and: return bits & c;
    case with_or: return bits | c;
    case with_xor: return bits ^ c;
    default: return bits;
  }
}

template <class T, class Op>
void set_predicate(Warp& w, const Instr& i, uint32_t m) {
  uint32_t bits = compared<T, Op>(w, i);
  uint32_t& d = w.pred(i.d);
  if (i.flag) {
    uint32_t& e = w.pred(i.more);
    uint32_t q = combined(w, i, ~bits);
    bits = combined(w, i, bits);
    e = (e & ~m) | (q & m);
  }
  d = (d & ~m) | (bits & m);
}

void set_predicate_any(Warp& w, const Instr& i, uint32_t m) {
  uint32_t raw = reinterpret_cast<Compare>(i.offset)(w, i);
  uint32_t &d = w.pred(i.d), &e = w.pred(i.more);
  uint32_t p = combined(w, i, raw), q = combined(w, i, ~raw);
  d = (d & ~m) | (p & m);
  e = (e & ~m) | (q & m);
}

template <class Op>
Handler quick(Type t) {
  switch (t) {
    case Type::s32: return set_predicate<int32_t, Op>;
    case Type::u32: case Type::b32: return set_predicate<uint32_t, Op>;
    case Type::s64: return set_predicate<int64_t, Op>;
    case Type::u64: case Type::b64: return set_predicate<uint64_t, Op>;
    case Type::f32: return set_predicate<float, Op>;
    default: return nullptr;
  }
}

const Named* take_comparison(Decoder& d) {
  for (auto& c : comparisons)
    if (d.take(c.name)) return &c;
  d.refuse("the comparison is missing");
}

uint8_t take_combination(Decoder& d) { return d.take("and") ? with_and : d.take("or") ? with_or : d.take("xor") ? with_xor : none; }

void decode_setp(Decoder& d, Instr& i) {
  auto* c = take_comparison(d);
  uint8_t with = take_combination(d);
  bool ftz = d.take("ftz");
  Type t = d.take_type();
  i.flag = with;
  Operand first = d.arg(0);
  Operand second = first;
  bool two = !first.parts.empty();
  if (two) {
    second = first.parts[1];
    first = first.parts[0];
  }
  if (with) {
    Operand p = d.arg(3);
    if (p.negated) i.flag |= not_c;
    p.negated = false;
    i.c = d.src(p, Type::pred);
  } else {
    i.c = d.scratch(false);
  }
  if (t == Type::f16x2 || t == Type::bf16x2) {
    if (with) d.refuse("combination is not supported for pairs");
    i.a = d.src(1, t);
    i.b = d.src(2, t);
    i.d = d.dst(first, Type::pred);
    i.more = d.dst(second, Type::pred);
    i.offset = reinterpret_cast<int64_t>(c->of(t == Type::f16x2 ? Type::f16 : Type::bf16, false));
    i.run = [](Warp& w, const Instr& i, uint32_t m) {
      auto cmp = reinterpret_cast<Compare>(i.offset);
      alignas(64) uint32_t high[64];
      auto *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b);
      for (int l = 0; l < 32; l++) high[l] = a[l] >> 16, high[32 + l] = b[l] >> 16;
      Instr shifted = i;
      Warp upper;
      upper.regs = reinterpret_cast<char*>(high);
      shifted.a = 0;
      shifted.b = 128;
      uint32_t lo = cmp(w, i), hi = cmp(upper, shifted);
      uint32_t &d = w.pred(i.d), &e = w.pred(i.more);
      d = (d & ~m) | (lo & m);
      e = (e & ~m) | (hi & m);
    };
    return;
  }
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  Compare f = c->of(t, ftz);
  if (!f) d.refuse("type not supported");
  i.d = d.dst(first, Type::pred);
  i.more = two ? d.dst(second, Type::pred) : d.scratch(false);
  i.offset = reinterpret_cast<int64_t>(f);
  i.run = set_predicate_any;
  std::string_view name = c->name;
  Handler h = nullptr;
  if (!two && !ftz) {
    if (name == "eq") h = quick<Eq>(t);
    if (name == "ne") h = quick<Ne>(t);
    if (name == "lt" || name == "lo") h = quick<Lt>(t);
    if (name == "le" || name == "ls") h = quick<Le>(t);
    if (name == "gt" || name == "hi") h = quick<Gt>(t);
    if (name == "ge" || name == "hs") h = quick<Ge>(t);
  }
  if (h) i.run = h;
}

// set.lt.u32.f32 d, a, b: all ones or 1.0
void decode_set(Decoder& d, Instr& i) {
  auto* c = take_comparison(d);
  if (take_combination(d)) d.refuse("combination is not supported");
  bool ftz = d.take("ftz");
  Type result = d.take_type(), t = d.take_type();
  Compare f = c->of(t, ftz);
  if (!f || bytes(result) != 4) d.refuse("type not supported");
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.d = d.dst(0, result);
  i.offset = reinterpret_cast<int64_t>(f);
  i.flag = result == Type::f32;
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint32_t bits = reinterpret_cast<Compare>(i.offset)(w, i), yes = i.flag ? 0x3f800000 : ~0u;
    auto* d = w.row<uint32_t>(i.d);
    for (int l = 0; l < 32; l++)
      if (on(m, l)) d[l] = on(bits, l) ? yes : 0;
  };
}

template <class C>
void select(Warp& w, const Instr& i, uint32_t m) {
  uint32_t p = w.pred(i.c);
  auto *d = w.row<C>(i.d), *a = w.row<C>(i.a), *b = w.row<C>(i.b);
  LANES {
    C v = on(p, l) ? a[l] : b[l];
    d[l] = on(m, l) ? v : d[l];
  }
}

void decode_selp(Decoder& d, Instr& i) {
  Type t = d.take_type();
  bool swap = d.arg(3).negated;
  Operand p = d.arg(3);
  p.negated = false;
  i.a = d.src(swap ? 2 : 1, t);
  i.b = d.src(swap ? 1 : 2, t);
  i.c = d.src(p, Type::pred);
  i.d = d.dst(0, t);
  i.run = bytes(t) == 8 ? select<uint64_t> : select<uint32_t>;
}

template <class C, bool Float>
void select_by_sign(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<C>(i.d), *a = w.row<C>(i.a), *b = w.row<C>(i.b);
  auto* c = w.row<uint32_t>(i.c);
  for (int l = 0; l < 32; l++)
    if (on(m, l)) d[l] = (Float ? float_of(c[l]) >= 0 : static_cast<int32_t>(c[l]) >= 0) ? a[l] : b[l];
}

void decode_slct(Decoder& d, Instr& i) {
  d.take("ftz");
  Type t = d.take_type(), by = d.take_type();
  i.a = d.src(1, t);
  i.b = d.src(2, t);
  i.c = d.src(3, by);
  i.d = d.dst(0, t);
  bool wide = bytes(t) == 8, real = by == Type::f32;
  i.run = wide ? (real ? select_by_sign<uint64_t, true> : select_by_sign<uint64_t, false>)
               : (real ? select_by_sign<uint32_t, true> : select_by_sign<uint32_t, false>);
}

// --- mov

template <class C>
void copy(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<C>(i.d), *a = w.row<C>(i.a);
  if (m == all_lanes) memmove(d, a, 32 * sizeof(C));
  else LANES d[l] = on(m, l) ? a[l] : d[l];
}

// {a, b, ..} of Bits each to or from one register
template <class Whole, class Part, unsigned Bits>
void pack(Warp& w, const Instr& i, uint32_t m) {
  Whole v[32] = {};
  for (int n = 0; n < i.count; n++) {
    auto* a = w.row<Part>(w.block->kernel->rows[static_cast<size_t>(i.more + n)]);
    Whole keep = (Whole{1} << (Bits - 1) << 1) - 1;
    for (int l = 0; l < 32; l++) v[l] |= (static_cast<Whole>(a[l]) & keep) << (Bits * static_cast<unsigned>(n));
  }
  auto* d = w.row<Whole>(i.d);
  LANES d[l] = on(m, l) ? v[l] : d[l];
}

template <class Whole, class Part, unsigned Bits>
void unpack(Warp& w, const Instr& i, uint32_t m) {
  Whole v[32];
  memcpy(v, w.row<Whole>(i.a), sizeof v);
  for (int n = 0; n < i.count; n++) {
    auto* d = w.row<Part>(w.block->kernel->rows[static_cast<size_t>(i.more + n)]);
    Whole keep = (Whole{1} << (Bits - 1) << 1) - 1;
    for (int l = 0; l < 32; l++)
      if (on(m, l)) d[l] = static_cast<Part>(v[l] >> (Bits * static_cast<unsigned>(n)) & keep);
  }
}

void decode_pack(Decoder& d, Instr& i, Type t, bool packing) {
  auto& parts = d.arg(packing ? 1 : 0).parts;
  unsigned bits = 8 * bytes(t) / static_cast<unsigned>(parts.size());
  Type part = bits == 32 ? Type::b32 : bits == 16 ? Type::b16 : Type::b8;
  if (parts.size() < 2 || bits * parts.size() != 8 * bytes(t) || bytes(t) > 8) d.refuse("these widths do not fit");
  std::vector<int32_t> rows;
  if (!packing) i.a = d.src(1, t);
  for (auto& p : parts) rows.push_back(packing ? d.src(p, part) : d.dst(p, part));
  i.more = d.more(rows);
  i.count = static_cast<uint8_t>(parts.size());
  if (packing) i.d = d.dst(0, t);
  bool wide = bytes(t) == 8;
  if (packing) i.run = wide ? (bits == 32 ? pack<uint64_t, uint32_t, 32> : pack<uint64_t, uint32_t, 16>) : bits == 16 ? pack<uint32_t, uint32_t, 16> : pack<uint32_t, uint32_t, 8>;
  else i.run = wide ? (bits == 32 ? unpack<uint64_t, uint32_t, 32> : unpack<uint64_t, uint32_t, 16>) : bits == 16 ? unpack<uint32_t, uint32_t, 16> : unpack<uint32_t, uint32_t, 8>;
  if (wide && bits == 8) d.refuse("these widths do not fit");
}

uint64_t ticks() { return __builtin_ia32_rdtsc(); }

void decode_mov(Decoder& d, Instr& i) {
  Type t = d.take_type();
  if (t == Type::b128) d.refuse("type not supported");
  if (d.arg(0).kind == Operand::vector) return decode_pack(d, i, t, false);
  if (d.arg(1).kind == Operand::vector) return decode_pack(d, i, t, true);
  auto name = d.arg(1).text;
  bool wide = bytes(t) == 8;
  if (name == "%clock" || name == "%clock_hi" || name == "%clock64" || name == "%globaltimer" || name == "%globaltimer_lo") {
    i.d = d.dst(0, t);
    i.run = wide ? Handler([](Warp& w, const Instr& i, uint32_t m) {
      for (int l = 0; l < 32; l++)
        if (on(m, l)) w.row<uint64_t>(i.d)[l] = ticks();
    })
                 : Handler([](Warp& w, const Instr& i, uint32_t m) {
                     for (int l = 0; l < 32; l++)
                       if (on(m, l)) w.row<uint32_t>(i.d)[l] = static_cast<uint32_t>(ticks());
                   });
    return;
  }
  i.a = d.src(1, t);
  i.d = d.dst(0, t);
  if (t == Type::pred) {
    i.run = [](Warp& w, const Instr& i, uint32_t m) {
      uint32_t& d = w.pred(i.d);
      d = (d & ~m) | (w.pred(i.a) & m);
    };
    return;
  }
  i.run = wide ? copy<uint64_t> : copy<uint32_t>;
}

// --- control

void decode_bra(Decoder& d, Instr& i) {
  d.take("uni");
  i.flow = Flow::branch;
  d.branch_to(d.arg(0).text, i);
}

void decode_brx(Decoder& d, Instr& i) {
  if (!d.take("idx")) d.refuse("only brx.idx is supported");
  d.take("uni");
  i.flow = Flow::indexed;
  i.a = d.src(0, Type::u32);
  d.branch_table(d.arg(1).text, i);
}

void decode_leave(Decoder& d, Instr& i) {
  d.take("uni");
  i.flow = Flow::leave;
}

void decode_trap(Decoder&, Instr& i) {
  i.run = [](Warp&, const Instr&, uint32_t m) { throw Fault{719, "trap", __builtin_ctz(m)}; };
}

void decode_nothing(Decoder&, Instr& i) {
  i.run = [](Warp&, const Instr&, uint32_t) {};
}

void decode_nanosleep(Decoder& d, Instr& i) {
  d.need(70, 63, "nanosleep");
  d.take("u32");
  i.a = d.src(0, Type::u32);
  i.flow = Flow::pause;
  i.run = [](Warp&, const Instr&, uint32_t) {};
}

void decode_call(Decoder& d, Instr&) { d.refuse("calls are not supported: the kernels must be compiled with everything inlined"); }

}  // namespace

std::vector<Op> control_ops() {
  return {{"setp", decode_setp}, {"set", decode_set}, {"selp", decode_selp}, {"slct", decode_slct}, {"mov", decode_mov}, {"bra", decode_bra}, {"brx", decode_brx},
          {"ret", decode_leave}, {"exit", decode_leave}, {"trap", decode_trap}, {"brkpt", decode_trap}, {"pmevent", decode_nothing},
          {"nanosleep", decode_nanosleep}, {"call", decode_call}};
}

}  // namespace sim
