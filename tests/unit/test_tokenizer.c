/*
 * tokenizer.c and its models on small vocabularies built in memory: merge order, fallbacks, special tokens, offsets;
 * what a file may not claim; that long words take no quadratic time. (Ids of real vocabularies: test_tokenizer.py.)
 */
#include "gguf_bytes.h"
#include "limits.h"
#include "tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// --------------------------------------------------------------------------------------------- building a file

#define MAX_TOKENS 400

/// A tokenizer as a file says it; zero values are left out of the file.
typedef struct vocab {
    const char *model, *pre;
    const char *tokens[MAX_TOKENS];
    int types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    int n_tokens, n_types, n_scores; // n_types, n_scores: 0 leaves the array out
    const char *merges[MAX_TOKENS];
    int n_merges;
    int bos_id;                // -1: left out
    int space_prefix, add_bos; // -1: left out
} vocab;

static void put_strings(buffer *b, const char *key, const char *const *texts, int n) {
    put_array(b, key, GGUF_STRING, (uint64_t)n);
    for (int i = 0; i < n; i++) put_str(b, texts[i]);
}

static buffer make_file(const vocab *v) {
    buffer kv = {0}, file = {0};
    uint64_t n = 0;
    if (v->model) n++, put_key(&kv, "tokenizer.ggml.model", GGUF_STRING), put_str(&kv, v->model);
    if (v->pre) n++, put_key(&kv, "tokenizer.ggml.pre", GGUF_STRING), put_str(&kv, v->pre);
    if (v->n_tokens) n++, put_strings(&kv, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
    if (v->n_merges) n++, put_strings(&kv, "tokenizer.ggml.merges", v->merges, v->n_merges);
    if (v->n_types) n++, put_array(&kv, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)v->n_types);
    for (int i = 0; i < v->n_types; i++) put(&kv, (uint64_t)v->types[i], 4);
    if (v->n_scores) n++, put_array(&kv, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)v->n_scores);
    for (int i = 0; i < v->n_scores; i++) put_f32(&kv, v->scores[i]);
    if (v->bos_id != -1) n++, put_key(&kv, "tokenizer.ggml.bos_token_id", GGUF_U32), put(&kv, (uint64_t)v->bos_id, 4);
    if (v->space_prefix >= 0) {
        n++, put_key(&kv, "tokenizer.ggml.add_space_prefix", GGUF_BOOL), put(&kv, (uint64_t)v->space_prefix, 1);
    }
    if (v->add_bos >= 0)
        n++, put_key(&kv, "tokenizer.ggml.add_bos_token", GGUF_BOOL), put(&kv, (uint64_t)v->add_bos, 1);
    put_head(&file, 3, 0, n);
    buffer_append(&file, kv.data, kv.len);
    buffer_free(&kv);
    return file;
}

static tokenizer *load(const vocab *v, logitd_error *err) {
    buffer bytes = make_file(v);
    gguf_file *file = NULL;
    tokenizer *t = NULL;
    assert_int_equal(gguf_open_memory(bytes.data, bytes.len, &file, err), LOGITD_OK);
    logitd_status status = tokenizer_create(file, &t, err);
    assert_true((status == LOGITD_OK) == (t != NULL));
    gguf_close(file);
    buffer_free(&bytes); // the tokenizer must hold nothing of the file
    return t;
}

static tokenizer *must_load(const vocab *v) {
    logitd_error err = {0};
    tokenizer *t = load(v, &err);
    if (!t) fail_msg("%s", err.message);
    return t;
}

static void refuse(const vocab *v, const char *part) {
    logitd_error err = {0};
    assert_null(load(v, &err));
    assert_int_equal(err.status, LOGITD_EFORMAT);
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
}

static void add(vocab *v, const char *text, int type, float score) {
    assert_true(v->n_tokens < MAX_TOKENS);
    v->tokens[v->n_tokens] = text;
    v->types[v->n_tokens] = type;
    v->scores[v->n_tokens++] = score;
    if (v->n_types) v->n_types++;
    if (v->n_scores) v->n_scores++;
}

