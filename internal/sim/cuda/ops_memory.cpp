// Loads, stores, addresses and prefetches.
#include "access.h"
#include "decode.h"

namespace sim {
namespace {

template <class C, class E>
inline void load_cells(C* d, const Places& p, uint32_t m, unsigned at) {
  if (m == all_lanes) {
    for (int l = 0; l < 32; l++) {
      E v;
      memcpy(&v, p.at[l] + at, sizeof v);
      d[l] = static_cast<C>(v);
    }
  } else {
    for (int l = 0; l < 32; l++) {
      if (!on(m, l)) continue;
      E v;
      memcpy(&v, p.at[l] + at, sizeof v);
      d[l] = static_cast<C>(v);
    }
  }
}

// 16 bytes for each of 32 lanes.
void load_quads(Warp& w, const Instr& i, const Places& p) {
  const int32_t* rows = &w.block->kernel->rows[static_cast<size_t>(i.more)];
  float *d[4] = {w.row<float>(rows[0]), w.row<float>(rows[1]), w.row<float>(rows[2]), w.row<float>(rows[3])};
  for (int l = 0; l < 32; l += 4) {
    __m128 v[4];
    for (int n = 0; n < 4; n++) v[n] = _mm_loadu_ps(reinterpret_cast<const float*>(p.at[l + n]));
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
    for (int n = 0; n < 4; n++) _mm_store_ps(d[n] + l, v[n]);
  }
}

// E: an element in memory; C: a cell of the destination; N: elements.
template <class C, class E, int N>
void load(Warp& w, const Instr& i, uint32_t m) {
  alignas(32) uint64_t address[32];
  Places p;
  addresses(w, i, i.a, address);
  resolve(w, i, i.space, address, m, sizeof(E) * N, Access::read, p);
  if (N == 1) return load_cells<C, E>(w.row<C>(i.d), p, m, 0);
  if constexpr (sizeof(C) == 4 && sizeof(E) == 4 && N == 4)
    if (m == all_lanes) return load_quads(w, i, p);
  for (int n = 0; n < N; n++) load_cells<C, E>(w.row<C>(w.block->kernel->rows[static_cast<size_t>(i.more + n)]), p, m, static_cast<unsigned>(n) * sizeof(E));
}

template <class C, class E, int N>
void store(Warp& w, const Instr& i, uint32_t m) {
  alignas(32) uint64_t address[32];
  Places p;
  addresses(w, i, i.a, address);
  resolve(w, i, i.space, address, m, sizeof(E) * N, Access::write, p);
  for (int n = 0; n < N; n++) {
    auto* s = w.row<C>(N == 1 ? i.d : w.block->kernel->rows[static_cast<size_t>(i.more + n)]);
    for (int l = 0; l < 32; l++) {
      if (!on(m, l)) continue;
      E v = static_cast<E>(s[l]);
      memcpy(p.at[l] + static_cast<unsigned>(n) * sizeof v, &v, sizeof v);
    }
  }
  if (w.block->launch->wrong && i.space == Space::global && w.block->number == 0 && on(m, 0)) p.at[0][sizeof(E) * N - 1] ^= 0x40;
}

// A parameter at a place known when decoded: one value for all lanes.
template <class C, class E>
void load_param(Warp& w, const Instr& i, uint32_t m) {
  E v;
  memcpy(&v, w.block->launch->params.data() + i.offset, sizeof v);
  auto* d = w.row<C>(i.d);
  C c = static_cast<C>(v);
  LANES d[l] = on(m, l) ? c : d[l];
}

template <template <class, class> class Pick, class C>
Handler by_element(Type t) {
  switch (t) {
    case Type::u8: case Type::b8: return Pick<C, uint8_t>::handler;
    case Type::s8: return Pick<C, int8_t>::handler;
    case Type::u16: case Type::b16: case Type::f16: case Type::bf16: return Pick<C, uint16_t>::handler;
    case Type::s16: return Pick<C, int16_t>::handler;
    case Type::s32: return Pick<C, int32_t>::handler;
    case Type::u64: case Type::s64: case Type::b64: case Type::f64: return Pick<C, uint64_t>::handler;
    default: return Pick<C, uint32_t>::handler;
  }
}

template <class C, class E> struct Load1 { static constexpr Handler handler = load<C, E, 1>; };
template <class C, class E> struct Load2 { static constexpr Handler handler = load<C, E, 2>; };
template <class C, class E> struct Load4 { static constexpr Handler handler = load<C, E, 4>; };
template <class C, class E> struct Store1 { static constexpr Handler handler = store<C, E, 1>; };
template <class C, class E> struct Store2 { static constexpr Handler handler = store<C, E, 2>; };
template <class C, class E> struct Store4 { static constexpr Handler handler = store<C, E, 4>; };
template <class C, class E> struct Param { static constexpr Handler handler = load_param<C, E>; };

template <template <class, class> class Pick>
Handler pick(Type t, bool wide) {
  return wide ? by_element<Pick, uint64_t>(t) : by_element<Pick, uint32_t>(t);
}

Space take_space(Decoder& d) {
  Space s = Space::generic;
  if (d.take("global")) s = Space::global;
  else if (d.take("shared") || d.take("shared::cta")) s = Space::shared;
  else if (d.take("local")) s = Space::local;
  else if (d.take("const")) s = Space::constant;
  else if (d.take("param")) s = Space::param;
  return s;
}

// Orders and hints; true when other threads are expected to change the value.
bool take_semantics(Decoder& d) {
  bool watched = d.take("volatile");
  for (auto order : {"relaxed", "acquire", "release", "acq_rel"}) {
    if (!d.take(order)) continue;
    watched = true;
    d.need(70, 60, "a memory order");
  }
  d.take("weak");
  for (auto scope : {"cta", "gpu", "sys", "cluster"}) d.take(scope);
  for (auto hint : {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt"}) d.take(hint);
  d.take_cache_hints();
  return watched;
}

int take_vector(Decoder& d) { return d.take("v2") ? 2 : d.take("v4") ? 4 : 1; }

// The rows of {a, b, ..}, all of one width.
void vector_rows(Decoder& d, Instr& i, const Operand& o, Type t, int n, bool to, bool& wide) {
  if (o.kind != Operand::vector || o.parts.size() != static_cast<size_t>(n)) d.refuse("the vector has the wrong length");
  std::vector<int32_t> rows;
  for (auto& part : o.parts) {
    bool this_wide = false;
    if (part.kind == Operand::sink) rows.push_back(d.scratch(true)), this_wide = wide;
    else rows.push_back(to ? d.dst_any(part, this_wide) : d.src_any(part, t, this_wide));
    if (rows.size() > 1 && this_wide != wide) d.refuse("registers of different widths");
    wide = this_wide;
  }
  i.more = d.more(rows);
}

void decode_ld(Decoder& d, Instr& i) {
  Space s = take_space(d);
  bool watched = take_semantics(d);
  int n = take_vector(d);
  Type t = d.take_type();
  if (bytes(t) * static_cast<unsigned>(n) > 16 || t == Type::b128) d.refuse("more than 16 bytes");
  i.space = s;
  d.address(1, s, i, i.a);
  bool wide = false;
  if (n > 1) vector_rows(d, i, d.arg(0), t, n, true, wide);
  else i.d = d.dst_any(d.arg(0), wide);
  if (s == Space::param && n == 1 && !d.arg(1).text.empty() && d.arg(1).text[0] != '%') {
    i.offset = d.param_offset(1);
    if (i.offset + bytes(t) > d.kernel().param_bytes) d.refuse("beyond the parameters");
    i.run = pick<Param>(t, wide);
  } else {
    i.run = n == 1 ? pick<Load1>(t, wide) : n == 2 ? pick<Load2>(t, wide) : pick<Load4>(t, wide);
  }
  i.width = static_cast<uint8_t>(bytes(t) * static_cast<unsigned>(n));
  if (watched && (s == Space::global || s == Space::generic)) i.flow = Flow::pause;
}

void decode_st(Decoder& d, Instr& i) {
  Space s = take_space(d);
  take_semantics(d);
  int n = take_vector(d);
  Type t = d.take_type();
  if (bytes(t) * static_cast<unsigned>(n) > 16 || t == Type::b128) d.refuse("more than 16 bytes");
  i.space = s;
  d.address(0, s, i, i.a);
  bool wide = false;
  if (n > 1) vector_rows(d, i, d.arg(1), t, n, false, wide);
  else i.d = d.src_any(d.arg(1), t, wide);
  i.run = n == 1 ? pick<Store1>(t, wide) : n == 2 ? pick<Store2>(t, wide) : pick<Store4>(t, wide);
}

// --- addresses between spaces

template <bool Subtract>
void shift_window(Warp& w, const Instr& i, uint32_t m) {
  uint64_t by = static_cast<uint64_t>(i.offset);
  map1<uint64_t, uint64_t>(w, i, m, [by](uint64_t a) { return Subtract ? a - by : a + by; });
}

void decode_cvta(Decoder& d, Instr& i) {
  bool to = d.take("to");
  Space s = take_space(d);
  Type t = d.take_type();
  if (bytes(t) != 8) d.refuse("only 64 bits");
  i.a = d.src(1, t);
  i.d = d.dst(0, t);
  uint64_t window = s == Space::shared ? shared_window : s == Space::local ? local_window : s == Space::constant ? const_window : s == Space::param ? param_window : 0;
  i.offset = static_cast<int64_t>(window);
  i.run = to ? shift_window<true> : shift_window<false>;
}

void decode_isspacep(Decoder& d, Instr& i) {
  Space s = take_space(d);
  i.a = d.src(1, Type::u64);
  i.d = d.dst(0, Type::pred);
  i.space = s;
  i.run = [](Warp& w, const Instr& i, uint32_t m) {
    uint64_t window = i.space == Space::shared ? shared_window : i.space == Space::local ? local_window : i.space == Space::constant ? const_window : i.space == Space::param ? param_window : 0;
    uint32_t bits = 0;
    for (int l = 0; l < 32; l++) {
      uint64_t a = w.row<uint64_t>(i.a)[l];
      bool in = window ? a - window < window_bytes : a < shared_window || a >= const_window + window_bytes;
      bits |= uint32_t{in} << l;
    }
    uint32_t& d = w.pred(i.d);
    d = (d & ~m) | (bits & m);
  };
}

void nothing(Warp&, const Instr&, uint32_t) {}

void decode_prefetch(Decoder& d, Instr& i) {
  take_space(d);
  for (auto level : {"L1", "L2"}) d.take(level);
  d.take_cache_hints();
  int32_t row;
  d.address(0, Space::generic, i, row);
  i.run = nothing;
}

void decode_fence(Decoder& d, Instr& i) {
  if (d.take("proxy")) {
    if (!d.take("async")) d.refuse("only proxy.async is supported");
    for (auto word : {"shared::cta", "global"}) d.take(word);
    d.need(90, 80, "fence.proxy.async");
    i.run = [](Warp& w, const Instr&, uint32_t m) { w.fences += m == w.members; };
    return;
  }
  for (auto word : {"sc", "acq_rel", "cta", "gl", "gpu", "sys", "cluster"}) d.take(word);
  i.run = [](Warp& w, const Instr&, uint32_t) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    (void)w;
  };
}

}  // namespace

std::vector<Op> memory_ops() {
  return {{"ld", decode_ld}, {"ldu", decode_ld}, {"st", decode_st}, {"cvta", decode_cvta}, {"isspacep", decode_isspacep}, {"prefetch", decode_prefetch},
          {"prefetchu", decode_prefetch}, {"membar", decode_fence}, {"fence", decode_fence}};
}

}  // namespace sim
