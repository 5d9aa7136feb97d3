/*
 * memory_plan.h: what the service holds in the worst case that its limits allow, computed once at start, so that a
 * machine too small for it is told so then, and not by the kernel's end of a busy process.
 *
 * Counted: the model file (mapped), the engine's and the server's own buffers as they are once both are made, all that
 * requests may hold (the ceiling on allocations, which turns away what would break it), and the connections' memory.
 * Not counted: the C library's own overhead, thread stacks, and the kernel's socket buffers.
 */
#ifndef MEMORY_PLAN_H
#define MEMORY_PLAN_H

#include "util.h"

typedef struct memory_plan {
    uint64_t model_bytes, engine_bytes, requests_bytes, connections_bytes;
    uint64_t worst_bytes;   // their sum
    uint64_t machine_bytes; // what this process may use
} memory_plan;

/// To be called when engine and server hold what they always hold, and nothing of a request.
memory_plan memory_plan_make(const logitd_model_info *model);
/// Sets the ceiling on allocations that the plan counts on. ENOMEM: the machine has less than the worst case; *err has
/// the sum and the flags that lower it.
logitd_status memory_plan_enforce(const memory_plan *plan, logitd_error *err);

#endif
