// From MSL to a shared library: preprocess, read (source.h), compile as C++ for
// OpenCL with clang, whose thread sanitizer tells of each access to memory.
#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "headers.h"
#include "options.h"
#include "program.h"

namespace metalsim {
namespace {

const char* const flags =
    " -Wl,-Bsymbolic -x clcpp -cl-std=clc++2021 -cl-no-stdinc -Xclang -cl-ext=-cl_khr_fp64,-__opencl_c_fp64,+cl_khr_fp16 -Wno-everything -Werror=pre-c++17-compat -O2 -gline-tables-only -march=x86-64-v3 -fPIC -fno-vectorize"
    " -fno-slp-vectorize -fstack-clash-protection -ffp-contract=on -fsanitize=thread,alignment -fno-sanitize-trap=all -fsanitize-recover=alignment -mllvm -tsan-instrument-read-before-write"
    " -mllvm -tsan-instrument-func-entry-exit=0 -mllvm -tsan-instrument-atomics=0"
    // each call of the source stays one, with an address of its own, or threads that part would not be told apart
    " -fno-optimize-sibling-calls -mllvm -simplifycfg-hoist-common=false -mllvm -simplifycfg-sink-common=false -mllvm -enable-tail-merge=false";

std::string read_file(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  std::stringstream s;
  s << f.rdbuf();
  return s.str();
}

bool write_file(const std::string& path, std::string_view text) {
  std::ofstream f(path, std::ios::binary);
  f << text;
  return static_cast<bool>(f.flush());
}

// Runs a command of the shell; false unless it exits with 0.
bool run(const std::string& command, std::string& said) {
  FILE* p = popen((command + " 2>&1").c_str(), "r");
  if (!p) return false;
  char part[4096];
  while (size_t n = fread(part, 1, sizeof part, p)) said.append(part, n);
  return pclose(p) == 0;
}

// FNV-1a, twice with different beginnings
std::string hash(const std::string& text) {
  uint64_t a = 14695981039346656037u, b = ~a;
  for (unsigned char c : text) a = (a ^ c) * 1099511628211u, b = (b ^ c) * 1099511628211u;
  char out[33];
  snprintf(out, sizeof out, "%016llx%016llx", static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
  return out;
}

std::string defines(const CompileSettings& s) {
  uint64_t major = s.language ? s.language >> 16 : 3, minor = s.language ? s.language & 0xffff : 2;
  std::string d = " -D__METAL__ -D__METAL_MACOS__ -D__METAL_VERSION__=" + std::to_string(major * 100 + minor * 10);
  if (options().bfloat && major * 10 + minor >= 31) d += " -D__HAVE_BFLOAT__";
  if (options().family >= 7) d += " -D__HAVE_SIMDGROUP_MATRIX__";
  if (s.fast_math) d += " -D__FAST_MATH__";
  return d;
}

// Writes the headers that programs include, and empty ones for the first pass.
std::string header_folder(std::string& error) {
  static std::mutex lock;  // of threads that come first together; processes write each their own files
  std::lock_guard hold(lock);
  std::string all;
  for (auto& h : headers()) all += h.text;
  std::string folder = options().cache + "/include-" + hash(all);
  mkdir(options().cache.c_str(), 0755);
  if (access((folder + "/done").c_str(), R_OK) == 0) return folder;
  mkdir(folder.c_str(), 0755);
  mkdir((folder + "/empty").c_str(), 0755);
  bool ok = true;
  auto write = [&](const std::string& name, std::string_view text) {
    std::string path = folder + "/" + name, part = path + "." + std::to_string(getpid());
    ok &= write_file(part, text) && rename(part.c_str(), path.c_str()) == 0;
  };
  for (auto& h : headers()) write(h.name, h.text);
  for (auto* name : {"metal_stdlib", "metal_math", "metal_atomic", "metal_simdgroup", "metal_simdgroup_matrix", "metal_compute", "metal_common", "metal_integer", "metal_geometric"})
    write(std::string("empty/") + name, "");
  write("done", "");
  if (!ok) error = "cannot write to " + folder;
  return folder;
}

const std::string& compiler_version() {
  static const std::string v = [] {
    std::string said;
    run(options().compiler + " --version", said);
    return said;
  }();
  return v;
}

// Names and addresses of a library's own symbols.
struct Symbols {
  std::map<uint64_t, std::string> functions;
  std::map<std::string, std::pair<uint64_t, uint64_t>> objects;  // address and size by name

  explicit Symbols(const std::string& file) {
    auto at = [&](uint64_t offset) { return file.data() + offset; };
    if (file.size() < sizeof(Elf64_Ehdr)) return;
    auto* header = reinterpret_cast<const Elf64_Ehdr*>(at(0));
    auto* sections = reinterpret_cast<const Elf64_Shdr*>(at(header->e_shoff));
    for (int i = 0; i < header->e_shnum; i++) {
      if (sections[i].sh_type != SHT_SYMTAB) continue;
      const char* names = at(sections[sections[i].sh_link].sh_offset);
      auto* symbols = reinterpret_cast<const Elf64_Sym*>(at(sections[i].sh_offset));
      for (size_t s = 0; s < sections[i].sh_size / sizeof(Elf64_Sym); s++) {
        const char* name = names + symbols[s].st_name;
        if (ELF64_ST_TYPE(symbols[s].st_info) == STT_FUNC && strncmp(name, "_Z", 2) == 0) functions[symbols[s].st_value] = name;
        if (ELF64_ST_TYPE(symbols[s].st_info) == STT_OBJECT || strncmp(name, "__start_", 8) == 0 || strncmp(name, "__stop_", 7) == 0)
          objects[name] = {symbols[s].st_value, symbols[s].st_size};
      }
    }
  }
};

// A kernel's threadgroup variables are static ones, whose names begin with the kernel's.
void find_variables(Kernel& k, const Symbols& symbols, uint64_t address, uint64_t base) {
  auto f = symbols.functions.find(address);
  if (f == symbols.functions.end()) return;
  std::string prefix = "_ZZ" + f->second.substr(2) + "E";
  for (auto it = symbols.objects.lower_bound(prefix); it != symbols.objects.end() && it->first.compare(0, prefix.size(), prefix) == 0; ++it) {
    size_t digits = strspn(it->first.c_str() + prefix.size(), "0123456789"), end = it->first.rfind("_metalsim_variable");
    if (end == std::string::npos) continue;
    std::string name = it->first.substr(prefix.size() + digits, end - prefix.size() - digits);
    k.variables.push_back({name.substr(0, name.rfind('_')), it->second.first - base, it->second.second});
    k.static_memory += (it->second.second + 15) / 16 * 16;
  }
}

// The program's own data: what its library has mapped.
void find_constants(Program& p, uint64_t base) {
  struct Search {
    Program* program;
    uint64_t base;
  } search{&p, base};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* s = static_cast<Search*>(data);
        if (info->dlpi_addr != s->base) return 0;
        for (int i = 0; i < info->dlpi_phnum; i++)
          if (info->dlpi_phdr[i].p_type == PT_LOAD) s->program->constants.push_back({info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, info->dlpi_phdr[i].p_memsz});
        return 1;
      },
      &search);
}

std::shared_ptr<Program> load(const std::string& path, Source source, std::string& error) {
  auto p = std::make_shared<Program>();
  p->path = path;
  p->handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!p->handle) {
    error = dlerror();
    return nullptr;
  }
  link_map* map = nullptr;
  dlinfo(p->handle, RTLD_DI_LINKMAP, &map);
  Symbols symbols(read_file(path));
  uint64_t start = symbols.objects["__start_metalsim_threadgroup"].first, stop = symbols.objects["__stop_metalsim_threadgroup"].first;
  for (size_t i = 0; i < source.functions.size(); i++) {
    Kernel k;
    static_cast<Function&>(k) = source.functions[i];
    std::string n = std::to_string(i);
    k.entry = reinterpret_cast<void (*)()>(dlsym(p->handle, ("metalsim_entry_" + n).c_str()));
    auto address = reinterpret_cast<uint64_t (*)()>(dlsym(p->handle, ("metalsim_address_" + n).c_str()));
    if (!k.entry || !address) {
      error = path + ": no entry for " + k.name;
      return nullptr;
    }
    find_variables(k, symbols, address() - map->l_addr, start);
    for (auto& v : k.variables)
      if (v.offset + v.size > p->variables_size) p->variables_size = v.offset + v.size;
    p->kernels.push_back(std::move(k));
  }
  if (stop > start && stop - start > p->variables_size) p->variables_size = stop - start;
  find_constants(*p, map->l_addr);
  return p;
}

