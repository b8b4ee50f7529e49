// 8x8 matrices held by a simdgroup, two elements a lane. Which ones is the
// device's to choose (Thread::layout).
#pragma once
#include "simd.h"
#ifdef __HAVE_SIMDGROUP_MATRIX__

namespace metalsim {

METALSIM_RUNTIME inline uint element(uint place) {
  Thread* t = self();
  return t->layout[2 * t->lane + place];
}
METALSIM_RUNTIME inline void meet(const void* site) {
  if (self()->watched) metalsim_simdgroup_barrier(0, site);
}
template <class T>
constexpr int kind = 0;
template <>
constexpr int kind<half> = 1;
#ifdef __HAVE_BFLOAT__
template <>
constexpr int kind<bfloat> = 2;
#endif

}  // namespace metalsim

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "simdgroup matrices are 8x8");
  typedef vec<T, 2> storage_type;
  storage_type elements;

  simdgroup_matrix() {}
  // of a diagonal, as in Metal
  explicit simdgroup_matrix(T diagonal) {
    for (uint i = 0; i < 2; i++) {
      uint e = metalsim::element(i);
      elements[i] = e / 8 == e % 8 ? diagonal : T(0);
    }
  }
  thread storage_type& thread_elements() { return *(thread storage_type*)&elements; }
  const thread storage_type& thread_elements() const { return *(const thread storage_type*)&elements; }
};

typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
#ifdef __HAVE_BFLOAT__
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
#endif

template <class T, int Columns, int Rows = Columns>
inline simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> m;
  m.elements = vec<T, 2>(value);
  return m;
}

// Element (row, column) lies at source[(origin.y + row) * stride + origin.x + column], or the other way round where transposed.
#define METALSIM_LOAD(SPACE)                                                                                                                                        \
  template <class T>                                                                                                                                                \
  inline void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, const SPACE T* source, ulong stride = 8, ulong2 origin = ulong2(0), bool transpose = false) {     \
    metalsim::meet(__builtin_return_address(0));                                                                                                                    \
    for (uint i = 0; i < 2; i++) {                                                                                                                                  \
      ulong e = metalsim::element(i), row = transpose ? e % 8 : e / 8, column = transpose ? e / 8 : e % 8;                                                          \
      m.elements[i] = source[(origin.y + row) * stride + origin.x + column];                                                                                        \
    }                                                                                                                                                               \
  }
#define METALSIM_STORE(SPACE)                                                                                                                                       \
  template <class T>                                                                                                                                                \
  inline void simdgroup_store(simdgroup_matrix<T, 8, 8> m, SPACE T* target, ulong stride = 8, ulong2 origin = ulong2(0), bool transpose = false) {                  \
    metalsim::meet(__builtin_return_address(0));                                                                                                                    \
    for (uint i = 0; i < 2; i++) {                                                                                                                                  \
      ulong e = metalsim::element(i), row = transpose ? e % 8 : e / 8, column = transpose ? e / 8 : e % 8;                                                          \
      target[(origin.y + row) * stride + origin.x + column] = m.elements[i];                                                                                        \
    }                                                                                                                                                               \
  }
METALSIM_LOAD(device)
METALSIM_LOAD(threadgroup)
METALSIM_STORE(device)
METALSIM_STORE(threadgroup)
#undef METALSIM_LOAD
#undef METALSIM_STORE

template <class D, class A, class B, class C>
METALSIM_RUNTIME inline void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>& d, const thread simdgroup_matrix<A, 8, 8>& a, const thread simdgroup_matrix<B, 8, 8>& b,
                                                           const thread simdgroup_matrix<C, 8, 8>& c) {
  metalsim_matrix_multiply(&d, metalsim::kind<D>, &a, metalsim::kind<A>, &b, metalsim::kind<B>, &c, metalsim::kind<C>, __builtin_return_address(0));
}
template <class D, class A, class B>
METALSIM_RUNTIME inline void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>& d, const thread simdgroup_matrix<A, 8, 8>& a, const thread simdgroup_matrix<B, 8, 8>& b) {
  metalsim_matrix_multiply(&d, metalsim::kind<D>, &a, metalsim::kind<A>, &b, metalsim::kind<B>, (const void*)0, 0, __builtin_return_address(0));
}

}  // namespace metal
#endif
