// Atomic operations on device and threadgroup memory.
#pragma once
#include "simd.h"

// OpenCL has types of these names
#define atomic_int metal::atomic<int>
#define atomic_uint metal::atomic<uint>
#define atomic_float metal::atomic<float>
#define atomic_bool metal::atomic<bool>

namespace metal {

enum memory_order { memory_order_relaxed };

template <class T>
struct atomic {
  T value;
};

// Changes what lies at p to what f makes of it; gives what was there.
template <class T, class F>
METALSIM_RUNTIME inline T update(ulong p, F f, int access = metalsim::atomic_access) {
  metalsim_access(p, sizeof(T), access, __builtin_return_address(0));
  T* at = (T*)p;
  T old, next;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do next = f(old);
  while (!__atomic_compare_exchange(at, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

#define METALSIM_OPERATION(SPACE, NAME, RESULT)                                                                                        \
  template <class T>                                                                                                                   \
  inline T atomic_##NAME##_explicit(volatile SPACE atomic<T>* p, typename identity<T>::type v, memory_order) {                         \
    return update<T>((ulong)p, [=](T old) { return T(RESULT); });                                                                      \
  }
#define METALSIM_ATOMIC(SPACE)                                                                                                         \
  METALSIM_OPERATION(SPACE, exchange, ((void)old, v))                                                                                  \
  METALSIM_OPERATION(SPACE, fetch_add, old + v)                                                                                        \
  METALSIM_OPERATION(SPACE, fetch_sub, old - v)                                                                                        \
  METALSIM_OPERATION(SPACE, fetch_and, old & v)                                                                                        \
  METALSIM_OPERATION(SPACE, fetch_or, old | v)                                                                                         \
  METALSIM_OPERATION(SPACE, fetch_xor, old ^ v)                                                                                        \
  METALSIM_OPERATION(SPACE, fetch_min, min(old, v))                                                                                    \
  METALSIM_OPERATION(SPACE, fetch_max, max(old, v))                                                                                    \
  template <class T>                                                                                                                   \
  inline T atomic_load_explicit(const volatile SPACE atomic<T>* p, memory_order) {                                                     \
    return update<T>((ulong)p, [](T old) { return old; });                                                                             \
  }                                                                                                                                    \
  template <class T>                                                                                                                   \
  inline void atomic_store_explicit(volatile SPACE atomic<T>* p, typename identity<T>::type v, memory_order) {                         \
    update<T>((ulong)p, [=](T) { return v; }, metalsim::atomic_store);                                                                 \
  }                                                                                                                                    \
  template <class T>                                                                                                                   \
  inline bool atomic_compare_exchange_weak_explicit(volatile SPACE atomic<T>* p, thread T* expected, typename identity<T>::type v, memory_order, memory_order) { \
    T want = *expected, old = update<T>((ulong)p, [=](T o) { return o == want ? v : o; });                                             \
    *expected = old;                                                                                                                   \
    return old == want;                                                                                                                \
  }
METALSIM_ATOMIC(device)
METALSIM_ATOMIC(threadgroup)
#undef METALSIM_ATOMIC
#undef METALSIM_OPERATION

}  // namespace metal
