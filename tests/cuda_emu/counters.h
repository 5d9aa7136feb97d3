// Counts of what kernels did, as text (read by the coverage test) and as numbers (read by the benchmarks).
//
// The text is tab-separated, appended a module at a time:
//   kernel <name> <launches> <warp instructions> <thread instructions> <registers> <shared bytes>
//   global <name> <requests> <32-byte sectors> <sectors if the same bytes lay side by side>
//   shared <name> <requests> <wavefronts> <wavefronts without bank conflicts>
//   line   <name> <PTX line> <source file:line, or -> <how often a warp came there>
// One request is one instruction of one warp. global and shared need LOGITD_EMU_TRAFFIC=1 and are 0 otherwise.
//
// The numbers, of a kernel since its module was loaded, in the order of counts.def, are given by a symbol that a real
// driver does not have; it waits for nothing, so synchronise first:
//   int cuda_emu_counters(const char *kernel, unsigned long long *counts, int n)      0, or CUDA_ERROR_NOT_FOUND
#pragma once

#include "loader.h"

namespace emu {

// What executes an instruction.
enum class Unit : u8 {
#define COUNT(name)
#define UNIT(name) name,
#include "counts.def"
#undef COUNT
    NONE // no instruction of the program
};

Unit unit_of(const std::string &opcode); // "fma.rn.f32"

void counters_append(const std::string &path, const LoadedModule &module);
// In the order of counts.def.
std::vector<u64> counters_of(const LoadedKernel &loaded);

} // namespace emu
