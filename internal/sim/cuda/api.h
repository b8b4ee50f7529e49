// What the files api_*.cpp share: the state of the library and the way into it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "device.h"

#define CALL(name) extern "C" __attribute__((visibility("default"))) int name

namespace sim {

const std::vector<std::unique_ptr<Device>>& devices();  // those that CUDA_VISIBLE_DEVICES shows
bool initialized();
Device* current();               // of the calling thread, or null
void set_current(Device* d);
Device* device_number(int n);
void flush_counts();

// The calling thread's device, locked; code says why a call cannot go on.
struct Use {
  Device* d;
  std::unique_lock<std::mutex> hold;
  int code = 0;
  Use() : d(current()) {
    if (!d) {
      code = initialized() ? 201 : 3;
      return;
    }
    hold = std::unique_lock(d->lock);
    code = d->broken;
  }
  Device* operator->() const { return d; }
};

// Prints why a call is refused; gives the code.
int refused(int code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Lets all devices finish what is queued.
void drain_everything();

}  // namespace sim
