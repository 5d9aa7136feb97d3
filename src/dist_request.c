/*
 * dist_request.c: see dist_request.h. `fields` is the table of the request's members: a name and the function that
 * reads it. The rows are read in the table's order, whatever the order of the body, since later ones need earlier ones.
 */
#include "dist_request.h"
#include "json_read.h"
#include "limits.h"
#include "tokenizer.h"
#include <math.h>
#include <string.h>

const char *const dist_values_names[] = {
    [LOGITD_LOGPROB] = "logprob", [LOGITD_PROB] = "prob", [LOGITD_LOGIT] = "logit"};

typedef struct parse {
    const logitd_model_info *model;
    const tokenizer *tokenizer;
    const json_node *root;
    const char *accept;
    dist_request *out;
    logitd_prompt *prompts; // out->request.prompts, to be filled
    bool add_bos, special;
    logitd_error *err;
} parse;

static logitd_status no_memory(parse *p) {
    return error_set(p->err, LOGITD_ENOMEM, "no memory for this request; try again later");
}

/// out[n] ids of an array; `path` is the array's.
static logitd_status read_ids(parse *p, const json_node *array, const char *path, int32_t *out) {
    int i = 0;
    for (const json_node *item = json_first(array); item; item = json_next(item), i++) {
        char item_path[64], found[JSON_DESCRIBE_BYTES];
        snprintf(item_path, sizeof item_path, "%s[%d]", path, i);
        int64_t id;
        if (json_read_int(item, item_path, 0, p->model->n_vocab - 1, &id, NULL)) {
            return error_set_param(p->err, LOGITD_EINVAL, item_path,
                                   "%s is %s; it must be a token id of this model, an integer from 0 to %d", item_path,
                                   json_describe(item, found), p->model->n_vocab - 1);
        }
        out[i] = (int32_t)id;
    }
    return LOGITD_OK;
}

static logitd_status want_array(parse *p, const json_node *node, const char *path, const char *of, int min, int max) {
    char found[JSON_DESCRIBE_BYTES];
    if (!json_is_array(node)) {
        return error_set_param(p->err, LOGITD_EINVAL, path, "%s is %s; it must be an array of %s", path,
                               json_describe(node, found), of);
    }
    int n = json_length(node);
    if (n >= min && n <= max) return LOGITD_OK;
    return error_set_param(p->err, LOGITD_EINVAL, path, "%s has %d items; it must have %d to %d %s", path, n, min, max,
                           of);
}

/// The index of a string among names[n].
static logitd_status read_choice(parse *p, const json_node *node, const char *path, const char *const *names, size_t n,
                                 size_t *out) {
    char found[JSON_DESCRIBE_BYTES], allowed[80];
    for (size_t i = 0; i < n && json_is_string(node); i++) {
        if (strcmp(json_text(node), names[i]) != 0) continue;
        *out = i;
        return LOGITD_OK;
    }
    return error_set_param(p->err, LOGITD_EINVAL, path, "%s is %s; it must be %s", path, json_describe(node, found),
                           error_list_choices(names, n, allowed, sizeof allowed));
}

// ---------------------------------------------------------------------------------------------------- small fields

static logitd_status read_format(parse *p, const json_node *node) {
    const char *names[N_FORMATS];
    for (int i = 0; i < N_FORMATS; i++) names[i] = reply_formats[i].name;
    size_t choice = reply_format_accepted(p->accept, FORMATS_ALL);
    logitd_status status = node ? read_choice(p, node, "format", names, N_FORMATS, &choice) : LOGITD_OK;
    p->out->format = (reply_format)choice;
    return status;
}

static logitd_status read_dtype(parse *p, const json_node *node) {
    static const char *const names[] = {[DTYPE_FLOAT32] = "float32", [DTYPE_FLOAT16] = "float16"};
    size_t choice = DTYPE_FLOAT32;
    logitd_status status = node ? read_choice(p, node, "dtype", names, ARRAY_LEN(names), &choice) : LOGITD_OK;
    p->out->dtype = (dist_dtype)choice;
    return status;
}

