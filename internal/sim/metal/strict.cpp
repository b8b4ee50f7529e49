// What Apple's compiler refuses and ours would not (Metal Shading Language
// Specification 3.1, 1.4.1 "C++14 Restrictions" and 4 "Address Spaces").
#include <map>
#include <set>

#include "tokens.h"

namespace metalsim {
namespace {

const char* const words[] = {"goto", "virtual", "override", "throw", "try", "catch", "new", "delete", "dynamic_cast", "typeid", "noexcept", "register", "thread_local", "asm", "double"};
const char* const spaces[] = {"device", "constant", "threadgroup", "thread", "threadgroup_imageblock", "ray_data"};
// words before a * that are no types
const char* const no_types[] = {"return", "sizeof", "case", "else", "do", "and", "or", "not"};

class Checker {
 public:
  explicit Checker(const Tokens& t) : t_(t) {}

  void check() {
    int depth = 0, parens = 0;
    size_t begin = 0;  // of the statement or declaration
    for (size_t i = 0; i < t_.tokens.size(); i++) {
      if (t_.attribute(i)) {
        i = t_.behind(i, "[", "]") - 1;
        continue;
      }
      check_word(i);
      if (t_.is(i, "{") || t_.is(i, "}") || t_.is(i, ";")) {
        depth += t_.is(i, "{") ? 1 : t_.is(i, "}") ? -1 : 0;
        begin = i + 1;
      } else if (i == begin) {
        declaration(i);
      }
      if (t_.is(i, "(")) cast(i);
      if (depth == 0 && parens == 0 && t_.is(i, "(") && i > 0 && t_.name(i - 1)) function(i);
      parens += t_.is(i, "(") ? 1 : t_.is(i, ")") ? -1 : 0;
    }
    recursion();
  }

 private:
  const Tokens& t_;
  struct Body {
    size_t at;
    int definitions;
    std::set<std::string> calls;
  };
  std::map<std::string, Body> functions_;

  template <size_t N>
  bool one_of(size_t i, const char* const (&list)[N]) const {
    for (auto* w : list)
      if (t_.is(i, w)) return true;
    return false;
  }

  void check_word(size_t i) const {
    if (one_of(i, words) && !(t_.is(i, "delete") && t_.is(i - 1, "="))) t_.refuse(i, "MSL has no " + t_.word(i));
    if (t_.is(i, "if") && t_.is(i + 1, "constexpr")) t_.refuse(i, "MSL 3.1 is C++14, which has no if constexpr");
    if (t_.is(i, "auto") && t_.is(i + 1, "[")) t_.refuse(i, "MSL 3.1 is C++14, which has no structured bindings");
    if ((t_.is(i, "struct") || t_.is(i, "class")) && t_.name(i + 1) && t_.is(i + 2, ":") && !t_.is(i + 3, ":")) t_.refuse(i, "MSL has no derived classes");
    bool value_before = i > 0 && (t_.name(i - 1) || t_.is(i - 1, ")") || t_.is(i - 1, "]")) && !t_.is(i - 1, "return");
    if (t_.is(i, "[") && !value_before && (t_.is(i + 1, "]") || t_.is(i + 1, "&") || t_.is(i + 1, "=")) && !t_.is(i - 1, "operator")) t_.refuse(i, "MSL has no lambda expressions");
  }

  // Behind the > for the < at i; 0 where that is a comparison.
  size_t template_end(size_t i) const {
    int depth = 0;
    for (; i < t_.tokens.size() && !t_.is(i, ";") && !t_.is(i, "{"); i++) {
      if (t_.is(i, "<")) depth++;
      if (t_.is(i, ">") && --depth == 0) return i + 1;
      if (depth == 0) return 0;
    }
    return 0;
  }

  // Behind a type's name: float, vec<T, 4>, metal::float4; 0 where there is none.
  size_t type(size_t i) const {
    while (t_.is(i, "const") || t_.is(i, "volatile") || t_.is(i, "static") || t_.is(i, "inline")) i++;
    if (!t_.name(i) || one_of(i, no_types) || one_of(i, spaces) || t_.is(i, "auto") || t_.is(i, "template") || t_.is(i, "using") || t_.is(i, "typedef")) return 0;
    if (t_.is(i, "unsigned") && t_.name(i + 1)) i++;
    i++;
    while (t_.is(i, ":") && t_.is(i + 1, ":") && t_.name(i + 2)) i += 3;
    if (t_.is(i, "<") && !(i = template_end(i))) return 0;
    while (t_.is(i, "const") || t_.is(i, "volatile")) i++;
    return i;
  }

  [[noreturn]] void without_space(size_t i) const {
    t_.refuse(i, std::string(t_.is(i, "*") ? "pointer" : "reference") + " without an address space: device, constant, threadgroup or thread");
  }

  // T* p and T& r that begin a statement or a declaration
  void declaration(size_t i) const {
    size_t end = type(i);
    if (!end || !(t_.is(end, "*") || t_.is(end, "&")) || !t_.name(end + 1)) return;
    if (t_.is(end + 2, "=") || t_.is(end + 2, ";") || t_.is(end + 2, ",") || t_.is(end + 2, "[") || t_.is(end + 2, "(")) without_space(end);
  }

  void cast(size_t open) const {
    size_t end = type(open + 1);
    if (end && t_.is(end, "*") && (t_.is(end + 1, ")") || t_.is(end + 1, "*"))) without_space(end);
  }

  // Parameters, and which functions the body calls.
  void function(size_t open) {
    size_t close = t_.behind(open, "(", ")") - 1, body = close + 1;
    while (t_.is(body, "const") || one_of(body, spaces)) body++;
    bool space = false;
    int depth = 0;
    size_t indirect = 0;
    for (size_t i = open + 1; i <= close; i++) {
      if (t_.attribute(i)) i = t_.behind(i, "[", "]");
      if (i >= close || (t_.is(i, ",") && depth == 0)) {
        if (indirect && !space) without_space(indirect);
        space = false, indirect = 0;
        continue;
      }
      depth += t_.is(i, "(") || t_.is(i, "<") ? 1 : t_.is(i, ")") || t_.is(i, ">") ? -1 : 0;
      space |= one_of(i, spaces);
      if (t_.is(i, "=")) {  // what follows is a value
        while (i + 1 < close && !(t_.is(i + 1, ",") && depth == 0)) i++;
        continue;
      }
      if (!indirect && (t_.is(i, "*") || t_.is(i, "&"))) indirect = i;
    }
    if (!t_.is(body, "{")) return;
    Body& f = functions_[t_.word(open - 1)];
    f.at = open - 1;
    f.definitions++;
    for (size_t i = body, end = t_.behind(body, "{", "}"); i < end; i++)
      if (t_.name(i) && (t_.is(i + 1, "(") || t_.is(template_end(i + 1), "("))) f.calls.insert(t_.word(i));
  }

  // Names with several definitions are overloads, which may call each other.
  void recursion() const {
    for (auto& f : functions_) {
      if (f.second.definitions > 1) continue;
      std::set<std::string> seen, next = f.second.calls;
      while (!next.empty()) {
        std::string name = *next.begin();
        next.erase(next.begin());
        if (name == f.first) t_.refuse(f.second.at, "recursion of " + name);
        auto called = functions_.find(name);
        if (called == functions_.end() || called->second.definitions > 1 || !seen.insert(name).second) continue;
        next.insert(called->second.calls.begin(), called->second.calls.end());
      }
    }
  }
};

}  // namespace

void check_strictly(const Tokens& t) { Checker(t).check(); }

}  // namespace metalsim
