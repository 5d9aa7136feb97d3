// PTX text → Module. Knows PTX's grammar (declarations, scopes, operands), not its instructions: an opcode is a string
// here.
#pragma once

#include "ptx_ast.h"

namespace emu {

// Throws LoadError with the line of what it cannot read: nothing is skipped but debug sections and hints to the
// compiler.
Module ptx_parse(const std::string &text);

} // namespace emu
