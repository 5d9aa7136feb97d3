// cuda_queue.c: device memory, copies and launches of the CUDA backend, and its one sticky failure; see cuda_impl.h.
#include "cuda/cuda_impl.h"
#include <string.h>

enum {
    PINNED_BYTES = 8 << 20, // inputs under way; weights pass through it in pieces
    RESULTS_BYTES = 8 << 20,
};

// ------------------------------------------------------------------------------------------------- opening, closing

cuda_result cuda_queue_open(cuda_backend *cuda) {
    const cuda_driver *driver = cuda->driver;
    cuda_event *const events[] = {&cuda->marks[0], &cuda->marks[1], &cuda->copied[0], &cuda->copied[1]};
    cuda_result result = driver->StreamCreate(&cuda->stream, CUDA_STREAM_NON_BLOCKING);
    if (!result) result = driver->StreamCreate(&cuda->copies, CUDA_STREAM_NON_BLOCKING);
    for (size_t i = 0; i < ARRAY_LEN(events) && !result; i++)
        result = driver->EventCreate(events[i], CUDA_EVENT_NO_TIMING);
    if (!result) result = driver->MemAllocHost((void **)&cuda->pinned, cuda->pinned_bytes = PINNED_BYTES);
    if (!result) result = driver->MemAllocHost((void **)&cuda->results, cuda->results_bytes = RESULTS_BYTES);
    return result;
}

void cuda_queue_close(cuda_backend *cuda) {
    const cuda_driver *driver = cuda->driver;
    const cuda_event events[] = {cuda->marks[0], cuda->marks[1], cuda->copied[0], cuda->copied[1]};
    for (size_t i = 0; i < ARRAY_LEN(events); i++)
        if (events[i]) driver->EventDestroy(events[i]);
    if (cuda->pinned) driver->MemFreeHost(cuda->pinned);
    if (cuda->results) driver->MemFreeHost(cuda->results);
    if (cuda->copies) driver->StreamDestroy(cuda->copies);
    if (cuda->stream) driver->StreamDestroy(cuda->stream);
}

// ------------------------------------------------------------------------------------------------------- failures

bool cuda_failed(const cuda_backend *cuda) {
    return cuda->failure.status != LOGITD_OK;
}

bool cuda_ok(cuda_backend *cuda, cuda_result result, const char *what) {
    if (cuda_failed(cuda)) return false;
    if (result == 0) return true;
    char text[160];
    error_set(&cuda->failure, LOGITD_EBACKEND, "the GPU (%s) failed in %s: %s", cuda->name, what,
              cuda_driver_error(cuda->driver, result, text));
    log_line(LOG_ERROR, "%s", cuda->failure.message);
    return false;
}

void cuda_fail(cuda_backend *cuda, const logitd_error *why) {
    if (cuda_failed(cuda)) return;
    cuda->failure = *why;
    cuda->failure.status = LOGITD_EBACKEND;
    log_line(LOG_ERROR, "%s", why->message);
}

/// The context belongs to a thread; the engine's worker is not the thread that opened it.
static void enter(const cuda_backend *cuda) {
    cuda->driver->CtxSetCurrent(cuda->context);
}

logitd_status cuda_report(const cuda_backend *cuda, logitd_error *err) {
    return cuda_failed(cuda) ? error_set(err, cuda->failure.status, "%s", cuda->failure.message) : LOGITD_OK;
}

// --------------------------------------------------------------------------------------------------------- memory

cuda_address cuda_alloc(cuda_backend *cuda, size_t n_bytes, const char *what, logitd_error *err) {
    cuda_address at = 0;
    size_t n_free = 0, total = 0;
    if (cuda_failed(cuda)) {
        cuda_report(cuda, err);
        return 0;
    }
    enter(cuda);
    const cuda_result result = cuda->driver->MemAlloc(&at, MAX(n_bytes, 1));
    if (result == 0) {
        cuda->n_device_bytes += n_bytes;
        return at;
    }
    if (result != CUDA_ERROR_MEMORY) cuda_ok(cuda, result, what);
    cuda->driver->MemGetInfo(&n_free, &total);
    logitd_error sentence;
    error_set(&sentence, LOGITD_ENOMEM, "the GPU (%s) has no memory for %s: %.1f MB wanted, %.1f of %.1f MB free",
              cuda->name, what, (double)n_bytes / 1e6, (double)n_free / 1e6, (double)total / 1e6);
    if (err)
        *err = sentence;
    else
        log_line(LOG_ERROR, "%s", sentence.message);
    return 0;
}

void cuda_free(cuda_backend *cuda, cuda_address at) {
    if (!at) return;
    enter(cuda);
    cuda->driver->MemFree(at); // after a sticky failure the driver refuses, and frees all with the context
}

bool cuda_scratch_grow(cuda_backend *cuda, cuda_scratch *s, size_t n_bytes, const char *what, logitd_error *err) {
    if (s->n_bytes >= n_bytes) return true;
    cuda_wait(cuda);
    cuda_free(cuda, s->data);
    s->data = cuda_alloc(cuda, n_bytes, what, err);
    s->n_bytes = s->data ? n_bytes : 0;
    return s->data != 0;
}

// --------------------------------------------------------------------------------------------------------- copies

void cuda_wait(cuda_backend *cuda) {
    enter(cuda);
    if (!cuda_failed(cuda)) cuda_ok(cuda, cuda->driver->StreamSynchronize(cuda->stream), "waiting for its work");
    cuda->pinned_used = 0; // all copies have left
}

