#include "matrix.h"

#include <immintrin.h>

#include <cstring>
#include <utility>

namespace metalsim {

void matrix_layout(uint64_t seed, unsigned char layout[64]) {
  for (int i = 0; i < 64; i++) layout[i] = static_cast<unsigned char>(i);
  if (!seed) return;
  uint64_t state = seed;
  for (unsigned i = 63; i > 0; i--) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(layout[i], layout[(state >> 33) % (i + 1)]);
  }
}

float load_element(const void* from, unsigned i, int kind) {
  if (kind == 0) return static_cast<const float*>(from)[i];
  uint16_t h = static_cast<const uint16_t*>(from)[i];
  if (kind == 1) return _cvtsh_ss(h);
  uint32_t bits = uint32_t{h} << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

void store_element(void* to, unsigned i, int kind, float v) {
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

void matrix_product(float* __restrict d, const float* __restrict a, const float* __restrict b, const float* __restrict c) {
  for (int r = 0; r < 8; r++) {
    __m256 sum = _mm256_loadu_ps(c + 8 * r);
    for (int k = 0; k < 8; k++) sum = _mm256_fmadd_ps(_mm256_set1_ps(a[8 * r + k]), _mm256_loadu_ps(b + 8 * k), sum);
    _mm256_storeu_ps(d + 8 * r, sum);
  }
}

}  // namespace metalsim
