// MTLComputeCommandEncoder, and the rules of its use.
#include <cstring>

#include "objects.h"

namespace metalsim {
namespace {

using ull = unsigned long long;

void check_index(const char* message, uint64_t i) {
  if (i >= max_buffers) fatal("%s index %llu is out of bounds: 0 to %u", message, static_cast<ull>(i), max_buffers - 1);
}

void check_offset(const char* message, const Memory& m, uint64_t offset) {
  if (offset >= m.length) fatal("%s offset %llu is beyond the buffer's %llu bytes", message, static_cast<ull>(offset), static_cast<ull>(m.length));
  if (offset % 4) fatal("%s offset %llu is not a multiple of 4", message, static_cast<ull>(offset));
}

void set_pipeline(Encoder* e, Selector, Object* pipeline) {
  e->use("setComputePipelineState:");
  e->pipeline = checked<Pipeline>(pipeline, "setComputePipelineState:");
  if (!e->pipeline) fatal("setComputePipelineState: nil");
  e->buffer->keep(e->pipeline);
}

void set_buffer(Encoder* e, Selector, Object* buffer, uint64_t offset, uint64_t i) {
  e->use("setBuffer:offset:atIndex:");
  check_index("setBuffer:offset:atIndex:", i);
  auto* b = checked<Buffer>(buffer, "setBuffer:offset:atIndex:");
  e->arguments[i] = Argument();
  if (!b) return;
  check_offset("setBuffer:offset:atIndex:", *b->memory, offset);
  e->arguments[i].memory = b->memory;
  e->arguments[i].offset = offset;
  e->buffer->keep(b);
}

void set_offset(Encoder* e, Selector, uint64_t offset, uint64_t i) {
  e->use("setBufferOffset:atIndex:");
  check_index("setBufferOffset:atIndex:", i);
  if (!e->arguments[i].memory) fatal("setBufferOffset:atIndex: index %llu has no buffer", static_cast<ull>(i));
  check_offset("setBufferOffset:atIndex:", *e->arguments[i].memory, offset);
  e->arguments[i].offset = offset;
}

void set_bytes(Encoder* e, Selector, const char* bytes, uint64_t length, uint64_t i) {
  e->use("setBytes:length:atIndex:");
  check_index("setBytes:length:atIndex:", i);
  if (!bytes || !length || length > 4096) fatal("setBytes:length:atIndex: length %llu is not 1 to 4096", static_cast<ull>(length));
  e->arguments[i] = Argument();
  e->arguments[i].bytes = std::make_shared<std::vector<char>>(bytes, bytes + length);
}

void set_memory(Encoder* e, Selector, uint64_t length, uint64_t i) {
  e->use("setThreadgroupMemoryLength:atIndex:");
  check_index("setThreadgroupMemoryLength:atIndex:", i);
  if (length % 16) fatal("setThreadgroupMemoryLength:atIndex: length %llu is not a multiple of 16", static_cast<ull>(length));
  if (length > max_threadgroup_memory) fatal("setThreadgroupMemoryLength:atIndex: length %llu is more than %llu", static_cast<ull>(length), static_cast<ull>(max_threadgroup_memory));
  e->memories[i] = length;
}

void dispatch_groups(Encoder* e, Selector, Size groups, Size threads) { e->dispatch("dispatchThreadgroups:threadsPerThreadgroup:", groups, threads, true); }
void dispatch_threads(Encoder* e, Selector, Size grid, Size threads) { e->dispatch("dispatchThreads:threadsPerThreadgroup:", grid, threads, false); }

void barrier(Encoder* e, Selector, uint64_t scope) {
  e->use("memoryBarrierWithScope:");
  if (!(scope & 1)) return;  // MTLBarrierScopeBuffers
  e->beside = 0;
}

void end(Encoder* e, Selector) {
  e->use("endEncoding");
  if (e->groups) fatal("endEncoding with %d debug groups that are open", e->groups);
  e->ended = true;
  e->buffer->encoder = nullptr;
}

}  // namespace

void Encoder::use(const char* message) const {
  if (ended) fatal("%s after endEncoding", message);
}

void Encoder::dispatch(const char* message, Size grid, Size threads, bool whole) {
  use(message);
  if (!pipeline) fatal("%s without a pipeline", message);
  if (!pipeline->alive()) fatal("%s with a pipeline that has been released", message);
  const Kernel& k = *pipeline->kernel;
  const char* name = k.name.c_str();
  if (!grid.width || !grid.height || !grid.depth || !threads.width || !threads.height || !threads.depth) fatal("%s kernel %s: a size is 0", message, name);
  uint64_t total = threads.width * threads.height * threads.depth;
  if (threads.width > 1024 || threads.height > 1024 || threads.depth > 1024 || total > k.max_threads)
    fatal("%s kernel %s: %llu x %llu x %llu threads, more than maxTotalThreadsPerThreadgroup, %u", message, name, static_cast<ull>(threads.width), static_cast<ull>(threads.height),
          static_cast<ull>(threads.depth), k.max_threads);
  Dispatch d;
  uint64_t bytes = k.static_memory;
  memcpy(d.memories, memories, sizeof memories);
  for (uint64_t m : memories) bytes += m;
  if (bytes > max_threadgroup_memory) fatal("%s kernel %s: %llu bytes of threadgroup memory, more than %llu", message, name, static_cast<ull>(bytes), static_cast<ull>(max_threadgroup_memory));
  for (auto& p : k.params) {
    if (p.kind == Param::buffer && !arguments[p.index].set()) fatal("%s kernel %s: no buffer at index %u, for %s", message, name, p.index, p.name.c_str());
    if (p.kind == Param::memory && !memories[p.index]) fatal("%s kernel %s: no threadgroup memory at index %u, for %s", message, name, p.index, p.name.c_str());
  }
  d.program = pipeline->program;
  d.kernel = pipeline->kernel;
  for (unsigned i = 0; i < max_buffers; i++) d.arguments[i] = arguments[i];
  const uint64_t g[3] = {grid.width, grid.height, grid.depth}, t[3] = {threads.width, threads.height, threads.depth};
  for (int i = 0; i < 3; i++) {
    uint64_t groups = whole ? g[i] : (g[i] + t[i] - 1) / t[i], all = whole ? g[i] * t[i] : g[i];
    if (all > UINT32_MAX) fatal("%s kernel %s: more than 2^32 threads in a direction", message, name);
    d.groups[i] = static_cast<unsigned>(groups);
    d.threads[i] = static_cast<unsigned>(t[i]);
    d.grid[i] = static_cast<unsigned>(all);
  }
  d.concurrent = concurrent;
  d.beside = beside++;
  d.number = 0;
  buffer->dispatches.push_back(std::move(d));
}

void Encoder::dispose() {
  if (!ended) fatal("a MTLComputeCommandEncoder is released without endEncoding");
  for (auto& a : arguments) a = Argument();
  buffer->release();
}

void add_encoder() {
  Class& c = class_named("MTLComputeCommandEncoder");
  c.method("setComputePipelineState:", set_pipeline);
  c.method("setBuffer:offset:atIndex:", set_buffer);
  c.method("setBufferOffset:atIndex:", set_offset);
  c.method("setBytes:length:atIndex:", set_bytes);
  c.method("setThreadgroupMemoryLength:atIndex:", set_memory);
  c.method("dispatchThreadgroups:threadsPerThreadgroup:", dispatch_groups);
  c.method("dispatchThreads:threadsPerThreadgroup:", dispatch_threads);
  c.method("memoryBarrierWithScope:", barrier);
  c.method("endEncoding", end);
  c.method("setLabel:", +[](Encoder* e, Selector, Object* label) {
    e->use("setLabel:");
    checked<String>(label, "setLabel:");
  });
  c.method("pushDebugGroup:", +[](Encoder* e, Selector, Object* label) {
    e->use("pushDebugGroup:");
    checked<String>(label, "pushDebugGroup:");
    e->groups++;
  });
  c.method("popDebugGroup", +[](Encoder* e, Selector) {
    e->use("popDebugGroup");
    if (e->groups-- == 0) fatal("popDebugGroup without pushDebugGroup:");
  });
}

}  // namespace metalsim
