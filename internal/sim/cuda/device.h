// Devices, their streams and the work queued there.
#pragma once
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "exec.h"
#include "memory.h"
#include "options.h"

namespace sim {

struct Device;
struct Stream;

struct Loaded;  // a module on a device

// A kernel as the caller holds it.
struct Entry {
  Loaded* owner = nullptr;
  const Kernel* kernel = nullptr;
  uint32_t max_dynamic = 0;  // bytes of dynamic shared memory that launches may take
};

struct Loaded {
  Module module;
  std::map<std::string, Entry, std::less<>> entries;
};

struct Capture;

struct Event {
  Device* device = nullptr;
  Stream* stream = nullptr;  // where it was recorded; null: nowhere yet
  uint64_t sequence = 0;     // of the recording in that stream
  Capture* capture = nullptr;  // that the recording belongs to
  bool timed = true, reached = false;
  std::chrono::steady_clock::time_point when;
};

struct Work;
using Works = std::vector<Work>;

// One thing in a queue.
struct Work {
  enum Kind : uint8_t { launch, copy_in, copy_out, copy_on, fill, record, wait, graph } kind;
  uint64_t dst = 0, src = 0, size = 0;  // host addresses too
  int value = 0;
  const Entry* entry = nullptr;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared = 0;
  bool cooperative = false, dependent = false;
  std::vector<char> data;                // of a launch its parameters; of a copy in what the source held
  std::shared_ptr<Event> event;
  Stream* stream = nullptr;              // to wait for, up to a sequence
  uint64_t sequence = 0;
  std::shared_ptr<const Works> works;    // of a graph
};

// Streams that are captured into one graph, in the order of the calls.
struct Capture {
  Stream* origin = nullptr;
  Works works;
  std::set<Stream*> joined;   // others that take part
  std::set<Stream*> open;     // of those: with work that the origin does not wait for
  int broken = 0;             // the error that ended it
};

struct Stream {
  Device* device = nullptr;
  uint64_t id = 0;
  bool blocking = false;  // ordered with the null stream
  std::deque<Work> queue;
  uint64_t queued = 0, done = 0;  // sequence numbers: of the last work in the queue, of the last that ran
  std::shared_ptr<Capture> capture;
  // Of the launches in a row that may overlap: the first, 0 for none, and whether the last waits for those before it.
  uint32_t chain = 0;
  bool last_waits = true;
};

struct Device {
  Device(const Described& d, int ordinal);

  Described about;
  int ordinal;
  std::mutex lock;  // guards all below
  Memory memory;
  int broken = 0;   // the CUresult that ended the context
  uint32_t launches = 0;
  int allocations = 0;  // asked for
  std::map<uint64_t, std::unique_ptr<Stream>> streams;  // by id; 1 is the null stream
  std::map<const void*, std::shared_ptr<Event>> events;
  std::map<const void*, std::unique_ptr<Loaded>> modules;
  std::map<const void*, const Loaded*> entries;  // Entry's address to its module
  std::map<const void*, std::shared_ptr<const Works>> graphs, executables;
  uint64_t next_id = 0, dice = 0;

  int cc() const { return about.major * 10 + about.minor; }
  Stream* add_stream(bool blocking);
  Stream* stream(const void* handle);  // null if there is none such
  int queue(Stream& s, Work w);        // or captures it
  int drain(Stream& s, uint64_t up_to);
  int drain_all();
  void forget(Stream* s);

 private:
  int run(Stream& s, Work& w);
  int launch(Stream& s, const Work& w);
  int ordered(Stream& s, bool null_stream);
};

// Limits that follow from the compute capability.
struct Limits {
  int threads, blocks;                 // a multiprocessor holds
  uint32_t shared, shared_block;       // bytes: of a multiprocessor; that a block may take
};
Limits limits(int cc);
int registers_of(const Kernel& k);
int occupancy(const Device& d, const Kernel& k, uint32_t threads, uint64_t dynamic);

constexpr uint32_t shared_without_leave = 48 << 10;

// Memory of the host that copies run beside the caller with.
struct Pinned {
  uint64_t size;
  bool portable, ours;  // for all devices; allocated here
  const Device* device;
};
class PinnedMemory {
 public:
  void* allocate(uint64_t size, bool portable, const Device* d);
  bool release(void* p);
  int add(void* p, uint64_t size, bool portable, const Device* d);
  bool remove(void* p);
  bool holds(const void* p, uint64_t size, const Device* d);

 private:
  std::mutex lock_;
  std::map<uint64_t, Pinned> ranges_;
};
PinnedMemory& pinned();

}  // namespace sim
