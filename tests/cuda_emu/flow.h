// The shape of a function: where statements stand in the code, where branches meet again, which registers share a slot.
#pragma once

#include "decode.h"

namespace emu {

struct Flow {
    struct BasicBlock {
        u32 first = 0, last = 0; // statements, both included
        std::vector<u32> next;   // blocks
        bool falls_out = false;  // its lanes may exit here
        u32 meets = NOWHERE;     // immediate post-dominator: a block
        bool is_meeting = false; // some branch's paths meet at its start, so a mark stands there
    };
    std::vector<BasicBlock> blocks;
    std::vector<u32> block_of; // by statement
    std::vector<u32> position; // of statements, in the code
    std::vector<u32> start;    // of blocks, in the code: the mark, if there is one
    u32 code_size = 0;
};

Flow flow_analyse(const Function &function);

// Puts the marks, at which waiting paths are joined, into the code.
void flow_place_marks(const Flow &flow, Kernel &kernel);

// Insn::target held a label's (brx.idx: a table's) number; sets it to a place in the code, and Insn::reconverge.
void flow_resolve_branches(const Flow &flow, const Function &function, Kernel &kernel);

// Gives slots to registers, by linear scan over live ranges, and writes them into the instructions. Two registers share
// a slot only if no instruction lies in both ranges; so a result never overlays a source, and since a lane that waits
// keeps the ranges of its own place, lanes of different paths may share slots too.
void flow_assign_slots(const Flow &flow, KernelBuilder &builder);

} // namespace emu
