// wgmma against plain definitions, and what a program may do wrong with it.
#include <cmath>
#include <string>

#include "test.h"

namespace {

constexpr int threads = 128, rows = 64, depth = 16;

std::string list(const char* prefix, int first, int n) {
  std::string s = "{";
  for (int i = 0; i < n; i++) s += (i ? ", %" : "%") + std::string(prefix) + std::to_string(first + i);
  return s + "}";
}

std::string number(int n) { return std::to_string(n); }

// Parts of a program that multiplies once; a test leaves out or adds some. Sums are
// %s, A is %a, the descriptor %b, the place of B %m, 128 bytes a column.
struct Parts {
  std::string version = "8.0", target = "sm_90a";
  std::string proxy = "fence.proxy.async.shared::cta;", barrier = "bar.sync 0;", fence = "wgmma.fence.sync.aligned;", add = "1";
  std::string before, after, wait = "wgmma.wait_group.sync.aligned 0;";
};

// Kernel k(in, b, out): of a thread A, then sums; B as it lies in shared memory; sums.
std::string text(int columns, const std::string& type, int step, const Parts& parts = {}) {
  int sums = columns / 2, words = columns * 32 / threads;
  std::string s = ".version " + parts.version + "\n.target " + parts.target + "\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 b, .param .u64 out)\n{\n";
  s += ".reg .f32 %s<" + number(sums) + ">;\n.reg .b32 %a<4>;\n.reg .b32 %r<8>;\n.reg .b32 %m;\n.reg .b64 %b;\n.reg .b64 %d<8>;\n.reg .pred %q<4>;\n.reg .b32 %tid;\n";
  s += ".shared .align 1024 .b8 m[" + number(columns * 128) + "];\nmov.u32 %tid, %tid.x;\nmov.u32 %m, m;\nsetp.ne.u32 %q0, %m, %m;\n";
  s += "ld.param.u64 %d0, [in];\nmul.wide.u32 %d1, %tid, " + number(4 * (sums + 4)) + ";\nadd.u64 %d0, %d0, %d1;\n";
  for (int i = 0; i < 4; i++) s += "ld.global.u32 %a" + number(i) + ", [%d0+" + number(4 * i) + "];\n";
  for (int i = 0; i < sums; i++) s += "ld.global.f32 %s" + number(i) + ", [%d0+" + number(4 * (i + 4)) + "];\n";
  s += "ld.param.u64 %d2, [b];\nmul.wide.u32 %d3, %tid, 4;\nadd.u64 %d2, %d2, %d3;\nshl.b32 %r1, %tid, 2;\nadd.u32 %r1, %m, %r1;\n";
  for (int i = 0; i < words; i++) s += "ld.global.u32 %r0, [%d2+" + number(4 * threads * i) + "];\nst.shared.u32 [%r1+" + number(4 * threads * i) + "], %r0;\n";
  // the descriptor: start, leading 1, 1024 bytes between groups of 8 columns, swizzled by 128 bytes
  s += "shr.u32 %r2, %m, 4;\nadd.u32 %r2, %r2, " + number(2 * step) + ";\ncvt.u64.u32 %b, %r2;\nor.b64 %b, %b, " + number(1 << 16) + ";\nor.b64 %b, %b, 274877906944;\nor.b64 %b, %b, 4611686018427387904;\n";
  s += parts.before + "\n" + parts.proxy + "\n" + parts.barrier + "\n" + parts.fence + "\n";
  s += "wgmma.mma_async.sync.aligned.m64n" + number(columns) + "k16.f32." + type + "." + type + " " + list("s", 0, sums) + ", " + list("a", 0, 4) + ", %b, " + parts.add + ", 1, 1, 0;\n";
  s += "wgmma.commit_group.sync.aligned;\n" + parts.after + "\n" + parts.wait + "\n";
  s += "ld.param.u64 %d4, [out];\nmul.wide.u32 %d5, %tid, " + number(4 * sums) + ";\nadd.u64 %d4, %d4, %d5;\n";
  for (int i = 0; i < sums; i++) s += "st.global.f32 [%d4+" + number(4 * i) + "], %s" + number(i) + ";\n";
  return s + "ret;\n}\n";
}

// An integer from -64 to 64 as 16 bits.
uint32_t encode(const std::string& type, int v) {
  if (type == "bf16") return bits_of(static_cast<float>(v)) >> 16;
  if (v == 0) return 0;
  uint32_t size = static_cast<uint32_t>(std::abs(v));
  int e = 31 - __builtin_clz(size);
  return (v < 0 ? 0x8000u : 0) | static_cast<uint32_t>(e + 15) << 10 | (size << (10 - e) & 1023);
}

void product(int columns, const std::string& type, int step, bool add) {
  int sums = columns / 2;
  auto draw = [](int most) { return static_cast<int>(random_word() % static_cast<uint32_t>(2 * most + 1)) - most; };
  std::vector<int> a(rows * depth), b(static_cast<size_t>(depth * columns)), c(static_cast<size_t>(rows * columns));
  for (auto& v : a) v = draw(64);
  for (auto& v : b) v = draw(64);
  for (auto& v : c) v = draw(1000);
  auto A = [&](int row, int k) { return a[static_cast<size_t>(row * depth + k)]; };
  auto B = [&](int k, int column) { return b[static_cast<size_t>(k * columns + column)]; };
  auto C = [&](int row, int column) { return c[static_cast<size_t>(row * columns + column)]; };
  // "Register Fragments for wgmma": warp w of the four has rows 16w..
  std::vector<uint32_t> in(static_cast<size_t>(threads * (sums + 4)));
  for (int t = 0; t < threads; t++) {
    uint32_t* r = &in[static_cast<size_t>(t * (sums + 4))];
    int row = t / 32 * 16 + t % 32 / 4, k = t % 4 * 2;
    for (int i = 0; i < 4; i++) {
      int at = row + i % 2 * 8, from = k + i / 2 * 8;
      r[i] = encode(type, A(at, from)) | encode(type, A(at, from + 1)) << 16;
    }
    for (int i = 0; i < sums; i++) r[4 + i] = bits_of(static_cast<float>(C(row + i % 4 / 2 * 8, i / 4 * 8 + k + i % 2)));
  }
  // columns of 128 bytes, of which 16 bytes are at part ^ column % 8; other parts are noise
  std::vector<uint32_t> image = words(static_cast<size_t>(columns * 32));
  auto* halves = reinterpret_cast<uint16_t*>(image.data());
  for (int column = 0; column < columns; column++)
    for (int k = 0; k < depth; k++) {
      int at = step * depth + k;
      halves[column * 64 + ((at / 8) ^ (column % 8)) * 8 + at % 8] = static_cast<uint16_t>(encode(type, B(k, column)));
    }
  Card card;
  Parts parts;
  if (!add) parts.add = "%q0";
  CHECK_EQ(card.load(text(columns, type, step, parts)), 0);
  uint64_t to = card.alloc(static_cast<size_t>(threads * sums * 4));
  CHECK_EQ(card.launch(card.kernel(), 1, threads, {card.upload(in), card.upload(image), to}), 0);
  auto out = card.download<uint32_t>(to, static_cast<size_t>(threads * sums));
  for (int t = 0; t < threads; t++)
    for (int i = 0; i < sums; i++) {
      int row = t / 32 * 16 + t % 32 / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + t % 4 * 2 + i % 2;
      int want = add ? C(row, column) : 0;
      for (int k = 0; k < depth; k++) want += A(row, k) * B(k, column);
      if (out[static_cast<size_t>(t * sums + i)] != bits_of(static_cast<float>(want)))
        return fail(__FILE__, __LINE__, type + ", " + number(columns) + " columns, step " + number(step) + ": row " + number(row) + ", column " + number(column));
    }
}

void products() {
  int step = 0;
  for (int columns : {8, 32, 64, 128, 256})
    for (const char* type : {"f16", "bf16"})
      for (bool add : {true, false}) product(columns, type, step++ % 4, add);
}

// Runs a program of 8 columns with operands of 1; a CUresult, or what it gives.
int run(const Parts& parts, std::vector<uint32_t>* out = nullptr, unsigned block = threads) {
  Card c;
  CHECK_EQ(c.load(text(8, "bf16", 0, parts)), 0);
  uint64_t in = c.upload(std::vector<uint32_t>(threads * 8, 0x3f803f80)), b = c.upload(std::vector<uint32_t>(256, 0x3f803f80)), to = c.alloc(threads * 16);
  CHECK_EQ(c.launch(c.kernel(), 1, block, {in, b, to}), 0);
  int result = c.sync();
  if (!result && out) *out = c.download<uint32_t>(to, threads * 4);
  return result;
}

void says(const std::string& what) {
  if (said().find(what) == std::string::npos) fail(__FILE__, __LINE__, "not said: " + what);
}

void right() {
  CHECK_EQ(run({}), 0);
  CHECK(said().empty());
}

// Until it is waited for a product shows nowhere, and it sees what changes too early.
void late() {
  std::vector<uint32_t> out, whole;
  CHECK_EQ(run({}, &whole), 0);
  Parts p;
  p.wait = "wgmma.wait_group.sync.aligned 1; mov.b32 %r7, %s0; wgmma.wait_group.sync.aligned 0; mov.b32 %s3, %r7;";
  p.before = "mov.f32 %s0, 0f40000000;";
  CHECK_EQ(run(p, &out), 0);
  CHECK_EQ(out[3], bits_of(2));
  CHECK_EQ(out[0], bits_of(18));
  p = {};
  p.after = "mov.b32 %a0, 0; mov.b32 %a2, 0;";
  CHECK_EQ(run(p, &out), 0);
  CHECK_EQ(out[0], 0x3f803f80u);
  CHECK(out[2] == whole[2] && whole[0] != out[0]);
}

void no_proxy_fence() {
  Parts p;
  p.proxy = "";
  CHECK_EQ(run(p), 719);
  says("with no fence.proxy.async after it");
}

void early_proxy_fence() {
  Parts p;
  p.before = "fence.proxy.async.shared::cta; st.shared.u32 [%r1], %a0;";
  p.proxy = "";
  CHECK_EQ(run(p), 719);
  says("with no fence.proxy.async after it");
}

void no_barrier() {
  Parts p;
  p.barrier = "";
  CHECK_EQ(run(p), 719);
  says("race on shared memory");
}

void no_fence() {
  Parts p;
  p.fence = "";
  CHECK_EQ(run(p), 719);
  says("written with no wgmma.fence after it");
}

void early_sum() {
  Parts p;
  p.after = "add.f32 %s1, %s0, %s0;";
  CHECK_EQ(run(p), 719);
  says("touches a register of a wgmma product that was not waited for");
}

void early_a() {
  Parts p;
  p.after = "mov.b32 %a3, 0;";
  CHECK_EQ(run(p), 719);
  says("touches a register of a wgmma product that was not waited for");
}

void early_b() {
  Parts p;
  p.after = "bar.sync 0; st.shared.u32 [%r1], %a0;";
  CHECK_EQ(run(p), 719);
  says("write of shared memory that wgmma products under way read");
}

void wrong_group() {
  Parts p;
  p.wait = "wgmma.wait_group.sync.aligned 1; add.f32 %s1, %s0, %s0; wgmma.wait_group.sync.aligned 0;";
  CHECK_EQ(run(p), 719);
  says("touches a register of a wgmma product that was not waited for");
}

void no_wait() {
  Parts p;
  p.wait = "";
  CHECK_EQ(run(p), 719);
  says("leaves before its wgmma products are complete");
}

void small_group() {
  CHECK_EQ(run({}, nullptr, 64), 719);
  says("a warpgroup has 128 threads");
}

void different_matrices() {
  Parts p;
  p.before = "shr.u32 %r3, %tid, 5; and.b32 %r3, %r3, 1; cvt.u64.u32 %d6, %r3; shl.b64 %d6, %d6, 1; add.u64 %b, %b, %d6;";
  CHECK_EQ(run(p), 719);
  says("the warps of a warpgroup have different products");
}

void not_swizzled() {
  Parts p;
  p.before = "and.b64 %b, %b, 4611686018427387903;";
  CHECK_EQ(run(p), 719);
  says("not swizzled by 128 bytes");
}

void targets() {
  Card c;
  std::string log;
  Parts p;
  p.target = "sm_90";
  CHECK_EQ(c.load(text(8, "f16", 0, p), &log), 218);
  CHECK(log.find("wgmma requires .target sm_90a") != log.npos);
}

void other_card() {
  Card c;
  std::string log;
  CHECK_EQ(c.load(text(8, "f16", 0), &log), 209);
}

std::vector<std::string> card(const char* check = "") { return {"DROVER_SIM_CUDA=cc=9.0", std::string("DROVER_SIM_CHECK=") + check}; }

}  // namespace

