// What the parser makes of PTX text, and what the decoder makes of that: kernels
// as arrays of instructions that run for the 32 lanes of a warp at once.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sim {

struct Warp;
struct Instr;
using Handler = void (*)(Warp&, const Instr&, uint32_t mask);

enum class Type : uint8_t {
  none, pred, b8, b16, b32, b64, b128, u8, u16, u32, u64, s8, s16, s32, s64,
  f16, f16x2, bf16, bf16x2, tf32, f32, f64
};
Type type_named(std::string_view name);  // "u32"; none if it is no type
unsigned bytes(Type t);
inline bool is_signed(Type t) { return t >= Type::s8 && t <= Type::s64; }
inline bool is_float(Type t) { return t >= Type::f16; }
inline bool is_half(Type t) { return t >= Type::f16 && t <= Type::bf16x2; }

enum class Space : uint8_t { generic, global, shared, local, constant, param };

// --- parsed text

struct Operand {
  enum Kind : uint8_t { name, integer, real32, real64, address, vector, sink } kind = name;
  bool negated = false;          // !%p
  std::string_view text;         // register or symbol; of an address its base, or empty
  int64_t offset = 0;            // of an address; index of an element of a vector register
  uint64_t value = 0;            // of a number: its bits
  std::vector<Operand> parts;    // of a vector; of %p|%q both
};

struct Statement {
  std::string_view guard;  // predicate register, or empty
  bool guard_not = false;
  std::vector<std::string_view> op;  // split at its dots
  std::vector<Operand> args;
  int line = 0;
};

struct Variable {
  std::string_view name;
  Space space = Space::global;
  Type type = Type::b8;
  unsigned align = 1;
  uint64_t size = 0;      // bytes; 0 for an extern array of unknown size
  bool external = false;
  std::vector<char> init;
};

// A piece of a function's body, in order.
struct Item {
  enum Kind : uint8_t { statement, label, open, close, registers, variable, targets } kind;
  Statement code;
  std::string_view name;                // label, or the register's name before <n>
  Type type = Type::none;               // of registers
  int count = -1;                       // of registers, -1 when there is no <n>
  Variable var;
  std::vector<std::string_view> list;   // of .branchtargets
};

struct Function {
  std::string_view name;
  std::vector<Variable> params;
  std::vector<Item> body;
  unsigned max_threads = 0, required[3] = {0, 0, 0};
  int line = 0;
};

struct Text {
  std::string source;
  int version = 0;  // 70 for 7.0
  int target = 0;   // 80 for sm_80
  bool specific = false;  // sm_90a
  std::vector<Variable> variables;
  std::vector<Function> entries;
};

// Thrown where a text is refused: what is wrong and where.
struct Refused {
  int line;
  std::string what;
  int code = 218;  // CUDA_ERROR_INVALID_PTX
};

void parse(Text& text);  // source to all else

// --- decoded kernels

// How an instruction moves the lanes; all but step are handled by the warp's loop.
enum class Flow : uint8_t { step, branch, indexed, leave, barrier, collective, pause };

// Operands are byte offsets of rows in the warp's registers: 32 cells of 4 or 8
// bytes, or one 32-bit mask for a predicate.
struct Instr {
  Handler run = nullptr;
  int32_t d = 0, a = 0, b = 0, c = 0;
  int32_t guard = -1;
  int32_t members = -1;  // of a collective: row of the member mask, or -1 for the whole warp
  int32_t more = 0;      // first of further operands in Kernel::rows
  int64_t offset = 0;    // of an address; of a branch its target
  int32_t line = 0;
  Flow flow = Flow::step;
  bool guard_not = false;
  bool products = false;  // wgmma.mma_async: its registers, in Kernel::rows from `more` on, are in use until it is waited for
  uint8_t flag = 0, count = 1, width = 0;
  Space space = Space::generic;
  uint16_t slot = 0;     // of a memory access, for the cache of allocations
};

constexpr uint8_t narrow_address = 0x80;  // in Instr::flag: the base is a 32-bit register

struct Constant {
  int32_t row;
  bool wide;
  uint64_t value;
};

enum class Special : uint8_t {
  tid_x, tid_y, tid_z, ntid_x, ntid_y, ntid_z, ctaid_x, ctaid_y, ctaid_z, nctaid_x, nctaid_y, nctaid_z,
  laneid, warpid, nwarpid, smid, nsmid, gridid, lanemask_eq, lanemask_le, lanemask_lt, lanemask_ge, lanemask_gt,
  dynamic_smem, total_smem, clock, clock64, globaltimer, cluster_one, cluster_zero
};

struct SpecialRow {
  int32_t row;
  Special what;
};

struct Kernel {
  std::string name;
  uint64_t serial = 0;  // of all kernels, from 1
  const Text* text = nullptr;
  struct Param { uint32_t offset, size; };
  std::vector<Param> params;
  uint32_t param_bytes = 0;
  std::vector<Instr> code;
  std::vector<int32_t> rows;
  std::vector<Constant> constants;
  std::vector<SpecialRow> specials;

  int32_t register_bytes = 0;
  int registers = 0;
  uint32_t shared_bytes = 0;   // static
  uint32_t shared_align = 16;  // of the dynamic part
  uint32_t local_bytes = 0;
  uint32_t const_bytes = 0;
  unsigned max_threads = 1024, required[3] = {0, 0, 0};
  bool waits_for_grid = false;  // griddepcontrol.wait appears
  // What each instruction reads and writes, for the check of registers; rows, -1 ends.
  std::vector<std::vector<int32_t>> reads, writes;
};

struct Global {
  std::string name;
  uint64_t size;
  uint64_t address = 0;  // on the device
};

struct Module {
  Text text;
  std::map<std::string, std::unique_ptr<Kernel>, std::less<>> kernels;
  std::vector<char> constants;
  std::map<std::string, Global, std::less<>> globals;
};

// Where shared, local and parameter memory lie in the generic address space, and
// where a block's shared memory begins (0 is no address).
constexpr uint64_t shared_window = 0x0100'0000'0000, local_window = 0x0101'0000'0000, param_window = 0x0102'0000'0000;
constexpr uint64_t const_window = 0x0103'0000'0000, window_bytes = 0x0001'0000'0000;
constexpr uint32_t shared_base = 1024;

}  // namespace sim
