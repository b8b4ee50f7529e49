// Fragments of matrices in registers, as "Matrix Fragments for mma" of the PTX ISA
// draws them: a register of the 32 lanes, one after the other, is 8 rows of 16
// bytes of A, 8 columns of 16 bytes of B, or every second column of 8 rows of C.
#pragma once
#include "lanes.h"

namespace sim {

enum class Number : uint8_t { f16, bf16, s8, u8 };

// 8 numbers of 16 bits.
template <Number N>
inline __m256 eight(const uint32_t* p) {
  __m128i v = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
  return N == Number::f16 ? _mm256_cvtph_ps(v) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

// Row q of C from the registers of its even and its odd columns, and back.
inline __m256i joined(const uint32_t* even, const uint32_t* odd, int q) {
  __m128i e = _mm_load_si128(reinterpret_cast<const __m128i*>(even + 4 * q)), o = _mm_load_si128(reinterpret_cast<const __m128i*>(odd + 4 * q));
  return _mm256_set_m128i(_mm_unpackhi_epi32(e, o), _mm_unpacklo_epi32(e, o));
}
inline void part(__m256i row, uint32_t* even, uint32_t* odd, int q) {
  __m256i sorted = _mm256_permutevar8x32_epi32(row, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  _mm_store_si128(reinterpret_cast<__m128i*>(even + 4 * q), _mm256_castsi256_si128(sorted));
  _mm_store_si128(reinterpret_cast<__m128i*>(odd + 4 * q), _mm256_extracti128_si256(sorted, 1));
}

// 8 columns to 8 rows.
inline void transpose(const __m256* t, __m256* out) {
  __m256 a[8], b[8];
  for (int n = 0; n < 8; n += 2) a[n] = _mm256_unpacklo_ps(t[n], t[n + 1]), a[n + 1] = _mm256_unpackhi_ps(t[n], t[n + 1]);
  for (int n = 0; n < 8; n += 4) {
    b[n] = _mm256_shuffle_ps(a[n], a[n + 2], 0x44), b[n + 1] = _mm256_shuffle_ps(a[n], a[n + 2], 0xee);
    b[n + 2] = _mm256_shuffle_ps(a[n + 1], a[n + 3], 0x44), b[n + 3] = _mm256_shuffle_ps(a[n + 1], a[n + 3], 0xee);
  }
  for (int n = 0; n < 4; n++) out[n] = _mm256_permute2f128_ps(b[n], b[n + 4], 0x20), out[n + 4] = _mm256_permute2f128_ps(b[n], b[n + 4], 0x31);
}

// 8 columns of 16 rows: products are exact; they are added in f32 in the order of k.
template <int K>
inline void add_products(const float (*a)[K], const __m256* b, __m256* c) {
  for (int band = 0; band < 16; band += 8) {
    __m256 sum[8];
    for (int q = 0; q < 8; q++) sum[q] = c[band + q];
    for (int k = 0; k < K; k++)
      for (int q = 0; q < 8; q++) sum[q] = _mm256_fmadd_ps(_mm256_broadcast_ss(&a[band + q][k]), b[k], sum[q]);
    for (int q = 0; q < 8; q++) c[band + q] = sum[q];
  }
}

}  // namespace sim
