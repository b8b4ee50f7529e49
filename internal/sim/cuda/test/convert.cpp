// Conversions, and approximations against the bounds that the PTX ISA gives.
#include <cfenv>
#include <cmath>

#include "test.h"

namespace {

// The value of an f16, by its definition.
double half_value(uint32_t h) {
  int e = h >> 10 & 31, m = h & 1023;
  double v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24);
  return h & 0x8000 ? -v : v;
}

// The f16 nearest to x, ties to even, by search.
uint32_t nearest_half(double x) {
  if (x != x) return 0x7fff;
  uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (x >= 65520) return sign | 0x7c00;
  uint32_t lo = 0, hi = 0x7c00;  // values of lo <= x < hi, where infinity counts as 65536
  while (hi - lo > 1) {
    uint32_t mid = (lo + hi) / 2;
    (half_value(mid) <= x ? lo : hi) = mid;
  }
  double below = half_value(lo), above = hi == 0x7c00 ? 65536 : half_value(hi);
  bool up = x - below > above - x || (x - below == above - x && lo % 2);
  return sign | (up ? hi : lo);
}

uint32_t nearest_bf16(float f) {
  uint32_t b = bits_of(f), low = b & 0xffff, h = b >> 16;
  if (f != f) return 0x7fff;
  return low > 0x8000 || (low == 0x8000 && h % 2) ? h + 1 : h;
}

// Floats of all sizes.
std::vector<uint32_t> floats(size_t n) {
  static const float special[] = {0, -0.0f, 1, -1, 0.5f, 1.5f, 2.5f, -2.5f, 65504, 65519.996f, 65520, 6e-8f, 2.9802322e-8f, 1e-40f, INFINITY, -INFINITY, NAN, 2147483648.0f, -2147483648.0f, 4294967296.0f, 0.4999999f};
  std::vector<uint32_t> v(n);
  for (auto& w : v) {
    switch (random_word() % 4) {
      case 0: w = bits_of(special[random_word() % std::size(special)]); break;
      case 1: w = random_word(); break;
      case 2: w = bits_of(std::ldexp(static_cast<float>(static_cast<int32_t>(random_word())), -31 + static_cast<int>(random_word() % 20))); break;
      default: w = bits_of(static_cast<float>(static_cast<int>(random_word() % 2001) - 1000) / 2); break;
    }
  }
  return v;
}

// body makes %o0 of %r0.
void same(const std::string& body, const std::vector<uint32_t>& in, std::function<uint32_t(uint32_t)> want, int target = 80) {
  for (size_t at = 0; at + 32 <= in.size(); at += 32) {
    auto out = lanes(body, std::vector<uint32_t>(in.begin() + static_cast<long>(at), in.begin() + static_cast<long>(at) + 32), 1, target);
    for (size_t l = 0; l < 32; l++) {
      uint32_t w = want(in[at + l]);
      if (out[l] == w) continue;
      char text[200];
      snprintf(text, sizeof text, "%s of %08x (%g): got %08x, want %08x", body.c_str(), in[at + l], static_cast<double>(float_of(in[at + l])), out[l], w);
      return fail(__FILE__, __LINE__, text);
    }
  }
}

void halves() {
  same("{ .reg .b16 %x; cvt.rn.f16.f32 %x, %r0; cvt.u32.u16 %o0, %x; }", floats(256), [](uint32_t v) { return nearest_half(static_cast<double>(float_of(v))); });
  same("cvt.rn.f16x2.f32 %o0, %r0, %r0;", floats(256), [](uint32_t v) { return nearest_half(static_cast<double>(float_of(v))) * 0x10001; });
  same("{ .reg .b16 %x; cvt.rn.bf16.f32 %x, %r0; cvt.u32.u16 %o0, %x; }", floats(256), [](uint32_t v) { return nearest_bf16(float_of(v)); });
  same("cvt.rn.bf16x2.f32 %o0, %r0, %r0;", floats(256), [](uint32_t v) { return nearest_bf16(float_of(v)) * 0x10001; });
  same("cvt.u16.u32 %h0, %r0; cvt.f32.f16 %f0, %h0; mov.b32 %o0, %f0;", words(256), [](uint32_t v) {
    double want = half_value(v & 0xffff);
    return want != want ? (v << 13 & 0x7fe000) | 0x7fc00000 | (v & 0x8000) << 16 : bits_of(static_cast<float>(want));
  });
  // round toward zero never grows a value
  same("{ .reg .b16 %x; cvt.rz.f16.f32 %x, %r0; cvt.f32.f16 %f0, %x; mov.b32 %r1, %r0; abs.f32 %f0, %f0; mov.b32 %f1, %r1; abs.f32 %f1, %f1; setp.gtu.f32 %q0, %f0, %f1; setp.num.f32 %q1, %f1, %f1; and.pred %q0, %q0, %q1; selp.u32 %o0, 1, 0, %q0; }",
       floats(256), [](uint32_t) { return 0u; });
}

