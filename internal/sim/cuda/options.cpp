// DROVER_SIM_CUDA="name=Sim A,cc=8.0,mem=2GiB;name=Sim B,cc=9.0,mem=512MiB"
#include "options.h"

#include <cstdlib>
#include <sstream>
#include <thread>

namespace sim {
namespace {

bool size_of(const std::string& s, uint64_t& n) {
  char* unit;
  double v = strtod(s.c_str(), &unit);
  std::string u = unit;
  uint64_t scale = u.empty() || u == "B" ? 1 : u == "KiB" ? 1 << 10 : u == "MiB" ? 1 << 20 : u == "GiB" ? 1 << 30 : 0;
  n = static_cast<uint64_t>(v * static_cast<double>(scale));
  return scale != 0 && v > 0;
}

bool set(Options& o, Described& d, const std::string& key, const std::string& value) {
  uint64_t n;
  if (key == "name") {
    d.name = value;
  } else if (key == "cc") {
    size_t dot = value.find('.');
    if (dot == value.npos) return false;
    d.major = atoi(value.c_str());
    d.minor = atoi(value.c_str() + dot + 1);
    return d.major > 0;
  } else if (key == "mem") {
    return size_of(value, d.memory);
  } else if (key == "sms") {
    d.sms = atoi(value.c_str());
    return d.sms > 0;
  } else if (key == "l2") {
    if (!size_of(value, n)) return false;
    d.l2 = static_cast<int>(n);
  } else if (key == "oom" || key == "gone") {
    int& number = key == "oom" ? d.oom : d.gone;
    number = atoi(value.c_str());
    return number > 0;
  } else if (key == "lost") {
    d.lost = static_cast<uint32_t>(atoi(value.c_str()));
    return d.lost > 0;
  } else if (key == "uuid") {
    d.uuid = value;
  } else if (key == "driver") {
    o.driver = atoi(value.c_str());
    return o.driver > 0;
  } else {
    // of the stand-in for NVML
    for (const char* other : {"watts", "celsius", "mhz", "limit", "pcie", "mig", "process", "smi"})
      if (key == other) return true;
    return false;
  }
  return true;
}

bool set_check(Options& o, const std::string& name) {
  bool all = name == "1", known = all || name.empty() || name == "0";
  auto is = [&](const char* one) {
    known |= name == one;
    return all || name == one;
  };
  o.check_shared |= is("shared");
  o.check_races |= is("races") || o.check_shared;
  o.check_global |= is("global");
  o.check_registers |= is("registers");
  o.check_order |= is("order");
  return known;
}

Options read() {
  Options o;
  auto env = [](const char* name) {
    const char* v = getenv(name);
    return std::string(v ? v : "");
  };
  std::string described = env("DROVER_SIM_CUDA");
  if (described.empty()) o.devices.emplace_back();
  std::stringstream devices(described);
  for (std::string one; described != "none" && std::getline(devices, one, ';');) {
    Described d;
    std::stringstream pairs(one);
    for (std::string pair; std::getline(pairs, pair, ',');) {
      size_t eq = pair.find('=');
      if (eq == pair.npos || !set(o, d, pair.substr(0, eq), pair.substr(eq + 1))) o.error = "DROVER_SIM_CUDA: cannot read \"" + pair + "\"";
    }
    o.devices.push_back(d);
  }
  std::string threads = env("DROVER_SIM_THREADS");
  o.threads = threads.empty() ? static_cast<int>(std::thread::hardware_concurrency()) : atoi(threads.c_str());
  if (o.threads < 1) o.threads = 1;
  if (int seconds = atoi(env("DROVER_SIM_TIMEOUT").c_str()); seconds > 0) o.timeout = seconds;
  std::stringstream checks(env("DROVER_SIM_CHECK"));
  for (std::string one; std::getline(checks, one, ',');)
    if (!set_check(o, one)) o.error = "DROVER_SIM_CHECK: unknown check \"" + one + "\"";
  o.check = o.check_global || o.check_order;
  o.counts_file = env("DROVER_SIM_COUNTS");
  o.count = !o.counts_file.empty();
  o.memory_file = env("DROVER_SIM_MEMORY");
  o.order = strtoull(env("DROVER_SIM_ORDER").c_str(), nullptr, 10);
  return o;
}

}  // namespace

const Options& options() {
  static const Options o = read();
  return o;
}

}  // namespace sim
