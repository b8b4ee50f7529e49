// What a running thread of a kernel knows, and the functions that the device
// gives to programs. The device (C++) and the programs that it compiles (MSL, as
// C++ for OpenCL) both read this file.
#pragma once

namespace metalsim {

constexpr unsigned long stack_size = 64 << 10;  // of a thread, aligned to itself
constexpr unsigned long stack_turns = 64;       // of a cache line each: or all stacks would begin in the same few lines of the host's caches
constexpr unsigned slot_size = 64;              // bytes that a lane can give to the others
constexpr unsigned max_buffers = 31;

enum Access { read_access = 0, write_access = 1, atomic_access = 2, atomic_store = 3 };

// Memory that a kernel may use.
struct Range {
  unsigned long begin, size;
};

struct Thread {
  unsigned position[3];  // in the threadgroup
  unsigned group[3];     // of the threadgroup in the grid
  unsigned size[3];      // threads of a whole threadgroup
  unsigned actual[3];    // threads of this threadgroup, smaller at the grid's edges
  unsigned groups[3];    // threadgroups of the grid
  unsigned grid[3];      // threads of the grid
  unsigned index, lane, simdgroup, simdgroups;
  unsigned active;                   // lanes of the simdgroup that were there when it met last
  bool watched;                      // every access is told to the device
  unsigned long stack;               // lowest address
  const Range* ranges;               // ends with one of size 0
  const unsigned long* buffers;      // addresses by index, 0 where nothing is set
  const unsigned long* memories;   // the same of threadgroup memory
  unsigned long variables;           // where the program's threadgroup variables lie
  const unsigned char* layout;       // element of an 8x8 matrix, by 2 x lane + place
};

// Where a stack keeps the address of its Thread, by any address in it: behind all
// that the thread uses of it.
__attribute__((always_inline)) constexpr unsigned long thread_word(unsigned long at) { return (at | (stack_size - 1)) - 7 - at / stack_size % stack_turns * 64; }

}  // namespace metalsim

// `site`, where the program called, tells calls apart: threads that meet must have come to the same one.
extern "C" {
void metalsim_access(unsigned long at, unsigned long size, int access, const void* site);
void metalsim_misaligned(unsigned long at, unsigned long alignment, const void* site);
void metalsim_threadgroup_barrier(int flags, const void* site);
void metalsim_simdgroup_barrier(int flags, const void* site);
const void* metalsim_exchange(const void* value, unsigned long size, const void* site);  // lane l's value is at slot_size * l
// d = a * b + c, each with two elements a thread; kinds: 0 float, 1 half, 2 bfloat; c may be null
void metalsim_matrix_multiply(void* d, int kind_d, const void* a, int kind_a, const void* b, int kind_b, const void* c, int kind_c, const void* site);
}
