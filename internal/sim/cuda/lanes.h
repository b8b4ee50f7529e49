// Loops over the 32 lanes of rows of registers, in a form that compilers vectorise.
#pragma once
#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "exec.h"

// The rows of an instruction are the same row or disjoint ones.
#ifdef __clang__
#define LANES _Pragma("clang loop vectorize(assume_safety)") for (int l = 0; l < 32; l++)
#else
#define LANES _Pragma("GCC ivdep") for (int l = 0; l < 32; l++)
#endif

namespace sim {

constexpr uint32_t all_lanes = ~0u;

// A value of up to 4 bytes lies in a 32-bit cell, its upper bits 0.
template <class T>
using Cell = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline T from_cell(Cell<T> c) {
  if constexpr (std::is_floating_point_v<T>) {
    T v;
    memcpy(&v, &c, sizeof v);
    return v;
  } else {
    return static_cast<T>(c);
  }
}

template <class T>
inline Cell<T> to_cell(T v) {
  if constexpr (std::is_floating_point_v<T>) {
    Cell<T> c;
    memcpy(&c, &v, sizeof c);
    return c;
  } else {
    return static_cast<Cell<T>>(static_cast<std::make_unsigned_t<T>>(v));
  }
}

inline float float_of(uint32_t bits) { return from_cell<float>(bits); }
inline uint32_t bits_of(float f) { return to_cell(f); }

inline bool on(uint32_t mask, int lane) { return mask >> lane & 1; }

template <class D, class A, class F>
inline void map1(Warp& w, const Instr& i, uint32_t mask, F f) {
  auto* d = w.row<Cell<D>>(i.d);
  auto* a = w.row<Cell<A>>(i.a);
  if (mask == all_lanes) {
    LANES d[l] = to_cell<D>(f(from_cell<A>(a[l])));
  } else {
    LANES {
      Cell<D> v = to_cell<D>(f(from_cell<A>(a[l])));
      d[l] = on(mask, l) ? v : d[l];
    }
  }
}

template <class D, class A, class B, class F>
inline void map2(Warp& w, const Instr& i, uint32_t mask, F f) {
  auto* d = w.row<Cell<D>>(i.d);
  auto* a = w.row<Cell<A>>(i.a);
  auto* b = w.row<Cell<B>>(i.b);
  if (mask == all_lanes) {
    LANES d[l] = to_cell<D>(f(from_cell<A>(a[l]), from_cell<B>(b[l])));
  } else {
    LANES {
      Cell<D> v = to_cell<D>(f(from_cell<A>(a[l]), from_cell<B>(b[l])));
      d[l] = on(mask, l) ? v : d[l];
    }
  }
}

template <class D, class A, class B, class C, class F>
inline void map3(Warp& w, const Instr& i, uint32_t mask, F f) {
  auto* d = w.row<Cell<D>>(i.d);
  auto* a = w.row<Cell<A>>(i.a);
  auto* b = w.row<Cell<B>>(i.b);
  auto* c = w.row<Cell<C>>(i.c);
  if (mask == all_lanes) {
    LANES d[l] = to_cell<D>(f(from_cell<A>(a[l]), from_cell<B>(b[l]), from_cell<C>(c[l])));
  } else {
    LANES {
      Cell<D> v = to_cell<D>(f(from_cell<A>(a[l]), from_cell<B>(b[l]), from_cell<C>(c[l])));
      d[l] = on(mask, l) ? v : d[l];
    }
  }
}

// One bit a lane of what is true.
inline uint32_t mask_of(const uint32_t* t) {
#ifdef __AVX2__
  uint32_t m = 0;
  for (int q = 0; q < 4; q++) {
    __m256 v = _mm256_loadu_ps(reinterpret_cast<const float*>(t + 8 * q));
    m |= static_cast<uint32_t>(_mm256_movemask_ps(v)) << (8 * q);
  }
  return m;
#else
  uint32_t m = 0;
  for (int l = 0; l < 32; l++) m |= (t[l] >> 31) << l;
  return m;
#endif
}

template <class T, class F>
inline uint32_t compare(Warp& w, const Instr& i, F f) {
  auto* a = w.row<Cell<T>>(i.a);
  auto* b = w.row<Cell<T>>(i.b);
  alignas(32) uint32_t t[32];
  LANES t[l] = f(from_cell<T>(a[l]), from_cell<T>(b[l])) ? ~0u : 0u;
  return mask_of(t);
}

// f(type) with a value of the C++ type that an integer type of PTX has.
template <class F>
inline Handler for_integer(Type t, F f) {
  switch (t) {
    case Type::s16: return f(int16_t{});
    case Type::u16: case Type::b16: return f(uint16_t{});
    case Type::s32: return f(int32_t{});
    case Type::u32: case Type::b32: return f(uint32_t{});
    case Type::s64: return f(int64_t{});
    case Type::u64: case Type::b64: return f(uint64_t{});
    default: return nullptr;
  }
}

}  // namespace sim
