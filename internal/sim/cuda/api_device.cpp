// Starting, devices, contexts, the words of errors.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "api.h"
#include "counters.h"

namespace sim {
namespace {

bool started;
thread_local Device* now;

// As the driver reads it: numbers or beginnings of UUIDs; what is behind an
// unknown one is not shown either.
std::vector<int> visible(const std::vector<std::string>& uuids) {
  std::vector<int> shown;
  const char* list = getenv("CUDA_VISIBLE_DEVICES");
  if (!list) {
    for (size_t n = 0; n < uuids.size(); n++) shown.push_back(static_cast<int>(n));
    return shown;
  }
  for (std::string rest = list; !rest.empty();) {
    size_t comma = rest.find(',');
    std::string one = rest.substr(0, comma);
    rest = comma == rest.npos ? "" : rest.substr(comma + 1);
    one.erase(0, one.find_first_not_of(' '));
    int n = -1;
    if (!one.empty() && one.find_first_not_of("0123456789") == one.npos) n = atoi(one.c_str());
    for (size_t k = 0; n < 0 && k < uuids.size(); k++)
      if (one.size() > 4 && uuids[k].rfind(one, 0) == 0) n = static_cast<int>(k);
    if (n < 0 || n >= static_cast<int>(uuids.size())) break;
    shown.push_back(n);
  }
  return shown;
}

// The 16 bytes of GPU-01234567-89ab-..., or of our own making from the number.
void uuid_bytes(const Described& d, int number, unsigned char* to) {
  memcpy(to, "drover software", 15);
  to[15] = static_cast<unsigned char>(number);
  int n = 0;
  for (size_t at = d.uuid.find('-'); at != d.uuid.npos && at < d.uuid.size() && n < 32; at++) {
    const char* digits = "0123456789abcdef";
    const char* digit = strchr(digits, d.uuid[at] | 0x20);
    if (!d.uuid[at] || !digit || d.uuid[at] == '-') continue;
    auto v = static_cast<unsigned char>(digit - digits);
    to[n / 2] = n % 2 ? static_cast<unsigned char>(to[n / 2] << 4 | v) : v;
    n++;
  }
}

std::vector<std::unique_ptr<Device>> make_devices() {
  std::vector<std::string> uuids;
  for (auto& d : options().devices) {
    unsigned char b[16];
    uuid_bytes(d, static_cast<int>(uuids.size()), b);
    std::string s = "GPU-";
    for (int i = 0; i < 16; i++) {
      char hex[4];
      snprintf(hex, sizeof hex, "%02x", b[i]);
      s += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(hex);
    }
    uuids.push_back(s);
  }
  std::vector<std::unique_ptr<Device>> all;
  for (int n : visible(uuids)) all.push_back(std::make_unique<Device>(options().devices[static_cast<size_t>(n)], n));
  return all;
}

}  // namespace

const std::vector<std::unique_ptr<Device>>& devices() {
  static auto* all = new std::vector<std::unique_ptr<Device>>(make_devices());
  return *all;
}

bool initialized() { return started; }
Device* current() { return now; }
void set_current(Device* d) { now = d; }

Device* device_number(int n) {
  if (!started || n < 0 || n >= static_cast<int>(devices().size())) return nullptr;
  return devices()[static_cast<size_t>(n)].get();
}

int refused(int code, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fprintf(stderr, "software CUDA device: %s\n", text);
  return code;
}

void drain_everything() {
  for (auto& d : devices()) {
    std::lock_guard hold(d->lock);
    d->drain_all();
  }
}

}  // namespace sim

using namespace sim;

// How drover tells this library from a driver.
extern "C" const int drover_simulated = 1;

CALL(cuInit)(unsigned flags) {
  if (flags) return 1;
  if (!options().error.empty()) return refused(999, "%s", options().error.c_str());
  if (devices().empty()) return 100;
  started = true;
  return 0;
}

