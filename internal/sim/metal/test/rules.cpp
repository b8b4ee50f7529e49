// Rules of Metal's API: what breaks them ends the process with a message.
#include <sys/mman.h>

#include "test.h"

namespace {

const char* const source = "x[i] = 1;";

// f with an encoder that is ready for a dispatch; what it dies of.
std::string broken(const std::function<void(Gpu&, Id commands, Id encoder)>& f) {
  Gpu g(program(source));
  Id p = g.pipeline(), b = g.buffer(256);
  std::string said = death([&] {
    Id commands = g.command_buffer(), e = g.encoder(commands, p);
    set_buffer(e, b, 0);
    set_buffer(e, b, 1);
    f(g, commands, e);
  });
  return said;
}

void encoders() {
  CHECK_SAYS(broken([](Gpu&, Id, Id e) {
    send(e, "endEncoding");
    dispatch(e, {1, 1, 1}, {32, 1, 1});
  }), "dispatchThreadgroups", "after endEncoding");
  CHECK_SAYS(broken([](Gpu&, Id c, Id) { send(c, "commit"); }), "commit of a command buffer with an encoder that is open");
  CHECK_SAYS(broken([](Gpu&, Id c, Id) { send(c, "computeCommandEncoder"); }), "has an encoder that is open");
  CHECK_SAYS(broken([](Gpu&, Id c, Id e) {
    send(e, "endEncoding");
    send(c, "commit");
    send(c, "commit");
  }), "committed already");
  CHECK_SAYS(broken([](Gpu&, Id c, Id e) {
    send(e, "endEncoding");
    send(c, "waitUntilCompleted");
  }), "waitUntilCompleted of a command buffer that is not committed");
  CHECK_SAYS(broken([](Gpu&, Id c, Id e) {
    send(e, "endEncoding");
    send(c, "commit");
    send(c, "computeCommandEncoder");
  }), "that is committed");
  CHECK_SAYS(broken([](Gpu& g, Id, Id) { send(g.pool, "drain"); }), "MTLComputeCommandEncoder is released without endEncoding");
  CHECK_SAYS(broken([](Gpu& g, Id, Id e) {
    send(e, "endEncoding");
    dispatch(g.encoder(g.command_buffer(), nullptr), {1, 1, 1}, {32, 1, 1});
  }), "without a pipeline");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) {
    send(e, "pushDebugGroup:", string("g"));
    send(e, "endEncoding");
  }), "debug groups");
}

void arguments() {
  CHECK_SAYS(broken([](Gpu& g, Id, Id e) { set_buffer(e, g.owned.back(), 31); }), "index 31 is out of bounds");
  CHECK_SAYS(broken([](Gpu& g, Id, Id e) { set_buffer(e, g.owned.back(), 0, 256); }), "offset 256 is beyond the buffer's 256 bytes");
  CHECK_SAYS(broken([](Gpu& g, Id, Id e) { set_buffer(e, g.owned.back(), 0, 6); }), "offset 6 is not a multiple of 4");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { send(e, "setBufferOffset:atIndex:", u64{300}, u64{0}); }), "offset 300 is beyond");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { send(e, "setBufferOffset:atIndex:", u64{4}, u64{5}); }), "index 5 has no buffer");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) {
    char bytes[4100] = "";
    send(e, "setBytes:length:atIndex:", bytes, u64{4100}, u64{0});
  }), "length 4100");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) {
    set_buffer(e, nullptr, 1);
    dispatch(e, {1, 1, 1}, {32, 1, 1});
  }), "kernel k: no buffer at index 1, for y");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { dispatch(e, {1, 1, 1}, {1025, 1, 1}); }), "kernel k: 1025 x 1 x 1 threads, more than maxTotalThreadsPerThreadgroup, 1024");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { dispatch(e, {1, 1, 1}, {32, 32, 2}); }), "more than maxTotalThreadsPerThreadgroup");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { dispatch(e, {0, 1, 1}, {32, 1, 1}); }), "a size is 0");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { send(e, "setThreadgroupMemoryLength:atIndex:", u64{32784}, u64{0}); }), "more than 32768");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) { send(e, "setThreadgroupMemoryLength:atIndex:", u64{40}, u64{0}); }), "not a multiple of 16");
  CHECK_SAYS(broken([](Gpu&, Id, Id e) {
    send(e, "setThreadgroupMemoryLength:atIndex:", u64{32768}, u64{0});
    send(e, "setThreadgroupMemoryLength:atIndex:", u64{16}, u64{1});
    dispatch(e, {1, 1, 1}, {32, 1, 1});
  }), "32784 bytes of threadgroup memory");
}

