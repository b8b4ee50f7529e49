// What kernels compute: positions, simdgroup functions, matrices, atomics.
#include <cmath>

#include "test.h"

namespace {

std::vector<float> numbers(size_t n, unsigned seed = 1) {
  std::vector<float> v(n);
  for (auto& x : v) seed = seed * 1664525 + 1013904223, x = static_cast<float>(seed >> 8 & 0xff) / 16 - 8;
  return v;
}

void asynchronous() {
  Gpu g(program("x[i] = float(i);"));
  Id b = g.buffer(std::vector<float>(64, -1)), commands = g.command_buffer(), e = g.encoder(commands, g.pipeline());
  set_buffer(e, b, 0);
  set_buffer(e, b, 1);
  dispatch(e, {2, 1, 1}, {32, 1, 1});
  send(e, "endEncoding");
  send(commands, "commit");
  CHECK_EQ(g.content<float>(b)[3], -1.0f);  // nobody has waited
  send(commands, "waitUntilCompleted");
  CHECK_EQ(g.content<float>(b)[63], 63.0f);
  CHECK(send<double>(commands, "GPUEndTime") >= send<double>(commands, "GPUStartTime"));
  CHECK(send<double>(commands, "GPUStartTime") > 0);
}

// In the order of commits, also where only the last one is waited for.
void queue_order() {
  Gpu g(program("x[i] = x[i] * 2 + y[0];"));
  Id b = g.buffer(std::vector<float>(32, 1)), p = g.pipeline(), last = nullptr;
  for (int n = 0; n < 20; n++) {
    Id commands = g.command_buffer(), e = g.encoder(commands, p);
    set_buffer(e, b, 0);
    float one = 1;
    send(e, "setBytes:length:atIndex:", &one, u64{4}, u64{1});
    dispatch(e, {1, 1, 1}, {32, 1, 1});
    send(e, "endEncoding");
    send(commands, "commit");
    last = commands;
  }
  send(last, "waitUntilCompleted");
  CHECK_EQ(g.content<float>(b)[7], 2097151.0f);
}

void positions() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\n"
        "kernel void k(device uint* x [[buffer(0)]], uint3 at [[thread_position_in_grid]], uint3 group [[threadgroup_position_in_grid]], ushort3 in [[thread_position_in_threadgroup]],\n"
        " uint3 size [[threads_per_threadgroup]], uint3 groups [[threadgroups_per_grid]], uint3 grid [[threads_per_grid]], uint t [[thread_index_in_threadgroup]],\n"
        " ushort lane [[thread_index_in_simdgroup]], ushort s [[simdgroup_index_in_threadgroup]], ushort ss [[simdgroups_per_threadgroup]]) {\n"
        " device uint* o = x + 20 * ((at.z * grid.y + at.y) * grid.x + at.x);\n"
        " o[0] = at.x; o[1] = at.y; o[2] = group.x; o[3] = group.y; o[4] = in.x; o[5] = in.y; o[6] = size.x; o[7] = size.y; o[8] = groups.x; o[9] = groups.y;\n"
        " o[10] = grid.x; o[11] = t; o[12] = lane; o[13] = s; o[14] = ss; }\n");
  Id b = g.buffer(10 * 6 * 20 * 4), commands = g.command_buffer(), e = g.encoder(commands, g.pipeline());
  set_buffer(e, b, 0);
  send(e, "dispatchThreads:threadsPerThreadgroup:", Size{10, 6, 1}, Size{8, 5, 1});
  CHECK_EQ(g.finish(commands, e), std::string());
  auto x = g.content<uint32_t>(b);
  for (unsigned at = 0; at < 60; at++) {
    unsigned i = at % 10, j = at / 10, gx = i / 8, gy = j / 5, sx = gx ? 2 : 8, sy = gy ? 1 : 5, t = j % 5 * sx + i % 8;
    const uint32_t want[15] = {i, j, gx, gy, i % 8, j % 5, sx, sy, 2, 2, 10, t, t % 32, t / 32, (sx * sy + 31) / 32};
    for (int k = 0; k < 15; k++) CHECK_EQ(x[at * 20 + static_cast<unsigned>(k)], want[k]);
  }
}

