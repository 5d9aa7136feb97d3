/*
 * tok_bpe.c: byte-level BPE (`gpt2`: GPT-2, SmolLM2, Llama 3, Qwen, …). A word, a match of the pre-split pattern,
 * starts as single bytes; of all neighbours that the list of merges names, those that stand first in it are merged
 * first.
 *
 * Token texts spell a byte as a printable character (GPT-2's table: a space is Ġ). Here tokens are kept as bytes. A
 * byte that has no token (in SmolLM2 six control characters and the lead bytes of planes 4 to 11) is left out, as in
 * llama.cpp and in the models' own tokenizers.
 */
#include "limits.h"
#include "tok_impl.h"

#include <stdlib.h>

typedef struct merge_slot {
    uint64_t key; // left id << 32 | right id; NO_KEY: empty
    uint32_t rank;
    int32_t merged_id;
} merge_slot;

#define NO_KEY UINT64_MAX

struct bpe_state {
    merge_slot *merges; // open addressing, a power of two of slots, at most half of them taken
    size_t merge_mask;
    pre_split *split;
    bool ignore_merges; // a word that is a token is that token
};

/// The byte that a character of GPT-2's table stands for, or -1. Printable Latin-1 stands for itself; the other 68
/// bytes, in order, are the characters from U+0100 on.
static int byte_of_char(unsigned c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c >= 0x100 && c <= 0x120) return (int)c - 0x100;
    if (c >= 0x121 && c <= 0x142) return (int)c - 0x121 + 0x7F;
    return c == 0x143 ? 0xAD : -1;
}

static size_t bpe_decode(gguf_str text, uint8_t *out) {
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n_out = 0;
    for (size_t i = 0; i < text.len;) {
        int len = utf8_char_len(p + i, text.len - i);
        int byte = -1;
        if (len == 1) byte = byte_of_char(p[i]);
        if (len == 2) byte = byte_of_char((p[i] & 0x1Fu) << 6 | (p[i + 1] & 0x3Fu));
        if (byte < 0) return SIZE_MAX;
        out[n_out++] = (uint8_t)byte;
        i += (size_t)len;
    }
    return n_out;
}

// ---------------------------------------------------------------------------------------------------------- merges

static merge_slot *find_merge(const struct bpe_state *bpe, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) ^ (size_t)left;
    for (i &= bpe->merge_mask;; i = (i + 1) & bpe->merge_mask) {
        if (bpe->merges[i].key == key || bpe->merges[i].key == NO_KEY) return &bpe->merges[i];
    }
}

/// Parses "left right" into *bytes, `left` first; false when it is not two texts of tokens.
static bool merge_parts(gguf_str text, uint8_t *bytes, size_t *n_left, size_t *n_right) {
    const char *space = text.len > 1 ? memchr(text.data + 1, ' ', text.len - 1) : NULL;
    if (!space) return false;
    gguf_str left = {text.data, (size_t)(space - text.data)};
    gguf_str right = {space + 1, text.len - left.len - 1};
    *n_left = bpe_decode(left, bytes);
    if (*n_left == SIZE_MAX || right.len == 0) return false;
    *n_right = bpe_decode(right, bytes + *n_left);
    return *n_right != SIZE_MAX;
}

static logitd_status add_merge(tokenizer *t, gguf_str text, uint32_t rank, uint8_t *bytes, logitd_error *err) {
    size_t n_left, n_right;
    if (!merge_parts(text, bytes, &n_left, &n_right)) {
        return error_set(err, LOGITD_EFORMAT, "tokenizer.ggml.merges[%u] is \"%s\", not two tokens and a space between",
                         rank, gguf_show(text).text);
    }
    int32_t left = tok_find(t, bytes, n_left), right = tok_find(t, bytes + n_left, n_right);
    int32_t merged = tok_find(t, bytes, n_left + n_right);
    if (left < 0 || right < 0 || merged < 0) {
        return error_set(err, LOGITD_EFORMAT,
                         "tokenizer.ggml.merges[%u], \"%s\", names a token that is not in the "
                         "vocabulary",
                         rank, gguf_show(text).text);
    }
    merge_slot *slot = find_merge(t->bpe, left, right);
    if (slot->key == NO_KEY) { // of two equal merges the first counts
        *slot = (merge_slot){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, merged};
    }
    return LOGITD_OK;
}

static bool merges_create(struct bpe_state *bpe, size_t n) {
    size_t n_slots = 16;
    while (n_slots < 2 * n) n_slots *= 2;
    bpe->merge_mask = n_slots - 1;
    bpe->merges = mem_alloc(n_slots, sizeof *bpe->merges);
    if (!bpe->merges) return false;
    for (size_t i = 0; i < n_slots; i++) bpe->merges[i].key = NO_KEY;
    return true;
}