void cuda_upload(cuda_backend *cuda, cuda_address to, const void *from, size_t n_bytes) {
    enter(cuda);
    for (size_t done = 0; done < n_bytes && !cuda_failed(cuda);) {
        if (cuda->pinned_used == cuda->pinned_bytes) cuda_wait(cuda);
        const size_t n = MIN(n_bytes - done, cuda->pinned_bytes - cuda->pinned_used);
        uint8_t *staged = cuda->pinned + cuda->pinned_used;
        memcpy(staged, (const uint8_t *)from + done, n);
        cuda_ok(cuda, cuda->driver->MemcpyHtoDAsync(to + done, staged, n, cuda->stream), "a copy to it");
        cuda->pinned_used += n;
        done += n;
    }
}

void cuda_mark(cuda_backend *cuda, int mark) {
    enter(cuda);
    if (!cuda_failed(cuda))
        cuda_ok(cuda, cuda->driver->EventRecord(cuda->marks[mark], cuda->stream), "marking its work");
}

/// Queues the copy of a piece into a half of `results`.
static void copy_piece(cuda_backend *cuda, int half, cuda_address from, size_t n_bytes) {
    uint8_t *to = cuda->results + (size_t)half * (cuda->results_bytes / 2);
    if (!cuda_failed(cuda))
        cuda_ok(cuda, cuda->driver->MemcpyDtoHAsync(to, from, n_bytes, cuda->copies), "a copy from it");
    if (!cuda_failed(cuda))
        cuda_ok(cuda, cuda->driver->EventRecord(cuda->copied[half], cuda->copies), "a copy from it");
}

/// Waits for that copy and takes it over.
static void take_piece(cuda_backend *cuda, int half, void *to, size_t n_bytes) {
    if (!cuda_failed(cuda))
        cuda_ok(cuda, cuda->driver->EventSynchronize(cuda->copied[half]), "waiting for a copy from it");
    if (cuda_failed(cuda))
        memset(to, 0, n_bytes);
    else
        memcpy(to, cuda->results + (size_t)half * (cuda->results_bytes / 2), n_bytes);
}

/// The device writes one half of `results` while the host empties the other.
void cuda_download_marked(cuda_backend *cuda, int mark, void *to, cuda_address from, size_t n_bytes) {
    const size_t piece = cuda->results_bytes / 2;
    enter(cuda);
    if (!cuda_failed(cuda))
        cuda_ok(cuda, cuda->driver->StreamWaitEvent(cuda->copies, cuda->marks[mark], 0), "waiting for its work");
    if (n_bytes > 0) copy_piece(cuda, 0, from, MIN(piece, n_bytes));
    for (size_t done = 0, n; done < n_bytes; done += n) {
        const int half = (int)(done / piece % 2);
        const size_t next = done + piece;
        n = MIN(piece, n_bytes - done);
        if (next < n_bytes) copy_piece(cuda, 1 - half, from + next, MIN(piece, n_bytes - next));
        take_piece(cuda, half, (uint8_t *)to + done, n);
    }
}

void cuda_download(cuda_backend *cuda, void *to, cuda_address from, size_t n_bytes) {
    cuda_mark(cuda, 0);
    cuda_download_marked(cuda, 0, to, from, n_bytes);
    cuda_wait(cuda);
}

cuda_address cuda_input_put(cuda_backend *cuda, cuda_input *input, const void *bytes, size_t n_bytes) {
    ASSERT(n_bytes > 0);
    if (input->n_bytes == n_bytes && memcmp(input->copy, bytes, n_bytes) == 0) return input->device.data;
    if (input->capacity < n_bytes) {
        mem_free(input->copy);
        input->copy = mem_alloc(n_bytes, 1);
        input->capacity = input->copy ? n_bytes : 0;
    }
    input->n_bytes = 0;
    logitd_error err = {0};
    if (input->capacity < n_bytes)
        error_set(&err, LOGITD_ENOMEM, "there is no memory for a batch's inputs");
    else
        cuda_scratch_grow(cuda, &input->device, n_bytes, "a batch's inputs", &err);
    if (err.status) cuda_fail(cuda, &err);
    if (cuda_failed(cuda) || !input->copy) return 0;
    memcpy(input->copy, bytes, n_bytes);
    input->n_bytes = n_bytes;
    cuda_upload(cuda, input->device.data, bytes, n_bytes);
    return input->device.data;
}

// ------------------------------------------------------------------------------------------------------- launches

static const struct {
    const char *name;
    unsigned threads;
} kernel_rows[] = {
#define KERNEL(name, shared_bytes, threads) {#name, threads},
#include "cuda/kernels.def"
#undef KERNEL
};

cuda_result cuda_launch_now(cuda_backend *cuda, const cuda_launch_info *launch) {
    void *arguments[] = {(void *)(uintptr_t)launch->params};
    return cuda->driver->LaunchKernel(cuda->kernels[launch->kernel], launch->grid_x, launch->grid_y, 1, launch->threads,
                                      1, 1, launch->shared_bytes, cuda->stream, arguments, NULL);
}

void cuda_launch(cuda_backend *cuda, cuda_kernel kernel, int grid_x, int grid_y, int shared_bytes, const void *params) {
    ASSERT(grid_x > 0 && grid_y > 0);
    if (cuda_failed(cuda)) return;
    enter(cuda);
    const cuda_launch_info launch = {.kernel = kernel,
                                     .name = kernel_rows[kernel].name,
                                     .grid_x = (unsigned)grid_x,
                                     .grid_y = (unsigned)grid_y,
                                     .threads = kernel_rows[kernel].threads,
                                     .shared_bytes = (unsigned)shared_bytes,
                                     .params = params};
    cuda_ok(cuda, cuda->launch(cuda, &launch), launch.name);
}
