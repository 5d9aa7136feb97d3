// memory_plan.c: see memory_plan.h.
#include "memory_plan.h"
#include "limits.h"

memory_plan memory_plan_make(const logitd_model_info *model) {
    memory_plan plan = {
        .model_bytes = model->file_bytes,
        .engine_bytes = mem_held(),
        .requests_bytes = (uint64_t)limits.memory_bytes,
        .connections_bytes = ((uint64_t)limits.connections + LIMIT_SPARE_CONNECTIONS) * LIMIT_CONNECTION_BYTES,
        .machine_bytes = util_machine_bytes(),
    };
    plan.worst_bytes = plan.model_bytes + plan.engine_bytes + plan.requests_bytes + plan.connections_bytes;
    return plan;
}

static unsigned long long mib(uint64_t bytes) {
    return bytes / LIMIT_MIB + (bytes % LIMIT_MIB != 0);
}

logitd_status memory_plan_enforce(const memory_plan *plan, logitd_error *err) {
    if (plan->worst_bytes > plan->machine_bytes) {
        return error_set(err, LOGITD_ENOMEM,
                         "the limits allow %llu MiB in the worst case (model %llu, engine %llu, requests %llu, "
                         "connections %llu), and this machine has %llu: lower --max-memory-bytes, --max-connections, "
                         "--ctx or --kv-tokens",
                         mib(plan->worst_bytes), mib(plan->model_bytes), mib(plan->engine_bytes),
                         mib(plan->requests_bytes), mib(plan->connections_bytes), mib(plan->machine_bytes));
    }
    mem_set_ceiling((size_t)(plan->engine_bytes + plan->requests_bytes));
    return LOGITD_OK;
}
