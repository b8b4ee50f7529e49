// What the lanes of a warp do together: shuffles, votes, barriers.
#include "decode.h"
#include "lanes.h"

namespace sim {
namespace {

void collective(Decoder& d, Instr& i, size_t member_arg) {
  i.flow = Flow::collective;
  i.members = d.src(member_arg, Type::b32);
}

enum Shuffle : uint8_t { idx, up, down, bfly };

template <Shuffle S>
void shuffle(Warp& w, const Instr& i, uint32_t m) {
  auto *d = w.row<uint32_t>(i.d), *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b), *c = w.row<uint32_t>(i.c);
  alignas(32) uint32_t source[32], in[32], r[32];
  LANES {
    uint32_t lane = static_cast<uint32_t>(l), n = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
    uint32_t top = (lane & segment) | (clamp & ~segment), bottom = lane & segment;
    uint32_t from = S == up ? lane - n : S == down ? lane + n : S == bfly ? lane ^ n : bottom | (n & ~segment);
    in[l] = (S == up ? static_cast<int32_t>(from) >= static_cast<int32_t>(top) : from <= top) ? ~0u : 0;
    source[l] = (in[l] ? from : lane) & 31;
  }
  uint32_t valid = mask_of(in);
  for (int l = 0; l < 32; l++) r[l] = a[source[l]];
  for (uint32_t left = m == all_lanes ? 0 : m; left; left &= left - 1) {
    int l = __builtin_ctz(left);
    if (!on(m, static_cast<int>(source[l]))) throw Fault{719, "lane " + std::to_string(l) + " reads lane " + std::to_string(source[l]) + ", which does not take part", l};
  }
  if (m == all_lanes) memcpy(d, r, sizeof r);
  else LANES d[l] = on(m, l) ? r[l] : d[l];
  if (i.more) {
    uint32_t& p = w.pred(i.more);
    p = (p & ~m) | (valid & m);
  }
  w.sync++;
}

void decode_shfl(Decoder& d, Instr& i) {
  d.need(30, 60, "shfl.sync");
  if (!d.take("sync")) d.refuse("shfl without .sync");
  Shuffle s = d.take("bfly") ? bfly : d.take("up") ? up : d.take("down") ? down : idx;
  if (s == idx && !d.take("idx")) d.refuse("the mode is missing");
  d.take("b32");
  i.a = d.src(1, Type::b32);
  i.b = d.src(2, Type::b32);
  i.c = d.src(3, Type::b32);
  collective(d, i, 4);
  Operand o = d.arg(0);
  if (!o.parts.empty()) {
    i.more = d.dst(o.parts[1], Type::pred);
    o = o.parts[0];
  }
  i.d = d.dst(o, Type::b32);
  static constexpr Handler handlers[] = {shuffle<idx>, shuffle<up>, shuffle<down>, shuffle<bfly>};
  i.run = handlers[s];
}

enum Vote : uint8_t { all, any, uni, ballot };

void decode_vote(Decoder& d, Instr& i) {
  if (!d.take("sync")) d.refuse("vote without .sync");
  i.flag = d.take("all") ? all : d.take("any") ? any : d.take("uni") ? uni : ballot;
  if (i.flag == ballot && !d.take("ballot")) d.refuse("the mode is missing");
  d.take("pred");
  d.take("b32");
  Operand p = d.arg(1);
  i.count = p.negated;
  p.negated = false;
  i.a = d.src(p, Type::pred);
  collective(d, i, 2);
  i.d = d.dst(0, i.flag == ballot ? Type::b32 : Type::pred);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint32_t p = (i.count ? ~w.pred(i.a) : w.pred(i.a)) & m;
    w.sync++;
    if (i.flag == ballot) {
      auto* d = w.row<uint32_t>(i.d);
      LANES d[l] = on(m, l) ? p : d[l];
      return;
    }
    bool yes = i.flag == all ? p == m : i.flag == any ? p != 0 : p == m || p == 0;
    uint32_t& d = w.pred(i.d);
    d = (d & ~m) | (yes ? m : 0);
  };
}

void decode_activemask(Decoder& d, Instr& i) {
  d.need(30, 62, "activemask");
  d.take("b32");
  i.d = d.dst(0, Type::b32);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    auto* d = w.row<uint32_t>(i.d);
    LANES d[l] = on(m, l) ? m : d[l];
  };
}

template <class C>
void match(Warp& w, const Instr& i, uint32_t m) {
  auto* a = w.row<C>(i.a);
  uint32_t r[32] = {}, same_all = 0;
  for (int l = 0; l < 32; l++)
    for (int k = 0; k < 32; k++)
      if (on(m, l) && on(m, k) && a[k] == a[l]) r[l] |= 1u << k;
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    bool whole = r[l] == m;
    same_all |= uint32_t{whole} << l;
    w.row<uint32_t>(i.d)[l] = i.flag && !whole ? 0 : r[l];
  }
  if (i.more) {
    uint32_t& p = w.pred(i.more);
    p = (p & ~m) | same_all;
  }
  w.sync++;
}

