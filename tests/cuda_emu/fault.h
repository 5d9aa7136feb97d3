// What a kernel can do wrong: the kinds, as tests and the report name them, and the error that the driver API gives.
#pragma once

#include <stdexcept>
#include <string>

#include "types.h"

namespace emu {

// clang-format off
// kind, its name in the report, CUresult
#define EMU_FAULT_KINDS(X)                                              \
    X(OUT_OF_BOUNDS,  "out of bounds",          700) /* illegal address */ \
    X(USE_AFTER_FREE, "use after free",         700)                    \
    X(MISALIGNED,     "misaligned address",     716)                    \
    X(READ_ONLY,      "write to read-only memory", 700)                 \
    X(UNINITIALISED,  "uninitialised read",     719) /* launch failed */ \
    X(RACE,           "shared-memory race",     719)                    \
    X(ASYNC_READ,     "read before cp.async wait", 719)                 \
    X(BARRIER,        "barrier not reached by all threads", 719)        \
    X(CONVERGENCE,    "lanes of the mask are missing", 719)             \
    X(DEADLOCK,       "deadlock",               702) /* launch timeout */ \
    X(STEP_LIMIT,     "step limit",             702)                    \
    X(ADDRESS_SPACE,  "wrong address space",    717)                    \
    X(ASSERTION,      "device assertion",       710)                    \
    X(TRAP,           "trap",                   715) /* illegal instruction */ \
    X(INJECTED,       "injected fault",         719)
// clang-format on

enum class FaultKind : u8 {
#define X(kind, name, result) kind,
    EMU_FAULT_KINDS(X)
#undef X
};

const char *fault_name(FaultKind kind);
int fault_result(FaultKind kind);

// Thrown by handlers; the block adds kernel, line, block and thread. `lane` is the first lane that did it.
struct Fault : std::runtime_error {
    Fault(FaultKind fault_kind, u32 fault_lane, const std::string &message)
        : std::runtime_error(message), kind(fault_kind), lane(fault_lane) {}
    FaultKind kind;
    u32 lane;
    u32 at = ~0U; // index in Kernel::code of the instruction to name, if it is not the one that threw
};

} // namespace emu
