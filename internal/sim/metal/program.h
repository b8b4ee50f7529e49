// A compiled MSL program.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "include/thread.h"
#include "source.h"

namespace metalsim {

// A threadgroup variable of a kernel.
struct Variable {
  std::string name;
  uint64_t offset, size;  // in the memory that the program's threadgroup variables take
};

struct Kernel : Function {
  void (*entry)() = nullptr;
  std::vector<Variable> variables;
  uint64_t static_memory = 0;  // bytes of the variables
};

struct Program {
  std::string path;
  std::vector<Kernel> kernels;
  uint64_t variables_size = 0;   // of all kernels' variables
  std::vector<Range> constants;  // where its own data lie
  void* handle = nullptr;

  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();
  const Kernel* find(const std::string& name) const;
  // "program_source:3", of the code before an address; empty where nothing tells
  std::string line(const void* site) const;
};

struct CompileSettings {
  bool fast_math = true;
  uint64_t language = 0;  // MTLLanguageVersion; 0: the newest
};

// Compiles, or takes from the cache. Without a program the text has the compiler's words.
std::shared_ptr<Program> compile(const std::string& source, const CompileSettings& settings, std::string& text);

}  // namespace metalsim
