// Mathematical functions, by element for vectors. precise:: and fast:: have the
// same ones: here nothing is approximate.
#pragma once
#include "types.h"

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define HUGE_VALF (__builtin_inff())
#define FLT_MAX 0x1.fffffep+127f
#define MAXFLOAT FLT_MAX
#define FLT_MIN 0x1p-126f
#define FLT_EPSILON 0x1p-23f
#define HALF_MAX ((half)65504.0f)
#define MAXHALF HALF_MAX
#define HALF_MIN ((half)0x1p-14f)
#define CHAR_MAX 127
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define M_PI_F 3.14159265358979323846f
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.69314718055994530942f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f

namespace metal {

// Of T, where its elements are floating point.
template <class T>
constexpr bool is_float = is_same_v<typename vector_of<T>::element, float> || is_same_v<typename vector_of<T>::element, half>;
template <class T>
using if_float = enable_if_t<is_float<T>, T>;

template <class T> inline if_float<T> exp(T x) { return __builtin_elementwise_exp(x); }
template <class T> inline if_float<T> exp2(T x) { return __builtin_elementwise_exp2(x); }
template <class T> inline if_float<T> log(T x) { return __builtin_elementwise_log(x); }
template <class T> inline if_float<T> log2(T x) { return __builtin_elementwise_log2(x); }
template <class T> inline if_float<T> log10(T x) { return __builtin_elementwise_log10(x); }
template <class T> inline if_float<T> sin(T x) { return __builtin_elementwise_sin(x); }
template <class T> inline if_float<T> cos(T x) { return __builtin_elementwise_cos(x); }
template <class T> inline if_float<T> sqrt(T x) { return __builtin_elementwise_sqrt(x); }
template <class T> inline if_float<T> rsqrt(T x) { return T(1) / __builtin_elementwise_sqrt(x); }
template <class T> inline if_float<T> floor(T x) { return __builtin_elementwise_floor(x); }
template <class T> inline if_float<T> ceil(T x) { return __builtin_elementwise_ceil(x); }
template <class T> inline if_float<T> trunc(T x) { return __builtin_elementwise_trunc(x); }
template <class T> inline if_float<T> round(T x) { return __builtin_elementwise_round(x); }
template <class T> inline if_float<T> rint(T x) { return __builtin_elementwise_rint(x); }
template <class T> inline if_float<T> fract(T x) { return x - __builtin_elementwise_floor(x); }
template <class T> inline if_float<T> fabs(T x) { return __builtin_elementwise_abs(x); }
template <class T> inline if_float<T> fmin(T x, T y) { return __builtin_elementwise_min(x, y); }
template <class T> inline if_float<T> fmax(T x, T y) { return __builtin_elementwise_max(x, y); }
template <class T> inline if_float<T> fma(T x, T y, T z) { return __builtin_elementwise_fma(x, y, z); }
template <class T> inline if_float<T> pow(T x, T y) { return __builtin_elementwise_pow(x, y); }
template <class T> inline if_float<T> powr(T x, T y) { return __builtin_elementwise_pow(x, y); }
template <class T> inline if_float<T> copysign(T x, T y) { return __builtin_elementwise_copysign(x, y); }
template <class T> inline if_float<T> tan(T x) { return __builtin_elementwise_sin(x) / __builtin_elementwise_cos(x); }
template <class T> inline if_float<T> tanh(T x) {
  T e = __builtin_elementwise_exp(T(-2) * __builtin_elementwise_abs(x));
  return __builtin_elementwise_copysign((T(1) - e) / (T(1) + e), x);
}
template <class T> inline if_float<T> exp10(T x) { return __builtin_elementwise_pow(T(10), x); }
template <class T> inline if_float<T> sinh(T x) { return (__builtin_elementwise_exp(x) - __builtin_elementwise_exp(-x)) * T(0.5f); }
template <class T> inline if_float<T> cosh(T x) { return (__builtin_elementwise_exp(x) + __builtin_elementwise_exp(-x)) * T(0.5f); }
template <class T> inline if_float<T> fmod(T x, T y) { return x - y * __builtin_elementwise_trunc(x / y); }
template <class T> inline if_float<T> step(T edge, T x) { return x < edge ? T(0) : T(1); }
template <class T> inline if_float<T> divide(T x, T y) { return x / y; }

template <class T> inline T abs(T x) { return __builtin_elementwise_abs(x); }
template <class T> inline T min(T x, T y) { return __builtin_elementwise_min(x, y); }
template <class T> inline T max(T x, T y) { return __builtin_elementwise_max(x, y); }
template <class T> inline T clamp(T x, T low, T high) { return __builtin_elementwise_min(__builtin_elementwise_max(x, low), high); }
template <class T> inline if_float<T> saturate(T x) { return clamp(x, T(0), T(1)); }
template <class T> inline if_float<T> mix(T x, T y, T a) { return x + (y - x) * a; }
template <class T> inline T min3(T x, T y, T z) { return min(x, min(y, z)); }
template <class T> inline T max3(T x, T y, T z) { return max(x, max(y, z)); }
#ifdef __HAVE_BFLOAT__
inline bfloat min(bfloat x, bfloat y) { return (float)y < (float)x ? y : x; }
inline bfloat max(bfloat x, bfloat y) { return (float)x < (float)y ? y : x; }
#endif

// Comparisons of vectors give integers, 0 or -1; of scalars bool.
template <class T> inline auto isnan(T x) { return x != x; }
template <class T> inline auto isinf(T x) { return __builtin_elementwise_abs(x) == T(INFINITY); }
template <class T> inline auto isfinite(T x) { return __builtin_elementwise_abs(x) < T(INFINITY); }
template <class T> inline auto sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0); }
template <class T>
inline bool any(T x) {
  if constexpr (vector_of<T>::size == 1) return x;
  else {
    bool r = false;
    for (int i = 0; i < vector_of<T>::size; i++) r |= x[i] != 0;
    return r;
  }
}
template <class T>
inline bool all(T x) {
  if constexpr (vector_of<T>::size == 1) return x;
  else {
    bool r = true;
    for (int i = 0; i < vector_of<T>::size; i++) r &= x[i] != 0;
    return r;
  }
}
template <class T, class C> inline T select(T no, T yes, C c) { return c ? yes : no; }

