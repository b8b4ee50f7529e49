// A block's warps: each runs its lanes in groups of equal place, the lowest place
// first, so that lanes that parted meet again; collectives wait for their members.
#include "exec.h"

#include <algorithm>
#include <cstring>

#include "detect.h"
#include "lanes.h"
#include "options.h"

namespace sim {
namespace {

constexpr uint64_t slice = 20000;      // instructions of a warp before another one runs
constexpr uint64_t poll_limit = 64;    // looks at global memory before another block runs

std::string shape(const uint32_t* v) { return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) + ")"; }

std::string source_line(const Text& text, int line) {
  size_t at = 0;
  for (int n = 1; n < line && at != text.source.npos; n++) at = text.source.find('\n', at) + 1;
  std::string s = text.source.substr(at, text.source.find('\n', at) - at);
  size_t first = s.find_first_not_of(" \t"), last = s.find_last_not_of(" \t\r");
  if (first == s.npos) return "";
  s = s.substr(first, last - first + 1);
  std::replace(s.begin(), s.end(), '\t', ' ');
  return s;
}

// Lanes of the same place become one group.
void merge(std::vector<Group>& groups) {
  for (size_t i = 0; i < groups.size(); i++)
    for (size_t k = i + 1; k < groups.size();) {
      if (groups[k].pc != groups[i].pc) {
        k++;
        continue;
      }
      groups[i].mask |= groups[k].mask;
      groups[i].parked = false;
      groups[k] = groups.back();
      groups.pop_back();
    }
}

}  // namespace

std::string describe(const Block& b, const Warp* w, int lane, int line, const std::string& what) {
  std::string s = "kernel " + b.kernel->name + ", block " + shape(b.id);
  if (w) {
    uint32_t n = w->index * 32 + static_cast<uint32_t>(lane < 0 ? __builtin_ctz(w->members) : lane), *d = b.launch->block;
    uint32_t thread[3] = {n % d[0], n / d[0] % d[1], n / d[0] / d[1]};
    s += ", thread " + shape(thread);
  }
  if (line > 0) s += ", PTX line " + std::to_string(line) + ": " + source_line(*b.kernel->text, line);
  return s + ": " + what;
}

void Block::prepare(Launch& l) {
  uint32_t warps_needed = l.warps();
  uint64_t registers = static_cast<uint64_t>(l.kernel->register_bytes + 63) / 64 * 64;
  shared_bytes = l.kernel->shared_bytes + l.dynamic_shared;
  uint64_t shared_size = (uint64_t{shared_bytes} + 127) / 64 * 64, local_size = uint64_t{l.kernel->local_bytes} * warps_needed * 32;
  storage.resize(registers * warps_needed + shared_size + local_size + 128);
  char* at = reinterpret_cast<char*>((reinterpret_cast<uint64_t>(storage.data()) + 63) / 64 * 64);
  warps.resize(warps_needed);
  for (uint32_t n = 0; n < warps_needed; n++) {
    Warp& w = warps[n];
    w.regs = at + registers * n;
    w.block = this;
    w.index = n;
    uint32_t lanes = std::min(32u, l.threads() - 32 * n);
    w.members = lanes == 32 ? ~0u : (1u << lanes) - 1;
    memset(w.regs, 0xff, registers);
    for (auto& c : l.kernel->constants) {
      if (c.wide) std::fill_n(w.row<uint64_t>(c.row), 32, c.value);
      else if (c.row % 128) w.pred(c.row) = static_cast<uint32_t>(c.value);
      else std::fill_n(w.row<uint32_t>(c.row), 32, static_cast<uint32_t>(c.value));
    }
  }
  shared = at + registers * warps_needed;
  local = shared + shared_size;
  prepared = l.kernel->serial;
  std::copy(l.block, l.block + 3, prepared_dims);
}

bool Block::fits(const Launch& l) const {
  return prepared == l.kernel->serial && std::equal(l.block, l.block + 3, prepared_dims) && shared_bytes == l.kernel->shared_bytes + l.dynamic_shared;
}

