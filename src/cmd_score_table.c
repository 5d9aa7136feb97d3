// cmd_score_table.c: see cmd_score_table.h.
#include "cmd_score_table.h"
#include <math.h>
#include <string.h>

#define TEXT_COLUMNS 18

/// A token's text on one line: ␣ for a space, ⏎ ␍ → for line breaks and tabs, · for other control characters;
/// cut to TEXT_COLUMNS characters, and padded if `pad` (wide characters count as one).
static void put_text(const tokenizer *t, int32_t id, bool pad, FILE *out) {
    token_bytes bytes = tokenizer_bytes(t, id);
    buffer text = {0};
    utf8_append_lossy(&text, bytes.data, bytes.len);
    int columns = 0;
    for (size_t i = 0; i < text.len; columns++) {
        int n = utf8_char_len((const uint8_t *)text.data + i, text.len - i);
        if (n == 0) break;
        uint8_t c = (uint8_t)text.data[i];
        if (columns == TEXT_COLUMNS - 1 && i + (size_t)n < text.len) {
            fputs("…", out);
            columns++;
            break;
        }
        if (c == ' ') {
            fputs("␣", out);
        } else if (c == '\n') {
            fputs("⏎", out);
        } else if (c == '\t') {
            fputs("→", out);
        } else if (c < 0x20 || c == 0x7F) {
            fputs(c == '\r' ? "␍" : "·", out);
        } else {
            fwrite(text.data + i, 1, (size_t)n, out);
        }
        i += (size_t)n;
    }
    if (pad) fprintf(out, "%*s", TEXT_COLUMNS - columns, "");
    buffer_free(&text);
}

static void put_head(const logitd_request *r, FILE *out) {
    fprintf(out, "%6s  %-*s %7s", "pos", TEXT_COLUMNS, "token", "rank");
    for (int i = 0; i < r->n_temperatures; i++) {
        char label[32];
        snprintf(label, sizeof label, "surprisal@%g", r->temperatures[i]);
        fprintf(out, " %13s", label);
        fprintf(out, " %8s %6s", "entropy", "p(top)");
    }
    fprintf(out, "  most likely\n");
}

/// The line of token `id` at `position`; `before` is the row of the position before it, or NULL for the first token.
static void put_line(const tokenizer *t, const logitd_request *r, int position, int32_t id, const logitd_row *before,
                     FILE *out) {
    int n_top = MIN(r->top_n, tokenizer_n_vocab(t));
    fprintf(out, "%6d  ", position);
    if (id >= 0) {
        put_text(t, id, true, out);
    } else {
        fprintf(out, "%-*s", TEXT_COLUMNS, "(what comes next)");
    }
    if (before && before->next_id >= 0) {
        fprintf(out, " %7d", before->next_rank);
    } else {
        fprintf(out, " %7s", "-");
    }
    for (int i = 0; i < r->n_temperatures; i++) {
        if (before && before->next_id >= 0) {
            fprintf(out, " %13.4f", -before->next_logprob[i] + 0.0);
        } else {
            fprintf(out, " %13s", "-");
        }
        if (before) {
            fprintf(out, " %8.4f %6.4f", before->entropy[i], exp(before->top_value[i * n_top]));
        } else {
            fprintf(out, " %8s %6s", "-", "-");
        }
    }
    if (before) {
        fputs("  ", out);
        put_text(t, before->top_id[0], false, out);
    }
    fputc('\n', out);
}

static void put_summary(const logitd_job *job, FILE *out) {
    const logitd_request *r = logitd_job_request(job);
    fprintf(out, "\n%11s %13s %12s %12s %7s\n", "temperature", "cross_entropy", "perplexity", "mean_entropy", "n");
    for (int i = 0; i < r->n_temperatures; i++) {
        logitd_summary s = logitd_job_summary(job, 0, i);
        if (s.n) {
            fprintf(out, "%11g %13.6f %12.4f", r->temperatures[i], s.cross_entropy, exp(s.cross_entropy));
        } else {
            fprintf(out, "%11g %13s %12s", r->temperatures[i], "-", "-");
        }
        fprintf(out, " %12.6f %7d\n", s.mean_entropy, s.n);
    }
    fputs("(natural logarithms: surprisal and entropy in nats)\n", out);
}

void score_table_write(const tokenizer *t, const logitd_job *job, FILE *out) {
    const logitd_request *r = logitd_job_request(job);
    const logitd_prompt *prompt = &r->prompts[0];
    ASSERT(r->n_prompts == 1 && prompt->n_positions == prompt->n_tokens && r->top_n >= 1 &&
           r->values == LOGITD_LOGPROB);
    put_head(r, out);
    put_line(t, r, 0, prompt->tokens[0], NULL, out);
    for (int i = 0; i < prompt->n_tokens; i++) {
        logitd_row row = logitd_job_row(job, 0, i);
        put_line(t, r, i + 1, i + 1 < prompt->n_tokens ? prompt->tokens[i + 1] : -1, &row, out);
    }
    put_summary(job, out);
}
