// What DROVER_SIM_CHECK looks for beside wrong addresses, and what is counted of
// accesses to global memory.
#pragma once
#include "access.h"

namespace sim {

// Shared memory of one block, byte by byte: who wrote and read it last. Two
// accesses of which one writes are ordered by a barrier between them, or, of one
// warp, by a collective instruction.
class RaceCheck {
 public:
  uint32_t epoch = 1;  // counts barriers, of all blocks so far

  void begin(uint32_t size);
  void access(Warp& w, const Instr& i, uint32_t mask, char* const* at, uint32_t n, Access access);
  void copy_issued(uint32_t at, uint32_t n);  // by cp.async: nobody may touch these bytes
  void copy_landed(Warp& w, uint32_t lane, uint32_t at, uint32_t n);
  void product_done(uint32_t at, uint32_t n);  // of a warp, that has read these bytes since Access::products_read

 private:
  struct Byte {
    uint32_t write_epoch = 0, write_sync = 0, write_line = 0;
    uint32_t read_epoch = 0, read_sync = 0, read_line = 0;
    uint32_t write_fence = 0;  // the writer's count of fence.proxy.async
    uint16_t writer = 0, reader = 0;
    uint16_t products = 0;     // under way that read it
    bool atomic = false;       // the write was
    bool pending = false;      // a copy to it is under way
    bool many_lanes = false;   // read by several lanes of the reader's warp
    bool many_warps = false;   // read by lanes of several warps
  };
  std::vector<Byte> bytes_;
  uint32_t first_ = 1;  // epoch in which the block began
};

// Registers that have a value, lane by lane.
void begin_defined(Warp& w);
void check_defined(Warp& w, const Instr& i, uint32_t mask);
// A product of a warpgroup begins to use its registers, or does no more.
void note_product(Warp& w, const AsyncProduct& p, bool begins);

// An access to global memory: counts it, and with the check finds bytes that were
// never written and what a dependent launch may not touch yet.
void note_global(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access);

}  // namespace sim
