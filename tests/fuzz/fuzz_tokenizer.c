/*
 * fuzz_tokenizer.c: texts through tokenizers, both ways: byte 0 chooses the tokenizer and its options, the rest is the
 * text. Two tiny ones, a byte-level BPE and a SentencePiece one with its space prefix, are built here; --models=A:B
 * adds those of real files. Checked: ids and offsets, that the tokens' bytes are the text, and that ill-formed UTF-8 is
 * refused at the byte where it begins to be ill-formed.
 */
#include "fuzz.h"
#include "tokenizer.h"
#include "unit/gguf_bytes.h"
#include <stdlib.h>

#define MAX_TOKENIZERS 8

typedef struct subject {
    tokenizer *t;
    bool is_spm, space_prefix;
    bool lost[256]; // bytes that a BPE vocabulary has no token for; its texts lose them (tokenizer.h)
} subject;

static subject subjects[MAX_TOKENIZERS];
static int n_subjects;

// ------------------------------------------------------------------------------------------------- tiny tokenizers

static void put_model(buffer *b, uint64_t n_kv, const char *model) {
    put_head(b, 3, 0, n_kv);
    put_key(b, "tokenizer.ggml.model", GGUF_STRING);
    put_str(b, model);
}

/// GPT-2's letter for a byte, as UTF-8.
static void put_byte_letter(buffer *b, int byte) {
    int code = byte, n_before = 0;
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    for (int i = 0; i < byte; i++) n_before += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    if (!plain) code = 256 + n_before;
    const char two[] = {(char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F)), 0}, one[] = {(char)code, 0};
    put_str(b, code < 0x80 ? one : two);
}

static const char *const merges[][2] = {{"a", "b"}, {"ab", "a"},  {"b", "a"},        {"aba", "b"},
                                        {"1", "1"}, {"11", "11"}, {"\xC4\xA0", "a"}, {"\xC3\xA2", "\xC4\xB8"}};

static void make_bpe(buffer *b) {
    put_model(b, 5, "gpt2");
    put_key(b, "tokenizer.ggml.pre", GGUF_STRING);
    put_str(b, "llama-bpe");
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, 256 + ARRAY_LEN(merges) + 2);
    for (int i = 0; i < 256; i++) put_byte_letter(b, i);
    for (size_t i = 0; i < ARRAY_LEN(merges); i++) {
        char joined[32];
        snprintf(joined, sizeof joined, "%s%s", merges[i][0], merges[i][1]);
        put_str(b, joined);
    }
    put_str(b, "<s>");
    put_str(b, "<tool>");
    put_array(b, "tokenizer.ggml.token_type", GGUF_I32, 256 + ARRAY_LEN(merges) + 2);
    for (size_t i = 0; i < 256 + ARRAY_LEN(merges); i++) put(b, TOKEN_NORMAL, 4);
    put(b, TOKEN_CONTROL, 4);
    put(b, TOKEN_USER_DEFINED, 4);
    put_array(b, "tokenizer.ggml.merges", GGUF_STRING, ARRAY_LEN(merges));
    for (size_t i = 0; i < ARRAY_LEN(merges); i++) {
        char pair[32];
        snprintf(pair, sizeof pair, "%s %s", merges[i][0], merges[i][1]);
        put_str(b, pair);
    }
}

static void make_spm(buffer *b) {
    static const char *const pieces[] = {
        "\xE2\x96\x81", "a", "b", "ab", "aba", "\xE2\x96\x81\x61", "ba", "\xC3\xA9", "\xE2\x96\x81\xE2\x96\x81",
        "\xE7\x8C\xAB"};
    const size_t n = 256 + ARRAY_LEN(pieces) + 2;
    put_model(b, 5, "llama");
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        put_str(b, name);
    }
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) put_str(b, pieces[i]);
    put_str(b, "<s>");
    put_str(b, "[T]");
    put_array(b, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n - 2; i++) put(b, i < 256 ? TOKEN_BYTE : TOKEN_NORMAL, 4);
    put(b, TOKEN_CONTROL, 4);
    put(b, TOKEN_USER_DEFINED, 4);
    put_array(b, "tokenizer.ggml.scores", GGUF_F32, n);
    for (size_t i = 0; i < n; i++) put_f32(b, i < 256 ? 0.0f : -(float)(i * 7 % 11));
    put_key(b, "tokenizer.ggml.bos_token_id", GGUF_U32);
    put(b, n - 2, 4);
}