static logitd_status read_temperatures(parse *p, const json_node *node) {
    const json_node *single = json_member(p->root, "temperature");
    if (node && single) {
        return error_set_param(p->err, LOGITD_EINVAL, "temperature",
                               "temperature and temperatures are both given; send one of them");
    }
    if (node) {
        logitd_status status = want_array(p, node, "temperatures", "numbers", 1, LIMIT_TEMPERATURES);
        if (status) return status;
    }
    int n = node ? json_length(node) : 1;
    double *temperatures = arena_alloc(&p->out->memory, (size_t)n, sizeof *temperatures);
    if (!temperatures) return no_memory(p);
    temperatures[0] = 1.0;
    const json_node *item = node ? json_first(node) : single;
    for (int i = 0; item && i < n; i++, item = json_next(item)) {
        char path[32] = "temperature";
        if (node) snprintf(path, sizeof path, "temperatures[%d]", i);
        logitd_status status =
            json_read_number(item, path, LIMIT_TEMPERATURE_MIN, LIMIT_TEMPERATURE_MAX, &temperatures[i], p->err);
        if (status) return status;
    }
    p->out->request.temperatures = temperatures;
    p->out->request.n_temperatures = n;
    return LOGITD_OK;
}

static logitd_status read_top_n(parse *p, const json_node *node) {
    logitd_request *request = &p->out->request;
    request->top_n = 20;
    if (!node) return LOGITD_OK;
    if (json_is_string(node) && strcmp(json_text(node), "full") == 0) {
        request->full = true;
        request->top_n = 0;
        return LOGITD_OK;
    }
    int64_t top_n;
    char found[JSON_DESCRIBE_BYTES];
    if (json_read_int(node, "top_n", 0, LIMIT_TOP_N, &top_n, NULL)) {
        return error_set_param(p->err, LOGITD_EINVAL, "top_n",
                               "top_n is %s; it must be an integer from 0 to %d, or \"full\"",
                               json_describe(node, found), LIMIT_TOP_N);
    }
    request->top_n = (int)top_n;
    return LOGITD_OK;
}

static logitd_status read_values(parse *p, const json_node *node) {
    const size_t n = ARRAY_LEN(dist_values_names);
    size_t choice = LOGITD_LOGPROB;
    logitd_status status = node ? read_choice(p, node, "values", dist_values_names, n, &choice) : LOGITD_OK;
    p->out->request.values = (logitd_values)choice;
    return status;
}

static logitd_status read_token_ids(parse *p, const json_node *node) {
    if (!node) return LOGITD_OK;
    logitd_status status = want_array(p, node, "token_ids", "token ids", 0, LIMIT_LISTED_IDS);
    if (status) return status;
    int n = json_length(node);
    int32_t *ids = arena_alloc(&p->out->memory, (size_t)n, sizeof *ids);
    if (!ids) return no_memory(p);
    p->out->request.token_ids = ids;
    p->out->request.n_token_ids = n;
    return read_ids(p, node, "token_ids", ids);
}

static logitd_status read_stats(parse *p, const json_node *node) {
    p->out->stats = true;
    return node ? json_read_bool(node, "stats", &p->out->stats, p->err) : LOGITD_OK;
}

/// Whether `prompt` holds ids rather than text, going by its first item.
static bool prompt_has_ids(const json_node *prompt) {
    const json_node *first = prompt && json_is_array(prompt) ? json_first(prompt) : NULL;
    return first && (json_is_number(first) || json_is_array(first));
}

static logitd_status read_text_only(parse *p, const json_node *node, const char *name, bool *out) {
    if (!node) return LOGITD_OK;
    if (prompt_has_ids(json_member(p->root, "prompt"))) {
        return error_set_param(
            p->err, LOGITD_EINVAL, name,
            "%s goes with a prompt of text; a prompt of token ids is taken as it is, so leave it out", name);
    }
    return json_read_bool(node, name, out, p->err);
}

static logitd_status read_add_bos(parse *p, const json_node *node) {
    p->add_bos = p->model->add_bos;
    logitd_status status = read_text_only(p, node, "add_bos", &p->add_bos);
    if (status || !node || !p->add_bos || p->model->bos_id >= 0) return status;
    return error_set_param(p->err, LOGITD_EINVAL, "add_bos", "add_bos is true, but this model has no BOS token");
}

static logitd_status read_special(parse *p, const json_node *node) {
    return read_text_only(p, node, "special", &p->special);
}

// --------------------------------------------------------------------------------------------------------- prompts

