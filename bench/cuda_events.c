// cuda_events.c: see cuda_events.h.
#include "cuda_events.h"
#include <dlfcn.h>
#include <string.h>

enum { SAMPLES = 7, MAX_REPEATS = 1024 };

logitd_status cuda_events_open(cuda_events *e, logitd_error *err) {
    static const struct {
        const char *symbol;
        size_t at;
        bool optional;
    } symbols[] = {
        {"cuEventCreate", offsetof(cuda_events, EventCreate), false},
        {"cuEventDestroy_v2", offsetof(cuda_events, EventDestroy), false},
        {"cuEventRecord", offsetof(cuda_events, EventRecord), false},
        {"cuEventSynchronize", offsetof(cuda_events, EventSynchronize), false},
        {"cuEventElapsedTime", offsetof(cuda_events, EventElapsedTime), false},
        {"emu_set", offsetof(cuda_events, emu_set), true},
        {"cuda_emu_counters", offsetof(cuda_events, emu_counters), true},
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL); // the one that the backend has loaded
    *e = (cuda_events){0};
    for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
        void *symbol = library ? dlsym(library, symbols[i].symbol) : NULL;
        if (!symbol && !symbols[i].optional)
            return error_set(err, LOGITD_EBACKEND, "the CUDA driver has no %s", symbols[i].symbol);
        memcpy((char *)e + symbols[i].at, &symbol, sizeof symbol);
    }
    if (!e->EventCreate(&e->first, 0) && !e->EventCreate(&e->last, 0)) return LOGITD_OK;
    cuda_events_close(e);
    return error_set(err, LOGITD_EBACKEND, "the CUDA driver makes no events");
}

void cuda_events_close(cuda_events *e) {
    if (e->first) e->EventDestroy(e->first);
    if (e->last) e->EventDestroy(e->last);
    e->first = e->last = NULL;
}

static cuda_result time_repeats(const cuda_events *e, cuda_stream stream, cuda_result (*run)(void *arg), void *arg,
                                int repeats, float *ms) {
    cuda_result result = e->EventRecord(e->first, stream);
    for (int i = 0; i < repeats && !result; i++) result = run(arg);
    if (!result) result = e->EventRecord(e->last, stream);
    if (!result) result = e->EventSynchronize(e->last);
    return result ? result : e->EventElapsedTime(ms, e->first, e->last);
}

cuda_result cuda_events_time(const cuda_events *e, cuda_stream stream, cuda_result (*run)(void *arg), void *arg,
                             timing *out) {
    double samples[SAMPLES];
    float ms = 0.0f;
    int repeats = 1;
    cuda_result result = run(arg);
    for (; !result; repeats *= 2) {
        result = time_repeats(e, stream, run, arg, repeats, &ms);
        if (ms >= 1.0f || repeats >= MAX_REPEATS) break;
    }
    for (int i = 0; i < SAMPLES && !result; i++) {
        result = time_repeats(e, stream, run, arg, repeats, &ms);
        samples[i] = MAX((double)ms, 1e-6) / repeats;
    }
    if (!result) *out = timing_of(samples, SAMPLES);
    return result;
}