void kernel_limits() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\n"
        "kernel void large(device float* y [[buffer(0)]], uint t [[thread_index_in_threadgroup]]) { threadgroup float s[9000]; s[t] = 1; y[0] = s[t]; }\n"
        "[[max_total_threads_per_threadgroup(64)]] kernel void small(device float* y [[buffer(0)]], threadgroup float* s [[threadgroup(0)]]) { s[0] = 1; y[0] = s[0]; }\n");
  Id f = send(g.library, "newFunctionWithName:", string("large")), error = nullptr;
  CHECK_EQ(text(send(f, "name")), std::string("large"));
  CHECK(!send(g.device, "newComputePipelineStateWithFunction:error:", f, &error));
  CHECK_SAYS(text(send(error, "localizedDescription")), "kernel large: 36000 bytes");
  send(f, "release");
  Id p = g.pipeline("small"), y = g.buffer(4);
  auto run = [&](u64 threads, u64 memory) {
    Id e = g.encoder(g.command_buffer(), p);
    set_buffer(e, y, 0);
    send(e, "setThreadgroupMemoryLength:atIndex:", memory, u64{0});
    dispatch(e, {1, 1, 1}, {threads, 1, 1});
  };
  CHECK_SAYS(death([&] { run(96, 16); }), "96 x 1 x 1 threads, more than maxTotalThreadsPerThreadgroup, 64");
  CHECK_SAYS(death([&] { run(64, 0); }), "no threadgroup memory at index 0, for s");
}

