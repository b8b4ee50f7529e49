// Address spaces, scalars and vectors. The program is C++ for OpenCL, whose
// address spaces are MSL's under other names. It is stricter than MSL: a structure
// in constant memory is used member by member, not copied; a scalar beside a vector
// has no higher rank than the elements (uchar4(15), not 15, beside uchar4); vectors
// convert by constructors alone (float4(h), not (float4)h), and in templates
// vec<T, 4>(a, b, c, d) makes one. Accesses to variables of a thread go unchecked.
#pragma once

#define kernel
#define device __global
#define constant __constant const
#define threadgroup __local
#define thread __private
// words of OpenCL that MSL leaves to programs
#define global metalsim_global
#define local metalsim_local
#define generic metalsim_generic
#define pipe metalsim_pipe
#define read_only metalsim_read_only
#define write_only metalsim_write_only
#define read_write metalsim_read_write

// Functions of the device's own, whose accesses are not the program's.
#define METALSIM_RUNTIME __attribute__((no_sanitize("thread"), no_sanitize("alignment"), noinline))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef unsigned long size_t;
typedef long ptrdiff_t;
typedef signed char int8_t;
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef long int64_t;
typedef ulong uint64_t;
#ifdef __HAVE_BFLOAT__
typedef __bf16 bfloat;
#endif

#define METALSIM_VECTORS(T)                                \
  typedef T T##2 __attribute__((ext_vector_type(2)));      \
  typedef T T##3 __attribute__((ext_vector_type(3)));      \
  typedef T T##4 __attribute__((ext_vector_type(4)));      \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(sizeof(T)))); \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(sizeof(T))));
METALSIM_VECTORS(float)
METALSIM_VECTORS(half)
METALSIM_VECTORS(char)
METALSIM_VECTORS(uchar)
METALSIM_VECTORS(short)
METALSIM_VECTORS(ushort)
METALSIM_VECTORS(int)
METALSIM_VECTORS(uint)
METALSIM_VECTORS(long)
METALSIM_VECTORS(ulong)
#ifdef __HAVE_BFLOAT__
METALSIM_VECTORS(bfloat)
#endif

namespace metal {
namespace metal = ::metal;  // metal::float4(x) is a macro that begins with metal::

template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));

template <class T>
struct identity {
  typedef T type;
};
template <class T>
struct vector_of {
  static constexpr int size = 1;
  typedef T element;
};
template <class T, int N>
struct vector_of<T __attribute__((ext_vector_type(N)))> {
  static constexpr int size = N;
  typedef T element;
};

template <class V, class A>
inline void append(thread V& v, thread int& at, A a) {
  using E = typename vector_of<V>::element;
  if constexpr (vector_of<A>::size == 1) {
    v[at++] = (E)a;
  } else {
    for (int i = 0; i < vector_of<A>::size; i++) v[at++] = (E)a[i];
  }
}

// A vector of a scalar, of a vector of another type, or of parts in order.
template <class V, class... A>
inline V make(A... a) {
  constexpr int parts = sizeof...(A), elements = (0 + ... + vector_of<A>::size);
  if constexpr (parts == 0) {
    return V(0);
  } else if constexpr (parts == 1 && elements == 1) {
    return V((typename vector_of<V>::element)(a, ...));
  } else {
    static_assert(elements == vector_of<V>::size, "a vector needs as many elements as it has");
    if constexpr (parts == 1) {
      return __builtin_convertvector((a, ...), V);
    } else {
      V v = V(0);
      int at = 0;
      (append(v, at, a), ...);
      return v;
    }
  }
}

template <class T, class U>
inline T as_type(U u) {
  static_assert(sizeof(T) == sizeof(U), "as_type between types of one size");
  return __builtin_bit_cast(T, u);
}

template <class T, size_t N>
struct array {
  T elements[N];
  constexpr size_t size() const { return N; }
  T operator[](size_t i) const { return elements[i]; }
  thread T& operator[](size_t i) thread { return elements[i]; }
};

template <class T, class U>
struct is_same {
  static constexpr bool value = false;
};
template <class T>
struct is_same<T, T> {
  static constexpr bool value = true;
};
template <class T, class U>
constexpr bool is_same_v = is_same<T, U>::value;
template <bool, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool, class T, class U>
struct conditional {
  typedef T type;
};
template <class T, class U>
struct conditional<false, T, U> {
  typedef U type;
};
template <bool B, class T, class U>
using conditional_t = typename conditional<B, T, U>::type;

}  // namespace metal

// float4(a, b, c, d): C++ has no constructors of such vectors
#define float2(...) metal::make<float2>(__VA_ARGS__)
#define float3(...) metal::make<float3>(__VA_ARGS__)
#define float4(...) metal::make<float4>(__VA_ARGS__)
#define half2(...) metal::make<half2>(__VA_ARGS__)
#define half3(...) metal::make<half3>(__VA_ARGS__)
#define half4(...) metal::make<half4>(__VA_ARGS__)
#define bfloat2(...) metal::make<bfloat2>(__VA_ARGS__)
#define bfloat3(...) metal::make<bfloat3>(__VA_ARGS__)
#define bfloat4(...) metal::make<bfloat4>(__VA_ARGS__)
#define char2(...) metal::make<char2>(__VA_ARGS__)
#define char3(...) metal::make<char3>(__VA_ARGS__)
#define char4(...) metal::make<char4>(__VA_ARGS__)
#define uchar2(...) metal::make<uchar2>(__VA_ARGS__)
#define uchar3(...) metal::make<uchar3>(__VA_ARGS__)
#define uchar4(...) metal::make<uchar4>(__VA_ARGS__)
#define short2(...) metal::make<short2>(__VA_ARGS__)
#define short3(...) metal::make<short3>(__VA_ARGS__)
#define short4(...) metal::make<short4>(__VA_ARGS__)
#define ushort2(...) metal::make<ushort2>(__VA_ARGS__)
#define ushort3(...) metal::make<ushort3>(__VA_ARGS__)
#define ushort4(...) metal::make<ushort4>(__VA_ARGS__)
#define int2(...) metal::make<int2>(__VA_ARGS__)
#define int3(...) metal::make<int3>(__VA_ARGS__)
#define int4(...) metal::make<int4>(__VA_ARGS__)
#define uint2(...) metal::make<uint2>(__VA_ARGS__)
#define uint3(...) metal::make<uint3>(__VA_ARGS__)
#define uint4(...) metal::make<uint4>(__VA_ARGS__)
#define long2(...) metal::make<long2>(__VA_ARGS__)
#define long4(...) metal::make<long4>(__VA_ARGS__)
#define ulong2(...) metal::make<ulong2>(__VA_ARGS__)
#define ulong4(...) metal::make<ulong4>(__VA_ARGS__)
