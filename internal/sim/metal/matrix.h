// 8x8 matrices of a simdgroup: where their elements are, and products.
#pragma once
#include <cstdint>

namespace metalsim {

// The element (8 x row + column) that each lane has at its two places. 0: in order; other seeds shuffle.
void matrix_layout(uint64_t seed, unsigned char layout[64]);

// Kinds: 0 float, 1 half, 2 bfloat.
float load_element(const void* from, unsigned i, int kind);
void store_element(void* to, unsigned i, int kind, float v);

// d = a * b + c; d may not be one of the others
void matrix_product(float* __restrict d, const float* __restrict a, const float* __restrict b, const float* __restrict c);

}  // namespace metalsim
