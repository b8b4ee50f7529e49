// Classes of Foundation.
#pragma once
#include "runtime.h"

namespace metalsim {

struct String : Object {
  const std::string text;
  explicit String(std::string t) : Object(class_named("NSString")), text(std::move(t)) {}
};

struct Error : Object {
  String* const domain;
  String* const description;
  const int64_t code;
  Error(const char* d, int64_t c, const std::string& text) : Object(class_named("NSError")), domain(new String(d)), description(new String(text)), code(c) {}
  void dispose() override { domain->release(), description->release(); }
};

// Keeps a reference to each of its objects.
struct Array : Object {
  const std::vector<Object*> objects;
  explicit Array(std::vector<Object*> o) : Object(class_named("NSArray")), objects(std::move(o)) {
    for (auto* one : objects) one->retain();
  }
  void dispose() override {
    for (auto* o : objects) o->release();
  }
};

// Of the thread that makes it.
struct Pool : Object {
  std::vector<Object*> objects;
  Pool();
  void dispose() override;
};

Object* autoreleased(std::string text);  // as NSString

}  // namespace metalsim
