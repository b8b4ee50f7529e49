// The threads of a kernel: stacks of their own on one host thread, switched by hand.
#pragma once
#include "include/thread.h"

namespace metalsim {

class Group;

// Saves the registers that a call keeps, and the stack's end in *from; goes on where `to` was left.
extern "C" void metalsim_switch(void** from, void* to);

struct Fiber {
  Thread thread;  // first: programs know a fiber as this
  Group* group;
  void* top;      // of the stack, where it was left
  enum State { ready, at_simdgroup, at_threadgroup, returned } state;
  // where and for what it waits
  const void* site;
  enum Meeting { barrier, exchange, multiply } meeting;
  int flags;  // of a barrier
  struct Multiply {
    void* d;
    const void *a, *b, *c;
    int kind_d, kind_a, kind_b, kind_c;
  } operands;
};

// Stacks, each aligned to its size, with a page at its end that must not be touched.
class Stacks {
 public:
  ~Stacks();
  void reserve(unsigned n);
  char* base(unsigned i) const { return base_ + i * stack_size; }

 private:
  char* memory_ = nullptr;
  char* base_ = nullptr;
  unsigned count_ = 0;
};

// Makes the fiber ready to run f on a stack.
void prepare(Fiber& fiber, char* stack, void (*f)());

// The fiber that runs, by its stack.
inline Fiber* current_fiber() {
  return *reinterpret_cast<Fiber**>(thread_word(reinterpret_cast<unsigned long>(__builtin_frame_address(0))));
}

// Faults of a fiber become calls of `f` on its stack, for the host thread that calls
// this; `running` says whether a fiber runs. Others' faults go to whoever had them.
struct Fault {
  int signal;
  unsigned long address;
  bool general;  // without an address: of a vector that is not aligned, or outside of what addresses can be
};
extern thread_local Fiber* running __attribute__((tls_model("initial-exec")));
extern thread_local Fault fault;
void catch_faults(void (*f)());
int timeout_signal();  // ends the fiber of the host thread that it is sent to, unless that runs code of the device

}  // namespace metalsim
