// A kernel over a grid of threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace metalsim {

// Who touched memory last, by numbers of dispatches; one for each two bytes.
struct Shadow {
  uint32_t *reader = nullptr, *writer = nullptr;    // where dispatches run concurrently
  uint32_t *counted_read = nullptr, *counted_write = nullptr;
};

// What a buffer holds. It outlives its buffer where a dispatch refers to it.
struct Memory {
  char* contents = nullptr;
  uint64_t length = 0;
  bool is_private = false;
  std::atomic<bool> released{false};  // its buffer has been
  std::string label;
  Shadow shadow;

  Memory(uint64_t n, bool hidden);          // of its own, between guard pages; contents stay null where there is no room
  Memory(void* c, uint64_t n) : contents(static_cast<char*>(c)), length(n) {}  // the caller's
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();
  void watch(bool hazards, bool counts);  // makes the shadow

 private:
  char* mapped_ = nullptr;
  uint64_t mapped_size_ = 0;
};

struct Argument {
  std::shared_ptr<Memory> memory;  // of a buffer
  uint64_t offset = 0;
  std::shared_ptr<std::vector<char>> bytes;  // of setBytes:, or
  bool set() const { return memory || bytes; }
};

struct Dispatch {
  std::shared_ptr<Program> program;
  const Kernel* kernel;
  Argument arguments[max_buffers];
  uint64_t memories[max_buffers];  // bytes of threadgroup memory
  unsigned groups[3], threads[3], grid[3];
  bool concurrent;
  uint64_t beside;  // earlier dispatches of its encoder that it may run beside
  uint64_t number;  // in the order of running
};

struct Failure {
  int64_t code = 0;  // of MTLCommandBufferError; 0: none
  std::string text;
};

Failure execute(const Dispatch& d);

}  // namespace metalsim
