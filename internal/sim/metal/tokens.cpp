#include "tokens.h"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace metalsim {

// Tokens: names, numbers, strings, and single characters. Lines that begin with # are passed over.
void Tokens::split() {
  size_t i = 0, n = text.size();
  bool fresh = true;
  auto letter = [&](size_t at) { return at < n && (isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_'); };
  while (i < n) {
    char c = text[i];
    if (c == '\n') fresh = true;
    if (isspace(static_cast<unsigned char>(c))) {
      i++;
      continue;
    }
    if (c == '#' && fresh) {
      while (i < n && text[i] != '\n') i++;
      continue;
    }
    fresh = false;
    size_t from = i++;
    if (letter(from)) {
      bool number = isdigit(static_cast<unsigned char>(c));
      while (letter(i) || (number && i < n && text[i] == '.')) i++;
    } else if (c == '"' || c == '\'') {
      while (i < n && text[i] != c) i += text[i] == '\\' ? 2 : 1;
      i++;
    }
    tokens.push_back({from, i < n ? i : n});
  }
}

bool Tokens::name(size_t t) const { return t < tokens.size() && (isalpha(static_cast<unsigned char>(text[tokens[t].begin])) || text[tokens[t].begin] == '_'); }

bool Tokens::attribute(size_t t) const { return is(t, "[") && is(t + 1, "[") && tokens[t + 1].begin == tokens[t].begin + 1; }

size_t Tokens::behind(size_t t, const char* open, const char* close) const {
  int depth = 0;
  for (size_t i = t; i < tokens.size(); i++) {
    if (is(i, open)) depth++;
    if (is(i, close) && --depth == 0) return i + 1;
  }
  refuse(t, std::string("no ") + close + " for this " + open);
}

void Tokens::refuse(size_t t, const std::string& why) const { throw Refused{tokens.empty() ? 0 : tokens[t < tokens.size() ? t : tokens.size() - 1].begin, why}; }

std::string Tokens::place(size_t at) const {
  std::string file = "program_source";
  long line = 1;
  for (size_t i = 0; i < text.size();) {
    size_t end = text.find('\n', i);
    if (end == text.npos) end = text.size();
    if (at <= end) return file + ":" + std::to_string(line) + ":" + std::to_string(at - i + 1);
    if (text[i] == '#' && i + 2 < end && isdigit(static_cast<unsigned char>(text[i + 2]))) {
      char* rest;
      line = strtol(&text[i + 2], &rest, 10);
      if (const char* quote = strchr(rest, '"'); quote && quote < &text[end]) file.assign(quote + 1, strchr(quote + 1, '"'));
    } else {
      line++;
    }
    i = end + 1;
  }
  return file;
}

}  // namespace metalsim