void simd_functions() {
  Gpu g(program("float v = x[lane]; uint u = lane * 3;\n"
                "y[lane] = simd_sum(v); y[32 + lane] = simd_max(v); y[64 + lane] = simd_min(v); y[96 + lane] = simd_shuffle_xor(v, 5);\n"
                "y[128 + lane] = simd_shuffle(v, ushort(31 - lane)); y[160 + lane] = simd_broadcast(v, 7); y[192 + lane] = simd_prefix_exclusive_sum(v);\n"
                "y[224 + lane] = simd_prefix_inclusive_sum(v); float d = simd_shuffle_down(v, 4); y[256 + lane] = lane < 28 ? d : 0;\n"
                "y[288 + lane] = float(simd_sum(u)); y[320 + lane] = simd_sum(float4(v, 1, 2, 3)).x; y[352 + lane] = float(ulong(simd_ballot(lane == 3)));\n"
                "y[384 + lane] = simd_any(lane == 9) + 2 * simd_all(lane < 31); float e = simd_shuffle_up(v, 1); y[416 + lane] = lane ? e : 0; y[448 + lane] = float(simd_sum(half(lane)));"));
  auto v = numbers(32);
  Id x = g.buffer(v), y = g.buffer(480 * 4);
  CHECK_EQ(g.run("k", {x, y}, {1, 1, 1}, {32, 1, 1}), std::string());
  auto out = g.content<float>(y);
  float sum = 0, most = v[0], least = v[0];
  for (float f : v) sum += f, most = std::max(most, f), least = std::min(least, f);
  float before = 0;
  for (unsigned l = 0; l < 32; l++) {
    float want[] = {sum, most, least, v[l ^ 5], v[31 - l], v[7], before, before + v[l], l < 28 ? v[l + 4] : 0, 1488, sum, 8, 1, l ? v[l - 1] : 0, 496};
    for (unsigned k = 0; k < 15; k++)
      if (out[32 * k + l] != want[k]) fail(__FILE__, __LINE__, "function " + std::to_string(k) + ", lane " + std::to_string(l) + ": " + std::to_string(out[32 * k + l]) + ", want " + std::to_string(want[k]));
    before += v[l];
  }
}

// Lanes that have returned have no part in a sum.
void returned_lanes() {
  Gpu g(program("if (lane >= 20) return; y[lane] = simd_sum(1.0f);"));
  Id y = g.buffer(128);
  CHECK_EQ(g.run("k", {y, y}, {1, 1, 1}, {32, 1, 1}), std::string());
  CHECK_EQ(g.content<float>(y)[19], 20.0f);
}

void barriers() {
  Gpu g(program("threadgroup float s[256];\nfor (uint n = 0; n < 10; n++) { s[t] = float(t + n); threadgroup_barrier(mem_flags::mem_threadgroup); y[t] = s[(t + 37) % 256];\n"
                "threadgroup_barrier(mem_flags::mem_threadgroup); }"));
  Id y = g.buffer(1024);
  CHECK_EQ(g.run("k", {y, y}, {1, 1, 1}, {256, 1, 1}), std::string());
  for (unsigned t = 0; t < 256; t++) CHECK_EQ(g.content<float>(y)[t], static_cast<float>((t + 37) % 256 + 9));
}

