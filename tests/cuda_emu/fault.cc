#include "fault.h"

namespace emu {

const char *fault_name(FaultKind kind) {
    static const char *const names[] = {
#define X(kind, name, result) name,
        EMU_FAULT_KINDS(X)
#undef X
    };
    return names[(size_t)kind];
}

int fault_result(FaultKind kind) {
    static const int results[] = {
#define X(kind, name, result) result,
        EMU_FAULT_KINDS(X)
#undef X
    };
    return results[(size_t)kind];
}

} // namespace emu
