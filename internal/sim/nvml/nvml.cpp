// A libnvidia-ml.so.1 for cards described by the environment, as the software
// CUDA device's are: DROVER_SIM_CUDA="name=Sim A,uuid=GPU-...,watts=120;...",
// or DROVER_SIM_NVML in the same words where that is set. Keys:
//   name= uuid= mem=   as there
//   watts= celsius= mhz= limit=   sensors, and the power limit in watts; a card without one says that it has none
//   joules= throttle=  energy taken so far, and the bits of the throttle reasons
//   pcie=4x16          generation and lanes
//   mig=1              the card is in MIG mode
//   fallen=1           the card has fallen off the bus
//   process=77:python:4GiB   a process with memory of the card; may be repeated
//   smi=570.86.10      the driver's version
// Other keys are not its own, and ignored.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum Return { kSuccess = 0, kUninitialized = 1, kInvalid = 2, kNotSupported = 3, kNotFound = 6, kTooSmall = 7, kLost = 15 };

struct Process {
  unsigned pid;
  std::string name;
  uint64_t bytes;
};

struct Card {
  std::string name = "Software CUDA device", uuid;
  uint64_t memory = uint64_t{2} << 30;
  double watts = -1, celsius = -1, mhz = -1, limit = -1, joules = -1, throttle = -1;  // negative: no such sensor
  int generation = 0, lanes = 0;              // 0: no such link
  bool mig = false, lost = false;
  std::vector<Process> processes;
};

struct System {
  std::vector<Card> cards;
  std::string version = "570.86.10";
};

int running;  // nvmlInit calls without their nvmlShutdown

uint64_t size_of(const std::string& s) {
  char* unit;
  double n = strtod(s.c_str(), &unit);
  int shift = *unit == 'K' ? 10 : *unit == 'M' ? 20 : *unit == 'G' ? 30 : 0;
  return static_cast<uint64_t>(n * static_cast<double>(uint64_t{1} << shift));
}

void set(System& s, Card& c, const std::string& key, const std::string& value) {
  const char* text = value.c_str();
  if (key == "name") c.name = value;
  if (key == "uuid") c.uuid = value;
  if (key == "mem") c.memory = size_of(value);
  if (key == "watts") c.watts = atof(text);
  if (key == "celsius") c.celsius = atof(text);
  if (key == "mhz") c.mhz = atof(text);
  if (key == "limit") c.limit = atof(text);
  if (key == "joules") c.joules = atof(text);
  if (key == "throttle") c.throttle = atof(text);
  if (key == "pcie") sscanf(text, "%dx%d", &c.generation, &c.lanes);
  if (key == "mig") c.mig = value == "1";
  if (key == "fallen") c.lost = value == "1";
  if (key == "smi") s.version = value;
  if (key == "process") {
    size_t first = value.find(':'), last = value.rfind(':');
    if (first != value.npos && last > first)
      c.processes.push_back({static_cast<unsigned>(atoi(text)), value.substr(first + 1, last - first - 1), size_of(value.substr(last + 1))});
  }
}

System read() {
  System s;
  const char* described = getenv("DROVER_SIM_NVML");
  if (!described) described = getenv("DROVER_SIM_CUDA");
  std::stringstream cards(described ? described : "");
  for (std::string one; std::getline(cards, one, ';');) {
    Card c;
    std::stringstream pairs(one);
    for (std::string pair; std::getline(pairs, pair, ',');) {
      size_t eq = pair.find('=');
      if (eq != pair.npos) set(s, c, pair.substr(0, eq), pair.substr(eq + 1));
    }
    s.cards.push_back(c);
  }
  if (!described) s.cards.emplace_back();
  return s;
}

const System& system_here() {
  static const System s = read();
  return s;
}

// text copies s into a caller's n bytes.
int text(const std::string& s, char* to, unsigned n) {
  if (!running) return kUninitialized;
  if (s.size() >= n) return kTooSmall;
  memcpy(to, s.c_str(), s.size() + 1);
  return kSuccess;
}

template <class T>
int reading(double value, double scale, T* to) {
  if (!running) return kUninitialized;
  if (value < 0) return kNotSupported;
  *to = static_cast<T>(value * scale);
  return kSuccess;
}

}  // namespace

#define CALL(name) extern "C" int name

CALL(nvmlInit_v2)() { return running++, kSuccess; }
CALL(nvmlShutdown)() { return running ? (running--, kSuccess) : kUninitialized; }
extern "C" const char* nvmlErrorString(int r) { return r == kSuccess ? "Success" : r == kNotSupported ? "Not Supported" : "error of the software NVML"; }

