// Counts of what kernels do, in total and by kernel name (a key, nothing more).
#pragma once
#include <cstdint>
#include <string>

namespace sim {

struct Counts {
  uint64_t launches = 0, instructions = 0, barriers = 0;  // instructions: of warps; barriers: of blocks
  uint64_t mma = 0, macs = 0;
  uint64_t sectors_read = 0, sectors_written = 0;    // of 32 bytes, each once an access of a warp
  uint64_t distinct_read = 0, distinct_written = 0;  // each once a launch
  uint64_t bytes_read[5] = {0, 0, 0, 0, 0};          // asked of global memory, by width of access: 1, 2, 4, 8, 16
  void add(const Counts& c);
};

using Tally = Counts;  // of one block, added at its end

void count_launch(const std::string& kernel, const Counts& c);
void flush_counts();  // to the file that DROVER_SIM_COUNTS names, where something has changed

}  // namespace sim