/// Checks tokens as text|text|… and that each stands at its offset.
static void expect_flags(const tokenizer *t, const char *text, size_t n, bool special, const char *want) {
    token_vec v = {0};
    logitd_error err = {0};
    if (tokenizer_encode(t, text, n, false, special, &v, &err)) fail_msg("%s", err.message);
    buffer got = {0};
    for (size_t i = 0; i < v.n; i++) {
        token_bytes token = tokenizer_bytes(t, v.ids[i]);
        if (i) buffer_puts(&got, "|");
        if (tokenizer_kind(t, v.ids[i]) == TOKEN_BYTE) {
            buffer_printf(&got, "%02X", token.data[0]);
        } else {
            buffer_append(&got, token.data, token.len);
        }
        assert_true(v.offsets[i] < n || n == 0);
    }
    assert_string_equal(got.data ? got.data : "", want);
    buffer_free(&got);
    token_vec_free(&v);
}

static void expect(const tokenizer *t, const char *text, const char *want) {
    expect_flags(t, text, strlen(text), false, want);
}

static void expect_offsets(const tokenizer *t, const char *text, bool special, const uint32_t *want, size_t n) {
    token_vec v = {0};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), false, special, &v, NULL), LOGITD_OK);
    assert_int_equal(v.n, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(v.offsets[i], want[i]);
    token_vec_free(&v);
}

// ------------------------------------------------------------------------------------------------ byte-level BPE

static vocab bpe_vocab(const char *pre) {
    vocab v = {.model = "gpt2", .pre = pre, .bos_id = 0, .space_prefix = -1, .add_bos = -1, .n_types = 1};
    v.tokens[0] = "<bos>", v.types[0] = TOKEN_CONTROL, v.n_tokens = 1;
    static const char *const letters[] = {"a", "b", "c", "d", "e", "1", "2", "3", "4",
                                          "Ġ", "Ċ", "Ã", "©", "'", "s", "S", "."};
    static const char *const joined[] = {"ab",  "bc", "abc", "aa", "aaaa", "Ġa", "é",  "12",
                                         "123", "Ġ1", "ĠĠ",  "ĊĊ", "Ã©",   ".Ċ", "'s", "'S"};
    for (size_t i = 0; i < ARRAY_LEN(letters); i++) add(&v, letters[i], TOKEN_NORMAL, 0);
    for (size_t i = 0; i < ARRAY_LEN(joined); i++) add(&v, joined[i], TOKEN_NORMAL, 0);
    static const char *const merges[] = {"b c", "a b", "a bc", "Ġ a", "a a", "aa aa", "1 2", "12 3",
                                         "Ġ 1", "Ġ Ġ", "Ċ Ċ",  "Ã ©", ". Ċ", "' s",   "' S"};
    memcpy(v.merges, merges, sizeof merges);
    v.n_merges = (int)ARRAY_LEN(merges);
    return v;
}

static void test_bpe_merges_by_rank(void **state) {
    (void)state;
    vocab v = bpe_vocab("gpt-2");
    tokenizer *t = must_load(&v);
    assert_string_equal(tokenizer_name(t), "bpe (gpt-2)");
    expect(t, "abc", "abc"); // b c first, though a b stands to the left
    expect(t, "abab", "ab|ab");
    expect(t, "aaaaaaa", "aaaa|aa|a"); // leftmost first
    expect(t, " abc", " |abc");        // a bc stands before Ġ a
    expect(t,
           "a\xC3\xA9"
           "d",
           "a|\xC3\xA9|d");
    expect(t, "", "");
    expect_offsets(t,
                   "a\xC3\xA9"
                   "d  12",
                   false, (uint32_t[]){0, 1, 3, 4, 5, 6}, 6);
    tokenizer_free(t);
}

