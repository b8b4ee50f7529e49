// The words of an MSL program.
#pragma once
#include <string>
#include <vector>

namespace metalsim {

struct Token {
  size_t begin, end;
};

// What a program is refused for, and where.
struct Refused {
  size_t at;
  std::string why;
};

struct Tokens {
  const std::string& text;  // preprocessed
  std::vector<Token> tokens;

  explicit Tokens(const std::string& t) : text(t) {}
  void split();
  bool is(size_t t, const char* what) const { return t < tokens.size() && text.compare(tokens[t].begin, tokens[t].end - tokens[t].begin, what) == 0; }
  std::string word(size_t t) const { return t < tokens.size() ? text.substr(tokens[t].begin, tokens[t].end - tokens[t].begin) : ""; }
  bool name(size_t t) const;
  bool attribute(size_t t) const;                                          // [[ begins here
  size_t behind(size_t t, const char* open, const char* close) const;      // the bracket that closes the one at t
  [[noreturn]] void refuse(size_t t, const std::string& why) const;
  std::string place(size_t at) const;                                      // file:line:column, by the preprocessor's markers
};

// Refuses what C++ for OpenCL has and MSL 3.1 has not.
void check_strictly(const Tokens& t);

}  // namespace metalsim
