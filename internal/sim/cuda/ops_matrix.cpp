// Loads and stores of matrices of 16 bits (ldmatrix, stmatrix, movmatrix).
#include "access.h"
#include "decode.h"

namespace sim {
namespace {

int32_t nth(Warp& w, const Instr& i, int n) { return w.block->kernel->rows[static_cast<size_t>(i.more + n)]; }

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
  if (!i.width) {
    // lane l gets word l % 4 of row l / 4: the rows one after the other
    alignas(32) char whole[4][128];
    for (int r = 0; r < 8 * i.count; r++) memcpy(&whole[0][0] + 16 * r, p.at[r], 16);
    for (int n = 0; n < i.count; n++) memcpy(w.row<uint32_t>(nth(w, i, n)), whole[n], 128);
    w.sync++;
    return;
  }
  uint16_t m[4][8][8];
  for (int n = 0; n < i.count; n++)
    for (int r = 0; r < 8; r++) memcpy(m[n][r], p.at[8 * n + r], 16);
  for (int n = 0; n < i.count; n++) {
    auto* d = w.row<uint32_t>(nth(w, i, n));
    for (int l = 0; l < 32; l++) {
      int r = l / 4, c = l % 4 * 2;
      d[l] = m[n][c][r] | uint32_t{m[n][c + 1][r]} << 16;
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
  return {{"ldmatrix", decode_ldmatrix}, {"stmatrix", decode_stmatrix}, {"movmatrix", decode_movmatrix}};
}

}  // namespace sim
