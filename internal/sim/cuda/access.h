// Addresses of a warp's access to memory: found, checked, counted. Instructions
// that touch memory go through here.
#pragma once
#include "lanes.h"

namespace sim {

// Where each active lane's bytes lie on the host.
struct Places {
  char* at[32];
};

enum class Access : uint8_t { read, write, both, async_read, products_read };

// The lanes' addresses from an instruction's base row and displacement.
inline void addresses(Warp& w, const Instr& i, int32_t row, uint64_t* out) {
  uint64_t offset = static_cast<uint64_t>(i.offset);
  if (i.flag & narrow_address) {
    auto* a = w.row<uint32_t>(row);
    LANES out[l] = static_cast<uint32_t>(a[l] + offset);
  } else {
    auto* a = w.row<uint64_t>(row);
    LANES out[l] = a[l] + offset;
  }
}

// Resolves n bytes a lane, or throws the fault of the first lane that may not.
void resolve(Warp& w, const Instr& i, Space space, const uint64_t* address, uint32_t mask, uint32_t n, Access access, Places& p);

// The allocation with the greatest address that is not above this one, or null.
const Range* range_of(const Ranges& all, uint64_t address);

}  // namespace sim