static void test_bpe_patterns(void **state) {
    (void)state;
    const struct {
        const char *pre, *text, *want;
    } cases[] = {
        {"gpt-2", "a123", "a|123"},    {"gpt-2", "a 13", "a| 1|3"},      {"gpt-2", "a's'S", "a|'s|'|S"},
        {"smollm", "a123", "a|1|2|3"}, {"smollm", "a 13", "a| |1|3"},    {"smollm", "a  1", "a|  |1"},
        {"gpt-2", "a  1", "a| | 1"},   {"llama-bpe", "1234", "123|4"},   {"qwen2", "1234", "1|2|3|4"},
        {"llama-bpe", "a'S", "a|'S"},  {"llama-bpe", ".\na", ".\n|a"},   {"gpt-2", ".\na", ".|\n|a"},
        {"llama-bpe", " ae", " a|e"},  {"gpt-2", "\n\na", "\n|\n|a"},    {"llama-bpe", "\n\na", "\n\n|a"},
        {"tekken", "abS", "ab|S"},     {"deepseek-v3", "1234", "123|4"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        vocab v = bpe_vocab(cases[i].pre);
        tokenizer *t = must_load(&v);
        expect(t, cases[i].text, cases[i].want);
        tokenizer_free(t);
    }
}

static void test_bpe_ignore_merges(void **state) {
    (void)state;
    const struct {
        const char *pre, *want;
    } cases[] = {{"llama-bpe", "abcde"}, {"dbrx", "abc|d|e"}}; // the same pattern
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        vocab v = bpe_vocab(cases[i].pre);
        add(&v, "abcde", TOKEN_NORMAL, 0);
        tokenizer *t = must_load(&v);
        expect(t, "abcde", cases[i].want);
        assert_int_equal(tokenizer_add_bos(t), i == 0);
        tokenizer_free(t);
    }
}

static void test_bpe_bytes_without_token(void **state) {
    (void)state;
    vocab v = bpe_vocab("gpt-2");
    tokenizer *t = must_load(&v);
    expect(t,
           "a\x04"
           "bc",
           "a|bc");
    expect_offsets(t,
                   "\x04"
                   "a\x04"
                   "bc\x04",
                   false, (uint32_t[]){1, 3}, 2);
    expect(t, "zzz", "");
    tokenizer_free(t);
}

static void test_every_pattern_named_loads(void **state) {
    (void)state;
    vocab v = bpe_vocab("no-such");
    logitd_error err = {0};
    assert_null(load(&v, &err));
    char *names = strstr(err.message, "supported: ");
    assert_non_null(names);
    int n = 0;
    for (char *save, *name = strtok_r(names + 11, ", ", &save); name; name = strtok_r(NULL, ", ", &save), n++) {
        v.pre = name;
        tokenizer *t = must_load(&v);
        expect(t, "bc", "bc");
        tokenizer_free(t);
    }
    assert_int_equal(n, 42); // so none was cut off
    v.pre = NULL;
    tokenizer *t = must_load(&v);
    assert_string_equal(tokenizer_name(t), "bpe (default)");
    tokenizer_free(t);
}

// ------------------------------------------------------------------------------------------- SentencePiece-style

static char byte_names[256][8];

static vocab spm_vocab(void) {
    vocab v = {.model = "llama", .bos_id = 1, .space_prefix = 0, .add_bos = -1};
    static const char *const specials[] = {"<unk>", "<s>"};
    v.n_types = v.n_scores = 0;
    add(&v, specials[0], TOKEN_UNKNOWN, 0);
    v.n_types = v.n_scores = 1;
    add(&v, specials[1], TOKEN_CONTROL, 0);
    for (int i = 0; i < 256; i++) {
        snprintf(byte_names[i], sizeof byte_names[i], "<0x%02X>", (unsigned)i);
        add(&v, byte_names[i], TOKEN_BYTE, 0);
    }
    static const struct {
        const char *text;
        float score;
    } pieces[] = {{"a", -9},   {"b", -9},  {"c", -9},   {"d", -9},  {"▁", -9},   {"ab", -2},   {"bc", -1}, {"cd", -3},
                  {"abc", -4}, {"▁a", -5}, {"▁ab", -6}, {"aa", -7}, {"aaa", -8}, {"aaaa", -7}, {"é", -9},  {"▁▁", -3}};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) add(&v, pieces[i].text, TOKEN_NORMAL, pieces[i].score);
    return v;
}

