#include "options.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <thread>

namespace metalsim {
namespace {

bool size_of(const std::string& s, uint64_t& n) {
  char* unit;
  double v = strtod(s.c_str(), &unit);
  std::string u = unit;
  uint64_t scale = u.empty() || u == "B" ? 1 : u == "KiB" ? 1 << 10 : u == "MiB" ? 1 << 20 : u == "GiB" ? 1 << 30 : 0;
  n = static_cast<uint64_t>(v * static_cast<double>(scale));
  return scale != 0 && v > 0;
}

bool set_check(Options& o, const std::string& name) {
  bool all = name == "1", known = all || name.empty() || name == "0";
  auto is = [&](const char* one) {
    known |= name == one;
    return all || name == one;
  };
  o.check_races |= is("races");
  o.check_threadgroup |= is("threadgroup");
  o.check_convergence |= is("convergence");
  return known;
}

Options read() {
  Options o;
  auto env = [](const char* name) {
    const char* v = getenv((std::string("DROVER_METALSIM_") + name).c_str());
    return std::string(v ? v : "");
  };
  auto refuse = [&](const char* name) { o.error = std::string("DROVER_METALSIM_") + name + ": cannot read \"" + env(name) + "\""; };
  if (!env("NAME").empty()) o.name = env("NAME");
  if (!env("COMPILER").empty()) o.compiler = env("COMPILER");
  if (std::string f = env("FAMILY"); !f.empty()) {
    if (f.size() == 6 && f.rfind("apple", 0) == 0 && f[5] > '0' && f[5] <= '9') o.family = f[5] - '0';
    else refuse("FAMILY");
  }
  o.bfloat = env("BFLOAT") != "0" && o.family >= 6;
  if (!env("MEMORY").empty() && !size_of(env("MEMORY"), o.memory)) refuse("MEMORY");
  std::stringstream checks(env("CHECK"));
  for (std::string one; std::getline(checks, one, ',');)
    if (!set_check(o, one)) refuse("CHECK");
  o.order = strtoull(env("ORDER").c_str(), nullptr, 10);
  o.layout = strtoull(env("LAYOUT").c_str(), nullptr, 10);
  if (std::string f = env("FAIL"); !f.empty()) {
    size_t equals = f.find('=');
    o.fail_number = strtoull(f.c_str(), nullptr, 10);
    if (equals != f.npos) o.fail_code = strtoull(f.c_str() + equals + 1, nullptr, 10);
    if (!o.fail_number || !o.fail_code) refuse("FAIL");
  }
  o.counts = env("COUNTS");
  int threads = atoi(env("THREADS").c_str());
  o.threads = threads > 0 ? static_cast<unsigned>(threads) : std::thread::hardware_concurrency();
  if (o.threads < 1) o.threads = 1;
  if (int seconds = atoi(env("TIMEOUT").c_str()); seconds > 0) o.timeout = seconds;
  o.cache = env("CACHE");
  if (o.cache.empty()) {
    const char* tmp = getenv("TMPDIR");
    o.cache = std::string(tmp && *tmp ? tmp : "/tmp") + "/metalsim-" + std::to_string(getuid());
  }
  return o;
}

}  // namespace

const Options& options() {
  static const Options* o = new Options(read());
  return *o;
}

}  // namespace metalsim
