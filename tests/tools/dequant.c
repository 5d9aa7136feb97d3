/*
 * dequant: what the tests compare with the `gguf` Python package.
 *
 *   dequant TYPE < blocks > weights          whole blocks of one format, as float32
 *   dequant FILE.gguf TENSOR > weights       a tensor of a file
 */
#include "gguf.h"

#include <string.h>

static int fail(const char *message) {
    fprintf(stderr, "dequant: %s\n", message);
    return 1;
}

static int write_weights(const quant_type *type, const void *blocks, size_t n_blocks) {
    size_t n = n_blocks * (size_t)type->block_weights;
    float *weights = mem_alloc(n, sizeof *weights);
    if (!weights) return fail("no memory");
    type->dequantize(blocks, weights, n);
    bool written = fwrite(weights, sizeof *weights, n, stdout) == n && fflush(stdout) == 0;
    mem_free(weights);
    return written ? 0 : fail("the output cannot be written");
}

static int dequantize_stdin(const char *type_name) {
    const quant_type *type = NULL;
    for (int i = 0; i < n_quant_types; i++) {
        if (strcmp(quant_types[i].name, type_name) == 0) type = &quant_types[i];
    }
    if (!type) return fail("no such type");
    buffer blocks = {0};
    while (buffer_reserve(&blocks, 1 << 16)) {
        size_t n = fread(blocks.data + blocks.len, 1, 1 << 16, stdin);
        if (n == 0) break;
        blocks.len += n;
    }
    int code = blocks.failed ? fail("no memory")
               : blocks.len % (size_t)type->block_bytes != 0
                   ? fail("not whole blocks")
                   : write_weights(type, blocks.data, blocks.len / (size_t)type->block_bytes);
    buffer_free(&blocks);
    return code;
}

static int dequantize_tensor(const char *path, const char *name) {
    logitd_error err;
    gguf_file *file;
    if (gguf_open(path, &file, &err)) return fail(err.message);
    const gguf_tensor *tensor = gguf_find_tensor(file, name);
    int code = tensor ? write_weights(tensor->type, tensor->data, tensor->n_bytes / (uint64_t)tensor->type->block_bytes)
                      : fail("no such tensor");
    gguf_close(file);
    return code;
}

int main(int argc, char **argv) {
    if (argc == 2) return dequantize_stdin(argv[1]);
    if (argc == 3) return dequantize_tensor(argv[1], argv[2]);
    return fail("usage: dequant TYPE < blocks > weights, or dequant FILE.gguf TENSOR > weights");
}
