// What a program may do wrong, and how it is told.
#include <string>

#include "test.h"

namespace {

void says(std::vector<std::string> parts) {
  std::string s = said();
  for (auto& p : parts) {
    if (s.find(p) != s.npos) continue;
    fail(__FILE__, __LINE__, "not said: " + p);
    return;
  }
}

// Runs body on grid blocks of block threads with a buffer of n words in %p0; a CUresult.
int run(const std::string& body, unsigned grid = 1, unsigned block = 64, size_t n = 64, int target = 80) {
  Card c;
  CHECK_EQ(c.load(program(1, body, target)), 0);
  uint64_t p = c.upload(std::vector<uint32_t>(n, 1));
  CHECK_EQ(c.launch(c.kernel(), grid, block, {p}), 0);
  return c.sync();
}

int line_of(const std::string& body, const char* what) {
  std::string text = program(1, body);
  int line = 1;
  for (size_t i = 0; i < text.find(what); i++) line += text[i] == '\n';
  return line;
}

void overrun() {
  // the last thread of the last block is one word too far
  std::string body = "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mad.lo.u32 %r0, %r0, %r1, %tid;\nmul.wide.u32 %d0, %r0, 4; add.u64 %d0, %p0, %d0;\nst.global.u32 [%d0], %r0;\n";
  CHECK_EQ(run(body, 2, 64, 127), 700);
  says({"kernel k", "block (1,0,0)", "thread (63,0,0)", "PTX line " + std::to_string(line_of(body, "st.global")), "st.global.u32 [%d0], %r0", "illegal address", "write of 4 bytes 0 bytes behind the end of an allocation of 508 bytes"});
}

void before() {
  CHECK_EQ(run("ld.global.u32 %r0, [%p0+-4]; st.global.u32 [%p0], %r0;"), 700);
  says({"read of 4 bytes", "4 bytes before an allocation of 256 bytes"});
}

void misaligned() {
  CHECK_EQ(run("add.u64 %d0, %p0, 4; ld.global.v2.u32 {%r0, %r1}, [%d0]; st.global.u32 [%p0], %r0;"), 716);
  says({"misaligned address", "for 8 bytes", "thread (0,0,0)"});
}

void shared_overrun() {
  CHECK_EQ(run(".shared .align 4 .b8 m[128]; mov.u32 %r0, m; shl.b32 %r1, %tid, 2; add.u32 %r0, %r0, %r1; st.shared.u32 [%r0], %r1;"), 700);
  says({"thread (32,0,0)", "128 bytes of shared memory"});
}

void divergent_barrier() {
  CHECK_EQ(run("setp.lt.u32 %q0, %tid, 40; @%q0 bra end; bar.sync 0; end: ;"), 719);
  says({"divergent barrier", "kernel k", "block (0,0,0)", "bar.sync 0"});
}

// Warps at different barriers.
void parted_barrier() {
  CHECK_EQ(run("setp.lt.u32 %q0, %tid, 32; @%q0 bra low; bar.sync 1; bra end; low: bar.sync 2; end: ;"), 719);
  says({"divergent barrier: 1 of 2 warps wait at barrier"});
}

void divergent_collective() {
  CHECK_EQ(run("setp.lt.u32 %q0, %tid, 5; @%q0 bra end; shfl.sync.bfly.b32 %r0, %tid, 1, 31, -1; end: ;"), 719);
  says({"divergent collective", "0xffffffe0", "0x0000001f", "shfl.sync.bfly"});
}

void divergent_mma() {
  CHECK_EQ(run("mov.u32 %r0, 0; setp.eq.u32 %q0, %tid, 7; @%q0 bra end; mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%r1, %r2}, {%r0}, {%r0}, {%r0, %r0}; end: ;"), 719);
  says({"divergent collective", "mma.sync"});
}

void trap() {
  CHECK_EQ(run("setp.eq.u32 %q0, %tid, 33; @%q0 trap;"), 719);
  says({"thread (33,0,0)", "trap"});
}

// --- with the checks

std::vector<std::string> checked(const char* what = "1") { return {std::string("DROVER_SIM_CHECK=") + what}; }

const char* exchange_begin = ".shared .align 4 .b8 m[256]; mov.u32 %r0, m; shl.b32 %r1, %tid, 2; add.u32 %r2, %r0, %r1; st.shared.u32 [%r2], %tid;\n";
const char* exchange_end = "xor.b32 %r3, %r1, 128; add.u32 %r3, %r0, %r3; ld.shared.u32 %r4, [%r3]; cvt.u64.u32 %d0, %r1; add.u64 %d0, %p0, %d0; st.global.u32 [%d0], %r4;\n";

void race() {
  CHECK_EQ(run(std::string(exchange_begin) + exchange_end), 719);
  says({"race on shared memory: write of what thread", "read on PTX line", "st.shared.u32 [%r2], %tid"});
}

void no_race() {
  CHECK_EQ(run(std::string(exchange_begin) + "bar.sync 0;\n" + exchange_end), 0);
  CHECK(said().empty());
}

// Within a warp a barrier of the warp is enough, nothing is not.
void warp_race() {
  std::string swap = "xor.b32 %r3, %r1, 4; add.u32 %r3, %r0, %r3; ld.shared.u32 %r4, [%r3]; cvt.u64.u32 %d0, %r1; add.u64 %d0, %p0, %d0; st.global.u32 [%d0], %r4;\n";
  CHECK_EQ(run(std::string(exchange_begin) + "bar.warp.sync -1;\n" + swap), 0);
  CHECK_EQ(run(exchange_begin + swap), 719);
  says({"race on shared memory"});
}

// A buffer used again before all have read it.
void reuse() {
  CHECK_EQ(run(std::string(exchange_begin) + "bar.sync 0;\n" + exchange_end + "st.shared.u32 [%r2], %r1;"), 719);
  says({"race on shared memory", "PTX line"});
}

void unwritten_shared() {
  CHECK_EQ(run(".shared .align 4 .b8 m[256]; mov.u32 %r0, m; ld.shared.u32 %r1, [%r0]; st.global.u32 [%p0], %r1;"), 719);
  says({"read of shared memory that nothing has written", "ld.shared.u32"});
}

void early_copy() {
  CHECK_EQ(run(".shared .align 16 .b8 m[1024]; mov.u32 %r0, m; shl.b32 %r1, %tid, 2; add.u32 %r0, %r0, %r1; cvt.u64.u32 %d0, %r1; add.u64 %d0, %p0, %d0;"
               "cp.async.ca.shared.global [%r0], [%d0], 4; cp.async.commit_group; ld.shared.u32 %r2, [%r0]; st.global.u32 [%d0], %r2;"), 719);
  says({"before its asynchronous copy was waited for", "ld.shared.u32"});
}

// Waited for by its own thread, read by another without a barrier.
void copy_race() {
  CHECK_EQ(run(".shared .align 16 .b8 m[1024]; mov.u32 %r0, m; shl.b32 %r1, %tid, 2; add.u32 %r2, %r0, %r1; cvt.u64.u32 %d0, %r1; add.u64 %d0, %p0, %d0;"
               "cp.async.ca.shared.global [%r2], [%d0], 4; cp.async.wait_all; xor.b32 %r3, %r1, 4; add.u32 %r3, %r0, %r3; ld.shared.u32 %r4, [%r3]; st.global.u32 [%d0], %r4;"), 719);
  says({"race on shared memory"});
}

void unwritten_global() {
  Card c;
  CHECK_EQ(c.load(program(2, "ld.global.u32 %r0, [%p0+8]; st.global.u32 [%p1], %r0;")), 0);
  uint64_t p = c.alloc(64);
  MUST("cuMemsetD8Async", p, 0, 8, c.stream);
  CHECK_EQ(c.launch(c.kernel(), 1, 1, {p, p}), 0);
  CHECK_EQ(c.sync(), 719);
  says({"read of global memory that nothing has written", "byte 8 of an allocation of 64 bytes"});
}

void unset_register() {
  CHECK_EQ(run("setp.lt.u32 %q0, %tid, 9; @%q0 mov.u32 %r5, 1; st.global.u32 [%p0], %r5;"), 719);
  says({"reads a register that has no value", "thread (9,0,0)"});
}

int launch_dependent(const Card& c, Handle k, uint64_t p) {
  struct { uint32_t grid[3], block[3], shared, pad; uint64_t stream; void* attributes; uint32_t count, pad2; } config{};
  struct { uint32_t id, pad; int value; char rest[60]; } attribute{};
  attribute.id = 6, attribute.value = 1;
  config.grid[0] = config.grid[1] = config.grid[2] = config.block[1] = config.block[2] = 1;
  config.block[0] = 32;
  config.stream = c.stream, config.attributes = &attribute, config.count = 1;
  void* params[] = {&p};
  return call("cuLaunchKernelEx", &config, k, params, 0);
}

// A dependent launch may touch what earlier ones write only after its wait.
void dependent(bool waits) {
  Card c;
  CHECK_EQ(c.load(program(1, std::string("griddepcontrol.launch_dependents;") + (waits ? "griddepcontrol.wait;" : "") + "mul.wide.u32 %d0, %tid, 4; add.u64 %d0, %p0, %d0; ld.global.u32 %r0, [%d0]; add.u32 %r0, %r0, 1; st.global.u32 [%d0], %r0;", 90)), 0);
  uint64_t p = c.upload(std::vector<uint32_t>(32, 1));
  for (int i = 0; i < 3; i++) CHECK_EQ(launch_dependent(c, c.kernel(), p), 0);
  CHECK_EQ(c.sync(), waits ? 0 : 719);
  if (waits) CHECK_EQ(c.download<uint32_t>(p, 32)[5], 4u);
  else says({"earlier launch, 1 before this one", "griddepcontrol.wait comes first"});
}
void dependent_waits() { dependent(true); }
void dependent_hurries() { dependent(false); }

}  // namespace

std::vector<Case> fault_cases() {
  return {{"overrun", overrun}, {"underrun", before}, {"misaligned", misaligned}, {"overrun of shared memory", shared_overrun}, {"divergent barrier", divergent_barrier},
          {"warps at different barriers", parted_barrier}, {"divergent shuffle", divergent_collective}, {"divergent mma", divergent_mma}, {"trap", trap},
          {"race", race, checked("races")}, {"no race", no_race, checked()}, {"race within a warp", warp_race, checked("races")}, {"buffer used again too early", reuse, checked()},
          {"unwritten shared memory", unwritten_shared, checked("shared")}, {"copy read before its wait", early_copy, checked()}, {"copy read without a barrier", copy_race, checked("races")},
          {"unwritten global memory", unwritten_global, checked("global")}, {"register without a value", unset_register, checked("registers")},
          {"dependent launch that waits", dependent_waits, {"DROVER_SIM_CHECK=1", "DROVER_SIM_CUDA=cc=9.0"}}, {"dependent launch that does not wait", dependent_hurries, {"DROVER_SIM_CHECK=1", "DROVER_SIM_CUDA=cc=9.0"}}};
}
