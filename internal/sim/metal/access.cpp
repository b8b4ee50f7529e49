// Accesses to memory that programs tell of: those outside of what the kernel may
// use, and all of them where something is counted or looked for.
#include "group.h"
#include "options.h"

namespace metalsim {
namespace {

const char* verb(int access) { return access == read_access ? "read" : access == write_access ? "write" : "atomic operation"; }

// "12 bytes behind the end of buffer 3 (64 bytes)", of the nearest range.
std::string where(const Group& g, uint64_t at) {
  auto& ranges = g.ranges();
  uint64_t best = ~uint64_t{0};
  std::string text = "no buffer near";
  for (size_t i = 0; ranges[i].size; i++) {
    const Range& r = ranges[i];
    bool before = at < r.begin;
    uint64_t from = before ? r.begin - at : at - r.begin, distance = before ? from : from < r.size ? 0 : from - r.size;
    if (distance >= best || g.places()[i].kind == Place::constants) continue;
    best = distance;
    std::string of = g.places()[i].text() + " (" + std::to_string(r.size) + " bytes)";
    if (before) text = std::to_string(from) + " bytes before " + of;
    else if (from < r.size) text = "across the end of " + of + ", from byte " + std::to_string(from);
    else text = std::to_string(distance) + " bytes behind the end of " + of;
  }
  if (at < 4096) text = "near address 0: an argument that is not set?";
  else if (best > uint64_t{1} << 30) text = "no buffer near";
  return text;
}

void relaxed_store(uint32_t& to, uint32_t v) { __atomic_store_n(&to, v, __ATOMIC_RELAXED); }
uint32_t relaxed_load(const uint32_t& from) { return __atomic_load_n(&from, __ATOMIC_RELAXED); }

// Dispatches of a concurrent encoder between which there is no barrier must not touch what one of them writes.
std::string hazard(const Dispatch& d, Shadow& s, uint64_t offset, uint64_t size, int access) {
  auto me = static_cast<uint32_t>(d.number), first = static_cast<uint32_t>(d.number - d.beside);
  for (uint64_t i = offset / 2; i <= (offset + size - 1) / 2; i++) {
    uint32_t w = relaxed_load(s.writer[i]), r = relaxed_load(s.reader[i]);
    if (w >= first && w < me) return std::string(verb(access)) + " of what an earlier dispatch writes, without a memory barrier between";
    if (access == read_access) {
      if (r < first) relaxed_store(s.reader[i], me);  // the first reader is kept
      continue;
    }
    if (r >= first && r < me) return std::string(verb(access)) + " of what an earlier dispatch reads, without a memory barrier between";
    relaxed_store(s.writer[i], me);
  }
  return "";
}

uint64_t first_touched(uint32_t* last, uint32_t number, uint64_t offset, uint64_t size) {
  uint64_t n = 0;
  for (uint64_t i = offset / 2; i <= (offset + size - 1) / 2; i++)
    if (__atomic_exchange_n(&last[i], number, __ATOMIC_RELAXED) != number) n += 2;
  return n;
}

void count_access(Group& g, const Place& p, uint64_t offset, uint64_t size, int access) {
  auto& c = g.counts.buffers[p.index];
  auto number = static_cast<uint32_t>(g.dispatch().number);
  if (access == read_access || access == atomic_access) {
    c.read += size;
    if (p.of) c.distinct_read += first_touched(p.of->shadow.counted_read, number, offset, size);
  }
  if (access != read_access) {
    c.written += size;
    if (p.of) c.distinct_written += first_touched(p.of->shadow.counted_write, number, offset, size);
  }
}

void check(Fiber& f, uint64_t at, uint64_t size, int access, const void* site) {
  Group& g = *f.group;
  auto& ranges = g.ranges();
  size_t i = 0;
  while (ranges[i].size && !(at - ranges[i].begin < ranges[i].size && size <= ranges[i].size - (at - ranges[i].begin))) i++;
  if (!ranges[i].size) g.stop(f, std::string(verb(access)) + " of " + std::to_string(size) + " bytes " + where(g, at), site);
  const Place& p = g.places()[i];
  std::string wrong;
  switch (p.kind) {
    case Place::constants:
      if (access != read_access) wrong = "write to constant data";
      break;
    case Place::bytes:
      if (access != read_access) wrong = std::string("write to ") + p.text();
      [[fallthrough]];
    case Place::buffer:
      if (p.of && g.dispatch().concurrent && p.of->shadow.writer) wrong = hazard(g.dispatch(), p.of->shadow, at - reinterpret_cast<uint64_t>(p.of->contents), size, access);
      if (!wrong.empty() && p.of) wrong += ": " + p.text() + ", byte " + std::to_string(at - reinterpret_cast<uint64_t>(p.of->contents));
      if (!options().counts.empty()) count_access(g, p, p.of ? at - reinterpret_cast<uint64_t>(p.of->contents) : at - ranges[i].begin, size, access);
      break;
    case Place::variable:
    case Place::memory:
      if (options().check_races) wrong = g.races.access(f, at, size, access);
      if (wrong.empty() && options().check_threadgroup) wrong = g.written.access(at, size, access);
      if (!wrong.empty()) wrong += ": " + p.text() + ", byte " + std::to_string(at - ranges[i].begin);
      break;
  }
  if (!wrong.empty()) g.stop(f, wrong, site);
}

}  // namespace

std::string Place::text() const {
  switch (kind) {
    case buffer: return "buffer " + std::to_string(index) + (name.empty() ? "" : " \"" + name + "\"");
    case bytes: return "the bytes at index " + std::to_string(index);
    case variable: return "threadgroup variable " + name;
    case memory: return "threadgroup memory " + std::to_string(index);
    case constants: return "constant data";
  }
  return "";
}

}  // namespace metalsim

using namespace metalsim;

extern "C" {

void metalsim_access(unsigned long at, unsigned long size, int access, const void* site) {
  if (size) check(*current_fiber(), at, size, access, site);
}

void metalsim_misaligned(unsigned long at, unsigned long alignment, const void* site) {
  Fiber& f = *current_fiber();
  if (at % alignment == 0) return check(f, at, 1, read_access, site);  // a null pointer
  Group& g = *f.group;
  std::string of;
  for (size_t i = 0; g.ranges()[i].size; i++)
    if (at - g.ranges()[i].begin < g.ranges()[i].size) of = " in " + g.places()[i].text() + " at byte " + std::to_string(at - g.ranges()[i].begin);
  g.stop(f, "misaligned access" + of + ", which needs a multiple of " + std::to_string(alignment), site);
}

}  // extern "C"
