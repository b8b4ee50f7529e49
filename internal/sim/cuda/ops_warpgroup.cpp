// Matrix products of a warpgroup (wgmma): A in registers, B in shared memory. A
// product is made when it is waited for, from what its operands are by then:
// registers and memory that change too early, and sums that are read too early,
// give wrong results.
#include <algorithm>

#include "access.h"
#include "decode.h"
#include "detect.h"
#include "fragments.h"

namespace sim {
namespace {

constexpr int depth = 16;  // of K

// B's descriptor ("Matrix Descriptor Format"), of columns that each have K in one
// piece, with the swizzle of 128 bytes: 8 columns are 1024 bytes.
struct Descriptor {
  uint32_t start, apart;  // bytes; between groups of 8 columns
};

Descriptor read_descriptor(uint64_t d) {
  if (d >> 62 != 1) throw Fault{719, "a matrix that is not swizzled by 128 bytes is not supported"};
  if (d >> 49 & 7) throw Fault{719, "a base offset of a matrix is not supported"};
  return {static_cast<uint32_t>(d & 0x3fff) << 4, static_cast<uint32_t>(d >> 32 & 0x3fff) << 4};
}

// Where 16 bytes of K of a column lie in shared memory: address bits 4 to 6 are turned by bits 7 to 9.
uint32_t place_of(const Descriptor& d, uint32_t column, uint32_t part) {
  uint32_t address = d.start + column / 8 * d.apart + column % 8 * 128 + part * 16;
  return address ^ (address >> 7 & 7) << 4;
}

template <Number N>
void multiply(Warp& w, const Instr& i, const AsyncProduct& p) {
  const int32_t* rows = &w.block->kernel->rows[static_cast<size_t>(i.more)];
  uint32_t columns = static_cast<uint32_t>(i.offset);
  auto row = [&](uint32_t n) { return w.row<uint32_t>(rows[n]); };
  Descriptor d = read_descriptor(p.b);
  alignas(32) float a[16][depth];
  for (uint32_t r = 0; r < 4; r++)
    for (int q = 0; q < 8; q++) _mm256_store_ps(&a[r % 2 * 8 + static_cast<uint32_t>(q)][r / 2 * 8], eight<N>(row(columns / 2 + r) + 4 * q));
  for (uint32_t n = 0; n < columns; n += 8) {
    __m256 b[depth], c[16], of_columns[8];
    for (uint32_t part = 0; part < 2; part++) {
      for (uint32_t q = 0; q < 8; q++) of_columns[q] = eight<N>(reinterpret_cast<const uint32_t*>(w.block->shared + (place_of(d, n + q, part) - shared_base)));
      transpose(of_columns, b + 8 * part);
    }
    uint32_t* sums[4] = {row(n / 2), row(n / 2 + 1), row(n / 2 + 2), row(n / 2 + 3)};
    for (int r = 0; r < 16; r++) c[r] = p.add ? _mm256_castsi256_ps(joined(sums[r / 8 * 2], sums[r / 8 * 2 + 1], r % 8)) : _mm256_setzero_ps();
    add_products<depth>(a, b, c);
    for (int r = 0; r < 16; r++) part(_mm256_castps_si256(c[r]), sums[r / 8 * 2], sums[r / 8 * 2 + 1], r % 8);
  }
}

void issue(Warp& w, const Instr& i, uint32_t) {
  Block& block = *w.block;
  if (block.warps.size() < w.index / 4 * 4 + 4 || block.warps[w.index / 4 * 4 + 3].members != ~0u)
    throw Fault{719, "a warpgroup has 128 threads, this one less"};
  auto* b = w.row<uint64_t>(i.b);
  for (int l = 1; l < 32; l++)
    if (b[l] != b[0]) throw Fault{719, "the lanes have different matrices", l};
  AsyncProduct p{&i, b[0], i.c < 0 || w.pred(i.c) == ~0u, w.product_group};
  if (i.c >= 0 && w.pred(i.c) && !p.add) throw Fault{719, "the lanes differ in whether sums are added to"};
  // all four warps must do the same
  auto& done = block.warpgroups[w.index / 4];
  size_t n = w.products_issued++;
  if (n == done.size()) done.push_back(p);
  else if (done[n].instr != &i || done[n].b != p.b || done[n].add != p.add) throw Fault{719, "the warps of a warpgroup have different products"};
  Descriptor d = read_descriptor(p.b);
  uint32_t columns = static_cast<uint32_t>(i.offset);
  for (uint32_t at = 0; at < columns * 2; at += 32) {
    uint64_t address[32];
    for (uint32_t l = 0; l < 32; l++) address[l] = place_of(d, (at + l) / 2, (at + l) % 2);
    uint32_t mask = columns * 2 - at < 32 ? (1u << (columns * 2 - at)) - 1 : ~0u;
    Places places;
    resolve(w, i, Space::shared, address, mask, 16, Access::products_read, places);
  }
  w.products.push_back(p);
  note_product(w, p, true);
  block.tally.mma++;
  block.tally.macs += 16 * columns * depth;
  w.sync++;
}

// Makes the products of all groups but the newest `keep`.
void complete_products(Warp& w, uint32_t keep) {
  size_t left = 0;
  for (auto& p : w.products) {
    if (p.group >= w.product_group || w.product_group - p.group <= keep) {
      w.products[left++] = p;
      continue;
    }
    p.instr->count ? multiply<Number::bf16>(w, *p.instr, p) : multiply<Number::f16>(w, *p.instr, p);
    note_product(w, p, false);
    if (!w.block->races) continue;
    Descriptor d = read_descriptor(p.b);
    for (uint32_t n = 0; n < static_cast<uint32_t>(p.instr->offset) * 2; n++) w.block->races->product_done(place_of(d, n / 2, n % 2) - shared_base, 16);
  }
  w.products.resize(left);
}

void decode_product(Decoder& d, Instr& i) {
  if (!d.take("sync") || !d.take("aligned")) d.refuse("sync.aligned is missing");
  uint32_t columns = 0;
  for (uint32_t n = 8; n <= 256; n += 8)
    if (d.take("m64n" + std::to_string(n) + "k16")) columns = n;
  if (!columns) d.refuse("shape not supported");
  if (d.take_type() != Type::f32) d.refuse("sums must be f32");
  Type a = d.take_type(), b = d.take_type();
  if (a != b || (a != Type::f16 && a != Type::bf16)) d.refuse("types not supported");
  i.count = a == Type::bf16;
  if (d.args() != 7) d.refuse("A in registers has 7 operands");
  auto is = [&](size_t n, uint64_t v) { return d.arg(n).kind == Operand::integer && d.arg(n).value == v; };
  if (!is(4, 1) || !is(5, 1)) d.refuse("only scales of 1");
  if (!is(6, 0)) d.refuse("B transposed is not supported");
  std::vector<int32_t> rows, from;
  auto take = [&](size_t n, size_t count, bool to) {
    const Operand& o = d.arg(n);
    if (o.kind != Operand::vector || o.parts.size() != count) d.refuse("operand " + std::to_string(n) + " must have " + std::to_string(count) + " registers");
    for (auto& part : o.parts) {
      if (to) rows.push_back(d.dst(part, Type::b32));
      else from.push_back(d.src(part, Type::b32));
    }
  };
  take(0, columns / 2, true);
  take(1, 4, false);
  rows.insert(rows.end(), from.begin(), from.end());
  i.more = d.more(rows);
  i.b = d.src(2, Type::b64);
  i.c = is(3, 1) ? -1 : d.src(3, Type::pred);
  if (i.c < 0)
    for (size_t n = 0; n < columns / 2; n++) d.reads(rows[n]);
  i.slot = d.memory_slot();
  i.offset = columns;
  i.products = true;
  i.flow = Flow::collective;
  i.run = issue;
}

void decode_wgmma(Decoder& d, Instr& i) {
  d.need_specific(90, 80, "wgmma");
  if (d.take("mma_async")) return decode_product(d, i);
  bool fence = d.take("fence"), commit = d.take("commit_group"), wait = d.take("wait_group");
  if (!d.take("sync") || !d.take("aligned")) d.refuse("sync.aligned is missing");
  i.flow = Flow::collective;
  if (fence) {
    i.run = [](Warp& w, const Instr&, uint32_t) { std::fill(w.unordered.begin(), w.unordered.end(), false); };
  } else if (commit) {
    i.run = [](Warp& w, const Instr&, uint32_t) { w.product_group++; };
  } else if (wait) {
    if (d.arg(0).kind != Operand::integer) d.refuse("the number of groups must be a constant");
    i.offset = static_cast<int64_t>(d.arg(0).value);
    i.run = [](Warp& w, const Instr& i, uint32_t) { complete_products(w, static_cast<uint32_t>(i.offset)); };
  } else {
    d.refuse("not supported");
  }
}

}  // namespace

std::vector<Op> warpgroup_ops() { return {{"wgmma", decode_wgmma}}; }

}  // namespace sim
