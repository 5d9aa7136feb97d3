/*
 * test_model_load.c: files that parse as GGUF but do not fit their own hyper-parameters end in a sentence; RoPE scaling
 * kinds give the frequencies that they name. (Numbers of whole models: tests/test_architectures.py.)
 */
#include "gguf_bytes.h"
#include "model.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// --------------------------------------------------------------------------------------------- a small file's bytes

typedef struct tensor_spec {
    const char *name;
    int n_dims;
    uint64_t dims[2];
} tensor_spec;

static void put_key_u32(buffer *b, const char *key, uint32_t value) {
    put_key(b, key, GGUF_U32);
    put(b, value, 4);
}

static void put_key_string(buffer *b, const char *key, const char *value) {
    put_key(b, key, GGUF_STRING);
    put_str(b, value);
}

/// A llama of width 4, one head, one layer, 8 tokens, feed-forward width 1, with these F32 tensors of zeros.
static buffer make_file(const tensor_spec *tensors, int n_tensors, const char *scaling) {
    buffer b = {0};
    put_head(&b, 3, (uint64_t)n_tensors, scaling ? 8 : 6);
    put_key_string(&b, "general.architecture", "llama");
    put_key_u32(&b, "llama.embedding_length", 4);
    put_key_u32(&b, "llama.block_count", 1);
    put_key_u32(&b, "llama.context_length", 16);
    put_key_u32(&b, "llama.feed_forward_length", 1);
    put_key_u32(&b, "llama.attention.head_count", 1);
    if (scaling) {
        put_key_string(&b, "llama.rope.scaling.type", scaling);
        put_key(&b, "llama.rope.scaling.factor", GGUF_F32);
        put_f32(&b, 4.0f);
    }
    uint64_t offset = 0;
    for (int i = 0; i < n_tensors; i++) {
        uint64_t n = 1;
        put_str(&b, tensors[i].name);
        put(&b, (uint32_t)tensors[i].n_dims, 4);
        for (int d = 0; d < tensors[i].n_dims; d++) {
            put(&b, tensors[i].dims[d], 8);
            n *= tensors[i].dims[d];
        }
        put(&b, 0, 4); // F32
        put(&b, offset, 8);
        offset += (n * 4 + 31) / 32 * 32;
    }
    put_padding(&b, 32);
    for (uint64_t i = 0; i < offset; i++) put(&b, 0, 1);
    assert_false(b.failed);
    return b;
}

enum { FFN_DOWN = 9, N_TENSORS = 12 };
static const tensor_spec good[N_TENSORS] = {
    {"token_embd.weight", 2, {4, 8}},        {"output_norm.weight", 1, {4}},       {"blk.0.attn_norm.weight", 1, {4}},
    {"blk.0.attn_q.weight", 2, {4, 4}},      {"blk.0.attn_k.weight", 2, {4, 4}},   {"blk.0.attn_v.weight", 2, {4, 4}},
    {"blk.0.attn_output.weight", 2, {4, 4}}, {"blk.0.ffn_norm.weight", 1, {4}},    {"blk.0.ffn_up.weight", 2, {4, 1}},
    {"blk.0.ffn_down.weight", 2, {1, 4}},    {"blk.0.ffn_gate.weight", 2, {4, 1}}, {"extra.weight", 1, {4}},
};

/// Shares must rise; the last one stays in *arg.
static void see_progress(void *arg, double fraction) {
    assert_true(fraction > *(double *)arg && fraction <= 1.0);
    *(double *)arg = fraction;
}

static logitd_status load(const tensor_spec *tensors, int n_tensors, const char *scaling, double *inv_freq,
                          logitd_error *err) {
    buffer bytes = make_file(tensors, n_tensors, scaling);
    gguf_file *file = NULL;
    backend *b = NULL;
    model *m = NULL;
    const backend_options options = {.cpu_level = "reference", .n_threads = 1};
    assert_int_equal(gguf_open_memory(bytes.data, bytes.len, &file, err), LOGITD_OK);
    assert_int_equal(cpu_backend_create(&options, &b, err), LOGITD_OK);
    double ready = 0.0;
    const logitd_status status = model_load(file, b, see_progress, &ready, &m, err);
    if (status == LOGITD_OK) assert_true(ready == 1.0);
    assert_true((m != NULL) == (status == LOGITD_OK));
    if (m && inv_freq) memcpy(inv_freq, m->rope.inv_freq, 2 * sizeof *inv_freq);
    model_free(m);
    b->ops->destroy(b);
    gguf_close(file);
    buffer_free(&bytes);
    return status;
}

// ----------------------------------------------------------------------------------------------------------- tests