// Programs refer to functions of this library, which may have been opened for its caller alone.
void open_to_programs() {
  static std::once_flag once;
  std::call_once(once, [] {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&metalsim_access), &info)) dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
  });
}

}  // namespace

Program::~Program() {
  if (handle) dlclose(handle);
}

const Kernel* Program::find(const std::string& name) const {
  for (auto& k : kernels)
    if (k.name == name) return &k;
  return nullptr;
}

std::string Program::line(const void* site) const {
  link_map* map = nullptr;
  dlinfo(handle, RTLD_DI_LINKMAP, &map);
  char command[4096];
  // the call lies before the address that it returns to
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%llx", path.c_str(), static_cast<unsigned long long>(reinterpret_cast<uint64_t>(site) - map->l_addr - 1));
  std::string said;
  if (!run(command, said)) return "";
  // of functions that are inlined, the innermost of the program itself
  size_t at = said.find("program_source:");
  if (at == said.npos) return "";
  said = said.substr(at, said.find_first_of(" \n", at) - at);
  return said.find('?') == said.npos ? said : "";
}

std::shared_ptr<Program> compile(const std::string& source, const CompileSettings& settings, std::string& text) {
  static std::mutex lock;
  static auto* loaded = new std::map<std::string, std::weak_ptr<Program>>;
  open_to_programs();
  std::string include = header_folder(text), define = defines(settings);
  if (!text.empty()) return nullptr;
  std::string key = hash(source + '\0' + define + '\0' + flags + '\0' + include + '\0' + options().compiler + compiler_version());
  std::string base = options().cache + "/" + key, library = base + ".so", part = base + "." + std::to_string(getpid()) + "." + std::to_string(gettid());
  {
    std::lock_guard hold(lock);
    if (auto p = (*loaded)[key].lock()) return p;
  }
  auto ours = [&](const char* what) { return "'" + part + what + "'"; };
  auto remove_parts = [&] {
    for (auto* what : {".metal", ".i", ".cpp", ".so"}) unlink((part + what).c_str());
  };
  std::string preprocessed = read_file(base + ".i");
  bool cached = !preprocessed.empty() && access(library.c_str(), R_OK) == 0;
  if (!cached) {
    if (!write_file(part + ".metal", "#line 1 \"program_source\"\n" + source) ||
        !run(options().compiler + " -E -x c++ -std=c++17 -nostdinc -undef -w" + define + " -I'" + include + "/empty' -o " + ours(".i") + " " + ours(".metal"), text)) {
      if (text.empty()) text = "cannot run " + options().compiler + " in " + options().cache;
      remove_parts();
      return nullptr;
    }
    preprocessed = read_file(part + ".i");
  }
  Source s = read_source(preprocessed);
  if (s.error.empty() && source.find("metal_stdlib") == source.npos) s.error = "program_source:1:1: error: no #include <metal_stdlib>";
  if (!s.error.empty()) {
    text = s.error;
    remove_parts();
    return nullptr;
  }
  if (!cached) {
    if (!write_file(part + ".cpp", s.text) ||
        !run(options().compiler + flags + define + " -include '" + include + "/metal_stdlib.h' -shared -o " + ours(".so") + " " + ours(".cpp") + " -lm", text)) {
      remove_parts();
      return nullptr;
    }
    rename((part + ".i").c_str(), (base + ".i").c_str());
    rename((part + ".so").c_str(), library.c_str());
    remove_parts();
    text.clear();
  }
  std::lock_guard hold(lock);
  if (auto p = (*loaded)[key].lock()) return p;
  auto p = load(library, std::move(s), text);
  (*loaded)[key] = p;
  return p;
}

}  // namespace metalsim