void Block::begin(Launch& l, uint64_t n) {
  launch = &l;
  bool same = fits(l);
  kernel = l.kernel;
  if (!same) prepare(l);
  number = n;
  id[0] = static_cast<uint32_t>(n % l.grid[0]);
  id[1] = static_cast<uint32_t>(n / l.grid[0] % l.grid[1]);
  id[2] = static_cast<uint32_t>(n / l.grid[0] / l.grid[1]);
  memset(shared, 0xff, shared_bytes);
  if (kernel->local_bytes) memset(local, 0xff, uint64_t{kernel->local_bytes} * l.warps() * 32);
  memset(cache, 0, sizeof cache);
  for (auto& b : barriers) b = {};
  warpgroups.assign((l.warps() + 3) / 4, {});
  live = l.warps();
  tally = {};
  polls = stores = 0;
  if (options().check_races) {
    if (!races) races = std::make_unique<RaceCheck>();
    races->begin(shared_bytes);
  }
  for (auto& w : warps) {
    w.alive = w.members;
    w.state = State::ready;
    w.groups.assign(1, {0, w.members, false});
    w.pending.clear();
    w.products.clear();
    w.product_group = w.fences = 0;
    w.products_issued = 0;
    w.grid_waited = 0;
    w.sync = 1;
    memset(w.copy_groups, 0, sizeof w.copy_groups);
    set_specials(w);
    if (options().check_registers) begin_defined(w);
  }
}

void Block::set_specials(Warp& w) {
  const uint32_t* d = launch->block;
  auto all = [&](int32_t row, uint32_t v) { std::fill_n(w.row<uint32_t>(row), 32, v); };
  for (auto& s : kernel->specials) {
    auto* r = w.row<uint32_t>(s.row);
    int what = static_cast<int>(s.what);
    if (what >= static_cast<int>(Special::ctaid_x) && what <= static_cast<int>(Special::ctaid_z)) {
      all(s.row, id[what - static_cast<int>(Special::ctaid_x)]);
      continue;
    }
    switch (s.what) {
      case Special::tid_x: case Special::tid_y: case Special::tid_z:
        for (uint32_t l = 0; l < 32; l++) {
          uint32_t n = w.index * 32 + l;
          r[l] = s.what == Special::tid_x ? n % d[0] : s.what == Special::tid_y ? n / d[0] % d[1] : n / d[0] / d[1];
        }
        break;
      case Special::ntid_x: all(s.row, d[0]); break;
      case Special::ntid_y: all(s.row, d[1]); break;
      case Special::ntid_z: all(s.row, d[2]); break;
      case Special::nctaid_x: all(s.row, launch->grid[0]); break;
      case Special::nctaid_y: all(s.row, launch->grid[1]); break;
      case Special::nctaid_z: all(s.row, launch->grid[2]); break;
      case Special::warpid: all(s.row, w.index); break;
      case Special::nwarpid: all(s.row, launch->warps()); break;
      case Special::smid: all(s.row, static_cast<uint32_t>(number % static_cast<uint64_t>(launch->sms))); break;
      case Special::nsmid: all(s.row, static_cast<uint32_t>(launch->sms)); break;
      case Special::gridid: all(s.row, launch->number); break;
      case Special::dynamic_smem: all(s.row, launch->dynamic_shared); break;
      case Special::total_smem: all(s.row, shared_bytes); break;
      case Special::cluster_one: all(s.row, 1); break;
      case Special::cluster_zero: all(s.row, 0); break;
      default:
        for (uint32_t l = 0; l < 32; l++) {
          uint32_t bit = 1u << l;
          r[l] = s.what == Special::laneid ? l : s.what == Special::lanemask_eq ? bit : s.what == Special::lanemask_lt ? bit - 1
               : s.what == Special::lanemask_le ? bit | (bit - 1) : s.what == Special::lanemask_gt ? ~(bit | (bit - 1)) : ~(bit - 1);
        }
    }
  }
}

void Block::leave(Warp& w) {
  if (!w.products.empty()) throw Fault{719, "the warp leaves before its wgmma products are complete"};
  w.state = State::done;
  live--;
  complete_barriers();
}

void Block::arrive(Warp& w) {
  w.state = State::barrier;
  barriers[w.barrier].waiting++;
  complete_barriers();
}

// A barrier opens when all warps that have not left wait at it, or as many as it names.
void Block::complete_barriers() {
  for (int n = 0; n < 16; n++) {
    Barrier& b = barriers[n];
    if (!b.waiting) continue;
    uint32_t expected = 0;
    for (auto& w : warps)
      if (w.state == State::barrier && w.barrier == n) expected = w.barrier_threads;
    if (expected ? (b.waiting + b.arrived) * 32 >= expected : b.waiting >= live) release(n);
  }
}

