// What the environment says, read once in the life of a process.
//
//   DROVER_SIM_CUDA     the cards, with ; between, each of KEY=VALUE with commas between; "none": no card.
//                       name=, cc= (8.0), mem= (2GiB; B, KiB, MiB, GiB), sms= multiprocessors (16), l2= bytes (4MiB),
//                       uuid= (GPU-01234567-89ab-...), lost= launches, the last of which ends all (0: none), gone= the same of
//                       allocations, oom= the number of the allocation that finds no memory,
//                       driver= version of the driver API (12080), for all.
//                       Keys of the stand-in for NVML are passed over.
//   CUDA_VISIBLE_DEVICES  as for the driver
//   DROVER_SIM_CHECK    1, or with commas between: races, shared, global, registers, order (below)
//   DROVER_SIM_COUNTS   a file, written at each wait: what kernels did, a line of JSON for each name
//   DROVER_SIM_MEMORY   a file, to which each allocation and release adds a line: the card's number, the bytes that it has given out
//   DROVER_SIM_THREADS  host threads that run the blocks of a launch (as many as the host has)
//   DROVER_SIM_TIMEOUT  seconds after which a launch ends with CUDA error 702 (600)
//   DROVER_SIM_ORDER    other orders of what has no order: 0: work runs when it is waited for, warps ascend or descend by
//                       their block's number; other numbers seed when work that nobody waits for runs, odd ones turn the warps
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sim {

struct Described {
  std::string name = "Software CUDA device";
  int major = 8, minor = 0;
  uint64_t memory = uint64_t{2} << 30;
  int sms = 16;
  int l2 = 4 << 20;
  std::string uuid;
  int oom = 0, gone = 0;  // of its allocations, counted from 1: which fails, which loses the card; 0: none
  uint32_t lost = 0;  // the launch at which the card falls off the bus; 0: never
};

struct Options {
  std::vector<Described> devices;  // DROVER_SIM_CUDA
  int driver = 12080;              // its key driver=
  int threads = 1;                 // DROVER_SIM_THREADS
  int timeout = 600;               // DROVER_SIM_TIMEOUT: seconds that a launch may take
  // DROVER_SIM_CHECK, a list of these, or 1 for all:
  bool check_races = false;      // races: on shared memory; asynchronous copies not waited for
  bool check_shared = false;     // shared: values of shared memory that nothing has written
  bool check_global = false;     // global: the same of global memory
  bool check_registers = false;  // registers: the same of registers
  bool check_order = false;      // order: dependent launches that do not wait for what they touch
  bool check = false;            // global or order: those that need to know of each byte of memory
  bool count = false;              // DROVER_SIM_COUNTS is set
  std::string counts_file;
  std::string memory_file;         // DROVER_SIM_MEMORY
  uint64_t order = 0;              // DROVER_SIM_ORDER; 0: only what a wait needs is run
  std::string error;               // what is wrong with them
};

const Options& options();

}  // namespace sim