std::vector<Case> warpgroup_cases() {
  return {{"wgmma", products, {"DROVER_SIM_CUDA=cc=9.0"}}, {"wgmma with checks", products, card("1")}, {"wgmma done right", right, card("1")},
          {"wgmma shows when it is waited for", late, {"DROVER_SIM_CUDA=cc=9.0"}},
          {"wgmma without a proxy fence", no_proxy_fence, card("races")}, {"wgmma with the proxy fence too early", early_proxy_fence, card("races")},
          {"wgmma without a barrier", no_barrier, card("races")}, {"wgmma without its fence", no_fence, card("registers")},
          {"wgmma, sums read too early", early_sum, card("registers")}, {"wgmma, A written too early", early_a, card("registers")},
          {"wgmma, B written too early", early_b, card("races")}, {"wgmma, another group waited for", wrong_group, card("registers")},
          {"wgmma without a wait", no_wait, {"DROVER_SIM_CUDA=cc=9.0"}}, {"wgmma of two warps", small_group, {"DROVER_SIM_CUDA=cc=9.0"}},
          {"wgmma of different matrices", different_matrices, {"DROVER_SIM_CUDA=cc=9.0"}}, {"wgmma of B not swizzled", not_swizzled, {"DROVER_SIM_CUDA=cc=9.0"}},
          {"wgmma for sm_90", targets, {"DROVER_SIM_CUDA=cc=9.0"}}, {"wgmma on another card", other_card, {"DROVER_SIM_CUDA=cc=12.0"}}};
}
