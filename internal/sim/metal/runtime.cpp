#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "foundation.h"

namespace metalsim {

constexpr size_t kept_objects = 100000;  // after their last release

// What the whole process shares; it is never destroyed.
struct Registry {
  std::mutex lock;
  std::set<std::string> selectors;
  std::map<std::string, Class*> classes;
  std::map<std::string, Object*> class_objects;
  std::map<const char*, int64_t> living, unpooled;  // by class
  std::deque<Object*> gone;
  std::atomic<uint64_t> messages{0};

  static Registry& get() {
    static auto* r = new Registry;
    return *r;
  }
  void made(const Object& o) { living[o.class_->name]++; }
  void ended(Object* o) {
    Object* oldest = nullptr;
    {
      std::lock_guard hold(lock);
      if (!o->immortal_) living[o->class_->name]--;
      gone.push_back(o);
      if (gone.size() > kept_objects) oldest = gone.front(), gone.pop_front();
    }
    if (oldest) oldest->mark_ = 0, delete oldest;
  }
};

namespace {

struct ClassObject : Object {
  explicit ClassObject(Class& c) : Object(c) { is_class_ = immortal_ = true; }
};

thread_local std::vector<Pool*> pools;

void add_all() {
  static std::once_flag once;
  std::call_once(once, [] {
    add_foundation();
    add_metal();
  });
}

Selector registered(const char* name) {
  Registry& r = Registry::get();
  std::lock_guard hold(r.lock);
  return r.selectors.insert(name).first->c_str();
}

Object* retain(Object* o, Selector) {
  o->retain();
  return o;
}
void release(Object* o, Selector) { o->release(); }
Object* autorelease(Object* o, Selector) { return o->autorelease(); }

}  // namespace

Class::Class(const char* n) : name(n) {
  method("retain", retain);
  method("release", release);
  method("autorelease", autorelease);
}

void Class::add(std::unordered_map<Selector, Method>& to, const char* selector, Method f) { to[registered(selector)] = f; }

Class& class_named(const char* name) {
  Registry& r = Registry::get();
  {
    std::lock_guard hold(r.lock);
    if (auto it = r.classes.find(name); it != r.classes.end()) return *it->second;
  }
  auto* c = new Class(name);
  auto* o = new ClassObject(*c);
  std::lock_guard hold(r.lock);
  r.class_objects[name] = o;
  return *(r.classes[name] = c);
}

Object::Object(Class& c) : mark_(object_mark), class_(&c) {
  Registry& r = Registry::get();
  std::lock_guard hold(r.lock);
  r.living[c.name]++;
}

Method Object::find(Selector s) const {
  if (!is_object()) fatal("message %s to what is no object", s);
  if (!alive()) fatal("message %s to a %s that has been released", s, class_name());
  auto& methods = is_class_ ? class_->class_methods : class_->methods;
  auto it = methods.find(s);
  if (it != methods.end()) return it->second;
  Registry& r = Registry::get();
  {
    std::lock_guard hold(r.lock);
    auto known = r.selectors.find(s);
    if (known == r.selectors.end() || known->c_str() != s) fatal("message to a %s with a selector that sel_registerName did not give: %s", class_name(), s);
  }
  fatal("unrecognized selector %c[%s %s]", is_class_ ? '+' : '-', class_name(), s);
}

void Object::retain() {
  if (references_.fetch_add(1) <= 0) fatal("retain of a %s that has been released", class_name());
}

void Object::release() {
  int64_t left = references_.fetch_sub(1) - 1;
  if (left < 0) fatal("release of a %s that has been released", class_name());
  if (left > 0) return;
  if (immortal_) fatal("release of a %s without a retain", class_name());
  dispose();
  Registry::get().ended(this);
}

Object* Object::autorelease() {
  if (!pools.empty()) {
    pools.back()->objects.push_back(this);
  } else {
    pooled_ = true;
    Registry& r = Registry::get();
    std::lock_guard hold(r.lock);
    r.unpooled[class_->name]++;
  }
  return this;
}

Pool::Pool() : Object(class_named("NSAutoreleasePool")) { pools.push_back(this); }

// Draining a pool drains those begun after it too.
void Pool::dispose() {
  bool mine = false;
  for (auto* p : pools) mine |= p == this;
  if (!mine) fatal("a NSAutoreleasePool is drained on a thread that did not begin it, or twice");
  while (true) {
    Pool* last = pools.back();
    std::vector<Object*> objects = std::move(last->objects);
    last->objects.clear();
    for (auto* o : objects) o->release();
    if (!last->objects.empty()) continue;
    pools.pop_back();
    if (last == this) return;
  }
}

void fatal(const char* format, ...) {
  va_list args;
  va_start(args, format);
  char text[4096];
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fprintf(stderr, "metalsim: %s\n", text);
  abort();
}

uint64_t messages() { return Registry::get().messages; }

std::string living() {
  Registry& r = Registry::get();
  std::lock_guard hold(r.lock);
  std::map<std::string, int64_t> counts;
  for (auto& l : r.living) counts[l.first] += l.second;
  for (auto& c : r.class_objects) counts[c.first]--;
  std::string s;
  for (auto& c : counts) {
    if (c.second <= 0 || c.first == "MTLDevice") continue;
    s += (s.empty() ? "" : ", ") + std::to_string(c.second) + " " + c.first;
  }
  for (auto& u : r.unpooled) s += (s.empty() ? "" : ", ") + std::to_string(u.second) + " " + u.first + " autoreleased without a pool";
  return s;
}

}  // namespace metalsim

