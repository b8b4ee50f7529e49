#include "foundation.h"

namespace metalsim {

Object* autoreleased(std::string text) { return (new String(std::move(text)))->autorelease(); }

void add_foundation() {
  Class& string = class_named("NSString");
  string.class_method("stringWithUTF8String:", +[](Object*, Selector, const char* text) {
    if (!text) fatal("stringWithUTF8String: without a string");
    return autoreleased(text);
  });
  string.method("UTF8String", +[](String* s, Selector) { return s->text.c_str(); });
  string.method("length", +[](String* s, Selector) {
    uint64_t n = 0;  // of UTF-16
    for (unsigned char c : s->text) n += (c & 0xc0) != 0x80, n += c >= 0xf0;
    return n;
  });

  Class& error = class_named("NSError");
  error.method("localizedDescription", +[](Error* e, Selector) { return e->description; });
  error.method("domain", +[](Error* e, Selector) { return e->domain; });
  error.method("code", +[](Error* e, Selector) { return e->code; });

  Class& array = class_named("NSArray");
  array.method("count", +[](Array* a, Selector) { return static_cast<uint64_t>(a->objects.size()); });
  array.method("objectAtIndex:", +[](Array* a, Selector, uint64_t i) {
    if (i >= a->objects.size()) fatal("objectAtIndex: %llu of a NSArray of %zu", static_cast<unsigned long long>(i), a->objects.size());
    return a->objects[i];
  });

  Class& pool = class_named("NSAutoreleasePool");
  pool.class_method("new", +[](Object*, Selector) -> Object* { return new Pool; });
  pool.method("drain", +[](Pool* p, Selector) { p->release(); });
}

}  // namespace metalsim
