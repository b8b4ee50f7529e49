// How the device enters a kernel, and hears of its accesses to memory: the
// compiler puts a call of __tsan_* (clang's -fsanitize=thread) before each.
#pragma once
#include "simd.h"

namespace metalsim {

using metal::vec;
typedef ulong address;

// Arguments of a kernel, of whatever type its parameter has.
struct Pointer {
  ulong at;
  template <class T> METALSIM_RUNTIME operator __global T*() const { return (__global T*)at; }
  template <class T> METALSIM_RUNTIME operator __constant T*() const { return (__constant T*)at; }
  template <class T> METALSIM_RUNTIME operator __local T*() const { return (__local T*)at; }
};
struct Reference {
  ulong at;
  template <class T> METALSIM_RUNTIME operator __global T&() const { return *(__global T*)checked<T>(); }
  template <class T> METALSIM_RUNTIME operator __constant T&() const { return *(__constant T*)checked<T>(); }
  template <class T> METALSIM_RUNTIME operator __local T&() const { return *(__local T*)checked<T>(); }
  template <class T> METALSIM_RUNTIME ulong checked() const {
    if (at % alignof(T)) metalsim_misaligned(at, alignof(T), __builtin_return_address(0));
    return at;
  }
};
struct Position {
  uint x, y, z;
  METALSIM_RUNTIME operator uint() const { return x; }
  METALSIM_RUNTIME operator vec<uint, 2>() const { return uint2{x, y}; }
  METALSIM_RUNTIME operator vec<uint, 3>() const { return uint3{x, y, z}; }
  METALSIM_RUNTIME operator ushort() const { return (ushort)x; }
  METALSIM_RUNTIME operator vec<ushort, 2>() const { return ushort2{(ushort)x, (ushort)y}; }
  METALSIM_RUNTIME operator vec<ushort, 3>() const { return ushort3{(ushort)x, (ushort)y, (ushort)z}; }
};

METALSIM_RUNTIME inline Position position(const uint* p) { return Position{p[0], p[1], p[2]}; }
METALSIM_RUNTIME inline Position thread_position_in_grid() {
  Thread* t = self();
  return Position{t->group[0] * t->size[0] + t->position[0], t->group[1] * t->size[1] + t->position[1], t->group[2] * t->size[2] + t->position[2]};
}
METALSIM_RUNTIME inline Position threadgroup_position_in_grid() { return position(self()->group); }
METALSIM_RUNTIME inline Position thread_position_in_threadgroup() { return position(self()->position); }
METALSIM_RUNTIME inline Position threads_per_threadgroup() { return position(self()->actual); }
METALSIM_RUNTIME inline Position dispatch_threads_per_threadgroup() { return position(self()->size); }
METALSIM_RUNTIME inline Position threadgroups_per_grid() { return position(self()->groups); }
METALSIM_RUNTIME inline Position threads_per_grid() { return position(self()->grid); }
METALSIM_RUNTIME inline Position thread_index_in_threadgroup() { return Position{self()->index, 0, 0}; }
METALSIM_RUNTIME inline Position thread_index_in_simdgroup() { return Position{self()->lane, 0, 0}; }
METALSIM_RUNTIME inline Position simdgroup_index_in_threadgroup() { return Position{self()->simdgroup, 0, 0}; }
METALSIM_RUNTIME inline Position simdgroups_per_threadgroup() { return Position{self()->simdgroups, 0, 0}; }
METALSIM_RUNTIME inline Position threads_per_simdgroup() { return Position{32, 0, 0}; }

METALSIM_RUNTIME inline ulong buffer(uint index) { return self()->buffers[index]; }
METALSIM_RUNTIME inline ulong threadgroup_memory(uint index) { return self()->memories[index]; }

extern "C" __attribute__((visibility("hidden"), weak)) __global char __start_metalsim_threadgroup[];

// The place of a threadgroup variable in the running threadgroup's memory.
METALSIM_RUNTIME inline ulong variable(ulong at) { return self()->variables + (at - (ulong)&__start_metalsim_threadgroup[0]); }

__attribute__((no_sanitize("thread"), no_sanitize("alignment"), always_inline)) inline void touch(ulong at, ulong size, int access) {
  Thread* t = self();
  if (at - t->stack < stack_size) return;
  if (!t->watched)
    for (const Range* r = t->ranges; r->size; r++)
      if (at - r->begin < r->size && size <= r->size - (at - r->begin)) return;
  metalsim_access(at, size, access, __builtin_return_address(0));
}

// Of UndefinedBehaviorSanitizer's runtime, as much as is asked for.
struct Misaligned {
  const char* file;
  uint line, column;
  const void* type;
  uchar log_alignment, kind;
};

}  // namespace metalsim

#define METALSIM_ACCESS(SIZE)                                                                                                        \
  METALSIM_RUNTIME void __tsan_read##SIZE(void* p) { metalsim::touch((ulong)p, SIZE, metalsim::read_access); }                       \
  METALSIM_RUNTIME void __tsan_write##SIZE(void* p) { metalsim::touch((ulong)p, SIZE, metalsim::write_access); }                     \
  METALSIM_RUNTIME void __tsan_unaligned_read##SIZE(void* p) { metalsim::touch((ulong)p, SIZE, metalsim::read_access); }             \
  METALSIM_RUNTIME void __tsan_unaligned_write##SIZE(void* p) { metalsim::touch((ulong)p, SIZE, metalsim::write_access); }
extern "C" {
METALSIM_ACCESS(1)
METALSIM_ACCESS(2)
METALSIM_ACCESS(4)
METALSIM_ACCESS(8)
METALSIM_ACCESS(16)
METALSIM_RUNTIME void __tsan_init() {}
#ifdef __HAVE_BFLOAT__
// rounds to the nearest, and to even
METALSIM_RUNTIME __attribute__((visibility("hidden"))) bfloat __truncsfbf2(float f) {
  uint b = __builtin_bit_cast(uint, f);
  bool nan = (b & 0x7fffffff) > 0x7f800000;
  return __builtin_bit_cast(bfloat, (ushort)(nan ? b >> 16 | 0x40 : (b + 0x7fff + (b >> 16 & 1)) >> 16));
}
#endif
METALSIM_RUNTIME void* __tsan_memcpy(void* to, const void* from, size_t n) {
  metalsim::touch((ulong)from, n, metalsim::read_access);
  metalsim::touch((ulong)to, n, metalsim::write_access);
  for (size_t i = 0; i < n; i++) ((volatile char*)to)[i] = ((const char*)from)[i];
  return to;
}
METALSIM_RUNTIME void* __tsan_memmove(void* to, const void* from, size_t n) {
  metalsim::touch((ulong)from, n, metalsim::read_access);
  metalsim::touch((ulong)to, n, metalsim::write_access);
  return __builtin_memmove(to, from, n);
}
METALSIM_RUNTIME void* __tsan_memset(void* to, int v, size_t n) {
  metalsim::touch((ulong)to, n, metalsim::write_access);
  for (size_t i = 0; i < n; i++) ((volatile char*)to)[i] = (char)v;
  return to;
}
METALSIM_RUNTIME void __ubsan_handle_type_mismatch_v1(metalsim::Misaligned* m, ulong at) { metalsim_misaligned(at, 1ul << m->log_alignment, __builtin_return_address(0)); }
}
#undef METALSIM_ACCESS
