// Queues of work and how they run: nothing runs when it is queued, all when it is
// waited for, so that what a program forgets to wait for is not there.
#include "device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sim {

Device::Device(const Described& d, int n) : about(d), ordinal(n), memory(0x2000'0000'0000 + (uint64_t(n) << 40), d.memory), dice(options().order) { add_stream(true); }

Stream* Device::add_stream(bool blocking) {
  auto s = std::make_unique<Stream>();
  s->device = this;
  s->id = ++next_id;
  s->blocking = blocking;
  return (streams[next_id] = std::move(s)).get();
}

// Null, 1 and 2 name the null stream, as in CUDA.
Stream* Device::stream(const void* handle) {
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return streams.begin()->second.get();
  for (auto& s : streams)
    if (s.second.get() == handle) return s.second.get();
  return nullptr;
}

int Device::queue(Stream& s, Work w) {
  if (Capture* c = s.capture.get()) {
    if (c->broken) return 901;
    if (&s != c->origin) c->open.insert(&s);
    if (w.kind != Work::record && w.kind != Work::wait) c->works.push_back(std::move(w));
    return 0;
  }
  bool null_stream = s.id == 1;
  if (null_stream)
    for (auto& o : streams)
      if (o.second->blocking && o.second.get() != &s)
        if (int r = drain(*o.second, o.second->queued)) return r;
  s.queue.push_back(std::move(w));
  s.queued++;
  if (null_stream) return drain(s, s.queued);
  if (options().order) {
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    if (dice >> 62 == 0) return drain(s, s.done + (dice >> 40) % (s.queued - s.done + 1));
  }
  return 0;
}

// other_work runs the first of what another stream has queued, now and then: no order
// holds between streams but what events make.
int Device::other_work(Stream& s) {
  dice = dice * 6364136223846793005u + 1442695040888963407u;
  if (dice >> 62 != 0) return 0;
  uint64_t skip = (dice >> 40) % streams.size();
  for (auto& o : streams) {
    Stream& other = *o.second;
    if (skip-- > 0) continue;
    if (&other == &s || other.queue.empty() || other.queue.front().kind == Work::wait) return 0;
    return drain_one(other);
  }
  return 0;
}

int Device::drain_one(Stream& s) {
  Work w = std::move(s.queue.front());
  s.queue.pop_front();
  s.done++;
  if (int r = run(s, w)) {
    broken = r;
    for (auto& o : streams) o.second->queue.clear();
  }
  return broken;
}

int Device::drain(Stream& s, uint64_t up_to) {
  while (!broken && s.done < up_to && !s.queue.empty())
    if (!drain_one(s) && options().order) other_work(s);
  return broken;
}

int Device::drain_all() {
  for (auto& s : streams) drain(*s.second, s.second->queued);
  return broken;
}

int Device::run(Stream& s, Work& w) {
  if (w.kind != Work::launch && w.kind != Work::graph && w.kind != Work::record) s.chain = 0, s.last_waits = true;
  const Range* to = w.kind == Work::copy_in || w.kind == Work::copy_on || w.kind == Work::fill ? memory.find(w.dst, w.size) : nullptr;
  const Range* from = w.kind == Work::copy_out || w.kind == Work::copy_on ? memory.find(w.src, w.size) : nullptr;
  auto lost = [&](uint64_t address) {
    fprintf(stderr, "software CUDA device: a copy of %llu bytes at 0x%llx runs when that memory is no longer allocated\n", static_cast<unsigned long long>(w.size), static_cast<unsigned long long>(address));
    return 700;
  };
  switch (w.kind) {
    case Work::launch: return launch(s, w);
    case Work::copy_in:
      if (!to) return lost(w.dst);
      memcpy(to->host + (w.dst - to->base), w.data.empty() ? reinterpret_cast<const char*>(w.src) : w.data.data(), w.size);
      memory.mark_written(w.dst, w.size, 0);
      return 0;
    case Work::copy_out:
      if (!from) return lost(w.src);
      memcpy(reinterpret_cast<char*>(w.dst), from->host + (w.src - from->base), w.size);
      if (about.wrong == "link" && w.size) reinterpret_cast<char*>(w.dst)[w.size - 1] ^= 1;
      return 0;
    case Work::copy_on:
      if (!to) return lost(w.dst);
      if (!from) return lost(w.src);
      memmove(to->host + (w.dst - to->base), from->host + (w.src - from->base), w.size);
      memory.copy_written(w.dst, w.src, w.size);
      return 0;
    case Work::fill:
      if (!to) return lost(w.dst);
      memset(to->host + (w.dst - to->base), w.value, w.size);
      memory.mark_written(w.dst, w.size, 0);
      return 0;
    case Work::record:
      w.event->when = std::chrono::steady_clock::now();
      if (w.event->stream == &s && w.event->sequence == s.done) w.event->reached = true;
      return 0;
    case Work::wait: {
      for (auto& o : streams)
        if (o.second.get() == w.stream) return drain(*w.stream, w.sequence);
      return 0;
    }
    case Work::graph:
      for (auto& part : *w.works)
        if (int r = run(s, const_cast<Work&>(part))) return r;
      return 0;
  }
  return 0;
}