/// What every prompt must hold: 1 … n_ctx tokens, and at most limits.request_tokens over all.
static logitd_status check_length(parse *p, const char *path, size_t n) {
    if (n == 0)
        return error_set_param(p->err, LOGITD_EINVAL, path, "%s has no tokens; it must have at least one", path);
    if (n > (size_t)p->model->n_ctx) {
        return error_set_param(p->err, LOGITD_EINVAL, path, "%s has %zu tokens; this model's context takes at most %d",
                               path, n, p->model->n_ctx);
    }
    p->out->n_prompt_tokens += (int64_t)n;
    if (p->out->n_prompt_tokens <= limits.request_tokens) return LOGITD_OK;
    return error_set_param(p->err, LOGITD_ETOOLARGE, path,
                           "with %s the request has %lld tokens; at most %lld are taken at once, so send several", path,
                           (long long)p->out->n_prompt_tokens, (long long)limits.request_tokens);
}

static logitd_status add_text(parse *p, int i, const char *path, const char *text, size_t n) {
    token_vec v = {0};
    const size_t fewest = n / tokenizer_longest(p->tokenizer);
    if (fewest > (size_t)p->model->n_ctx) { // not worth encoding
        return error_set_param(p->err, LOGITD_EINVAL, path,
                               "%s has %zu bytes, so at least %zu tokens; this model's context takes at most %d", path,
                               n, fewest, p->model->n_ctx);
    }
    logitd_status status = tokenizer_encode(p->tokenizer, text, n, p->add_bos, p->special, &v, p->err);
    if (status && p->err && !*p->err->param) snprintf(p->err->param, sizeof p->err->param, "%s", path);
    if (!status) status = check_length(p, path, v.n);
    if (!status) {
        int32_t *ids = arena_alloc(&p->out->memory, v.n, sizeof *ids);
        uint32_t *offsets = arena_alloc(&p->out->memory, v.n, sizeof *offsets);
        if (ids && offsets) {
            p->prompts[i] = (logitd_prompt){.tokens = memcpy(ids, v.ids, v.n * sizeof *ids), .n_tokens = (int)v.n};
            p->out->offsets[i] = memcpy(offsets, v.offsets, v.n * sizeof *offsets);
        } else {
            status = no_memory(p);
        }
    }
    token_vec_free(&v);
    return status;
}

static logitd_status add_ids(parse *p, int i, const char *path, const json_node *array) {
    int n = json_length(array);
    logitd_status status = check_length(p, path, (size_t)n);
    if (status) return status;
    int32_t *ids = arena_alloc(&p->out->memory, (size_t)n, sizeof *ids);
    if (!ids) return no_memory(p);
    p->prompts[i] = (logitd_prompt){.tokens = ids, .n_tokens = n};
    return read_ids(p, array, path, ids);
}

static logitd_status alloc_prompts(parse *p, int n) {
    p->prompts = arena_alloc(&p->out->memory, (size_t)n, sizeof *p->prompts);
    p->out->offsets = arena_alloc(&p->out->memory, (size_t)n, sizeof *p->out->offsets);
    if (!p->prompts || !p->out->offsets) return no_memory(p);
    p->out->request.prompts = p->prompts;
    p->out->request.n_prompts = n;
    return LOGITD_OK;
}

/// An array of strings or of arrays of ids: all of the kind of the first.
static logitd_status read_batch(parse *p, const json_node *node) {
    logitd_status status = want_array(p, node, "prompt", "prompts", 1, (int)limits.prompts);
    if (!status) status = alloc_prompts(p, json_length(node));
    bool ids = prompt_has_ids(node);
    const json_node *item = json_first(node);
    for (int i = 0; !status && item; i++, item = json_next(item)) {
        char path[32], found[JSON_DESCRIBE_BYTES];
        snprintf(path, sizeof path, "prompt[%d]", i);
        if (ids && json_is_array(item)) {
            status = add_ids(p, i, path, item);
        } else if (!ids && json_is_string(item)) {
            status = add_text(p, i, path, json_text(item), strlen(json_text(item)));
        } else {
            status =
                error_set_param(p->err, LOGITD_EINVAL, path,
                                "%s is %s; the prompts of a batch must all be strings or all be arrays of token ids",
                                path, json_describe(item, found));
        }
    }
    return status;
}

