// What the environment says, read once in the life of a process.
//
//   DROVER_METALSIM_NAME     name of the device (Software Metal device)
//   DROVER_METALSIM_FAMILY   apple1 to apple9: what supportsFamily: answers (apple8). Simdgroup matrices need apple7, bfloat apple6.
//   DROVER_METALSIM_BFLOAT   0: bfloat does not compile
//   DROVER_METALSIM_MEMORY   recommendedMaxWorkingSetSize (4GiB; B, KiB, MiB, GiB). Work with more than that allocated fails.
//   DROVER_METALSIM_CHECK    1, or with commas between: races, threadgroup, convergence (below)
//   DROVER_METALSIM_ORDER    other orders of what has no order: 0: command buffers run when they are waited for; other
//                            numbers seed when they run, and in which order simdgroups and lanes do
//   DROVER_METALSIM_LAYOUT   seed of the places that elements of simdgroup matrices have (0: by row, two a lane)
//   DROVER_METALSIM_COUNTS   a file, written after each command buffer: what kernels did, a line of JSON for each name
//   DROVER_METALSIM_FAIL     N=CODE: the Nth command buffer fails with this MTLCommandBufferError (2: timeout, 3: page fault,
//                            8: out of memory), having run
//   DROVER_METALSIM_THREADS  host threads that run threadgroups (as many as the host has)
//   DROVER_METALSIM_TIMEOUT  seconds after which a dispatch ends with a command buffer error (600)
//   DROVER_METALSIM_COMPILER compiler of MSL (clang++-19)
//   DROVER_METALSIM_CACHE    folder of compiled programs (metalsim-UID in the system's temporary folder)
#pragma once
#include <cstdint>
#include <string>

namespace metalsim {

struct Options {
  std::string name = "Software Metal device";
  int family = 8;
  bool bfloat = true;
  uint64_t memory = uint64_t{4} << 30;
  bool check_races = false;        // races: on threadgroup memory
  bool check_threadgroup = false;  // threadgroup: values of threadgroup memory that nothing has written
  bool check_convergence = false;  // convergence: simdgroup_load and simdgroup_store by part of a simdgroup
  uint64_t order = 0;
  uint64_t layout = 0;
  uint64_t fail_number = 0, fail_code = 0;
  std::string counts;
  unsigned threads = 1;
  int timeout = 600;
  std::string compiler = "clang++-19";
  std::string cache;
  std::string error;  // what is wrong with them
};

const Options& options();

}  // namespace metalsim
