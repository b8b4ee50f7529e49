// 16-bit floating point, one value at a time; rounding to the nearest even.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace sim {

inline float f16_to_float(uint32_t h) { return _cvtsh_ss(static_cast<unsigned short>(h)); }

inline uint32_t float_to_f16(float f) {
  return f != f ? 0x7fffu : static_cast<uint32_t>(static_cast<unsigned short>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT)));
}

inline float bf16_to_float(uint32_t h) {
  uint32_t b = h << 16;
  float f;
  memcpy(&f, &b, 4);
  return f;
}

inline uint32_t float_to_bf16(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  return f != f ? 0x7fffu : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

// a*b+c of 16-bit values is exact in a double but for the widest bf16 ranges, so
// rounding to odd in f32 on the way keeps the result singly rounded.
inline float round_to_odd(double d) {
  float f = static_cast<float>(d);
  if (static_cast<double>(f) == d || f != f || std::isinf(f)) return f;
  uint32_t b;
  memcpy(&b, &f, 4);
  bool away = std::fabs(static_cast<double>(f)) > std::fabs(d);
  if (away) b -= 1;
  b |= 1;
  memcpy(&f, &b, 4);
  return f;
}

struct F16 {
  static float load(uint32_t h) { return f16_to_float(h & 0xffff); }
  static uint32_t store(float f) { return float_to_f16(f); }
  static constexpr uint32_t infinity = 0x7c00, nan = 0x7fff;
};

struct BF16 {
  static float load(uint32_t h) { return bf16_to_float(h & 0xffff); }
  static uint32_t store(float f) { return float_to_bf16(f); }
  static constexpr uint32_t infinity = 0x7f80, nan = 0x7fff;
};

}  // namespace sim