CALL(cuDriverGetVersion)(int* version) { return *version = options().driver, 0; }
CALL(cuDeviceGetCount)(int* count) { return *count = static_cast<int>(devices().size()), started ? 0 : 3; }
CALL(cuDeviceGet)(int* device, int n) { return *device = n, started ? device_number(n) ? 0 : 101 : 3; }

CALL(cuDeviceGetName)(char* name, int n, int device) {
  Device* d = device_number(device);
  if (!d) return 101;
  snprintf(name, static_cast<size_t>(n), "%s", d->about.name.c_str());
  return 0;
}

CALL(cuDeviceGetUuid_v2)(unsigned char* uuid, int device) {
  Device* d = device_number(device);
  if (!d) return 101;
  uuid_bytes(d->about, d->ordinal, uuid);
  return 0;
}

CALL(cuDeviceGetUuid)(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

CALL(cuDeviceTotalMem_v2)(size_t* bytes, int device) {
  Device* d = device_number(device);
  if (!d) return 101;
  *bytes = d->about.memory;
  return 0;
}

CALL(cuDeviceGetAttribute)(int* value, int which, int device) {
  Device* d = device_number(device);
  if (!d) return 101;
  Limits l = limits(d->cc());
  switch (which) {
    case 1: case 2: case 3: *value = 1024; break;  // threads of a block, its x and y
    case 4: *value = 64; break;
    case 5: *value = INT32_MAX; break;              // blocks of a grid, x
    case 6: case 7: *value = 65535; break;
    case 8: *value = shared_without_leave; break;
    case 9: *value = 65536; break;                  // constant memory
    case 10: *value = 32; break;                    // lanes of a warp
    case 12: case 82: *value = 65536; break;        // registers of a block, of a multiprocessor
    case 13: case 36: *value = 1000000; break;      // clocks, kHz
    case 16: *value = d->about.sms; break;
    case 31: case 41: case 95: *value = 1; break;   // concurrent kernels, one address space, cooperative launches
    case 33: *value = d->ordinal + 1; break;        // PCI bus
    case 34: case 50: case 18: *value = 0; break;   // PCI device and domain; integrated
    case 37: *value = 128; break;                   // bits of the memory bus
    case 38: *value = d->about.l2; break;
    case 39: *value = l.threads; break;
    case 75: *value = d->about.major; break;
    case 76: *value = d->about.minor; break;
    case 81: *value = static_cast<int>(l.shared); break;
    case 97: *value = static_cast<int>(l.shared_block); break;
    case 106: *value = l.blocks; break;
    case 111: *value = d->cc() >= 80 ? 1024 : 0; break;
    default: return refused(1, "device attribute %d is not known", which);
  }
  return 0;
}

CALL(cuDevicePrimaryCtxRetain)(Device** context, int device) {
  Device* d = device_number(device);
  if (!d) return 101;
  *context = d;
  return 0;
}

CALL(cuDevicePrimaryCtxRelease_v2)(int device) { return device_number(device) ? 0 : 101; }

CALL(cuCtxSetCurrent)(Device* context) {
  if (!started) return 3;
  for (auto& d : devices())
    if (d.get() == context) return set_current(context), 0;
  if (context) return 201;
  set_current(nullptr);
  return 0;
}

CALL(cuCtxGetCurrent)(Device** context) { return *context = current(), started ? 0 : 3; }

CALL(cuCtxSynchronize)() {
  Use u;
  if (u.code) return u.code;
  int r = u->drain_all();
  flush_counts();
  return r;
}

namespace {

struct Words {
  int code;
  const char *name, *text;
};

constexpr Words errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"}};

int word(int code, const char* Words::*which, const char** text) {
  *text = nullptr;
  for (auto& e : errors)
    if (e.code == code) *text = e.*which;
  return *text ? 0 : 1;
}

}  // namespace

CALL(cuGetErrorName)(int code, const char** text) { return word(code, &Words::name, text); }
CALL(cuGetErrorString)(int code, const char** text) { return word(code, &Words::text, text); }
