// 8x8 matrices of a simdgroup: where their elements are, and products.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace metalsim {

// The element (8 x row + column) that each lane has at its two places. 0: in order; other seeds shuffle.
void matrix_layout(uint64_t seed, unsigned char layout[64]);

// Kinds: 0 float, 1 half, 2 bfloat.
inline float load_element(const void* from, unsigned i, int kind) {
  if (kind == 0) return static_cast<const float*>(from)[i];
  uint16_t h = static_cast<const uint16_t*>(from)[i];
  if (kind == 1) return _cvtsh_ss(h);
  uint32_t bits = uint32_t{h} << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

inline void store_element(void* to, unsigned i, int kind, float v) {
  if (kind == 0) {
    static_cast<float*>(to)[i] = v;
  } else if (kind == 1) {
    static_cast<uint16_t*>(to)[i] = _cvtss_sh(v, 0);
  } else {
    uint32_t b;
    memcpy(&b, &v, 4);
    bool nan = (b & 0x7fffffff) > 0x7f800000;
    static_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(nan ? b >> 16 | 0x40 : (b + 0x7fff + (b >> 16 & 1)) >> 16);
  }
}

// d = a * b + c; d may not be one of the others
void matrix_product(float* __restrict d, const float* __restrict a, const float* __restrict b, const float* __restrict c);

}  // namespace metalsim
