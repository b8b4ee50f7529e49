// atom and red: one lane after the other, each with the host's own atomics, so
// that blocks that run at once see each other as on the device.
#include <cmath>

#include "access.h"
#include "decode.h"
#include "half.h"

namespace sim {
namespace {

struct Add { template <class T> T operator()(T a, T b) const { return static_cast<T>(a + b); } };
struct Min { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Max { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct And { template <class T> T operator()(T a, T b) const { return a & b; } };
struct Or { template <class T> T operator()(T a, T b) const { return a | b; } };
struct Xor { template <class T> T operator()(T a, T b) const { return a ^ b; } };
struct Exch { template <class T> T operator()(T, T b) const { return b; } };
struct Inc { template <class T> T operator()(T a, T b) const { return a >= b ? T{0} : static_cast<T>(a + 1); } };
struct Dec { template <class T> T operator()(T a, T b) const { return a == 0 || a > b ? b : static_cast<T>(a - 1); } };
struct AddF32 { uint32_t operator()(uint32_t a, uint32_t b) const { return bits_of(float_of(a) + float_of(b)); } };
struct AddF64 { uint64_t operator()(uint64_t a, uint64_t b) const { return to_cell(from_cell<double>(a) + from_cell<double>(b)); } };
template <class H>
struct AddPair {
  uint32_t operator()(uint32_t a, uint32_t b) const {
    return H::store(H::load(a) + H::load(b)) | H::store(H::load(a >> 16) + H::load(b >> 16)) << 16;
  }
};

// T: how the cell is compared and added; with compare: the lane's value c.
template <class T, class Op>
void atomic(Warp& w, const Instr& i, uint32_t m) {
  using C = Cell<T>;
  alignas(32) uint64_t address[32];
  Places p;
  addresses(w, i, i.a, address);
  resolve(w, i, i.space, address, m, sizeof(C), Access::both, p);
  auto *d = w.row<C>(i.d), *b = w.row<C>(i.b);
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    auto* at = reinterpret_cast<C*>(p.at[l]);
    C old = __atomic_load_n(at, __ATOMIC_SEQ_CST), now;
    do now = static_cast<C>(Op()(static_cast<T>(old), static_cast<T>(b[l])));
    while (!__atomic_compare_exchange_n(at, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    d[l] = old;
  }
}

template <class C>
void compare_and_swap(Warp& w, const Instr& i, uint32_t m) {
  alignas(32) uint64_t address[32];
  Places p;
  addresses(w, i, i.a, address);
  resolve(w, i, i.space, address, m, sizeof(C), Access::both, p);
  auto *d = w.row<C>(i.d), *b = w.row<C>(i.b), *c = w.row<C>(i.c);
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    C old = b[l];
    __atomic_compare_exchange_n(reinterpret_cast<C*>(p.at[l]), &old, c[l], false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    d[l] = old;
  }
}

template <class Op>
Handler integer(Type t) {
  switch (t) {
    case Type::s32: return atomic<int32_t, Op>;
    case Type::u32: case Type::b32: return atomic<uint32_t, Op>;
    case Type::s64: return atomic<int64_t, Op>;
    case Type::u64: case Type::b64: return atomic<uint64_t, Op>;
    default: return nullptr;
  }
}

Handler handler(std::string_view op, Type t) {
  if (op == "add" && t == Type::f32) return atomic<uint32_t, AddF32>;
  if (op == "add" && t == Type::f64) return atomic<uint64_t, AddF64>;
  if (op == "add" && t == Type::f16x2) return atomic<uint32_t, AddPair<F16>>;
  if (op == "add" && t == Type::bf16x2) return atomic<uint32_t, AddPair<BF16>>;
  if (op == "cas") return bytes(t) == 8 ? compare_and_swap<uint64_t> : bytes(t) == 4 ? compare_and_swap<uint32_t> : nullptr;
  if (op == "add") return integer<Add>(t);
  if (op == "min") return integer<Min>(t);
  if (op == "max") return integer<Max>(t);
  if (op == "and") return integer<And>(t);
  if (op == "or") return integer<Or>(t);
  if (op == "xor") return integer<Xor>(t);
  if (op == "exch") return integer<Exch>(t);
  if (op == "inc") return atomic<uint32_t, Inc>;
  return op == "dec" ? Handler(atomic<uint32_t, Dec>) : nullptr;
}

void decode_atomic(Decoder& d, Instr& i, bool result) {
  for (auto word : {"relaxed", "acquire", "release", "acq_rel"}) d.take(word);
  for (auto scope : {"cta", "gpu", "sys", "cluster"}) d.take(scope);
  d.take("noftz");
  d.take_cache_hints();
  i.space = d.take("global") ? Space::global : d.take("shared") || d.take("shared::cta") ? Space::shared : Space::generic;
  std::string_view found;
  for (auto op : {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"})
    if (d.take(op)) found = op;
  Type t = d.take_type();
  i.run = handler(found, t);
  if (!i.run) d.refuse("operation or type not supported");
  if (t == Type::bf16x2) d.need(90, 78, "atomics on bf16x2");
  size_t n = result ? 1 : 0;
  d.address(n, i.space, i, i.a);
  i.b = d.src(n + 1, t);
  if (found == "cas") i.c = d.src(n + 2, t);
  i.d = result ? d.dst(0, t) : d.scratch(bytes(t) == 8);
  if (i.space != Space::shared) i.flow = Flow::pause;
}

void decode_atom(Decoder& d, Instr& i) { decode_atomic(d, i, true); }
void decode_red(Decoder& d, Instr& i) { decode_atomic(d, i, false); }

}  // namespace

std::vector<Op> atomic_ops() { return {{"atom", decode_atom}, {"red", decode_red}}; }

}  // namespace sim