template <class T>
inline typename vector_of<T>::element dot(T a, T b) {
  static_assert(is_float<T>, "dot is of floating point vectors");
  typename vector_of<T>::element s = a[0] * b[0];
  for (int i = 1; i < vector_of<T>::size; i++) s += a[i] * b[i];
  return s;
}
template <class T> inline auto length_squared(T a) { return dot(a, a); }
template <class T> inline auto distance(T a, T b) { return sqrt(dot(a - b, a - b)); }
template <class T> inline T normalize(T a) { return a * rsqrt(dot(a, a)); }
template <class T> inline auto length(T a) { return sqrt(dot(a, a)); }

template <class T> inline T popcount(T x) { return (T)__builtin_popcountl((ulong)x & (~0ul >> (64 - 8 * sizeof(T)))); }
template <class T> inline T clz(T x) { return x ? (T)(__builtin_clzl((ulong)x & (~0ul >> (64 - 8 * sizeof(T)))) - (64 - 8 * (int)sizeof(T))) : (T)(8 * sizeof(T)); }
template <class T> inline T ctz(T x) { return x ? (T)__builtin_ctzl((ulong)x) : (T)(8 * sizeof(T)); }
inline uint mulhi(uint x, uint y) { return (uint)((ulong)x * y >> 32); }
inline int mulhi(int x, int y) { return (int)((long)x * y >> 32); }
template <class T> inline T rotate(T x, T n) { return (T)(x << (n & (8 * sizeof(T) - 1)) | x >> (-n & (8 * sizeof(T) - 1))); }
inline uint extract_bits(uint x, uint offset, uint bits) { return bits ? x >> offset & (~0u >> (32 - bits)) : 0; }
inline int extract_bits(int x, uint offset, uint bits) { return bits ? (int)((uint)x << (32 - bits - offset)) >> (32 - bits) : 0; }

template <class T>
struct numeric_limits;
template <>
struct numeric_limits<float> {
  static constexpr float max() { return FLT_MAX; }
  static constexpr float lowest() { return -FLT_MAX; }
  static constexpr float min() { return FLT_MIN; }
  static constexpr float infinity() { return INFINITY; }
};
template <>
struct numeric_limits<half> {
  static constexpr half max() { return HALF_MAX; }
  static constexpr half lowest() { return -HALF_MAX; }
  static constexpr half min() { return HALF_MIN; }
  static constexpr half infinity() { return (half)INFINITY; }
};

#define METALSIM_NAMES                                                                                                                \
  using ::metal::abs; using ::metal::ceil; using ::metal::clamp; using ::metal::copysign; using ::metal::cos; using ::metal::divide;  \
  using ::metal::exp; using ::metal::exp2; using ::metal::fabs; using ::metal::floor; using ::metal::fma; using ::metal::fmax;        \
  using ::metal::fmin; using ::metal::fract; using ::metal::log; using ::metal::log10; using ::metal::log2; using ::metal::max;       \
  using ::metal::min; using ::metal::pow; using ::metal::powr; using ::metal::rint; using ::metal::round; using ::metal::rsqrt;       \
  using ::metal::saturate; using ::metal::sin; using ::metal::sqrt; using ::metal::tan; using ::metal::tanh; using ::metal::trunc;
namespace precise { METALSIM_NAMES }
namespace fast { METALSIM_NAMES }
#undef METALSIM_NAMES

}  // namespace metal
