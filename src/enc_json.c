/*
 * enc_json.c: see enc_json.h. The reply is a walk through the stages below; both formats are the same pieces in another
 * order and with other text between them.
 *
 *   json         HEAD  ( PROMPT  SUMMARY  ROWS  PROMPT_END )*  TAIL
 *   json, full   HEAD  ( PROMPT  ROWS  SUMMARY  PROMPT_END )*  TAIL
 *   ndjson       HEAD  ( PROMPT  ROWS  SUMMARY )*  TAIL                 each piece ends its line
 */
#include "enc_json.h"
#include "api_error.h"
#include "float_text.h"
#include "json_write.h"
#include <math.h>
#include <string.h>

#define PIECE_BYTES  (64u << 10) // appended by one call, about
#define PIECE_VALUES 4096u       // of a full row by one call

enum { HEAD, PROMPT, SUMMARY, ROWS, PROMPT_END, TAIL, END };

// --------------------------------------------------------------------------------------------------------- pieces

static bool is_lines(const enc_json *e) {
    return e->source->request->format == FORMAT_NDJSON;
}

static const logitd_request *request_of(const enc_json *e) {
    return &e->source->request->request;
}

static void put_head(const enc_json *e, buffer *out) {
    const enc_source *s = e->source;
    buffer_puts(out, "{\"object\":\"distribution\",\"id\":");
    json_cstring(out, s->id);
    buffer_puts(out, ",\"created\":");
    json_int(out, s->created);
    buffer_puts(out, ",\"model\":");
    enc_put_model(s, out);
    buffer_puts(out, ",\"numerics\":");
    enc_put_numerics(s, out);
    buffer_puts(out, ",\"temperatures\":");
    enc_put_temperatures(s, out);
    buffer_printf(out, ",\"values\":\"%s\",\"usage\":", enc_values_name(s));
    enc_put_usage(s, out);
    buffer_puts(out, is_lines(e) ? "}\n" : ",\"results\":[");
}

/// Milliseconds to the microsecond.
static void put_ms(buffer *out, double ms) {
    json_double(out, round(ms * 1000) / 1000);
}

static void put_timing(const enc_json *e, buffer *out) {
    buffer_puts(out, "\"timing_ms\":{\"queue\":");
    put_ms(out, e->source->queue_ms);
    buffer_puts(out, ",\"compute\":");
    put_ms(out, logitd_job_compute_ms(e->source->job));
    buffer_puts(out, "}}\n");
}

static void put_prompt(const enc_json *e, buffer *out) {
    const enc_source *s = e->source;
    const logitd_prompt *prompt = &request_of(e)->prompts[e->iprompt];
    const uint32_t *offsets = s->request->offsets[e->iprompt];
    if (!is_lines(e) && e->iprompt) buffer_puts(out, ",");
    buffer_printf(out, "{\"index\":%d,\"tokens\":[", e->iprompt);
    for (int i = 0; i < prompt->n_tokens; i++) {
        if (i) buffer_puts(out, ",");
        token_json_put_bytes(s->tokens, s->tokenizer, prompt->tokens[i], out);
        buffer_puts(out, ",\"offset\":");
        if (offsets && offsets[i] != UINT32_MAX) {
            json_int(out, offsets[i]);
        } else {
            buffer_puts(out, "null");
        }
        buffer_puts(out, "}");
    }
    buffer_puts(out, is_lines(e) ? "]}\n" : "]");
}

/// Bytes of the next tokens of the returned positions; control tokens are no text and count as none.
static uint64_t next_bytes(const enc_json *e) {
    uint64_t n = 0;
    const logitd_prompt *prompt = &request_of(e)->prompts[e->iprompt];
    for (int i = 0; i < prompt->n_positions; i++) {
        int next = prompt->positions[i] + 1;
        if (next >= prompt->n_tokens) continue;
        int32_t id = prompt->tokens[next];
        if (tokenizer_kind(e->source->tokenizer, id) != TOKEN_CONTROL)
            n += tokenizer_bytes(e->source->tokenizer, id).len;
    }
    return n;
}

static void put_summary(const enc_json *e, buffer *out) {
    const logitd_request *r = request_of(e);
    uint64_t n_bytes = next_bytes(e);
    if (is_lines(e)) buffer_printf(out, "{\"index\":%d", e->iprompt);
    buffer_puts(out, ",\"summary\":[");
    for (int i = 0; i < r->n_temperatures; i++) {
        logitd_summary s = logitd_job_summary(e->source->job, e->iprompt, i);
        buffer_puts(out, i ? ",{\"temperature\":" : "{\"temperature\":");
        json_double(out, r->temperatures[i]);
        buffer_puts(out, ",\"cross_entropy\":");
        json_double(out, s.n ? s.cross_entropy : NAN);
        buffer_puts(out, ",\"perplexity\":");
        json_double(out, s.n ? exp(s.cross_entropy) : NAN);
        buffer_puts(out, ",\"bits_per_byte\":");
        json_double(out, s.n && n_bytes ? -s.next_logprob_sum / (M_LN2 * (double)n_bytes) : NAN);
        buffer_puts(out, ",\"mean_entropy\":");
        json_double(out, s.mean_entropy);
        buffer_printf(out, ",\"n\":%d}", s.n);
    }
    buffer_puts(out, is_lines(e) ? "]}\n" : "]");
}

