// What DROVER_SIM_CHECK=1 looks for beside wrong addresses.
#pragma once
#include "access.h"

namespace sim {

// Shared memory of one block, byte by byte: who wrote and read it last.
struct RaceCheck {
  struct Byte {
    uint32_t write_epoch = 0, write_sync = 0;
    uint32_t read_epoch = 0, read_sync = 0;
    uint16_t writer = 0, reader = 0;
    bool written = false, many_readers = false;
  };
  std::vector<Byte> bytes;
  uint32_t epoch = 1;  // counts barriers

  void begin(uint32_t size);
  void access(Warp& w, uint32_t mask, char* const* at, uint32_t n, Access access);
};

// Registers that have a value, lane by lane.
void begin_defined(Warp& w);
void check_defined(Warp& w, const Instr& i, uint32_t mask);

// An access to global memory: counts it, and with the check finds bytes that were
// never written and what a dependent launch may not touch yet.
void note_global(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access);

}  // namespace sim
