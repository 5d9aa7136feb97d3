/*
 * cuda_events.h: time on the device, between two events of a stream, and the symbols of the driver that only a bench
 * needs. An emulated device is known by a symbol that no driver has.
 */
#ifndef CUDA_EVENTS_H
#define CUDA_EVENTS_H

#include "cuda/cuda_driver.h"
#include "timing.h"

typedef struct cuda_events {
    cuda_result (*EventCreate)(void **event, unsigned flags);
    cuda_result (*EventDestroy)(void *event);
    cuda_result (*EventRecord)(void *event, cuda_stream stream);
    cuda_result (*EventSynchronize)(void *event);
    cuda_result (*EventElapsedTime)(float *ms, void *first, void *last);
    // of an emulated device (tests/cuda_emu/counters.h); NULL: a real one
    int (*emu_set)(const char *name, unsigned long long value);
    int (*emu_counters)(const char *kernel, unsigned long long *counts, int n);
    void *first, *last;
} cuda_events;

/// The driver's context must be current. EBACKEND: the driver has no events.
logitd_status cuda_events_open(cuda_events *e, logitd_error *err);
void cuda_events_close(cuda_events *e);
/// Best and median of several runs of `run`, which queues work; each run is repeated until it lasts a millisecond,
/// after one that is not timed.
cuda_result cuda_events_time(const cuda_events *e, cuda_stream stream, cuda_result (*run)(void *arg), void *arg,
                             timing *out);

#endif
