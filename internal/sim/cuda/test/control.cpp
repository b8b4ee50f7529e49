// How warps and blocks go on together: divergence, barriers, shuffles,
// asynchronous copies, blocks that wait for each other.
#include <string>

#include "test.h"

namespace {

void divergence() {
  // a loop of another length for each lane, and a branch within
  auto in = words(32);
  for (auto& v : in) v %= 50;
  auto out = lanes(R"(
    mov.u32 %o0, 0; mov.u32 %r1, 0;
  loop: setp.ge.u32 %q0, %r1, %r0; @%q0 bra done;
    and.b32 %r2, %r1, 1; setp.eq.u32 %q1, %r2, 0; @%q1 bra even;
    add.u32 %o0, %o0, 100; bra.uni next;
  even: add.u32 %o0, %o0, 1;
  next: add.u32 %r1, %r1, 1; bra loop;
  done:)", in, 1);
  for (size_t l = 0; l < 32; l++) CHECK_EQ(out[l], in[l] / 2 * 100 + (in[l] + 1) / 2);
}

void indexed() {
  std::vector<uint32_t> in(32);
  for (uint32_t l = 0; l < 32; l++) in[l] = l % 3;
  auto out = lanes(R"(
    ts: .branchtargets a, b, c;
    brx.idx %r0, ts;
  a: mov.u32 %o0, 10; bra end;
  b: mov.u32 %o0, 20; bra end;
  c: mov.u32 %o0, 30;
  end:)", in, 1);
  for (uint32_t l = 0; l < 32; l++) CHECK_EQ(out[l], 10 * (l % 3 + 1));
}

void shuffles() {
  auto in = words(32);
  auto check = [&](const char* op, std::function<uint32_t(uint32_t)> from) {
    auto out = lanes(op, in, 1);
    for (uint32_t l = 0; l < 32; l++) CHECK_EQ(out[l], in[from(l)]);
  };
  check("shfl.sync.bfly.b32 %o0, %r0, 5, 31, -1;", [](uint32_t l) { return l ^ 5; });
  check("shfl.sync.idx.b32 %o0, %r0, 7, 31, -1;", [](uint32_t) { return 7; });
  check("shfl.sync.up.b32 %o0, %r0, 3, 0, -1;", [](uint32_t l) { return l < 3 ? l : l - 3; });
  check("shfl.sync.down.b32 %o0, %r0, 3, 31, -1;", [](uint32_t l) { return l + 3 > 31 ? l : l + 3; });
  // in segments of 8
  check("shfl.sync.bfly.b32 %o0, %r0, 12, 0x181f, -1;", [](uint32_t l) { return l & 8 ? l ^ 12 : l; });
  check("shfl.sync.idx.b32 %o0, %r0, 2, 0x181f, -1;", [](uint32_t l) { return (l & 24) | 2; });
  auto out = lanes("and.b32 %r1, %r0, 1; setp.ne.u32 %q0, %r1, 0; vote.sync.ballot.b32 %o0, %q0, -1; vote.sync.any.pred %q1, %q0, -1; selp.u32 %o1, 1, 0, %q1;", in, 2);
  uint32_t ballot = 0;
  for (uint32_t l = 0; l < 32; l++) ballot |= (in[l] & 1) << l;
  CHECK_EQ(out[0], ballot);
  CHECK_EQ(out[63], uint32_t{ballot != 0});
  // a half of the warp by itself
  out = lanes("mov.u32 %o0, 0; setp.lt.u32 %q0, %tid, 16; @!%q0 bra end; shfl.sync.bfly.b32 %o0, %r0, 1, 31, 0xffff; end:", in, 1);
  for (uint32_t l = 0; l < 32; l++) CHECK_EQ(out[l], l < 16 ? in[l ^ 1] : 0);
}

// Warps pass a number along through shared memory, with a barrier at each step.
void barriers() {
  Card c;
  CHECK_EQ(c.load(program(1, R"(
    .shared .align 4 .b32 cell;
    mov.u32 %r0, cell; shr.u32 %r1, %tid, 5; mov.u32 %r2, %ntid.x; shr.u32 %r2, %r2, 5;
    setp.eq.u32 %q0, %tid, 0; @%q0 st.shared.u32 [%r0], 1;
    mov.u32 %r3, 0;
  loop:
    bar.sync 0;
    and.b32 %r4, %tid, 31; setp.eq.u32 %q1, %r4, 0; setp.eq.and.u32 %q1, %r1, %r3, %q1;
    @%q1 ld.shared.u32 %r5, [%r0]; @%q1 mad.lo.u32 %r5, %r5, 3, %r1; @%q1 st.shared.u32 [%r0], %r5;
    add.u32 %r3, %r3, 1; setp.lt.u32 %q2, %r3, %r2; @%q2 bra loop;
    bar.sync 0;
    @%q0 ld.shared.u32 %r5, [%r0]; mov.u32 %r6, %ctaid.x; mul.wide.u32 %d0, %r6, 4; add.u64 %d0, %p0, %d0;
    @%q0 st.global.u32 [%d0], %r5;)")), 0);
  uint64_t out = c.alloc(4 * 100);
  CHECK_EQ(c.launch(c.kernel(), 100, 256, {out}), 0);
  auto got = c.download<uint32_t>(out, 100);
  uint32_t want = 1;
  for (uint32_t w = 0; w < 8; w++) want = want * 3 + w;
  for (auto v : got) CHECK_EQ(v, want);
}

// Before the wait the destination has garbage, after it the data; wait_group N
// leaves the newest N groups in flight.
void asynchronous() {
  std::vector<uint32_t> in(32 * 4);
  for (uint32_t i = 0; i < in.size(); i++) in[i] = 1000 + i;
  auto out = lanes(R"(
    .shared .align 16 .b8 m[1024];
    mov.u32 %r40, m; shl.b32 %r41, %tid, 4; add.u32 %r42, %r40, %r41;
    mov.u32 %r50, 7; st.shared.v4.u32 [%r42], {%r50, %r50, %r50, %r50}; st.shared.v4.u32 [%r42+512], {%r50, %r50, %r50, %r50};
    cvt.u64.u32 %d0, %r41; add.u64 %d0, %p0, %d0;
    cp.async.cg.shared.global [%r42], [%d0], 16; cp.async.commit_group;
    cp.async.ca.shared.global [%r42+512], [%d0], 8, 4; cp.async.commit_group;
    ld.shared.u32 %o0, [%r42];
    cp.async.wait_group 1;
    ld.shared.u32 %o1, [%r42+4]; ld.shared.u32 %o2, [%r42+512];
    cp.async.wait_group 0;
    ld.shared.u32 %o3, [%r42+512]; ld.shared.u32 %o4, [%r42+516];)", in, 5);
  for (uint32_t l = 0; l < 32; l++) {
    CHECK(out[5 * l] != 1000 + 4 * l && out[5 * l] != 7);
    CHECK_EQ(out[5 * l + 1], 1001 + 4 * l);
    CHECK(out[5 * l + 2] != 1000 + 4 * l);
    CHECK_EQ(out[5 * l + 3], 1000 + 4 * l);
    CHECK_EQ(out[5 * l + 4], 0u);  // beyond the source's size: zeros
  }
}

// A counter that all blocks raise and then wait for: a barrier of the grid.
const char* grid_barrier = R"(
    setp.eq.u32 %q0, %tid, 0; @!%q0 bra wait;
    atom.global.add.u32 %r0, [%p0], 1;
    mov.u32 %r1, %nctaid.x;
  spin: ld.volatile.global.u32 %r2, [%p0]; setp.lt.u32 %q1, %r2, %r1; @%q1 bra spin;
  wait: bar.sync 0;
    mov.u32 %r3, %ctaid.x; mul.wide.u32 %d0, %r3, 4; add.u64 %d0, %p1, %d0; @%q0 st.global.u32 [%d0], %r2;)";

void persistent() {
  Card c;
  CHECK_EQ(c.load(program(2, grid_barrier)), 0);
  uint64_t counter = c.upload(std::vector<uint32_t>{0}), out = c.alloc(4 * 64);
  CHECK_EQ(c.launch(c.kernel(), 64, 64, {counter, out}), 0);
  for (auto v : c.download<uint32_t>(out, 64)) CHECK_EQ(v, 64u);
  // a spin without any load that marks it, by compare and swap
  CHECK_EQ(c.load(program(2, R"(
    mov.u32 %r3, %ctaid.x; setp.ne.u32 %q0, %tid, 0; @%q0 bra end;
  spin: add.u32 %r4, %r3, 1; atom.global.cas.b32 %r2, [%p0], %r3, %r4; setp.ne.u32 %q1, %r2, %r3; @%q1 bra spin;
    mul.wide.u32 %d0, %r3, 4; add.u64 %d0, %p1, %d0; st.global.u32 [%d0], %r4; end:)")), 0);
  counter = c.upload(std::vector<uint32_t>{0});
  CHECK_EQ(c.launch(c.kernel(), 64, 32, {counter, out}), 0);
  auto got = c.download<uint32_t>(out, 64);
  for (uint32_t b = 0; b < 64; b++) CHECK_EQ(got[b], b + 1);
}

// More blocks than the device holds at once never meet.
void too_many() {
  Card c;
  CHECK_EQ(c.load(program(2, grid_barrier)), 0);
  uint64_t counter = c.upload(std::vector<uint32_t>{0}), out = c.alloc(4 * 4096);
  CHECK_EQ(c.launch(c.kernel(), 4096, 64, {counter, out}), 0);
  CHECK_EQ(c.sync(), 702);
  CHECK(said().find("does not end") != std::string::npos);
}

void endless() {
  Card c;
  CHECK_EQ(c.load(program(0, "loop: add.u32 %r0, %r0, 1; bra loop;")), 0);
  CHECK_EQ(c.launch(c.kernel(), 1, 32, {}), 0);
  CHECK_EQ(c.sync(), 702);
}

void atomics() {
  Card c;
  CHECK_EQ(c.load(program(1, R"(
    .shared .align 4 .b32 sum;
    mov.u32 %r0, sum; setp.eq.u32 %q0, %tid, 0; @%q0 st.shared.u32 [%r0], 0; bar.sync 0;
    red.shared.add.s32 [%r0], %tid; bar.sync 0;
    @%q0 ld.shared.u32 %r1, [%r0]; @%q0 red.global.add.u32 [%p0], %r1;
    red.global.max.u32 [%p0+4], %tid; mov.f32 %f0, 0f3F000000; atom.global.add.f32 %f1, [%p0+8], %f0;)")), 0);
  uint64_t out = c.upload(std::vector<uint32_t>{0, 0, 0});
  CHECK_EQ(c.launch(c.kernel(), 50, 128, {out}), 0);
  auto got = c.download<uint32_t>(out, 3);
  CHECK_EQ(got[0], 50u * 127 * 64);
  CHECK_EQ(got[1], 127u);
  CHECK_EQ(float_of(got[2]), 3200.0f);
}

void spaces() {
  // generic addresses of shared and local memory, constants, vectors, 64-bit loads
  auto in = words(32 * 4);
  auto out = lanes(R"(
    .shared .align 16 .b8 m[512]; .local .align 16 .b8 mine[32];
    mov.u32 %r40, m; shl.b32 %r41, %tid, 4; add.u32 %r42, %r40, %r41; cvt.u64.u32 %d0, %r42; cvta.shared.u64 %d0, %d0;
    st.v4.u32 [%d0], {%r0, %r1, %r2, %r3}; ld.shared.v2.u32 {%o0, %o1}, [%r42+8];
    mov.u64 %d1, mine; st.local.u32 [mine+4], %r2; cvta.local.u64 %d1, %d1; ld.u32 %o2, [%d1+4];
    ld.shared.u16 %h0, [%r42+2]; cvt.u32.u16 %o3, %h0; ld.shared.s8 %o4, [%r42];)", in, 5);
  for (uint32_t l = 0; l < 32; l++) {
    CHECK_EQ(out[5 * l], in[4 * l + 2]);
    CHECK_EQ(out[5 * l + 1], in[4 * l + 3]);
    CHECK_EQ(out[5 * l + 2], in[4 * l + 2]);
    CHECK_EQ(out[5 * l + 3], in[4 * l] >> 16);
    CHECK_EQ(out[5 * l + 4], static_cast<uint32_t>(static_cast<int8_t>(in[4 * l])));
  }
}

}  // namespace

std::vector<Case> control_cases() {
  return {{"divergence", divergence}, {"indexed branch", indexed}, {"shuffles and votes", shuffles}, {"barriers", barriers}, {"barriers in another order", barriers, {"DROVER_SIM_ORDER=3"}}, {"asynchronous copies", asynchronous},
          {"blocks that wait for each other", persistent}, {"blocks that never meet", too_many}, {"endless loop", endless, {"DROVER_SIM_TIMEOUT=1"}}, {"atomics", atomics}, {"memory spaces", spaces}};
}
