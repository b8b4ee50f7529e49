// The PTX text to statements: tokens, directives, operands. Knows no instruction.
#include <cstdlib>
#include <cstring>

#include "ptx.h"

namespace sim {
namespace {

struct Token {
  enum Kind : uint8_t { name, number, punct, string, end } kind;
  std::string_view text;
  int line;
};

[[noreturn]] void refuse(int line, std::string what) { throw Refused{line, std::move(what)}; }

bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '%' || c == '.';
}

std::vector<Token> tokens(const std::string& s) {
  std::vector<Token> out;
  out.reserve(s.size() / 5);
  int line = 1;
  size_t i = 0, n = s.size();
  while (i < n) {
    char c = s[i];
    if (c == '\n') line++;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      i++;
    } else if (c == '/' && i + 1 < n && s[i + 1] == '/') {
      while (i < n && s[i] != '\n') i++;
    } else if (c == '/' && i + 1 < n && s[i + 1] == '*') {
      size_t close = s.find("*/", i + 2);
      if (close == s.npos) refuse(line, "comment without end");
      for (; i < close + 2; i++) line += s[i] == '\n';
    } else if (c == '"') {
      size_t close = s.find('"', i + 1);
      if (close == s.npos) refuse(line, "string without end");
      out.push_back({Token::string, std::string_view(s).substr(i + 1, close - i - 1), line});
      i = close + 1;
    } else if (name_char(c)) {
      size_t begin = i;
      while (i < n && name_char(s[i])) i++;
      bool digit = c >= '0' && c <= '9';
      out.push_back({digit ? Token::number : Token::name, std::string_view(s).substr(begin, i - begin), line});
    } else {
      out.push_back({Token::punct, std::string_view(s).substr(i, 1), line});
      i++;
    }
  }
  out.push_back({Token::end, {}, line});
  return out;
}

std::vector<std::string_view> split(std::string_view s) {
  std::vector<std::string_view> out;
  for (size_t dot; (dot = s.find('.')) != s.npos; s.remove_prefix(dot + 1)) out.push_back(s.substr(0, dot));
  out.push_back(s);
  return out;
}

class Parser {
 public:
  explicit Parser(Text& text) : text_(text), tokens_(tokens(text.source)) {}

  void run() {
    while (peek().kind != Token::end) directive();
  }

 private:
  const Token& peek(int ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& t = tokens_[at_];
    if (t.kind == Token::end) refuse(t.line, "unexpected end of text");
    at_++;
    return t;
  }
  bool is(const char* s) const { return peek().text == s && peek().kind != Token::string; }
  bool accept(const char* s) {
    if (!is(s)) return false;
    at_++;
    return true;
  }
  void expect(const char* s) {
    if (!accept(s)) refuse(peek().line, "expected '" + std::string(s) + "' before '" + std::string(peek().text) + "'");
  }
  void skip_line() {
    for (int line = peek().line; peek().kind != Token::end && peek().line == line;) at_++;
  }
  void skip_braces() {
    expect("{");
    for (int depth = 1; depth > 0;) {
      auto t = next().text;
      depth += t == "{" ? 1 : t == "}" ? -1 : 0;
    }
  }

  uint64_t integer() {
    bool minus = accept("-");
    const Token& t = next();
    if (t.kind != Token::number) refuse(t.line, "expected a number before '" + std::string(t.text) + "'");
    std::string s(t.text);
    if (s.back() == 'U') s.pop_back();
    bool binary = s.size() > 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B');
    char* end;
    uint64_t v = binary ? strtoull(s.c_str() + 2, &end, 2) : strtoull(s.c_str(), &end, 0);
    if (*end) refuse(t.line, "'" + s + "' is no integer");
    return minus ? -v : v;
  }

  void directive() {
    const Token& t = peek();
    if (accept(".version")) {
      std::string v(next().text);
      text_.version = atoi(v.c_str()) * 10 + (v.find('.') == v.npos ? 0 : atoi(v.c_str() + v.find('.') + 1));
    } else if (accept(".target")) {
      auto name = next().text;
      if (name.substr(0, 3) != "sm_") refuse(t.line, "unknown target " + std::string(name));
      text_.target = atoi(std::string(name.substr(3)).c_str());
      text_.specific = name.back() == 'a' || name.back() == 'f';
      while (accept(",")) next();
    } else if (accept(".address_size")) {
      if (integer() != 64) refuse(t.line, "only .address_size 64 is supported");
    } else if (accept(".file") || accept(".loc")) {
      skip_line();
    } else if (accept(".section")) {
      next();
      skip_braces();
    } else if (accept(".pragma")) {
      while (!accept(";")) next();
    } else {
      linked();
    }
  }