uint32_t clamp(double x, bool is_signed) {
  if (x != x) return 0;
  double lo = is_signed ? -2147483648.0 : 0, hi = is_signed ? 2147483647.0 : 4294967295.0;
  x = x < lo ? lo : x > hi ? hi : x;
  return is_signed ? static_cast<uint32_t>(static_cast<int32_t>(x)) : static_cast<uint32_t>(x);
}

void integers() {
  auto real = [](uint32_t v) { return static_cast<double>(float_of(v)); };
  same("mov.b32 %f0, %r0; cvt.rni.s32.f32 %o0, %f0;", floats(256), [&](uint32_t v) { return clamp(std::nearbyint(real(v)), true); });
  same("mov.b32 %f0, %r0; cvt.rzi.s32.f32 %o0, %f0;", floats(256), [&](uint32_t v) { return clamp(std::trunc(real(v)), true); });
  same("mov.b32 %f0, %r0; cvt.rmi.s32.f32 %o0, %f0;", floats(256), [&](uint32_t v) { return clamp(std::floor(real(v)), true); });
  same("mov.b32 %f0, %r0; cvt.rpi.u32.f32 %o0, %f0;", floats(256), [&](uint32_t v) { return clamp(std::ceil(real(v)), false); });
  same("mov.b32 %f0, %r0; cvt.rzi.f32.f32 %f0, %f0; mov.b32 %o0, %f0;", floats(256), [&](uint32_t v) { return real(v) != real(v) ? v : bits_of(static_cast<float>(std::trunc(real(v)))); });
  same("cvt.rn.f32.s32 %f0, %r0; mov.b32 %o0, %f0;", words(256), [](uint32_t v) { return bits_of(static_cast<float>(static_cast<int32_t>(v))); });
  same("cvt.rn.f32.u32 %f0, %r0; mov.b32 %o0, %f0;", words(256), [](uint32_t v) { return bits_of(static_cast<float>(v)); });
  same("cvt.rz.f32.u32 %f0, %r0; mov.b32 %o0, %f0;", words(256), [](uint32_t v) {
    float f = static_cast<float>(v);
    return bits_of(static_cast<double>(f) > v ? std::nextafter(f, 0.0f) : f);
  });
  same("cvt.s8.s32 %h0, %r0; cvt.s32.s8 %o0, %h0;", words(256), [](uint32_t v) { return static_cast<uint32_t>(static_cast<int8_t>(v)); });
  same("cvt.sat.s8.s32 %r1, %r0; mov.b32 %o0, %r1;", words(256), [](uint32_t v) {
    auto x = static_cast<int32_t>(v);
    return static_cast<uint32_t>(x < -128 ? -128 : x > 127 ? 127 : x);
  });
  same("cvt.s64.s32 %d0, %r0; shr.s64 %d0, %d0, 8; cvt.u32.u64 %o0, %d0;", words(256), [](uint32_t v) { return static_cast<uint32_t>(int64_t{static_cast<int32_t>(v)} >> 8); });
  same("cvt.u16.u32 %h0, %r0; cvt.rn.f32.s16 %f0, %h0; mov.b32 %o0, %f0;", words(256), [](uint32_t v) { return bits_of(static_cast<int16_t>(v)); });
}

// The error of body's %o0 of %r0 in units of the last place of the right value, or
// absolute; NaN must be NaN, infinite infinite.
void near(const std::string& body, const std::vector<uint32_t>& in, std::function<double(double)> want, double ulps, double absolute = 0) {
  for (size_t at = 0; at + 32 <= in.size(); at += 32) {
    auto out = lanes("mov.b32 %f0, %r0;" + body + " %f0, %f0; mov.b32 %o0, %f0;", std::vector<uint32_t>(in.begin() + static_cast<long>(at), in.begin() + static_cast<long>(at) + 32), 1);
    for (size_t l = 0; l < 32; l++) {
      double x = static_cast<double>(float_of(in[at + l])), w = want(x), got = static_cast<double>(float_of(out[l]));
      double unit = std::ldexp(1.0, std::max(std::ilogb(w), -126) - 23);
      bool overflow = std::fabs(w) > 3.4028235e38;
      if (w != w ? got != got : overflow ? std::isinf(got) : std::fabs(got - w) <= std::max(ulps * unit, absolute)) continue;
      char text[200];
      snprintf(text, sizeof text, "%s of %.9g: got %.9g, want %.9g", body.c_str(), x, got, w);
      return fail(__FILE__, __LINE__, text);
    }
  }
}

