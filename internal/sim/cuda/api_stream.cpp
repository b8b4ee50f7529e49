// Launches, streams, events, graphs.
#include <algorithm>
#include <cstring>

#include "api.h"

using namespace sim;

namespace {

// What the driver refuses about a launch when it is called.
int check_launch(Device& d, const Work& w) {
  const Kernel& k = *w.entry->kernel;
  const char* name = k.name.c_str();
  uint64_t threads = uint64_t{w.block[0]} * w.block[1] * w.block[2];
  if (!threads || !w.grid[0] || !w.grid[1] || !w.grid[2]) return refused(1, "launch of %s: an empty grid or block", name);
  if (threads > 1024 || w.block[2] > 64) return refused(1, "launch of %s: %llu threads in a block", name, static_cast<unsigned long long>(threads));
  if (w.grid[0] > INT32_MAX || w.grid[1] > 65535 || w.grid[2] > 65535) return refused(1, "launch of %s: a grid of (%u,%u,%u) blocks", name, w.grid[0], w.grid[1], w.grid[2]);
  if (threads > k.max_threads) return refused(1, "launch of %s: %llu threads in a block, compiled for %u", name, static_cast<unsigned long long>(threads), k.max_threads);
  if (k.required[0] && !std::equal(w.block, w.block + 3, k.required)) return refused(1, "launch of %s: another shape of blocks than it requires", name);
  if (w.shared > w.entry->max_dynamic) return refused(1, "launch of %s: %u bytes of dynamic shared memory, allowed are %u", name, w.shared, w.entry->max_dynamic);
  if (w.dependent && d.cc() < 90) return refused(801, "launch of %s: dependent launches need compute capability 9.0", name);
  uint64_t resident = static_cast<uint64_t>(d.about.sms) * static_cast<uint64_t>(occupancy(d, k, static_cast<uint32_t>(threads), w.shared));
  if (!resident) return refused(701, "launch of %s: a multiprocessor cannot hold one block of it", name);
  if (w.cooperative && uint64_t{w.grid[0]} * w.grid[1] * w.grid[2] > resident) return refused(720, "launch of %s: the device holds %llu blocks at once", name, static_cast<unsigned long long>(resident));
  return 0;
}

int launch(const Entry* f, Work w, const void* stream, void** params, void** extra) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s || !u->entries.count(f)) return 400;
  w.kind = Work::launch;
  w.entry = f;
  if (int r = check_launch(*u.d, w)) return r;
  if (extra || (!params && !f->kernel->params.empty())) return refused(1, "launch of %s: parameters must be given one by one", f->kernel->name.c_str());
  w.data.resize(f->kernel->param_bytes);
  for (size_t i = 0; i < f->kernel->params.size(); i++) memcpy(&w.data[f->kernel->params[i].offset], params[i], f->kernel->params[i].size);
  return u->queue(*s, std::move(w));
}

}  // namespace

CALL(cuLaunchKernel)(const Entry* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, const void* stream, void** params, void** extra) {
  Work w{};
  w.grid[0] = gx, w.grid[1] = gy, w.grid[2] = gz, w.block[0] = bx, w.block[1] = by, w.block[2] = bz;
  w.shared = shared;
  return launch(f, std::move(w), stream, params, extra);
}

namespace {

struct LaunchAttribute {
  int id, unused;
  union {
    int value;
    char bytes[64];
  };
};

struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  const void* stream;
  const LaunchAttribute* attributes;
  unsigned count;
};
static_assert(sizeof(LaunchAttribute) == 72 && sizeof(LaunchConfig) == 56, "as in cuda.h");

}  // namespace

CALL(cuLaunchKernelEx)(const LaunchConfig* config, const Entry* f, void** params, void** extra) {
  Work w{};
  std::copy(config->grid, config->grid + 3, w.grid);
  std::copy(config->block, config->block + 3, w.block);
  w.shared = config->shared;
  for (unsigned i = 0; i < config->count; i++) {
    const LaunchAttribute& a = config->attributes[i];
    if (a.id == 2) w.cooperative = a.value != 0;
    else if (a.id == 6) w.dependent = a.value != 0;
    else if (a.id != 0) return refused(801, "attribute %d of a launch is not known", a.id);
  }
  return launch(f, std::move(w), config->stream, params, extra);
}

CALL(cuLaunchCooperativeKernel)(const Entry* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, const void* stream, void** params) {
  Work w{};
  w.grid[0] = gx, w.grid[1] = gy, w.grid[2] = gz, w.block[0] = bx, w.block[1] = by, w.block[2] = bz;
  w.shared = shared;
  w.cooperative = true;
  return launch(f, std::move(w), stream, params, nullptr);
}

// --- streams

CALL(cuStreamCreate)(const void** stream, unsigned flags) {
  Use u;
  if (u.code) return u.code;
  if (flags > 1) return 1;
  *stream = u->add_stream(flags == 0);
  return 0;
}

CALL(cuStreamDestroy_v2)(const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s || s->id == 1) return 400;
  if (s->capture) {
    s->capture->joined.erase(s);
    s->capture->open.erase(s);
    s->capture->broken = 901;
  }
  int r = u->drain(*s, s->queued);
  u->forget(s);
  return r;
}

CALL(cuStreamSynchronize)(const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  if (s->capture) return s->capture->broken = refused(900, "waiting for a stream that is captured");
  int r = u->drain(*s, s->queued);
  flush_counts();
  return r;
}

CALL(cuStreamQuery)(const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  return s->queue.empty() ? 0 : 600;
}

