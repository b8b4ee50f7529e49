// Memory of devices and of the host, and the copies between them.
#include <cstdio>
#include <cstring>

#include "api.h"

using namespace sim;

CALL(cuMemGetInfo_v2)(size_t* free, size_t* total) {
  Use u;
  if (u.code) return u.code;
  *free = u->memory.free();
  *total = u->memory.total();
  return 0;
}

CALL(cuMemGetAllocationGranularity)(size_t* bytes, const void*, int) {
  *bytes = granule;
  return 0;
}

namespace {

// Writes down what a card has given out; a program that gives all back ends with 0.
void note_memory(Device& d) {
  const std::string& path = options().memory_file;
  if (path.empty()) return;
  if (FILE* f = fopen(path.c_str(), "a")) {
    fprintf(f, "%d %llu\n", d.ordinal, static_cast<unsigned long long>(d.memory.total() - d.memory.free()));
    fclose(f);
  }
}

constexpr int lost = 214;  // an uncorrectable ECC error: the card needs a reset

}  // namespace

CALL(cuMemAlloc_v2)(uint64_t* p, size_t n) {
  Use u;
  if (u.code) return u.code;
  if (!n) return 1;
  int number = ++u->allocations;
  if (number == u->about.gone) return u->broken = lost;
  if (number == u->about.oom) return 2;
  *p = u->memory.allocate(n);
  note_memory(*u.d);
  return *p ? 0 : 2;
}

CALL(cuMemFree_v2)(uint64_t p) {
  Use u;
  if (u.code) return u.code;
  if (!p) return 0;
  if (int r = u->drain_all()) return r;
  if (!u->memory.release(p)) return 1;
  note_memory(*u.d);
  return 0;
}

namespace {

constexpr unsigned portable = 1;

}  // namespace

CALL(cuMemHostAlloc)(void** p, size_t n, unsigned flags) {
  Use u;
  if (u.code) return u.code;
  if (!n) return 1;
  *p = pinned().allocate(n, flags & portable, u.d);
  return *p ? 0 : 2;
}

CALL(cuMemFreeHost)(void* p) {
  if (!current()) return 201;
  drain_everything();
  return pinned().release(p) ? 0 : 1;
}

CALL(cuMemHostRegister_v2)(void* p, size_t n, unsigned flags) {
  Use u;
  if (u.code) return u.code;
  if (!p || !n) return 1;
  return pinned().add(p, n, flags & portable, u.d);
}

CALL(cuMemHostUnregister)(void* p) {
  if (!current()) return 201;
  drain_everything();
  return pinned().remove(p) ? 0 : 713;
}

namespace {

// Whether n bytes lie in one allocation of the device; prints where not.
bool here(Device& d, uint64_t address, size_t n, const char* what) {
  if (d.memory.find(address, n)) return true;
  refused(0, "%s of %zu bytes at 0x%llx: not within an allocation of this device", what, n, static_cast<unsigned long long>(address));
  return false;
}

// A copy between the device and memory that is not pinned does not run beside
// the caller: what is copied in is read at once, what is copied out is there
// when the call returns.
int copy(uint64_t device, const void* host, size_t n, const void* stream, bool in) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  if (!n) return 0;
  if (!here(*u.d, device, n, in ? "copy to the device" : "copy from the device")) return 1;
  Work w{};
  w.kind = in ? Work::copy_in : Work::copy_out;
  w.size = n;
  w.dst = in ? device : reinterpret_cast<uint64_t>(host);
  w.src = in ? reinterpret_cast<uint64_t>(host) : device;
  bool beside = pinned().holds(host, n, u.d);
  if (!beside && s->capture) return s->capture->broken = refused(900, "a copy that is captured needs pinned memory");
  if (!beside && in) {
    auto* from = static_cast<const char*>(host);
    w.data.assign(from, from + n);
  }
  int r = u->queue(*s, std::move(w));
  return r || beside || in ? r : u->drain(*s, s->queued);
}

}  // namespace

CALL(cuMemcpyHtoDAsync_v2)(uint64_t dst, const void* src, size_t n, const void* stream) { return copy(dst, src, n, stream, true); }
CALL(cuMemcpyDtoHAsync_v2)(void* dst, uint64_t src, size_t n, const void* stream) { return copy(src, dst, n, stream, false); }

CALL(cuMemcpyDtoDAsync_v2)(uint64_t dst, uint64_t src, size_t n, const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  if (!n) return 0;
  if (!here(*u.d, dst, n, "copy on the device, to") || !here(*u.d, src, n, "copy on the device, from")) return 1;
  Work w{};
  w.kind = Work::copy_on;
  w.dst = dst, w.src = src, w.size = n;
  return u->queue(*s, std::move(w));
}

CALL(cuMemsetD8Async)(uint64_t dst, unsigned char value, size_t n, const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  if (!n) return 0;
  if (!here(*u.d, dst, n, "fill")) return 1;
  Work w{};
  w.kind = Work::fill;
  w.dst = dst, w.size = n, w.value = value;
  return u->queue(*s, std::move(w));
}