void buffers() {
  Gpu g;
  CHECK_SAYS(death([&] { send(g.device, "newBufferWithLength:options:", u64{0}, u64{0}); }), "0 bytes");
  CHECK_SAYS(death([&] { send(g.device, "newBufferWithLength:options:", u64{4}, u64{1 << 4}); }), "managed");
  Id hidden = send(g.device, "newBufferWithLength:options:", u64{64}, u64{2 << 4});
  CHECK_SAYS(death([&] { send(hidden, "contents"); }), "private storage");
  send(hidden, "release");
  CHECK(!send(g.device, "newBufferWithLength:options:", u64{1} << 40, u64{0}));
  char* m = static_cast<char*>(mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const char* in_place = "newBufferWithBytesNoCopy:length:options:deallocator:";
  CHECK_SAYS(death([&] { send(g.device, in_place, m + 64, u64{4096}, u64{0}, nullptr); }), "not aligned to a page");
  CHECK_SAYS(death([&] { send(g.device, in_place, m, u64{1000}, u64{0}, nullptr); }), "length 1000 is not a multiple");
  CHECK_SAYS(death([&] { send(g.device, in_place, m, u64{4096}, u64{2 << 4}, nullptr); }), "storage mode");
  Id b = send(g.device, in_place, m, u64{16384}, u64{0}, nullptr);
  CHECK_EQ(send<char*>(b, "contents"), m);
  send(b, "release");
  m[0] = 1;  // is still there
  munmap(m, 16384);
}

void in_place() {
  Gpu g(program(source));
  float* m = static_cast<float*>(mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  Id b = send(g.device, "newBufferWithBytesNoCopy:length:options:deallocator:", m, u64{4096}, u64{0}, nullptr);
  CHECK_EQ(g.run("k", {b, b}, {1, 1, 1}, {32, 1, 1}), std::string());
  CHECK_EQ(m[31], 1.0f);
  CHECK_SAYS(g.run("k", {b, b}, {33, 1, 1}, {32, 1, 1}), "0 bytes behind the end of buffer 0 (4096 bytes)");
  send(b, "release");
}

// A command buffer keeps what it uses, unless it was made not to.
void references() {
  Gpu g(program(source));
  Id p = g.pipeline();
  for (const char* made : {"commandBuffer", "commandBufferWithUnretainedReferences"}) {
    Id b = send(g.device, "newBufferWithLength:options:", u64{128}, u64{0}), commands = send(g.queue, made), e = g.encoder(commands, p);
    send(b, "setLabel:", string("mine"));
    set_buffer(e, b, 0);
    set_buffer(e, b, 1);
    dispatch(e, {1, 1, 1}, {32, 1, 1});
    send(b, "release");
    std::string error = g.finish(commands, e);
    if (!strcmp(made, "commandBuffer")) CHECK_EQ(error, std::string());
    else CHECK_SAYS(error, "kernel k: buffer 0 \"mine\" was released before its use");
  }
}

void limit_of_queue() {
  Gpu g(program(source));
  Id q = send(g.device, "newCommandQueueWithMaxCommandBufferCount:", u64{2});
  CHECK_SAYS(death([&] {
    for (int i = 0; i < 3; i++) send(q, "commandBuffer");
  }), "more than 2 command buffers");
  Id last = nullptr;
  for (int i = 0; i < 10; i++) send(last = send(q, "commandBuffer"), "commit");
  send(last, "waitUntilCompleted");
  send(q, "release");
}

void working_set() {
  Gpu g(program(source));
  Id b = g.buffer(1 << 20);
  CHECK_EQ(g.run("k", {b, b}, {1, 1, 1}, {32, 1, 1}), std::string());
  g.buffer(1 << 20);
  CHECK_SAYS(g.run("k", {b, b}, {1, 1, 1}, {32, 1, 1}), "insufficient memory");
}

// x[0..31] = 1 by one dispatch, then read by the next
void concurrent() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\nkernel void w(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] = 1; }\n"
        "kernel void r(device const float* x [[buffer(0)]], device float* y [[buffer(1)]], uint i [[thread_position_in_grid]]) { y[i] = x[i]; }\n");
  Id w = g.pipeline("w"), r = g.pipeline("r"), x = g.buffer(512), y = g.buffer(512);
  memset(send<void*>(x, "contents"), 0, 512);
  auto run = [&](bool concurrently, Id first, Id second, bool barrier, u64 offset) {
    Id commands = g.command_buffer(), e = send(commands, "computeCommandEncoderWithDispatchType:", u64{concurrently});
    set_buffer(e, x, 0);
    set_buffer(e, y, 1);
    send(e, "setComputePipelineState:", first);
    dispatch(e, {1, 1, 1}, {32, 1, 1});
    if (barrier) send(e, "memoryBarrierWithScope:", u64{1});
    send(e, "setComputePipelineState:", second);
    send(e, "setBufferOffset:atIndex:", offset, u64{0});
    send(e, "setBufferOffset:atIndex:", u64{256}, u64{1});
    dispatch(e, {1, 1, 1}, {32, 1, 1});
    return g.finish(commands, e);
  };
  CHECK_SAYS(run(true, w, r, false, 0), "kernel r", "read of what an earlier dispatch writes, without a memory barrier", "buffer 0, byte 0");
  CHECK_SAYS(run(true, r, w, false, 64), "kernel w", "write of what an earlier dispatch reads");
  CHECK_SAYS(run(true, w, w, false, 124), "kernel w", "write of what an earlier dispatch writes", "byte 124");
  CHECK_EQ(run(true, w, r, true, 0), std::string());
  CHECK_EQ(run(true, w, r, false, 128), std::string());
  CHECK_EQ(run(true, r, r, false, 0), std::string());
  CHECK_EQ(run(false, w, r, false, 0), std::string());
}

}  // namespace

std::vector<Case> rule_cases() {
  return {{"encoders", encoders},
          {"arguments", arguments},
          {"kernel limits", kernel_limits},
          {"buffers", buffers},
          {"in place", in_place},
          {"references", references},
          {"limit of queue", limit_of_queue},
          {"working set", working_set, {"DROVER_METALSIM_MEMORY=1.5MiB"}},
          {"concurrent dispatches", concurrent},
          {"concurrent dispatches, other order", concurrent, {"DROVER_METALSIM_ORDER=4"}}};
}
