// Matrix products of a warp (mma.sync), the loads and stores of their operands.
#include <cmath>

#include "access.h"
#include "decode.h"
#include "half.h"

namespace sim {
namespace {

int32_t nth(Warp& w, const Instr& i, int n) { return w.block->kernel->rows[static_cast<size_t>(i.more + n)]; }

// --- mma: element (row, k) of A lies in lane 4*(row%8) + .., see the PTX ISA
// "Matrix Fragments for mma". K elements of Bits bits in registers of 32.

enum class Number : uint8_t { f16, bf16, tf32, s8, u8 };

struct Shape {
  uint8_t m, n, k;
  Number a, b;
  bool half_sum, saturates;
};

// Where element k of a row lies among a thread's registers: a register holds
// `per` neighbours, four lanes hold 4*per, then comes the next register.
template <class F>
void fragment(Warp& w, const Instr& i, int first, int rows, int k, int per, bool is_a, F put) {
  int registers = rows / 8 * (k / (4 * per));
  for (int r = 0; r < registers; r++) {
    auto* v = w.row<uint32_t>(nth(w, i, first + r));
    int band = is_a ? r % (rows / 8) : 0, step = is_a ? r / (rows / 8) : r;
    for (int l = 0; l < 32; l++) put(band * 8 + l / 4, step * 4 * per + l % 4 * per, v[l]);
  }
}

float real(Number t, uint32_t v, int n) {
  if (t == Number::tf32) return float_of(v & ~0x1fffu);
  return t == Number::f16 ? f16_to_float(v >> (16 * n) & 0xffff) : bf16_to_float(v >> (16 * n) & 0xffff);
}

// Products are exact; they are added in f32 in the order of k.
template <int M, int K>
void mma_real(Warp& w, const Instr& i, uint32_t) {
  Shape s;
  memcpy(&s, &i.offset, sizeof s);
  alignas(32) float a[M][K], b[K][8], c[M][8];
  int per = s.a == Number::tf32 ? 1 : 2, sums = s.half_sum ? M / 8 : M / 4, a_at = sums, b_at = a_at + M / 8 * (K / (4 * per)), c_at = b_at + K / (4 * per);
  fragment(w, i, a_at, M, K, per, true, [&](int row, int k, uint32_t v) {
    for (int n = 0; n < per; n++) a[row][k + n] = real(s.a, v, n);
  });
  fragment(w, i, b_at, 8, K, per, false, [&](int col, int k, uint32_t v) {
    for (int n = 0; n < per; n++) b[k + n][col] = real(s.b, v, n);
  });
  for (int r = 0; r < sums; r++) {
    auto* v = w.row<uint32_t>(nth(w, i, c_at + r));
    for (int l = 0; l < 32; l++) {
      if (s.half_sum) {
        c[l / 4 + 8 * r][l % 4 * 2] = f16_to_float(v[l] & 0xffff);
        c[l / 4 + 8 * r][l % 4 * 2 + 1] = f16_to_float(v[l] >> 16);
      } else {
        c[l / 4 + 8 * (r / 2)][l % 4 * 2 + r % 2] = float_of(v[l]);
      }
    }
  }
  for (int r = 0; r < M; r++)
    for (int k = 0; k < K; k++)
      for (int n = 0; n < 8; n++) c[r][n] = std::fma(a[r][k], b[k][n], c[r][n]);
  for (int r = 0; r < sums; r++) {
    auto* v = w.row<uint32_t>(nth(w, i, r));
    for (int l = 0; l < 32; l++) {
      if (s.half_sum) v[l] = float_to_f16(c[l / 4 + 8 * r][l % 4 * 2]) | float_to_f16(c[l / 4 + 8 * r][l % 4 * 2 + 1]) << 16;
      else v[l] = bits_of(c[l / 4 + 8 * (r / 2)][l % 4 * 2 + r % 2]);
    }
  }
  w.block->tally.mma++;
  w.block->tally.macs += M * 8 * K;
  w.sync++;
}

int32_t byte(Number t, uint32_t v, int n) { return t == Number::s8 ? static_cast<int8_t>(v >> (8 * n)) : static_cast<uint8_t>(v >> (8 * n)); }

template <int M, int K>
void mma_integer(Warp& w, const Instr& i, uint32_t) {
  Shape s;
  memcpy(&s, &i.offset, sizeof s);
  alignas(32) int16_t a[M][K], b[8][K];
  int sums = M / 4, a_at = sums, b_at = a_at + M / 8 * (K / 16), c_at = b_at + K / 16;
  fragment(w, i, a_at, M, K, 4, true, [&](int row, int k, uint32_t v) {
    for (int n = 0; n < 4; n++) a[row][k + n] = static_cast<int16_t>(byte(s.a, v, n));
  });
  fragment(w, i, b_at, 8, K, 4, false, [&](int col, int k, uint32_t v) {
    for (int n = 0; n < 4; n++) b[col][k + n] = static_cast<int16_t>(byte(s.b, v, n));
  });
  int32_t product[M][8];
  for (int r = 0; r < M; r++)
    for (int n = 0; n < 8; n++) {
      int32_t sum = 0;
      for (int k = 0; k < K; k++) sum += int32_t{a[r][k]} * b[n][k];
      product[r][n] = sum;
    }
  for (int r = 0; r < sums; r++) {
    auto* v = w.row<uint32_t>(nth(w, i, r));
    auto* c = w.row<uint32_t>(nth(w, i, c_at + r));
    for (int l = 0; l < 32; l++) {
      int32_t p = product[l / 4 + 8 * (r / 2)][l % 4 * 2 + r % 2];
      int64_t sum = int64_t{static_cast<int32_t>(c[l])} + p;
      if (s.saturates) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
      v[l] = static_cast<uint32_t>(sum);
    }
  }
  w.block->tally.mma++;
  w.block->tally.macs += M * 8 * K;
  w.sync++;
}

Handler product(const Shape& s) {
  if (s.a == Number::s8 || s.a == Number::u8)
    return s.m == 8 && s.k == 16 ? mma_integer<8, 16> : s.m == 16 && s.k == 16 ? mma_integer<16, 16> : s.m == 16 && s.k == 32 ? mma_integer<16, 32> : nullptr;
  if (s.m != 16) return nullptr;
  if (s.a == Number::tf32) return s.k == 4 ? mma_real<16, 4> : s.k == 8 ? mma_real<16, 8> : nullptr;
  return s.k == 8 ? mma_real<16, 8> : s.k == 16 ? mma_real<16, 16> : nullptr;
}

Number take_number(Decoder& d) {
  switch (d.take_type()) {
    case Type::f16: return Number::f16;
    case Type::bf16: return Number::bf16;
    case Type::tf32: return Number::tf32;
    case Type::s8: return Number::s8;
    case Type::u8: return Number::u8;
    default: d.refuse("type not supported");
  }
}

void decode_mma(Decoder& d, Instr& i) {
  if (!d.take("sync") || !d.take("aligned")) d.refuse("sync.aligned is missing");
  static constexpr struct { const char* name; uint8_t m, n, k; } shapes[] = {{"m16n8k4", 16, 8, 4}, {"m16n8k8", 16, 8, 8}, {"m16n8k16", 16, 8, 16},
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
  int per = integer ? 4 : s.a == Number::tf32 ? 1 : 2;
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

// --- ldmatrix, stmatrix, movmatrix: 8x8 matrices of 16 bits, a row of 16 bytes a lane

void matrix_rows(Warp& w, const Instr& i, Access access, Places& p) {
  alignas(32) uint64_t address[32];
  addresses(w, i, i.a, address);
  uint32_t lanes = i.count == 4 ? ~0u : (1u << (8 * i.count)) - 1;
  resolve(w, i, i.space, address, lanes, 16, access, p);
}

void load_matrix(Warp& w, const Instr& i, uint32_t) {
  Places p;
  matrix_rows(w, i, Access::read, p);
  uint16_t m[4][8][8];
  for (int n = 0; n < i.count; n++)
    for (int r = 0; r < 8; r++) memcpy(m[n][r], p.at[8 * n + r], 16);
  bool trans = i.width;
  for (int n = 0; n < i.count; n++) {
    auto* d = w.row<uint32_t>(nth(w, i, n));
    for (int l = 0; l < 32; l++) {
      int r = l / 4, c = l % 4 * 2;
      d[l] = trans ? m[n][c][r] | uint32_t{m[n][c + 1][r]} << 16 : m[n][r][c] | uint32_t{m[n][r][c + 1]} << 16;
    }
  }
  w.sync++;
}

void store_matrix(Warp& w, const Instr& i, uint32_t) {
  uint16_t m[4][8][8];
  bool trans = i.width;
  for (int n = 0; n < i.count; n++) {
    auto* s = w.row<uint32_t>(nth(w, i, n));
    for (int l = 0; l < 32; l++) {
      int r = l / 4, c = l % 4 * 2;
      (trans ? m[n][c][r] : m[n][r][c]) = static_cast<uint16_t>(s[l]);
      (trans ? m[n][c + 1][r] : m[n][r][c + 1]) = static_cast<uint16_t>(s[l] >> 16);
    }
  }
  Places p;
  matrix_rows(w, i, Access::write, p);
  for (int n = 0; n < i.count; n++)
    for (int r = 0; r < 8; r++) memcpy(p.at[8 * n + r], m[n][r], 16);
  w.sync++;
}

void matrix_modifiers(Decoder& d, Instr& i) {
  if (!d.take("sync") || !d.take("aligned") || !d.take("m8n8")) d.refuse("only sync.aligned.m8n8");
  i.count = d.take("x4") ? 4 : d.take("x2") ? 2 : 1;
  d.take("x1");
  i.width = d.take("trans");
  i.space = d.take("shared") || d.take("shared::cta") ? Space::shared : Space::generic;
  d.take("b16");
  i.flow = Flow::collective;
}

void matrix_registers(Decoder& d, Instr& i, size_t n, bool to) {
  const Operand& o = d.arg(n);
  std::vector<Operand> parts = o.kind == Operand::vector ? o.parts : std::vector<Operand>{o};
  if (parts.size() != i.count) d.refuse("wrong number of registers");
  std::vector<int32_t> rows;
  for (auto& part : parts) rows.push_back(to ? d.dst(part, Type::b32) : d.src(part, Type::b32));
  i.more = d.more(rows);
}

void decode_ldmatrix(Decoder& d, Instr& i) {
  d.need(75, 65, "ldmatrix");
  matrix_modifiers(d, i);
  d.address(1, i.space, i, i.a);
  matrix_registers(d, i, 0, true);
  i.run = load_matrix;
}

void decode_stmatrix(Decoder& d, Instr& i) {
  d.need(90, 78, "stmatrix");
  matrix_modifiers(d, i);
  d.address(0, i.space, i, i.a);
  matrix_registers(d, i, 1, false);
  i.run = store_matrix;
}

void decode_movmatrix(Decoder& d, Instr& i) {
  d.need(75, 78, "movmatrix");
  matrix_modifiers(d, i);
  i.a = d.src(1, Type::b32);
  i.d = d.dst(0, Type::b32);
  i.run = [](Warp& w, const Instr& i, uint32_t) {
    uint16_t m[8][8];
    auto *a = w.row<uint32_t>(i.a), *d = w.row<uint32_t>(i.d);
    for (int l = 0; l < 32; l++) m[l / 4][l % 4 * 2] = static_cast<uint16_t>(a[l]), m[l / 4][l % 4 * 2 + 1] = static_cast<uint16_t>(a[l] >> 16);
    for (int l = 0; l < 32; l++) d[l] = m[l % 4 * 2][l / 4] | uint32_t{m[l % 4 * 2 + 1][l / 4]} << 16;
    w.sync++;
  };
}

}  // namespace

std::vector<Op> matrix_ops() {
  return {{"mma", decode_mma}, {"ldmatrix", decode_ldmatrix}, {"stmatrix", decode_stmatrix}, {"movmatrix", decode_movmatrix}};
}

}  // namespace sim
