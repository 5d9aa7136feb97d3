/*
 * tokenizer.c: see tokenizer.h. Reads the vocabulary from the file and checks every claim that it makes, cuts a text at
 * its special tokens and hands the pieces to the model (tok_bpe.c, tok_spm.c), whose ids get their offsets here.
 * Copies what it needs: the file may be closed afterwards.
 */
#include "limits.h"
#include "tok_impl.h"

#include <stdlib.h>

static const tok_model *const models[] = {&tok_bpe_model, &tok_spm_model};

/// Tokens that are control tokens by their name, whatever the file says, as in llama.cpp: files are known to be wrong
/// about them. (So `</s>` is no HTML tag to Gemma 3.)
static const char *const control_names[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    // fill in the middle
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

// --------------------------------------------------------------------------------------------------------- helpers

logitd_status tok_no_memory(logitd_error *err) {
    return error_set(err, LOGITD_ENOMEM, "no memory for the tokenizer");
}

bool tok_grow(void **array, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t bytes, new_cap = MAX(need, MAX((size_t)16, *cap * 2));
    if (__builtin_mul_overflow(new_cap, size, &bytes)) return false;
    void *grown = realloc(*array, bytes);
    if (!grown) return false;
    *array = grown;
    *cap = new_cap;
    return true;
}

void token_vec_free(token_vec *v) {
    free(v->ids);
    free(v->offsets);
    *v = (token_vec){0};
}

static bool token_vec_reserve(token_vec *v, size_t need) {
    size_t ids_cap = v->cap, offsets_cap = v->cap;
    if (!tok_grow((void **)&v->ids, &ids_cap, need, sizeof *v->ids)) return false;
    if (!tok_grow((void **)&v->offsets, &offsets_cap, need, sizeof *v->offsets)) return false;
    v->cap = ids_cap;
    return true;
}

logitd_status tok_push(tok_work *w, int32_t id) {
    token_vec *out = w->out;
    if (out->n == out->cap && !token_vec_reserve(out, out->n + 1)) return tok_no_memory(w->err);
    out->ids[out->n++] = id;
    return LOGITD_OK;
}

// ------------------------------------------------------------------------------------------------------ vocabulary

static bool names_control(gguf_str text) {
    if (!text.len || !memchr("<[_\xE2", text.data[0], 4)) return false; // what they begin with
    for (size_t i = 0; i < ARRAY_LEN(control_names); i++) {
        if (gguf_str_is(text, control_names[i])) return true;
    }
    return false;
}

static logitd_status read_kinds(tokenizer *t, const gguf_file *file, const gguf_str *texts, logitd_error *err) {
    static const char key[] = "tokenizer.ggml.token_type";
    gguf_value_type type;
    uint64_t n = 0;
    const int kv = gguf_find(file, key);
    bool present = kv >= 0;
    if (present && (!gguf_array(file, key, &type, &n) || n != (uint64_t)t->n_vocab)) {
        return error_set(err, LOGITD_EFORMAT, "%s has %llu entries, but there are %d tokens", key,
                         (unsigned long long)n, t->n_vocab);
    }
    for (int i = 0; i < t->n_vocab; i++) {
        int64_t kind = TOKEN_NORMAL;
        if (present && (!gguf_array_int(file, kv, (uint64_t)i, &kind) || kind < TOKEN_NORMAL || kind > TOKEN_BYTE)) {
            return error_set(err, LOGITD_EFORMAT, "%s[%d] is no token type; they are the integers 1 to 6", key, i);
        }
        t->kinds[i] = (uint8_t)(names_control(texts[i]) ? TOKEN_CONTROL : kind);
    }
    return LOGITD_OK;
}

/// The byte of "<0x0A>", or -1.
static int byte_of_text(gguf_str text) {
    static const char digits[] = "0123456789ABCDEF";
    if (text.len != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') return -1;
    const char *high = memchr(digits, text.data[3], 16), *low = memchr(digits, text.data[4], 16);
    return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

static logitd_status duplicate(logitd_error *err, gguf_str text, int32_t id) {
    return error_set(err, LOGITD_EFORMAT, "tokenizer.ggml.tokens has \"%s\" twice, the second time at %d",
                     gguf_show(text).text, id);
}

/// Stores the bytes of token `id` at `at` (starts[id] is set) and enters it where texts are looked up.
static logitd_status add_token(tokenizer *t, int32_t id, gguf_str text, logitd_error *err) {
    uint8_t *bytes = t->bytes + t->starts[id];
    int kind = t->kinds[id];
    if (kind == TOKEN_BYTE) {
        int byte = byte_of_text(text);
        if (byte < 0) {
            return error_set(err, LOGITD_EFORMAT,
                             "tokenizer.ggml.tokens[%d] is \"%s\", but a byte token is <0x00> to "
                             "<0xFF>",
                             id, gguf_show(text).text);
        }
        if (t->byte_ids[byte] >= 0) return duplicate(err, text, id);
        t->byte_ids[byte] = id;
        bytes[0] = (uint8_t)byte;
        t->starts[id + 1] = t->starts[id] + 1;
        return LOGITD_OK;
    }
    size_t n = t->model->decode(text, bytes);
    bool normal = kind == TOKEN_NORMAL || kind == TOKEN_UNUSED;
    bool mergeable = n != SIZE_MAX && n > 0 && (normal || (n == text.len && memcmp(bytes, text.data, n) == 0));
    if (n == SIZE_MAX || !normal) {
        n = text.len;
        if (n) memcpy(bytes, text.data, n);
    }
    t->starts[id + 1] = t->starts[id] + (uint32_t)n;
    t->longest = MAX(t->longest, n);
    if (mergeable && tok_table_add(t, id) >= 0) return duplicate(err, text, id);
    if (normal) return LOGITD_OK;
    int added = tok_trie_add(t, id);
    if (added == TRIE_DUPLICATE) return duplicate(err, text, id);
    return added == TRIE_ADDED ? LOGITD_OK : tok_no_memory(err);
}

static logitd_status add_tokens(tokenizer *t, const gguf_file *file, const gguf_str *texts, logitd_error *err) {
    size_t n = (size_t)t->n_vocab, total = 1; // 1: a byte token of an empty text is never written, but malloc(0)
    for (size_t i = 0; i < n; i++) total += texts[i].len;
    if (total > UINT32_MAX) return error_set(err, LOGITD_EFORMAT, "the tokens' texts are longer than 4 GiB together");
    t->bytes = malloc(total);
    t->starts = mem_alloc(n + 1, sizeof *t->starts);
    t->kinds = mem_alloc(n, sizeof *t->kinds);
    if (!t->bytes || !t->starts || !t->kinds || !tok_table_create(t)) return tok_no_memory(err);
    for (int i = 0; i < 256; i++) t->byte_ids[i] = -1;
    t->longest = 1;
    logitd_status status = read_kinds(t, file, texts, err);
    for (int32_t id = 0; id < t->n_vocab && !status; id++) status = add_token(t, id, texts[id], err);
    return status;
}

static logitd_status read_vocabulary(tokenizer *t, const gguf_file *file, logitd_error *err) {
    static const char key[] = "tokenizer.ggml.tokens";
    gguf_value_type type;
    uint64_t n;
    if (!gguf_array(file, key, &type, &n) || type != GGUF_STRING) {
        return error_set(err, LOGITD_EFORMAT, "the file has no list of strings %s", key);
    }
    if (n == 0 || n > LIMIT_VOCAB) {
        return error_set(err, LOGITD_EFORMAT, "%s has %llu entries; 1 to %d are allowed", key, (unsigned long long)n,
                         LIMIT_VOCAB);
    }
    t->n_vocab = (int)n;
    gguf_str *texts = mem_alloc((size_t)n, sizeof *texts);
    if (!texts) return tok_no_memory(err);
    const bool read = gguf_array_strings(file, key, texts, n);
    ASSERT(read); // n strings, as gguf_array said
    logitd_status status = add_tokens(t, file, texts, err);
    mem_free(texts);
    return status;
}

// ------------------------------------------------------------------------------------------------------------ load

static logitd_status find_model(tokenizer *t, const gguf_file *file, logitd_error *err) {
    gguf_str name;
    if (!gguf_string(file, "tokenizer.ggml.model", &name)) {
        return error_set(err, LOGITD_EFORMAT, "the file has no tokenizer (tokenizer.ggml.model)");
    }
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        if (gguf_str_is(name, models[i]->name)) {
            t->model = models[i];
            return LOGITD_OK;
        }
    }
    return error_set(err, LOGITD_EFORMAT,
                     "tokenizer.ggml.model is \"%s\"; supported: gpt2 (byte-level BPE), llama (SentencePiece-style)",
                     gguf_show(name).text);
}

static logitd_status read_id(const tokenizer *t, const gguf_file *file, const char *key, int *out, logitd_error *err) {
    int64_t id;
    if (!gguf_int(file, key, &id)) return LOGITD_OK;
    if (id < 0 || id >= t->n_vocab) {
        return error_set(err, LOGITD_EFORMAT, "%s is %lld; the tokens are 0 to %d", key, (long long)id, t->n_vocab - 1);
    }
    *out = (int)id;
    return LOGITD_OK;
}

static logitd_status load(tokenizer *t, const gguf_file *file, logitd_error *err) {
    t->bos_id = t->eos_id = -1;
    logitd_status status = find_model(t, file, err);
    if (!status) status = read_vocabulary(t, file, err);
    if (!status) status = t->model->create(t, file, err);
    if (!status) status = read_id(t, file, "tokenizer.ggml.bos_token_id", &t->bos_id, err);
    if (!status) status = read_id(t, file, "tokenizer.ggml.eos_token_id", &t->eos_id, err);
    gguf_bool(file, "tokenizer.ggml.add_bos_token", &t->add_bos);
    t->add_bos = t->add_bos && t->bos_id >= 0;
    return status;
}

logitd_status tokenizer_create(const gguf_file *file, tokenizer **out, logitd_error *err) {
    tokenizer *t = *out = mem_alloc(1, sizeof *t);
    if (!t) return tok_no_memory(err);
    logitd_status status = load(t, file, err);
    if (!status) return LOGITD_OK;
    tokenizer_free(t);
    *out = NULL;
    return status;
}

void tokenizer_free(tokenizer *t) {
    if (!t) return;
    if (t->model) t->model->destroy(t);
    free(t->bytes);
    mem_free(t->starts);
    mem_free(t->kinds);
    mem_free(t->slots);
    free(t->special.nodes);
    mem_free(t);
}

token_bytes tokenizer_bytes(const tokenizer *t, int32_t id) {
    ASSERT(id >= 0 && id < t->n_vocab);
    return (token_bytes){t->bytes + t->starts[id], tok_len(t, id)};
}

token_kind tokenizer_kind(const tokenizer *t, int32_t id) {
    ASSERT(id >= 0 && id < t->n_vocab);
    return t->kinds[id];
}

int tokenizer_n_vocab(const tokenizer *t) {
    return t->n_vocab;
}
int tokenizer_bos_id(const tokenizer *t) {
    return t->bos_id;
}
int tokenizer_eos_id(const tokenizer *t) {
    return t->eos_id;
}
bool tokenizer_add_bos(const tokenizer *t) {
    return t->add_bos;
}
const char *tokenizer_name(const tokenizer *t) {
    return t->name;
}
size_t tokenizer_longest(const tokenizer *t) {
    return t->longest;
}

// ---------------------------------------------------------------------------------------------------------- encode

static logitd_status push_at(tok_work *w, int32_t id, uint32_t offset) {
    logitd_status status = tok_push(w, id);
    if (!status) w->out->offsets[w->out->n - 1] = offset;
    return status;
}

/// The text's pieces and special tokens in order.
static logitd_status encode_pieces(const tokenizer *t, tok_work *w, const span_vec *spans) {
    logitd_status status = LOGITD_OK;
    uint32_t at = 0;
    for (size_t i = 0; i < spans->n && !status; i++) {
        const tok_span *span = &spans->data[i];
        if (span->start > at) status = t->model->encode(t, w, at, span->start);
        if (!status) status = push_at(w, span->id, span->start);
        at = span->start + span->len;
    }
    return !status && at < w->n_bytes ? t->model->encode(t, w, at, w->n_bytes) : status;
}

static void work_free(tok_work *w) {
    free(w->symbols);
    free(w->heap.keys);
    free(w->normalized);
    mem_free(w->words);
    pre_work_free(w);
}

static logitd_status check_text(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, logitd_error *err) {
    if (add_bos && t->bos_id < 0) {
        return error_set(err, LOGITD_EINVAL, "the model has no BOS token to add; leave add_bos out or false");
    }
    if (n_bytes >= UINT32_MAX / 2) {
        return error_set(err, LOGITD_ETOOLARGE, "the text has %zu bytes; at most 2 GiB are allowed", n_bytes);
    }
    size_t bad = utf8_first_invalid(text, n_bytes);
    if (bad == n_bytes) return LOGITD_OK;
    return error_set(err, LOGITD_EINVAL, "the text is not valid UTF-8 at byte %zu (0x%02X)", bad,
                     (unsigned)(uint8_t)text[bad]);
}

logitd_status tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, bool special,
                               token_vec *out, logitd_error *err) {
    logitd_status status = check_text(t, text, n_bytes, add_bos, err);
    if (status) return status;
    size_t n_before = out->n;
    span_vec spans = {0};
    tok_work w = {
        .text = (const uint8_t *)text, .n_bytes = (uint32_t)n_bytes, .out = out, .out_start = out->n, .err = err};
    status = tok_find_special(t, w.text, w.n_bytes, special, &spans, err);
    w.n_spans = (uint32_t)spans.n;
    if (!status && add_bos) status = push_at(&w, t->bos_id, UINT32_MAX);
    if (!status) status = encode_pieces(t, &w, &spans);
    if (status) out->n = n_before;
    free(spans.data);
    work_free(&w);
    return status;
}
