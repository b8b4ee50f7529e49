// Names to rows: registers, constants, variables, labels; and the table of operations.
#include "decode.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace sim {
namespace {

using Decode = void (*)(Decoder&, Instr&);

const std::unordered_map<std::string_view, Decode>& operations() {
  static const auto* all = [] {
    auto* m = new std::unordered_map<std::string_view, Decode>;
    for (auto ops : {integer_ops(), float_ops(), convert_ops(), memory_ops(), atomic_ops(), mma_ops(), matrix_ops(), warpgroup_ops(), warp_ops(), control_ops(), copy_ops()})
      for (auto& op : ops) m->emplace(op.name, op.decode);
    return m;
  }();
  return *all;
}

const std::unordered_map<std::string_view, Special>& special_registers() {
  static const std::unordered_map<std::string_view, Special> all = {
      {"%tid.x", Special::tid_x}, {"%tid.y", Special::tid_y}, {"%tid.z", Special::tid_z},
      {"%ntid.x", Special::ntid_x}, {"%ntid.y", Special::ntid_y}, {"%ntid.z", Special::ntid_z},
      {"%ctaid.x", Special::ctaid_x}, {"%ctaid.y", Special::ctaid_y}, {"%ctaid.z", Special::ctaid_z},
      {"%nctaid.x", Special::nctaid_x}, {"%nctaid.y", Special::nctaid_y}, {"%nctaid.z", Special::nctaid_z},
      {"%laneid", Special::laneid}, {"%warpid", Special::warpid}, {"%nwarpid", Special::nwarpid},
      {"%smid", Special::smid}, {"%nsmid", Special::nsmid}, {"%gridid", Special::gridid},
      {"%lanemask_eq", Special::lanemask_eq}, {"%lanemask_le", Special::lanemask_le}, {"%lanemask_lt", Special::lanemask_lt},
      {"%lanemask_ge", Special::lanemask_ge}, {"%lanemask_gt", Special::lanemask_gt},
      {"%dynamic_smem_size", Special::dynamic_smem}, {"%total_smem_size", Special::total_smem},
      {"%clock", Special::clock}, {"%clock64", Special::clock64}, {"%globaltimer", Special::globaltimer},
      {"%cluster_nctarank", Special::cluster_one}, {"%cluster_ctarank", Special::cluster_zero}};
  return all;
}

uint32_t align_up(uint64_t n, unsigned to) { return static_cast<uint32_t>((n + to - 1) / to * to); }

}  // namespace

Decoder::Decoder(Module& module, const Function& f) : module_(module), function_(f), kernel_(new Kernel) {
  static std::atomic<uint64_t> serial{0};
  kernel_->serial = ++serial;
  kernel_->text = &module.text;
  kernel_->name = std::string(f.name);
  kernel_->max_threads = f.max_threads ? f.max_threads : 1024;
  std::copy(f.required, f.required + 3, kernel_->required);
  scopes_.emplace_back();
  new_row(false);  // so that offset 0 can mean none
}

void Decoder::refuse(const std::string& what) const {
  std::string op;
  if (at_)
    for (auto part : at_->op) op += (op.empty() ? "" : ".") + std::string(part);
  throw Refused{at_ ? at_->line : function_.line, op.empty() ? what : op + ": " + what};
}

const Operand& Decoder::arg(size_t n) const {
  if (n >= at_->args.size()) refuse("operands are missing");
  return at_->args[n];
}

bool Decoder::take(std::string_view modifier) {
  for (size_t i = 1; i < at_->op.size(); i++) {
    if (at_->op[i] != modifier || (taken_ >> i & 1)) continue;
    taken_ |= 1u << i;
    return true;
  }
  return false;
}

Type Decoder::peek_type() const {
  for (size_t i = 1; i < at_->op.size(); i++)
    if (Type t = type_named(at_->op[i]); t != Type::none && !(taken_ >> i & 1)) return t;
  return Type::none;
}

Type Decoder::take_type() {
  Type t = peek_type();
  if (t == Type::none) refuse("a type is missing");
  for (size_t i = 1; i < at_->op.size(); i++) {
    if (type_named(at_->op[i]) != t || (taken_ >> i & 1)) continue;
    taken_ |= 1u << i;
    break;
  }
  return t;
}

void Decoder::take_cache_hints() {
  for (auto hint : {"L1::no_allocate", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L2::evict_last", "L2::evict_normal",
                    "L2::evict_first", "L2::64B", "L2::128B", "L2::256B"})
    take(hint);
}

void Decoder::need(int target, int version, const char* what) {
  if (module_.text.target < target) refuse(std::string(what) + " requires .target sm_" + std::to_string(target) + " or higher");
  if (module_.text.version < version)
    refuse(std::string(what) + " requires PTX ISA .version " + std::to_string(version / 10) + "." + std::to_string(version % 10) + " or later");
}

