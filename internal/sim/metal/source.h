// What of an MSL program has to be known, and written otherwise, before a C++
// compiler reads it: kernels with their parameters, and threadgroup variables.
#pragma once
#include <string>
#include <vector>

namespace metalsim {

struct Param {
  enum Kind { buffer, memory, position } kind;  // memory: of the threadgroup
  unsigned index;         // of buffer or memory
  std::string attribute;  // without its argument
  bool reference;
  std::string name;
};

struct Function {
  std::string name;      // as newFunctionWithName: wants it
  std::string instance;  // in C++, with template arguments
  std::vector<Param> params;
  unsigned max_threads = 1024;
};

struct Source {
  std::string text;  // the program as C++
  std::vector<Function> functions;
  std::string error;  // file:line:column: error: ..., if it cannot be read
};

// Reads a preprocessed program.
Source read_source(const std::string& text);

}  // namespace metalsim
