// A launch while it runs: its blocks, their warps, and what instructions need of them.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "counters.h"
#include "memory.h"
#include "ptx.h"

namespace sim {

struct Block;
struct RaceCheck;

struct Launch {
  const Kernel* kernel = nullptr;
  const Module* module = nullptr;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  uint32_t dynamic_shared = 0;
  bool cooperative = false, dependent = false;
  bool wrong = false;       // stores of the first block's first lanes have a wrong bit
  bool noted = false;       // accesses to global memory are counted or checked
  uint32_t number = 0;      // of all launches of the device, from 1
  uint32_t unordered = 0;   // the oldest launch that may still run, 0 for none; before griddepcontrol.wait
  uint32_t unordered_after = 0;  // and after it
  int sms = 1;
  int resident = 1;         // blocks that the device holds at once
  std::vector<char> params;
  std::shared_ptr<const Ranges> ranges;
  std::chrono::steady_clock::time_point deadline;

  uint64_t blocks() const { return uint64_t{grid[0]} * grid[1] * grid[2]; }
  uint32_t threads() const { return block[0] * block[1] * block[2]; }
  uint32_t warps() const { return (threads() + 31) / 32; }
};

// Thrown by an instruction; lane -1 when no lane in particular is to blame.
struct Fault {
  int code;
  std::string what;
  int lane = -1;
};

struct Group {
  uint32_t pc, mask;
  bool parked;  // at a collective that other lanes have not reached
};

// A copy to shared memory that nobody has waited for.
struct Pending {
  uint32_t lane, group;  // group: of the lane
  uint32_t dst;          // offset in the block's shared memory
  uint32_t size;
  char data[16];
};

// A product of a warpgroup, wgmma.mma_async.
struct AsyncProduct {
  const Instr* instr;
  uint64_t b;      // descriptor of B
  bool add;        // to the sums that are there
  uint32_t group;  // of the warp
};

enum class State : uint8_t { ready, barrier, done };

struct Warp {
  char* regs = nullptr;
  Block* block = nullptr;
  uint32_t index = 0, alive = 0, members = 0;
  uint32_t sync = 1;  // counts what orders the warp's own lanes, for the race check
  bool unfair = false;    // the highest place goes first for a slice
  uint32_t grid_waited = 0;  // lanes that have passed griddepcontrol.wait
  State state = State::ready;
  std::vector<Group> groups;
  std::vector<Pending> pending;
  uint32_t copy_groups[32] = {};
  std::vector<AsyncProduct> products;  // that nobody has waited for
  uint32_t product_group = 0;
  size_t products_issued = 0;
  uint32_t fences = 0;  // fence.proxy.async of the whole warp
  int barrier = 0, barrier_line = 0;
  uint32_t barrier_threads = 0;
  int32_t barrier_result = -1;  // row of bar.red
  uint8_t barrier_op = 0;
  uint32_t barrier_lanes = 0;
  // With the check, per 4 bytes of registers, at each row's begin:
  std::vector<uint32_t> defined;    // lanes with a value
  std::vector<bool> unordered;      // written since the last wgmma.fence
  std::vector<uint16_t> in_products;  // products under way that it is an operand of

  template <class T>
  T* row(int32_t offset) { return reinterpret_cast<T*>(regs + offset); }
  uint32_t& pred(int32_t offset) { return *reinterpret_cast<uint32_t*>(regs + offset); }
};

struct Barrier {
  uint32_t waiting = 0, arrived = 0;  // warps
};

struct Block {
  Launch* launch = nullptr;
  const Kernel* kernel = nullptr;
  uint32_t id[3] = {0, 0, 0};
  uint64_t number = 0;
  char* shared = nullptr;
  uint32_t shared_bytes = 0;
  char* local = nullptr;  // threads x local_bytes
  std::vector<Warp> warps;
  Barrier barriers[16];
  std::vector<std::vector<AsyncProduct>> warpgroups;  // what the first of each one's warps has issued
  uint32_t live = 0;      // warps that have not left
  uint64_t polls = 0;     // pauses since the block was last resumed
  bool yielded = false;
  uint64_t stores = 0;    // progress that others can see
  Tally tally;
  const Range* cache[64] = {};
  std::unique_ptr<RaceCheck> races;
  std::vector<char> storage;  // registers, shared and local memory
  uint64_t prepared = 0;  // serial number of the kernel whose constants lie in the registers
  uint32_t prepared_dims[3] = {0, 0, 0};

  bool fits(const Launch& launch) const;  // whether begin need not prepare it
  void begin(Launch& launch, uint64_t number);
  bool run();  // true when all threads have left, false when it waits for other blocks
  void arrive(Warp& w);  // at the barrier that it names
  void leave(Warp& w);

 private:
  void prepare(Launch& launch);
  void set_specials(Warp& w);
  void take_barrier(Warp& w, const Instr& i, uint32_t mask);
  template <bool Check>
  bool step(Warp& w);
  void release(int barrier);
  void complete_barriers();
  [[noreturn]] void stuck();
};

std::string mask_text(uint32_t mask);
std::string describe(const Block& b, const Warp* w, int lane, int line, const std::string& what);

// Runs a launch to its end; a CUresult. The text of an error goes to stderr.
int execute(Launch& launch);

}  // namespace sim
