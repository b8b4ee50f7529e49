// mma and ldmatrix against the fragment layouts that the PTX ISA draws.
#include <cmath>
#include <string>

#include "test.h"

namespace {

struct Element {
  int row, col;
};

// Where element i of lane l lies in A, B and C, for a shape of M rows and K deep,
// with n elements in a register. The words of the ISA: groupID is l / 4,
// threadID_in_group is l % 4.
Element of_a(int m, int n, int l, int i) {
  int registers_of_rows = m / 8;  // registers alternate between the upper and the lower 8 rows
  int r = i / n;
  return {l / 4 + 8 * (r % registers_of_rows), l % 4 * n + i % n + 4 * n * (r / registers_of_rows)};
}
Element of_b(int n, int l, int i) { return {l % 4 * n + i % n + 4 * n * (i / n), l / 4}; }
Element of_c(int l, int i) { return {l / 4 + 8 * (i / 2), l % 4 * 2 + i % 2}; }

uint32_t encode(const std::string& type, int v) {
  if (type == "bf16") return bits_of(static_cast<float>(v)) >> 16;
  if (type != "f16") return static_cast<uint8_t>(v);
  // small integers, exactly
  if (v == 0) return 0;
  uint32_t sign = v < 0 ? 0x8000 : 0, size = static_cast<uint32_t>(std::abs(v));
  int e = 31 - __builtin_clz(size);
  return sign | static_cast<uint32_t>(e + 15) << 10 | (size << (10 - e) & 1023);
}

std::string list(const char* prefix, int first, int n) {
  std::string s = "{";
  for (int i = 0; i < n; i++) s += (i ? ", %" : "%") + std::string(prefix) + std::to_string(first + i);
  return s + "}";
}

void product(int m, int k, const std::string& a_type, const std::string& b_type, int target = 80) {
  bool real = a_type == "f16" || a_type == "bf16";
  int n = real ? 2 : 4, bits = 32 / n, a_registers = m / 8 * k / (4 * n), b_registers = k / (4 * n), c_registers = m / 4;
  int a[16][32], b[32][8], c[16][8];
  auto draw = [](const std::string& type) { return type == "u8" ? static_cast<int>(random_word() % 256) : type == "s8" ? static_cast<int>(random_word() % 256) - 128 : static_cast<int>(random_word() % 129) - 64; };
  for (int r = 0; r < m; r++)
    for (int x = 0; x < k; x++) a[r][x] = draw(a_type);
  for (int x = 0; x < k; x++)
    for (int col = 0; col < 8; col++) b[x][col] = draw(b_type);
  for (int r = 0; r < m; r++)
    for (int col = 0; col < 8; col++) c[r][col] = static_cast<int>(random_word() % 2001) - 1000;
  int inputs = a_registers + b_registers + c_registers;
  std::vector<uint32_t> in(32 * static_cast<size_t>(inputs));
  for (int l = 0; l < 32; l++) {
    uint32_t* r = &in[static_cast<size_t>(l * inputs)];
    for (int i = 0; i < a_registers * n; i++) {
      Element e = of_a(m, n, l, i);
      r[i / n] |= encode(a_type, a[e.row][e.col]) << (bits * (i % n));
    }
    for (int i = 0; i < b_registers * n; i++) {
      Element e = of_b(n, l, i);
      r[a_registers + i / n] |= encode(b_type, b[e.row][e.col]) << (bits * (i % n));
    }
    for (int i = 0; i < c_registers; i++) {
      Element e = of_c(l, i);
      r[a_registers + b_registers + i] = real ? bits_of(static_cast<float>(c[e.row][e.col])) : static_cast<uint32_t>(c[e.row][e.col]);
    }
  }
  std::string sum = real ? "f32" : "s32";
  std::string op = "mma.sync.aligned.m" + std::to_string(m) + "n8k" + std::to_string(k) + ".row.col." + sum + "." + a_type + "." + b_type + "." + sum;
  std::string body = op + " " + list("o", 0, c_registers) + ", " + list("r", 0, a_registers) + ", " + list("r", a_registers, b_registers) + ", " + list("r", a_registers + b_registers, c_registers) + ";";
  auto out = lanes(body, in, c_registers, target);
  for (int l = 0; l < 32; l++)
    for (int i = 0; i < c_registers; i++) {
      Element e = of_c(l, i);
      int want = c[e.row][e.col];
      for (int x = 0; x < k; x++) want += a[e.row][x] * b[x][e.col];
      uint32_t got = out[static_cast<size_t>(l * c_registers + i)];
      if (got != (real ? bits_of(static_cast<float>(want)) : static_cast<uint32_t>(want))) return fail(__FILE__, __LINE__, op + ": lane " + std::to_string(l) + ", element " + std::to_string(i));
    }
}

void reals() {
  product(16, 8, "f16", "f16", 75);
  product(16, 16, "f16", "f16");
  product(16, 8, "bf16", "bf16");
  product(16, 16, "bf16", "bf16");
}

void integers() {
  for (const char* a : {"s8", "u8"})
    for (const char* b : {"s8", "u8"}) {
      product(8, 16, a, b, 75);
      product(16, 16, a, b);
      product(16, 32, a, b);
    }
}

// Lane 8*j + i gives the address of row i of matrix j; lane l gets elements 2*(l%4)
// and the next of row l/4 of each, or of column l/4 with .trans.
void load_matrices() {
  for (int count : {1, 2, 4})
    for (bool trans : {false, true}) {
      std::string body =
          ".shared .align 16 .b8 m[512]; mov.u32 %r40, m; shl.b32 %r41, %tid, 4; add.u32 %r42, %r40, %r41; st.shared.v4.u32 [%r42], {%r0, %r1, %r2, %r3}; bar.sync 0;\n"
          // rows in another order than they lie
          "xor.b32 %r43, %tid, 5; shl.b32 %r43, %r43, 4; add.u32 %r43, %r40, %r43;\n"
          "ldmatrix.sync.aligned.m8n8.x" + std::to_string(count) + (trans ? ".trans" : "") + ".shared.b16 " + list("o", 0, count) + ", [%r43];";
      std::vector<uint32_t> in(128);
      for (uint32_t i = 0; i < 128; i++) in[i] = (2 * i + 1) << 16 | 2 * i;  // the 16-bit number j of row r is 8*r + j
      auto out = lanes(body, in, count, 75);
      for (uint32_t l = 0; l < 32; l++)
        for (uint32_t j = 0; j < static_cast<uint32_t>(count); j++) {
          auto at = [&](uint32_t row, uint32_t col) { return 8 * ((8 * j + row) ^ 5) + col; };
          uint32_t r = l / 4, col = l % 4 * 2;
          uint32_t want = trans ? at(col + 1, r) << 16 | at(col, r) : at(r, col + 1) << 16 | at(r, col);
          CHECK_EQ(out[l * static_cast<uint32_t>(count) + j], want);
        }
    }
}

}  // namespace

std::vector<Case> matrix_cases() { return {{"mma of f16 and bf16", reals}, {"mma of s8 and u8", integers}, {"ldmatrix", load_matrices}}; }