void Block::release(int n) {
  uint32_t count = 0, threads = 0;
  bool waited = false;  // for the grids before this one, which then holds for all who meet here
  for (auto& w : warps) {
    if (w.state != State::barrier || w.barrier != n) continue;
    waited |= w.grid_waited != 0;
    count += static_cast<uint32_t>(__builtin_popcount(w.barrier_lanes));
    threads += static_cast<uint32_t>(__builtin_popcount(w.alive));
  }
  for (auto& w : warps) {
    if (w.state != State::barrier || w.barrier != n) continue;
    w.state = State::ready;
    w.sync++;
    if (waited) w.grid_waited = ~0u;
    if (w.barrier_result < 0) continue;
    if (w.barrier_op == 0) {
      for (int l = 0; l < 32; l++)
        if (on(w.alive, l)) w.row<uint32_t>(w.barrier_result)[l] = count;
    } else {
      bool yes = w.barrier_op == 1 ? count == threads : count > 0;
      uint32_t& p = w.pred(w.barrier_result);
      p = (p & ~w.alive) | (yes ? w.alive : 0);
    }
  }
  barriers[n] = {};
  tally.barriers++;
  if (races) races->epoch++;
}

// Whether the group may run the collective; false parks it until others come.
static bool complete(Warp& w, const Instr& i, uint32_t m) {
  if (i.members < 0) return m == ~0u;
  auto* named = w.row<uint32_t>(i.members);
  uint32_t other = 0;
  LANES other |= ~named[l];
  if (!other) return (w.members & ~m) == 0;
  uint32_t want = named[__builtin_ctz(m)];
  for (int l = 0; l < 32; l++) {
    if (!on(m, l)) continue;
    uint32_t own = named[l];
    if (!on(own, l)) throw Fault{719, "the member mask " + std::to_string(own) + " does not name the lane itself", l};
    // lanes of several masks at one instruction: run when every mask is whole
    want |= own;
  }
  return (want & w.members & ~m) == 0;
}

static std::string missing(const Warp& w, const Instr& i, uint32_t m) {
  uint32_t gone = w.members & ~m;
  const char* name = i.flow == Flow::barrier ? "barrier" : "collective instruction";
  return std::string("divergent ") + name + ": reached by lanes " + mask_text(m) + " of the warp but not by lanes " + mask_text(gone) +
         ((gone & ~w.alive) ? ", of which lanes " + mask_text(gone & ~w.alive) + " have left" : "");
}

std::string mask_text(uint32_t m) {
  char s[16];
  snprintf(s, sizeof s, "0x%08x", m);
  return s;
}

void Block::take_barrier(Warp& w, const Instr& i, uint32_t m) {
  int lane = __builtin_ctz(m);
  uint32_t n = w.row<uint32_t>(i.a)[lane], threads = w.row<uint32_t>(i.b)[lane];
  if (n > 15) throw Fault{719, "barrier " + std::to_string(n) + " does not exist", lane};
  if (threads % 32) throw Fault{719, "a barrier of " + std::to_string(threads) + " threads, no multiple of 32", lane};
  if (i.count == 2) {
    barriers[n].arrived++;
    complete_barriers();
    return;
  }
  w.barrier = static_cast<int>(n);
  w.barrier_line = i.line;
  w.barrier_threads = threads;
  w.barrier_result = i.more;
  w.barrier_op = i.flag;
  w.barrier_lanes = i.more < 0 ? 0 : (i.width ? ~w.pred(i.c) : w.pred(i.c)) & m;
  arrive(w);
}