static logitd_status read_prompt(parse *p, const json_node *node) {
    if (!node) {
        return error_set_param(
            p->err, LOGITD_EINVAL, "prompt",
            "prompt is missing; send a string, an array of strings, an array of token ids, or an array of "
            "arrays of ids");
    }
    const json_node *first = json_is_array(node) ? json_first(node) : NULL;
    if (first && json_is_number(first)) { // one prompt of ids
        logitd_status status = alloc_prompts(p, 1);
        return status ? status : add_ids(p, 0, "prompt", node);
    }
    if (json_is_array(node)) return read_batch(p, node);
    const char *text;
    logitd_status status = json_is_string(node) ? alloc_prompts(p, 1) : LOGITD_OK;
    if (!status && !json_read_string(node, "prompt", &text, NULL)) return add_text(p, 0, "prompt", text, strlen(text));
    char found[JSON_DESCRIBE_BYTES];
    return status
               ? status
               : error_set_param(p->err, LOGITD_EINVAL, "prompt",
                                 "prompt is %s; it must be a string, an array of strings, an array of token ids, or an "
                                 "array of arrays of ids",
                                 json_describe(node, found));
}

// ------------------------------------------------------------------------------------------------------- positions

/// Room for n positions of prompt i, counted against the request's limit. NULL: p->err is set.
static int32_t *alloc_positions(parse *p, int i, int64_t n) {
    p->out->n_positions += n;
    if (p->out->n_positions > limits.request_positions) {
        error_set_param(
            p->err, LOGITD_ETOOLARGE, "positions",
            "positions asks for %lld rows or more over the prompts; one request takes at most %lld, so send several",
            (long long)p->out->n_positions, (long long)limits.request_positions);
        return NULL;
    }
    int32_t *positions = arena_alloc(&p->out->memory, (size_t)n, sizeof *positions);
    if (!positions) no_memory(p);
    p->prompts[i].positions = positions;
    p->prompts[i].n_positions = (int)n;
    return positions;
}

/// n positions from `start` on in steps of `step`, all inside the prompt.
static logitd_status add_range(parse *p, int i, int64_t start, int64_t step, int64_t n) {
    int32_t *positions = alloc_positions(p, i, n);
    if (!positions) return p->err->status;
    for (int64_t k = 0; k < n; k++) positions[k] = (int32_t)(start + k * step);
    return LOGITD_OK;
}

static logitd_status add_listed(parse *p, int i, const json_node *array) {
    int n_tokens = p->prompts[i].n_tokens, k = 0;
    int32_t *positions = alloc_positions(p, i, json_length(array));
    if (!positions) return p->err->status;
    for (const json_node *item = json_first(array); item; item = json_next(item), k++) {
        char path[32], found[JSON_DESCRIBE_BYTES];
        snprintf(path, sizeof path, "positions[%d]", k);
        int64_t position;
        if (json_read_int(item, path, -(int64_t)n_tokens, n_tokens - 1, &position, NULL)) {
            return error_set_param(p->err, LOGITD_EINVAL, path,
                                   "%s is %s; prompt %d has %d tokens, so it must be an integer from %d to %d", path,
                                   json_describe(item, found), i, n_tokens, -n_tokens, n_tokens - 1);
        }
        positions[k] = (int32_t)(position < 0 ? position + n_tokens : position);
    }
    return LOGITD_OK;
}

typedef struct slice {
    bool has_start, has_stop;
    int64_t start, stop, step;
} slice;

/// A bound of a slice as Python takes it (PySlice_AdjustIndices): from the end when negative, then clamped.
static int64_t adjust_bound(int64_t bound, int64_t n, bool backwards) {
    if (bound < 0) bound += n;
    int64_t lowest = backwards ? -1 : 0;
    return MAX(lowest, MIN(bound, n + lowest));
}

static logitd_status add_slice(parse *p, int i, const slice *s) {
    int64_t n = p->prompts[i].n_tokens;
    bool backwards = s->step < 0;
    int64_t start = s->has_start ? adjust_bound(s->start, n, backwards) : backwards ? n - 1 : 0;
    int64_t stop = s->has_stop ? adjust_bound(s->stop, n, backwards) : backwards ? -1 : n;
    int64_t distance = backwards ? start - stop : stop - start, stride = backwards ? -s->step : s->step;
    return add_range(p, i, start, s->step, distance > 0 ? (distance - 1) / stride + 1 : 0);
}

#define SLICE_MAX (1ll << 53) // integers that a JSON number holds exactly; bounds are clamped to the prompt anyway

