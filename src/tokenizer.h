/*
 * tokenizer.h: text to token ids and back, as the model's own tokenizer does it. Built from a GGUF file's
 * `tokenizer.ggml.*` keys; immutable afterwards, so any number of threads may use one at a time.
 *
 * Two models: byte-level BPE (`gpt2`: pre-split by a pattern, then merges by rank; tok_bpe.c) and SentencePiece-style
 * (`llama`: merges by score, bytes as a fallback; tok_spm.c).
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "gguf.h"
#include "util.h"

typedef struct tokenizer tokenizer;

typedef enum token_kind { // the numbers of tokenizer.ggml.token_type
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
} token_kind;

/// A token's exact bytes (for a byte token the byte it stands for; for a control token its name).
typedef struct token_bytes {
    const uint8_t *data;
    size_t len;
} token_bytes;

typedef struct token_vec { // grows; the caller frees with token_vec_free
    int32_t *ids;
    uint32_t *offsets; // first byte in the text of each token; UINT32_MAX for a BOS that was added
    size_t n, cap;
} token_vec;
void token_vec_free(token_vec *v);

logitd_status tokenizer_create(const gguf_file *file, tokenizer **out, logitd_error *err);
void tokenizer_free(tokenizer *t);

/// Appends the tokens of `text` to *out. Text is UTF-8; ill-formed UTF-8 is EINVAL naming the byte offset.
/// special: read control tokens in the text (user-defined ones are always read). add_bos: put BOS first (EINVAL if the
/// model has none). Takes O(n log n) time and, for a word of n bytes, 40 n bytes of memory. On failure *out is as
/// before.
logitd_status tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, bool special,
                               token_vec *out, logitd_error *err);
/// The bytes of one token. id in [0, n_vocab). Concatenated bytes of tokenizer_encode's result (BOS aside) are the
/// text, but for bytes that a BPE vocabulary has no token for (tok_bpe.c) and for two habits of SentencePiece models:
/// each U+2581 (▁) of the text comes back as a space, and models with a space prefix (Llama 2, not Gemma) give one more
/// space before a text and after each special token. Offsets are right all the same.
token_bytes tokenizer_bytes(const tokenizer *t, int32_t id);
token_kind tokenizer_kind(const tokenizer *t, int32_t id);

/// Bytes of the longest token: a text of n bytes has at least n / this tokens.
size_t tokenizer_longest(const tokenizer *t);
int tokenizer_n_vocab(const tokenizer *t);
int tokenizer_bos_id(const tokenizer *t);       // -1: none
int tokenizer_eos_id(const tokenizer *t);       // -1: none
bool tokenizer_add_bos(const tokenizer *t);     // the model's own default
const char *tokenizer_name(const tokenizer *t); // "bpe (smollm)", "spm"

#endif
