// Integer and bit instructions against their definitions in the PTX ISA.
#include "test.h"

namespace {

using Ternary = std::function<uint32_t(uint32_t, uint32_t, uint32_t)>;

// d = op(a, b, c) of %r0, %r1, %r2 to %o0, for many words.
void same(const std::string& body, Ternary want, int target = 80) {
  for (int round = 0; round < 4; round++) {
    auto in = words(32 * 3);
    auto out = lanes(body, in, 1, target);
    for (size_t l = 0; l < 32; l++) {
      uint32_t a = in[3 * l], b = in[3 * l + 1], c = in[3 * l + 2], w = want(a, b, c);
      if (out[l] == w) continue;
      char text[200];
      snprintf(text, sizeof text, "%s of %08x, %08x, %08x: got %08x, want %08x", body.c_str(), a, b, c, out[l], w);
      return fail(__FILE__, __LINE__, text);
    }
  }
}

int32_t s(uint32_t v) { return static_cast<int32_t>(v); }
int32_t byte(uint32_t v, int n, bool is_signed) { return is_signed ? static_cast<int8_t>(v >> 8 * n) : static_cast<uint8_t>(v >> 8 * n); }
int32_t half(uint32_t v, int n, bool is_signed) { return is_signed ? static_cast<int16_t>(v >> 16 * n) : static_cast<uint16_t>(v >> 16 * n); }

void dot() {
  for (bool sa : {false, true})
    for (bool sb : {false, true}) {
      std::string types = std::string(sa ? ".s32" : ".u32") + (sb ? ".s32" : ".u32");
      same("dp4a" + types + " %o0, %r0, %r1, %r2;", [=](uint32_t a, uint32_t b, uint32_t c) {
        for (int n = 0; n < 4; n++) c += static_cast<uint32_t>(byte(a, n, sa) * byte(b, n, sb));
        return c;
      });
      for (int hi : {0, 1})
        same("dp2a" + std::string(hi ? ".hi" : ".lo") + types + " %o0, %r0, %r1, %r2;", [=](uint32_t a, uint32_t b, uint32_t c) {
          for (int n = 0; n < 2; n++) c += static_cast<uint32_t>(half(a, n, sa) * byte(b, n + 2 * hi, sb));
          return c;
        });
    }
}

void permute() {
  same("prmt.b32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) {
    uint64_t both = uint64_t{b} << 32 | a;
    uint32_t r = 0;
    for (int n = 0; n < 4; n++) {
      uint32_t pick = c >> 4 * n & 15, v = static_cast<uint8_t>(both >> 8 * (pick & 7));
      if (pick & 8) v = v & 0x80 ? 0xff : 0;
      r |= v << 8 * n;
    }
    return r;
  });
  struct { const char* mode; uint32_t select[4]; } modes[] = {{"f4e", {0x3210, 0x4321, 0x5432, 0x6543}}, {"b4e", {0x5670, 0x6701, 0x7012, 0x0123}},
                                                               {"rc8", {0x0000, 0x1111, 0x2222, 0x3333}}, {"ecl", {0x3210, 0x3211, 0x3222, 0x3333}},
                                                               {"ecr", {0x0000, 0x1110, 0x2210, 0x3210}}, {"rc16", {0x1010, 0x3232, 0x1010, 0x3232}}};
  for (auto& m : modes)
    same("prmt.b32." + std::string(m.mode) + " %o0, %r0, %r1, %r2;", [&](uint32_t a, uint32_t b, uint32_t c) {
      uint64_t both = uint64_t{b} << 32 | a;
      uint32_t r = 0;
      for (int n = 0; n < 4; n++) r |= static_cast<uint32_t>(static_cast<uint8_t>(both >> 8 * (m.select[c & 3] >> 4 * n & 7))) << 8 * n;
      return r;
    });
}

void logic() {
  for (uint32_t table : {0x00u, 0x01u, 0x17u, 0x6au, 0x80u, 0x96u, 0xcau, 0xe8u, 0xeau, 0xf8u, 0xffu})
    same("lop3.b32 %o0, %r0, %r1, %r2, " + std::to_string(table) + ";", [=](uint32_t a, uint32_t b, uint32_t c) {
      uint32_t r = 0;
      for (int n = 0; n < 32; n++) r |= (table >> ((a >> n & 1) << 2 | (b >> n & 1) << 1 | (c >> n & 1)) & 1) << n;
      return r;
    });
}

