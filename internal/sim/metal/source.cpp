#include "source.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

namespace metalsim {
namespace {

struct Token {
  size_t begin, end;
};

struct Edit {
  size_t begin, end;
  std::string with;
};

struct Refused {
  size_t at;
  std::string why;
};

class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {}

  Source read() {
    Source s;
    try {
      split();
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
  const std::string& text_;
  std::vector<Token> tokens_;
  std::vector<Edit> edits_;
  struct Template {
    std::vector<Param> params;
    unsigned max_threads;
  };
  std::map<std::string, Template> templates_;
  int variables_ = 0;

  bool is(size_t t, const char* what) const { return t < tokens_.size() && text_.compare(tokens_[t].begin, tokens_[t].end - tokens_[t].begin, what) == 0; }
  std::string word(size_t t) const { return t < tokens_.size() ? text_.substr(tokens_[t].begin, tokens_[t].end - tokens_[t].begin) : ""; }
  bool name(size_t t) const { return t < tokens_.size() && (isalpha(static_cast<unsigned char>(text_[tokens_[t].begin])) || text_[tokens_[t].begin] == '_'); }
  [[noreturn]] void refuse(size_t t, const std::string& why) const { throw Refused{tokens_[t < tokens_.size() ? t : tokens_.size() - 1].begin, why}; }

  // Tokens: names, numbers, strings, and single characters. Lines that begin with # are passed over.
  void split() {
    size_t i = 0, n = text_.size();
    bool fresh = true;
    while (i < n) {
      char c = text_[i];
      if (c == '\n') fresh = true;
      if (isspace(static_cast<unsigned char>(c))) {
        i++;
        continue;
      }
      if (c == '#' && fresh) {
        while (i < n && text_[i] != '\n') i++;
        continue;
      }
      fresh = false;
      size_t from = i++;
      if (isalnum(static_cast<unsigned char>(c)) || c == '_') {
        while (i < n && (isalnum(static_cast<unsigned char>(text_[i])) || text_[i] == '_' || (isdigit(static_cast<unsigned char>(c)) && text_[i] == '.'))) i++;
      } else if (c == '"' || c == '\'') {
        while (i < n && text_[i] != c) i += text_[i] == '\\' ? 2 : 1;
        i++;
      }
      tokens_.push_back({from, i < n ? i : n});
    }
  }

  // The token behind the bracket that closes the one at t.
  size_t behind(size_t t, const char* open, const char* close) const {
    int depth = 0;
    for (size_t i = t; i < tokens_.size(); i++) {
      if (is(i, open)) depth++;
      if (is(i, close) && --depth == 0) return i + 1;
    }
    refuse(t, std::string("no ") + close + " for this " + open);
  }

  bool attribute(size_t t) const { return is(t, "[") && is(t + 1, "[") && tokens_[t + 1].begin == tokens_[t].begin + 1; }

  void functions(Source& s) {
    size_t declared = 0;  // first token of the declaration
    int depth = 0;
    for (size_t t = 0; t < tokens_.size(); t++) {
      if (attribute(t)) {
        size_t end = behind(t, "[", "]");
        std::string blank = text_.substr(tokens_[t].begin, tokens_[end - 1].end - tokens_[t].begin);
        for (char& c : blank)
          if (c != '\n') c = ' ';
        edits_.push_back({tokens_[t].begin, tokens_[end - 1].end, blank});
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
        edits_.push_back({tokens_[t].begin, tokens_[t].begin, "metal::make<"});
        edits_.push_back({tokens_[end - 1].end, tokens_[end - 1].end, ">"});
      }
    }
  }

  // A kernel, a template of kernels, or an instance of such.
  void function(Source& s, size_t declared, size_t at) {
    bool is_template = is(declared, "template") && is(declared + 1, "<"), is_instance = is(declared, "template") && !is_template;
    std::string host_name;
    unsigned max_threads = 1024;
    for (size_t t = declared; t < tokens_.size() && !is(t, "{") && !is(t, ";") && !(t > at && is(t, "(")); t++) {
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
    while (open < tokens_.size() && !is(open, "(") && !is(open, ";")) open = attribute(open) ? behind(open, "[", "]") : open + 1;
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
    while (t < tokens_.size() && !is(t, ";")) {
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
    std::string called = text_.substr(tokens_[found].begin, tokens_[end - 1].end - tokens_[found].begin);
    add(s, {host_name, called, it->second.params, max_threads < it->second.max_threads ? max_threads : it->second.max_threads}, at);
  }

  std::vector<Param> parameters(size_t from, size_t to) {
    std::vector<Param> params;
    std::set<std::pair<int, unsigned>> taken;
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
    while (end < tokens_.size() && !is(end, ";")) {
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
    std::string type = text_.substr(tokens_[at + 1].begin, tokens_[first].begin - tokens_[at + 1].begin), with;
    for (size_t t = first; t < end; t++) {
      std::string called = word(t), id = called + "_" + std::to_string(variables_++);
      size_t dims = t + 1;
      t = dims;
      while (is(t, "[")) t = behind(t, "[", "]");
      std::string bounds = t > dims ? text_.substr(tokens_[dims].begin, tokens_[t - 1].end - tokens_[dims].begin) : "";
      with += "typedef " + type + id + "_type" + bounds + "; static device " + id + "_type " + id +
              "_metalsim_variable __attribute__((section(\"metalsim_threadgroup\"), used, aligned(16))); threadgroup " + id + "_type& " + called + " = *(threadgroup " + id +
              "_type*)metalsim::variable((metalsim::address)&" + id + "_metalsim_variable); ";
      if (!is(t, ",") && !is(t, ";")) refuse(t, "threadgroup variable " + called + " cannot be read");
    }
    // on the lines that it had
    for (size_t i = tokens_[at].begin; i < tokens_[end].end; i++)
      if (text_[i] == '\n') with += '\n';
    edits_.push_back({tokens_[at].begin, tokens_[end].end, with});
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
      out += text_.substr(at, e.begin - at) + e.with;
      at = e.end;
    }
    return out + text_.substr(at);
  }

  // file:line:column, by the preprocessor's markers
  std::string place(size_t at) const {
    std::string file = "program_source";
    long line = 1;
    size_t begin = 0;
    for (size_t i = 0; i < text_.size(); i = begin) {
      size_t end = text_.find('\n', i);
      if (end == text_.npos) end = text_.size();
      if (at <= end) return file + ":" + std::to_string(line) + ":" + std::to_string(at - i + 1);
      begin = end + 1;
      if (text_[i] == '#' && i + 2 < end && isdigit(static_cast<unsigned char>(text_[i + 2]))) {
        char* rest;
        line = strtol(&text_[i + 2], &rest, 10);
        if (const char* quote = strchr(rest, '"'); quote && quote < &text_[end]) file.assign(quote + 1, strchr(quote + 1, '"'));
      } else {
        line++;
      }
    }
    return file;
  }
};

}  // namespace

Source read_source(const std::string& text) { return Reader(text).read(); }

}  // namespace metalsim
