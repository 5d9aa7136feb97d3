// The special registers: what a thread's %tid.x and the like hold, a row each.
#pragma once

#include <string>

#include "machine.h"

namespace emu {

struct Special {
    const char *name; // "%tid.x"
    u32 (*value)(const Block &block, u32 thread);
};

// Null: there is none of this name.
const Special *find_special(const std::string &name);

} // namespace emu
