// test LIBRARY NAME runs a case; test list names them.
#include <dlfcn.h>
#include <unistd.h>

#include "test.h"

namespace {

void* library;
bool failed;
FILE* errors;

}  // namespace

void fail(const char* file, int line, const std::string& what) {
  const char* slash = strrchr(file, '/');
  printf("%s:%d: %s\n", slash ? slash + 1 : file, line, what.c_str());
  failed = true;
}

std::string said() {
  std::string s;
  char part[4096];
  fseek(errors, 0, SEEK_SET);
  while (size_t n = fread(part, 1, sizeof part, errors)) s.append(part, n);
  return s;
}

void* function(const char* name) {
  void* f = dlsym(library, name);
  if (f) return f;
  printf("no function %s\n", name);
  exit(1);
}

Card::Card(int number) {
  MUST("cuInit", 0);
  MUST("cuDevicePrimaryCtxRetain", &context, number);
  use();
  MUST("cuStreamCreate", &stream, 1);
}

void Card::use() const { MUST("cuCtxSetCurrent", context); }

int Card::load(const std::string& ptx, std::string* log) {
  char text[4096] = "";
  int options[] = {5, 6};
  void* values[] = {text, reinterpret_cast<void*>(sizeof text)};
  int r = call("cuModuleLoadDataEx", &module, ptx.c_str(), 2, options, values);
  if (log) *log = text;
  else if (r) printf("%d %s%s", r, text, ptx.c_str());
  return r;
}

Handle Card::kernel(const char* name) const {
  Handle k = 0;
  MUST("cuModuleGetFunction", &k, module, name);
  return k;
}

uint64_t Card::alloc(size_t n) const {
  uint64_t p = 0;
  MUST("cuMemAlloc_v2", &p, n);
  return p;
}

int Card::launch(Handle k, unsigned grid, unsigned block, std::vector<uint64_t> params, unsigned shared) const {
  std::vector<void*> at;
  for (auto& p : params) at.push_back(&p);
  return call("cuLaunchKernel", k, grid, 1, 1, block, 1, 1, shared, stream, at.data(), 0);
}

int Card::sync() const { return call("cuStreamSynchronize", stream); }

std::string program(int params, const std::string& body, int target) {
  std::string s = ".version 7.8\n.target sm_" + std::to_string(target) + "\n.address_size 64\n.visible .entry k(";
  for (int i = 0; i < params; i++) s += std::string(i ? ", " : "") + ".param .u64 p" + std::to_string(i);
  s += ")\n{\n.reg .b16 %h<16>;\n.reg .b32 %r<64>;\n.reg .b64 %d<32>;\n.reg .f32 %f<32>;\n.reg .pred %q<16>;\n.reg .b32 %o<16>;\n.reg .b64 %p<8>;\n.reg .b32 %tid;\nmov.u32 %tid, %tid.x;\n";
  for (int i = 0; i < params; i++) s += "ld.param.u64 %p" + std::to_string(i) + ", [p" + std::to_string(i) + "];\n";
  return s + body + "\nret;\n}\n";
}

std::vector<uint32_t> lanes(const std::string& body, const std::vector<uint32_t>& in, int outputs, int target) {
  size_t inputs = in.size() / 32;
  std::string before = "mul.wide.u32 %d31, %tid, " + std::to_string(4 * inputs) + ";\nadd.u64 %d31, %p0, %d31;\n", after;
  for (size_t n = 0; n < inputs; n++) before += "ld.global.u32 %r" + std::to_string(n) + ", [%d31+" + std::to_string(4 * n) + "];\n";
  after = "\nmul.wide.u32 %d31, %tid, " + std::to_string(4 * outputs) + ";\nadd.u64 %d31, %p1, %d31;\n";
  for (int n = 0; n < outputs; n++) after += "st.global.u32 [%d31+" + std::to_string(4 * n) + "], %o" + std::to_string(n) + ";\n";
  Card c;
  CHECK_EQ(c.load(program(2, before + body + after, target)), 0);
  uint64_t from = c.upload(in), to = c.alloc(32 * 4 * static_cast<size_t>(outputs));
  CHECK_EQ(c.launch(c.kernel(), 1, 32, {from, to}), 0);
  return c.download<uint32_t>(to, 32 * static_cast<size_t>(outputs));
}

uint32_t random_word() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 32);
}

std::vector<uint32_t> words(size_t n) {
  static constexpr uint32_t special[] = {0, 1, 2, 31, 32, 33, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe};
  std::vector<uint32_t> v(n);
  for (auto& w : v) w = random_word() % 3 ? random_word() : special[random_word() % std::size(special)];
  return v;
}

int main(int argc, char** argv) {
  std::vector<Case> all;
  for (auto& cases : {arithmetic_cases(), convert_cases(), matrix_cases(), warpgroup_cases(), control_cases(), fault_cases(), driver_cases()}) all.insert(all.end(), cases.begin(), cases.end());
  if (argc == 2 && !strcmp(argv[1], "list")) {
    for (auto& c : all) puts(c.name);
    return 0;
  }
  if (argc != 3) return fprintf(stderr, "usage: test list | LIBRARY NAME\n"), 2;
  for (auto& c : all) {
    if (strcmp(c.name, argv[2])) continue;
    for (auto& e : c.environment) setenv(e.substr(0, e.find('=')).c_str(), e.substr(e.find('=') + 1).c_str(), 1);
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) return printf("%s\n", dlerror()), 1;
    errors = tmpfile();
    dup2(fileno(errors), 2);
    c.run();
    if (failed) printf("stderr: %s\n", said().c_str());
    return failed;
  }
  return printf("no case %s\n", argv[2]), 2;
}
