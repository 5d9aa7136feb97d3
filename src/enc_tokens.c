// enc_tokens.c: see enc_tokens.h.
#include "enc_tokens.h"
#include "json_write.h"

struct token_json {
    size_t *start; // [n_vocab + 1] into text
    size_t longest;
    buffer text;
};

token_json *token_json_create(const tokenizer *t) {
    int n_vocab = tokenizer_n_vocab(t);
    token_json *table = mem_alloc(1, sizeof *table);
    if (table) table->start = mem_alloc((size_t)n_vocab + 1, sizeof *table->start);
    if (!table || !table->start) {
        token_json_free(table);
        return NULL;
    }
    for (int32_t id = 0; id < n_vocab; id++) {
        token_bytes bytes = tokenizer_bytes(t, id);
        table->start[id] = table->text.len;
        buffer_puts(&table->text, "\"id\":");
        json_int(&table->text, id);
        buffer_puts(&table->text, ",\"text\":");
        json_string(&table->text, bytes.data, bytes.len);
        table->longest = MAX(table->longest, table->text.len - table->start[id]);
    }
    table->start[n_vocab] = table->text.len;
    if (!table->text.failed) return table;
    token_json_free(table);
    return NULL;
}

void token_json_free(token_json *table) {
    if (!table) return;
    mem_free(table->start);
    buffer_free(&table->text);
    mem_free(table);
}

size_t token_json_len(const token_json *table, int32_t id) {
    return table->start[id + 1] - table->start[id];
}

size_t token_json_longest(const token_json *table) {
    return table->longest;
}

void token_json_put(const token_json *table, int32_t id, buffer *out) {
    buffer_append(out, table->text.data + table->start[id], token_json_len(table, id));
}

void token_json_put_bytes(const token_json *table, const tokenizer *t, int32_t id, buffer *out) {
    token_bytes bytes = tokenizer_bytes(t, id);
    buffer_puts(out, "{");
    token_json_put(table, id, out);
    buffer_puts(out, ",\"bytes\":");
    json_bytes(out, bytes.data, bytes.len);
}
