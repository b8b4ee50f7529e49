#include "counters.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>

#include "options.h"
#include "runtime.h"

namespace metalsim {
namespace {

std::mutex lock;

std::map<std::string, Counts>& kernels() {
  static auto* k = new std::map<std::string, Counts>;
  return *k;
}

}  // namespace

void Counts::add(const Counts& c) {
  dispatches += c.dispatches;
  threadgroups += c.threadgroups;
  threads += c.threads;
  barriers += c.barriers;
  multiplies += c.multiplies;
  for (unsigned i = 0; i < max_buffers; i++) {
    buffers[i].read += c.buffers[i].read;
    buffers[i].written += c.buffers[i].written;
    buffers[i].distinct_read += c.buffers[i].distinct_read;
    buffers[i].distinct_written += c.buffers[i].distinct_written;
  }
}

void count(const std::string& kernel, const Counts& c) {
  std::lock_guard hold(lock);
  kernels()[kernel].add(c);
}

void write_counts() {
  if (options().counts.empty()) return;
  std::lock_guard hold(lock);
  std::string part = options().counts + "." + std::to_string(getpid());
  FILE* f = fopen(part.c_str(), "w");
  if (!f) {
    fprintf(stderr, "metalsim: cannot write %s\n", part.c_str());
    return;
  }
  auto n = [](uint64_t v) { return static_cast<unsigned long long>(v); };
  fprintf(f, "{\"messages\":%llu}\n", n(messages()));
  for (auto& k : kernels()) {
    const Counts& c = k.second;
    fprintf(f, "{\"kernel\":\"%s\",\"dispatches\":%llu,\"threadgroups\":%llu,\"threads\":%llu,\"barriers\":%llu,\"multiplies\":%llu,\"buffers\":[", k.first.c_str(), n(c.dispatches),
            n(c.threadgroups), n(c.threads), n(c.barriers), n(c.multiplies));
    const char* comma = "";
    for (unsigned i = 0; i < max_buffers; i++) {
      auto& b = c.buffers[i];
      if (!b.read && !b.written) continue;
      fprintf(f, "%s{\"index\":%u,\"read\":%llu,\"written\":%llu,\"distinct_read\":%llu,\"distinct_written\":%llu}", comma, i, n(b.read), n(b.written), n(b.distinct_read),
              n(b.distinct_written));
      comma = ",";
    }
    fprintf(f, "]}\n");
  }
  if (fclose(f) || rename(part.c_str(), options().counts.c_str())) fprintf(stderr, "metalsim: cannot write %s\n", options().counts.c_str());
}

}  // namespace metalsim
