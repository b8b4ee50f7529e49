// MSL: what compiles, what does not, and what it means.
#include <cmath>

#include "test.h"

namespace {

std::string error_of(const std::string& source) {
  Gpu g;
  return g.compile(source);
}
std::string error_in(const std::string& body, const std::string& before = "") { return error_of(program(body, before)); }

void address_spaces() {
  const std::string f = "float first(threadgroup const float* p) { return p[0]; }\nvoid set(device float* p) { p[0] = 1; }\n";
  CHECK_SAYS(error_in("y[0] = first(x);", f), "program_source:7:8: error:", "first");
  CHECK_SAYS(error_in("threadgroup float s[4]; set(s);", f), "error:");
  CHECK_SAYS(error_in("threadgroup float s[4]; device float* p = s;"), "error:");
  CHECK_SAYS(error_in("thread float v = 1; device float* p = &v;"), "error:");
  CHECK_SAYS(error_of("#include <metal_stdlib>\nusing namespace metal;\nkernel void k(constant float* c [[buffer(0)]]) { device const float* p = c; }\n"), "program_source:3:", "error:");
  CHECK_SAYS(error_in("device half* p = (threadgroup half*)x;"), "error:");
  CHECK_EQ(error_in("threadgroup float s[4]; y[0] = first(s); set(x); device const half* h = (device const half*)x; y[1] = float(h[0]);", f), std::string());
}

void refused() {
  CHECK_SAYS(error_in("double d = 1;"), "error:", "double");
  CHECK_SAYS(error_in("x[0] = nope;"), "program_source:5:8: error: use of undeclared identifier 'nope'");
  CHECK_SAYS(error_in("}\nkernel void j(device float* z) {"), "program_source:6:", "parameter z without an attribute");
  CHECK_SAYS(error_in("}\nkernel void j(uint2 at [[thread_position_in_grid]], uint n [[threads_per_threadgroup]]) {"), "threads_per_threadgroup", "another number of dimensions");
  CHECK_SAYS(error_in("}\nkernel void j(device float* z [[buffer(31)]]) {"), "index 31 is out of bounds");
  CHECK_SAYS(error_in("}\nkernel void j(device float* z [[buffer(1)]], device float* w [[buffer(1)]]) {"), "index 1 is taken");
  CHECK_SAYS(error_in("}\nkernel void j(uint z [[lane_number]]) {"), "attribute lane_number of a kernel parameter is not known");
  CHECK_SAYS(error_in("}\nkernel void j(threadgroup float* z [[buffer(1)]]) {"), "address space");
  CHECK_SAYS(error_in("}\nkernel void k(device float* z [[buffer(1)]]) {"), "second kernel of the name k");
  CHECK_SAYS(error_of("kernel void k() {}\n"), "no #include <metal_stdlib>");
  CHECK_SAYS(error_in("#error of this test\n"), "of this test");
  CHECK_SAYS(error_in("float4 v = float4(1, 2, 3);"), "as many elements");
  CHECK_SAYS(error_in("half4 h = half4(1); float4 f = h;"), "error:");
}

// What C++ accepts and MSL does not.
void strict() {
  CHECK_SAYS(error_in("float* p = x;"), "program_source:5:6: error: pointer without an address space");
  CHECK_SAYS(error_in("const float4 & p = *(device float4*)x;"), "reference without an address space");
  CHECK_SAYS(error_in("y[0] = *(float*)x;"), "pointer without an address space");
  CHECK_SAYS(error_in("", "float f(const float* p) { return *p; }\n"), "program_source:3:20: error: pointer without an address space");
  CHECK_SAYS(error_in("", "template <typename T> float f(device const T* p, thread vec<T, 4>* q, float4 &r) { return p[0]; }\n"), "reference without an address space");
  CHECK_SAYS(error_in("", "int f(int n) { return n ? f(n - 1) : 0; }\n"), "recursion of f");
  CHECK_SAYS(error_in("", "int g(int n);\nint f(int n) { return n ? g(n) : 0; }\nint g(int n) { return f(n - 1); }\n"), "recursion of");
  CHECK_SAYS(error_in("auto f = [&](int n) { return n; };"), "no lambda");
  CHECK_SAYS(error_in("goto end; end: ;"), "no goto");
  CHECK_SAYS(error_in("", "struct a { int n; };\nstruct b : a { int m; };\n"), "derived classes");
  CHECK_SAYS(error_in("", "struct a { virtual int n() { return 1; } };\n"), "no virtual");
  CHECK_SAYS(error_in("if constexpr (sizeof(int) == 4) y[0] = 1;"), "if constexpr");
  CHECK_SAYS(error_in("try { y[0] = 1; } catch (...) {}"), "no try");
  CHECK_SAYS(error_in("", "inline namespace n { inline constexpr int v = 3; template <int... N> int sum() { return (N + ...); } }\n"), "error:");
  CHECK_EQ(error_in("int a = 3, b = 4; y[a & b] = float(a * b); device float* p = x; thread float* q = (thread float*)&a; p[0] = *q * a; bool c = a < b && b > a; y[1] = c ? a * b : a & b; for (int j = 0; j < a * b; j++) y[j & 1] = a * j;",
                    "constant int n = 3;\nfloat over(float a) { return a; }\nfloat over(float2 a) { return over(a.x) * a.y; }\nfloat dot2(thread const float4& a, device const float* b, float c = 2 * n) { return a.x * b[0] * c; }\n"
                    "template <typename T> T pick(thread T (&v)[4], int i) { return v[i & 3]; }\n"),
           std::string());
}

void error_object() {
  Gpu g;
  Id error = nullptr;
  CHECK(!send(g.device, "newLibraryWithSource:options:error:", string("kernel"), nullptr, &error));
  CHECK_EQ(text(send(error, "domain")), std::string("MTLLibraryErrorDomain"));
  CHECK_EQ(send<u64>(error, "code"), u64{3});
}

void families() {
  const std::string bfloats = "bfloat b = bfloat(x[0]); y[0] = float(b);", version = "#if __METAL_VERSION__ >= 310\n#error new\n#endif\n";
  Gpu g;
  Id options = send(class_named("MTLCompileOptions"), "new");
  send(options, "setLanguageVersion:", u64{3} << 16);
  CHECK_SAYS(g.compile(program(bfloats), options), "bfloat");
  CHECK_EQ(g.compile(program("", version), options), std::string());
  send(g.library, "release");
  send(options, "setLanguageVersion:", (u64{3} << 16) + 1);
  send(options, "setFastMathEnabled:", 0);
  CHECK_SAYS(g.compile(program("", version), options), "new");
  CHECK_EQ(g.compile(program(bfloats), options), std::string());
  send(options, "release");
}

void old_family() {
  CHECK_SAYS(error_in("bfloat b = bfloat(x[0]);"), "bfloat");
  CHECK_SAYS(error_in("simdgroup_float8x8 m;"), "simdgroup_float8x8");
}

void templates() {
  Gpu g("#include <metal_stdlib>\nusing namespace metal;\n"
        "#define SCALE 3\nstruct block { half d; uchar q[4]; };\nstruct Args { uint n; float a; };\n"
        "template <typename B, short N> inline float value(device const B* b, uint i) { return float(b[i / N].d) * b[i / N].q[i % N]; }\n"
        "template <typename B, short N>\nkernel void f(device float* y [[buffer(1)]], device const B* b [[buffer(0)]], constant Args& args [[buffer(2)]], uint i [[thread_position_in_grid]]) {\n"
        "  threadgroup float s[N * 8];\n  if (i >= args.n) return;\n  s[i] = value<B, N>(b, i);\n  y[i] = s[i] * SCALE + args.a;\n}\n"
        "template [[host_name(\"f_4\")]] kernel void f<block, 4>(device float*, device const block*, constant Args&, uint);\n"
        "typedef decltype(f<block, 2>) f_type;\ntemplate [[host_name(\"f_2\")]] kernel f_type f<block, 2>;\n"
        "[[max_total_threads_per_threadgroup(64)]] kernel void plain(device float* y [[buffer(0)]]) { y[0] = 5; }\n"
        "#define MAKE(NAME, T) kernel void NAME(device T* y [[buffer(0)]]) { y[0] = T(7); }\nMAKE(of_float, float) MAKE(of_half, half)\n");
  Id names = send(g.library, "functionNames");
  std::string all;
  for (u64 i = 0; i < send<u64>(names, "count"); i++) all += text(send(names, "objectAtIndex:", i)) + " ";
  CHECK_EQ(all, std::string("f_4 f_2 plain of_float of_half "));
  CHECK(!send(g.library, "newFunctionWithName:", string("f")));
  Id p = g.pipeline("plain"), f4 = g.pipeline("f_4"), f2 = g.pipeline("f_2");
  CHECK_EQ(send<u64>(p, "maxTotalThreadsPerThreadgroup"), u64{64});
  CHECK_EQ(send<u64>(f4, "maxTotalThreadsPerThreadgroup"), u64{1024});
  CHECK_EQ(send<u64>(f4, "threadExecutionWidth"), u64{32});
  CHECK_EQ(send<u64>(f4, "staticThreadgroupMemoryLength"), u64{128});
  CHECK_EQ(send<u64>(f2, "staticThreadgroupMemoryLength"), u64{64});
  std::vector<uint8_t> blocks;
  for (uint8_t b = 0; b < 4; b++) {
    for (uint8_t v : {0x00, 0x40}) blocks.push_back(v);  // half 2
    for (uint8_t q = 0; q < 4; q++) blocks.push_back(static_cast<uint8_t>(4 * b + q));
  }
  struct { uint32_t n; float a; } args = {14, 0.5f};
  Id y = g.buffer(std::vector<float>(16, -1)), b = g.buffer(blocks), commands = g.command_buffer(), e = g.encoder(commands, f4);
  set_buffer(e, b, 0);
  set_buffer(e, y, 1);
  send(e, "setBytes:length:atIndex:", &args, u64{8}, u64{2});
  dispatch(e, {1, 1, 1}, {16, 1, 1});
  CHECK_EQ(g.finish(commands, e), std::string());
  auto out = g.content<float>(y);
  for (unsigned i = 0; i < 16; i++) CHECK_EQ(out[i], i < 14 ? static_cast<float>(6 * i) + 0.5f : -1.0f);
}

// y[i] of expressions in MSL is what they are here.
void expressions() {
  struct {
    const char* text;
    float want;
  } all[] = {
      {"float4(1, 2, 3, 4).wzyx.x", 4},
      {"float4(float2(1, 2), 3, 4).y", 2},
      {"float3(1, float2(2, 3)).z", 3},
      {"float4(7).w", 7},
      {"float4(half4(1, 2, 3, 4)).z", 3},
      {"float(half4(float4(1.5f)).x)", 1.5f},
      {"float4(uchar4(200, 1, 2, 3)).x", 200},
      {"float4(char4(-3)).y", -3},
      {"float(int4(float4(-2.7f)).x)", -2},
      {"vec<float, 4>(1, 2, 3, 4)[2]", 3},
      {"(float4(1, 2, 3, 4) * 2.0f + 1.0f).w", 9},
      {"dot(float4(1, 2, 3, 4), float4(4, 3, 2, 1))", 20},
      {"dot(float2(1, 2), float2(3, 4))", 11},
      {"as_type<float>(0x40490fdbu)", 3.14159274f},
      {"float(as_type<half>(ushort(0x3c00)))", 1},
      {"float(as_type<uchar4>(0x04030201u).w)", 4},
      {"float(as_type<half2>(0x40003c00u).y)", 2},
      {"float(2.5h)", 2.5f},
      {"float(half(1) / half(3))", 0.333251953f},
      {"float(bfloat(1.00390625f))", 1},
      {"float(bfloat4(float4(3.14159f)).z)", 3.140625f},
      {"max(1.0f, 2.0f) + min(3, 4) + clamp(7u, 1u, 5u)", 10},
      {"max(float4(1), float4(2)).x + fmax(1.0f, 5.0f)", 7},
      {"abs(-3) + fabs(-2.5f)", 5.5f},
      {"floor(-1.5f) + ceil(1.2f) + rint(2.5f) + round(2.5f) + trunc(-1.7f)", 4},
      {"exp2(3.0f) + sqrt(9.0f) + rsqrt(4.0f)", 11.5f},
      {"precise::exp(0.0f) + fast::log(1.0f) + log2(8.0f)", 4},
      {"fma(2.0f, 3.0f, 4.0f)", 10},
      {"select(1.0f, 2.0f, true)", 2},
      {"select(float2(1, 2), float2(3, 4), float2(1, 0) > float2(0, 1)).x", 3},
      {"any(float2(1, 0) > 0.5f) + 2 * all(float2(1, 0) > 0.5f)", 1},
      {"isnan(NAN) + 2 * isinf(INFINITY) + 4 * isfinite(1.0f) + 8 * isnan(1.0f)", 7},
      {"mix(1.0f, 3.0f, 0.5f) + saturate(2.0f)", 3},
      {"float(popcount(0xffu)) + float(clz(1u)) + float(ctz(8u))", 42},
      {"float(metal::min(1, 2)) + metal::float4(3).x", 4},
      {"pow(2.0f, 10.0f) + copysign(1.0f, -0.0f)", 1023},
      {"numeric_limits<float>::max() == FLT_MAX ? 1.0f : 0.0f", 1},
      {"tanh(0.0f) + sign(-2.0f)", -1},
      {"float(half4(1, 2, 3, 4).xy.y) + float(ushort2(3, 4).x)", 5},
      {"fmod(7.0f, 4.0f) + exp10(2.0f) + step(1.0f, 2.0f)", 104},
      {"distance(float2(0, 3), float2(4, 0)) + normalize(float2(0, 2)).y", 6},
      {"many[1] + float(many.size())", 5},
      {"table[2]", 30},
      {"nested(x)", 6},
  };
  std::string body = "float2 v = float2(1, 2); v.y = 5; v.xy = v.yx; float4 w = 0; w.xy = v; w.z += 3; w[3] = 9; array<float, 3> many; many[1] = 2;\n";
  int n = 0;
  for (auto& e : all) body += "y[" + std::to_string(n++) + "] = " + e.text + ";\n";
  body += "y[" + std::to_string(n) + "] = w.x * 1000 + w.y * 100 + w.z * 10 + w.w;\n";
  Gpu g(program(body, "constant float table[4] = {10, 20, 30, 40};\nstruct inner { float a; float twice() const { return 2 * a; } };\nstruct outer { inner i[2]; };\n"
                      "float nested(device float* p) { outer o; o.i[1].a = p[0]; outer q = o; return q.i[1].twice(); }\n"));
  Id x = g.buffer(std::vector<float>(64, 3)), y = g.buffer(256 * 4);
  CHECK_EQ(g.run("k", {x, y}, {1, 1, 1}, {1, 1, 1}), std::string());
  auto out = g.content<float>(y);
  n = 0;
  for (auto& e : all) {
    float got = out[static_cast<size_t>(n++)];
    if (!(std::fabs(got - e.want) <= 1e-6f * std::fabs(e.want))) fail(__FILE__, __LINE__, std::string(e.text) + " is " + std::to_string(got) + ", want " + std::to_string(e.want));
  }
  CHECK_EQ(out[static_cast<size_t>(n)], 5139.0f);
}

void cache() {
  Gpu g(program("x[i] = 1;"));
  Id first = g.library;
  CHECK_EQ(g.compile(program("x[i] = 1;")), std::string());
  send(first, "release");
  Id b = g.buffer(128);
  CHECK_EQ(g.run("k", {b, b}, {1, 1, 1}, {32, 1, 1}), std::string());
  CHECK_EQ(g.content<float>(b)[5], 1.0f);
}

void no_compiler() {
  CHECK_SAYS(error_in(""), "no-such-compiler");
}

}  // namespace

std::vector<Case> language_cases() {
  return {{"address spaces", address_spaces},
          {"refused", refused},
          {"strict", strict},
          {"error object", error_object},
          {"language versions", families},
          {"old family", old_family, {"DROVER_METALSIM_FAMILY=apple5"}},
          {"templates", templates},
          {"expressions", expressions},
          {"cache", cache},
          {"no compiler", no_compiler, {"DROVER_METALSIM_COMPILER=no-such-compiler"}}};
}
