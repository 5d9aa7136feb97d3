/*
 * cmd_info.c: `logitd info M.gguf`: what a model file holds, as a table for people. It reads the file alone, so it
 * works on architectures and tokenizers that logitd does not run. Everything goes to one buffer, written at the end.
 */
#include "commands.h"
#include "gguf.h"
#include "sha256.h"

#include <errno.h>
#include <string.h>

#define LABEL_WIDTH    18
#define TEMPLATE_LINES 6
#define TEMPLATE_WIDTH 100

/// Rows that are one key each, below the architecture's own prefix ("llama.").
static const struct {
    const char *label, *key, *unit;
} architecture_rows[] = {
    {"layers", "block_count", ""},
    {"embedding", "embedding_length", ""},
    {"feed-forward", "feed_forward_length", ""},
    {"attention heads", "attention.head_count", ""},
    {"key-value heads", "attention.head_count_kv", ""},
    {"head size", "attention.key_length", ""},
    {"context", "context_length", " tokens"},
    {"sliding window", "attention.sliding_window", " tokens"},
    {"RoPE base", "rope.freq_base", ""},
};

static const struct {
    const char *label, *key;
} special_tokens[] = {
    {"BOS", "tokenizer.ggml.bos_token_id"},
    {"EOS", "tokenizer.ggml.eos_token_id"},
    {"unknown", "tokenizer.ggml.unknown_token_id"},
    {"padding", "tokenizer.ggml.padding_token_id"},
};

// ------------------------------------------------------------------------------------------------------- cells

static void put_label(buffer *out, const char *label) {
    buffer_printf(out, "%-*s", LABEL_WIDTH, label);
}

/// 134515008 as "134,515,008".
static void put_count(buffer *out, uint64_t n) {
    char digits[24];
    int n_digits = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    for (int i = 0; i < n_digits; i++) {
        if (i && (n_digits - i) % 3 == 0) buffer_puts(out, ",");
        buffer_append(out, &digits[i], 1);
    }
}

/// As put_count, right-aligned.
static void put_count_in(buffer *out, int width, uint64_t n) {
    buffer text = {0};
    put_count(&text, n);
    buffer_printf(out, "%*s", width, text.data ? text.data : "");
    buffer_free(&text);
}

/// The value of a key, fit for a terminal, or `absent`.
static void put_value(buffer *out, const gguf_file *file, const char *key, const char *absent) {
    int i = gguf_find(file, key);
    if (i < 0)
        buffer_puts(out, absent);
    else
        gguf_kv_text(file, i, out);
}

static void put_row(buffer *out, const gguf_file *file, const char *label, const char *key, const char *unit) {
    if (gguf_find(file, key) < 0) return;
    put_label(out, label);
    put_value(out, file, key, "");
    buffer_printf(out, "%s\n", unit);
}

// ---------------------------------------------------------------------------------------------------- sections

static void put_file(buffer *out, const gguf_file *file) {
    uint64_t n_bytes;
    const void *data = gguf_data(file, &n_bytes);
    char sha256[65];
    sha256_hex(data, n_bytes, sha256);
    put_label(out, "file");
    buffer_printf(out, "%s\n", gguf_path(file));
    put_row(out, file, "name", "general.name", "");
    put_row(out, file, "licence", "general.license", "");
    put_label(out, "format");
    buffer_printf(out, "GGUF version %d, ", gguf_version(file));
    put_count(out, n_bytes);
    buffer_puts(out, " bytes\n");
    put_label(out, "sha256");
    buffer_printf(out, "%s\n\n", sha256);
}

static void put_architecture(buffer *out, const gguf_file *file) {
    put_label(out, "architecture");
    put_value(out, file, "general.architecture", "not named (no general.architecture)");
    buffer_puts(out, "\n");
    gguf_str architecture = {"", 0};
    gguf_string(file, "general.architecture", &architecture);
    for (size_t i = 0; i < ARRAY_LEN(architecture_rows); i++) {
        buffer key = {0};
        buffer_append(&key, architecture.data, architecture.len);
        buffer_printf(&key, ".%s", architecture_rows[i].key);
        if (!key.failed) put_row(out, file, architecture_rows[i].label, key.data, architecture_rows[i].unit);
        buffer_free(&key);
    }
    uint64_t n_params = 0;
    for (int i = 0; i < gguf_n_tensors(file); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file, i);
        n_params += tensor->n_bytes / (uint64_t)tensor->type->block_bytes * (uint64_t)tensor->type->block_weights;
    }
    put_label(out, "parameters");
    put_count(out, n_params);
    buffer_puts(out, "\n\n");
}

