// test LIBRARY NAME runs a case; test list names them.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

namespace {

void* library;
bool failed;

}  // namespace

void fail(const char* file, int line, const std::string& what) {
  const char* slash = strrchr(file, '/');
  printf("%s:%d: %s\n", slash ? slash + 1 : file, line, what.c_str());
  failed = true;
}

void says(const char* file, int line, const std::string& text, std::vector<std::string> parts) {
  for (auto& p : parts)
    if (text.find(p) == text.npos) return fail(file, line, "not said: \"" + p + "\" in \"" + text + "\"");
}

void* function(const char* name) {
  void* f = dlsym(library, name);
  if (f) return f;
  printf("no function %s\n", name);
  exit(1);
}

const char* selector(const char* name) { return reinterpret_cast<const char* (*)(const char*)>(function("sel_registerName"))(name); }
Id class_named(const char* name) { return reinterpret_cast<Id (*)(const char*)>(function("objc_getClass"))(name); }
Id string(const std::string& s) { return send(class_named("NSString"), "stringWithUTF8String:", s.c_str()); }
std::string text(Id s) {
  const char* t = send<const char*>(s, "UTF8String");
  return t ? t : "";
}

std::string living() {
  char t[4096];
  reinterpret_cast<u64 (*)(char*, u64)>(function("metalsim_living"))(t, sizeof t);
  return t;
}

std::string death(const std::function<void()>& f) {
  int ends[2];
  if (pipe(ends)) return "";
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    f();
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) said.append(part, static_cast<size_t>(n));
  close(ends[0]);
  int status;
  waitpid(child, &status, 0);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) fail(__FILE__, __LINE__, "lives on: " + said);
  return said;
}

Gpu::Gpu(const std::string& source) {
  device = reinterpret_cast<Id (*)()>(function("MTLCreateSystemDefaultDevice"))();
  pool = send(class_named("NSAutoreleasePool"), "new");
  queue = send(device, "newCommandQueue");
  if (source.empty()) return;
  if (std::string error = compile(source); !error.empty()) printf("%s\n", error.c_str()), exit(1);
}

Gpu::~Gpu() {
  send(pool, "drain");
  for (Id o : owned) send(o, "release");
  send(library, "release");
  send(queue, "release");
  send(device, "release");
  if (std::string l = living(); !l.empty()) fail(__FILE__, __LINE__, "living: " + l);
}

std::string Gpu::compile(const std::string& source, Id options) {
  Id error = nullptr;
  library = send(device, "newLibraryWithSource:options:error:", string(source), options, &error);
  return library ? "" : text(send(error, "localizedDescription"));
}

Id Gpu::pipeline(const char* kernel) {
  Id f = send(library, "newFunctionWithName:", string(kernel)), error = nullptr;
  if (!f) printf("no kernel %s\n", kernel), exit(1);
  Id p = send(device, "newComputePipelineStateWithFunction:error:", f, &error);
  send(f, "release");
  if (!p) printf("%s\n", text(send(error, "localizedDescription")).c_str()), exit(1);
  owned.push_back(p);
  return p;
}

Id Gpu::buffer(u64 bytes) {
  owned.push_back(send(device, "newBufferWithLength:options:", bytes, u64{0}));
  return owned.back();
}

Id Gpu::encoder(Id commands, Id pipeline) {
  Id e = send(commands, "computeCommandEncoder");
  if (pipeline) send(e, "setComputePipelineState:", pipeline);
  return e;
}

std::string Gpu::finish(Id commands, Id encoder) {
  send(encoder, "endEncoding");
  send(commands, "commit");
  send(commands, "waitUntilCompleted");
  Id error = send(commands, "error");
  CHECK_EQ(send<u64>(commands, "status"), u64(error ? 5 : 4));
  return error ? text(send(error, "localizedDescription")) : "";
}

std::string Gpu::run(const char* kernel, std::vector<Id> buffers, Size groups, Size threads, u64 memory) {
  Id commands = command_buffer(), e = encoder(commands, pipeline(kernel));
  for (size_t i = 0; i < buffers.size(); i++) set_buffer(e, buffers[i], i);
  if (memory) send(e, "setThreadgroupMemoryLength:atIndex:", memory, u64{0});
  dispatch(e, groups, threads);
  return finish(commands, e);
}

void set_buffer(Id encoder, Id buffer, u64 index, u64 offset) { send(encoder, "setBuffer:offset:atIndex:", buffer, offset, index); }
void dispatch(Id encoder, Size groups, Size threads) { send(encoder, "dispatchThreadgroups:threadsPerThreadgroup:", groups, threads); }

std::string program(const std::string& body, const std::string& before) {
  return "#include <metal_stdlib>\nusing namespace metal;\n" + before +
         "kernel void k(device float* x [[buffer(0)]], device float* y [[buffer(1)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]],\n"
         "uint simdgroup [[simdgroup_index_in_threadgroup]], uint t [[thread_index_in_threadgroup]], uint group [[threadgroup_position_in_grid]]) {\n" + body + "\n}\n";
}

int main(int argc, char** argv) {
  std::vector<Case> all;
  for (auto& cases : {runtime_cases(), language_cases(), execution_cases(), rule_cases(), fault_cases()}) all.insert(all.end(), cases.begin(), cases.end());
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
    c.run();
    fflush(stdout);
    return failed;
  }
  return printf("no case %s\n", argv[2]), 2;
}
