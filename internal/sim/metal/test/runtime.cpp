// Objective-C: classes, messages, reference counts; what the device says of itself.
#include <thread>

#include "test.h"

namespace {

void classes() {
  CHECK(class_named("NSString") && class_named("MTLCompileOptions"));
  CHECK(!class_named("NSNothing"));
  CHECK_EQ(selector("abc"), selector("abc"));
  CHECK(selector("abc") != selector("abd"));
}

void nil() {
  CHECK_EQ(send<u64>(nullptr, "length"), u64{0});
  CHECK_EQ(send<double>(nullptr, "GPUStartTime"), 0.0);
}

void unknown_selector() {
  Gpu g;
  CHECK_SAYS(death([&] { send(g.device, "newFence"); }), "unrecognized selector -[MTLDevice newFence]");
  CHECK_SAYS(death([&] { send(class_named("NSString"), "length"); }), "unrecognized selector +[NSString length]");
}

void strings() {
  Gpu g;
  Id s = string("x\xc3\xa4\xf0\x9f\x98\x80");
  CHECK_EQ(text(s), std::string("x\xc3\xa4\xf0\x9f\x98\x80"));
  CHECK_EQ(send<u64>(s, "length"), u64{4});
}

void counts() {
  Gpu g;
  Id b = send(g.device, "newBufferWithLength:options:", u64{64}, u64{0});
  CHECK_SAYS(living(), "1 MTLBuffer");
  CHECK_EQ(send(b, "retain"), b);
  send(b, "release");
  CHECK_SAYS(living(), "1 MTLBuffer");
  CHECK_SAYS(death([&] {
    send(b, "release");
    send(b, "length");
  }), "message length to a MTLBuffer that has been released");
  CHECK_SAYS(death([&] {
    send(b, "release");
    send(b, "release");
  }), "MTLBuffer that has been released");
  send(b, "release");
  CHECK(living().find("MTLBuffer") == std::string::npos);
}

void over_release() {
  // a pool that gives up a reference which is gone
  CHECK_SAYS(death([] {
    Id pool = send(class_named("NSAutoreleasePool"), "new"), s = string("s");
    send(s, "release");
    send(pool, "drain");
  }), "release of a NSString that has been released");
  CHECK_SAYS(death([] {
    Id d = reinterpret_cast<Id (*)()>(function("MTLCreateSystemDefaultDevice"))();
    send(d, "release");
    send(d, "release");
  }), "MTLDevice");
}

void pools() {
  Id outer = send(class_named("NSAutoreleasePool"), "new");
  string("a");
  Id inner = send(class_named("NSAutoreleasePool"), "new");
  string("b");
  CHECK_SAYS(living(), "2 NSString");
  send(inner, "drain");
  CHECK_SAYS(living(), "1 NSString", "1 NSAutoreleasePool");
  send(outer, "drain");
  CHECK_EQ(living(), std::string());
  string("c");
  CHECK_SAYS(living(), "1 NSString, 1 NSString autoreleased without a pool");
}

void pool_of_another_thread() {
  Id pool = send(class_named("NSAutoreleasePool"), "new");
  CHECK_SAYS(death([&] { std::thread([&] { send(pool, "drain"); }).join(); }), "on a thread that did not begin it");
}

void threads() {
  Gpu g;
  std::vector<std::thread> all;
  for (int i = 0; i < 8; i++)
    all.emplace_back([&] {
      Id pool = send(class_named("NSAutoreleasePool"), "new");
      for (int n = 0; n < 500; n++) {
        string("s");
        send(send(g.device, "newBufferWithLength:options:", u64{64}, u64{0}), "release");
      }
      send(pool, "drain");
    });
  for (auto& t : all) t.join();
}

void wrong_class() {
  Gpu g;
  CHECK_SAYS(death([&] { send(g.device, "newComputePipelineStateWithFunction:error:", string("k"), nullptr); }), "is of class NSString");
}

void device() {
  Gpu g;
  CHECK_EQ(text(send(g.device, "name")), std::string("Faked"));
  CHECK_EQ(send<u64>(g.device, "recommendedMaxWorkingSetSize"), u64{3} << 20);
  CHECK_EQ(send<u64>(g.device, "supportsFamily:", u64{1007}) & 0xff, u64{1});
  CHECK_EQ(send<u64>(g.device, "supportsFamily:", u64{1008}) & 0xff, u64{0});
  CHECK_EQ(send<u64>(g.device, "supportsFamily:", u64{5001}) & 0xff, u64{1});
  CHECK_EQ(send<u64>(g.device, "hasUnifiedMemory") & 0xff, u64{1});
  CHECK_EQ(send<u64>(g.device, "maxThreadgroupMemoryLength"), u64{32768});
  u64 before = send<u64>(g.device, "currentAllocatedSize");
  g.buffer(1000);
  CHECK_EQ(send<u64>(g.device, "currentAllocatedSize") - before, u64{1000});
  Id all = reinterpret_cast<Id (*)()>(function("MTLCopyAllDevices"))();
  CHECK_EQ(send<u64>(all, "count"), u64{1});
  CHECK_EQ(send(all, "objectAtIndex:", u64{0}), g.device);
  send(all, "release");
}

// A structure of 24 bytes is returned in memory whose address is the first argument.
void struct_return() {
  Gpu g;
  for (const char* name : {"objc_msgSend", "objc_msgSend_stret"}) {
    Size s = reinterpret_cast<Size (*)(Id, const char*)>(function(name))(g.device, selector("maxThreadsPerThreadgroup"));
    CHECK(s.width == 1024 && s.height == 1024 && s.depth == 1024);
  }
}

void bad_option() {
  CHECK_SAYS(death([] { Gpu g; }), "DROVER_METALSIM_FAMILY: cannot read \"pear\"");
}

}  // namespace

std::vector<Case> runtime_cases() {
  return {{"classes", classes},
          {"nil", nil},
          {"unknown selector", unknown_selector},
          {"strings", strings},
          {"reference counts", counts},
          {"over-release", over_release},
          {"pools", pools},
          {"pool of another thread", pool_of_another_thread},
          {"threads", threads},
          {"wrong class", wrong_class},
          {"device", device, {"DROVER_METALSIM_NAME=Faked", "DROVER_METALSIM_FAMILY=apple7", "DROVER_METALSIM_MEMORY=3MiB"}},
          {"struct return", struct_return},
          {"bad option", bad_option, {"DROVER_METALSIM_FAMILY=pear"}}};
}
