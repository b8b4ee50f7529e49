#include "source.h"

#include <cstdlib>
#include <map>
#include <set>

#include "tokens.h"

namespace metalsim {
namespace {

struct Edit {
  size_t begin, end;
  std::string with;
};

class Reader : Tokens {
 public:
  explicit Reader(const std::string& text) : Tokens(text) {}

  Source read() {
    Source s;
    try {
      split();
      check_strictly(*this);
      functions(s);
      entries(s);
    } catch (const Refused& r) {
      s.error = place(r.at) + ": error: " + r.why;
      return s;
    }
    s.text = edited() + s.text;
    return s;
  }

 private:
  std::vector<Edit> edits_;
  struct Template {
    std::vector<Param> params;
    unsigned max_threads;
  };
  std::map<std::string, Template> templates_;
  int variables_ = 0;

  void functions(Source& s) {
    size_t declared = 0;  // first token of the declaration
    int depth = 0;
    for (size_t t = 0; t < tokens.size(); t++) {
      if (attribute(t)) {
        size_t end = behind(t, "[", "]");
        std::string blank = text.substr(tokens[t].begin, tokens[end - 1].end - tokens[t].begin);
        for (char& c : blank)
          if (c != '\n') c = ' ';
        edits_.push_back({tokens[t].begin, tokens[end - 1].end, blank});
        t = end - 1;
      } else if (is(t, "{")) {
        depth++;
        declared = t + 1;
      } else if (is(t, "}")) {
        depth--;
        declared = t + 1;
      } else if (is(t, ";")) {
        declared = t + 1;
      } else if (is(t, "kernel") && depth == 0) {
        function(s, declared, t);
      } else if (is(t, "threadgroup") && depth > 0 && (t == declared || (is(declared, "static") && t == declared + 1))) {
        variable(t);
      } else if (is(t, "vec") && is(t + 1, "<")) {
        // vec<T, 4>(...) is no constructor of C++
        size_t end = behind(t + 1, "<", ">");
        if (!is(end, "(") || is(t - 1, "operator")) continue;
        edits_.push_back({tokens[t].begin, tokens[t].begin, "metal::make<"});
        edits_.push_back({tokens[end - 1].end, tokens[end - 1].end, ">"});
      }
    }
  }

  // A kernel, a template of kernels, or an instance of such.
  void function(Source& s, size_t declared, size_t at) {
    bool is_template = is(declared, "template") && is(declared + 1, "<"), is_instance = is(declared, "template") && !is_template;
    std::string host_name;
    unsigned max_threads = 1024;
    for (size_t t = declared; t < tokens.size() && !is(t, "{") && !is(t, ";") && !(t > at && is(t, "(")); t++) {
      if (!attribute(t)) continue;
      if (is(t + 2, "host_name")) host_name = word(t + 4).substr(1, word(t + 4).size() - 2);
      if (is(t + 2, "max_total_threads_per_threadgroup")) max_threads = static_cast<unsigned>(atoi(word(t + 4).c_str()));
      t = behind(t, "[", "]") - 1;
    }
    if (is_instance) {
      instance(s, at, host_name, max_threads);
      return;
    }
    size_t open = at + 1;
    while (open < tokens.size() && !is(open, "(") && !is(open, ";")) open = attribute(open) ? behind(open, "[", "]") : open + 1;
    if (!is(open, "(") || !name(open - 1)) refuse(at, "a kernel needs a name and parameters");
    std::string called = word(open - 1);
    size_t close = behind(open, "(", ")") - 1;
    if (is(close + 1, ";")) return;  // declared only
    std::vector<Param> params = parameters(open + 1, close);
    if (is_template) {
      templates_[called] = {params, max_threads};
    } else {
      add(s, {host_name.empty() ? called : host_name, called, params, max_threads}, at);
    }
  }

  void add(Source& s, Function f, size_t at) {
    for (auto& other : s.functions)
      if (other.name == f.name) refuse(at, "a second kernel of the name " + f.name);
    s.functions.push_back(std::move(f));
  }

