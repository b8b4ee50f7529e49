#include "detect.h"

#include "fiber.h"

namespace metalsim {

void RaceCheck::begin(uint64_t base, uint64_t size) {
  base_ = base;
  if (bytes_.size() < size) bytes_.resize(size);
  if (syncs_.empty()) syncs_.resize(32, 1);
  first_ = ++epoch_;
}

void RaceCheck::simdgroup_barrier(unsigned simdgroup) { syncs_[simdgroup]++; }

std::string RaceCheck::access(const Fiber& f, uint64_t at, uint64_t size, int access) {
  const Thread& t = f.thread;
  auto me = static_cast<uint16_t>(t.index);
  uint32_t sync = syncs_[t.simdgroup];
  auto other = [](unsigned index) { return "thread " + std::to_string(index) + " of the threadgroup"; };
  for (uint64_t i = at - base_; i < at - base_ + size && i < bytes_.size(); i++) {
    Byte& b = bytes_[i];
    bool write = access != read_access, atomic = access == atomic_access || access == atomic_store;
    bool written = b.write_epoch == epoch_ && b.writer != me && !(b.writer / 32 == t.simdgroup && b.write_sync != sync) && !(atomic && b.atomic);
    if (written) return std::string("race on threadgroup memory: ") + (write ? "write" : "read") + " of what " + other(b.writer) + " writes without a barrier between";
    bool here = b.reader / 32 == t.simdgroup && !b.many_simdgroups;
    bool read = b.read_epoch == epoch_ && (b.reader != me || b.many) && !(here && b.read_sync != sync);
    if (write && read) return "race on threadgroup memory: write of what " + other(b.reader) + " reads without a barrier between";
    if (write) {
      b.write_epoch = epoch_, b.write_sync = sync, b.writer = me, b.atomic = atomic;
    } else {
      bool same = b.read_epoch == epoch_;
      b.many = same && (b.many || b.reader != me) && !(here && b.read_sync != sync);
      b.many_simdgroups = same && (b.many_simdgroups || b.reader / 32 != t.simdgroup);
      // the first reader is kept: the one that another thread's write is held against
      if (!same || (b.reader != me && !b.many) || b.reader / 32 == t.simdgroup) b.reader = me, b.read_sync = sync;
      b.read_epoch = epoch_;
    }
  }
  return "";
}

void WrittenCheck::begin(uint64_t base, uint64_t size) {
  base_ = base;
  if (bytes_.size() < size) bytes_.resize(size);
  group_++;
}

std::string WrittenCheck::access(uint64_t at, uint64_t size, int access) {
  for (uint64_t i = at - base_; i < at - base_ + size && i < bytes_.size(); i++) {
    if ((access == read_access || access == atomic_access) && bytes_[i] != group_) return "read of threadgroup memory that nothing has written";
    bytes_[i] = group_;
  }
  return "";
}

}  // namespace metalsim
