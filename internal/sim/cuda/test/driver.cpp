// The driver API: memory, streams, graphs, modules, several devices.
#include <fstream>
#include <sstream>
#include <string>

#include "test.h"

namespace {

const char* add_one = "mul.wide.u32 %d0, %tid, 4; add.u64 %d0, %p0, %d0; ld.global.u32 %r0, [%d0]; add.u32 %r0, %r0, 1; st.global.u32 [%d0], %r0;";

uint32_t* pin(size_t n) {
  void* p = nullptr;
  MUST("cuMemHostAlloc", &p, n, 1);
  return static_cast<uint32_t*>(p);
}

void described() {
  MUST("cuInit", 0);
  int n = 0, v = 0;
  MUST("cuDeviceGetCount", &n);
  CHECK_EQ(n, 2);
  char name[64];
  MUST("cuDeviceGetName", name, sizeof name, 1);
  CHECK(!strcmp(name, "Sim B"));
  MUST("cuDeviceGetAttribute", &v, 75, 1);
  CHECK_EQ(v, 9);
  MUST("cuDeviceGetAttribute", &v, 97, 1);
  CHECK_EQ(v, 227 << 10);
  size_t total = 0;
  MUST("cuDeviceTotalMem_v2", &total, 1);
  CHECK_EQ(total, size_t{512} << 20);
  CHECK_EQ(call("cuDeviceGet", &v, 2), 101);
  CHECK_EQ(call("cuMemGetInfo_v2", &total, &total), 201);
}

void hidden() {
  int n = 0;
  CHECK_EQ(call("cuDeviceGetCount", &n), 3);
  MUST("cuInit", 0);
  char name[64];
  MUST("cuDeviceGetCount", &n);
  CHECK_EQ(n, 1);
  MUST("cuDeviceGetName", name, sizeof name, 0);
  CHECK(!strcmp(name, "Sim B"));
}
void none() { CHECK_EQ(call("cuInit", 0), 100); }
void unreadable() { CHECK_EQ(call("cuInit", 0), 999); }

void full() {
  Card c;
  size_t free = 0, total = 0;
  MUST("cuMemGetInfo_v2", &free, &total);
  CHECK_EQ(free, size_t{1} << 20);
  uint64_t a = c.alloc(1000), b = 0;
  MUST("cuMemGetInfo_v2", &free, &total);
  CHECK_EQ(free, (size_t{1} << 20) - 1024);
  CHECK_EQ(call("cuMemAlloc_v2", &b, (size_t{1} << 20) - 1023), 2);
  b = c.alloc((size_t{1} << 20) - 1024);
  CHECK_EQ(call("cuMemAlloc_v2", &b, 1), 2);
  MUST("cuMemFree_v2", a);
  MUST("cuMemGetInfo_v2", &free, &total);
  CHECK_EQ(free, size_t{1024});
  CHECK_EQ(call("cuMemFree_v2", a), 1);
}

// The second allocation fails, and at the third the card is lost; what was given out
// and taken back is written down.
void failing() {
  Card c;
  uint64_t a = c.alloc(1000), b = 0;
  CHECK_EQ(call("cuMemAlloc_v2", &b, 1000), 2);
  MUST("cuMemFree_v2", a);
  CHECK_EQ(call("cuMemAlloc_v2", &b, 1000), 214);
  size_t free = 0, total = 0;
  CHECK_EQ(call("cuMemGetInfo_v2", &free, &total), 214);
  std::ifstream f("memory");
  std::stringstream all;
  all << f.rdbuf();
  CHECK(all.str() == "0 1024\n0 0\n");
}

// Work runs when it is waited for, and a copy reads pinned memory then.
void lazy() {
  Card c;
  uint32_t* from = pin(4096);
  uint32_t* to = pin(4096);
  uint64_t p = c.alloc(4096);
  from[0] = 1, to[0] = 77;
  MUST("cuMemcpyHtoDAsync_v2", p, from, 4, c.stream);
  from[0] = 2;
  MUST("cuMemcpyDtoHAsync_v2", to, p, 4, c.stream);
  CHECK_EQ(to[0], 77u);
  CHECK_EQ(c.sync(), 0);
  CHECK_EQ(to[0], 2u);
  // memory that is not pinned is read at once
  uint32_t plain = 5;
  MUST("cuMemcpyHtoDAsync_v2", p, &plain, 4, c.stream);
  plain = 6;
  CHECK_EQ(c.download<uint32_t>(p, 1)[0], 5u);
  MUST("cuMemHostRegister_v2", &plain, 4, 1);
  CHECK_EQ(call("cuMemHostRegister_v2", &plain, 4, 1), 712);
  MUST("cuMemcpyHtoDAsync_v2", p, &plain, 4, c.stream);
  plain = 7;
  CHECK_EQ(c.download<uint32_t>(p, 1)[0], 7u);
  MUST("cuMemHostUnregister", &plain);
  CHECK_EQ(call("cuMemHostUnregister", &plain), 713);
  CHECK_EQ(call("cuMemcpyHtoDAsync_v2", p, from, 8192, c.stream), 1);
}

// One stream waits for another by an event, and without it does not.
void events() {
  Card c;
  CHECK_EQ(c.load(program(1, add_one)), 0);
  Handle k = c.kernel(), other = 0, event = 0, start = 0;
  MUST("cuStreamCreate", &other, 1);
  MUST("cuEventCreate", &event, 0);
  MUST("cuEventCreate", &start, 0);
  uint64_t p = c.upload(std::vector<uint32_t>(32, 0));
  uint32_t* to = pin(256);
  CHECK_EQ(c.sync(), 0);
  for (bool waits : {false, true}) {
    MUST("cuMemsetD8Async", p, 0, 128, c.stream);
    CHECK_EQ(c.sync(), 0);
    MUST("cuEventRecord", start, c.stream);
    CHECK_EQ(c.launch(k, 1, 32, {p}), 0);
    MUST("cuEventRecord", event, c.stream);
    CHECK_EQ(c.launch(k, 1, 32, {p}), 0);
    if (waits) MUST("cuStreamWaitEvent", other, event, 0);
    MUST("cuMemcpyDtoHAsync_v2", to, p, 128, other);
    float ms = -1;
    CHECK_EQ(call("cuEventElapsedTime", &ms, start, event), 600);
    MUST("cuStreamSynchronize", other);
    CHECK_EQ(to[3], uint32_t{waits});
    CHECK_EQ(c.sync(), 0);
    MUST("cuEventElapsedTime", &ms, start, event);
    CHECK(ms >= 0 && ms < 1000);
  }
}

void graphs() {
  Card c;
  CHECK_EQ(c.load(program(1, add_one)), 0);
  Handle graph = 0, replay = 0, side = 0, fork = 0, join = 0;
  MUST("cuStreamCreate", &side, 1);
  MUST("cuEventCreate", &fork, 2);
  MUST("cuEventCreate", &join, 2);
  uint64_t p = c.upload(std::vector<uint32_t>(32, 0)), q = c.alloc(128);
  uint32_t* from = pin(128);
  uint32_t* to = pin(128);
  CHECK_EQ(c.sync(), 0);
  MUST("cuStreamBeginCapture_v2", c.stream, 2);
  MUST("cuMemcpyHtoDAsync_v2", p, from, 128, c.stream);
  CHECK_EQ(c.launch(c.kernel(), 1, 32, {p}), 0);
  // a second stream takes part
  MUST("cuEventRecord", fork, c.stream);
  MUST("cuStreamWaitEvent", side, fork, 0);
  MUST("cuMemcpyDtoDAsync_v2", q, p, 128, side);
  MUST("cuEventRecord", join, side);
  MUST("cuStreamWaitEvent", c.stream, join, 0);
  MUST("cuMemcpyDtoHAsync_v2", to, q, 128, c.stream);
  MUST("cuStreamEndCapture", c.stream, &graph);
  MUST("cuGraphInstantiateWithFlags", &replay, graph, 0);
  MUST("cuGraphDestroy", graph);
  to[0] = 99;
  CHECK_EQ(c.sync(), 0);
  CHECK_EQ(to[0], 99u);
  for (uint32_t v = 0; v < 3; v++) {
    from[31] = 10 * v;
    MUST("cuGraphLaunch", replay, c.stream);
    CHECK_EQ(c.sync(), 0);
    CHECK_EQ(to[31], 10 * v + 1);
  }
  MUST("cuGraphExecDestroy", replay);
  CHECK_EQ(call("cuGraphLaunch", replay, c.stream), 400);
  // waiting for a stream ends its capture
  MUST("cuStreamBeginCapture_v2", c.stream, 2);
  CHECK_EQ(c.sync(), 900);
  CHECK_EQ(call("cuStreamEndCapture", c.stream, &graph), 901);
  // memory that is not pinned cannot be captured, work left behind neither
  MUST("cuStreamBeginCapture_v2", c.stream, 2);
  CHECK_EQ(call("cuMemcpyHtoDAsync_v2", p, &graph, 4, c.stream), 900);
  CHECK_EQ(call("cuStreamEndCapture", c.stream, &graph), 901);
  MUST("cuStreamBeginCapture_v2", c.stream, 2);
  MUST("cuEventRecord", fork, c.stream);
  MUST("cuStreamWaitEvent", side, fork, 0);
  MUST("cuMemsetD8Async", p, 0, 4, side);
  CHECK_EQ(call("cuStreamEndCapture", c.stream, &graph), 904);
}

// A fault ends one device, the other goes on; memories are apart.
void two() {
  Card a(0), b(1);
  a.use();
  CHECK_EQ(a.load(program(1, add_one)), 0);
  b.use();
  CHECK_EQ(b.load(program(1, add_one)), 0);
  uint64_t q = b.upload(std::vector<uint32_t>(32, 4));
  a.use();
  CHECK_EQ(a.launch(a.kernel(), 1, 32, {q}), 0);
  CHECK_EQ(a.sync(), 700);
  CHECK_EQ(a.sync(), 700);
  uint64_t p = 0;
  CHECK_EQ(call("cuMemAlloc_v2", &p, 16), 700);
  CHECK_EQ(call("cuStreamSynchronize", b.stream), 700);
  b.use();
  CHECK_EQ(b.launch(b.kernel(), 1, 32, {q}), 0);
  CHECK_EQ(b.download<uint32_t>(q, 32)[9], 5u);
  CHECK_EQ(call("cuStreamSynchronize", a.stream), 400);
}

// A card is lost at its third launch, and with it all that is asked of it later;
// the other one is there.
void lost() {
  Card a(0), b(1);
  for (Card *c : {&a, &b}) {
    c->use();
    CHECK_EQ(c->load(program(1, add_one)), 0);
    uint64_t p = c->upload(std::vector<uint32_t>(32, 4));
    for (int i = 0; i < 2; i++) CHECK_EQ(c->launch(c->kernel(), 1, 32, {p}), 0);
    CHECK_EQ(c->download<uint32_t>(p, 32)[9], 6u);
    CHECK_EQ(c->launch(c->kernel(), 1, 32, {p}), 0);
    int gone = c == &a ? 999 : 0;
    CHECK_EQ(c->sync(), gone);
    CHECK_EQ(c->sync(), gone);
    CHECK_EQ(call("cuMemAlloc_v2", &p, 16), gone);
  }
}

void modules() {
  Card c;
  std::string log;
  CHECK_EQ(c.load(program(0, "mapa.u64 %d0, %d0, 0;"), &log), 218);
  CHECK(log.find("line 15: error: mapa.u64: instruction not supported") != std::string::npos);
  CHECK_EQ(c.load(program(0, "add.u32.foo %r0, %r0, 1;"), &log), 218);
  CHECK(log.find(".foo not supported") != std::string::npos);
  CHECK_EQ(c.load(program(0, "add.u32 %r0, %x0, 1;"), &log), 218);
  CHECK_EQ(c.load(program(0, "bra nowhere;"), &log), 218);
  CHECK(log.find("unknown label nowhere") != std::string::npos);
  CHECK_EQ(c.load(program(0, "", 90), &log), 209);
  std::string newer = program(0, "");
  newer.replace(newer.find("7.8"), 3, "9.9");
  CHECK_EQ(c.load(newer, &log), 222);
  CHECK_EQ(c.load("\177ELF", &log), 200);
  CHECK_EQ(c.load(program(0, "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r1];", 70), &log), 218);
  CHECK_EQ(c.load(program(0, "")), 0);
  Handle k = 0;
  CHECK_EQ(call("cuModuleGetFunction", &k, c.module, "other"), 500);
}

// The same program under another name does the same.
void renamed() {
  auto in = words(32);
  for (int i = 0; i < 2; i++) {
    Card c;
    std::string text = program(1, add_one);
    const char* name = i ? "attention_f16_some_other_name" : "k";
    text.replace(text.find(".entry k("), 9, std::string(".entry ") + name + "(");
    CHECK_EQ(c.load(text), 0);
    uint64_t p = c.upload(in);
    CHECK_EQ(c.launch(c.kernel(name), 1, 32, {p}), 0);
    auto out = c.download<uint32_t>(p, 32);
    for (size_t l = 0; l < 32; l++) CHECK_EQ(out[l], in[l] + 1);
  }
}

void kernels() {
  Card c;
  CHECK_EQ(c.load(program(0, ".shared .align 4 .b8 m[2048]; .local .align 8 .b8 l[24]; mov.u32 %r0, m; st.shared.u32 [%r0], 0; st.local.u32 [l], 0;")), 0);
  Handle k = c.kernel();
  int v = 0;
  MUST("cuFuncGetAttribute", &v, 1, k);
  CHECK_EQ(v, 2048);
  MUST("cuFuncGetAttribute", &v, 3, k);
  CHECK_EQ(v, 24);
  MUST("cuFuncGetAttribute", &v, 4, k);
  CHECK(v > 0 && v < 256);
  CHECK_EQ(c.launch(k, 1, 32, {}, 47 << 10), 1);
  CHECK_EQ(c.launch(k, 1, 32, {}, 46 << 10), 0);
  CHECK_EQ(call("cuFuncSetAttribute", k, 8, 162 << 10), 1);
  MUST("cuFuncSetAttribute", k, 8, 161 << 10);
  CHECK_EQ(c.launch(k, 1, 32, {}, 161 << 10), 0);
  MUST("cuOccupancyMaxActiveBlocksPerMultiprocessor", &v, k, 32, 78 << 10);
  CHECK_EQ(v, 2);
  MUST("cuOccupancyMaxActiveBlocksPerMultiprocessor", &v, k, 1024, 0);
  CHECK_EQ(v, 2);
  CHECK_EQ(c.launch(k, 0, 32, {}), 1);
  CHECK_EQ(c.launch(k, 1, 1025, {}), 1);
  CHECK_EQ(c.sync(), 0);
}

void counts() {
  Card c;
  std::string body = "mul.wide.u32 %d0, %tid, 16; add.u64 %d0, %p0, %d0; ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0]; bar.sync 0; ld.global.u32 %r4, [%p0]; ld.global.u8 %r5, [%p0+1]; st.global.u32 [%d0], %r0;"
                     "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%r0, %r1}, {%f4, %f4, %f4, %f4};";
  CHECK_EQ(c.load(program(1, body)), 0);
  uint64_t p = c.upload(std::vector<uint32_t>(256, 0));
  // two blocks of the same addresses: each sector is distinct once a launch
  for (int i = 0; i < 3; i++) CHECK_EQ(c.launch(c.kernel(), 2, 64, {p}), 0);
  CHECK_EQ(c.sync(), 0);
  std::ifstream file(getenv("DROVER_SIM_COUNTS"));
  std::stringstream text;
  text << file.rdbuf();
  remove(getenv("DROVER_SIM_COUNTS"));
  std::string want = "{\"kernel\":\"k\",\"launches\":3,\"instructions\":" + std::to_string(3 * 4 * 11) + ",\"barriers\":6,\"mma\":12,\"macs\":" + std::to_string(12 * 16 * 8 * 16) +
                     ",\"sectors_read\":" + std::to_string(12 * 18) + ",\"sectors_written\":" + std::to_string(12 * 16) + ",\"distinct_read\":96,\"distinct_write\":96,\"bytes_read\":[384,0,1536,0,6144]}\n";
  if (text.str() != want) fail(__FILE__, __LINE__, "got " + text.str() + "want " + want);
}

}  // namespace

