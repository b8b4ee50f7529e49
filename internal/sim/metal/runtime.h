// The Objective-C runtime: classes, selectors, messages, and reference counts that
// are checked. An object that is gone stays in memory for a while, so that a
// message to it is told from one to a living object.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace metalsim {

using Selector = const char*;  // registered: equal names are one pointer
using Method = void (*)();

struct Class {
  const char* name;
  std::unordered_map<Selector, Method> methods, class_methods;

  explicit Class(const char* n);  // with retain, release, autorelease
  template <class R, class... A>
  void method(const char* selector, R (*f)(A...)) { add(methods, selector, reinterpret_cast<Method>(f)); }
  template <class R, class... A>
  void class_method(const char* selector, R (*f)(A...)) { add(class_methods, selector, reinterpret_cast<Method>(f)); }

 private:
  void add(std::unordered_map<Selector, Method>& to, const char* selector, Method f);
};

constexpr uint64_t object_mark = 0x6d6574616c73696d;

// Made with one reference, which is its maker's.
class Object {
 public:
  explicit Object(Class& c);
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const char* class_name() const { return class_->name; }
  bool alive() const { return references_ > 0; }
  Method find(Selector s) const;
  bool is_object() const { return mark_ == object_mark; }
  void retain();
  void release();
  Object* autorelease();  // gives up one reference when the thread's pool is drained
  static void forget_oldest();

 protected:
  virtual ~Object() = default;
  virtual void dispose() {}  // at the last release: gives up what the object holds
  bool is_class_ = false;
  bool immortal_ = false;    // outlives its last release, and is not among the living that are counted

 private:
  friend struct Registry;
  uint64_t mark_;
  Class* class_;
  std::atomic<int64_t> references_{1};
  std::atomic<bool> pooled_{false};  // was autoreleased where there was no pool
};

// A class by name, made at its first use; objc_getClass finds those that have been.
Class& class_named(const char* name);

// Ends the process with a message, as Metal's own assertions do.
[[noreturn]] void fatal(const char* format, ...) __attribute__((format(printf, 1, 2)));

uint64_t messages();  // sent so far
std::string living();  // "2 MTLBuffer, 1 NSString", or nothing

// A receiver or argument that must be an object of class T, or nil.
template <class T>
T* checked(Object* o, const char* what) {
  T* t = dynamic_cast<T*>(o);
  if (o && !t) fatal("%s is of class %s", what, o->class_name());
  if (o && !o->alive()) fatal("%s: a %s that has been released", what, o->class_name());
  return t;
}

constexpr uint64_t max_threadgroup_memory = 32 << 10;

void add_foundation();
void add_metal();

}  // namespace metalsim

extern "C" metalsim::Object* objc_getClass(const char* name);