void decode_match(Decoder& d, Instr& i) {
  d.need(70, 60, "match");
  bool every = d.take("all");
  if (!every && !d.take("any")) d.refuse("any or all is missing");
  if (!d.take("sync")) d.refuse("match without .sync");
  Type t = d.take_type();
  i.a = d.src(1, t);
  collective(d, i, 2);
  Operand o = d.arg(0);
  if (!o.parts.empty()) {
    i.more = d.dst(o.parts[1], Type::pred);
    o = o.parts[0];
  }
  i.d = d.dst(o, Type::b32);
  i.flag = every;
  i.run = bytes(t) == 8 ? match<uint64_t> : match<uint32_t>;
}

template <class T, class F>
void reduce(Warp& w, const Instr& i, uint32_t m, F f) {
  auto *a = w.row<uint32_t>(i.a), *d = w.row<uint32_t>(i.d);
  int first = __builtin_ctz(m);
  T r = static_cast<T>(a[first]);
  for (int l = first + 1; l < 32; l++)
    if (on(m, l)) r = f(r, static_cast<T>(a[l]));
  LANES d[l] = on(m, l) ? static_cast<uint32_t>(r) : d[l];
  w.sync++;
}

template <class T>
Handler reduction(std::string_view op) {
  if (op == "add") return [](Warp& w, const Instr& i, uint32_t m) { reduce<uint32_t>(w, i, m, [](uint32_t a, uint32_t b) { return a + b; }); };
  if (op == "min") return [](Warp& w, const Instr& i, uint32_t m) { reduce<T>(w, i, m, [](T a, T b) { return a < b ? a : b; }); };
  if (op == "max") return [](Warp& w, const Instr& i, uint32_t m) { reduce<T>(w, i, m, [](T a, T b) { return a < b ? b : a; }); };
  if (op == "and") return [](Warp& w, const Instr& i, uint32_t m) { reduce<uint32_t>(w, i, m, [](uint32_t a, uint32_t b) { return a & b; }); };
  if (op == "or") return [](Warp& w, const Instr& i, uint32_t m) { reduce<uint32_t>(w, i, m, [](uint32_t a, uint32_t b) { return a | b; }); };
  return [](Warp& w, const Instr& i, uint32_t m) { reduce<uint32_t>(w, i, m, [](uint32_t a, uint32_t b) { return a ^ b; }); };
}

void decode_redux(Decoder& d, Instr& i) {
  d.need(80, 70, "redux");
  if (!d.take("sync")) d.refuse("redux without .sync");
  std::string_view found;
  for (auto op : {"add", "min", "max", "and", "or", "xor"})
    if (d.take(op)) found = op;
  Type t = d.take_type();
  if (found.empty() || bytes(t) != 4 || is_float(t)) d.refuse("operation or type not supported");
  i.a = d.src(1, t);
  collective(d, i, 2);
  i.d = d.dst(0, t);
  i.run = is_signed(t) ? reduction<int32_t>(found) : reduction<uint32_t>(found);
}

void decode_elect(Decoder& d, Instr& i) {
  d.need(90, 80, "elect");
  if (!d.take("sync")) d.refuse("elect without .sync");
  collective(d, i, 1);
  Operand o = d.arg(0);
  if (o.parts.empty()) d.refuse("the predicate is missing");
  i.d = d.dst(o.parts[0], Type::b32);
  i.more = d.dst(o.parts[1], Type::pred);
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    auto* d = w.row<uint32_t>(i.d);
    uint32_t first = static_cast<uint32_t>(__builtin_ctz(m));
    LANES d[l] = on(m, l) ? first : d[l];
    uint32_t& p = w.pred(i.more);
    p = (p & ~m) | 1u << first;
  };
}

// --- barriers: bar[.cta].sync a{, b}, barrier.sync, bar.arrive, bar.red, bar.warp.sync

void decode_bar(Decoder& d, Instr& i) {
  d.take("cta");
  d.take("aligned");
  if (d.take("warp")) {
    if (!d.take("sync")) d.refuse("sync is missing");
    collective(d, i, 0);
    i.run = [](Warp& w, const Instr&, uint32_t) { w.sync++; };
    return;
  }
  i.flow = Flow::barrier;
  i.more = -1;
  size_t n = 0;
  bool reduces = d.take("red");
  if (d.take("arrive")) {
    i.count = 2;
  } else if (reduces) {
    bool popc = d.take("popc"), both = d.take("and"), either = d.take("or");
    if (popc + both + either != 1) d.refuse("the operation is missing");
    i.flag = popc ? 0 : both ? 1 : 2;
    d.take_type();
    i.more = d.dst(0, popc ? Type::u32 : Type::pred);
    n = 1;
  } else if (!d.take("sync")) {
    d.refuse("sync, arrive or red is missing");
  }
  i.a = d.src(n, Type::u32);
  i.b = d.constant(false, 0);
  size_t last = d.args() - (reduces ? 1 : 0);
  if (n + 1 < last) i.b = d.src(n + 1, Type::u32);
  if (reduces) {
    Operand p = d.arg(last);
    i.width = p.negated;
    p.negated = false;
    i.c = d.src(p, Type::pred);
  }
}

}  // namespace

std::vector<Op> warp_ops() {
  return {{"shfl", decode_shfl}, {"vote", decode_vote}, {"activemask", decode_activemask}, {"match", decode_match}, {"redux", decode_redux},
          {"elect", decode_elect}, {"bar", decode_bar}, {"barrier", decode_bar}};
}

}  // namespace sim
