// The threadgroups that one host thread runs, one after the other.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "counters.h"
#include "detect.h"
#include "execute.h"
#include "fiber.h"

namespace metalsim {

// What a range of memory that a kernel may use is.
struct Place {
  enum Kind { buffer, bytes, variable, memory, constants } kind;
  unsigned index;    // of argument or threadgroup memory
  std::string name;  // of a variable, or a buffer's label
  Memory* of;        // a buffer
  std::string text() const;
};

// What a host thread keeps from one dispatch to the next.
struct Room {
  Stacks stacks;
  std::vector<Fiber> fibers;
  std::vector<char> arena;
  RaceCheck races;
  WrittenCheck written;
};

class Group {
 public:
  explicit Group(const Dispatch& d);
  bool run(const unsigned position[3]);  // false: failure says why

  Failure failure;
  Counts counts;

  // for what runs on its fibers
  const Dispatch& dispatch() const { return dispatch_; }
  const std::vector<Range>& ranges() const { return ranges_; }
  const std::vector<Place>& places() const { return places_; }
  void* slots(const Fiber& f) {  // of its simdgroup, for values that are exchanged
    Simdgroup& s = simdgroups_[f.thread.simdgroup];
    return s.slots[s.parity];
  }
  void wait(Fiber& f) { metalsim_switch(&f.top, scheduler_); }  // until others have come to where it is
  [[noreturn]] void stop(Fiber& f, const std::string& why, const void* site, int64_t code = 3);  // ends the dispatch
  RaceCheck& races;
  WrittenCheck& written;

 private:
  struct Simdgroup {
    unsigned first, size;
    unsigned parity;
    alignas(64) char slots[2][32 * slot_size];
  };
  const Dispatch& dispatch_;
  Room& room_;
  std::vector<Fiber>& fibers_;
  std::unique_ptr<Simdgroup[]> simdgroups_;
  unsigned count_ = 0, simdgroup_count_ = 0;
  void* scheduler_ = nullptr;
  uint64_t arena_ = 0, arena_size_ = 0;  // threadgroup memory, with gaps between its parts
  std::vector<Range> ranges_;  // that may be used, then one of size 0
  std::vector<Place> places_;
  uint64_t buffers_[max_buffers], memories_[max_buffers];
  bool watched_ = false;
  unsigned char layout_[64];
  uint64_t random_;

  void lay_out();
  void begin(const unsigned position[3]);
  bool run_simdgroup(Simdgroup& s);
  bool meet(Simdgroup& s);
  void multiply(Simdgroup& s);
  bool release_barrier();
  bool fail(const Fiber& f, const std::string& why, const void* site);
  uint64_t random() { return random_ = random_ * 6364136223846793005u + 1442695040888963407u, random_ >> 33; }
};

}  // namespace metalsim