void threadgroup_memory() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\n"
        "kernel void k(device float* y [[buffer(0)]], threadgroup float* a [[threadgroup(0)]], threadgroup half* b [[threadgroup(3)]], uint t [[thread_index_in_threadgroup]],\n"
        " uint g [[threadgroup_position_in_grid]]) {\n"
        " threadgroup float c[2][32], d; threadgroup half4 e[8];\n"
        " a[t] = float(t); b[t] = half(2 * t); c[t / 32][t % 32] = 3 * t; if (t == 0) d = 7; if (t < 8) e[t] = half4(half(t));\n"
        " threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        " uint o = 63 - t; y[64 * g + t] = a[o] + float(b[o]) + c[o / 32][o % 32] + d + float(e[t / 8].w); }\n");
  Id y = g.buffer(50 * 64 * 4), commands = g.command_buffer(), p = g.pipeline(), e = g.encoder(commands, p);
  CHECK_EQ(send<u64>(p, "staticThreadgroupMemoryLength"), u64{256 + 16 + 64});
  set_buffer(e, y, 0);
  send(e, "setThreadgroupMemoryLength:atIndex:", u64{256}, u64{0});
  send(e, "setThreadgroupMemoryLength:atIndex:", u64{128}, u64{3});
  dispatch(e, {50, 1, 1}, {64, 1, 1});
  CHECK_EQ(g.finish(commands, e), std::string());
  auto out = g.content<float>(y);
  for (unsigned i = 0; i < 50 * 64; i++) CHECK_EQ(out[i], static_cast<float>(6 * (63 - i % 64) + 7 + i % 64 / 8));
}

void product(const char* type, const char* store, float tolerance) {
  std::string source = std::string("#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float* c [[buffer(0)]], device const float* a [[buffer(1)]], device const float* b [[buffer(2)]], "
                                   "uint lane [[thread_index_in_simdgroup]]) {\n") +
                       "threadgroup " + type + " s[2][10 * 24];\nfor (uint i = lane; i < 240; i += 32) { s[0][i] = " + type + "(a[i]); s[1][i] = " + type + "(b[i]); }\n"
                       "simdgroup_barrier(mem_flags::mem_threadgroup);\n"
                       "simdgroup_" + store + "8x8 acc = make_filled_simdgroup_matrix<" + store + ", 8>(1);\nsimdgroup_" + type + "8x8 ma, mb;\n"
                       "for (uint k = 0; k < 16; k += 8) { simdgroup_load(ma, s[0], 24, ulong2(k, 1)); simdgroup_load(mb, s[1], 24, ulong2(k, 0), true);\n"
                       "simdgroup_multiply_accumulate(acc, ma, mb, acc); }\nacc.thread_elements()[0] *= 2; acc.thread_elements()[1] *= 2;\n"
                       "threadgroup " + store + " out[64]; simdgroup_store(acc, out, 8); simdgroup_barrier(mem_flags::mem_threadgroup); c[lane] = out[lane]; c[lane + 32] = out[lane + 32]; }\n";
  Gpu g(source);
  auto a = numbers(240, 3), b = numbers(240, 4);
  Id c = g.buffer(256);
  CHECK_EQ(g.run("k", {c, g.buffer(a), g.buffer(b)}, {1, 1, 1}, {32, 1, 1}), std::string());
  auto out = g.content<float>(c);
  for (unsigned r = 0; r < 8; r++)
    for (unsigned n = 0; n < 8; n++) {
      float sum = 1;
      for (unsigned k = 0; k < 16; k++) sum += a[24 * (1 + r) + k] * b[24 * n + k];
      if (std::fabs(out[8 * r + n] - 2 * sum) > tolerance * (1 + std::fabs(sum))) fail(__FILE__, __LINE__, std::string(type) + ": " + std::to_string(out[8 * r + n]) + ", want " + std::to_string(2 * sum));
    }
}

void products() {
  product("float", "float", 1e-6f);
  product("half", "float", 1e-6f);
  product("bfloat", "float", 1e-6f);
  product("half", "half", 1e-2f);
}

void diagonal() {
  Gpu g(program("simdgroup_float8x8 a = simdgroup_float8x8(3.0f), b, c; simdgroup_load(b, x, 8); simdgroup_multiply(c, a, b); simdgroup_store(c, y, 8);"));
  auto v = numbers(64);
  Id y = g.buffer(256);
  CHECK_EQ(g.run("k", {g.buffer(v), y}, {1, 1, 1}, {32, 1, 1}), std::string());
  for (unsigned i = 0; i < 64; i++) CHECK_EQ(g.content<float>(y)[i], 3 * v[i]);
}