static logitd_status add_merges(tokenizer *t, const gguf_str *texts, size_t n, logitd_error *err) {
    size_t longest = 0;
    for (size_t i = 0; i < n; i++) longest = MAX(longest, texts[i].len);
    uint8_t *bytes = malloc(longest + 1);
    if (!bytes || !merges_create(t->bpe, n)) {
        free(bytes);
        return tok_no_memory(err);
    }
    logitd_status status = LOGITD_OK;
    for (size_t i = 0; i < n && !status; i++) status = add_merge(t, texts[i], (uint32_t)i, bytes, err);
    free(bytes);
    return status;
}

static logitd_status read_merges(tokenizer *t, const gguf_file *file, logitd_error *err) {
    static const char key[] = "tokenizer.ggml.merges";
    gguf_value_type type;
    uint64_t n;
    if (!gguf_array(file, key, &type, &n) || type != GGUF_STRING) {
        return error_set(err, LOGITD_EFORMAT, "the file has no list of strings %s, which a \"gpt2\" tokenizer needs",
                         key);
    }
    if (n > 4 * (uint64_t)LIMIT_VOCAB) {
        return error_set(err, LOGITD_EFORMAT, "%s has %llu entries; at most %d are allowed", key, (unsigned long long)n,
                         4 * LIMIT_VOCAB);
    }
    gguf_str *texts = mem_alloc((size_t)n, sizeof *texts);
    if (!texts) return tok_no_memory(err);
    const bool read = gguf_array_strings(file, key, texts, n);
    ASSERT(read); // n strings, as gguf_array said
    logitd_status status = add_merges(t, texts, (size_t)n, err);
    mem_free(texts);
    return status;
}

// ------------------------------------------------------------------------------------------------------------ load

static logitd_status bpe_create(tokenizer *t, const gguf_file *file, logitd_error *err) {
    struct bpe_state *bpe = t->bpe = mem_alloc(1, sizeof *t->bpe);
    if (!bpe) return tok_no_memory(err);
    gguf_str name = {"default", 7};
    gguf_string(file, "tokenizer.ggml.pre", &name);
    const pre_row *row = pre_find(name, err);
    if (!row) return LOGITD_EFORMAT;
    snprintf(t->name, sizeof t->name, "bpe (%s)", row->name);
    bpe->ignore_merges = row->flags & PRE_IGNORE_MERGES;
    t->add_bos = row->flags & PRE_ADD_BOS;
    for (int byte = 0; byte < 256; byte++) t->byte_ids[byte] = tok_find(t, &(uint8_t){(uint8_t)byte}, 1);
    logitd_status status = read_merges(t, file, err);
    return status ? status : pre_create(row, &bpe->split, err);
}

static void bpe_destroy(tokenizer *t) {
    if (!t->bpe) return;
    mem_free(t->bpe->merges);
    pre_free(t->bpe->split);
    mem_free(t->bpe);
}

// ---------------------------------------------------------------------------------------------------------- encode

static tok_pair find_pair(const tokenizer *t, const uint8_t *word, const merge_symbol *symbols, uint32_t left,
                          uint32_t right) {
    (void)word;
    const merge_slot *slot = find_merge(t->bpe, symbols[left].id, symbols[right].id);
    return slot->key == NO_KEY ? (tok_pair){TOK_NO_MERGE, -1} : (tok_pair){slot->rank, slot->merged_id};
}

static logitd_status encode_word(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n) {
    int32_t whole = t->bpe->ignore_merges ? tok_find(t, word, n) : -1;
    if (whole >= 0) return tok_push(w, whole);
    logitd_status status = tok_reserve_word(w, n);
    if (status) return status;
    merge_symbol *symbols = w->symbols;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i] = (merge_symbol){.prev = i - 1, .next = i + 1, .id = t->byte_ids[word[i]]};
    }
    tok_merge(t, w, word, n, find_pair);
    for (uint32_t i = 0; i < n && !status; i = symbols[i].next) {
        if (symbols[i].id >= 0) status = tok_push(w, symbols[i].id);
    }
    return status;
}

/// Offsets of the tokens from out->ids[first] on, which cover the text from `at` but for bytes that have no token.
static void set_offsets(const tokenizer *t, tok_work *w, size_t first, uint32_t at) {
    for (size_t i = first; i < w->out->n; i++) {
        token_bytes token = tokenizer_bytes(t, w->out->ids[i]);
        while (!tok_equal(w->text + at, token.data, token.len)) at++;
        w->out->offsets[i] = at;
        at += (uint32_t)token.len;
    }
}

static logitd_status bpe_encode(const tokenizer *t, tok_work *w, uint32_t start, uint32_t end) {
    size_t first = w->out->n;
    logitd_status status = pre_split_words(t->bpe->split, t, w, start, end, encode_word);
    if (!status) set_offsets(t, w, first, start);
    return status;
}

const tok_model tok_bpe_model = {"gpt2", bpe_decode, bpe_create, bpe_destroy, bpe_encode};
