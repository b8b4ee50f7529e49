// MTLDevice and MTLBuffer.
#include <unistd.h>

#include <cstring>

#include "objects.h"
#include "options.h"

namespace metalsim {
namespace {

constexpr uint64_t max_buffer_length = uint64_t{1} << 34;

enum StorageMode { shared = 0, managed = 1, private_storage = 2, memoryless = 3 };

// MTLGPUFamily: Apple 1001 and so on, Mac 2001.., Common 3001.., Metal 3 5001
bool supports(int64_t family) {
  int f = options().family;
  if (family > 1000 && family < 1100) return family <= 1000 + f;
  if (family == 2001 || family == 2002) return f >= 7;
  if (family > 3000 && family < 3100) return family <= (f >= 7 ? 3003 : f >= 4 ? 3002 : 3001);
  return family == 5001 && f >= 7;
}

StorageMode storage(uint64_t resource_options) {
  uint64_t mode = resource_options >> 4 & 15;
  if (mode > memoryless || mode == memoryless) fatal("storage mode %llu is not for buffers", static_cast<unsigned long long>(mode));
  if (mode == managed) fatal("storage mode managed is not for Apple silicon");
  return static_cast<StorageMode>(mode);
}

Object* with_memory(const std::shared_ptr<Memory>& m) {
  if (!m->contents) return nullptr;
  device().allocated += m->length;
  return new Buffer(m);
}

Object* new_buffer(Object*, Selector, uint64_t length, uint64_t resource_options) {
  StorageMode mode = storage(resource_options);
  if (!length) fatal("newBufferWithLength: of 0 bytes");
  if (length > max_buffer_length) return nullptr;
  return with_memory(std::make_shared<Memory>(length, mode == private_storage));
}

Object* new_buffer_in_place(Object*, Selector, void* contents, uint64_t length, uint64_t resource_options, void* deallocator) {
  auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (storage(resource_options) != shared) fatal("newBufferWithBytesNoCopy: with a storage mode other than shared");
  if (!contents || reinterpret_cast<uint64_t>(contents) % page) fatal("newBufferWithBytesNoCopy: pointer %p is not aligned to a page", contents);
  if (!length || length % page) fatal("newBufferWithBytesNoCopy: length %llu is not a multiple of the page size", static_cast<unsigned long long>(length));
  if (deallocator) fatal("newBufferWithBytesNoCopy: with a deallocator, which this device cannot call");
  if (length > max_buffer_length) return nullptr;
  return with_memory(std::make_shared<Memory>(contents, length));
}

Object* new_buffer_with_bytes(Object* d, Selector s, const void* bytes, uint64_t length, uint64_t resource_options) {
  if (storage(resource_options) == private_storage) fatal("newBufferWithBytes: with private storage");
  auto* b = static_cast<Buffer*>(new_buffer(d, s, length, resource_options));
  if (b) memcpy(b->memory->contents, bytes, length);
  return b;
}

Object* set_label(Buffer* b, Selector, Object* label) {
  auto* text = checked<String>(label, "setLabel:");
  b->memory->label = text ? text->text : "";
  return nullptr;
}

}  // namespace

void Buffer::dispose() {
  memory->released = true;
  device().allocated -= memory->length;
  memory = nullptr;
}

Device& device() {
  static auto* d = new Device;
  return *d;
}

void add_device() {
  Class& c = class_named("MTLDevice");
  c.method("name", +[](Device*, Selector) { return autoreleased(options().name); });
  c.method("registryID", +[](Device*, Selector) { return uint64_t{0x100000abc}; });
  c.method("hasUnifiedMemory", +[](Device*, Selector) { return uint64_t{1}; });
  c.method("recommendedMaxWorkingSetSize", +[](Device*, Selector) { return options().memory; });
  c.method("currentAllocatedSize", +[](Device* d, Selector) { return d->allocated.load(); });
  c.method("maxBufferLength", +[](Device*, Selector) { return max_buffer_length; });
  c.method("maxThreadgroupMemoryLength", +[](Device*, Selector) { return max_threadgroup_memory; });
  c.method("maxThreadsPerThreadgroup", +[](Device*, Selector) { return Size{1024, 1024, 1024}; });
  c.method("supportsFamily:", +[](Device*, Selector, int64_t family) { return uint64_t{supports(family)}; });
  c.method("newCommandQueue", +[](Device*, Selector) -> Object* { return new Queue(64); });
  c.method("newCommandQueueWithMaxCommandBufferCount:", +[](Device*, Selector, uint64_t n) -> Object* {
    if (!n) fatal("newCommandQueueWithMaxCommandBufferCount: 0");
    return new Queue(n);
  });
  c.method("newBufferWithLength:options:", new_buffer);
  c.method("newBufferWithBytes:length:options:", new_buffer_with_bytes);
  c.method("newBufferWithBytesNoCopy:length:options:deallocator:", new_buffer_in_place);

  Class& b = class_named("MTLBuffer");
  b.method("contents", +[](Buffer* self, Selector) {
    if (self->memory->is_private) fatal("contents of a MTLBuffer with private storage");
    return self->memory->contents;
  });
  b.method("length", +[](Buffer* self, Selector) { return self->memory->length; });
  b.method("setLabel:", set_label);
}

void add_metal() {
  add_device();
  add_library();
  add_queue();
  add_encoder();
}

}  // namespace metalsim

using namespace metalsim;

extern "C" {

Object* MTLCreateSystemDefaultDevice() {
  objc_getClass("MTLDevice");  // so that the classes are there
  if (!options().error.empty()) fatal("%s", options().error.c_str());
  device().retain();
  return &device();
}

Object* MTLCopyAllDevices() {
  MTLCreateSystemDefaultDevice();
  Object* all = new Array({&device()});
  device().release();
  return all;
}

}  // extern "C"