  // template [[host_name("h")]] kernel void f<...>(...); or kernel decltype(f<...>) f<...>;
  void instance(Source& s, size_t at, const std::string& host_name, unsigned max_threads) {
    size_t t = at + 1, found = 0, end = 0;
    while (t < tokens.size() && !is(t, ";")) {
      if (attribute(t)) {
        t = behind(t, "[", "]");
      } else if (name(t) && is(t + 1, "<")) {
        found = t;
        t = end = behind(t + 1, "<", ">");
      } else if (is(t, "(")) {
        t = behind(t, "(", ")");
      } else {
        t++;
      }
    }
    if (!found) refuse(at, "an instance of a kernel needs template arguments");
    if (host_name.empty()) refuse(at, "an instance of a kernel needs [[host_name(\"...\")]]");
    auto it = templates_.find(word(found));
    if (it == templates_.end()) refuse(found, "no template of a kernel " + word(found));
    std::string called = text.substr(tokens[found].begin, tokens[end - 1].end - tokens[found].begin);
    add(s, {host_name, called, it->second.params, max_threads < it->second.max_threads ? max_threads : it->second.max_threads}, at);
  }

  std::vector<Param> parameters(size_t from, size_t to) {
    std::vector<Param> params;
    std::set<std::pair<int, unsigned>> taken;
    std::string dimensions;  // of positions and sizes of the grid: "", "2" or "3"
    bool sized = false;
    for (size_t t = from; t < to;) {
      size_t begin = t, found = 0;
      Param p{Param::position, 0, "", false, ""};
      bool pointer = false, local = false;
      while (t < to && !is(t, ",")) {
        if (attribute(t)) {
          found = t;
          t = behind(t, "[", "]");
          continue;
        }
        if (is(t, "<")) {
          t = behind(t, "<", ">");
          continue;
        }
        pointer |= is(t, "*");
        p.reference |= is(t, "&");
        local |= is(t, "threadgroup");
        if (name(t)) p.name = word(t);
        t++;
      }
      if (!found) refuse(begin, "kernel parameter " + p.name + " without an attribute");
      p.attribute = word(found + 2);
      if (is(found + 3, "(")) p.index = static_cast<unsigned>(atoi(word(found + 4).c_str()));
      if (p.attribute == "buffer") p.kind = Param::buffer;
      if (p.attribute == "threadgroup") p.kind = Param::memory;
      if (p.kind == Param::position) {
        check_position(found + 2, pointer || p.reference);
        if (p.attribute.find("index_in") == std::string::npos && p.attribute.find("simdgroup") == std::string::npos) {
          std::string type = word(begin), d = type.substr(type.find_first_of("23") == std::string::npos ? type.size() : type.size() - 1);
          if (sized && d != dimensions) refuse(begin, "[[" + p.attribute + "]] has another number of dimensions than the kernel's other positions and sizes");
          dimensions = d, sized = true;
        }
      } else {
        if (!pointer && !p.reference) refuse(begin, "kernel parameter " + p.name + " must be a pointer or a reference");
        if (local != (p.kind == Param::memory)) refuse(begin, "kernel parameter " + p.name + ": [[" + p.attribute + "]] of another address space");
        if (p.index >= 31) refuse(found, "index " + std::to_string(p.index) + " is out of bounds: 0 to 30");
        if (!taken.insert({p.kind, p.index}).second) refuse(found, "index " + std::to_string(p.index) + " is taken");
      }
      params.push_back(p);
      t++;
    }
    return params;
  }

  void check_position(size_t t, bool indirect) const {
    static const char* const known[] = {"thread_position_in_grid", "threadgroup_position_in_grid", "thread_position_in_threadgroup", "threads_per_threadgroup",
                                        "dispatch_threads_per_threadgroup", "threadgroups_per_grid", "threads_per_grid", "thread_index_in_threadgroup",
                                        "thread_index_in_simdgroup", "simdgroup_index_in_threadgroup", "simdgroups_per_threadgroup", "threads_per_simdgroup"};
    for (auto* k : known)
      if (is(t, k)) {
        if (indirect) refuse(t, "[[" + word(t) + "]] is no pointer or reference");
        return;
      }
    refuse(t, "attribute " + word(t) + " of a kernel parameter is not known");
  }

