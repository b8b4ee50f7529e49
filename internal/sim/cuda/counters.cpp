// The file of counts: a line of JSON for each kernel. It is written anew at each
// wait, since a process may end without a word to its libraries.
#include "counters.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>

#include "options.h"

namespace sim {
namespace {

struct File {
  std::mutex lock;
  std::map<std::string, Counts> kernels;
  bool changed = false;

  void write() {
    std::lock_guard hold(lock);
    if (!changed) return;
    changed = false;
    std::string path = options().counts_file, part = path + "." + std::to_string(getpid());
    FILE* f = fopen(part.c_str(), "w");
    if (!f) {
      fprintf(stderr, "software CUDA device: cannot write %s\n", part.c_str());
      return;
    }
    for (auto& k : kernels) {
      const Counts& c = k.second;
      auto n = [](uint64_t v) { return static_cast<unsigned long long>(v); };
      fprintf(f, "{\"kernel\":\"%s\",\"launches\":%llu,\"instructions\":%llu,\"barriers\":%llu,\"mma\":%llu,\"macs\":%llu,", k.first.c_str(), n(c.launches),
              n(c.instructions), n(c.barriers), n(c.mma), n(c.macs));
      fprintf(f, "\"sectors_read\":%llu,\"sectors_written\":%llu,\"distinct_read\":%llu,\"distinct_write\":%llu,\"bytes_read\":[%llu,%llu,%llu,%llu,%llu]}\n",
              n(c.sectors_read), n(c.sectors_written), n(c.distinct_read), n(c.distinct_written), n(c.bytes_read[0]), n(c.bytes_read[1]), n(c.bytes_read[2]),
              n(c.bytes_read[3]), n(c.bytes_read[4]));
    }
    if (fclose(f) || rename(part.c_str(), path.c_str())) fprintf(stderr, "software CUDA device: cannot write %s\n", path.c_str());
  }
};

File& file() {
  static auto* f = new File;
  return *f;
}

struct AtEnd {
  ~AtEnd() { flush_counts(); }
} at_end;

}  // namespace

void Counts::add(const Counts& c) {
  launches += c.launches;
  instructions += c.instructions;
  barriers += c.barriers;
  mma += c.mma;
  macs += c.macs;
  sectors_read += c.sectors_read;
  sectors_written += c.sectors_written;
  distinct_read += c.distinct_read;
  distinct_written += c.distinct_written;
  for (int i = 0; i < 5; i++) bytes_read[i] += c.bytes_read[i];
}

void count_launch(const std::string& kernel, const Counts& c) {
  std::lock_guard hold(file().lock);
  file().kernels[kernel].add(c);
  file().changed = true;
}

void flush_counts() {
  if (options().count) file().write();
}

}  // namespace sim
