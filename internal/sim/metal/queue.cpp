// MTLCommandQueue and MTLCommandBuffer.
#include <chrono>

#include "counters.h"
#include "objects.h"
#include "options.h"

namespace metalsim {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// There is one GPU for all queues.
std::mutex& gpu() {
  static auto* m = new std::mutex;
  return *m;
}

uint64_t& dispatch_number() {
  static uint64_t n = 0;  // of those that have run
  return n;
}

Object* command_buffer(Queue* q, Selector) { return (new CommandBuffer(q, true))->autorelease(); }
Object* unretained_command_buffer(Queue* q, Selector) { return (new CommandBuffer(q, false))->autorelease(); }

Object* encoder(CommandBuffer* b, Selector, uint64_t dispatch_type) {
  if (b->encoder) fatal("computeCommandEncoder: the command buffer has an encoder that is open");
  if (b->status >= CommandBuffer::committed) fatal("computeCommandEncoder of a command buffer that is committed");
  b->encoder = new Encoder(b, dispatch_type == 1);
  return b->encoder->autorelease();
}
Object* serial_encoder(CommandBuffer* b, Selector s) { return encoder(b, s, 0); }

void commit(CommandBuffer* b, Selector) {
  if (b->encoder) fatal("commit of a command buffer with an encoder that is open");
  if (b->status >= CommandBuffer::committed) fatal("commit of a command buffer that is committed already");
  b->queue->commit(b);
}

void wait(CommandBuffer* b, Selector) {
  if (b->status < CommandBuffer::committed) fatal("waitUntilCompleted of a command buffer that is not committed");
  b->queue->wait(b->commit_number);
}

int64_t status(CommandBuffer* b, Selector) {
  if (b->status >= CommandBuffer::committed) b->queue->want(b->commit_number);
  return b->status;
}

bool over(const CommandBuffer* b) { return b->status >= CommandBuffer::completed; }

}  // namespace

void Queue::begin_buffer() {
  std::unique_lock hold(lock);
  if (made - ended >= limit) {
    if (done == commits) fatal("more than %llu command buffers of a queue, none of them committed", static_cast<unsigned long long>(limit));
    wanted = commits;
    changed.notify_all();
    changed.wait(hold, [&] { return made - ended < limit; });
  }
  made++;
}

void Queue::end_buffer() {
  std::lock_guard hold(lock);
  ended++;
  changed.notify_all();
}

void Queue::commit(CommandBuffer* b) {
  b->retain();
  std::lock_guard hold(lock);
  b->status = CommandBuffer::committed;
  b->commit_number = ++commits;
  committed.push_back(b);
  if (options().order) wanted = commits;
  changed.notify_all();
}

void Queue::want(uint64_t commit) {
  std::lock_guard hold(lock);
  if (commit > wanted) wanted = commit, changed.notify_all();
}

void Queue::wait(uint64_t commit) {
  std::unique_lock hold(lock);
  if (commit > wanted) wanted = commit, changed.notify_all();
  changed.wait(hold, [&] { return done >= commit; });
}

// The queue ends when its last command buffer, which has a reference to it, does.
void Queue::dispose() {
  {
    std::lock_guard hold(lock);
    closing = true;
    changed.notify_all();
  }
  if (thread.get_id() == std::this_thread::get_id()) thread.detach();
  else thread.join();
}

void Queue::work() {
  uint64_t random = options().order;
  std::unique_lock hold(lock);
  while (true) {
    changed.wait(hold, [&] { return closing || (!committed.empty() && wanted > done); });
    if (closing) return;
    CommandBuffer* b = committed.front();
    committed.pop_front();
    hold.unlock();
    if (random) {  // a seed: some begin late
      random = random * 6364136223846793005u + 1442695040888963407u;
      std::this_thread::sleep_for(std::chrono::microseconds(random >> 33 & 1023));
    }
    b->run();
    b->status = b->failure.code ? CommandBuffer::failed : CommandBuffer::completed;
    b->release();  // and perhaps the queue, which stays in memory
    hold.lock();
    done++;
    ended++;
    changed.notify_all();
  }
}

void CommandBuffer::keep(Object* o) {
  if (!retains) return;
  o->retain();
  retained.push_back(o);
}

void CommandBuffer::run() {
  std::lock_guard hold(gpu());
  status = scheduled;
  started = now();
  if (device().allocated > options().memory)
    failure = {8, "insufficient memory: " + std::to_string(device().allocated >> 20) + " MiB are allocated, " + std::to_string(options().memory >> 20) + " MiB can be used"};
  for (auto& d : dispatches) {
    if (failure.code) break;
    d.number = ++dispatch_number();
    failure = execute(d);
  }
  static uint64_t number = 0;
  if (++number == options().fail_number && !failure.code) failure = {static_cast<int64_t>(options().fail_code), "this is DROVER_METALSIM_FAIL"};
  ended = now();
  write_counts();
  if (failure.code) error = new Error("MTLCommandBufferErrorDomain", failure.code, (label.empty() ? "" : label + ": ") + failure.text);
  dispatches.clear();
  for (auto* o : retained) o->release();
  retained.clear();
}

void CommandBuffer::dispose() {
  if (encoder) fatal("a MTLCommandBuffer is released with an encoder that is open");
  if (status < committed) queue->end_buffer();
  for (auto* o : retained) o->release();
  retained.clear();
  dispatches.clear();
  if (error) error->release();
  queue->release();
}

void add_queue() {
  Class& q = class_named("MTLCommandQueue");
  q.method("commandBuffer", command_buffer);
  q.method("commandBufferWithUnretainedReferences", unretained_command_buffer);
  q.method("setLabel:", +[](Queue*, Selector, Object* label) { checked<String>(label, "setLabel:"); });

  Class& b = class_named("MTLCommandBuffer");
  b.method("computeCommandEncoder", serial_encoder);
  b.method("computeCommandEncoderWithDispatchType:", encoder);
  b.method("commit", commit);
  b.method("waitUntilCompleted", wait);
  b.method("status", status);
  b.method("error", +[](CommandBuffer* self, Selector) -> Object* { return over(self) ? self->error : nullptr; });
  b.method("GPUStartTime", +[](CommandBuffer* self, Selector) { return over(self) ? self->started : 0.0; });
  b.method("GPUEndTime", +[](CommandBuffer* self, Selector) { return over(self) ? self->ended : 0.0; });
  b.method("setLabel:", +[](CommandBuffer* self, Selector, Object* label) {
    auto* text = checked<String>(label, "setLabel:");
    self->label = text ? text->text : "";
  });
}

}  // namespace metalsim
