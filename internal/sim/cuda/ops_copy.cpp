// cp.async: the bytes are read when the copy is issued and appear when it is
// waited for; until then the destination holds garbage. Dependent launches too.
#include "access.h"
#include "decode.h"
#include "detect.h"

namespace sim {
namespace {

void issue(Warp& w, const Instr& i, uint32_t m) {
  alignas(32) uint64_t to[32], from[32];
  Places dst, src;
  Block& b = *w.block;
  Instr target = i;
  target.offset = i.count ? static_cast<int64_t>(b.kernel->rows[static_cast<size_t>(i.more)]) : 0;
  target.flag = static_cast<uint8_t>(i.flag & narrow_address);
  Instr source = i;
  source.flag = static_cast<uint8_t>(i.flag << 1 & narrow_address);
  addresses(w, target, i.d, to);
  addresses(w, source, i.a, from);
  resolve(w, target, Space::shared, to, m, i.width, Access::write, dst);
  uint32_t sizes[32], reading = 0;
  for (int l = 0; l < 32; l++) {
    sizes[l] = i.width;
    if (i.b >= 0) sizes[l] = std::min<uint32_t>(w.row<uint32_t>(i.b)[l], i.width);
    if (i.c >= 0 && on(w.pred(i.c), l)) sizes[l] = 0;
    if (on(m, l) && sizes[l]) reading |= 1u << l;
  }
  // the whole source is checked where all of it is read
  for (uint32_t left = reading; left;) {
    uint32_t size = sizes[__builtin_ctz(left)], same = 0;
    for (int l = 0; l < 32; l++)
      if (on(left, l) && sizes[l] == size) same |= 1u << l;
    Places part;
    if (size & (size - 1)) {
      for (uint32_t at = 0; at < size; at++) {
        uint64_t shifted[32];
        LANES shifted[l] = from[l] + at;
        resolve(w, source, Space::global, shifted, same, 1, Access::async_read, part);
        for (int l = 0; l < 32; l++)
          if (on(same, l) && at == 0) src.at[l] = part.at[l];
      }
    } else {
      resolve(w, source, Space::global, from, same, size, Access::async_read, part);
      for (int l = 0; l < 32; l++)
        if (on(same, l)) src.at[l] = part.at[l];
    }
    left &= ~same;
  }
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    Pending p{};
    p.lane = static_cast<uint32_t>(l);
    p.group = w.copy_groups[l];
    p.dst = static_cast<uint32_t>(dst.at[l] - b.shared);
    p.size = i.width;
    if (sizes[l]) memcpy(p.data, src.at[l], sizes[l]);
    memset(dst.at[l], 0xff, i.width);
    w.pending.push_back(p);
    if (b.races) b.races->copy_issued(p.dst, p.size);
  }
}

// Makes the copies of the lanes' groups visible but for the newest `keep` of them.
void land(Warp& w, uint32_t m, uint32_t keep, bool uncommitted) {
  size_t left = 0;
  for (auto& p : w.pending) {
    bool old = uncommitted || (p.group < w.copy_groups[p.lane] && w.copy_groups[p.lane] - p.group > keep);
    if (on(m, static_cast<int>(p.lane)) && old) {
      memcpy(w.block->shared + p.dst, p.data, p.size);
      if (w.block->races) w.block->races->copy_landed(w, p.lane, p.dst, p.size);
    } else {
      w.pending[left++] = p;
    }
  }
  w.pending.resize(left);
}

void decode_copy(Decoder& d, Instr& i) {
  if (d.take("bulk") || d.take("reduce") || !d.take("async")) d.refuse("only cp.async without bulk is supported");
  d.need(80, 70, "cp.async");
  if (d.take("bulk")) d.refuse("only cp.async without bulk is supported");
  if (d.take("mbarrier")) d.refuse("mbarriers are not supported");
  if (d.take("commit_group")) {
    i.run = [](Warp& w, const Instr&, uint32_t m) {
      for (int l = 0; l < 32; l++) w.copy_groups[l] += on(m, l);
    };
    return;
  }
  if (d.take("wait_all")) {
    i.run = [](Warp& w, const Instr&, uint32_t m) { land(w, m, 0, true); };
    return;
  }
  if (d.take("wait_group")) {
    if (d.arg(0).kind != Operand::integer) d.refuse("the number of groups must be a constant");
    i.offset = static_cast<int64_t>(d.arg(0).value);
    i.run = [](Warp& w, const Instr& i, uint32_t m) { land(w, m, static_cast<uint32_t>(i.offset), false); };
    return;
  }
  bool cg = d.take("cg");
  if (!cg && !d.take("ca")) d.refuse("ca or cg is missing");
  if (!d.take("shared") && !d.take("shared::cta")) d.refuse("the destination must be shared");
  if (!d.take("global")) d.refuse("the source must be global");
  d.take_cache_hints();
  uint64_t size = d.arg(2).value;
  if (d.arg(2).kind != Operand::integer || (cg ? size != 16 : size != 4 && size != 8 && size != 16)) d.refuse("the size must be 4, 8 or 16, with .cg 16");
  i.width = static_cast<uint8_t>(size);
  d.address(0, Space::shared, i, i.d);
  uint8_t narrow = i.flag;
  i.flag = 0;
  int64_t at = i.offset;
  d.address(1, Space::global, i, i.a);
  i.flag = static_cast<uint8_t>(narrow | i.flag >> 1);
  i.count = at != 0;
  if (at < INT32_MIN || at > INT32_MAX) d.refuse("the displacement is too large");
  i.more = at ? d.more({static_cast<int32_t>(at)}) : 0;
  i.b = i.c = -1;
  if (d.args() > 3) {
    const Operand& o = d.arg(3);
    if (o.kind == Operand::integer || !d.is_predicate(o)) i.b = d.src(o, Type::u32);
    else i.c = d.src(o, Type::pred);
  }
  if (d.args() > 4) d.refuse("cache policies are not supported");
  i.run = issue;
}

void decode_dependency(Decoder& d, Instr& i) {
  d.need(90, 78, "griddepcontrol");
  if (d.take("wait")) {
    d.waits_for_grid();
    i.run = [](Warp& w, const Instr&, uint32_t m) { w.grid_waited |= m; };
    return;
  }
  if (!d.take("launch_dependents")) d.refuse("wait or launch_dependents is missing");
  i.run = [](Warp&, const Instr&, uint32_t) {};
}

}  // namespace

std::vector<Op> copy_ops() { return {{"cp", decode_copy}, {"griddepcontrol", decode_dependency}}; }

}  // namespace sim