std::vector<Case> driver_cases() {
  const char* pair = "DROVER_SIM_CUDA=name=Sim A,cc=8.0,mem=2GiB;name=Sim B,cc=9.0,mem=512MiB";
  std::string counted = "DROVER_SIM_COUNTS=" + std::string(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp") + "/drover-sim-test-counts";
  return {{"described devices", described, {pair}}, {"hidden devices", hidden, {pair, "CUDA_VISIBLE_DEVICES=1"}}, {"no device", none, {pair, "CUDA_VISIBLE_DEVICES="}},
          {"unreadable description", unreadable, {"DROVER_SIM_CUDA=cc=8"}}, {"out of memory", full, {"DROVER_SIM_CUDA=mem=1MiB"}},
          {"allocations that fail", failing, {"DROVER_SIM_CUDA=oom=2,gone=3", "DROVER_SIM_MEMORY=memory"}}, {"work runs when waited for", lazy}, {"events", events},
          {"graphs", graphs}, {"graphs in another order", graphs, {"DROVER_SIM_ORDER=3"}}, {"two devices", two, {pair}},
          {"a lost device", lost, {"DROVER_SIM_CUDA=lost=3;name=Sim B"}}, {"modules", modules}, {"renamed kernel", renamed}, {"kernels", kernels}, {"counts", counts, {counted}}};
}