int Device::launch(Stream& s, const Work& w) {
  if (!entries.count(w.entry)) {
    fprintf(stderr, "software CUDA device: a graph launches a kernel of a module that was unloaded\n");
    return 719;
  }
  launches++;
  if (launches == about.lost) {
    fprintf(stderr, "software CUDA device: card %d is lost, as DROVER_SIM_CUDA says\n", ordinal);
    return 999;
  }
  Launch l;
  l.kernel = w.entry->kernel;
  auto named = [&](const std::string& part) { return !part.empty() && l.kernel->name.find(part) != std::string::npos; };
  if (named(about.fail)) return about.fail_code;
  l.wrong = named(about.wrong);
  l.module = &w.entry->owner->module;
  std::copy(w.grid, w.grid + 3, l.grid);
  std::copy(w.block, w.block + 3, l.block);
  l.dynamic_shared = w.shared;
  l.cooperative = w.cooperative;
  l.dependent = w.dependent;
  l.number = launches;
  l.sms = about.sms;
  l.resident = about.sms * std::max(1, occupancy(*this, *l.kernel, l.threads(), l.dynamic_shared));
  l.params = w.data;
  l.ranges = memory.ranges();
  if (w.dependent && s.chain) {
    l.unordered = s.chain;
    if (!s.last_waits) l.unordered_after = s.chain;
    s.last_waits = l.kernel->waits_for_grid;
  } else {
    s.chain = l.number;
    s.last_waits = true;
  }
  return execute(l);
}

// What waits for the stream finds it empty.
void Device::forget(Stream* s) {
  for (auto& e : events)
    if (e.second->stream == s) e.second->stream = nullptr;
  for (auto& o : streams)
    for (auto& w : o.second->queue)
      if (w.stream == s) w.stream = nullptr;
  streams.erase(s->id);
}

// CUDA C++ Programming Guide, table of technical specifications by compute capability.
Limits limits(int cc) {
  auto kib = [](uint32_t n) { return n << 10; };
  if (cc < 80) return {1024, 16, kib(64), kib(64)};
  if (cc == 80) return {2048, 32, kib(164), kib(163)};
  if (cc == 86 || cc == 89) return {1536, cc == 89 ? 24 : 16, kib(100), kib(99)};
  if (cc == 87) return {1536, 16, kib(164), kib(163)};
  if (cc >= 120) return {1536, 24, kib(100), kib(99)};
  return {2048, 32, kib(228), kib(227)};
}

// A guess: the registers of PTX are not those of a card, so at most what lets
// the largest block be launched.
int registers_of(const Kernel& k) {
  int most = static_cast<int>(65536 / std::max(32u, (k.max_threads + 31) / 32 * 32));
  return std::min({std::max(16, k.registers / 2), 255, most});
}

int occupancy(const Device& d, const Kernel& k, uint32_t threads, uint64_t dynamic) {
  Limits l = limits(d.cc());
  uint64_t warps = (uint64_t{threads} + 31) / 32, shared = (k.shared_bytes + dynamic + 127) / 128 * 128 + (d.cc() >= 80 ? 1024 : 0);
  uint64_t registers = (uint64_t(registers_of(k)) * 32 + 255) / 256 * 256 * warps;
  return static_cast<int>(std::min({uint64_t(l.blocks), uint64_t(l.threads) / (warps * 32), l.shared / std::max<uint64_t>(shared, 1), 65536 / registers}));
}

// --- memory of the host

PinnedMemory& pinned() {
  static auto* all = new PinnedMemory;
  return *all;
}

void* PinnedMemory::allocate(uint64_t size, bool portable, const Device* d) {
  void* p = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  if (!p) return nullptr;
  if (size <= 64 << 20) memset(p, 0xff, size);
  std::lock_guard hold(lock_);
  ranges_[reinterpret_cast<uint64_t>(p)] = {size, portable, true, d};
  return p;
}

bool PinnedMemory::release(void* p) {
  std::lock_guard hold(lock_);
  auto it = ranges_.find(reinterpret_cast<uint64_t>(p));
  if (it == ranges_.end() || !it->second.ours) return false;
  ranges_.erase(it);
  ::free(p);
  return true;
}

int PinnedMemory::add(void* p, uint64_t size, bool portable, const Device* d) {
  std::lock_guard hold(lock_);
  uint64_t at = reinterpret_cast<uint64_t>(p);
  auto above = ranges_.lower_bound(at);
  if (above != ranges_.end() && above->first < at + size) return 712;
  if (above != ranges_.begin() && std::prev(above)->first + std::prev(above)->second.size > at) return 712;
  ranges_[at] = {size, portable, false, d};
  return 0;
}

bool PinnedMemory::remove(void* p) {
  std::lock_guard hold(lock_);
  auto it = ranges_.find(reinterpret_cast<uint64_t>(p));
  if (it == ranges_.end() || it->second.ours) return false;
  ranges_.erase(it);
  return true;
}

bool PinnedMemory::holds(const void* p, uint64_t size, const Device* d) {
  std::lock_guard hold(lock_);
  uint64_t at = reinterpret_cast<uint64_t>(p);
  auto it = ranges_.upper_bound(at);
  if (it == ranges_.begin()) return false;
  it--;
  uint64_t from = at - it->first;
  return (it->second.portable || it->second.device == d) && from <= it->second.size && size <= it->second.size - from;
}

}  // namespace sim