void atomics() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\n"
        "kernel void k(device atomic_uint* n [[buffer(0)]], device atomic_float* f [[buffer(1)]], device int* o [[buffer(2)]], uint t [[thread_index_in_threadgroup]]) {\n"
        " threadgroup atomic_int s; if (t == 0) atomic_store_explicit(&s, 0, memory_order_relaxed);\n threadgroup_barrier(mem_flags::mem_threadgroup);\n"
        " atomic_fetch_add_explicit(n, 2, memory_order_relaxed); atomic_fetch_add_explicit(f, 0.5f, memory_order_relaxed); atomic_fetch_max_explicit(&s, int(t), memory_order_relaxed);\n"
        " threadgroup_barrier(mem_flags::mem_threadgroup); if (t == 0) o[0] = atomic_load_explicit(&s, memory_order_relaxed); }\n");
  Id n = g.buffer(std::vector<uint32_t>{0}), f = g.buffer(std::vector<float>{0}), o = g.buffer(4);
  CHECK_EQ(g.run("k", {n, f, o}, {10, 1, 1}, {64, 1, 1}), std::string());
  CHECK_EQ(g.content<uint32_t>(n)[0], 1280u);
  CHECK_EQ(g.content<float>(f)[0], 320.0f);
  CHECK_EQ(g.content<int>(o)[0], 63);
}

void counters() {
  Gpu g(program("if (i < 10) { y[i] = x[i] + x[i]; y[i] = x[0]; } threadgroup_barrier(mem_flags::mem_none);"));
  Id x = g.buffer(std::vector<float>(64, 1)), y = g.buffer(256);
  CHECK_EQ(g.run("k", {x, y}, {2, 1, 1}, {32, 1, 1}), std::string());
  FILE* f = fopen(getenv("DROVER_METALSIM_COUNTS"), "r");
  std::string all;
  char part[4096];
  while (f && fgets(part, sizeof part, f)) all += part;
  if (f) fclose(f);
  CHECK_SAYS(all, "{\"messages\":", "\"kernel\":\"k\",\"dispatches\":1,\"threadgroups\":2,\"threads\":64,\"barriers\":2,\"multiplies\":0", "{\"index\":0,\"read\":", "\"distinct_read\":40,\"distinct_written\":0}",
             "{\"index\":1,\"read\":0,\"written\":80,\"distinct_read\":0,\"distinct_written\":40}");
}

}  // namespace

std::vector<Case> execution_cases() {
  return {{"asynchronous", asynchronous},
          {"queue order", queue_order},
          {"queue order 3", queue_order, {"DROVER_METALSIM_ORDER=3"}},
          {"positions", positions},
          {"simd functions", simd_functions},
          {"simd functions, other order", simd_functions, {"DROVER_METALSIM_ORDER=5"}},
          {"returned lanes", returned_lanes},
          {"barriers", barriers},
          {"barriers, other order", barriers, {"DROVER_METALSIM_ORDER=2", "DROVER_METALSIM_CHECK=1"}},
          {"threadgroup memory", threadgroup_memory},
          {"threadgroup memory, checked", threadgroup_memory, {"DROVER_METALSIM_CHECK=1"}},
          {"products", products},
          {"products, other layout", products, {"DROVER_METALSIM_LAYOUT=7", "DROVER_METALSIM_CHECK=1"}},
          {"diagonal", diagonal, {"DROVER_METALSIM_LAYOUT=9"}},
          {"atomics", atomics},
          {"atomics, checked", atomics, {"DROVER_METALSIM_CHECK=1"}},
          {"counters", counters, {"DROVER_METALSIM_COUNTS=counts.json"}}};
}