static void test_spm_merges_by_score(void **state) {
    (void)state;
    vocab v = spm_vocab();
    tokenizer *t = must_load(&v);
    assert_string_equal(tokenizer_name(t), "spm");
    assert_true(tokenizer_add_bos(t));
    expect(t, "abcd", "abc|d"); // bc, then abc; cd cannot be any more
    expect(t, "ab cd", "ab| |cd");
    expect(t, " ab", " ab");
    expect(t, "aaaaa", "aaaa|a"); // equal scores: leftmost
    expect(t, "  ", "  ");
    expect(t, "a\xC3\xA9z\xE2\x82\xAC", "a|\xC3\xA9|7A|E2|82|AC");
    expect_offsets(t, "a\xC3\xA9z\xE2\x82\xAC", false, (uint32_t[]){0, 1, 3, 4, 5, 6}, 6);
    tokenizer_free(t);
}

static void test_spm_spaces(void **state) {
    (void)state;
    vocab v = spm_vocab();
    add(&v, "<t>", TOKEN_USER_DEFINED, 0);
    tokenizer *t = must_load(&v);
    expect(t,
           "b\xE2\x96\x81"
           "ab",
           "b| ab"); // ▁ in the text is a space
    expect_offsets(t,
                   "b\xE2\x96\x81"
                   "ab\xE2\x96\x81"
                   "cd",
                   false, (uint32_t[]){0, 1, 6, 9}, 4);
    tokenizer_free(t);

    v.space_prefix = -1; // the default
    t = must_load(&v);
    expect(t, "ab", " ab");
    expect(t, "", "");
    expect(t, "ab<t>ab<t><t> b", " ab|<t>| ab|<t>|<t>|  |b");
    expect_offsets(t,
                   "ab<t>ab<t>\xE2\x96\x81"
                   "b",
                   false, (uint32_t[]){0, 2, 5, 7, 10, 13}, 6);
    expect_offsets(t, "cd", false, (uint32_t[]){0, 0}, 2); // the space in front is at the text's start, too
    tokenizer_free(t);
}

static void test_spm_bytes(void **state) {
    (void)state;
    vocab v = spm_vocab();
    tokenizer *t = must_load(&v);
    for (int i = 0; i < 256; i++) {
        token_bytes token = tokenizer_bytes(t, 2 + i);
        assert_int_equal(token.len, 1);
        assert_int_equal(token.data[0], i);
    }
    assert_memory_equal(tokenizer_bytes(t, 1).data, "<s>", 3);
    assert_memory_equal(tokenizer_bytes(t, 258 + 9).data, " a", 2);
    expect(t, "<0x41>", "3C|30|78|34|31|3E"); // text that looks like a byte token is no byte token
    tokenizer_free(t);

    v.types[2 + 'z'] = TOKEN_NORMAL;
    t = must_load(&v);
    logitd_error err = {0};
    token_vec out = {0};
    assert_int_equal(tokenizer_encode(t, "az", 2, false, false, &out, &err), LOGITD_EINVAL);
    assert_string_equal(err.message, "the model's vocabulary has no token for the byte 0x7A");
    assert_int_equal(out.n, 0);
    token_vec_free(&out);
    tokenizer_free(t);
}

// ------------------------------------------------------------------------------------------------ special tokens

