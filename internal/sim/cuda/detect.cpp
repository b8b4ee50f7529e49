// Races on shared memory, values never written, and order between launches.
#include "detect.h"

#include "options.h"

namespace sim {

void RaceCheck::begin(uint32_t size) {
  if (bytes_.size() < size) bytes_.resize(size);
  first_ = ++epoch;
}

void RaceCheck::access(Warp& w, const Instr& i, uint32_t mask, char* const* at, uint32_t n, Access access) {
  bool reads = access != Access::write, writes = access == Access::write || access == Access::both, atomic = access == Access::both;
  const Block& block = *w.block;
  auto line = static_cast<uint32_t>(i.line);
  auto fault = [&](int lane, size_t byte, const std::string& what) {
    throw Fault{719, what + " (byte " + std::to_string(byte) + " of shared memory)", lane};
  };
  auto race = [&](int lane, size_t byte, const char* earlier, uint32_t thread, uint32_t at_line) {
    fault(lane, byte, std::string("race on shared memory: ") + (writes ? "write" : "read") + " of what thread " + std::to_string(thread) + " of the block " + earlier +
                          " on PTX line " + std::to_string(at_line) + " with no barrier between");
  };
  for (int l = 0; l < 32; l++) {
    if (!on(mask, l)) continue;
    auto me = static_cast<uint16_t>(w.index * 32 + static_cast<uint32_t>(l));
    size_t first = static_cast<size_t>(at[l] - block.shared);
    for (size_t byte = first; byte < first + n; byte++) {
      Byte& b = bytes_[byte];
      bool written = b.write_epoch >= first_;
      if (written && b.pending) fault(l, byte, std::string(writes ? "write" : "read") + " of shared memory before its asynchronous copy was waited for");
      if (writes && b.products) fault(l, byte, "write of shared memory that wgmma products under way read");
      if (access == Access::products_read) {
        if (written && block.warps[b.writer / 32].fences <= b.write_fence)
          fault(l, byte, "wgmma reads shared memory that thread " + std::to_string(b.writer) + " of the block wrote with no fence.proxy.async after it");
        b.products++;
      }
      if (reads && !written && options().check_shared) fault(l, byte, "read of shared memory that nothing has written");
      if (b.write_epoch == epoch && b.writer != me && !(atomic && b.atomic)) {
        bool same_warp = b.writer / 32 == w.index;
        // lanes of one instruction may write to one place: one of them wins
        bool together = same_warp && b.write_sync == w.sync && b.write_line == line && !reads;
        if (!(same_warp && b.write_sync != w.sync) && !together) race(l, byte, "wrote", b.writer, b.write_line);
      }
      if (writes && b.read_epoch == epoch && !(atomic && b.atomic && b.read_line == b.write_line)) {
        bool same_warp = b.reader / 32 == w.index && !b.many_warps;
        bool alone = b.reader == me && !b.many_lanes && !b.many_warps;
        if (!alone && !(same_warp && b.read_sync != w.sync)) race(l, byte, "read", b.reader, b.read_line);
      }
      if (reads) {
        bool again = b.read_epoch == epoch;
        b.many_warps = again && (b.many_warps || b.reader / 32 != w.index);
        b.many_lanes = again && (b.many_lanes || b.reader != me);
        b.read_epoch = epoch, b.read_sync = w.sync, b.read_line = line, b.reader = me;
      }
      if (writes) {
        b.write_epoch = epoch, b.write_sync = w.sync, b.write_line = line, b.writer = me;
        b.write_fence = w.fences;
        b.atomic = atomic;
        b.pending = false;
      }
    }
  }
}

void RaceCheck::copy_issued(uint32_t at, uint32_t n) {
  for (uint32_t byte = at; byte < at + n; byte++) bytes_[byte].pending = true;
}

void RaceCheck::product_done(uint32_t at, uint32_t n) {
  for (uint32_t byte = at; byte < at + n; byte++) bytes_[byte].products--;
}

void RaceCheck::copy_landed(Warp& w, uint32_t lane, uint32_t at, uint32_t n) {
  for (uint32_t byte = at; byte < at + n; byte++) {
    Byte& b = bytes_[byte];
    b.pending = false;
    b.write_epoch = epoch, b.write_sync = w.sync, b.write_fence = w.fences;
    b.writer = static_cast<uint16_t>(w.index * 32 + lane);
  }
}

namespace {

// Sums and A of a product; i.offset is its columns.
size_t product_registers(const Instr& i) { return static_cast<size_t>(i.offset) / 2 + 4; }

}  // namespace

void begin_defined(Warp& w) {
  const Kernel& k = *w.block->kernel;
  w.defined.assign(static_cast<size_t>(k.register_bytes) / 4, 0);
  w.unordered.assign(w.defined.size(), false);
  w.in_products.assign(w.defined.size(), 0);
  for (auto& c : k.constants) w.defined[static_cast<size_t>(c.row) / 4] = ~0u;
  for (auto& s : k.specials) w.defined[static_cast<size_t>(s.row) / 4] = ~0u;
}

void check_defined(Warp& w, const Instr& i, uint32_t mask) {
  const Kernel& k = *w.block->kernel;
  auto n = static_cast<size_t>(&i - k.code.data());
  for (int32_t row : k.reads[n]) {
    uint32_t lacks = mask & ~w.defined[static_cast<size_t>(row) / 4];
    if (lacks) throw Fault{719, "reads a register that has no value", __builtin_ctz(lacks)};
  }
  for (int32_t row : k.writes[n]) w.defined[static_cast<size_t>(row) / 4] |= mask;
  if (i.products) {
    for (size_t r = 0; r < product_registers(i); r++)
      if (w.unordered[static_cast<size_t>(k.rows[static_cast<size_t>(i.more) + r]) / 4]) throw Fault{719, "wgmma takes a register that was written with no wgmma.fence after it"};
    return;
  }
  for (auto* rows : {&k.reads[n], &k.writes[n]})
    for (int32_t row : *rows)
      if (w.in_products[static_cast<size_t>(row) / 4]) throw Fault{719, "touches a register of a wgmma product that was not waited for"};
  for (int32_t row : k.writes[n]) w.unordered[static_cast<size_t>(row) / 4] = true;
}

void note_product(Warp& w, const AsyncProduct& p, bool begins) {
  if (w.in_products.empty()) return;
  for (size_t r = 0; r < product_registers(*p.instr); r++) {
    auto& n = w.in_products[static_cast<size_t>(w.block->kernel->rows[static_cast<size_t>(p.instr->more) + r]) / 4];
    n = static_cast<uint16_t>(begins ? n + 1 : n - 1);
  }
}

namespace {

const char* hex(uint64_t v, char (&s)[24]) {
  snprintf(s, sizeof s, "0x%llx", static_cast<unsigned long long>(v));
  return s;
}

// Sets a sector's mark to the launch's number; true where it was another.
bool mark(uint32_t& sector, uint32_t launch) {
  if (__atomic_load_n(&sector, __ATOMIC_RELAXED) == launch) return false;
  return __atomic_exchange_n(&sector, launch, __ATOMIC_RELAXED) != launch;
}

void count(Tally& t, Shadow& s, uint64_t sector, uint32_t launch, bool reads, bool writes) {
  if (reads) t.distinct_read += mark(s.read_in[sector], launch);
  if (writes) t.distinct_written += mark(s.write_in[sector], launch);
}

void check(Warp& w, const Range& r, uint64_t from, int lane, uint32_t n, bool reads, bool writes) {
  Shadow& s = *r.shadow;
  const Launch& l = *w.block->launch;
  uint64_t sector = from / 32;
  char at[24];
  if (reads && options().check_global)
    for (uint32_t byte = 0; byte < n; byte++)
      if (!s.written[from + byte])
        throw Fault{719, std::string("read of global memory that nothing has written: address ") + hex(r.base + from + byte, at) + ", byte " + std::to_string(from + byte) +
                             " of an allocation of " + std::to_string(r.size) + " bytes", lane};
  uint32_t unordered = on(w.grid_waited, lane) ? l.unordered_after : l.unordered;
  auto early = [&](uint32_t other, const char* what) {
    if (!options().check_order || !unordered || other < unordered || other >= l.number) return;
    throw Fault{719, std::string(writes ? "write to" : "read of") + " global memory at " + hex(r.base + from, at) + " that an earlier launch, " + std::to_string(l.number - other) + " before this one, " + what +
                         ": " + (on(w.grid_waited, lane) ? "it may still run, since a launch between does not wait for it" : "griddepcontrol.wait comes first"), lane};
  };
  early(s.writer[sector], "writes");
  if (writes) {
    early(s.reader[sector], "reads");
    memset(&s.written[from], 1, n);
    s.writer[sector] = l.number;
  }
  if (reads) s.reader[sector] = l.number;
}

}  // namespace

void note_global(Warp& w, const Instr& i, const uint64_t* address, uint32_t mask, uint32_t n, Access access) {
  bool reads = access != Access::write, writes = access == Access::write || access == Access::both;
  Block& b = *w.block;
  const Range* r = b.cache[i.slot];
  Tally& t = b.tally;
  uint64_t seen[32], last = ~uint64_t{0};
  int sectors = 0;
  for (int l = 0; l < 32; l++) {
    if (!on(mask, l)) continue;
    if (!r || address[l] - r->base >= r->size) r = range_of(*b.launch->ranges, address[l]);
    uint64_t from = address[l] - r->base;
    if (options().check) check(w, *r, from, l, n, reads, writes);
    if (address[l] / 32 == last) continue;
    last = address[l] / 32;
    int k = sectors;
    while (k > 0 && seen[k - 1] != last) k--;
    if (k) continue;
    seen[sectors++] = last;
    if (options().count) count(t, *r->shadow, from / 32, b.launch->number, reads, writes);
  }
  if (reads) {
    t.sectors_read += static_cast<uint64_t>(sectors);
    t.bytes_read[__builtin_ctz(n)] += static_cast<uint64_t>(__builtin_popcount(mask)) * n;
  }
  if (writes) t.sectors_written += static_cast<uint64_t>(sectors);
}

}  // namespace sim