using metalsim::Object;
using metalsim::Registry;

extern "C" {

// The method for the first arguments of a message. Where the method returns a
// structure in memory, its address comes first, then the receiver.
metalsim::Method metalsim_method(const void* first, const void* second, const void* third) {
  Registry::get().messages.fetch_add(1, std::memory_order_relaxed);
  auto *receiver = static_cast<const Object*>(first), *behind = static_cast<const Object*>(second);
  if (!receiver->is_object() && behind && behind->is_object()) return behind->find(static_cast<metalsim::Selector>(third));
  return receiver->find(static_cast<metalsim::Selector>(second));
}

metalsim::Selector sel_registerName(const char* name) { return metalsim::registered(name); }

Object* objc_getClass(const char* name) {
  metalsim::add_all();
  Registry& r = Registry::get();
  std::lock_guard hold(r.lock);
  auto it = r.class_objects.find(name);
  return it == r.class_objects.end() ? nullptr : it->second;
}

// Objects that live, by class, as text of at most n - 1 bytes; how long it would be.
uint64_t metalsim_living(char* text, uint64_t n) {
  std::string s = metalsim::living();
  if (n) snprintf(text, n, "%s", s.c_str());
  return s.size();
}

uint64_t metalsim_messages() { return metalsim::messages(); }

// objc_msgSend(receiver, selector, ...): jumps to the method with every register
// and the stack as they are; nil gives 0. objc_msgSend_stret is what x86-64 has
// for methods that return a structure in memory; arm64 has no other name for it,
// so that here both names do both.
void objc_msgSend();
void objc_msgSend_stret();
asm(R"(
.globl objc_msgSend, objc_msgSend_stret
.type objc_msgSend, @function
.type objc_msgSend_stret, @function
objc_msgSend:
objc_msgSend_stret:
  testq %rdi, %rdi
  jz 1f
  pushq %rbp
  movq %rsp, %rbp
  subq $192, %rsp
  andq $-16, %rsp
  movq %rdi, (%rsp)
  movq %rsi, 8(%rsp)
  movq %rdx, 16(%rsp)
  movq %rcx, 24(%rsp)
  movq %r8, 32(%rsp)
  movq %r9, 40(%rsp)
  movq %rax, 48(%rsp)
  movups %xmm0, 64(%rsp)
  movups %xmm1, 80(%rsp)
  movups %xmm2, 96(%rsp)
  movups %xmm3, 112(%rsp)
  movups %xmm4, 128(%rsp)
  movups %xmm5, 144(%rsp)
  movups %xmm6, 160(%rsp)
  movups %xmm7, 176(%rsp)
  call metalsim_method@PLT
  movq %rax, %r11
  movq (%rsp), %rdi
  movq 8(%rsp), %rsi
  movq 16(%rsp), %rdx
  movq 24(%rsp), %rcx
  movq 32(%rsp), %r8
  movq 40(%rsp), %r9
  movq 48(%rsp), %rax
  movups 64(%rsp), %xmm0
  movups 80(%rsp), %xmm1
  movups 96(%rsp), %xmm2
  movups 112(%rsp), %xmm3
  movups 128(%rsp), %xmm4
  movups 144(%rsp), %xmm5
  movups 160(%rsp), %xmm6
  movups 176(%rsp), %xmm7
  leave
  jmp *%r11
1:
  xorl %eax, %eax
  xorl %edx, %edx
  xorps %xmm0, %xmm0
  xorps %xmm1, %xmm1
  ret
.size objc_msgSend, . - objc_msgSend
)");

}  // extern "C"
