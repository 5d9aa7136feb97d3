/*
 * tok_spm.c: SentencePiece-style tokenizers (`llama`: Llama 1 and 2, Mistral, Gemma). The text's characters are merged
 * pairwise: of all neighbours whose joined text is a token, those with the highest score first, then the leftmost.
 * A character that is no token falls back to its bytes, <0xXX>.
 *
 * Token texts write the space as U+2581 (▁). Here it is a space everywhere: tokens are kept with spaces and the text is
 * copied with each ▁ made a space. Models with add_space_prefix see one more space before a text and after each
 * special token; that space is in the tokens' bytes but not in the text.
 */
#include "tok_impl.h"

#include <math.h>
#include <stdlib.h>

struct spm_state {
    uint32_t *ranks; // [n_vocab] of being merged: scores, highest first, as integers in order
    bool space_prefix;
};

static const char lower_block[] = "\xE2\x96\x81"; // ▁

static bool is_lower_block(const uint8_t *p, size_t n) {
    return n >= 3 && memcmp(p, lower_block, 3) == 0;
}

static size_t spm_decode(gguf_str text, uint8_t *out) {
    const uint8_t *p = (const uint8_t *)text.data;
    size_t n_out = 0;
    for (size_t i = 0; i < text.len;) {
        if (p[i] == ' ') return SIZE_MAX; // texts have no space once they are normalized
        bool block = is_lower_block(p + i, text.len - i);
        out[n_out++] = block ? ' ' : p[i];
        i += block ? 3 : 1;
    }
    return n_out;
}

// ------------------------------------------------------------------------------------------------------------ load

/// A higher score gives a lower rank; equal scores (0 and -0 too) the same.
static uint32_t rank_of_score(float score) {
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : 0x7FFFFFFF - bits;
}

static logitd_status read_scores(tokenizer *t, const gguf_file *file, logitd_error *err) {
    static const char key[] = "tokenizer.ggml.scores";
    gguf_value_type type;
    uint64_t n;
    if (!gguf_array(file, key, &type, &n)) {
        return error_set(err, LOGITD_EFORMAT, "the file has no %s, which a \"llama\" tokenizer needs", key);
    }
    if (n != (uint64_t)t->n_vocab) {
        return error_set(err, LOGITD_EFORMAT, "%s has %llu entries, but there are %d tokens", key,
                         (unsigned long long)n, t->n_vocab);
    }
    const int kv = gguf_find(file, key);
    for (int i = 0; i < t->n_vocab; i++) {
        double score;
        if (!gguf_array_float(file, kv, (uint64_t)i, &score) || isnan(score)) {
            return error_set(err, LOGITD_EFORMAT, "%s holds no number for token %d", key, i);
        }
        t->spm->ranks[i] = rank_of_score((float)score);
    }
    return LOGITD_OK;
}

static logitd_status spm_create(tokenizer *t, const gguf_file *file, logitd_error *err) {
    snprintf(t->name, sizeof t->name, "spm");
    t->add_bos = true;
    struct spm_state *spm = t->spm = mem_alloc(1, sizeof *t->spm);
    if (!spm || !(spm->ranks = mem_alloc((size_t)t->n_vocab, sizeof *spm->ranks))) return tok_no_memory(err);
    spm->space_prefix = true;
    gguf_bool(file, "tokenizer.ggml.add_space_prefix", &spm->space_prefix);
    return read_scores(t, file, err);
}

static void spm_destroy(tokenizer *t) {
    if (t->spm) mem_free(t->spm->ranks);
    mem_free(t->spm);
}

// ---------------------------------------------------------------------------------------------------------- encode

static tok_pair find_pair(const tokenizer *t, const uint8_t *word, const merge_symbol *symbols, uint32_t left,
                          uint32_t right) {
    int32_t id = tok_find(t, word + left, symbols[right].next - left);
    return id < 0 ? (tok_pair){TOK_NO_MERGE, -1} : (tok_pair){t->spm->ranks[id], id};
}

