// A device's memory: allocations with exact bounds, at addresses that are never
// used twice and are not the host's.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace sim {

// What is known beside the content, kept only where asked for.
struct Shadow {
  std::vector<uint8_t> written;   // per byte: 1 when it has a value
  std::vector<uint32_t> writer, reader;     // per 32-byte sector: number of the last launch that wrote, read it
  std::vector<uint32_t> read_in, write_in;  // the same, for the counts
};

struct Range {
  uint64_t base = 0, size = 0;
  char* host = nullptr;
  Shadow* shadow = nullptr;
};

using Ranges = std::vector<Range>;  // by base

class Memory {
 public:
  Memory(uint64_t first, uint64_t total) : next_(first), total_(total) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint64_t allocate(uint64_t size, bool counted = true);  // 0 when it does not fit
  bool release(uint64_t base);
  void release_all();
  uint64_t total() const { return total_; }
  uint64_t free() const { return total_ - used_; }
  const Range* find(uint64_t address, uint64_t size) const;  // the allocation that holds all of it
  std::shared_ptr<const Ranges> ranges();
  void mark_written(uint64_t address, uint64_t size, uint32_t launch);
  void copy_written(uint64_t dst, uint64_t src, uint64_t size);

 private:
  struct Allocation {
    Range range;
    uint64_t charged, mapped;
    std::unique_ptr<Shadow> shadow;
  };
  std::map<uint64_t, Allocation> allocations_;
  std::shared_ptr<const Ranges> ranges_;
  uint64_t next_, total_, used_ = 0;
};

constexpr uint64_t granule = 512;  // an allocation takes a multiple of this

}  // namespace sim
