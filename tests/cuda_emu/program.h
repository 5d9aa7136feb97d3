// A kernel ready to run: instructions with their handlers, and where everything lives.
//
// A register is one slot of 32 lanes × 4 bytes, or two slots that hold 32 lanes × 8 bytes; 16-bit values stand
// zero-extended in 4 bytes. Literals and addresses of variables are slots of a second, read-only file that all warps
// share, so an operand is one number: bit 15 says which file, the rest is the slot. A predicate is one word, a bit a
// lane.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ptx_ast.h"
#include "types.h"

namespace emu {

struct Warp;
struct Insn;

// Runs one instruction for the lanes of `mask`, which is never 0. Throws Fault.
using Handler = void (*)(Warp &warp, const Insn &insn, u32 mask);

constexpr u16 CONSTANT_FILE = 0x8000;
constexpr u16 NO_GUARD = 0xffff;
constexpr u16 NO_OPERAND = 0xffff;
constexpr u32 NOWHERE = ~0U; // the reconvergence point of paths that only meet by ending
constexpr u32 N_OPERANDS = 16;

struct Insn {
    Handler run = nullptr;
    i64 offset = 0;           // of an address; else what the handler's own comment says
    u32 target = 0;           // branches: index in Kernel::code
    u32 reconverge = NOWHERE; // branches: where the paths meet again
    u16 guard = NO_GUARD;     // a predicate
    u8 guard_negated = 0;
    u8 aux = 0; // what the handler's own comment says
    u16 op[N_OPERANDS] = {};
};

struct Special; // specials.h

// A special register that a warp's slot is filled with when it starts.
struct SpecialSlot {
    const Special *of;
    u16 slot;
};

struct Extent {
    u32 start = 0, bytes = 0;
};

struct Kernel {
    std::string name;
    std::vector<Insn> code;
    std::vector<Loc> locs;                       // beside code
    std::vector<bool> is_statement;              // beside code: false for the reconvergence marks put in at load
    std::vector<u8> units;                       // beside code: Unit (counters.h) that executes it
    std::vector<std::vector<u32>> branch_tables; // of brx.idx: indices in code
    u32 n_slots = 0, n_predicates = 0;
    std::vector<SpecialSlot> specials;
    std::vector<u32> constants; // [n_constant_slots][LANES]
    std::vector<Extent> params; // of a launch's parameter buffer, in order
    u32 param_bytes = 0;
    std::vector<Extent> shared;    // static variables; what is between them is red zone
    u32 shared_bytes = 0;          // end of the last static variable and its red zone
    u32 shared_declared_bytes = 0; // what the variables themselves take: what CUDA reports
    u32 local_bytes = 0;           // of one thread
    u32 max_threads = 1024;
    u32 n_registers = 0;                               // 32-bit slots that live at once, at most
    std::vector<u64> executed;                         // beside code: how often a warp ran it, since it was loaded
    const std::map<u32, std::string> *files = nullptr; // of the module, which outlives the kernel
};

} // namespace emu
