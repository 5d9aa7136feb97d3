// A PTX module after parsing: functions as lists of instructions whose registers, variables and labels are numbers.
//
// Register, variable and label numbers are indices into their function's tables, so a function's body can be copied
// into another by adding offsets (ptx_inline.cc). Nothing here knows what an instruction does.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "types.h"

namespace emu {

enum class Type : u8 {
    NONE,
    PRED,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16X2,
    BF16,
    BF16X2,
    TF32,
    F32,
    F64
};

Type type_named(const std::string &name); // "u32" → Type::U32; anything else: Type::NONE
u32 type_bits(Type type);                 // width; 1 for a predicate

enum class Space : u8 { GLOBAL, CONST, SHARED, LOCAL, PARAM };

// Where an instruction stands: in the PTX, and, if it was compiled with -lineinfo, in the source and at the call that
// it was inlined into. Files are numbers of .file directives; 0: not known.
struct Loc {
    u32 ptx_line = 0;
    u32 file = 0, line = 0;
    u32 at_file = 0, at_line = 0;
};

struct Variable {
    std::string name;
    Space space = Space::GLOBAL;
    u32 align = 1;
    u64 bytes = 0;         // 0: an extern array, whose size the launch gives
    std::vector<u8> init;  // shorter than bytes: the rest is zero
    bool has_init = false; // without one, a .global variable starts as zeros too, as CUDA's do
    std::vector<std::pair<u32, std::string>> pointers; // offsets in init that hold another variable's generic address
};

enum class OperandKind : u8 { REG, IMM, SPECIAL, VARIABLE, GLOBAL_VARIABLE, LABEL, NAME, VECTOR, SINK };

// REG: a register; IMM: a literal; SPECIAL: %tid.x and the like, by name; VARIABLE: a variable of the function;
// GLOBAL_VARIABLE: one of the module; VECTOR: {a, b, …}; SINK: "_". With `in_brackets` it is an address, plus `offset`.
struct Operand {
    OperandKind kind = OperandKind::SINK;
    bool in_brackets = false;
    bool negated = false;      // !p
    u32 index = 0;             // register, variable or label
    u64 imm = 0;               // IMM: an integer's bits, or a floating literal's
    Type imm_type = Type::S64; // S64, F32 (0f…) or F64 (0d… and decimals)
    i64 offset = 0;
    std::string name;              // SPECIAL, NAME
    std::vector<Operand> elements; // VECTOR
};

struct Statement {
    Loc loc;
    std::string opcode;            // with all its modifiers: "ld.global.v4.u32"
    std::vector<Operand> operands; // a call: results as a VECTOR, name, arguments as a VECTOR
    bool guarded = false, guard_negated = false;
    u32 guard = 0; // a register of type PRED
};

struct Function {
    std::string name;
    bool is_entry = false;
    Loc loc;
    std::vector<Type> registers;
    std::vector<Variable> variables; // parameters first: results, then arguments
    u32 n_results = 0, n_params = 0;
    std::vector<Statement> body;
    std::vector<u32> labels;                      // label → index in body of the statement that follows it
    std::vector<std::vector<u32>> branch_targets; // of brx.idx: lists of labels, by the number of the .branchtargets
    u32 max_threads = 0;                          // .maxntid, .reqntid; 0: not stated
};

struct Module {
    std::vector<Variable> variables;
    std::map<std::string, u32> variable_index;
    std::map<std::string, std::unique_ptr<Function>> functions; // without those that are only declared
    std::map<u32, std::string> files;                           // .file
    u32 target_sm = 0;                                          // 80 for sm_80
    u32 n_lines = 0;
};

} // namespace emu