static void add_subject(const gguf_file *file) {
    logitd_error err = {0};
    subject *s = &subjects[n_subjects++];
    if (tokenizer_create(file, &s->t, &err)) fprintf(stderr, "%s\n", err.message);
    ASSERT(s->t);
    s->is_spm = strcmp(tokenizer_name(s->t), "spm") == 0;
    s->space_prefix = s->is_spm;
    memset(s->lost, !s->is_spm, sizeof s->lost);
    for (int id = 0; id < tokenizer_n_vocab(s->t); id++) {
        token_bytes bytes = tokenizer_bytes(s->t, id);
        if (bytes.len == 1) s->lost[bytes.data[0]] = false;
    }
    if (s->is_spm) gguf_bool(file, "tokenizer.ggml.add_space_prefix", &s->space_prefix);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    void (*const make[])(buffer * b) = {make_bpe, make_spm};
    gguf_file *file;
    logitd_error err;
    for (size_t i = 0; i < ARRAY_LEN(make); i++) {
        buffer bytes = {0};
        make[i](&bytes);
        ASSERT(gguf_open_memory(bytes.data, bytes.len, &file, &err) == LOGITD_OK);
        add_subject(file);
        gguf_close(file);
        buffer_free(&bytes);
    }
    for (int i = 1; i < *argc; i++) {
        if (strncmp((*argv)[i], "--models=", strlen("--models=")) != 0) continue;
        char *rest = NULL, *paths = strdup((*argv)[i] + strlen("--models="));
        for (char *p = strtok_r(paths, ":", &rest); p && n_subjects < MAX_TOKENIZERS; p = strtok_r(NULL, ":", &rest)) {
            ASSERT(gguf_open(p, &file, &err) == LOGITD_OK);
            add_subject(file);
            gguf_close(file);
        }
        free(paths);
    }
    return 0;
}

// -------------------------------------------------------------------------------------------------------- properties

/// The text as the tokenizer sees it: for SentencePiece each U+2581 is a space.
static void put_seen(buffer *out, const subject *s, const uint8_t *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const bool block = s->is_spm && n - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0;
        if (s->lost[text[i]]) continue;
        buffer_append(out, block ? " " : (const char *)text + i, 1);
        i += block ? 2 : 0;
    }
}

/// The bytes of token i, without the space that the tokenizer put before its word.
static void put_token(buffer *out, const subject *s, const token_vec *v, size_t i, size_t first) {
    token_bytes bytes = tokenizer_bytes(s->t, v->ids[i]);
    const token_kind before = i > first ? tokenizer_kind(s->t, v->ids[i - 1]) : TOKEN_CONTROL;
    const bool is_text =
        tokenizer_kind(s->t, v->ids[i]) == TOKEN_NORMAL || tokenizer_kind(s->t, v->ids[i]) == TOKEN_BYTE;
    const bool prefixed = s->space_prefix && is_text && before != TOKEN_NORMAL && before != TOKEN_BYTE;
    if (prefixed) ASSERT(bytes.len && bytes.data[0] == ' ');
    buffer_append(out, bytes.data + prefixed, bytes.len - prefixed);
}

static void check_round_trip(const subject *s, const uint8_t *text, size_t n, const token_vec *v, size_t first) {
    buffer wanted = {0}, got = {0};
    for (size_t i = first; i < v->n; i++) {
        const size_t at = v->offsets[i], end = i + 1 < v->n ? v->offsets[i + 1] : n;
        ASSERT(i == first || at >= v->offsets[i - 1]);
        ASSERT(at <= end && end <= n);
        got.len = wanted.len = 0;
        put_token(&got, s, v, i, first);
        put_seen(&wanted, s, text + at, end - at);
        ASSERT(got.len == wanted.len && (!got.len || memcmp(got.data, wanted.data, got.len) == 0));
    }
    got.len = wanted.len = 0;
    put_seen(&wanted, s, text, v->n > first ? v->offsets[first] : n); // what comes before the first token is lost
    ASSERT(wanted.len == 0);
    buffer_free(&wanted);
    buffer_free(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    cursor c = cursor_make(data, MIN(n, (size_t)4096));
    const uint8_t choice = cursor_u8(&c);
    const size_t n_text = (size_t)(c.end - c.p), valid = utf8_first_invalid(c.p, n_text);
    const subject *s = &subjects[(choice >> 2) % n_subjects];
    const bool add_bos = (choice & 1) && tokenizer_bos_id(s->t) >= 0, special = choice & 2;
    logitd_error err = {0};
    token_vec v = {0}, again = {0};
    logitd_status status = tokenizer_encode(s->t, (const char *)c.p, n_text, add_bos, special, &v, &err);
    if (valid < n_text) {
        char at[32];
        snprintf(at, sizeof at, "byte %zu", valid);
        fuzz_check_error(status, &err);
        ASSERT(status == LOGITD_EINVAL && strstr(err.message, at) && v.n == 0);
        return 0;
    }
    ASSERT(!status);
    for (size_t i = 0; i < v.n; i++) ASSERT(v.ids[i] >= 0 && v.ids[i] < tokenizer_n_vocab(s->t));
    if (add_bos) ASSERT(v.n && v.ids[0] == tokenizer_bos_id(s->t) && v.offsets[0] == UINT32_MAX);
    check_round_trip(s, c.p, n_text, &v, add_bos);
    ASSERT(!tokenizer_encode(s->t, (const char *)c.p, n_text, add_bos, special, &again, &err));
    ASSERT(again.n == v.n && (!v.n || memcmp(again.ids, v.ids, v.n * sizeof *v.ids) == 0));
    token_vec_free(&v);
    token_vec_free(&again);
    return 0;
}
