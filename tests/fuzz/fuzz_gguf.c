/*
 * fuzz_gguf.c: a hostile model file: the parse and every getter, each tensor's weights, the tokenizer and a text
 * through it, and, where the file is right so far, the whole engine: opened and asked for a distribution.
 * Small files only (make_seeds.py): an input costs half a millisecond, and most of that is its tokens.
 */
#include "fuzz.h"
#include "limits.h"
#include "tokenizer.h"
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES (512u << 20) // a file that asks for more gets ENOMEM
#define WORK_WEIGHTS (1 << 20)    // an input may cost so much

static char path[64];
static int fd;

/// What one input frees is far less; with ASan's own 256 MB no memory would be used twice, which takes longer.
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=8";
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    log_threshold = LOG_ERROR;
    mem_set_ceiling(MEMORY_BYTES);
    fd = memfd_create("model", MFD_CLOEXEC); // the engine opens files by their path
    ASSERT(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return 0;
}

static bool is_inside(const void *p, uint64_t n, const void *data, size_t size) {
    uintptr_t start = (uintptr_t)data, at = (uintptr_t)p;
    return n == 0 || (at >= start && n <= size && at - start <= size - n);
}

static void read_array(const gguf_file *file, int i, const char *key, const void *data, size_t size) {
    gguf_value_type type;
    uint64_t n;
    if (!gguf_array(file, key, &type, &n)) return;
    for (uint64_t k = 0; k < MIN(n, (uint64_t)64); k++) {
        int64_t whole;
        double real;
        (void)gguf_array_int(file, i, k, &whole);
        (void)gguf_array_float(file, i, k, &real);
    }
    int64_t beyond;
    ASSERT(!gguf_array_int(file, i, n, &beyond));
    if (type != GGUF_STRING || n > size) return;
    gguf_str *strings = calloc(n + 1, sizeof *strings);
    ASSERT(strings && gguf_array_strings(file, key, strings, n));
    for (uint64_t k = 0; k < n; k++) ASSERT(is_inside(strings[k].data, strings[k].len, data, size));
    free(strings);
}

static void read_values(const gguf_file *file, const void *data, size_t size) {
    for (int i = 0; i < gguf_n_kv(file); i++) {
        gguf_str name = gguf_kv_key(file, i), text;
        ASSERT(is_inside(name.data, name.len, data, size));
        buffer key = {0}, shown = {0};
        buffer_append(&key, name.data, name.len);
        gguf_kv_text(file, i, &shown);
        int64_t whole;
        double real;
        bool flag;
        (void)gguf_int(file, key.data, &whole);
        (void)gguf_float(file, key.data, &real);
        (void)gguf_bool(file, key.data, &flag);
        if (gguf_string(file, key.data, &text)) ASSERT(is_inside(text.data, text.len, data, size));
        if (strlen(key.data) == name.len) {
            ASSERT(gguf_find(file, key.data) == i);
            read_array(file, i, key.data, data, size);
        }
        buffer_free(&key);
        buffer_free(&shown);
    }
}