static void put_stats(const enc_json *e, const logitd_row *row, buffer *out) {
    size_t n = (size_t)request_of(e)->n_temperatures;
    buffer_puts(out, ",\"logsumexp\":");
    json_floats(out, row->logsumexp, n, 1);
    buffer_puts(out, ",\"entropy\":");
    json_floats(out, row->entropy, n, 1);
    buffer_puts(out, ",\"varentropy\":");
    json_floats(out, row->varentropy, n, 1);
    if (row->next_id < 0) {
        buffer_puts(out, ",\"next\":null");
        return;
    }
    buffer_puts(out, ",\"next\":{");
    token_json_put(e->source->tokens, row->next_id, out);
    buffer_puts(out, ",\"rank\":");
    json_int(out, row->next_rank);
    buffer_puts(out, ",\"logprob\":");
    json_floats(out, row->next_logprob, n, 1);
    buffer_puts(out, "}");
}

/// `[{"id":…,"text":…,"logprob":[…]},…]` of n entries; values [n_temperatures][n], or [n] for logits.
static void put_entries(const enc_json *e, const int32_t *ids, const float *values, size_t n, buffer *out) {
    const logitd_request *r = request_of(e);
    const size_t n_temperatures = (size_t)r->n_temperatures;
    char key[16];
    const size_t key_len = (size_t)snprintf(key, sizeof key, ",\"%s\":", enc_values_name(e->source));
    buffer_append(out, "[", 1);
    for (size_t i = 0; i < n; i++) {
        buffer_puts(out, i ? ",{" : "{");
        token_json_put(e->source->tokens, ids[i], out);
        buffer_append(out, key, key_len);
        if (r->values == LOGITD_LOGIT) {
            json_float(out, values[i]);
        } else {
            json_floats(out, values + i, n_temperatures, n);
        }
        buffer_append(out, "}", 1);
    }
    buffer_append(out, "]", 1);
}

static void put_row_start(const enc_json *e, const logitd_row *row, buffer *out) {
    if (is_lines(e)) {
        buffer_printf(out, "{\"index\":%d,\"position\":", e->iprompt);
    } else {
        buffer_puts(out, e->irow ? ",{\"position\":" : ",\"positions\":[{\"position\":");
    }
    json_int(out, row->position);
    buffer_puts(out, ",\"token_id\":");
    json_int(out, row->token_id);
    if (e->source->request->stats) put_stats(e, row, out);
}

static void put_row_end(enc_json *e, const logitd_row *row, buffer *out) {
    const logitd_request *r = request_of(e);
    buffer_puts(out, ",\"token_ids\":");
    put_entries(e, r->token_ids, row->listed_value, (size_t)r->n_token_ids, out);
    buffer_puts(out, is_lines(e) ? "}\n" : "}");
    e->irow++;
    e->ivalue = 0;
}

/// The next PIECE_VALUES values of a full row; ivalue runs over [T][n_vocab].
static void put_full_values(enc_json *e, const float *logits, size_t n_rows, size_t n_vocab, buffer *out) {
    size_t column = e->ivalue % n_vocab, n = MIN(PIECE_VALUES, n_vocab - column);
    float values[PIECE_VALUES];
    logitd_row_values(e->source->job, e->iprompt, e->irow, (int)(e->ivalue / n_vocab), logits + column, n, values);
    if (e->ivalue == 0) buffer_puts(out, ",\"full\":[");
    buffer_puts(out, column ? "," : e->ivalue ? ",[" : "[");
    json_float_items(out, values, n, 1);
    e->ivalue += n;
    if (column + n == n_vocab) buffer_puts(out, "]");
    if (e->ivalue == n_rows * n_vocab) buffer_puts(out, "]");
}

/// One row of a full request, or a stretch of it.
static enc_step put_full_row(enc_json *e, buffer *out) {
    const enc_source *s = e->source;
    size_t n_vocab = (size_t)s->model->n_vocab, n_rows = enc_values_of_entry(s);
    const float *logits;
    enc_step step = s->full_row(s->arg, e->iprompt, e->irow, &logits, &e->error);
    if (step != ENC_MORE) return step;
    const logitd_row row = logitd_job_row(s->job, e->iprompt, e->irow); // complete now that its logits are there
    if (e->ivalue == 0) put_row_start(e, &row, out);
    put_full_values(e, logits, n_rows, n_vocab, out);
    if (e->ivalue == n_rows * n_vocab) put_row_end(e, &row, out);
    return ENC_MORE;
}

static void put_top_row(enc_json *e, buffer *out) {
    const logitd_row row = logitd_job_row(e->source->job, e->iprompt, e->irow);
    put_row_start(e, &row, out);
    buffer_puts(out, ",\"top\":");
    put_entries(e, row.top_id, row.top_value, enc_top_n(e->source), out);
    put_row_end(e, &row, out);
}