void Decoder::need_specific(int target, int version, const char* what) {
  need(target, version, what);
  if (module_.text.target != target || !module_.text.specific) refuse(std::string(what) + " requires .target sm_" + std::to_string(target) + "a");
}

int32_t Decoder::new_row(bool wide) {
  int32_t row = kernel_->register_bytes;
  kernel_->register_bytes += wide ? 256 : 128;
  return row;
}

int32_t Decoder::new_predicate() {
  if (!predicates_left_) {
    next_predicate_ = new_row(false);
    predicates_left_ = 32;
  }
  predicates_left_--;
  next_predicate_ += 4;
  return next_predicate_ - 4;
}

int32_t Decoder::carry() {
  if (carry_ < 0) carry_ = new_predicate();
  return carry_;
}

int32_t& Decoder::find(std::string_view name, Type& type) {
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') digits--;
  size_t n = 0;
  for (char c : name.substr(digits)) n = n * 10 + static_cast<size_t>(c - '0');
  for (size_t s = scopes_.size(); s-- > 0;) {
    if (auto whole = scopes_[s].find(name); whole != scopes_[s].end() && whole->second.rows.size() == 1) {
      type = whole->second.type;
      return whole->second.rows[0];
    }
    auto it = scopes_[s].find(name.substr(0, digits));
    if (digits == name.size() || it == scopes_[s].end() || n >= it->second.rows.size()) continue;
    type = it->second.type;
    return it->second.rows[n];
  }
  refuse("unknown name " + std::string(name));
}

int32_t Decoder::reg(std::string_view name, Type& type) {
  int32_t& row = find(name, type);
  if (row < 0) {
    row = type == Type::pred ? new_predicate() : new_row(bytes(type) == 8);
    kernel_->registers++;
  }
  return row;
}

void Decoder::reads(int32_t row) {
  auto& rows = kernel_->reads.back();
  if (std::find(rows.begin(), rows.end(), row) == rows.end()) rows.push_back(row);
}

void Decoder::writes(int32_t row) { kernel_->writes.back().push_back(row); }

int32_t Decoder::dst_any(const Operand& o, bool& wide) {
  if (o.kind != Operand::name || !o.parts.empty() || o.negated) refuse("the destination is no register");
  Type type;
  int32_t row = reg(o.text, type);
  if (type == Type::pred) refuse("predicate " + std::string(o.text) + " where a value belongs");
  wide = bytes(type) == 8;
  writes(row);
  return row;
}

bool Decoder::is_predicate(const Operand& o) {
  Type type;
  find(o.text, type);
  return type == Type::pred;
}

unsigned Decoder::register_bytes(size_t n) {
  Type type;
  find(arg(n).text, type);
  return bytes(type);
}

int32_t Decoder::dst(const Operand& o, Type t) {
  if (o.kind == Operand::sink) return t == Type::pred ? new_predicate() : new_row(bytes(t) == 8);
  if (o.kind != Operand::name || o.negated) refuse("the destination is no register");
  Type type;
  int32_t row = reg(o.text, type);
  if ((t == Type::pred) != (type == Type::pred) || (t != Type::pred && (bytes(t) == 8) != (bytes(type) == 8)))
    refuse("register " + std::string(o.text) + " has the wrong width");
  writes(row);
  return row;
}

int32_t Decoder::constant(bool wide, uint64_t value) {
  if (!wide) value = static_cast<uint32_t>(value);
  auto [it, fresh] = (wide ? wides_ : words_).emplace(value, 0);
  if (fresh) {
    it->second = new_row(wide);
    kernel_->constants.push_back({it->second, wide, value});
  }
  return it->second;
}

const Decoder::Symbol* Decoder::symbol(std::string_view name) const {
  auto it = symbols_.find(name);
  return it == symbols_.end() ? nullptr : &it->second;
}

