// A threadgroup: its memory, and its threads, which run in turns from one
// meeting to the next.
#include "group.h"

#include <signal.h>

#include <cstring>
#include <numeric>

#include "matrix.h"
#include "options.h"
#include "runtime.h"

namespace metalsim {
namespace {

constexpr uint64_t gap = 64;  // between parts of threadgroup memory

Room& room() {
  static thread_local Room r;
  return r;
}

void start() {
  Fiber* f = current_fiber();
  f->group->dispatch().kernel->entry();
  f->state = Fiber::returned;
  f->group->wait(*f);
}

// A fault of the processor ends the fiber here.
void faulted() {
  Fiber* f = current_fiber();
  if (fault.signal == timeout_signal()) f->group->stop(*f, "it runs longer than " + std::to_string(options().timeout) + " s", nullptr, 2);
  std::string what = fault.signal == SIGFPE ? "division of an integer by zero" : fault.signal == SIGILL ? "code that cannot be reached" : "";
  char text[64];
  snprintf(text, sizeof text, "access to address 0x%lx", fault.address);
  if (fault.general) what = "misaligned access of a vector, or an address far from any memory";
  if (what.empty()) what = fault.address - f->thread.stack < 4096 ? "stack overflow: recursion, or variables that are too large" : text;
  f->group->stop(*f, what, nullptr);
}

const char* meeting_name(const Fiber& f) {
  if (f.state == Fiber::at_threadgroup) return "threadgroup_barrier";
  return f.meeting == Fiber::barrier ? "simdgroup_barrier" : f.meeting == Fiber::exchange ? "a simdgroup function" : "a simdgroup matrix product";
}

std::string xyz(const unsigned v[3]) { return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) + ")"; }

}  // namespace

Group::Group(const Dispatch& d) : races(room().races), written(room().written), dispatch_(d), room_(room()), fibers_(room_.fibers), random_(options().order) {
  catch_faults(faulted);
  unsigned most = d.threads[0] * d.threads[1] * d.threads[2];
  room_.stacks.reserve(most);
  if (fibers_.size() < most) fibers_.resize(most);
  simdgroups_.reset(new Simdgroup[(most + 31) / 32]);
  matrix_layout(options().layout, layout_);
  watched_ = !options().counts.empty() || options().check_races || options().check_threadgroup || options().check_convergence || d.concurrent;
  lay_out();
}

// Where everything lies that the kernel may use.
void Group::lay_out() {
  auto add = [&](uint64_t at, uint64_t size, Place p) {
    if (!size) return;
    ranges_.push_back({at, size});
    places_.push_back(std::move(p));
  };
  for (unsigned i = 0; i < max_buffers; i++) {
    const Argument& a = dispatch_.arguments[i];
    buffers_[i] = 0;
    if (a.memory) {
      auto base = reinterpret_cast<uint64_t>(a.memory->contents);
      buffers_[i] = base + a.offset;
      add(base, a.memory->length, {Place::buffer, i, a.memory->label, a.memory.get()});
    } else if (a.bytes) {
      buffers_[i] = reinterpret_cast<uint64_t>(a.bytes->data());
      add(buffers_[i], a.bytes->size(), {Place::bytes, i, "", nullptr});
    }
  }
  uint64_t size = gap + dispatch_.program->variables_size + gap;
  for (uint64_t m : dispatch_.memories) size += m ? m + gap : 0;
  if (room_.arena.size() < size + gap) room_.arena.resize(size + gap);
  arena_ = (reinterpret_cast<uint64_t>(room_.arena.data()) + gap - 1) / gap * gap;
  arena_size_ = size;
  for (auto& v : dispatch_.kernel->variables) add(arena_ + gap + v.offset, v.size, {Place::variable, 0, v.name, nullptr});
  uint64_t at = (arena_ + gap + dispatch_.program->variables_size + gap + 15) / 16 * 16;
  for (unsigned i = 0; i < max_buffers; i++) {
    memories_[i] = dispatch_.memories[i] ? at : 0;
    add(at, dispatch_.memories[i], {Place::memory, i, "", nullptr});
    if (dispatch_.memories[i]) at += dispatch_.memories[i] + gap - 16;
  }
  for (auto& c : dispatch_.program->constants) add(c.begin, c.size, {Place::constants, 0, "", nullptr});
  ranges_.push_back({0, 0});
}