static void test_good(void **state) {
    (void)state;
    logitd_error err = {0};
    assert_int_equal(load(good, N_TENSORS - 1, NULL, NULL, &err), LOGITD_OK);
}

/// A matrix of one column is a matrix: as a vector it once loaded, and the first request ended the server.
static void test_vector_for_a_matrix(void **state) {
    (void)state;
    logitd_error err = {0};
    tensor_spec tensors[N_TENSORS];
    memcpy(tensors, good, sizeof good);
    tensors[FFN_DOWN] = (tensor_spec){"blk.0.ffn_down.weight", 1, {4}};
    assert_int_equal(load(tensors, N_TENSORS - 1, NULL, NULL, &err), LOGITD_EFORMAT);
    assert_non_null(strstr(err.message, "blk.0.ffn_down.weight"));
    assert_non_null(strstr(err.message, "[4, 1]"));
}

static void test_missing_and_extra(void **state) {
    (void)state;
    for (int missing = 1; missing < N_TENSORS - 1; missing++) {
        logitd_error err = {0};
        tensor_spec tensors[N_TENSORS];
        int n = 0;
        for (int i = 0; i < N_TENSORS - 1; i++)
            if (i != missing) tensors[n++] = good[i];
        assert_int_equal(load(tensors, n, NULL, NULL, &err), LOGITD_EFORMAT);
        assert_non_null(strstr(err.message, good[missing].name));
    }
    logitd_error err = {0};
    assert_int_equal(load(good, N_TENSORS, NULL, NULL, &err), LOGITD_EFORMAT);
    assert_non_null(strstr(err.message, "extra.weight is not part of the architecture llama"));
}

static void test_rope_scaling(void **state) {
    (void)state;
    logitd_error err = {0};
    double inv_freq[2];
    assert_int_equal(load(good, N_TENSORS - 1, NULL, inv_freq, &err), LOGITD_OK);
    assert_true(inv_freq[0] == 1.0 && fabs(inv_freq[1] - 0.01) < 1e-15);
    assert_int_equal(load(good, N_TENSORS - 1, "none", inv_freq, &err), LOGITD_OK); // whatever the factor says
    assert_true(inv_freq[0] == 1.0 && fabs(inv_freq[1] - 0.01) < 1e-15);
    assert_int_equal(load(good, N_TENSORS - 1, "linear", inv_freq, &err), LOGITD_OK);
    assert_true(inv_freq[0] == 0.25 && fabs(inv_freq[1] - 0.0025) < 1e-15);
    assert_int_equal(load(good, N_TENSORS - 1, "spiral", NULL, &err), LOGITD_EFORMAT);
    assert_non_null(strstr(err.message, "\"spiral\""));
    assert_non_null(strstr(err.message, "yarn"));
}

/// Whatever a file says, a message about it cannot move a terminal's cursor.
static void assert_printable(const char *message) {
    for (const char *c = message; *c; c++)
        if (*c < ' ' || *c > '~') fail_msg("%s", message);
}

static void test_names_in_messages(void **state) {
    (void)state;
    logitd_error err = {0};
    tensor_spec tensors[N_TENSORS];
    memcpy(tensors, good, sizeof good);
    tensors[N_TENSORS - 1].name = "\x1B[2Jextra\xFF";
    assert_int_equal(load(tensors, N_TENSORS, NULL, NULL, &err), LOGITD_EFORMAT);
    assert_printable(err.message);
    assert_non_null(strstr(err.message, "the tensor ?[2Jextra? is not part of the architecture llama"));
    assert_int_equal(load(good, N_TENSORS - 1, "spi\nral", NULL, &err), LOGITD_EFORMAT);
    assert_printable(err.message);
    assert_non_null(strstr(err.message, "RoPE scaling \"spi?ral\""));

    buffer bytes = {0};
    gguf_file *file;
    const model_arch *arch;
    model_hparams hp;
    put_head(&bytes, 3, 0, 1);
    put_key_string(&bytes, "general.architecture", "\x1B[31mllama");
    assert_int_equal(gguf_open_memory(bytes.data, bytes.len, &file, &err), LOGITD_OK);
    assert_int_equal(model_read_hparams(file, &arch, &hp, &err), LOGITD_EFORMAT);
    assert_printable(err.message);
    assert_non_null(strstr(err.message, "the architecture \"?[31mllama\" is not supported"));
    gguf_close(file);
    buffer_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_vector_for_a_matrix),
        cmocka_unit_test(test_missing_and_extra),
        cmocka_unit_test(test_rope_scaling),
        cmocka_unit_test(test_names_in_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
