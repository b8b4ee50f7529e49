// Races on shared memory, values never written, and order between launches.
#include "detect.h"

#include "options.h"

namespace sim {

void RaceCheck::begin(uint32_t size) {
  bytes.assign(size, Byte{});
  epoch = 1;
}

void RaceCheck::access(Warp& w, uint32_t mask, char* const* at, uint32_t n, Access access) {
  (void)w, (void)mask, (void)at, (void)n, (void)access;
}

void begin_defined(Warp&) {}
void check_defined(Warp&, const Instr&, uint32_t) {}

void note_global(Warp&, const Instr&, const uint64_t*, uint32_t, uint32_t, Access) {}

}  // namespace sim