static void read_tensors(const gguf_file *file, const void *data, size_t size) {
    static float weights[4096];
    int64_t work = 0;
    for (int i = 0; i < gguf_n_tensors(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        ASSERT(t->n_dims >= 1 && t->n_dims <= 4 && is_inside(t->data, t->n_bytes, data, size));
        int64_t n = 1;
        for (int d = 0; d < 4; d++) {
            ASSERT(t->dims[d] >= 1);
            n *= t->dims[d];
        }
        ASSERT(n % t->type->block_weights == 0);
        ASSERT((uint64_t)(n / t->type->block_weights) * (uint64_t)t->type->block_bytes == t->n_bytes);
        const uint8_t *block = t->data;
        const int64_t step = (int64_t)ARRAY_LEN(weights) / t->type->block_weights * t->type->block_weights;
        for (int64_t k = 0; k < n && work < WORK_WEIGHTS; k += step, work += step) {
            int64_t some = MIN(step, n - k);
            t->type->dequantize(block, weights, (size_t)some);
            block += some / t->type->block_weights * t->type->block_bytes;
        }
    }
}

static void try_tokenizer(const tokenizer *t) {
    static const char text[] = "<|endoftext|> Hello \xE2\x96\x81 world, 123 na\xC3\xAFve \xE7\x8C\xAB\n\n   {x}";
    logitd_error err = {0};
    token_vec v = {0};
    logitd_status status =
        tokenizer_encode(t, text, sizeof text - 1, tokenizer_add_bos(t) && tokenizer_bos_id(t) >= 0, true, &v, &err);
    if (status) fuzz_check_error(status, &err);
    for (size_t i = 0; i < v.n; i++) {
        ASSERT(v.ids[i] >= 0 && v.ids[i] < tokenizer_n_vocab(t));
        ASSERT(v.offsets[i] < sizeof text || v.offsets[i] == UINT32_MAX);
        ASSERT(tokenizer_bytes(t, v.ids[i]).len <= tokenizer_longest(t));
    }
    token_vec_free(&v);
}

/// The tokenizer of a file that is no model.
static void make_tokenizer(const gguf_file *file) {
    tokenizer *t;
    logitd_error err = {0};
    logitd_status status = tokenizer_create(file, &t, &err);
    if (status) {
        fuzz_check_error(status, &err);
        ASSERT(!t);
        return;
    }
    try_tokenizer(t);
    tokenizer_free(t);
}

/// A distribution of two positions; every number of it is one. Logits near the largest float give a logsumexp of +inf.
static void ask(logitd_engine *engine) {
    const int32_t n_vocab = logitd_model(engine)->n_vocab, ids[] = {0, n_vocab - 1}, positions[] = {0, 1};
    const double temperature = 0.5;
    const logitd_prompt prompt = {.tokens = ids, .n_tokens = 2, .positions = positions, .n_positions = 2};
    const logitd_request request = {
        .prompts = &prompt, .n_prompts = 1, .temperatures = &temperature, .n_temperatures = 1, .top_n = 3};
    logitd_job *job;
    logitd_error err = {0};
    logitd_status status = logitd_job_create(engine, &request, &job, &err);
    if (!status && (status = logitd_submit(engine, job, 1, &err))) logitd_job_free(job);
    if (status) {
        fuzz_check_error(status, &err);
        return;
    }
    while (logitd_job_state(job) == LOGITD_RUNNING) logitd_step(engine);
    for (int i = 0; logitd_job_state(job) == LOGITD_DONE && i < 2; i++) {
        logitd_row row = logitd_job_row(job, 0, i);
        ASSERT(!isnan(row.logsumexp[0]) && row.entropy[0] >= 0 && row.varentropy[0] >= 0);
        for (int k = 0; k < MIN(3, n_vocab); k++)
            ASSERT(row.top_id[k] >= 0 && row.top_id[k] < n_vocab && row.top_value[k] <= 0);
    }
    if (logitd_job_state(job) == LOGITD_FAILED) fuzz_check_error(logitd_job_error(job)->status, logitd_job_error(job));
    logitd_job_free(job);
}

/// False: the file is no model that it runs.
static bool try_engine(const uint8_t *data, size_t n) {
    ASSERT(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    logitd_engine *engine;
    logitd_error err = {0};
    const logitd_options options = {.model_path = path,
                                    .backend = "cpu",
                                    .cpu_level = "portable",
                                    .n_threads = 1,
                                    .batch_tokens = 4,
                                    .n_ctx = 8,
                                    .kv_tokens = 8};
    logitd_status status = logitd_open(&options, &engine, &err);
    if (status) {
        fuzz_check_error(status, &err);
        return false;
    }
    try_tokenizer(logitd_tokenizer(engine));
    ask(engine);
    logitd_close(engine);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gguf_file *file;
    logitd_error err = {0};
    const size_t held = mem_held();
    logitd_status status = gguf_open_memory(data, n, &file, &err);
    if (status) {
        fuzz_check_error(status, &err);
    } else {
        read_values(file, data, n);
        read_tensors(file, data, n);
        if (!try_engine(data, n)) make_tokenizer(file);
        gguf_close(file);
    }
    ASSERT(mem_held() == held);
    return 0;
}