CALL(nvmlSystemGetDriverVersion)(char* to, unsigned n) { return text(system_here().version, to, n); }

CALL(nvmlSystemGetProcessName)(unsigned pid, char* to, unsigned n) {
  for (const Card& c : system_here().cards)
    for (const Process& p : c.processes)
      if (p.pid == pid) return text("/usr/bin/" + p.name, to, n);
  return kNotFound;
}

CALL(nvmlDeviceGetCount_v2)(unsigned* n) { return running ? (*n = system_here().cards.size(), kSuccess) : kUninitialized; }

CALL(nvmlDeviceGetHandleByIndex_v2)(unsigned i, const Card** card) {
  if (!running) return kUninitialized;
  if (i >= system_here().cards.size()) return kInvalid;
  *card = &system_here().cards[i];
  return (*card)->lost ? kLost : kSuccess;
}

CALL(nvmlDeviceGetHandleByUUID)(const char* uuid, const Card** card) {
  if (!running) return kUninitialized;
  for (const Card& c : system_here().cards) {
    if (c.uuid.empty() || (c.uuid != uuid && "GPU-" + c.uuid != uuid)) continue;
    *card = &c;
    return kSuccess;
  }
  return kNotFound;
}

CALL(nvmlDeviceGetName)(const Card* c, char* to, unsigned n) { return text(c->name, to, n); }
CALL(nvmlDeviceGetUUID)(const Card* c, char* to, unsigned n) { return text(c->uuid, to, n); }

CALL(nvmlDeviceGetMemoryInfo)(const Card* c, unsigned long long* total_free_used) {
  if (!running) return kUninitialized;
  uint64_t used = 0;
  for (const Process& p : c->processes) used += p.bytes;
  total_free_used[0] = c->memory;
  total_free_used[1] = c->memory - used;
  total_free_used[2] = used;
  return kSuccess;
}

CALL(nvmlDeviceGetPowerUsage)(const Card* c, unsigned* milliwatts) { return reading(c->watts, 1000, milliwatts); }
CALL(nvmlDeviceGetEnforcedPowerLimit)(const Card* c, unsigned* milliwatts) { return reading(c->limit, 1000, milliwatts); }
CALL(nvmlDeviceGetTemperature)(const Card* c, int, unsigned* celsius) { return reading(c->celsius, 1, celsius); }
CALL(nvmlDeviceGetClockInfo)(const Card* c, int, unsigned* mhz) { return reading(c->mhz, 1, mhz); }
CALL(nvmlDeviceGetTotalEnergyConsumption)(const Card* c, unsigned long long* millijoules) { return reading(c->joules, 1000, millijoules); }
CALL(nvmlDeviceGetCurrentClocksThrottleReasons)(const Card* c, unsigned long long* bits) { return reading(c->throttle, 1, bits); }
CALL(nvmlDeviceGetMaxPcieLinkGeneration)(const Card* c, unsigned* n) { return reading(c->generation ? c->generation : -1, 1, n); }
CALL(nvmlDeviceGetMaxPcieLinkWidth)(const Card* c, unsigned* n) { return reading(c->lanes ? c->lanes : -1, 1, n); }
CALL(nvmlDeviceGetCurrPcieLinkGeneration)(const Card* c, unsigned* n) { return reading(c->generation ? 1 : -1, 1, n); }  // as of an idle card
CALL(nvmlDeviceGetCurrPcieLinkWidth)(const Card* c, unsigned* n) { return reading(c->lanes ? c->lanes : -1, 1, n); }

CALL(nvmlDeviceGetMigMode)(const Card* c, unsigned* now, unsigned* pending) {
  if (!running) return kUninitialized;
  *now = *pending = c->mig;
  return kSuccess;
}

// nvmlProcessInfo_t of the third version.
struct ProcessInfo {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
};

CALL(nvmlDeviceGetComputeRunningProcesses_v3)(const Card* c, unsigned* n, ProcessInfo* to) {
  if (!running) return kUninitialized;
  unsigned room = *n;
  *n = c->processes.size();
  if (room < *n) return kTooSmall;
  for (unsigned i = 0; i < *n; i++) to[i] = {c->processes[i].pid, c->processes[i].bytes, ~0u, ~0u};
  return kSuccess;
}

CALL(nvmlDeviceGetGraphicsRunningProcesses_v3)(const Card*, unsigned* n, ProcessInfo*) { return running ? (*n = 0, kSuccess) : kUninitialized; }
