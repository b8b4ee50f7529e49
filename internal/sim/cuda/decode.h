// Statements to instructions. The files ops_*.cpp say how each is decoded and run.
#pragma once
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "ptx.h"

namespace sim {

class Decoder {
 public:
  Decoder(Module& module, const Function& f);
  std::unique_ptr<Kernel> run();

  // The statement at hand, for the decoders of single instructions.
  const Statement& statement() const { return *at_; }
  size_t args() const { return at_->args.size(); }
  const Operand& arg(size_t n) const;
  bool take(std::string_view modifier);  // true if it was there; each modifier must be taken
  Type take_type();                      // the next type among the modifiers
  Type peek_type() const;                // none if there is none left
  void take_cache_hints();               // .L1::no_allocate, .L2::128B and the like

  int32_t dst(size_t n, Type t) { return dst(arg(n), t); }
  int32_t src(size_t n, Type t) { return src(arg(n), t); }
  int32_t dst(const Operand& o, Type t);
  int32_t src(const Operand& o, Type t);
  int32_t dst_any(const Operand& o, bool& wide);  // whatever width the register has
  int32_t src_any(const Operand& o, Type t, bool& wide);
  bool is_predicate(const Operand& o);
  unsigned register_bytes(size_t n);      // as declared
  int32_t constant(bool wide, uint64_t value);
  int32_t scratch(bool wide) { return new_row(wide); }
  int32_t carry();                       // the condition code of add.cc
  void reads(int32_t row);
  void writes(int32_t row);
  void address(size_t n, Space space, Instr& i, int32_t& row);  // base to row, displacement to i.offset
  int64_t param_offset(size_t n);  // of an address that names a parameter
  int32_t more(std::initializer_list<int32_t> rows);
  int32_t more(const std::vector<int32_t>& rows);
  void branch_to(std::string_view label, Instr& i);
  void branch_table(std::string_view targets, Instr& i);  // targets to Kernel::rows at i.more, i.offset of them
  void need(int target, int version, const char* what);   // as ptxas refuses
  void need_specific(int target, int version, const char* what);  // sm_90a and nothing else
  uint16_t memory_slot() { return slot_++ & 63; }
  void waits_for_grid() { kernel_->waits_for_grid = true; }
  Kernel& kernel() { return *kernel_; }
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  struct Registers {
    Type type;
    std::vector<int32_t> rows;
  };
  struct Symbol {
    Space space;
    uint64_t value;
  };
  using Scope = std::unordered_map<std::string_view, Registers>;

  void place_variables();
  void place(const Variable& v);
  void decode(const Statement& s);
  int32_t& find(std::string_view name, Type& type);
  int32_t reg(std::string_view name, Type& type);
  int32_t new_row(bool wide);
  int32_t new_predicate();
  const Symbol* symbol(std::string_view name) const;

  Module& module_;
  const Function& function_;
  std::unique_ptr<Kernel> kernel_;
  const Statement* at_ = nullptr;
  uint32_t taken_ = 0;
  std::vector<Scope> scopes_;
  std::unordered_map<std::string_view, Symbol> symbols_;
  std::unordered_map<std::string_view, uint32_t> labels_;
  std::unordered_map<std::string_view, const Item*> targets_;
  struct Fix { size_t instr; std::string_view label; int32_t row; int line; };
  std::vector<Fix> fixes_;
  std::unordered_map<uint64_t, int32_t> words_, wides_;
  std::unordered_map<std::string_view, int32_t> special_rows_;
  int32_t predicates_left_ = 0, next_predicate_ = 0, carry_ = -1;
  uint16_t slot_ = 0;
};

struct Op {
  std::string_view name;
  void (*decode)(Decoder&, Instr&);
};

std::vector<Op> integer_ops();
std::vector<Op> float_ops();
std::vector<Op> convert_ops();
std::vector<Op> memory_ops();
std::vector<Op> atomic_ops();
std::vector<Op> mma_ops();
std::vector<Op> matrix_ops();
std::vector<Op> warpgroup_ops();
std::vector<Op> warp_ops();
std::vector<Op> control_ops();
std::vector<Op> copy_ops();

// Names that integers and floating point share: the integer decoders hand over.
void decode_float_arithmetic(Decoder& d, Instr& i);
void decode_half_arithmetic(Decoder& d, Instr& i);

// Parses and decodes a module whose variables have their places.
void decode(Module& module);
void check_target(const Text& text, int device_cc);

}  // namespace sim