CALL(cuStreamWaitEvent)(const void* stream, const void* event, unsigned) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  auto it = u->events.find(event);
  if (!s) return 400;
  if (it == u->events.end()) {
    // of another device: what it stands for runs now
    for (auto& d : devices()) {
      if (d.get() == u.d) continue;
      u.hold.unlock();
      std::lock_guard other(d->lock);
      u.hold = {};
      auto e = d->events.find(event);
      if (e == d->events.end()) return 400;
      return e->second->stream ? d->drain(*e->second->stream, e->second->sequence) : 0;
    }
    return 400;
  }
  Event& e = *it->second;
  if (e.capture) {
    // the waiting stream joins the capture
    std::shared_ptr<Capture> c = e.stream ? e.stream->capture : nullptr;
    if (!c || c.get() != e.capture || (s->capture && s->capture != c)) return 905;
    if (!s->capture) {
      s->capture = c;
      c->joined.insert(s);
    }
    if (s == c->origin && e.sequence == c->works.size()) c->open.erase(e.stream);
    return 0;
  }
  if (s->capture) return s->capture->broken = refused(905, "a captured stream waits for work outside of the capture");
  if (!e.stream) return 0;
  Work w{};
  w.kind = Work::wait;
  w.stream = e.stream;
  w.sequence = e.sequence;
  return u->queue(*s, std::move(w));
}

// --- capture and graphs

CALL(cuStreamBeginCapture_v2)(const void* stream, int mode) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  if (!s || mode < 0 || mode > 2) return s ? 1 : 400;
  if (s->id == 1) return 900;
  if (s->capture) return 1;
  s->capture = std::make_shared<Capture>();
  s->capture->origin = s;
  return 0;
}

CALL(cuStreamEndCapture)(const void* stream, const void** graph) {
  Use u;
  if (u.code) return u.code;
  *graph = nullptr;
  Stream* s = u->stream(stream);
  if (!s) return 400;
  if (!s->capture) return 1;
  auto c = s->capture;
  if (c->origin != s) return 903;
  for (Stream* o : c->joined) o->capture = nullptr;
  s->capture = nullptr;
  if (c->broken) return 901;
  if (!c->open.empty()) return refused(904, "a stream that joined the capture was not waited for");
  auto works = std::make_shared<const Works>(std::move(c->works));
  *graph = works.get();
  u->graphs[works.get()] = works;
  return 0;
}

CALL(cuGraphInstantiateWithFlags)(const void** executable, const void* graph, unsigned long long) {
  Use u;
  if (u.code) return u.code;
  auto it = u->graphs.find(graph);
  if (it == u->graphs.end()) return 400;
  auto copy = std::make_shared<const Works>(*it->second);
  *executable = copy.get();
  u->executables[copy.get()] = copy;
  return 0;
}

CALL(cuGraphLaunch)(const void* executable, const void* stream) {
  Use u;
  if (u.code) return u.code;
  auto it = u->executables.find(executable);
  Stream* s = u->stream(stream);
  if (!s || it == u->executables.end()) return 400;
  Work w{};
  w.kind = Work::graph;
  w.works = it->second;
  return u->queue(*s, std::move(w));
}

CALL(cuGraphDestroy)(const void* graph) {
  Use u;
  if (u.code) return u.code;
  return u->graphs.erase(graph) ? 0 : 400;
}

CALL(cuGraphExecDestroy)(const void* executable) {
  Use u;
  if (u.code) return u.code;
  return u->executables.erase(executable) ? 0 : 400;
}

// --- events

CALL(cuEventCreate)(const void** event, unsigned flags) {
  Use u;
  if (u.code) return u.code;
  if (flags > 3) return 1;
  auto e = std::make_shared<Event>();
  e->device = u.d;
  e->timed = !(flags & 2);
  *event = e.get();
  u->events[e.get()] = e;
  return 0;
}

CALL(cuEventDestroy_v2)(const void* event) {
  Use u;
  if (u.code) return u.code;
  return u->events.erase(event) ? 0 : 400;
}

CALL(cuEventRecord)(const void* event, const void* stream) {
  Use u;
  if (u.code) return u.code;
  Stream* s = u->stream(stream);
  auto it = u->events.find(event);
  if (!s || it == u->events.end()) return 400;
  Event& e = *it->second;
  e.stream = s;
  e.reached = false;
  e.capture = s->capture.get();
  if (e.capture) {
    e.sequence = e.capture->works.size();
    return 0;
  }
  e.sequence = s->queued + 1;
  Work w{};
  w.kind = Work::record;
  w.event = it->second;
  return u->queue(*s, std::move(w));
}

CALL(cuEventSynchronize)(const void* event) {
  Use u;
  if (u.code) return u.code;
  auto it = u->events.find(event);
  if (it == u->events.end()) return 400;
  Event& e = *it->second;
  int r = e.stream && !e.capture ? u->drain(*e.stream, e.sequence) : 0;
  flush_counts();
  return r;
}

CALL(cuEventQuery)(const void* event) {
  Use u;
  if (u.code) return u.code;
  auto it = u->events.find(event);
  if (it == u->events.end()) return 400;
  return !it->second->stream || it->second->reached ? 0 : 600;
}

CALL(cuEventElapsedTime)(float* ms, const void* from, const void* to) {
  Use u;
  if (u.code) return u.code;
  auto a = u->events.find(from), b = u->events.find(to);
  if (a == u->events.end() || b == u->events.end() || !a->second->timed || !b->second->timed) return 400;
  if (!a->second->reached || !b->second->reached) return 600;
  *ms = std::chrono::duration<float, std::milli>(b->second->when - a->second->when).count();
  return 0;
}

CALL(cuEventElapsedTime_v2)(float* ms, const void* from, const void* to) { return cuEventElapsedTime(ms, from, to); }
