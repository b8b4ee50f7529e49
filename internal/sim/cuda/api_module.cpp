// Modules: PTX text in, kernels out; what is known of a kernel.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "api.h"
#include "decode.h"

using namespace sim;

namespace {

// The newest PTX that a driver of the version takes.
int newest_ptx(int driver) {
  static constexpr int releases[][2] = {{13000, 90}, {12090, 88}, {12080, 87}, {12060, 85}, {12050, 85}, {12040, 84}, {12030, 83}, {12020, 82},
                                        {12010, 81}, {12000, 80}, {11080, 78}, {11070, 77}, {11060, 76}, {11050, 75}, {11040, 74}};
  for (auto& r : releases)
    if (driver >= r[0]) return r[1];
  return 73;
}

std::string version(int v) { return std::to_string(v / 10) + "." + std::to_string(v % 10); }

void place_globals(Device& d, Loaded& m) {
  for (auto& v : m.module.text.variables) {
    if (v.space != Space::global) continue;
    Global g{std::string(v.name), v.size};
    g.address = d.memory.allocate(std::max<uint64_t>(v.size, 1), false);
    if (const Range* r = d.memory.find(g.address, v.size)) {
      memset(r->host, 0, v.size);
      std::copy(v.init.begin(), v.init.end(), r->host);
      d.memory.mark_written(g.address, v.size, 0);
    }
    m.module.globals[g.name] = g;
  }
}

void release_globals(Device& d, Loaded& m) {
  for (auto& g : m.module.globals) d.memory.release(g.second.address);
}

void say(const std::string& what, unsigned n, const int* options, void** values) {
  char* log = nullptr;
  size_t size = 0;
  for (unsigned i = 0; i < n; i++) {
    if (options[i] == 5) log = static_cast<char*>(values[i]);
    if (options[i] == 6) size = reinterpret_cast<size_t>(values[i]);
  }
  if (log && size) snprintf(log, size, "%s\n", what.c_str());
}

}  // namespace

CALL(cuModuleLoadDataEx)(Loaded** module, const char* image, unsigned n, const int* jit, void** values) {
  Device* d;
  {
    Use u;
    if (u.code) return u.code;
    d = u.d;
  }
  if (!image) return 1;
  if (!memcmp(image, "\177ELF", 4)) return refused(200, "a module must be PTX, this is machine code");
  auto m = std::make_unique<Loaded>();
  m->module.text.source = image;
  try {
    parse(m->module.text);
    const Text& t = m->module.text;
    if (!t.version || !t.target) throw Refused{1, ".version or .target is missing"};
    if (int newest = newest_ptx(options().driver); t.version > newest)
      throw Refused{1, "PTX .version " + version(t.version) + " is too new: this driver takes " + version(newest), 222};
    check_target(t, d->cc());
    {
      std::lock_guard hold(d->lock);
      place_globals(*d, *m);
    }
    decode(m->module);
  } catch (Refused& r) {
    say("line " + std::to_string(r.line) + ": error: " + r.what, n, jit, values);
    std::lock_guard hold(d->lock);
    release_globals(*d, *m);
    return r.code;
  }
  std::lock_guard hold(d->lock);
  for (auto& k : m->module.kernels) {
    Entry& e = m->entries[k.first];
    e = {m.get(), k.second.get(), shared_without_leave > k.second->shared_bytes ? shared_without_leave - k.second->shared_bytes : 0};
    d->entries[&e] = m.get();
  }
  *module = m.get();
  d->modules[m.get()] = std::move(m);
  return 0;
}

CALL(cuModuleLoadData)(Loaded** module, const char* image) { return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr); }

CALL(cuModuleUnload)(const void* module) {
  Use u;
  if (u.code) return u.code;
  auto it = u->modules.find(module);
  if (it == u->modules.end()) return 400;
  if (int r = u->drain_all()) return r;
  for (auto& e : it->second->entries) u->entries.erase(&e.second);
  release_globals(*u.d, *it->second);
  u->modules.erase(it);
  return 0;
}

CALL(cuModuleGetFunction)(const Entry** function, const void* module, const char* name) {
  Use u;
  if (u.code) return u.code;
  auto it = u->modules.find(module);
  if (it == u->modules.end()) return 400;
  auto e = it->second->entries.find(name);
  if (e == it->second->entries.end()) return 500;
  *function = &e->second;
  return 0;
}

CALL(cuModuleGetGlobal_v2)(uint64_t* address, size_t* size, const void* module, const char* name) {
  Use u;
  if (u.code) return u.code;
  auto it = u->modules.find(module);
  if (it == u->modules.end()) return 400;
  auto g = it->second->module.globals.find(name);
  if (g == it->second->module.globals.end()) return 500;
  if (address) *address = g->second.address;
  if (size) *size = g->second.size;
  return 0;
}

CALL(cuFuncGetAttribute)(int* value, int which, const Entry* f) {
  Use u;
  if (u.code) return u.code;
  if (!u->entries.count(f)) return 400;
  const Kernel& k = *f->kernel;
  switch (which) {
    case 0: *value = static_cast<int>(k.max_threads); break;
    case 1: *value = static_cast<int>(k.shared_bytes); break;
    case 2: *value = static_cast<int>(k.const_bytes); break;
    case 3: *value = static_cast<int>(k.local_bytes); break;
    case 4: *value = registers_of(k); break;
    case 5: *value = k.text->version; break;
    case 6: *value = u->cc(); break;
    case 8: *value = static_cast<int>(f->max_dynamic); break;
    default: return refused(1, "attribute %d of a kernel is not known", which);
  }
  return 0;
}

CALL(cuFuncSetAttribute)(Entry* f, int which, int value) {
  Use u;
  if (u.code) return u.code;
  if (!u->entries.count(f)) return 400;
  if (which == 9) return 0;  // a wish for how L1 and shared memory divide their room
  if (which != 8) return refused(1, "attribute %d of a kernel cannot be set", which);
  uint32_t most = limits(u->cc()).shared_block;
  if (value < 0 || static_cast<uint64_t>(value) + f->kernel->shared_bytes > most)
    return refused(1, "%s: %d bytes of dynamic and %u of static shared memory are more than the %u that a block may have", f->kernel->name.c_str(), value, f->kernel->shared_bytes, most);
  f->max_dynamic = static_cast<uint32_t>(value);
  return 0;
}

CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor)(int* blocks, const Entry* f, int threads, size_t dynamic) {
  Use u;
  if (u.code) return u.code;
  if (!u->entries.count(f)) return 400;
  if (threads < 1 || static_cast<unsigned>(threads) > f->kernel->max_threads) return *blocks = 0, threads < 1;
  *blocks = occupancy(*u.d, *f->kernel, static_cast<uint32_t>(threads), dynamic);
  return 0;
}
