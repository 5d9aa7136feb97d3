#include "decode.h"

#include <algorithm>
#include <unordered_map>

#include "counters.h"
#include "flow.h"
#include "specials.h"

namespace emu {

// ---- constants and specials

u16 KernelBuilder::constant_slot(u64 bits, u32 bytes) {
    auto [found, is_new] = constants.try_emplace({bits, bytes}, (u16)(kernel.constants.size() / LANES));
    if (is_new) {
        for (u32 i = 0; i < LANES; i++) {
            kernel.constants.push_back((u32)bits);
            if (bytes == 8) kernel.constants.push_back((u32)(bits >> 32));
        }
        if (kernel.constants.size() / LANES >= CONSTANT_FILE)
            throw LoadError(function.loc.ptx_line, "too many different literals");
    }
    return found->second | CONSTANT_FILE;
}

u16 KernelBuilder::special_slot(const std::string &name, u32 line) {
    const Special *of = find_special(name);
    if (!of) throw LoadError(line, "the special register \"" + name + "\" is not supported");
    for (const SpecialSlot &special : kernel.specials)
        if (special.of == of) return special.slot;
    kernel.specials.push_back({of, (u16)kernel.specials.size()}); // the first slots of the file
    return kernel.specials.back().slot;
}

// ---- modifiers

Decoding::Decoding(KernelBuilder &to, const Statement &from, Insn &made, u32 index, size_t name_length)
    : statement(from), insn(made), builder(to), index_(index) {
    size_t start = from.opcode.find('.', name_length);
    while (start != std::string::npos) {
        size_t end = from.opcode.find('.', start + 1);
        modifiers_.push_back(from.opcode.substr(start + 1, end == std::string::npos ? end : end - start - 1));
        start = end;
    }
}

bool Decoding::accept(const char *modifier) {
    if (done() || modifiers_[next_] != modifier) return false;
    next_++;
    return true;
}

bool Decoding::accept_last(const char *modifier) {
    if (done() || modifiers_.back() != modifier) return false;
    modifiers_.pop_back();
    return true;
}

bool Decoding::next_is_type() const {
    return !done() && type_named(modifiers_[next_]) != Type::NONE;
}

Type Decoding::type() {
    if (!next_is_type()) fail(done() ? "a type is missing" : "\"." + modifiers_[next_] + "\" is not supported here");
    return type_named(modifiers_[next_++]);
}

std::string Decoding::word() {
    if (done()) fail("a modifier is missing");
    return modifiers_[next_++];
}

void Decoding::skip_any(std::initializer_list<const char *> hints) {
    for (bool again = true; again;) {
        again = false;
        for (const char *hint : hints) again = accept(hint) || again;
    }
}

void Decoding::fail(const std::string &message) const {
    throw LoadError(statement.loc.ptx_line, "\"" + statement.opcode + "\": " + message);
}

void Decoding::fail_type(Type) const {
    fail("this type is not supported");
}

// ---- operands

void Decoding::expect_operands(size_t low, size_t high) {
    size_t n = n_operands();
    if (n < low || n > high) fail("it has " + std::to_string(n) + " operands");
}

u32 Decoding::register_bits(const Operand &operand) const {
    return type_bits(builder.function.registers[operand.index]);
}

void Decoding::put_register(u32 to, const Operand &operand, bool is_definition) {
    builder.uses.push_back({index_, to, operand.index, is_definition});
}

u64 Decoding::literal_bits(const Operand &operand, Type type) const {
    bool is_f32 = type == Type::F32, is_f64 = type == Type::F64;
    if (operand.imm_type == Type::S64) {
        if (is_f32 || is_f64 || type == Type::F16 || type == Type::BF16)
            fail("an integer literal stands where a floating-point value is due");
        u32 bits = type_bits(type);
        return bits == 64 ? operand.imm : operand.imm & ((1ULL << bits) - 1);
    }
    if (operand.imm_type == Type::F32) {
        if (type_bits(type) != 32) fail("a 32-bit floating literal stands where another type is due");
        return operand.imm;
    }
    if (type_bits(type) == 64) return operand.imm;
    if (!is_f32) fail("a floating literal stands where another type is due");
    return bits_as<u32>((float)bits_as<double>(operand.imm));
}

void Decoding::result(u32 to, const Operand &operand, Type type) {
    if (operand.kind == OperandKind::SINK) fail("\"_\" is not supported as a result here");
    if (operand.kind != OperandKind::REG || operand.in_brackets) fail("its result must be a register");
    if (register_bits(operand) != type_bits(type)) fail("its result's register has the wrong width");
    put_register(to, operand, true);
}

u32 Decoding::wide_result(u32 to, const Operand &operand, Type type) {
    if (operand.kind != OperandKind::REG || operand.in_brackets) fail("its result must be a register");
    if (register_bits(operand) < type_bits(type)) fail("its result's register is too narrow");
    put_register(to, operand, true);
    return register_bits(operand);
}

void Decoding::source(u32 to, const Operand &operand, Type type) {
    if (operand.in_brackets) fail("an address stands where a value is due");
    if (operand.kind == OperandKind::REG) {
        if (register_bits(operand) != type_bits(type)) fail("a source's register has the wrong width");
        put_register(to, operand, false);
        return;
    }
    wide_source(to, operand, type);
}

u32 Decoding::wide_source(u32 to, const Operand &operand, Type type) {
    u32 bits = type_bits(type);
    switch (operand.kind) {
    case OperandKind::REG:
        if (register_bits(operand) < bits || register_bits(operand) == 1) fail("a source's register is too narrow");
        put_register(to, operand, false);
        return register_bits(operand);
    case OperandKind::IMM:
        insn.op[to] = builder.constant_slot(literal_bits(operand, type), bits == 64 ? 8 : 4);
        return bits;
    case OperandKind::SPECIAL:
        if (bits != 32) fail("a special register has 32 bits");
        insn.op[to] = builder.special_slot(operand.name, statement.loc.ptx_line);
        return 32;
    case OperandKind::VARIABLE:
    case OperandKind::GLOBAL_VARIABLE: {
        const auto &addresses =
            operand.kind == OperandKind::VARIABLE ? builder.variable_address : builder.global_variable_address;
        insn.op[to] = builder.constant_slot(addresses[operand.index] + (u64)operand.offset, bits == 64 ? 8 : 4);
        return bits;
    }
    default:
        fail("a source is not a value");
    }
}

void Decoding::predicate_result(u32 to, const Operand &operand) {
    if (operand.kind == OperandKind::SINK) {
        insn.op[to] = NO_OPERAND;
        return;
    }
    if (operand.kind != OperandKind::REG || register_bits(operand) != 1) fail("its result must be a predicate");
    insn.op[to] = builder.predicate_number[operand.index];
}

bool Decoding::predicate_source(u32 to, const Operand &operand) {
    if (operand.kind != OperandKind::REG || register_bits(operand) != 1) fail("a predicate is due");
    insn.op[to] = builder.predicate_number[operand.index];
    return operand.negated;
}

void Decoding::address(u32 to, const Operand &operand) {
    if (!operand.in_brackets) fail("an address in [ ] is due");
    insn.offset = operand.offset;
    switch (operand.kind) {
    case OperandKind::REG:
        if (register_bits(operand) == 64) {
            put_register(to, operand, false);
            insn.aux |= ADDRESS_64;
        } else if (register_bits(operand) == 32) {
            put_register(to, operand, false);
        } else {
            fail("an address has 32 or 64 bits");
        }
        return;
    case OperandKind::IMM:
        insn.op[to] = builder.constant_slot(0, 8);
        insn.aux |= ADDRESS_64;
        return;
    case OperandKind::VARIABLE:
    case OperandKind::GLOBAL_VARIABLE: {
        const auto &addresses =
            operand.kind == OperandKind::VARIABLE ? builder.variable_address : builder.global_variable_address;
        insn.op[to] = builder.constant_slot(addresses[operand.index], 8);
        insn.aux |= ADDRESS_64;
        return;
    }
    default:
        fail("an address must be a register, a variable or a number");
    }
}

u64 Decoding::integer_literal(const Operand &operand) const {
    if (operand.kind != OperandKind::IMM || operand.imm_type != Type::S64) fail("an integer literal is due");
    return operand.imm;
}

void Decoding::same_type(Type type, u32 n_sources) {
    expect_operands(1 + n_sources, 1 + n_sources);
    result(0, operand(0), type);
    for (u32 i = 1; i <= n_sources; i++) source(i, operand(i), type);
}

// ---- a function

namespace {

using OpcodeTable = std::unordered_map<std::string, void (*)(Decoding &)>;

const OpcodeTable &all_opcodes() {
    static const OpcodeTable table = [] {
        OpcodeTable made;
        for (auto family :
             {&FLOW_OPCODES, &INTEGER_OPCODES, &BITS_OPCODES, &COMPARE_OPCODES, &FLOAT_OPCODES, &CONVERT_OPCODES,
              &MOVE_OPCODES, &MEMORY_OPCODES, &ATOMIC_OPCODES, &ASYNC_OPCODES, &WARP_OPCODES, &MATRIX_OPCODES})
            for (const OpcodeRow &row : *family)
                if (!made.emplace(row.name, row.decode).second)
                    throw std::logic_error(std::string("two rows for ") + row.name);
        return made;
    }();
    return table;
}

// The longest name wins: "cp.async.wait_group" before "cp.async".
OpcodeTable::const_iterator find_opcode(const Statement &statement) {
    const OpcodeTable &table = all_opcodes();
    for (std::string name = statement.opcode;;) {
        auto found = table.find(name);
        if (found != table.end()) return found;
        size_t dot = name.rfind('.');
        if (dot == std::string::npos)
            throw LoadError(statement.loc.ptx_line, "the instruction \"" + statement.opcode + "\" is not supported");
        name.resize(dot);
    }
}

void decode_statement(KernelBuilder &builder, const Statement &statement, u32 index) {
    Insn &insn = builder.kernel.code[index];
    auto found = find_opcode(statement);
    Decoding decoding(builder, statement, insn, index, found->first.size());
    if (statement.guarded) {
        insn.guard = builder.predicate_number[statement.guard];
        insn.guard_negated = statement.guard_negated;
    }
    found->second(decoding);
    if (!decoding.done()) decoding.fail("\"." + decoding.word() + "\" is not supported here");
    if (!insn.run) decoding.fail("this combination of types is not supported");
}

} // namespace

void decode_function(KernelBuilder &builder) {
    const Function &function = builder.function;
    Kernel &kernel = builder.kernel;
    if (function.registers.size() >= CONSTANT_FILE) throw LoadError(function.loc.ptx_line, "too many registers");
    for (Type type : function.registers)
        builder.predicate_number.push_back(type == Type::PRED ? (u16)kernel.n_predicates++ : NO_OPERAND);
    Flow flow = flow_analyse(function);
    kernel.code.resize(flow.code_size);
    kernel.locs.resize(flow.code_size);
    kernel.is_statement.assign(flow.code_size, false);
    kernel.units.assign(flow.code_size, (u8)Unit::NONE);
    flow_place_marks(flow, kernel);
    for (u32 i = 0; i < function.body.size(); i++) {
        u32 at = flow.position[i];
        kernel.locs[at] = function.body[i].loc;
        kernel.is_statement[at] = true;
        kernel.units[at] = (u8)unit_of(function.body[i].opcode);
        decode_statement(builder, function.body[i], at);
    }
    flow_resolve_branches(flow, function, kernel);
    flow_assign_slots(flow, builder);
    kernel.executed.assign(kernel.code.size(), 0);
}

} // namespace emu
