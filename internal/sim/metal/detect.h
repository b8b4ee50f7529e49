// What DROVER_METALSIM_CHECK looks for in threadgroup memory, byte by byte.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace metalsim {

struct Fiber;

// Two accesses of which one writes are ordered by a threadgroup_barrier with
// mem_threadgroup between them or, in a simdgroup, by a simdgroup_barrier with it.
class RaceCheck {
 public:
  void begin(uint64_t base, uint64_t size);                 // a threadgroup
  void barrier() { epoch_++; }                              // of the threadgroup
  void simdgroup_barrier(unsigned simdgroup);
  std::string access(const Fiber& f, uint64_t at, uint64_t size, int access);  // what is wrong, or nothing
 private:
  struct Byte {
    uint32_t write_epoch = 0, write_sync = 0, read_epoch = 0, read_sync = 0;
    uint16_t writer = 0, reader = 0;
    bool atomic = false, many = false, many_simdgroups = false;  // many: read by other threads too
  };
  std::vector<Byte> bytes_;
  std::vector<uint32_t> syncs_;
  uint64_t base_ = 0;
  uint32_t epoch_ = 1, first_ = 1;
};

class WrittenCheck {
 public:
  void begin(uint64_t base, uint64_t size);
  std::string access(uint64_t at, uint64_t size, int access);

 private:
  std::vector<uint32_t> bytes_;  // the threadgroup that wrote it
  uint64_t base_ = 0;
  uint32_t group_ = 0;
};

}  // namespace metalsim