static void test_special_tokens(void **state) {
    (void)state;
    vocab v = spm_vocab();
    add(&v, "<ab>", TOKEN_USER_DEFINED, 0);
    add(&v, "cabd", TOKEN_USER_DEFINED, 0);
    add(&v, "bdabc", TOKEN_USER_DEFINED, 0);
    add(&v, "ca", TOKEN_USER_DEFINED, 0);
    add(&v, "  ", TOKEN_USER_DEFINED, 0);
    add(&v, "   ", TOKEN_USER_DEFINED, 0);
    add(&v, "<ctl>", TOKEN_CONTROL, 0);
    add(&v, "</s>", TOKEN_USER_DEFINED, 0);
    tokenizer *t = must_load(&v);
    expect(t, "a<ab>b", "a|<ab>|b");
    expect(t, "cabd", "cabd");
    expect(t, "bdabc", "bdabc");
    expect(t, "cabdabc", "ca|bdabc");        // the longer one wins, then what is left of the shorter
    expect(t, "a       b", "a|   |   | |b"); // runs of spaces from the left
    expect(t, "<ctl><s>", "3C|c|74|6C|3E|3C|73|3E");
    expect_flags(t, "<ctl><s><unk>", 13, true, "<ctl>|<s>|<unk>");
    expect(t, "</s>", "3C|2F|73|3E"); // a control token by its name
    expect_flags(t, "a</s>", 5, true, "a|</s>");
    expect_offsets(t, "a<ab>\xC3\xA9<s>", true, (uint32_t[]){0, 1, 5, 7}, 4);
    assert_int_equal(tokenizer_longest(t), 5);
    tokenizer_free(t);
}

static void test_nul_and_bad_utf8(void **state) {
    (void)state;
    vocab v = spm_vocab();
    tokenizer *t = must_load(&v);
    expect_flags(t, "a\0b", 3, false, "a|00|b");
    logitd_error err = {0};
    token_vec out = {0};
    assert_int_equal(tokenizer_encode(t, "ab\xC3\xA9\xE2\x28\xA1", 7, false, false, &out, &err), LOGITD_EINVAL);
    assert_string_equal(err.message, "the text is not valid UTF-8 at byte 4 (0xE2)");
    tokenizer_free(t);
}

static void test_bos_and_append(void **state) {
    (void)state;
    vocab v = spm_vocab();
    tokenizer *t = must_load(&v);
    token_vec out = {0};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(tokenizer_encode(t, "bc", 2, true, false, &out, NULL), LOGITD_OK);
    }
    assert_int_equal(out.n, 4);
    assert_int_equal(out.ids[2], 1);
    assert_int_equal(out.offsets[2], UINT32_MAX);
    assert_int_equal(out.ids[3], out.ids[1]);
    assert_int_equal(tokenizer_encode(t, "\xFF", 1, true, false, &out, NULL), LOGITD_EINVAL);
    assert_int_equal(out.n, 4);
    tokenizer_free(t);

    v.bos_id = -1;
    t = must_load(&v);
    logitd_error err = {0};
    assert_int_equal(tokenizer_bos_id(t), -1);
    assert_false(tokenizer_add_bos(t));
    assert_int_equal(tokenizer_encode(t, "a", 1, true, false, &out, &err), LOGITD_EINVAL);
    assert_non_null(strstr(err.message, "no BOS token"));
    token_vec_free(&out);
    tokenizer_free(t);
}

// ------------------------------------------------------------------------------------------------------ hardship

/// Texts of 1 MB that cost quadratic time, a deep stack or a match limit where an implementation is careless.
static void test_long_words(void **state) {
    (void)state;
    static const char *const repeated[] = {"a", "ab", " ", "\n", "1", "aS", "\xC3\xA9", " \n", ".", "a1 "};
    static const char *const pres[] = {"smollm", "llama-bpe", "tekken", "deepseek-v3", NULL};
    size_t n = 1 << 20;
    char *text = malloc(n);
    const clock_t start = clock(); // CPU time: the machine may be busy
    for (size_t ipre = 0; ipre < ARRAY_LEN(pres); ipre++) {
        vocab v = pres[ipre] ? bpe_vocab(pres[ipre]) : spm_vocab();
        add(&v, "  ", TOKEN_USER_DEFINED, 0);
        tokenizer *t = must_load(&v);
        for (size_t i = 0; i < ARRAY_LEN(repeated); i++) {
            size_t period = strlen(repeated[i]), n_text = n / period * period;
            for (size_t k = 0; k < n_text; k++) text[k] = repeated[i][k % period];
            token_vec out = {0};
            assert_int_equal(tokenizer_encode(t, text, n_text, false, false, &out, NULL), LOGITD_OK);
            size_t total = 0;
            for (size_t k = 0; k < out.n; k++) total += tokenizer_bytes(t, out.ids[k]).len;
            assert_int_equal(total, n_text);
            token_vec_free(&out);
        }
        tokenizer_free(t);
    }
    free(text);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 120); // seconds, where quadratic would be days
}

