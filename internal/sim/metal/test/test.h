// Tests of the software Metal device: Objective-C messages as drover sends them,
// and small MSL programs. A case runs in a process of its own, since the library
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

std::vector<Case> runtime_cases();
std::vector<Case> language_cases();
std::vector<Case> execution_cases();
std::vector<Case> rule_cases();
std::vector<Case> fault_cases();

// Fails the case and goes on.
void fail(const char* file, int line, const std::string& what);

inline std::string text_of(const std::string& s) { return "\"" + s + "\""; }
inline std::string text_of(const char* s) { return text_of(std::string(s ? s : "(null)")); }
template <class T>
std::string text_of(T v) {
  if constexpr (std::is_pointer_v<T>) return std::to_string(reinterpret_cast<uint64_t>(v));
  else return std::to_string(v);
}

#define CHECK(condition) \
  do {                   \
    if (!(condition)) fail(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQ(got, want)                                                                                                     \
  do {                                                                                                                          \
    auto g_ = (got);                                                                                                            \
    auto w_ = (want);                                                                                                           \
    if (!(g_ == w_)) fail(__FILE__, __LINE__, std::string(#got) + ": got " + text_of(g_) + ", want " + text_of(w_));             \
  } while (0)
// a text has all of these parts
#define CHECK_SAYS(text, ...) says(__FILE__, __LINE__, text, {__VA_ARGS__})
void says(const char* file, int line, const std::string& text, std::vector<std::string> parts);

using Id = void*;
struct Size {
  uint64_t width, height, depth;
};

void* function(const char* name);  // of the library under test; ends the test where there is none
const char* selector(const char* name);
Id class_named(const char* name);

template <class R = Id, class... A>
R send(Id receiver, const char* message, A... a) {
  return reinterpret_cast<R (*)(Id, const char*, A...)>(function("objc_msgSend"))(receiver, selector(message), a...);
}

Id string(const std::string& s);  // autoreleased
std::string text(Id string);
std::string living();  // objects, by class

// What f says on stderr before it ends the process; a failure where it does not.
std::string death(const std::function<void()>& f);

using u64 = uint64_t;

// A device with a queue, a library and a pool for what is autoreleased.
struct Gpu {
  Id pool, device, queue, library = nullptr;
  std::vector<Id> owned;
  explicit Gpu(const std::string& source = "");
  ~Gpu();
  std::string compile(const std::string& source, Id options = nullptr);  // the error, or nothing
  Id pipeline(const char* kernel = "k");
  Id buffer(u64 bytes);
  template <class T>
  Id buffer(const std::vector<T>& v) {
    Id b = buffer(v.size() * sizeof(T));
    memcpy(send<void*>(b, "contents"), v.data(), v.size() * sizeof(T));
    return b;
  }
  template <class T>
  std::vector<T> content(Id b) {
    T* p = send<T*>(b, "contents");
    return std::vector<T>(p, p + send<u64>(b, "length") / sizeof(T));
  }
  Id command_buffer() { return send(queue, "commandBuffer"); }
  Id encoder(Id commands, Id pipeline);
  std::string finish(Id commands, Id encoder);  // the error, or nothing
  // Runs kernel on buffers at index 0 and on.
  std::string run(const char* kernel, std::vector<Id> buffers, Size groups, Size threads, u64 memory = 0);
};

void set_buffer(Id encoder, Id buffer, u64 index, u64 offset = 0);
void dispatch(Id encoder, Size groups, Size threads);

// A program of one kernel k(device float* x, device float* y, ...) with what most tests use.
std::string program(const std::string& body, const std::string& before = "");
