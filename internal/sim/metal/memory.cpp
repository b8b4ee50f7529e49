// Buffers' memory: contents between guard pages.
#include <sys/mman.h>

#include <cstring>

#include "execute.h"

namespace metalsim {
namespace {

constexpr uint64_t page = 16 << 10, guard = 64 << 10;
constexpr uint64_t fill_limit = 64 << 20;  // larger contents are left as the system gives them

uint32_t* numbers(uint64_t n) {
  void* m = mmap(nullptr, n * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return m == MAP_FAILED ? nullptr : static_cast<uint32_t*>(m);
}

}  // namespace

Memory::Memory(uint64_t n, bool hidden) : length(n), is_private(hidden) {
  uint64_t inside = (n + page - 1) / page * page;
  mapped_size_ = inside + 2 * guard + page;
  void* m = mmap(nullptr, mapped_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) return;
  mapped_ = static_cast<char*>(m);
  char* from = mapped_ + guard;
  from += (page - reinterpret_cast<uint64_t>(from) % page) % page;
  if (mprotect(from, inside, PROT_READ | PROT_WRITE)) return;
  contents = from;
  if (n <= fill_limit) memset(contents, 0xff, n);
}

Memory::~Memory() {
  if (mapped_) munmap(mapped_, mapped_size_);
  uint64_t n = (length + 1) / 2 * sizeof(uint32_t);
  for (auto* s : {shadow.reader, shadow.writer, shadow.counted_read, shadow.counted_write})
    if (s) munmap(s, n);
}

void Memory::watch(bool hazards, bool counts) {
  uint64_t n = (length + 1) / 2;
  if (hazards && !shadow.writer) shadow.reader = numbers(n), shadow.writer = numbers(n);
  if (counts && !shadow.counted_read) shadow.counted_read = numbers(n), shadow.counted_write = numbers(n);
}

}  // namespace metalsim