int32_t Decoder::src(const Operand& o, Type t) {
  bool wide = bytes(t) == 8;
  switch (o.kind) {
    case Operand::integer: {
      if (t == Type::pred) {
        int32_t row = new_predicate();
        kernel_->constants.push_back({row, false, o.value ? ~uint64_t{0} : 0});
        return row;
      }
      uint64_t v = o.value;
      if (bytes(t) < 4) v &= (1u << (8 * bytes(t))) - 1;
      return constant(wide, v);
    }
    case Operand::real32:
      if (wide) refuse("a 32-bit number where 64 bits belong");
      return constant(false, o.value);
    case Operand::real64: {
      if (wide) return constant(true, o.value);
      double v;
      memcpy(&v, &o.value, 8);
      float f = static_cast<float>(v);
      uint32_t b;
      memcpy(&b, &f, 4);
      return constant(false, b);
    }
    case Operand::name: break;
    default: refuse("this kind of operand does not belong here");
  }
  if (auto* s = symbol(o.text)) return constant(wide, s->value + static_cast<uint64_t>(o.offset));
  if (auto it = special_registers().find(o.text); it != special_registers().end()) {
    bool is64 = it->second == Special::clock64 || it->second == Special::globaltimer;
    if (is64 != wide) refuse(std::string(o.text) + " has the wrong width");
    auto [row, fresh] = special_rows_.emplace(o.text, 0);
    if (fresh) {
      row->second = new_row(wide);
      kernel_->specials.push_back({row->second, it->second});
    }
    return row->second;
  }
  Type type;
  int32_t row = reg(o.text, type);
  if ((t == Type::pred) != (type == Type::pred) || (t != Type::pred && wide != (bytes(type) == 8)))
    refuse("register " + std::string(o.text) + " has the wrong width");
  reads(row);
  return row;
}

int32_t Decoder::src_any(const Operand& o, Type t, bool& wide) {
  wide = bytes(t) == 8;
  if (o.kind != Operand::name || symbol(o.text) || special_registers().count(o.text)) return src(o, t);
  Type type;
  int32_t row = reg(o.text, type);
  if (type == Type::pred) refuse("predicate " + std::string(o.text) + " where a value belongs");
  wide = bytes(type) == 8;
  reads(row);
  return row;
}

void Decoder::address(size_t n, Space space, Instr& i, int32_t& row) {
  const Operand& o = arg(n);
  if (o.kind != Operand::address) refuse("expected an address in brackets");
  i.offset = o.offset;
  i.slot = memory_slot();
  if (o.text.empty()) {
    row = constant(true, 0);
    return;
  }
  if (auto* s = symbol(o.text)) {
    if (space != Space::generic && s->space != space) refuse(std::string(o.text) + " lies in another space");
    uint64_t window = space != Space::generic ? 0 : s->space == Space::shared ? shared_window : s->space == Space::local ? local_window : s->space == Space::constant ? const_window : 0;
    row = constant(true, s->value + window);
    return;
  }
  Type type;
  row = reg(o.text, type);
  if (type == Type::pred) refuse("a predicate is no address");
  if (bytes(type) == 4) i.flag |= narrow_address;
  else if (bytes(type) != 8) refuse("16 bits are no address");
  reads(row);
}

int64_t Decoder::param_offset(size_t n) {
  auto* s = symbol(arg(n).text);
  if (!s || s->space != Space::param) refuse(std::string(arg(n).text) + " is no parameter");
  return static_cast<int64_t>(s->value) + arg(n).offset;
}

int32_t Decoder::more(std::initializer_list<int32_t> rows) { return more(std::vector<int32_t>(rows)); }

int32_t Decoder::more(const std::vector<int32_t>& rows) {
  auto& all = kernel_->rows;
  all.insert(all.end(), rows.begin(), rows.end());
  return static_cast<int32_t>(all.size() - rows.size());
}

void Decoder::branch_to(std::string_view label, Instr&) { fixes_.push_back({kernel_->code.size(), label, -1, at_->line}); }

void Decoder::branch_table(std::string_view name, Instr& i) {
  auto it = targets_.find(name);
  if (it == targets_.end()) refuse("unknown list of targets " + std::string(name));
  i.more = static_cast<int32_t>(kernel_->rows.size());
  i.offset = static_cast<int64_t>(it->second->list.size());
  for (auto label : it->second->list) {
    fixes_.push_back({kernel_->code.size(), label, static_cast<int32_t>(kernel_->rows.size()), at_->line});
    kernel_->rows.push_back(0);
  }
}

void Decoder::place(const Variable& v) {
  Kernel& k = *kernel_;
  switch (v.space) {
    case Space::shared:
      k.shared_bytes = align_up(k.shared_bytes, v.align);
      symbols_[v.name] = {Space::shared, shared_base + k.shared_bytes};
      k.shared_bytes += static_cast<uint32_t>(v.size);
      break;
    case Space::local:
      k.local_bytes = align_up(k.local_bytes, v.align);
      symbols_[v.name] = {Space::local, 16 + k.local_bytes};
      k.local_bytes += static_cast<uint32_t>(v.size);
      break;
    default: refuse("variable " + std::string(v.name) + " inside a function");
  }
}