// -------------------------------------------------------------------------------------------------- false claims

static void test_refused(void **state) {
    (void)state;
    vocab good = bpe_vocab("gpt-2"), v;
#define REFUSE(base, change, part)                                                                                     \
    do {                                                                                                               \
        v = base;                                                                                                      \
        change;                                                                                                        \
        refuse(&v, part);                                                                                              \
    } while (0)
    REFUSE(good, v.model = NULL, "no tokenizer");
    REFUSE(good, v.model = "bert\n", "\"bert?\"; supported: gpt2 (byte-level BPE), llama (SentencePiece-style)");
    REFUSE(good, v.pre = "no-such", "tokenizer.ggml.pre is \"no-such\"; supported: default, gpt-2");
    REFUSE(good, v.n_tokens = v.n_types = 0, "tokenizer.ggml.tokens");
    REFUSE(good, v.n_types--, "entries, but there are");
    REFUSE(good, v.types[3] = 7, "tokenizer.ggml.token_type[3]");
    REFUSE(good, v.types[3] = 0, "tokenizer.ggml.token_type[3]");
    REFUSE(good, v.tokens[5] = "a", "\"a\" twice, the second time at 5");
    REFUSE(good, add(&v, "<bos>", TOKEN_USER_DEFINED, 0), "\"<bos>\" twice");
    REFUSE(good, v.n_merges = 0, "tokenizer.ggml.merges");
    REFUSE(good, v.merges[2] = "ab", "merges[2] is \"ab\", not two tokens");
    REFUSE(good, v.merges[2] = "a ", "merges[2] is \"a \", not two tokens");
    REFUSE(good, v.merges[2] = "a 中", "not two tokens");
    REFUSE(good, v.merges[2] = "a x", "merges[2], \"a x\", names a token that is not");
    REFUSE(good, v.merges[2] = "c b", "names a token that is not");
    REFUSE(good, v.bos_id = v.n_tokens, "tokenizer.ggml.bos_token_id is");

    vocab spm = spm_vocab();
    REFUSE(spm, v.n_scores = 0, "tokenizer.ggml.scores");
    REFUSE(spm, v.n_scores--, "tokenizer.ggml.scores has");
    REFUSE(spm, v.scores[9] = NAN, "no number for token 9");
    REFUSE(spm, v.tokens[9] = "<0xfg>", "tokenizer.ggml.tokens[9] is \"<0xfg>\", but a byte token");
    REFUSE(spm, v.tokens[9] = "<0x10>", "\"<0x10>\" twice");
    REFUSE(spm, v.tokens[1] = "<unk>", "\"<unk>\" twice");
}

static void test_empty_token(void **state) {
    (void)state;
    vocab v = bpe_vocab("gpt-2");
    add(&v, "", TOKEN_NORMAL, 0);
    add(&v, "", TOKEN_CONTROL, 0);
    add(&v, "é has chars outside the table: 中", TOKEN_NORMAL, 0);
    tokenizer *t = must_load(&v);
    assert_int_equal(tokenizer_bytes(t, v.n_tokens - 2).len, 0);
    assert_int_equal(tokenizer_bytes(t, v.n_tokens - 1).len, strlen("é has chars outside the table: 中"));
    expect_flags(t, "abc", 3, true, "abc");
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_merges_by_rank),
        cmocka_unit_test(test_bpe_patterns),
        cmocka_unit_test(test_bpe_ignore_merges),
        cmocka_unit_test(test_bpe_bytes_without_token),
        cmocka_unit_test(test_every_pattern_named_loads),
        cmocka_unit_test(test_spm_merges_by_score),
        cmocka_unit_test(test_spm_spaces),
        cmocka_unit_test(test_spm_bytes),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_nul_and_bad_utf8),
        cmocka_unit_test(test_bos_and_append),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_empty_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
