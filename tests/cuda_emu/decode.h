// Statements → instructions with handlers. Each ops_*.cc owns a family of opcodes: a table of names, each with a
// function that reads the modifiers and operands and chooses the handler.
//
// An opcode, a modifier or an operand that no family knows is a LoadError with its line: nothing is ignored.
#pragma once

#include "lanes.h"
#include "program.h"

namespace emu {

constexpr u8 ADDRESS_64 = 1; // bit of Insn::aux after Decoding::address: the register holds 64 bits

// Where a register stands in an instruction; slots are given out after all of a kernel is decoded (flow.h).
struct RegisterUse {
    u32 insn, operand; // operand: index in Insn::op
    u32 reg;           // of the function
    bool is_definition;
};

// What is known of a kernel while its statements are decoded.
struct KernelBuilder {
    const Module &module;
    const Function &function;
    Kernel &kernel;
    std::vector<u64>
        variable_address; // of the function's variables, in their own space; local and .param ones: in the frame
    std::vector<u64> global_variable_address; // of the module's variables
    std::vector<u16> predicate_number;        // of the function's registers of type PRED
    std::vector<RegisterUse> uses;
    std::map<std::pair<u64, u32>, u16> constants; // (bits, bytes) → slot
    u16 carry_flag = NO_OPERAND;                  // of add.cc and the like: a predicate that no program names

    u16 constant_slot(u64 bits, u32 bytes);
    u16 special_slot(const std::string &name, u32 line);
};

// One statement being decoded.
class Decoding {
  public:
    Decoding(KernelBuilder &to, const Statement &from, Insn &made, u32 index, size_t name_length);

    const Statement &statement;
    Insn &insn;
    KernelBuilder &builder;

    // Modifiers, in their order after the opcode's name.
    bool accept(const char *modifier);      // takes it if it is the next one
    bool accept_last(const char *modifier); // takes it if it is the last one
    Type type();                            // the next must be a type
    bool next_is_type() const;
    std::string word();                                       // the next one, whatever it is
    void skip_any(std::initializer_list<const char *> hints); // cache hints and the like
    bool done() const { return next_ == modifiers_.size(); }

    // Operands: i counts the statement's, `to` is the index in Insn::op.
    size_t n_operands() const { return statement.operands.size(); }
    void expect_operands(size_t low, size_t high);
    const Operand &operand(size_t i) const { return statement.operands.at(i); }
    void result(u32 to, const Operand &operand, Type type);
    void source(u32 to, const Operand &operand, Type type);
    // A register of at least the type's width, as ld, st and cvt allow; its own width in bits is returned.
    u32 wide_result(u32 to, const Operand &operand, Type type);
    u32 wide_source(u32 to, const Operand &operand, Type type);
    void predicate_result(u32 to, const Operand &operand);
    // Whether the source is to be negated is returned.
    bool predicate_source(u32 to, const Operand &operand);
    // [reg+offset], [variable+offset], [number] → op[to] and Insn::offset.
    void address(u32 to, const Operand &operand);
    u64 integer_literal(const Operand &operand) const;
    u32 register_bits(const Operand &operand) const;

    // The usual form: op[0] the result, op[1…] the sources, all of one type.
    void same_type(Type type, u32 n_sources);

    [[noreturn]] void fail(const std::string &message) const;
    [[noreturn]] void fail_type(Type type) const;

  private:
    void put_register(u32 to, const Operand &operand, bool is_definition);
    u64 literal_bits(const Operand &operand, Type type) const;

    std::vector<std::string> modifiers_;
    size_t next_ = 0;
    u32 index_;
};

struct OpcodeRow {
    const char *name;
    void (*decode)(Decoding &);
};

// The families, one a file.
extern const std::vector<OpcodeRow> FLOW_OPCODES, INTEGER_OPCODES, BITS_OPCODES, COMPARE_OPCODES, FLOAT_OPCODES,
    CONVERT_OPCODES, MOVE_OPCODES, MEMORY_OPCODES, ATOMIC_OPCODES, ASYNC_OPCODES, WARP_OPCODES, MATRIX_OPCODES;

// All of a function, whose calls were inlined. The kernel's layout is set; its code, locs and constants are filled in.
void decode_function(KernelBuilder &builder);

} // namespace emu
