#include "matrix.h"

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

void matrix_product(float* __restrict d, const float* __restrict a, const float* __restrict b, const float* __restrict c) {
  for (int r = 0; r < 8; r++) {
    __m256 sum = _mm256_loadu_ps(c + 8 * r);
    for (int k = 0; k < 8; k++) sum = _mm256_fmadd_ps(_mm256_set1_ps(a[8 * r + k]), _mm256_loadu_ps(b + 8 * k), sum);
    _mm256_storeu_ps(d + 8 * r, sum);
  }
}

}  // namespace metalsim
