// Barriers, and functions of a simdgroup's 32 lanes.
#pragma once
#include "math.h"
#include "thread.h"

// Of a lambda or function: part of the function that calls it, whose accesses are not the program's.
#define METALSIM_PART __attribute__((no_sanitize("thread"), no_sanitize("alignment"), always_inline))

namespace metalsim {

METALSIM_PART inline Thread* self() { return *(Thread**)thread_word((ulong)__builtin_frame_address(0)); }

// Gives value to the other lanes when all have come, and combines theirs with f in the
// lanes' order. Lanes that have returned from the kernel have no part in it.
template <class T, class F>
METALSIM_RUNTIME inline T reduce(T value, F f, const void* site) {
  const char* slots = (const char*)metalsim_exchange(&value, sizeof value, site);
  uint active = self()->active;
  uint lane = (uint)__builtin_ctz(active);
  T r = *(const T*)(slots + slot_size * lane);
  for (active &= active - 1; active; active &= active - 1) r = f(r, *(const T*)(slots + slot_size * (uint)__builtin_ctz(active)));
  return r;
}

// The value of a lane; what a lane that is not there has, is nobody's guess.
template <class T>
METALSIM_RUNTIME inline T from_lane(T value, uint lane, const void* site) {
  const char* slots = (const char*)metalsim_exchange(&value, sizeof value, site);
  if (lane < 32 && self()->active >> lane & 1) return *(const T*)(slots + slot_size * lane);
  T none;
  for (uint i = 0; i < sizeof none; i++) ((uchar*)&none)[i] = 0xff;
  return none;
}

// Of the lanes before this one (and this one, where inclusive).
template <class T, class F>
METALSIM_RUNTIME inline T prefix(T value, T first, F f, bool inclusive, const void* site) {
  const char* slots = (const char*)metalsim_exchange(&value, sizeof value, site);
  Thread* t = self();
  T r = first;
  for (uint l = 0; l < t->lane + inclusive; l++)
    if (t->active >> l & 1) r = f(r, *(const T*)(slots + slot_size * l));
  return r;
}

METALSIM_RUNTIME inline uint lane() { return self()->lane; }

}  // namespace metalsim

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4, mem_device_and_threadgroup = 3 };
inline mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }

METALSIM_RUNTIME inline void threadgroup_barrier(mem_flags flags) { metalsim_threadgroup_barrier((int)flags, __builtin_return_address(0)); }
METALSIM_RUNTIME inline void simdgroup_barrier(mem_flags flags) { metalsim_simdgroup_barrier((int)flags, __builtin_return_address(0)); }

#define METALSIM_SITE __builtin_return_address(0)
template <class T> METALSIM_RUNTIME inline T simd_sum(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return T(a + b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_product(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return T(a * b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_max(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return max(a, b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_min(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return min(a, b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_and(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return T(a & b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_or(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return T(a | b); }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_xor(T v) { return metalsim::reduce(v, [](T a, T b) METALSIM_PART { return T(a ^ b); }, METALSIM_SITE); }
METALSIM_RUNTIME inline bool simd_any(bool v) { return metalsim::reduce(v, [](bool a, bool b) METALSIM_PART { return a || b; }, METALSIM_SITE); }
METALSIM_RUNTIME inline bool simd_all(bool v) { return metalsim::reduce(v, [](bool a, bool b) METALSIM_PART { return a && b; }, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_prefix_inclusive_sum(T v) { return metalsim::prefix(v, T(0), [](T a, T b) METALSIM_PART { return T(a + b); }, true, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_prefix_exclusive_sum(T v) { return metalsim::prefix(v, T(0), [](T a, T b) METALSIM_PART { return T(a + b); }, false, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_prefix_inclusive_product(T v) { return metalsim::prefix(v, T(1), [](T a, T b) METALSIM_PART { return T(a * b); }, true, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_prefix_exclusive_product(T v) { return metalsim::prefix(v, T(1), [](T a, T b) METALSIM_PART { return T(a * b); }, false, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle(T v, ushort lane) { return metalsim::from_lane(v, lane, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle_xor(T v, ushort mask) { return metalsim::from_lane(v, metalsim::lane() ^ mask, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle_down(T v, ushort n) { return metalsim::from_lane(v, metalsim::lane() + n, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle_up(T v, ushort n) { return metalsim::from_lane(v, metalsim::lane() - n, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle_rotate_down(T v, ushort n) { return metalsim::from_lane(v, (metalsim::lane() + n) & 31, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_shuffle_rotate_up(T v, ushort n) { return metalsim::from_lane(v, (metalsim::lane() - n) & 31, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_broadcast(T v, ushort lane) { return metalsim::from_lane(v, lane, METALSIM_SITE); }
template <class T> METALSIM_RUNTIME inline T simd_broadcast_first(T v) { return metalsim::reduce(v, [](T a, T) { return a; }, METALSIM_SITE); }
METALSIM_RUNTIME inline bool simd_is_first() { return metalsim::reduce(metalsim::lane(), [](uint a, uint) { return a; }, METALSIM_SITE) == metalsim::lane(); }

struct simd_vote {
  typedef ulong vote_t;
  vote_t bits;
  explicit operator vote_t() const { return bits; }
  bool all() const { return bits == 0xffffffff; }
  bool any() const { return bits != 0; }
};
METALSIM_RUNTIME inline simd_vote simd_ballot(bool v) {
  return simd_vote{metalsim::reduce((ulong)v << metalsim::lane(), [](ulong a, ulong b) { return a | b; }, METALSIM_SITE)};
}
METALSIM_RUNTIME inline simd_vote simd_active_threads_mask() {
  return simd_vote{metalsim::reduce(1ul << metalsim::lane(), [](ulong a, ulong b) { return a | b; }, METALSIM_SITE)};
}
#undef METALSIM_SITE

}  // namespace metal