// Shared variables of the module count for the kernels that name them; an array
// of unknown size begins where the others end.
void Decoder::place_variables() {
  std::unordered_set<std::string_view> named;
  auto note = [&](auto& self, const Operand& o) -> void {
    if (!o.text.empty()) named.insert(o.text);
    for (auto& part : o.parts) self(self, part);
  };
  for (auto& item : function_.body)
    for (auto& a : item.code.args) note(note, a);
  uint32_t offset = 0;
  for (auto& p : function_.params) {
    offset = align_up(offset, p.align);
    kernel_->params.push_back({offset, static_cast<uint32_t>(p.size)});
    symbols_[p.name] = {Space::param, offset};
    offset += static_cast<uint32_t>(p.size);
  }
  kernel_->param_bytes = offset;
  uint32_t constants = 0;
  for (auto& v : module_.text.variables) {
    if (v.space == Space::constant) {
      constants = align_up(constants, v.align);
      symbols_[v.name] = {Space::constant, constants};
      constants += static_cast<uint32_t>(v.size);
    } else if (v.space == Space::global) {
      symbols_[v.name] = {Space::global, module_.globals.find(v.name)->second.address};
    } else if (v.size && named.count(v.name)) {
      place(v);
    }
  }
  kernel_->const_bytes = constants;
  for (auto& item : function_.body)
    if (item.kind == Item::variable && item.var.size) place(item.var);
  auto dynamic = [&](const Variable& v) {
    if (v.space != Space::shared || v.size) return;
    kernel_->shared_align = std::max(kernel_->shared_align, v.align);
    kernel_->shared_bytes = align_up(kernel_->shared_bytes, kernel_->shared_align);
    symbols_[v.name] = {Space::shared, shared_base + kernel_->shared_bytes};
  };
  for (auto& v : module_.text.variables)
    if (named.count(v.name)) dynamic(v);
  for (auto& item : function_.body)
    if (item.kind == Item::variable) dynamic(item.var);
}

void Decoder::decode(const Statement& s) {
  at_ = &s;
  taken_ = 0;
  auto op = operations().find(s.op[0]);
  if (op == operations().end()) refuse("instruction not supported");
  if (s.op.size() > 31) refuse("too many modifiers");
  kernel_->reads.emplace_back();
  kernel_->writes.emplace_back();
  Instr i;
  i.line = s.line;
  if (!s.guard.empty()) {
    Type type;
    i.guard = reg(s.guard, type);
    if (type != Type::pred) refuse("the guard is no predicate");
    i.guard_not = s.guard_not;
    reads(i.guard);
  }
  op->second(*this, i);
  for (size_t n = 1; n < s.op.size(); n++)
    if (!(taken_ >> n & 1)) refuse("modifier ." + std::string(s.op[n]) + " not supported");
  kernel_->code.push_back(i);
}

std::unique_ptr<Kernel> Decoder::run() {
  place_variables();
  for (auto& item : function_.body)
    if (item.kind == Item::targets) targets_[item.name] = &item;
  for (auto& item : function_.body) {
    switch (item.kind) {
      case Item::open: scopes_.emplace_back(); break;
      case Item::close:
        if (scopes_.size() > 1) scopes_.pop_back();
        break;
      case Item::registers:
        scopes_.back()[item.name] = {item.type, std::vector<int32_t>(item.count < 0 ? 1 : static_cast<size_t>(item.count), -1)};
        break;
      case Item::label: labels_[item.name] = static_cast<uint32_t>(kernel_->code.size()); break;
      case Item::statement: decode(item.code); break;
      default: break;
    }
  }
  Instr end;
  end.flow = Flow::leave;
  end.line = kernel_->code.empty() ? function_.line : kernel_->code.back().line;
  kernel_->code.push_back(end);
  kernel_->reads.emplace_back();
  kernel_->writes.emplace_back();
  for (auto& fix : fixes_) {
    auto it = labels_.find(fix.label);
    if (it == labels_.end()) throw Refused{fix.line, "unknown label " + std::string(fix.label)};
    if (fix.row < 0) kernel_->code[fix.instr].offset = it->second;
    else kernel_->rows[static_cast<size_t>(fix.row)] = static_cast<int32_t>(it->second);
  }
  return std::move(kernel_);
}

void check_target(const Text& text, int device_cc) {
  if (text.target > device_cc || (text.specific && text.target != device_cc))
    throw Refused{1, ".target sm_" + std::to_string(text.target) + (text.specific ? "a" : "") + " is not for this device of compute capability " +
                         std::to_string(device_cc / 10) + "." + std::to_string(device_cc % 10), 209};
}

void decode(Module& module) {
  for (auto& v : module.text.variables) {
    if (v.space != Space::constant) continue;
    module.constants.resize(align_up(module.constants.size(), v.align));
    size_t at = module.constants.size();
    module.constants.resize(at + v.size);
    std::copy(v.init.begin(), v.init.end(), module.constants.begin() + static_cast<long>(at));
  }
  for (auto& f : module.text.entries) module.kernels[std::string(f.name)] = Decoder(module, f).run();
}

}  // namespace sim