void shifts() {
  same("shl.b32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return b > 31 ? 0 : a << b; });
  same("shr.u32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return b > 31 ? 0 : a >> b; });
  same("shr.s32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return static_cast<uint32_t>(s(a) >> (b > 31 ? 31 : b)); });
  same("shf.l.wrap.b32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return c & 31 ? b << (c & 31) | a >> (32 - (c & 31)) : b; });
  same("shf.r.wrap.b32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return c & 31 ? b << (32 - (c & 31)) | a >> (c & 31) : a; });
  same("shf.l.clamp.b32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return c >= 32 ? a : c ? b << c | a >> (32 - c) : b; });
  same("shf.r.clamp.b32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return c >= 32 ? b : c ? b << (32 - c) | a >> c : a; });
  same("{ .reg .b64 %x; mov.b64 %x, {%r0, %r1}; shl.b64 %x, %x, %r2; mov.b64 {%r3, %o0}, %x; }",
       [](uint32_t a, uint32_t b, uint32_t c) { return c > 63 ? 0 : static_cast<uint32_t>((uint64_t{b} << 32 | a) << c >> 32); });
}

void fields() {
  same("bfe.u32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t at = b & 255, n = c & 255, r = 0;
    for (uint32_t i = 0; i < n && i < 32; i++)
      if (at + i < 32) r |= (a >> (at + i) & 1) << i;
    return r;
  });
  same("bfe.s32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t at = b & 255, n = c & 255, r = 0, sign = n ? a >> std::min(at + n - 1, 31u) & 1 : 0;
    for (uint32_t i = 0; i < 32; i++) r |= (i < n && at + i < 32 ? a >> (at + i) & 1 : sign) << i;
    return r;
  });
  same("bfi.b32 %o0, %r0, %r1, %r2, 7;", [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t at = c & 255;
    for (uint32_t i = 0; i < 7 && at + i < 32; i++) b = (b & ~(1u << (at + i))) | (a >> i & 1) << (at + i);
    return b;
  });
  same("popc.b32 %o0, %r0;", [](uint32_t a, uint32_t, uint32_t) { return static_cast<uint32_t>(__builtin_popcount(a)); });
  same("clz.b32 %o0, %r0;", [](uint32_t a, uint32_t, uint32_t) { return a ? static_cast<uint32_t>(__builtin_clz(a)) : 32; });
  same("brev.b32 %o0, %r0;", [](uint32_t a, uint32_t, uint32_t) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i++) r |= (a >> i & 1) << (31 - i);
    return r;
  });
}

void products() {
  same("mul.lo.s32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return a * b; });
  same("mul.hi.u32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); });
  same("mul.hi.s32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return static_cast<uint32_t>(int64_t{s(a)} * s(b) >> 32); });
  same("mad.lo.s32 %o0, %r0, %r1, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return a * b + c; });
  same("mul.wide.s32 %d0, %r0, %r1; shr.u64 %d0, %d0, 16; cvt.u32.u64 %o0, %d0;", [](uint32_t a, uint32_t b, uint32_t) { return static_cast<uint32_t>(int64_t{s(a)} * s(b) >> 16); });
  same("{ .reg .b64 %x, %y; mov.b64 %x, {%r0, %r1}; mov.b64 %y, {%r1, %r2}; mul.lo.s64 %x, %x, %y; mov.b64 {%r3, %o0}, %x; }",
       [](uint32_t a, uint32_t b, uint32_t c) { return static_cast<uint32_t>((uint64_t{b} << 32 | a) * (uint64_t{c} << 32 | b) >> 32); });
  same("div.s32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return b == 0 ? ~0u : a == 0x80000000 && b == ~0u ? a : static_cast<uint32_t>(s(a) / s(b)); });
  same("div.u32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return b ? a / b : ~0u; });
  same("rem.u32 %o0, %r0, %r1;", [](uint32_t a, uint32_t b, uint32_t) { return b ? a % b : a; });
  same("min.s32 %o0, %r0, %r1; max.u32 %o0, %o0, %r2;", [](uint32_t a, uint32_t b, uint32_t c) { return std::max(s(a) < s(b) ? a : b, c); });
  same("abs.s32 %o0, %r0; sub.s32 %o0, %o0, %r1; neg.s32 %o0, %o0;", [](uint32_t a, uint32_t b, uint32_t) { return b - (s(a) < 0 ? -a : a); });
  same("cvt.u16.u32 %h0, %r0; cvt.u16.u32 %h1, %r1; mul.wide.u16 %o0, %h0, %h1;", [](uint32_t a, uint32_t b, uint32_t) { return (a & 0xffff) * (b & 0xffff); });
  same("cvt.u16.u32 %h0, %r0; cvt.u16.u32 %h1, %r1; add.s16 %h0, %h0, %h1; shr.u16 %h0, %h0, 3; cvt.u32.u16 %o0, %h0;",
       [](uint32_t a, uint32_t b, uint32_t) { return static_cast<uint32_t>(static_cast<uint16_t>(a + b) >> 3); });
  same("add.cc.u32 %r3, %r0, %r1; addc.u32 %o0, %r2, 0;", [](uint32_t a, uint32_t b, uint32_t c) { return c + (uint64_t{a} + b > 0xffffffff); });
}

void choices() {
  same("setp.lt.s32 %q0, %r0, %r1; selp.b32 %o0, %r2, %r0, %q0;", [](uint32_t a, uint32_t b, uint32_t c) { return s(a) < s(b) ? c : a; });
  same("setp.hi.u32 %q0|%q1, %r0, %r1; selp.u32 %o0, 1, 0, %q0; @%q1 add.u32 %o0, %o0, 2;", [](uint32_t a, uint32_t b, uint32_t) { return a > b ? 1u : 2u; });
  same("setp.ne.s32 %q0, %r2, 0; setp.ge.and.s32 %q1, %r0, %r1, %q0; selp.u32 %o0, 1, 0, %q1;", [](uint32_t a, uint32_t b, uint32_t c) { return uint32_t{s(a) >= s(b) && c}; });
  same("mov.b32 {%h0, %h1}, %r0; mov.b32 %o0, {%h1, %h0};", [](uint32_t a, uint32_t, uint32_t) { return a << 16 | a >> 16; });
}

}  // namespace

std::vector<Case> arithmetic_cases() {
  return {{"dp4a and dp2a", dot}, {"prmt", permute}, {"lop3", logic}, {"shifts", shifts}, {"bit fields", fields}, {"products", products}, {"choices", choices}};
}
