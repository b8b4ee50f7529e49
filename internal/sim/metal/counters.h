// Counts of what kernels do, by kernel name (a key, nothing more).
#pragma once
#include <cstdint>
#include <string>

#include "include/thread.h"

namespace metalsim {

struct Counts {
  uint64_t dispatches = 0, threadgroups = 0, threads = 0, barriers = 0, multiplies = 0;  // multiplies: of 8x8 matrices
  struct {
    uint64_t read = 0, written = 0;                    // bytes asked for
    uint64_t distinct_read = 0, distinct_written = 0;  // each byte once a dispatch
  } buffers[max_buffers];
  void add(const Counts& c);
};

void count(const std::string& kernel, const Counts& c);
void write_counts();  // to the file that DROVER_METALSIM_COUNTS names

}  // namespace metalsim
