// sha256.c: see sha256.h. The thread works in pieces and looks before each whether its result is still wanted. One
// piece is not worth a thread.
#include "sha256.h"
#include "util.h"
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>

enum { PIECE_BYTES = 4 << 20 }; // a few milliseconds, some more where they come from a disk

struct sha256_task {
    const uint8_t *data;
    size_t n;
    bool has_thread; // else it is done
    pthread_t thread;
    atomic_bool canceled; // alone: nothing is published with it
    char hex[65];         // the thread's until it is joined
};

static void finish_hex(struct sha256_ctx *state, char out[65]) {
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(state, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t n, char out[65]) {
    struct sha256_ctx state;
    sha256_init(&state);
    sha256_update(&state, n, data);
    finish_hex(&state, out);
}

static void *task_main(void *argument) {
    sha256_task *task = argument;
    struct sha256_ctx state;
    sha256_init(&state);
    for (size_t at = 0; at < task->n; at += PIECE_BYTES) {
        if (atomic_load_explicit(&task->canceled, memory_order_relaxed)) return NULL;
        sha256_update(&state, MIN(task->n - at, (size_t)PIECE_BYTES), task->data + at);
    }
    finish_hex(&state, task->hex);
    return NULL;
}

sha256_task *sha256_start(const void *data, size_t n) {
    sha256_task *task = mem_alloc(1, sizeof *task);
    if (!task) return NULL;
    task->data = data;
    task->n = n;
    task->has_thread = n > PIECE_BYTES;
    if (!task->has_thread) {
        task_main(task);
    } else if (pthread_create(&task->thread, NULL, task_main, task) != 0) {
        mem_free(task);
        return NULL;
    }
    return task;
}

void sha256_finish(sha256_task *task, char out[65]) {
    if (task->has_thread) pthread_join(task->thread, NULL);
    for (size_t i = 0; i < sizeof task->hex; i++) out[i] = task->hex[i];
    mem_free(task);
}

void sha256_cancel(sha256_task *task) {
    if (!task) return;
    atomic_store_explicit(&task->canceled, true, memory_order_relaxed);
    if (task->has_thread) pthread_join(task->thread, NULL);
    mem_free(task);
}
