// Allocations: each a mapping of its own, with a gap of addresses on both sides.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "options.h"

namespace sim {
namespace {

constexpr uint64_t page = 4096, gap = 4096;
constexpr uint64_t fill_limit = 64 << 20;  // larger allocations are left as the system gives them

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

}  // namespace

Memory::~Memory() { release_all(); }

uint64_t Memory::allocate(uint64_t size, bool counted) {
  uint64_t charged = counted ? round_up(size, granule) : 0, mapped = round_up(size, page);
  if (charged < size && counted) return 0;
  if (charged > free()) return 0;
  void* host = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (host == MAP_FAILED) return 0;
  if (size <= fill_limit) memset(host, 0xff, size);
  Allocation a{{next_, size, static_cast<char*>(host), nullptr}, charged, mapped, nullptr};
  if (options().check || options().count) {
    a.shadow = std::make_unique<Shadow>();
    uint64_t sectors = (size + 31) / 32;
    if (options().check) {
      a.shadow->written.resize(size);
      a.shadow->writer.resize(sectors);
      a.shadow->reader.resize(sectors);
    }
    if (options().count) {
      a.shadow->read_in.resize(sectors);
      a.shadow->write_in.resize(sectors);
    }
    a.range.shadow = a.shadow.get();
  }
  uint64_t base = next_;
  next_ += round_up(size, granule) + gap;
  used_ += charged;
  allocations_.emplace(base, std::move(a));
  ranges_ = nullptr;
  return base;
}

bool Memory::release(uint64_t base) {
  auto it = allocations_.find(base);
  if (it == allocations_.end()) return false;
  munmap(it->second.range.host, it->second.mapped);
  used_ -= it->second.charged;
  allocations_.erase(it);
  ranges_ = nullptr;
  return true;
}

void Memory::release_all() {
  while (!allocations_.empty()) release(allocations_.begin()->first);
}

const Range* Memory::find(uint64_t address, uint64_t size) const {
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return nullptr;
  const Range& r = std::prev(it)->second.range;
  uint64_t from = address - r.base;
  return from <= r.size && size <= r.size - from ? &r : nullptr;
}

std::shared_ptr<const Ranges> Memory::ranges() {
  if (!ranges_) {
    auto all = std::make_shared<Ranges>();
    for (auto& a : allocations_) all->push_back(a.second.range);
    ranges_ = all;
  }
  return ranges_;
}

void Memory::mark_written(uint64_t address, uint64_t size, uint32_t launch) {
  const Range* r = find(address, size);
  if (!r || !r->shadow || r->shadow->written.empty() || !size) return;
  uint64_t from = address - r->base;
  memset(&r->shadow->written[from], 1, size);
  for (uint64_t s = from / 32; s <= (from + size - 1) / 32; s++) r->shadow->writer[s] = launch, r->shadow->reader[s] = 0;
}

// A copy of bytes without a value has none either.
void Memory::copy_written(uint64_t dst, uint64_t src, uint64_t size) {
  const Range *to = find(dst, size), *from = find(src, size);
  if (!to || !from || !to->shadow || to->shadow->written.empty()) return;
  std::vector<uint8_t> has(from->shadow->written.begin() + static_cast<long>(src - from->base), from->shadow->written.begin() + static_cast<long>(src - from->base + size));
  mark_written(dst, size, 0);
  std::copy(has.begin(), has.end(), to->shadow->written.begin() + static_cast<long>(dst - to->base));
}

}  // namespace sim