  void linked() {
    bool external = false;
    for (;;) {
      if (accept(".extern")) external = true;
      else if (!accept(".visible") && !accept(".weak") && !accept(".common")) break;
    }
    int line = peek().line;
    if (accept(".entry")) {
      entry(line);
    } else if (is(".func") || is(".alias")) {
      refuse(line, "device functions are not supported: the kernels must be compiled with everything inlined");
    } else if (Variable v; variable(v)) {
      v.external = external;
      text_.variables.push_back(std::move(v));
    } else {
      refuse(line, "unknown directive " + std::string(peek().text));
    }
  }

  // .shared .align 16 .b8 name[128] = {..};  false if it does not begin with a space
  bool variable(Variable& v) {
    if (accept(".shared")) v.space = Space::shared;
    else if (accept(".global")) v.space = Space::global;
    else if (accept(".const")) v.space = Space::constant;
    else if (accept(".local")) v.space = Space::local;
    else return false;
    declarator(v);
    if (accept("=")) initializer(v);
    expect(";");
    return true;
  }

  void declarator(Variable& v) {
    unsigned vector = 1;
    bool aligned = false;
    for (;;) {
      const Token& t = next();
      if (t.text == ".align") {
        unsigned n = static_cast<unsigned>(integer());
        if (!aligned) v.align = n;
      } else if (t.text == ".v2" || t.text == ".v4") {
        vector = t.text == ".v2" ? 2 : 4;
      } else if (t.text == ".attribute") {
        while (!accept(")")) next();
      } else if (t.text == ".ptr") {
        // of a parameter: what it points to
        aligned = true;
        if (v.align == 1) v.align = bytes(v.type);
      } else if (t.text[0] == '.') {
        Type type = type_named(t.text.substr(1));
        bool state = t.text == ".global" || t.text == ".shared" || t.text == ".const" || t.text == ".local" || t.text == ".param";
        if (type == Type::none && !state) refuse(t.line, "unknown type " + std::string(t.text));
        if (type != Type::none) v.type = type;
      } else {
        v.name = t.text;
        break;
      }
    }
    v.size = bytes(v.type) * vector;
    v.align = std::max(v.align, static_cast<unsigned>(v.size));
    while (accept("[")) {
      v.size *= is("]") ? 0 : integer();
      expect("]");
    }
  }

  void initializer(Variable& v) {
    unsigned width = bytes(v.type);
    auto value = [&](auto& self) -> void {
      if (accept("{")) {
        while (!accept("}")) {
          self(self);
          accept(",");
        }
        return;
      }
      Operand o = operand();
      if (o.kind == Operand::name || o.kind == Operand::address) refuse(peek().line, "addresses in initializers are not supported");
      for (unsigned i = 0; i < width; i++) v.init.push_back(static_cast<char>(o.value >> (8 * i)));
    };
    value(value);
    if (v.size == 0) v.size = v.init.size();
    if (v.init.size() > v.size) refuse(peek().line, "too many values for " + std::string(v.name));
  }

  void entry(int line) {
    Function f;
    f.line = line;
    f.name = next().text;
    if (accept("(")) {
      while (!accept(")")) {
        expect(".param");
        Variable p;
        p.space = Space::param;
        declarator(p);
        f.params.push_back(std::move(p));
        accept(",");
      }
    }
    while (!is("{")) tuning(f);
    body(f);
    text_.entries.push_back(std::move(f));
  }

  void tuning(Function& f) {
    const Token& t = next();
    if (t.text == ".maxntid" || t.text == ".reqntid") {
      unsigned n[3] = {1, 1, 1};
      int i = 0;
      do n[i++] = static_cast<unsigned>(integer());
      while (i < 3 && accept(","));
      f.max_threads = n[0] * n[1] * n[2];
      if (t.text == ".reqntid") memcpy(f.required, n, sizeof n);
    } else if (t.text == ".minnctapersm" || t.text == ".maxnreg" || t.text == ".maxnctapersm") {
      integer();
    } else if (t.text == ".pragma") {
      while (!accept(";")) next();
    } else if (t.text != ".noreturn") {
      refuse(t.line, "unknown directive " + std::string(t.text));
    }
  }

  void body(Function& f) {
    expect("{");
    for (int depth = 1; depth > 0;) {
      Item item{};
      const Token& t = peek();
      if (accept(";")) continue;
      if (accept("{")) {
        depth++;
        item.kind = Item::open;
      } else if (accept("}")) {
        depth--;
        item.kind = Item::close;
      } else if (accept(".reg")) {
        registers(f);
        continue;
      } else if (accept(".loc") || accept(".file")) {
        skip_line();
        continue;
      } else if (accept(".pragma")) {
        while (!accept(";")) next();
        continue;
      } else if (variable(item.var)) {
        item.kind = Item::variable;
      } else if (t.kind == Token::name && peek(1).text == ":" && peek(2).text != ":") {
        item.name = next().text;
        next();
        item.kind = Item::label;
        if (accept(".branchtargets")) {
          item.kind = Item::targets;
          do item.list.push_back(next().text);
          while (accept(","));
          expect(";");
        } else if (is(".callprototype") || is(".calltargets")) {
          refuse(t.line, "calls are not supported");
        }
      } else {
        item.kind = Item::statement;
        item.code = statement();
      }
      f.body.push_back(std::move(item));
    }
  }

