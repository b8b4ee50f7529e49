// A driver with something wrong with it, for the tests of how that is told. It
// has every function that drover asks for, and one card on which all calls
// succeed and do nothing. Definitions change that:
//   INIT=999        what cuInit gives
//   VERSION=11020   of the driver API
//   CARDS=0         how many there are
//   MAJOR=6 MINOR=1 compute capability of the last card
//   RETAIN=2        what opening a card gives
//   SYNC=700        what waiting for a stream gives, and every later call on that card
//   EXIT=77         loading it ends the process
//   NAME=missing_NAME  a function that is not there
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifndef INIT
#define INIT 0
#endif
#ifndef VERSION
#define VERSION 12080
#endif
#ifndef CARDS
#define CARDS 1
#endif
#ifndef MAJOR
#define MAJOR 8
#endif
#ifndef MINOR
#define MINOR 6
#endif
#ifndef RETAIN
#define RETAIN 0
#endif
#ifndef SYNC
#define SYNC 0
#endif

namespace {

#ifdef EXIT
struct Exit {
  Exit() { _Exit(EXIT); }
} exit_when_loaded;
#endif

int lost[CARDS + 1];        // by card, what each later call gives; its address is the card's context
thread_local int *current;

int now() { return current ? *current : 201; }

}  // namespace

#define CALL(name) extern "C" int name

CALL(cuInit)(unsigned) { return INIT; }
CALL(cuDriverGetVersion)(int *version) { return *version = VERSION, 0; }
CALL(cuGetErrorName)(int, const char **text) { return *text = "CUDA_ERROR_OF_TEST", 0; }
CALL(cuGetErrorString)(int, const char **text) { return *text = "words of the driver", 0; }
CALL(cuDeviceGetCount)(int *count) { return *count = CARDS, 0; }
CALL(cuDeviceGet)(int *device, int n) { return *device = n, 0; }
CALL(cuDeviceGetName)(char *name, int n, int) { return snprintf(name, n, "Broken Card"), 0; }
CALL(cuDeviceTotalMem_v2)(size_t *bytes, int) { return *bytes = size_t{1} << 30, 0; }
CALL(cuDeviceGetUuid_v2)(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = i * 17;
  uuid[15] = device;
  return 0;
}
CALL(cuDeviceGetAttribute)(int *value, int which, int device) {
  bool last = device == CARDS - 1;
  *value = which == 75 ? (last ? MAJOR : 8) : which == 76 ? (last ? MINOR : 0) : which == 97 ? 101376 : 1;
  return 0;
}
CALL(cuDevicePrimaryCtxRetain)(int **context, int device) { return *context = &lost[device], RETAIN; }
CALL(cuCtxSetCurrent)(int *context) { return current = context, 0; }
CALL(cuMemGetInfo_v2)(size_t *free, size_t *total) { return *free = 1 << 20, *total = size_t{1} << 30, now(); }
CALL(cuMemAlloc_v2)(uint64_t *p, size_t n) { return *p = 512, n > 1 << 20 ? 2 : now(); }
CALL(cuStreamCreate)(uintptr_t *stream, unsigned) { return *stream = 1, now(); }
CALL(cuStreamSynchronize)(uintptr_t) { return current ? *current = SYNC : 201; }
CALL(cuModuleLoadDataEx)(uintptr_t *, const char *image, unsigned n, const int *options, void **values) {
  for (unsigned i = 0; i < n; i++)
    if (options[i] == 5) snprintf(static_cast<char *>(values[i]), reinterpret_cast<size_t>(values[i + 1]), "line 1: %s\n", image);
  return 218;
}

#define NOTHING(name) \
  CALL(name)() { return now(); }
NOTHING(cuMemGetAllocationGranularity)
NOTHING(cuMemFree_v2)
NOTHING(cuMemHostAlloc)
NOTHING(cuMemFreeHost)
NOTHING(cuMemcpyHtoDAsync_v2)
NOTHING(cuMemcpyDtoHAsync_v2)
NOTHING(cuMemcpyDtoDAsync_v2)
NOTHING(cuMemsetD8Async)
NOTHING(cuModuleUnload)
NOTHING(cuModuleGetFunction)
NOTHING(cuFuncSetAttribute)
NOTHING(cuLaunchKernel)
NOTHING(cuStreamDestroy_v2)
NOTHING(cuStreamBeginCapture_v2)
NOTHING(cuStreamEndCapture)
NOTHING(cuGraphInstantiateWithFlags)
NOTHING(cuGraphLaunch)
NOTHING(cuGraphDestroy)
NOTHING(cuGraphExecDestroy)
NOTHING(cuEventCreate)
NOTHING(cuEventDestroy_v2)
NOTHING(cuEventRecord)
NOTHING(cuEventElapsedTime)
