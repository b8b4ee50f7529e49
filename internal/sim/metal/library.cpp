// MTLCompileOptions, MTLLibrary, MTLFunction and MTLComputePipelineState.
#include "objects.h"
#include "options.h"

namespace metalsim {
namespace {

Object* new_library(Object*, Selector, Object* source, Object* compile_options, Error** error) {
  auto* text = checked<String>(source, "source of newLibraryWithSource:");
  auto* o = checked<CompileOptions>(compile_options, "options of newLibraryWithSource:");
  if (!text) fatal("newLibraryWithSource: nil");
  std::string said;
  auto program = compile(text->text, o ? o->settings : CompileSettings{}, said);
  if (program) return new Library(program);
  if (error) *error = static_cast<Error*>((new Error("MTLLibraryErrorDomain", 3, said))->autorelease());
  return nullptr;
}

Object* new_function(Library* l, Selector, Object* name) {
  auto* text = checked<String>(name, "name of newFunctionWithName:");
  const Kernel* k = text ? l->program->find(text->text) : nullptr;
  return k ? new KernelFunction(l->program, k) : nullptr;
}

Object* function_names(Library* l, Selector) {
  std::vector<Object*> names;
  for (auto& k : l->program->kernels) names.push_back(new String(k.name));
  auto* all = new Array(names);
  for (auto* n : names) n->release();
  return all->autorelease();
}

Object* new_pipeline(Object*, Selector, Object* function, Error** error) {
  auto* f = checked<KernelFunction>(function, "function of newComputePipelineStateWithFunction:");
  if (!f) fatal("newComputePipelineStateWithFunction: nil");
  if (f->kernel->static_memory <= max_threadgroup_memory) return new Pipeline(f->program, f->kernel);
  std::string why = "kernel " + f->kernel->name + ": " + std::to_string(f->kernel->static_memory) + " bytes of threadgroup variables, more than " + std::to_string(max_threadgroup_memory);
  if (error) *error = static_cast<Error*>((new Error("AGXMetal", 3, why))->autorelease());
  return nullptr;
}

}  // namespace

void add_library() {
  Class& options = class_named("MTLCompileOptions");
  options.class_method("new", +[](Object*, Selector) -> Object* { return new CompileOptions; });
  options.method("setFastMathEnabled:", +[](CompileOptions* o, Selector, bool yes) { o->settings.fast_math = yes; });
  options.method("setLanguageVersion:", +[](CompileOptions* o, Selector, uint64_t version) { o->settings.language = version; });

  Class& library = class_named("MTLLibrary");
  library.method("newFunctionWithName:", new_function);
  library.method("functionNames", function_names);

  Class& function = class_named("MTLFunction");
  function.method("name", +[](KernelFunction* f, Selector) { return autoreleased(f->kernel->name); });

  Class& pipeline = class_named("MTLComputePipelineState");
  pipeline.method("maxTotalThreadsPerThreadgroup", +[](Pipeline* p, Selector) { return uint64_t{p->kernel->max_threads}; });
  pipeline.method("threadExecutionWidth", +[](Pipeline*, Selector) { return uint64_t{32}; });
  pipeline.method("staticThreadgroupMemoryLength", +[](Pipeline* p, Selector) { return p->kernel->static_memory; });

  Class& device = class_named("MTLDevice");
  device.method("newLibraryWithSource:options:error:", new_library);
  device.method("newComputePipelineStateWithFunction:error:", new_pipeline);
}

}  // namespace metalsim
