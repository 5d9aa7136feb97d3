// Counts of what kernels did, as text: read by the coverage test and by the benchmarks.
//
// Tab-separated, appended a module at a time:
//   kernel <name> <launches> <warp instructions> <thread instructions> <registers> <shared bytes>
//   global <name> <requests> <32-byte sectors> <sectors if the same bytes lay side by side>
//   shared <name> <requests> <wavefronts> <wavefronts without bank conflicts>
//   line   <name> <PTX line> <source file:line, or -> <how often a warp came there>
// One request is one instruction of one warp. global and shared need LOGITD_EMU_TRAFFIC=1 and are 0 otherwise.
#pragma once

#include "loader.h"

namespace emu {

void counters_append(const std::string &path, const LoadedModule &module);

} // namespace emu