  // threadgroup T a[4], b; becomes references to places in the memory of the running threadgroup
  void variable(size_t at) {
    size_t end = at;
    while (end < tokens.size() && !is(end, ";")) {
      if (is(end, "*") || is(end, "&") || is(end, "=") || is(end, "(")) {
        // constants in brackets may have any of these
        size_t open = at;
        while (open < end && !is(open, "[")) open++;
        if (open == end) return;
      }
      end++;
    }
    // the type ends before the first name that is followed by [ , or ;
    size_t first = at + 1;
    while (first < end && !(name(first) && (is(first + 1, "[") || is(first + 1, ",") || is(first + 1, ";")))) first = is(first + 1, "<") ? behind(first + 1, "<", ">") : first + 1;
    if (first >= end || first == at + 1) return;  // no declaration that is understood: the compiler refuses it
    std::string type = text.substr(tokens[at + 1].begin, tokens[first].begin - tokens[at + 1].begin), with;
    for (size_t t = first; t < end; t++) {
      std::string called = word(t), id = called + "_" + std::to_string(variables_++);
      size_t dims = t + 1;
      t = dims;
      while (is(t, "[")) t = behind(t, "[", "]");
      std::string bounds = t > dims ? text.substr(tokens[dims].begin, tokens[t - 1].end - tokens[dims].begin) : "";
      with += "typedef " + type + id + "_type" + bounds + "; static device " + id + "_type " + id +
              "_metalsim_variable __attribute__((section(\"metalsim_threadgroup\"), used, aligned(16))); threadgroup " + id + "_type& " + called + " = *(threadgroup " + id +
              "_type*)metalsim::variable((metalsim::address)&" + id + "_metalsim_variable); ";
      if (!is(t, ",") && !is(t, ";")) refuse(t, "threadgroup variable " + called + " cannot be read");
    }
    // on the lines that it had
    for (size_t i = tokens[at].begin; i < tokens[end].end; i++)
      if (text[i] == '\n') with += '\n';
    edits_.push_back({tokens[at].begin, tokens[end].end, with});
  }

  // A function metalsim_entry_N for each kernel, which gives it its arguments, and
  // one that says where the kernel is.
  void entries(Source& s) const {
    std::string t = "\n#line 1 \"metalsim\"\n#pragma OPENCL EXTENSION __cl_clang_function_pointers : enable\nextern \"C\" {\n";
    for (size_t i = 0; i < s.functions.size(); i++) {
      const Function& f = s.functions[i];
      std::string n = std::to_string(i), args;
      for (auto& p : f.params) {
        if (!args.empty()) args += ", ";
        if (p.kind == Param::position) args += "metalsim::" + p.attribute + "()";
        else args += std::string("metalsim::") + (p.reference ? "Reference" : "Pointer") + "{metalsim::" + (p.kind == Param::buffer ? "buffer" : "threadgroup_memory") + "(" + std::to_string(p.index) + ")}";
      }
      t += "METALSIM_RUNTIME void metalsim_entry_" + n + "() { " + f.instance + "(" + args + "); }\n";
      t += "METALSIM_RUNTIME metalsim::address metalsim_address_" + n + "() { return (metalsim::address)&" + f.instance + "; }\n";
    }
    s.text = t + "}\n";
  }

  std::string edited() const {
    std::string out;
    size_t at = 0;
    for (auto& e : edits_) {
      if (e.begin < at) continue;  // inside what is written anew already
      out += text.substr(at, e.begin - at) + e.with;
      at = e.end;
    }
    return out + text.substr(at);
  }
};

}  // namespace

Source read_source(const std::string& text) { return Reader(text).read(); }

}  // namespace metalsim