static logitd_status push_bytes(const tokenizer *t, tok_work *w, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_ids[bytes[i]];
        if (id < 0) {
            return error_set(w->err, LOGITD_EINVAL, "the model's vocabulary has no token for the byte 0x%02X",
                             bytes[i]);
        }
        logitd_status status = tok_push(w, id);
        if (status) return status;
    }
    return LOGITD_OK;
}

static logitd_status encode_word(const tokenizer *t, tok_work *w, const uint8_t *word, uint32_t n) {
    logitd_status status = tok_reserve_word(w, n);
    if (status) return status;
    merge_symbol *symbols = w->symbols;
    for (uint32_t i = 0, prev = 0; i < n;) {
        uint32_t next = i + (uint32_t)utf8_char_len(word + i, n - i);
        symbols[i] = (merge_symbol){.prev = prev, .next = next, .id = -1};
        prev = i;
        i = next;
    }
    tok_merge(t, w, word, n, find_pair);
    for (uint32_t i = 0; i < n && !status; i = symbols[i].next) {
        size_t len = symbols[i].next - i;
        int32_t id = symbols[i].id >= 0 ? symbols[i].id : tok_find(t, word + i, len);
        status = id >= 0 ? tok_push(w, id) : push_bytes(t, w, word + i, len);
    }
    return status;
}

/// Copies text[start, end) to the end of w->normalized, with the prefix and with ▁ made a space.
static const uint8_t *normalize(tok_work *w, uint32_t start, uint32_t end, bool prefix, uint32_t *n_out) {
    if (!w->normalized) w->normalized = malloc((size_t)w->n_bytes + w->n_spans + 1); // every piece may have a prefix
    if (!w->normalized) return NULL;
    uint8_t *out = w->normalized + w->n_normalized, *p = out;
    if (prefix) *p++ = ' ';
    for (uint32_t i = start; i < end; i++) {
        if (w->text[i] == 0xE2 && is_lower_block(w->text + i, end - i)) {
            *p++ = ' ';
            i += 2;
        } else {
            *p++ = w->text[i];
        }
    }
    *n_out = (uint32_t)(p - out);
    w->n_normalized += *n_out;
    return out;
}

/// Offsets of the tokens from out->ids[first] on, whose bytes together are the normalized piece.
static void set_offsets(const tokenizer *t, tok_work *w, size_t first, uint32_t start, bool prefix) {
    uint32_t raw = start;
    for (size_t i = first; i < w->out->n; i++) {
        w->out->offsets[i] = raw;
        for (size_t n = tok_len(t, w->out->ids[i]); n > 0; n--) {
            if (!prefix) raw += is_lower_block(w->text + raw, w->n_bytes - raw) ? 3 : 1;
            prefix = false; // that space is not in the text
        }
    }
}

/// Whether a word may go on from byte a to byte b.
static inline bool is_joined(const tokenizer *t, uint8_t a, uint8_t b) {
    unsigned bit = (unsigned)a << 8 | b;
    return (b & 0xC0) == 0x80 || (t->joined[bit >> 6] >> (bit & 63) & 1);
}

static logitd_status spm_encode(const tokenizer *t, tok_work *w, uint32_t start, uint32_t end) {
    bool prefix = t->spm->space_prefix; // a piece follows the start of the text or a special token
    size_t first = w->out->n;
    uint32_t n, base = (uint32_t)w->n_normalized;
    const uint8_t *piece = normalize(w, start, end, prefix, &n);
    if (!piece) return tok_no_memory(w->err);
    logitd_status status = LOGITD_OK;
    for (uint32_t word = 0, i; word < n && !status; word = i) {
        i = word + 1;
        while (i < n && is_joined(t, piece[i - 1], piece[i])) i++;
        status = tok_encode_word(t, w, w->normalized, base + word, i - word, encode_word);
    }
    if (!status) set_offsets(t, w, first, start, prefix);
    return status;
}

const tok_model tok_spm_model = {"llama", spm_decode, spm_create, spm_destroy, spm_encode};
