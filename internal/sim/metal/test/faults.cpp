// What kernels may do wrong, and how it is told.
#include "test.h"

namespace {

// Runs the body with x of 64 and y of 64 floats.
std::string run(const std::string& body, Size groups = {1, 1, 1}, Size threads = {64, 1, 1}, const std::string& before = "") {
  Gpu g(program(body, before));
  Id x = g.buffer(std::vector<float>(64, 1)), y = g.buffer(256);
  send(x, "setLabel:", string("input"));
  return g.run("k", {x, y}, groups, threads);
}

void overrun() {
  CHECK_SAYS(run("\ny[i] = 1;", {2, 1, 1}), "kernel k, threadgroup (1,0,0), thread (0,0,0)", "program_source:6", "write of 4 bytes 0 bytes behind the end of buffer 1 (256 bytes)");
  CHECK_SAYS(run("y[0] = x[int(i) - 1];"), "read of 4 bytes 4 bytes before buffer 0 \"input\" (256 bytes)");
  CHECK_SAYS(run("device const float4* v = (device const float4*)(x + 4 * i); y[0] = v->y;", {1, 1, 1}, {17, 1, 1}), "thread (16,0,0)", "behind the end of buffer 0");
  CHECK_SAYS(run("y[0] = x[i + 100000000];"), "read of 4 bytes");
  CHECK_SAYS(run("x[1000000 * i] = 2;"), "thread (1,0,0)", "write of 4 bytes");
  CHECK_SAYS(run("device float* p = 0; p[i] = 1;"), "address 0");
  CHECK_SAYS(run("threadgroup float s[32]; s[t] = 1; y[0] = s[t];"), "thread (32,0,0)", "0 bytes behind the end of threadgroup variable s (128 bytes)");
  CHECK_EQ(run("y[i] = x[i];"), std::string());
}

void after_error() {
  Gpu g(program("if (x[0] > 0) y[1000000] = 1; y[i] = 5;"));
  Id x = g.buffer(std::vector<float>(1, 1)), y = g.buffer(256);
  CHECK_SAYS(g.run("k", {x, y}, {1, 1, 1}, {64, 1, 1}), "write of 4 bytes");
  *send<float*>(x, "contents") = 0;
  CHECK_EQ(g.run("k", {x, y}, {1, 1, 1}, {64, 1, 1}), std::string());
  CHECK_EQ(g.content<float>(y)[63], 5.0f);
}

void error_object() {
  Gpu g(program("y[1000 + i] = 1;"));
  Id b = g.buffer(256), commands = g.command_buffer(), e = g.encoder(commands, g.pipeline());
  send(commands, "setLabel:", string("decode"));
  set_buffer(e, b, 0);
  set_buffer(e, b, 1);
  dispatch(e, {1, 1, 1}, {32, 1, 1});
  CHECK_SAYS(g.finish(commands, e), "decode: kernel k");
  Id error = send(commands, "error");
  CHECK_EQ(text(send(error, "domain")), std::string("MTLCommandBufferErrorDomain"));
  CHECK_EQ(send<u64>(error, "code"), u64{3});
}

void asked_for() {
  Gpu g(program("y[i] = 1;"));
  Id b = g.buffer(256);
  CHECK_EQ(g.run("k", {b, b}, {1, 1, 1}, {64, 1, 1}), std::string());
  CHECK_SAYS(g.run("k", {b, b}, {1, 1, 1}, {64, 1, 1}), "DROVER_METALSIM_FAIL");
  CHECK_EQ(g.run("k", {b, b}, {1, 1, 1}, {64, 1, 1}), std::string());
}

void endless() {
  CHECK_SAYS(run("if (i == 3) while (x[0] > 0) y[1] = x[0];"), "kernel k, threadgroup (0,0,0), thread (3,0,0): it runs longer than 1 s");
  CHECK_EQ(run("y[i] = 1;"), std::string());
}

void processor_faults() {
  CHECK_SAYS(run("y[i] = float(100 / (int(i) - 5));"), "thread (5,0,0)", "division of an integer by zero");
  CHECK_SAYS(run("float v[30000]; for (int n = 0; n < 30000; n++) v[n] = x[n & 63]; y[0] = v[int(y[1]) & 8191];", {1, 1, 1}, {1, 1, 1}), "stack overflow");
}

void misaligned() {
  CHECK_SAYS(run("y[0] = *(device float*)((device char*)x + 2);"), "misaligned access in buffer 0 \"input\" at byte 2", "multiple of 4", "program_source:5");
  CHECK_SAYS(run("y[0] = ((device float4*)(x + 1))->x;"), "misaligned access");
  CHECK_EQ(run("y[0] = ((device packed_float4*)(x + 1))->x;"), std::string());
  // a structure of constants as its members want it
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\nstruct Args { float4 v; };\nkernel void k(device float* y [[buffer(0)]], constant Args& a [[buffer(1)]]) { y[0] = a.v.x; }\n");
  Id commands = g.command_buffer(), b = g.buffer(256), e = g.encoder(commands, g.pipeline());
  set_buffer(e, b, 0);
  set_buffer(e, b, 1, 4);
  dispatch(e, {1, 1, 1}, {1, 1, 1});
  CHECK_SAYS(g.finish(commands, e), "misaligned access in buffer", "multiple of 16");
}

void divergence() {
  CHECK_SAYS(run("if (t < 40) threadgroup_barrier(mem_flags::mem_threadgroup); y[0] = 1;"), "divergent", "it has returned", "waits at threadgroup_barrier");
  CHECK_SAYS(run("if (t < 32) threadgroup_barrier(mem_flags::mem_threadgroup); else { y[1] = 2; threadgroup_barrier(mem_flags::mem_threadgroup); }"), "divergent", "another threadgroup_barrier");
  CHECK_SAYS(run("if (lane < 5) y[0] = simd_sum(x[i]); else { threadgroup_barrier(mem_flags::mem_threadgroup); y[1] = 1; }"), "divergent", "threadgroup_barrier", "simdgroup function");
  CHECK_SAYS(run("if (lane < 5) y[i] = simd_sum(x[i]); else y[i] = simd_max(x[i]);"), "divergent", "kernel k, threadgroup (0,0,0), thread (5,0,0)");
  CHECK_SAYS(run("if (lane < 5) y[i] = simd_sum(x[i]); else y[i] = 2 * simd_sum(x[i + 0]) + 1;"), "divergent", "another such call");
  CHECK_SAYS(run("if (lane < 5) return; simdgroup_barrier(mem_flags::mem_none); y[0] = 1;"), "divergent", "it has returned");
  CHECK_SAYS(run("simdgroup_float8x8 m; simdgroup_load(m, x, 8); if (lane < 5) return; simdgroup_multiply_accumulate(m, m, m, m); simdgroup_store(m, y, 8);"), "divergent");
  CHECK_EQ(run("if (simdgroup == 1) y[i] = simd_sum(x[i]); threadgroup_barrier(mem_flags::mem_threadgroup);"), std::string());
}

void small_simdgroup() {
  CHECK_SAYS(run("simdgroup_float8x8 m; simdgroup_load(m, x, 8); simdgroup_multiply(m, m, m); simdgroup_store(m, y, 8);", {1, 1, 1}, {20, 1, 1}), "less than 32 threads");
}

void convergence() {
  const char* body = "simdgroup_float8x8 m; if (lane < 20) simdgroup_load(m, x, 8); simdgroup_barrier(mem_flags::mem_none); simdgroup_store(m, y, 8);";
  CHECK_SAYS(run(body, {1, 1, 1}, {32, 1, 1}), "divergent");
}

void races() {
  const std::string barrier = "threadgroup_barrier(mem_flags::mem_threadgroup); ", decl = "threadgroup float s[64]; ";
  CHECK_SAYS(run(decl + "s[t] = 1; y[i] = s[63 - t];"), "race on threadgroup memory", "threadgroup variable s, byte");
  CHECK_SAYS(run(decl + "s[t] = 1; " + barrier + "y[i] = s[63 - t]; s[t] = 2;"), "race on threadgroup memory");
  CHECK_SAYS(run(decl + "s[0] = float(t); " + barrier + "y[i] = s[0];"), "race on threadgroup memory: write of what thread 0", "writes");
  CHECK_SAYS(run(decl + "s[t] = 1; threadgroup_barrier(mem_flags::mem_none); y[i] = s[63 - t];"), "race on threadgroup memory");
  CHECK_SAYS(run(decl + "s[t] = 1; simdgroup_barrier(mem_flags::mem_threadgroup); y[i] = s[63 - t];"), "race on threadgroup memory");
  CHECK_SAYS(run(decl + "s[t] = 1; float v = simd_sum(1.0f); y[i] = s[t ^ 1] + v;"), "race on threadgroup memory");
  // all threads read, then one writes
  CHECK_SAYS(run(decl + "if (t == 0) s[0] = 1; " + barrier + "y[i] = s[0]; if (t == 3) s[0] = 2;"), "race on threadgroup memory");
  CHECK_SAYS(run(decl + "if (t == 0) s[0] = 1; " + barrier + "y[i] = s[0]; simdgroup_barrier(mem_flags::mem_threadgroup); if (t == 40) s[0] = 2;"), "race on threadgroup memory");
  CHECK_EQ(run(decl + "s[t] = 1; " + barrier + "y[i] = s[63 - t]; " + barrier + "s[t] = 2;"), std::string());
  CHECK_EQ(run(decl + "s[t] = 1; simdgroup_barrier(mem_flags::mem_threadgroup); y[i] = s[t ^ 1]; simdgroup_barrier(mem_flags::mem_threadgroup); s[t] = 3;"), std::string());
  CHECK_EQ(run(decl + "for (int n = 0; n < 3; n++) { if (t == 0) s[0] = n; " + barrier + "y[i] = s[0]; " + barrier + "}", {5, 1, 1}, {8, 1, 1}), std::string());
}

void unwritten() {
  const std::string decl = "threadgroup float s[64]; ";
  CHECK_SAYS(run(decl + "if (t > 0) s[t] = 1; threadgroup_barrier(mem_flags::mem_threadgroup); y[i] = s[63 - t];"), "thread (63,0,0)", "read of threadgroup memory that nothing has written: threadgroup variable s, byte 0");
  // what an earlier threadgroup wrote is not there
  CHECK_SAYS(run(decl + "if (group == 0) s[t] = 1; y[0] = s[t];", {2, 1, 1}, {1, 1, 1}), "threadgroup (1,0,0)", "nothing has written");
  CHECK_SAYS(run(decl + "s[t] += 1; y[i] = s[t];"), "nothing has written");
  CHECK_EQ(run(decl + "s[t] = 1; threadgroup_barrier(mem_flags::mem_threadgroup); y[i] = s[63 - t];"), std::string());
}

// Without the check, what nobody wrote is NaN.
void poison() {
  Gpu g(program("threadgroup float s[64]; if (t > 100) s[t] = 1; y[i] = s[t] != s[t] ? 7.0f : 0.0f;"));
  Id x = g.buffer(256), y = g.buffer(256);
  CHECK_EQ(g.run("k", {x, y}, {1, 1, 1}, {64, 1, 1}), std::string());
  CHECK_EQ(g.content<float>(y)[9], 7.0f);
}

}  // namespace

std::vector<Case> fault_cases() {
  return {{"overrun", overrun},
          {"overrun, checked", overrun, {"DROVER_METALSIM_CHECK=1"}},
          {"after error", after_error},
          {"command buffer error", error_object},
          {"failure that is asked for", asked_for, {"DROVER_METALSIM_FAIL=2=2"}},
          {"endless", endless, {"DROVER_METALSIM_TIMEOUT=1"}},
          {"processor faults", processor_faults},
          {"misaligned", misaligned},
          {"divergence", divergence},
          {"small simdgroup", small_simdgroup},
          {"convergence", convergence, {"DROVER_METALSIM_CHECK=convergence"}},
          {"races", races, {"DROVER_METALSIM_CHECK=races"}},
          {"unwritten", unwritten, {"DROVER_METALSIM_CHECK=threadgroup"}},
          {"poison", poison}};
}
