// Classes of Metal.
#pragma once
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "execute.h"
#include "foundation.h"
#include "program.h"

namespace metalsim {

struct Size {
  uint64_t width, height, depth;
};

struct Device : Object {
  std::atomic<uint64_t> allocated{0};
  Device() : Object(class_named("MTLDevice")) { immortal_ = true; }
};
Device& device();

struct CompileOptions : Object {
  CompileSettings settings;
  CompileOptions() : Object(class_named("MTLCompileOptions")) {}
};

struct Library : Object {
  std::shared_ptr<Program> program;
  explicit Library(std::shared_ptr<Program> p) : Object(class_named("MTLLibrary")), program(std::move(p)) {}
  void dispose() override { program = nullptr; }
};

struct KernelFunction : Object {
  std::shared_ptr<Program> program;
  const Kernel* kernel;
  KernelFunction(std::shared_ptr<Program> p, const Kernel* k) : Object(class_named("MTLFunction")), program(std::move(p)), kernel(k) {}
  void dispose() override { program = nullptr; }
};

struct Pipeline : Object {
  std::shared_ptr<Program> program;
  const Kernel* kernel;
  Pipeline(std::shared_ptr<Program> p, const Kernel* k) : Object(class_named("MTLComputePipelineState")), program(std::move(p)), kernel(k) {}
  void dispose() override { program = nullptr; }
};

struct Buffer : Object {
  std::shared_ptr<Memory> memory;
  explicit Buffer(std::shared_ptr<Memory> m) : Object(class_named("MTLBuffer")), memory(std::move(m)) {}
  void dispose() override;
};

struct CommandBuffer;

// Runs command buffers in the order of their commits, on a thread of its own.
struct Queue : Object {
  const uint64_t limit;  // of command buffers that are not complete
  std::mutex lock;
  std::condition_variable changed;
  std::deque<CommandBuffer*> committed;
  uint64_t made = 0, ended = 0;              // command buffers
  uint64_t commits = 0, wanted = 0, done = 0;  // by number of the commit
  bool closing = false;
  std::thread thread;

  explicit Queue(uint64_t n) : Object(class_named("MTLCommandQueue")), limit(n), thread([this] { work(); }) {}
  void dispose() override;

  void begin_buffer();
  void end_buffer();
  void commit(CommandBuffer* b);
  void want(uint64_t commit);  // lets the work go on as far as this commit
  void wait(uint64_t commit);

 private:
  void work();
};

struct Encoder;

struct CommandBuffer : Object {
  enum Status { not_enqueued = 0, enqueued = 1, committed = 2, scheduled = 3, completed = 4, failed = 5 };
  Queue* const queue;
  const bool retains;  // what its encoders use
  std::string label;
  Encoder* encoder = nullptr;  // that is open
  std::vector<Object*> retained;
  std::vector<Dispatch> dispatches;
  std::atomic<int> status{not_enqueued};
  uint64_t commit_number = 0;
  Failure failure;
  Error* error = nullptr;
  double started = 0, ended = 0;

  CommandBuffer(Queue* q, bool r) : Object(class_named("MTLCommandBuffer")), queue(q), retains(r) {
    queue->retain();
    queue->begin_buffer();
  }
  void dispose() override;
  void keep(Object* o);
  void run();
};

struct Encoder : Object {
  CommandBuffer* const buffer;
  const bool concurrent;
  bool ended = false;
  uint64_t beside = 0;  // dispatches that nothing separates from the next
  int groups = 0;      // of debugging, that are open
  Pipeline* pipeline = nullptr;
  Argument arguments[max_buffers];
  uint64_t memories[max_buffers] = {};

  Encoder(CommandBuffer* b, bool c) : Object(class_named("MTLComputeCommandEncoder")), buffer(b), concurrent(c) { b->retain(); }
  void dispose() override;
  void use(const char* message) const;  // ends the process where the encoder is not open
  void dispatch(const char* message, Size grid, Size threads, bool whole);
};

void add_device();
void add_library();
void add_queue();
void add_encoder();

}  // namespace metalsim
