// Calls → the callee's body in the caller's: so a thread has one frame, and handlers know nothing of calls.
#pragma once

#include "ptx_ast.h"

namespace emu {

// A copy of an entry function without calls to defined functions. Throws LoadError on recursion, and when the result
// grows beyond a million statements. Calls to functions that are only declared stay.
Function ptx_inline(const Module &module, const Function &entry);

} // namespace emu
