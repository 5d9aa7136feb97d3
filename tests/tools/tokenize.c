/*
 * tokenize: a text's token ids, for the Python tests and for timing.
 *
 *   tokenize MODEL.gguf [-b] [-s] [-o] [-n] [-r COUNT] [--] FILE…    a file's ids as one line
 *     -b  put BOS first     -s  read control tokens     -o  id:offset instead of id     -n  a text in each file ends at
 * a NUL -r  time: load, then encode each file COUNT times; prints ms and MB/s
 *
 * Bad UTF-8 and the like give a line "error: …". Exit status 2: the model did not load.
 */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    bool add_bos, special, offsets, split_at_nul;
    int repeat;
} options;

static buffer read_file(const char *path) {
    buffer b = {0};
    FILE *f = fopen(path, "rb");
    char chunk[1 << 16];
    for (size_t n; f && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buffer_append(&b, chunk, n);
    if (f) fclose(f);
    return b;
}

static void print_ids(const tokenizer *t, const char *text, size_t n, const options *o) {
    token_vec ids = {0};
    logitd_error err;
    if (tokenizer_encode(t, text, n, o->add_bos, o->special, &ids, &err)) {
        printf("error: %s\n", err.message);
        return;
    }
    for (size_t i = 0; i < ids.n; i++) {
        printf("%s%d", i ? " " : "", ids.ids[i]);
        if (o->offsets) printf(":%u", ids.offsets[i]);
    }
    putchar('\n');
    token_vec_free(&ids);
}

static void time_file(const tokenizer *t, const buffer *text, const options *o) {
    int64_t best_us = INT64_MAX;
    size_t n_ids = 0;
    for (int i = 0; i < o->repeat; i++) {
        token_vec ids = {0};
        int64_t start = clock_us();
        if (tokenizer_encode(t, text->data, text->len, o->add_bos, o->special, &ids, NULL)) return;
        best_us = MIN(best_us, clock_us() - start);
        n_ids = ids.n;
        token_vec_free(&ids);
    }
    printf("%zu bytes, %zu tokens, %.2f ms, %.1f MB/s\n", text->len, n_ids, (double)best_us / 1e3,
           (double)text->len / (double)best_us);
}

static void run_file(const tokenizer *t, const char *path, const options *o) {
    buffer text = read_file(path);
    if (o->repeat > 0) {
        time_file(t, &text, o);
    } else if (!o->split_at_nul) {
        print_ids(t, text.data, text.len, o);
    } else {
        for (size_t at = 0; at < text.len;) {
            size_t n = strnlen(text.data + at, text.len - at);
            print_ids(t, text.data + at, n, o);
            at += n + 1;
        }
    }
    buffer_free(&text);
}

static tokenizer *load(const char *path, bool timed) {
    logitd_error err = {0};
    gguf_file *file = NULL;
    tokenizer *t = NULL;
    int64_t start = clock_us();
    if (gguf_open(path, &file, &err) || tokenizer_create(file, &t, &err)) fprintf(stderr, "%s\n", err.message);
    if (timed && t) printf("%s: loaded in %.1f ms\n", tokenizer_name(t), (double)(clock_us() - start) / 1e3);
    gguf_close(file); // the tokenizer keeps nothing of it
    return t;
}

int main(int argc, char **argv) {
    options o = {0};
    int i = 2;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "-b") == 0) o.add_bos = true;
        if (strcmp(argv[i], "-s") == 0) o.special = true;
        if (strcmp(argv[i], "-o") == 0) o.offsets = true;
        if (strcmp(argv[i], "-n") == 0) o.split_at_nul = true;
        if (strcmp(argv[i], "-r") == 0 && i + 1 < argc) o.repeat = atoi(argv[++i]); // NOLINT(cert-err34-c): a test tool
    }
    tokenizer *t = argc > 1 ? load(argv[1], o.repeat > 0) : NULL;
    if (!t) return 2;
    for (; i < argc; i++) run_file(t, argv[i], &o);
    tokenizer_free(t);
    return 0;
}