// ------------------------------------------------------------------------------------------------------ the stages

/// The summary stands before the rows, where one looks first, but where not all of them are known by then.
static bool summary_is_last(const enc_json *e) {
    return is_lines(e) || request_of(e)->full;
}

/// Rows as they are ready, until the piece is full. Moves on to the next stage after the last one.
static enc_step next_rows(enc_json *e, buffer *out) {
    int n_rows = request_of(e)->prompts[e->iprompt].n_positions;
    size_t end = out->len + PIECE_BYTES;
    while (e->irow < n_rows && out->len < end && !out->failed) {
        enc_step step = enc_row_ready(e->source, e->iprompt, e->irow, &e->error);
        if (step != ENC_MORE) return step;
        if (request_of(e)->full) {
            step = put_full_row(e, out);
            if (step != ENC_MORE) return step;
        } else {
            put_top_row(e, out);
        }
    }
    if (e->irow < n_rows) return ENC_MORE;
    if (!is_lines(e)) buffer_puts(out, n_rows ? "]" : ",\"positions\":[]");
    e->irow = 0;
    e->stage = summary_is_last(e) ? SUMMARY : PROMPT_END;
    return ENC_MORE;
}

static enc_step next_prompt(enc_json *e) {
    e->iprompt++;
    e->stage = e->iprompt < request_of(e)->n_prompts ? PROMPT : TAIL;
    return ENC_MORE;
}

static enc_step next_piece(enc_json *e, buffer *out) {
    bool lines = is_lines(e);
    switch (e->stage) {
    case HEAD: {
        enc_step step = enc_may_begin(e->source, !lines, &e->error);
        if (step != ENC_MORE) return step;
        put_head(e, out);
        e->stage = PROMPT;
        return ENC_MORE;
    }
    case PROMPT:
        put_prompt(e, out);
        e->stage = summary_is_last(e) ? ROWS : SUMMARY;
        return ENC_MORE;
    case SUMMARY:
        if (e->source->request->stats) put_summary(e, out);
        e->stage = summary_is_last(e) ? PROMPT_END : ROWS;
        return ENC_MORE;
    case ROWS:
        return next_rows(e, out);
    case PROMPT_END:
        if (!lines) buffer_puts(out, "}");
        return next_prompt(e);
    case TAIL:
        buffer_puts(out, lines ? "{" : "],");
        put_timing(e, out);
        e->stage = END;
        return ENC_END;
    default:
        return ENC_END;
    }
}

// -------------------------------------------------------------------------------------------------------- the size

enum { HEAD_BYTES = 1024, PROMPT_BYTES = 128, ROW_BYTES = 256, ENTRY_BYTES = 24, SUMMARY_BYTES = 256, ID_BYTES = 12 };

uint64_t enc_json_most_bytes(const enc_source *s) {
    const dist_request *d = s->request;
    const logitd_request *r = &d->request;
    const enc_json e = {.source = s};
    buffer head = {0};
    put_head(&e, &head);
    uint64_t n = HEAD_BYTES + head.len;
    buffer_free(&head);
    for (int i = 0; i < r->n_prompts; i++) {
        n += PROMPT_BYTES + (uint64_t)r->n_temperatures * SUMMARY_BYTES;
        for (int k = 0; k < r->prompts[i].n_tokens; k++) {
            int32_t id = r->prompts[i].tokens[k];
            n += token_json_len(s->tokens, id) + tokenizer_bytes(s->tokenizer, id).len * strlen("255,") + ENTRY_BYTES +
                 2 * ID_BYTES;
        }
    }
    const uint64_t number = FLOAT_TEXT_BYTES + 1, token = token_json_longest(s->tokens) + ENTRY_BYTES,
                   entry = token + enc_values_of_entry(s) * number;
    uint64_t row = ROW_BYTES + (enc_top_n(s) + (uint64_t)r->n_token_ids) * entry;
    if (d->stats) row += token + 4 * (uint64_t)r->n_temperatures * number;
    if (r->full) row += enc_values_of_entry(s) * (2 + (uint64_t)s->model->n_vocab * number);
    return n + (uint64_t)d->n_positions * row;
}

// ------------------------------------------------------------------------------------------------------ the caller

enc_json enc_json_start(const enc_source *source) {
    return (enc_json){.source = source, .stage = HEAD};
}

enc_step enc_json_next(enc_json *e, buffer *out) {
    int stage = e->stage;
    enc_step step = next_piece(e, out);
    if (out->failed) {
        error_set(&e->error, LOGITD_ENOMEM, "no memory for the reply; ask for fewer positions or entries");
        return ENC_FAILED;
    }
    if (step != ENC_FAILED || stage == HEAD || !is_lines(e)) return step; // still an HTTP status, or a cut
    buffer_puts(out, e->ivalue ? "\n{" : "{"); // after half a full row the line is lost, the error is not
    api_error_write(out, api_error_http_status(e->error.status), e->error.param, e->error.message);
    buffer_puts(out, "}\n");
    e->stage = END;
    return ENC_END;
}