void approximations() {
  auto some = floats(512);
  near("ex2.approx.f32", some, [](double x) { return std::exp2(x); }, 2);
  near("rcp.approx.f32", some, [](double x) { return 1 / x; }, 1);
  near("rcp.rn.f32", some, [](double x) { return 1 / x; }, 0.5);
  near("rsqrt.approx.f32", some, [](double x) { return 1 / std::sqrt(x); }, 2);
  near("sqrt.rn.f32", some, [](double x) { return std::sqrt(x); }, 0.5);
  near("lg2.approx.f32", some, [](double x) { return std::log2(x); }, 1, std::ldexp(1.0, -22));
}

void sums() {
  // add, mul and fma round once; min and max prefer numbers to NaN
  auto in = floats(32 * 3 * 8);
  auto three = [&](const std::string& body, std::function<float(float, float, float)> want) {
    for (size_t at = 0; at + 96 <= in.size(); at += 96) {
      auto out = lanes("mov.b32 %f0, %r0; mov.b32 %f1, %r1; mov.b32 %f2, %r2;" + body + "mov.b32 %o0, %f3;", std::vector<uint32_t>(in.begin() + static_cast<long>(at), in.begin() + static_cast<long>(at) + 96), 1);
      for (size_t l = 0; l < 32; l++) {
        float a = float_of(in[at + 3 * l]), b = float_of(in[at + 3 * l + 1]), c = float_of(in[at + 3 * l + 2]), w = want(a, b, c), got = float_of(out[l]);
        if (w != w ? got == got : bits_of(w) != out[l]) return fail(__FILE__, __LINE__, body + " of " + std::to_string(a) + ", " + std::to_string(b) + ", " + std::to_string(c) + ": got " + std::to_string(got) + ", want " + std::to_string(w));
      }
    }
  };
  three("fma.rn.f32 %f3, %f0, %f1, %f2;", [](float a, float b, float c) { return std::fma(a, b, c); });
  three("add.f32 %f3, %f0, %f1;", [](float a, float b, float) { return a + b; });
  three("mul.rn.f32 %f3, %f0, %f1; sub.f32 %f3, %f3, %f2;", [](float a, float b, float c) {
    volatile float p = a * b;
    return p - c;
  });
  three("div.rn.f32 %f3, %f0, %f1;", [](float a, float b, float) { return a / b; });
  three("max.f32 %f3, %f0, %f1;", [](float a, float b, float) { return a != a ? b : b != b ? a : a > b ? a : b > a ? b : std::signbit(a) ? b : a; });
  three("min.f32 %f3, %f0, %f1;", [](float a, float b, float) { return a != a ? b : b != b ? a : a < b ? a : b < a ? b : std::signbit(a) ? a : b; });
}

// f16x2: each half is computed exactly and rounded once.
void pairs() {
  struct { const char* op; double (*want)(double, double, double); } ops[] = {{"add.f16x2 %o0, %r0, %r1;", [](double a, double b, double) { return a + b; }},
                                                                              {"mul.rn.f16x2 %o0, %r0, %r1;", [](double a, double b, double) { return a * b; }},
                                                                              {"fma.rn.f16x2 %o0, %r0, %r1, %r2;", [](double a, double b, double c) { return a * b + c; }}};
  for (auto& op : ops)
    for (int round = 0; round < 16; round++) {
      auto in = words(96);
      for (auto& v : in) v = (v & 0xbfffbfff) % 7 ? v & 0xbfffbfff : v;  // mostly not too large
      auto out = lanes(op.op, in, 1);
      for (size_t l = 0; l < 32; l++)
        for (int n = 0; n < 32; n += 16) {
          uint32_t w = nearest_half(op.want(half_value(in[3 * l] >> n & 0xffff), half_value(in[3 * l + 1] >> n & 0xffff), half_value(in[3 * l + 2] >> n & 0xffff)));
          uint32_t got = out[l] >> n & 0xffff;
          if (half_value(w) == 0 && half_value(got) == 0) continue;  // the sign of 0 - 0 is another matter
          if (w != got) return fail(__FILE__, __LINE__, std::string(op.op) + " got " + std::to_string(got) + ", want " + std::to_string(w));
        }
    }
}

}  // namespace

std::vector<Case> convert_cases() {
  return {{"16-bit floats", halves}, {"cvt of integers", integers}, {"approximations", approximations}, {"f32 arithmetic", sums}, {"f16x2 arithmetic", pairs}};
}