void Group::begin(const unsigned position[3]) {
  const Dispatch& d = dispatch_;
  unsigned actual[3];
  for (int i = 0; i < 3; i++) actual[i] = std::min(d.threads[i], d.grid[i] - position[i] * d.threads[i]);
  count_ = actual[0] * actual[1] * actual[2];
  simdgroup_count_ = (count_ + 31) / 32;
  for (unsigned s = 0; s < simdgroup_count_; s++) {
    simdgroups_[s].first = 32 * s;
    simdgroups_[s].size = std::min(32u, count_ - 32 * s);
    simdgroups_[s].parity = 0;
  }
  for (unsigned i = 0; i < count_; i++) {
    Fiber& f = fibers_[i];
    Thread& t = f.thread;
    t.position[0] = i % actual[0];
    t.position[1] = i / actual[0] % actual[1];
    t.position[2] = i / actual[0] / actual[1];
    for (int k = 0; k < 3; k++) t.group[k] = position[k], t.size[k] = d.threads[k], t.actual[k] = actual[k], t.groups[k] = d.groups[k], t.grid[k] = d.grid[k];
    t.index = i;
    t.lane = i % 32;
    t.simdgroup = i / 32;
    t.simdgroups = simdgroup_count_;
    t.watched = watched_;
    t.ranges = ranges_.data();
    t.buffers = buffers_;
    t.memories = memories_;
    t.variables = arena_ + gap;
    t.layout = layout_;
    f.group = this;
    f.state = Fiber::ready;
    prepare(f, room_.stacks.base(i), start);
  }
  for (size_t i = 0; i < places_.size(); i++)
    if (places_[i].kind == Place::variable || places_[i].kind == Place::memory) memset(reinterpret_cast<void*>(ranges_[i].begin), 0xff, ranges_[i].size);
  if (options().check_races) races.begin(arena_, arena_size_);
  if (options().check_threadgroup) written.begin(arena_, arena_size_);
  counts.threadgroups++;
  counts.threads += count_;
}

bool Group::run(const unsigned position[3]) {
  begin(position);
  while (true) {
    unsigned turn = options().order ? static_cast<unsigned>(random() % simdgroup_count_) : 0;
    for (unsigned i = 0; i < simdgroup_count_; i++)
      if (!run_simdgroup(simdgroups_[(i + turn) % simdgroup_count_])) return false;
    bool waiting = false;
    for (unsigned i = 0; i < count_; i++) waiting |= fibers_[i].state != Fiber::returned;
    if (!waiting) return true;
    if (!release_barrier()) return false;
  }
}

// Runs the lanes until all have returned or wait at a barrier of the threadgroup.
bool Group::run_simdgroup(Simdgroup& s) {
  while (true) {
    bool descend = options().order && random() % 2;
    bool meeting = false;
    for (unsigned i = 0; i < s.size; i++) {
      Fiber& f = fibers_[s.first + (descend ? s.size - 1 - i : i)];
      if (f.state != Fiber::ready) continue;
      running = &f;
      metalsim_switch(&scheduler_, f.top);
      running = nullptr;
      if (failure.code) return false;
      meeting |= f.state == Fiber::at_simdgroup;
    }
    if (!meeting) return true;
    if (!meet(s)) return false;
  }
}

// All lanes have come as far as they can, and some want to meet: all that have
// not returned must be at the same place.
bool Group::meet(Simdgroup& s) {
  Fiber* one = nullptr;
  unsigned active = 0;
  for (unsigned i = 0; i < s.size; i++) {
    Fiber& f = fibers_[s.first + i];
    if (f.state == Fiber::returned) continue;
    active |= 1u << i;
    if (!one || one->state != Fiber::at_simdgroup) one = &f;
  }
  unsigned all = s.size == 32 ? ~0u : (1u << s.size) - 1;
  for (unsigned i = 0; i < s.size; i++) {
    Fiber& f = fibers_[s.first + i];
    bool gone = f.state == Fiber::returned;
    if (gone && one->meeting == Fiber::exchange) continue;
    if (gone) return fail(f, std::string("divergent: it has returned, lane ") + std::to_string(one->thread.lane) + " waits at " + meeting_name(*one), one->site);
    if (f.state != one->state || f.site != one->site)
      return fail(f, std::string("divergent: it waits at ") + meeting_name(f) + ", lane " + std::to_string(one->thread.lane) + " at " +
                         (f.state == one->state && f.meeting == one->meeting ? "another such call" : meeting_name(*one)),
                  f.site);
  }
  if (one->meeting == Fiber::multiply) {
    if (all != ~0u) return fail(*one, "a simdgroup matrix product of less than 32 threads", one->site);
    multiply(s);
    counts.multiplies++;
  }
  if (one->meeting == Fiber::barrier && one->flags & 2 && options().check_races) races.simdgroup_barrier(one->thread.simdgroup);
  s.parity ^= 1;
  for (unsigned i = 0; i < s.size; i++) {
    Fiber& f = fibers_[s.first + i];
    if (f.state == Fiber::returned) continue;
    f.thread.active = active;
    f.state = Fiber::ready;
  }
  return true;
}