// Runs the warp until it waits, leaves, or has used its slice. Returns whether it ran.
template <bool Check>
bool Block::step(Warp& w) {
  const Instr* code = kernel->code.data();
  uint64_t left = slice, used = 0;
  auto& groups = w.groups;
  const Instr* at = nullptr;
  uint32_t m = 0;
  try {
    while (w.state == State::ready && left) {
      if (groups.size() > 1) merge(groups);
      size_t best = groups.size();
      for (size_t n = 0; n < groups.size(); n++)
        if (!groups[n].parked && (best == groups.size() || (groups[n].pc < groups[best].pc) != w.unfair)) best = n;
      if (best == groups.size()) {
        at = &code[groups[0].pc];
        m = groups[0].mask;
        throw Fault{719, missing(w, *at, m), __builtin_ctz(m)};
      }
      uint32_t pc = groups[best].pc, mask = groups[best].mask;
      bool alone = groups.size() == 1;
      uint32_t next = ~0u;
      for (size_t n = 0; n < groups.size(); n++)
        if (n != best && groups[n].pc >= pc) next = std::min(next, groups[n].pc);
      bool again = false;
      while (!again && left) {
        const Instr& i = code[pc];
        at = &i;
        m = mask;
        if (i.guard >= 0) {
          uint32_t p = w.pred(i.guard);
          m &= i.guard_not ? ~p : p;
        }
        left--;
        if (Check && m) check_defined(w, i, m);
        switch (i.flow) {
          case Flow::step:
            if (m) i.run(w, i, m);
            pc++;
            break;
          case Flow::pause:
            if (m) {
              i.run(w, i, m);
              if (++polls > poll_limit) yielded = true, used = slice - left, left = 0;
            }
            pc++;
            break;
          case Flow::branch:
            if (m == mask) {
              pc = static_cast<uint32_t>(i.offset);
              again = !alone;
            } else if (m) {
              groups.push_back({static_cast<uint32_t>(i.offset), m, false});
              mask &= ~m;
              pc++;
              again = true;
            } else {
              pc++;
            }
            break;
          case Flow::indexed: {
            auto* index = w.row<uint32_t>(i.a);
            for (int l = 0; l < 32; l++) {
              if (!on(m, l)) continue;
              if (index[l] >= static_cast<uint64_t>(i.offset)) throw Fault{719, "index " + std::to_string(index[l]) + " of a table of " + std::to_string(i.offset), l};
              groups.push_back({static_cast<uint32_t>(kernel->rows[static_cast<size_t>(i.more) + index[l]]), 1u << l, false});
            }
            mask &= ~m;
            pc++;
            again = true;
            break;
          }
          case Flow::leave:
            w.alive &= ~m;
            mask &= ~m;
            pc++;
            again = again || m;
            break;
          case Flow::collective:
            if (m) {
              if (!complete(w, i, m)) {
                groups[best].parked = again = true;
                if (groups.size() == 1) throw Fault{719, missing(w, i, m), __builtin_ctz(m)};
                break;
              }
              i.run(w, i, m);
            }
            pc++;
            break;
          case Flow::barrier:
            if (m) {
              if (m != w.alive) {
                groups[best].parked = again = true;
                if (groups.size() == 1) throw Fault{719, missing(w, i, m), __builtin_ctz(m)};
                break;
              }
              take_barrier(w, i, m);
              again = w.state != State::ready;
            }
            pc++;
            break;
        }
        if (pc >= next) again = true;
      }
      if (!mask) {
        groups[best] = groups.back();
        groups.pop_back();
      } else {
        groups[best].pc = pc;
        groups[best].mask = mask;
      }
      if (groups.empty()) leave(w);
    }
  } catch (Fault& f) {
    f.what = describe(*this, &w, f.lane, at ? at->line : 0, f.what);
    throw;
  }
  if (!left && groups.size() > 1) w.unfair = !w.unfair;
  tally.instructions += used ? used : slice - left;
  return true;
}

void Block::stuck() {
  for (auto& w : warps) {
    if (w.state != State::barrier) continue;
    std::string what = "divergent barrier: " + std::to_string(barriers[w.barrier].waiting) + " of " + std::to_string(live) + " warps wait at barrier " + std::to_string(w.barrier);
    for (auto& o : warps)
      if (o.state == State::barrier && o.barrier != w.barrier) {
        what += ", others at barrier " + std::to_string(o.barrier) + " on PTX line " + std::to_string(o.barrier_line);
        break;
      }
    throw Fault{719, describe(*this, &w, -1, w.barrier_line, what)};
  }
  throw Fault{719, describe(*this, nullptr, -1, 0, "no warp can run")};
}

bool Block::run() {
  polls = 0;
  yielded = false;
  bool check = options().check_registers, backward = (number + options().order) & 1;
  while (live) {
    bool ran = false;
    for (size_t n = 0; n < warps.size(); n++) {
      Warp& w = warps[backward ? warps.size() - 1 - n : n];
      if (w.state == State::ready) ran = check ? step<true>(w) : step<false>(w);
    }
    if (!ran && live) stuck();
    if (std::chrono::steady_clock::now() > launch->deadline) throw Fault{702, describe(*this, nullptr, -1, 0, "the launch does not end in " + std::to_string(options().timeout) + " s (DROVER_SIM_TIMEOUT)")};
    if (yielded && live) return false;
  }
  return true;
}

}  // namespace sim
