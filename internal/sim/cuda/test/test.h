// Tests of the software CUDA device: the driver API by dlopen, as drover calls it,
// and small PTX programs. A case runs in a process of its own, since the library
// reads its environment once.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

struct Case {
  const char* name;
  void (*run)();
  std::vector<std::string> environment = {};  // NAME=value
};

std::vector<Case> arithmetic_cases();
std::vector<Case> convert_cases();
std::vector<Case> matrix_cases();
std::vector<Case> warpgroup_cases();
std::vector<Case> control_cases();
std::vector<Case> fault_cases();
std::vector<Case> driver_cases();

// Fails the case and goes on.
void fail(const char* file, int line, const std::string& what);
std::string said();  // what has gone to stderr so far

#define CHECK(condition) \
  do {                   \
    if (!(condition)) fail(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQ(got, want)                                                                                                       \
  do {                                                                                                                            \
    auto g_ = (got);                                                                                                              \
    auto w_ = (want);                                                                                                             \
    if (!(g_ == w_)) fail(__FILE__, __LINE__, std::string(#got) + ": got " + std::to_string(g_) + ", want " + std::to_string(w_)); \
  } while (0)

// A function of the library under test; ends the test where there is none.
void* function(const char* name);

// cuXxx(args...) by name. Integers are passed as 64 bits, as Go does.
template <class... Args>
int call(const char* name, Args... args) {
  auto word = [](auto v) {
    if constexpr (std::is_pointer_v<decltype(v)>) return reinterpret_cast<uint64_t>(v);
    else return static_cast<uint64_t>(v);
  };
  uint64_t a[11] = {word(args)...};
  using F = int (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
  return reinterpret_cast<F>(function(name))(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10]);
}
inline int call(const char* name) { return call(name, 0); }
#define MUST(...) CHECK_EQ(call(__VA_ARGS__), 0)

using Handle = uint64_t;

// A device with its context current, a stream and a module.
struct Card {
  Handle context = 0, stream = 0, module = 0;
  explicit Card(int number = 0);
  void use() const;
  int load(const std::string& ptx, std::string* log = nullptr);
  Handle kernel(const char* name = "k") const;
  uint64_t alloc(size_t n) const;
  int launch(Handle kernel, unsigned grid, unsigned block, std::vector<uint64_t> params, unsigned shared = 0) const;
  int sync() const;
  template <class T>
  uint64_t upload(const std::vector<T>& v) const {
    uint64_t p = alloc(v.size() * sizeof(T));
    MUST("cuMemcpyHtoDAsync_v2", p, v.data(), v.size() * sizeof(T), stream);
    return p;
  }
  template <class T>
  std::vector<T> download(uint64_t p, size_t n) const {
    std::vector<T> v(n);
    MUST("cuMemcpyDtoHAsync_v2", v.data(), p, n * sizeof(T), stream);
    return v;
  }
};

// A program with one kernel k of 64-bit parameters p0, p1, ..: their values are in
// %p0, %p1.., as global addresses; %tid is the thread's number in its block.
// Registers: %h<16> .b16, %r<64> .b32, %d<32> .b64, %f<32> .f32, %q<16> .pred.
std::string program(int params, const std::string& body, int target = 80);

// What a warp's lanes make of their inputs: lane l has in[l*inputs+n] in %r<n> and
// leaves out[l*outputs+n] in %o<n>.
std::vector<uint32_t> lanes(const std::string& body, const std::vector<uint32_t>& in, int outputs, int target = 80);

// Words that are interesting, and pseudorandom ones.
uint32_t random_word();
std::vector<uint32_t> words(size_t n);
inline uint32_t bits_of(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  return b;
}
inline float float_of(uint32_t b) {
  float f;
  memcpy(&f, &b, 4);
  return f;
}