void Group::multiply(Simdgroup& s) {
  float a[64], b[64], c[64] = {}, d[64];
  for (unsigned lane = 0; lane < 32; lane++) {
    auto& o = fibers_[s.first + lane].operands;
    for (unsigned i = 0; i < 2; i++) {
      unsigned e = layout_[2 * lane + i];
      a[e] = load_element(o.a, i, o.kind_a);
      b[e] = load_element(o.b, i, o.kind_b);
      if (o.c) c[e] = load_element(o.c, i, o.kind_c);
    }
  }
  matrix_product(d, a, b, c);
  for (unsigned lane = 0; lane < 32; lane++) {
    auto& o = fibers_[s.first + lane].operands;
    for (unsigned i = 0; i < 2; i++) store_element(o.d, i, o.kind_d, d[layout_[2 * lane + i]]);
  }
}

// Every thread has returned or waits at a barrier of the threadgroup.
bool Group::release_barrier() {
  Fiber* one = nullptr;
  for (unsigned i = 0; i < count_ && !one; i++)
    if (fibers_[i].state == Fiber::at_threadgroup) one = &fibers_[i];
  for (unsigned i = 0; i < count_; i++) {
    Fiber& f = fibers_[i];
    if (f.state == Fiber::returned) return fail(f, "divergent: it has returned, thread " + xyz(one->thread.position) + " waits at threadgroup_barrier", one->site);
    if (f.site != one->site) return fail(f, "divergent: it waits at another threadgroup_barrier than thread " + xyz(one->thread.position), f.site);
  }
  if (one->flags & 2) races.barrier();
  counts.barriers++;
  for (unsigned i = 0; i < count_; i++) fibers_[i].state = Fiber::ready;
  return true;
}

bool Group::fail(const Fiber& f, const std::string& why, const void* site) {
  std::string line = site ? dispatch_.program->line(site) : "";
  failure = {3, "kernel " + dispatch_.kernel->name + ", threadgroup " + xyz(f.thread.group) + ", thread " + xyz(f.thread.position) + (line.empty() ? "" : ", " + line) + ": " + why};
  return false;
}

void Group::stop(Fiber& f, const std::string& why, const void* site, int64_t code) {
  running = nullptr;
  fail(f, why, site);
  failure.code = code;
  wait(f);
  fatal("a thread runs after its end");
}

}  // namespace metalsim

using namespace metalsim;

extern "C" {

void metalsim_threadgroup_barrier(int flags, const void* site) {
  Fiber& f = *current_fiber();
  f.state = Fiber::at_threadgroup;
  f.site = site;
  f.flags = flags;
  f.group->wait(f);
}

void metalsim_simdgroup_barrier(int flags, const void* site) {
  Fiber& f = *current_fiber();
  f.state = Fiber::at_simdgroup;
  f.meeting = Fiber::barrier;
  f.site = site;
  f.flags = flags;
  f.group->wait(f);
}

const void* metalsim_exchange(const void* value, unsigned long size, const void* site) {
  Fiber& f = *current_fiber();
  char* slots = static_cast<char*>(f.group->slots(f));
  memcpy(slots + slot_size * f.thread.lane, value, size);
  f.state = Fiber::at_simdgroup;
  f.meeting = Fiber::exchange;
  f.site = site;
  f.group->wait(f);
  return slots;
}

void metalsim_matrix_multiply(void* d, int kind_d, const void* a, int kind_a, const void* b, int kind_b, const void* c, int kind_c, const void* site) {
  Fiber& f = *current_fiber();
  f.operands = {d, a, b, c, kind_d, kind_a, kind_b, kind_c};
  f.state = Fiber::at_simdgroup;
  f.meeting = Fiber::multiply;
  f.site = site;
  f.group->wait(f);
}

}  // extern "C"