static void put_tokenizer(buffer *out, const gguf_file *file) {
    gguf_value_type type;
    uint64_t n;
    put_label(out, "tokenizer");
    put_value(out, file, "tokenizer.ggml.model", "none");
    if (gguf_find(file, "tokenizer.ggml.pre") >= 0) {
        buffer_puts(out, " (");
        put_value(out, file, "tokenizer.ggml.pre", "");
        buffer_puts(out, ")");
    }
    buffer_puts(out, "\n");
    if (gguf_array(file, "tokenizer.ggml.tokens", &type, &n)) {
        put_label(out, "vocabulary");
        put_count(out, n);
        buffer_puts(out, " tokens\n");
    }
    put_label(out, "special tokens");
    const char *separator = "";
    for (size_t i = 0; i < ARRAY_LEN(special_tokens); i++) {
        if (gguf_find(file, special_tokens[i].key) < 0) continue;
        buffer_printf(out, "%s%s ", separator, special_tokens[i].label);
        put_value(out, file, special_tokens[i].key, "");
        separator = ", ";
    }
    buffer_puts(out, *separator ? "\n" : "none\n");
    put_row(out, file, "BOS by default", "tokenizer.ggml.add_bos_token", "");
    buffer_puts(out, "\n");
}

/// One line of the template, without what could move a terminal's cursor.
static void put_template_line(buffer *out, const char *line, size_t n) {
    buffer text = {0};
    size_t cut = 0;
    for (int i = 0; i < TEMPLATE_WIDTH && cut < n; i++) {
        cut += (size_t)MAX(1, utf8_char_len((const uint8_t *)line + cut, n - cut));
    }
    utf8_append_lossy(&text, line, cut);
    for (size_t i = 0; i < text.len; i++) {
        if ((uint8_t)text.data[i] < ' ' || text.data[i] == 0x7F) text.data[i] = ' ';
    }
    buffer_printf(out, "    %s%s\n", text.data ? text.data : "", cut < n ? " ..." : "");
    buffer_free(&text);
}

static void put_chat_template(buffer *out, const gguf_file *file) {
    gguf_str text;
    put_label(out, "chat template");
    if (!gguf_string(file, "tokenizer.chat_template", &text)) {
        buffer_puts(out, "none\n\n");
        return;
    }
    put_count(out, text.len);
    buffer_puts(out, " bytes, beginning\n");
    const char *p = text.data, *end = text.data + text.len;
    for (int i = 0; i < TEMPLATE_LINES && p < end; i++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *line_end = newline ? newline : end;
        put_template_line(out, p, (size_t)(line_end - p));
        p = newline ? newline + 1 : end;
    }
    buffer_puts(out, p < end ? "    ...\n\n" : "\n");
}

static void put_tensors(buffer *out, const gguf_file *file) {
    buffer_printf(out, "%-*s%8s%18s\n", LABEL_WIDTH, "tensors", "count", "bytes");
    uint64_t all_bytes = 0;
    for (int row = 0; row < n_quant_types; row++) {
        uint64_t n_tensors = 0, n_bytes = 0;
        for (int i = 0; i < gguf_n_tensors(file); i++) {
            const gguf_tensor *tensor = gguf_tensor_at(file, i);
            if (tensor->type != &quant_types[row]) continue;
            n_tensors++;
            n_bytes += tensor->n_bytes;
        }
        if (n_tensors == 0) continue;
        all_bytes += n_bytes;
        buffer_printf(out, "    %-*s", LABEL_WIDTH - 4, quant_types[row].name);
        put_count_in(out, 8, n_tensors);
        put_count_in(out, 18, n_bytes);
        buffer_puts(out, "\n");
    }
    buffer_printf(out, "    %-*s", LABEL_WIDTH - 4, "all");
    put_count_in(out, 8, (uint64_t)gguf_n_tensors(file));
    put_count_in(out, 18, all_bytes);
    buffer_puts(out, "\n");
}

// ----------------------------------------------------------------------------------------------------- command

static int print_info(const gguf_file *file) {
    buffer out = {0};
    put_file(&out, file);
    put_architecture(&out, file);
    put_tokenizer(&out, file);
    put_chat_template(&out, file);
    put_tensors(&out, file);
    int code = 0;
    if (out.failed) {
        fprintf(stderr, "logitd info: no memory\n");
        code = 1;
    } else if (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0) {
        fprintf(stderr, "logitd info: the output cannot be written: %s\n", strerror(errno));
        code = 1;
    }
    buffer_free(&out);
    return code;
}

int cmd_info(int argc, char **argv) {
    static const char usage[] = "usage: logitd info MODEL.gguf\n";
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return options_shown();
    }
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "logitd info: one model file is needed; %s", usage);
        return 2;
    }
    logitd_error err;
    gguf_file *file;
    if (gguf_open(argv[1], &file, &err)) {
        fprintf(stderr, "logitd info: %s\n", err.message);
        return 1;
    }
    int code = print_info(file);
    gguf_close(file);
    return code;
}