static logitd_status read_slice(parse *p, const json_node *node, slice *out) {
    static const char *const names[] = {"start", "stop", "step"};
    *out = (slice){.step = 1};
    int64_t *const values[] = {&out->start, &out->stop, &out->step};
    bool has[3] = {false};
    logitd_status status = json_check_members(node, "positions", names, ARRAY_LEN(names), p->err);
    for (int i = 0; !status && i < 3; i++) {
        const json_node *member = json_member(node, names[i]);
        if (!member || json_is_null(member)) continue; // null is Python's None
        char path[32];
        snprintf(path, sizeof path, "positions.%s", names[i]);
        has[i] = true;
        status = json_read_int(member, path, -SLICE_MAX, SLICE_MAX, values[i], p->err);
    }
    out->has_start = has[0];
    out->has_stop = has[1];
    if (status || out->step != 0) return status;
    return error_set_param(p->err, LOGITD_EINVAL, "positions.step",
                           "positions.step is 0; it must be positive or negative");
}

static logitd_status read_positions(parse *p, const json_node *node) {
    enum { ALL, LAST, LISTED, SLICE } form = ALL;
    slice s = {.step = 1};
    logitd_status status = LOGITD_OK;
    if (node && json_is_array(node)) {
        form = LISTED;
    } else if (node && json_is_object(node)) {
        form = SLICE;
        status = read_slice(p, node, &s);
    } else if (node && json_is_string(node) && strcmp(json_text(node), "last") == 0) {
        form = LAST;
    } else if (node && !(json_is_string(node) && strcmp(json_text(node), "all") == 0)) {
        char found[JSON_DESCRIBE_BYTES];
        status =
            error_set_param(p->err, LOGITD_EINVAL, "positions",
                            "positions is %s; it must be \"all\", \"last\", an array of integers, or an object with "
                            "start, stop and step",
                            json_describe(node, found));
    }
    for (int i = 0; !status && i < p->out->request.n_prompts; i++) {
        int n_tokens = p->prompts[i].n_tokens;
        status = form == ALL     ? add_range(p, i, 0, 1, n_tokens)
                 : form == LAST  ? add_range(p, i, n_tokens - 1, 1, 1)
                 : form == SLICE ? add_slice(p, i, &s)
                                 : add_listed(p, i, node);
    }
    return status;
}

// ------------------------------------------------------------------------------------------------------- the table

static const struct {
    const char *name;
    logitd_status (*read)(parse *p, const json_node *node); // node: NULL when the field is absent
} fields[] = {
    {"format", read_format}, {"dtype", read_dtype},         {"temperatures", read_temperatures},
    {"temperature", NULL}, // by read_temperatures
    {"top_n", read_top_n},   {"values", read_values},       {"token_ids", read_token_ids},
    {"stats", read_stats},   {"add_bos", read_add_bos},     {"special", read_special},
    {"prompt", read_prompt}, {"positions", read_positions},
};

logitd_status dist_request_parse(const logitd_engine *engine, const char *body, size_t n, const char *accept,
                                 dist_request *out, logitd_error *err) {
    *out = (dist_request){0};
    json_node *root = json_parse(body, n, err);
    if (!root) return err->status;
    parse p = {.model = logitd_model(engine),
               .tokenizer = logitd_tokenizer(engine),
               .root = root,
               .accept = accept,
               .out = out,
               .err = err};
    const char *names[ARRAY_LEN(fields)];
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) names[i] = fields[i].name;
    logitd_status status = json_check_members(root, "", names, ARRAY_LEN(names), err);
    for (size_t i = 0; !status && i < ARRAY_LEN(fields); i++) {
        if (fields[i].read) status = fields[i].read(&p, json_member(root, fields[i].name));
    }
    json_free(root);
    return status;
}

logitd_status dist_request_from_text(const logitd_engine *engine, const char *text, size_t n, dist_request *out,
                                     logitd_error *err) {
    static const double one = 1.0;
    *out = (dist_request){.stats = true, .request = {.temperatures = &one, .n_temperatures = 1, .top_n = 20}};
    parse p = {.model = logitd_model(engine), .tokenizer = logitd_tokenizer(engine), .out = out, .err = err};
    p.add_bos = p.model->add_bos;
    logitd_status status = alloc_prompts(&p, 1);
    if (!status) status = add_text(&p, 0, "the text", text, n);
    if (!status) status = add_range(&p, 0, 0, 1, p.prompts[0].n_tokens);
    return status;
}

void dist_request_free(dist_request *request) {
    arena_free(&request->memory);
    *request = (dist_request){0};
}
