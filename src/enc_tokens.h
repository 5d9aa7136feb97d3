/*
 * enc_tokens.h: the texts of the vocabulary as JSON, escaped once when the server starts: a reply names tokens a
 * hundred thousand times. Immutable once made.
 */
#ifndef ENC_TOKENS_H
#define ENC_TOKENS_H

#include "tokenizer.h"

/// For every token the text `"id":504,"text":"The"`.
typedef struct token_json token_json;
token_json *token_json_create(const tokenizer *t); // NULL: no memory
void token_json_free(token_json *table);

/// Appends a token's text.
void token_json_put(const token_json *table, int32_t id, buffer *out);
/// Appends `{"id":…,"text":…,"bytes":[…]` without the closing brace.
void token_json_put_bytes(const token_json *table, const tokenizer *t, int32_t id, buffer *out);

/// Bytes that token_json_put appends: of one token, and the most of any.
size_t token_json_len(const token_json *table, int32_t id);
size_t token_json_longest(const token_json *table);

#endif
