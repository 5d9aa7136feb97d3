/*
 * tokenize: token ids of texts, for the Python tests and for timing.
 *
 *   tokenize MODEL.gguf [-b] [-s] FILE…    a line of ids for each text; the texts of a file end at NULs
 *     -b  put BOS first     -s  read control tokens
 *     -c  check that the tokens' bytes, put at their offsets, are the text; prints "text I: …" where they are not
 *     -t COUNT  time: load, then encode the whole of each file COUNT times; prints ms and MB/s of the best, in CPU time
 *
 * What tokenizer_encode refuses gives a line "error: …". Exit status 2: the model did not load.
 */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    bool add_bos, special, check;
    int n_timed;
} options;

static buffer read_file(const char *path) {
    buffer b = {0};
    FILE *f = fopen(path, "rb");
    char chunk[1 << 16];
    for (size_t n; f && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buffer_append(&b, chunk, n);
    if (f) fclose(f);
    return b;
}

static void print_ids(const token_vec *v) {
    for (size_t i = 0; i < v->n; i++) printf(i ? " %d" : "%d", v->ids[i]);
    putchar('\n');
}

/// The first byte of the text that the tokens do not give back, or n.
static size_t first_lost(const tokenizer *t, const char *text, size_t n, const token_vec *v) {
    size_t at = 0;
    for (size_t i = 0; i < v->n; i++) {
        token_bytes token = tokenizer_bytes(t, v->ids[i]);
        if (v->offsets[i] == UINT32_MAX) continue; // BOS
        if (v->offsets[i] != at || at + token.len > n || memcmp(text + at, token.data, token.len) != 0) return at;
        at += token.len;
    }
    return at;
}

static void run_text(const tokenizer *t, const char *text, size_t n, int itext, const options *o) {
    token_vec v = {0};
    logitd_error err;
    if (tokenizer_encode(t, text, n, o->add_bos, o->special, &v, &err)) {
        printf("error: %s\n", err.message);
    } else if (!o->check) {
        print_ids(&v);
    } else if (first_lost(t, text, n, &v) != n) {
        printf("text %d: byte %zu of %zu is lost\n", itext, first_lost(t, text, n, &v), n);
    }
    token_vec_free(&v);
}

static void run_texts(const tokenizer *t, const buffer *texts, const options *o) {
    int itext = 0;
    for (size_t at = 0, n; at < texts->len; at += n + 1) {
        n = strnlen(texts->data + at, texts->len - at);
        run_text(t, texts->data + at, n, itext++, o);
    }
}

/// Of this thread: the machine may be busy with others.
static int64_t cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

static void time_text(const tokenizer *t, const buffer *text, const options *o) {
    int64_t best_us = INT64_MAX;
    size_t n_ids = 0;
    for (int i = 0; i < o->n_timed; i++) {
        token_vec v = {0};
        const int64_t start = cpu_us();
        if (tokenizer_encode(t, text->data, text->len, o->add_bos, o->special, &v, NULL)) return;
        best_us = MIN(best_us, MAX(cpu_us() - start, 1));
        n_ids = v.n;
        token_vec_free(&v);
    }
    printf("%zu bytes, %zu tokens, %.2f ms, %.1f MB/s\n", text->len, n_ids, (double)best_us / 1e3,
           (double)text->len / (double)best_us);
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
        if (strcmp(argv[i], "-c") == 0) o.check = true;
        if (strcmp(argv[i], "-t") == 0 && i + 1 < argc) o.n_timed = (int)strtol(argv[++i], NULL, 10);
    }
    tokenizer *t = argc > 1 ? load(argv[1], o.n_timed > 0) : NULL;
    if (!t) return 2;
    for (; i < argc; i++) {
        buffer text = read_file(argv[i]);
        if (o.n_timed > 0) {
            time_text(t, &text, &o);
        } else {
            run_texts(t, &text, &o);
        }
        buffer_free(&text);
    }
    tokenizer_free(t);
    return 0;
}
