#include "fiber.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <mutex>
#include <vector>

#include "group.h"
#include "runtime.h"

namespace metalsim {

thread_local Fiber* running __attribute__((tls_model("initial-exec")));
thread_local Fault fault;

asm(R"(
.globl metalsim_switch
.type metalsim_switch, @function
metalsim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx  # not ret: the processor would expect to go on where the call was
.size metalsim_switch, . - metalsim_switch
)");

Stacks::~Stacks() {
  if (memory_) munmap(memory_, (count_ + 1) * stack_size);
}

void Stacks::reserve(unsigned n) {
  if (n <= count_) return;
  if (memory_) munmap(memory_, (count_ + 1) * stack_size);
  count_ = n;
  void* m = mmap(nullptr, (n + 1) * stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) fatal("no memory for the stacks of %u threads", n);
  memory_ = static_cast<char*>(m);
  base_ = memory_ + (stack_size - reinterpret_cast<unsigned long>(m) % stack_size) % stack_size;
  for (unsigned i = 0; i < n; i++) mprotect(base(i), 4096, PROT_NONE);
}

void prepare(Fiber& fiber, char* stack, void (*f)()) {
  auto** word = reinterpret_cast<void**>(thread_word(reinterpret_cast<unsigned long>(stack)));
  *word = &fiber;
  word -= 2;  // f begins as if called: its stack is 8 bytes off a multiple of 16
  *word = nullptr;
  *--word = reinterpret_cast<void*>(f);
  for (int i = 0; i < 6; i++) *--word = nullptr;
  fiber.top = word;
  fiber.thread.stack = reinterpret_cast<unsigned long>(stack);
}

namespace {

const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, timeout_signal()};
struct sigaction before[5];
void (*on_fault)();

bool in_program(const Fiber* f, uint64_t at) {
  for (auto& c : f->group->dispatch().program->constants)
    if (at - c.begin < c.size) return true;
  return false;
}

void handle(int signal, siginfo_t* info, void* context) {
  bool late = signal == timeout_signal();
  if (late && !(running && in_program(running, static_cast<uint64_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP])))) return;
  if (running) {
    fault = {signal, reinterpret_cast<unsigned long>(info->si_addr), signal == SIGSEGV && info->si_code == SI_KERNEL};
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    // the fiber never goes on, so that its whole stack is free
    registers[REG_RSP] = static_cast<greg_t>(running->thread.stack + stack_size - 64 * stack_turns - 1024 - 8);
    registers[REG_RIP] = reinterpret_cast<greg_t>(on_fault);
    running = nullptr;
    return;
  }
  for (int i = 0; i < 5; i++) {
    if (caught[i] != signal) continue;
    if (before[i].sa_flags & SA_SIGINFO) before[i].sa_sigaction(signal, info, context);
    else if (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN) before[i].sa_handler(signal);
    else sigaction(signal, &before[i], nullptr);  // it comes again
  }
}

}  // namespace

int timeout_signal() { return SIGRTMAX - 1; }

void catch_faults(void (*f)()) {
  static std::once_flag once;
  std::call_once(once, [f] {
    on_fault = f;
    struct sigaction a = {};
    a.sa_sigaction = handle;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(caught[i], &a, &before[i]);
  });
  static thread_local std::vector<char> stack;
  if (!stack.empty()) return;
  stack.resize(64 << 10);
  stack_t s = {};
  s.ss_sp = stack.data();
  s.ss_size = stack.size();
  sigaltstack(&s, nullptr);
}

}  // namespace metalsim
