// Bounds, alignment and counts of accesses to all spaces.
#include "access.h"

#include <algorithm>
#include <cstdio>

#include "detect.h"
#include "options.h"

namespace sim {
namespace {

std::string hex(uint64_t v) {
  char s[32];
  snprintf(s, sizeof s, "0x%llx", static_cast<unsigned long long>(v));
  return s;
}

const char* verb(Access a) { return a == Access::write ? "write" : a == Access::both ? "atomic access" : "read"; }

[[noreturn]] void outside(const Ranges& all, uint64_t address, uint32_t n, Access access, int lane) {
  std::string what = std::string("illegal address ") + hex(address) + ": " + verb(access) + " of " + std::to_string(n) + " bytes";
  const Range* below = range_of(all, address);
  if (below && address - below->base < below->size + (1 << 20)) {
    uint64_t from = address - below->base;
    what += from < below->size ? " that begins " + std::to_string(below->size - from) + " bytes before the end"
                               : " " + std::to_string(from - below->size) + " bytes behind the end";
    what += " of an allocation of " + std::to_string(below->size) + " bytes";
  } else if (const Range* above = range_of(all, address + 4096); above && above->base > address) {
    what += " " + std::to_string(above->base - address) + " bytes before an allocation of " + std::to_string(above->size) + " bytes";
  } else {
    what += " that lies in no allocation";
  }
  throw Fault{700, what, lane};
}

[[noreturn]] void misaligned(uint64_t address, uint32_t n, int lane) {
  throw Fault{716, "misaligned address " + hex(address) + " for " + std::to_string(n) + " bytes", lane};
}

void global(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p) {
  Block& b = *w.block;
  const Range*& cached = b.cache[i.slot];
  uint64_t align = n - 1;
  for (int tries = 0; tries < 2; tries++) {
    const Range* r = cached;
    if (r && r->size >= n) {
      uint64_t base = r->base, last = r->size - n, bad = 0;
      LANES {
        uint64_t from = address[l] - base;
        uint64_t wrong = (from > last || (from & align)) && on(mask, l);
        bad |= wrong;
        p.at[l] = r->host + from;
      }
      if (!bad) return;
    }
    cached = range_of(*b.launch->ranges, address[__builtin_ctz(mask)]);
    if (!cached) break;
  }
  // lanes in different allocations, or a fault
  for (int l = 0; l < 32; l++) {
    if (!on(mask, l)) continue;
    if (address[l] & align) misaligned(address[l], n, l);
    const Range* r = range_of(*b.launch->ranges, address[l]);
    if (!r || address[l] - r->base > r->size || n > r->size - (address[l] - r->base)) outside(*b.launch->ranges, address[l], n, access, l);
    p.at[l] = r->host + (address[l] - r->base);
  }
}

// A flat piece of memory of the block or the module.
void bounded(const uint64_t* address, uint32_t mask, uint32_t n, uint64_t first, uint64_t size, char* host, const char* name, Access access, Places& p) {
  for (int l = 0; l < 32; l++) {
    if (!on(mask, l)) continue;
    if (address[l] & (n - 1)) misaligned(address[l], n, l);
    uint64_t from = address[l] - first;
    if (from > size || n > size - from)
      throw Fault{700, std::string("illegal address ") + hex(address[l]) + ": " + verb(access) + " of " + std::to_string(n) + " bytes outside of the " +
                           std::to_string(size) + " bytes of " + name, l};
    p.at[l] = host + from;
  }
}

void shared(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p) {
  Block& b = *w.block;
  uint64_t align = n - 1, bad = b.shared_bytes < n, last = uint64_t{b.shared_bytes} - n;
  char* host = b.shared;
  LANES {
    uint64_t from = address[l] - shared_base;
    uint64_t wrong = (from > last || (from & align)) && on(mask, l);
    bad |= wrong;
    p.at[l] = host + from;
  }
  if (bad) bounded(address, mask, n, shared_base, b.shared_bytes, host, "shared memory", access, p);
  if (b.races) b.races->access(w, i, mask, p.at, n, access);
}

void local(Warp& w, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p) {
  uint32_t size = w.block->kernel->local_bytes;
  bounded(address, mask, n, 16, size, w.block->local, "local memory", access, p);
  for (int l = 0; l < 32; l++)
    if (on(mask, l)) p.at[l] += size_t{size} * (w.index * 32 + static_cast<uint32_t>(l));
}

void generic(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p) {
  uint64_t moved[32];
  for (uint64_t window : {shared_window, local_window, param_window, const_window, uint64_t{0}}) {
    uint32_t in = 0;
    for (int l = 0; l < 32; l++) {
      bool here = window ? address[l] - window < window_bytes : address[l] < shared_window || address[l] >= const_window + window_bytes;
      in |= uint32_t{here} << l;
      moved[l] = address[l] - window;
    }
    in &= mask;
    if (!in) continue;
    Space s = window == shared_window ? Space::shared : window == local_window ? Space::local : window == param_window ? Space::param : window ? Space::constant : Space::global;
    Places part;
    resolve(w, i, s, moved, in, n, access, part);
    for (int l = 0; l < 32; l++)
      if (on(in, l)) p.at[l] = part.at[l];
  }
}

}  // namespace

const Range* range_of(const Ranges& all, uint64_t address) {
  auto it = std::upper_bound(all.begin(), all.end(), address, [](uint64_t a, const Range& r) { return a < r.base; });
  return it == all.begin() ? nullptr : &*std::prev(it);
}

void resolve(Warp& w, const Instr& i, Space space, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p) {
  Block& b = *w.block;
  switch (space) {
    case Space::global:
      global(w, i, address, mask, n, access, p);
      if (access != Access::read && access != Access::async_read) b.stores++;
      if (b.launch->noted) note_global(w, i, address, mask, n, access);
      break;
    case Space::shared: shared(w, i, address, mask, n, access, p); break;
    case Space::local: local(w, address, mask, n, access, p); break;
    case Space::generic: generic(w, i, address, mask, n, access, p); break;
    case Space::param:
      if (access != Access::read) throw Fault{700, "write to a parameter", __builtin_ctz(mask)};
      bounded(address, mask, n, 0, b.launch->params.size(), b.launch->params.data(), "parameters", access, p);
      break;
    case Space::constant:
      if (access != Access::read) throw Fault{700, "write to constant memory", __builtin_ctz(mask)};
      bounded(address, mask, n, 0, b.launch->module->constants.size(), const_cast<char*>(b.launch->module->constants.data()), "constant memory", access, p);
      break;
  }
}

}  // namespace sim