  void registers(Function& f) {
    const Token& t = next();
    if (t.text == ".v2" || t.text == ".v4") refuse(t.line, "vector registers are not supported");
    Type type = t.text[0] == '.' ? type_named(t.text.substr(1)) : Type::none;
    if (type == Type::none) refuse(t.line, "unknown type " + std::string(t.text));
    do {
      Item item{};
      item.kind = Item::registers;
      item.type = type;
      item.name = next().text;
      if (accept("<")) {
        item.count = static_cast<int>(integer());
        expect(">");
      }
      f.body.push_back(std::move(item));
    } while (accept(","));
    expect(";");
  }

  Statement statement() {
    Statement s;
    s.line = peek().line;
    if (accept("@")) {
      s.guard_not = accept("!");
      s.guard = next().text;
    }
    const Token& op = next();
    if (op.kind != Token::name) refuse(op.line, "expected an instruction before '" + std::string(op.text) + "'");
    s.op = split(op.text);
    // cvt.rn.f32::... and ld.global.L1::no_allocate: names with colons
    while (is(":") && peek(1).text == ":") {
      at_ += 2;
      const Token& t = next();
      std::string_view whole(s.op.back().data(), static_cast<size_t>(t.text.data() + t.text.size() - s.op.back().data()));
      s.op.pop_back();
      for (auto part : split(whole)) s.op.push_back(part);
    }
    if (!is(";")) {
      do s.args.push_back(operand());
      while (accept(","));
    }
    expect(";");
    return s;
  }

  Operand operand() {
    Operand o;
    const Token& t = peek();
    if (accept("{")) {
      o.kind = Operand::vector;
      while (!accept("}")) {
        o.parts.push_back(operand());
        accept(",");
      }
      return o;
    }
    if (accept("[")) {
      o.kind = Operand::address;
      if (peek().kind == Token::name) o.text = next().text;
      else if (peek().kind == Token::number) o.offset = static_cast<int64_t>(integer());
      if (accept("+")) o.offset += static_cast<int64_t>(integer());
      else if (is("-")) o.offset += static_cast<int64_t>(integer());
      if (is(",")) refuse(t.line, "tensor addresses are not supported");
      expect("]");
      return o;
    }
    if (accept("!")) {
      o = operand();
      o.negated = true;
      return o;
    }
    if (t.kind == Token::number || is("-")) return number();
    o.text = next().text;
    if (t.kind != Token::name) refuse(t.line, "unexpected '" + std::string(t.text) + "'");
    if (o.text == "_") o.kind = Operand::sink;
    if (accept("|")) {
      Operand first = o;
      o.parts = {first, operand()};
    }
    if (accept("+")) o.offset = static_cast<int64_t>(integer());
    return o;
  }

  Operand number() {
    Operand o;
    const Token& t = peek();
    bool minus = t.text == "-";
    std::string s(minus ? peek(1).text : t.text);
    if (s.size() == 10 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
      o.kind = Operand::real32;
      o.value = strtoull(s.c_str() + 2, nullptr, 16);
    } else if (s.size() == 18 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
      o.kind = Operand::real64;
      o.value = strtoull(s.c_str() + 2, nullptr, 16);
    } else if (s.find('.') != s.npos) {
      double d = strtod(s.c_str(), nullptr);
      o.kind = Operand::real64;
      memcpy(&o.value, &d, 8);
    } else {
      o.kind = Operand::integer;
      o.value = integer();
      return o;
    }
    at_ += minus ? 2 : 1;
    if (minus) o.value ^= o.kind == Operand::real32 ? 0x80000000u : uint64_t{1} << 63;
    return o;
  }

  Text& text_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace

Type type_named(std::string_view name) {
  static constexpr std::string_view names[] = {"",    "pred", "b8",  "b16", "b32", "b64", "b128",  "u8",   "u16",    "u32",  "u64",
                                               "s8",  "s16",  "s32", "s64", "f16", "f16x2", "bf16", "bf16x2", "tf32", "f32", "f64"};
  for (size_t i = 1; i < std::size(names); i++)
    if (names[i] == name) return static_cast<Type>(i);
  return Type::none;
}

unsigned bytes(Type t) {
  static constexpr uint8_t n[] = {0, 4, 1, 2, 4, 8, 16, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 2, 4, 4, 4, 8};
  return n[static_cast<int>(t)];
}

void parse(Text& text) { Parser(text).run(); }

}  // namespace sim
