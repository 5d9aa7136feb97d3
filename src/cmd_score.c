/*
 * cmd_score.c: logitd score. One text through the engine in this thread, without a server: options, the text, the steps
 * with a progress bar, and the reply as JSON, ndjson or safetensors (the server's own encoders) or as a table
 * (cmd_score_table.c).
 */
#include "cmd_score_table.h"
#include "commands.h"
#include "enc_reply.h"
#include "limits.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OPTION_FILE = 256, OPTION_TEMPERATURES, OPTION_TOP_N, OPTION_FORMAT, OPTION_OUT, OPTION_HELP };

static const struct option long_options[] = {
    ENGINE_OPTIONS,
    {"file", required_argument, NULL, OPTION_FILE},
    {"temperatures", required_argument, NULL, OPTION_TEMPERATURES},
    {"top-n", required_argument, NULL, OPTION_TOP_N},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"out", required_argument, NULL, OPTION_OUT},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

typedef struct score_options {
    logitd_options engine;
    const char *file, *out; // NULL: stdin, stdout
    double temperatures[LIMIT_TEMPERATURES];
    int n_temperatures;
    int top_n;
    bool full;
    bool table;
    reply_format format; // unless table
} score_options;

static void print_help(void) {
    printf("logitd score --model M.gguf [--file F] [OPTIONS]: the distributions of one text, from a file or stdin\n\n"
           "  --file F              the text, UTF-8 (default stdin)\n"
           "  --temperatures A,B    1 to %d numbers from %g to %g (default 1)\n"
           "  --top-n N             entries a position, 0 to %d, or full (default 20)\n"
           "  --format F            table, json, ndjson or safetensors (default table)\n"
           "  --out O               the file to write (default stdout)\n%s",
           LIMIT_TEMPERATURES, LIMIT_TEMPERATURE_MIN, LIMIT_TEMPERATURE_MAX, LIMIT_TOP_N, options_engine_help);
}

static bool read_temperatures(const char *text, score_options *o) {
    o->n_temperatures = 0;
    for (const char *p = text;; p++) {
        char *end;
        double t = strtod(p, &end);
        bool valid = end != p && (*end == ',' || !*end) && t >= LIMIT_TEMPERATURE_MIN && t <= LIMIT_TEMPERATURE_MAX;
        if (!valid || o->n_temperatures == LIMIT_TEMPERATURES) break;
        o->temperatures[o->n_temperatures++] = t;
        if (!*end) return true;
        p = end;
    }
    fprintf(stderr,
            "logitd score: --temperatures is \"%s\"; it must be 1 to %d numbers from %g to %g, with commas between\n",
            text, LIMIT_TEMPERATURES, LIMIT_TEMPERATURE_MIN, LIMIT_TEMPERATURE_MAX);
    return false;
}

static bool read_format(const char *text, score_options *o) {
    logitd_error err;
    o->table = strcmp(text, "table") == 0;
    if (o->table || !reply_format_named(text, FORMATS_ALL, &o->format, &err)) return true;
    fprintf(stderr, "logitd score: --format is \"%s\"; it must be table, json, ndjson or safetensors\n", text);
    return false;
}

static bool read_option(int option, score_options *o) {
    switch (option) {
    case OPTION_FILE:
        o->file = optarg;
        return true;
    case OPTION_OUT:
        o->out = optarg;
        return true;
    case OPTION_TEMPERATURES:
        return read_temperatures(optarg, o);
    case OPTION_FORMAT:
        return read_format(optarg, o);
    case OPTION_TOP_N:
        o->full = strcmp(optarg, "full") == 0;
        return o->full || options_int("top-n", optarg, 0, LIMIT_TOP_N, &o->top_n);
    default:
        return options_engine(option, optarg, &o->engine) == 0;
    }
}

/// -1: go on; else the exit status.
static int read_options(int argc, char **argv, score_options *o) {
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
        if (option == '?' || option == ':') return options_wrong("score", option, argv);
        if (option == OPTION_HELP) {
            print_help();
            return options_shown();
        }
        if (!read_option(option, o)) return 2;
    }
    if (optind < argc) return options_wrong("score", 0, argv);
    if (!o->engine.model_path) {
        fputs("logitd score: --model M.gguf is missing; see logitd score --help\n", stderr);
        return 2;
    }
    if (o->table && o->full) {
        fputs("logitd score: --top-n full needs --format json, ndjson or safetensors\n", stderr);
        return 2;
    }
    return -1;
}

static logitd_status read_text(const char *path, buffer *out, logitd_error *err) {
    FILE *in = path ? fopen(path, "rb") : stdin;
    const char *name = path ? path : "stdin";
    if (!in) return error_set(err, LOGITD_EIO, "cannot open %s: %s", name, strerror(errno));
    char chunk[1 << 16];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, in)) > 0 && out->len <= (size_t)limits.body_bytes)
        buffer_append(out, chunk, n);
    bool failed = ferror(in);
    if (path) fclose(in);
    if (failed) return error_set(err, LOGITD_EIO, "cannot read %s: %s", name, strerror(errno));
    if (out->failed) return error_set(err, LOGITD_ENOMEM, "no memory for the text of %s", name);
    if (out->len <= (size_t)limits.body_bytes) return LOGITD_OK;
    return error_set(err, LOGITD_ETOOLARGE, "%s has more than %lld bytes, which is the limit", name,
                     (long long)limits.body_bytes);
}

/// Opens what is written to before the work, which may take long. A file keeps what it holds until empty_out. NULL:
/// said why.
static FILE *open_out(const score_options *o) {
    if (!o->out) return stdout;
    if (util_same_file(o->out, o->file ? o->file : "/dev/stdin") || util_same_file(o->out, o->engine.model_path)) {
        fprintf(stderr, "logitd score: --out is %s, which holds the text or the model; name another file\n", o->out);
        return NULL;
    }
    const int fd = open(o->out, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    FILE *out = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!out) fprintf(stderr, "logitd score: cannot open %s: %s\n", o->out, strerror(errno));
    return out;
}

/// The reply is there: what the file held goes. Devices and pipes hold nothing.
static logitd_status empty_out(const score_options *o, FILE *out, logitd_error *err) {
    if (!o->out || ftruncate(fileno(out), 0) == 0 || errno == EINVAL) return LOGITD_OK;
    return error_set(err, LOGITD_EIO, "cannot write %s: %s", o->out, strerror(errno));
}

// ------------------------------------------------------------------------------------------------------- the work

static void show_progress(int n_done, int n) {
    char text[40];
    snprintf(text, sizeof text, "%d of %d tokens", n_done, n);
    progress_draw(n ? (double)n_done / n : 1.0, text);
}

static logitd_status run(logitd_engine *engine, logitd_job *job, logitd_error *err) {
    logitd_status status = logitd_submit(engine, job, 0, err);
    bool terminal = isatty(STDERR_FILENO);
    while (!status && logitd_job_state(job) == LOGITD_RUNNING) {
        if (terminal) show_progress(logitd_job_rows_ready(job, 0), logitd_job_request(job)->prompts[0].n_positions);
        logitd_step(engine);
    }
    if (terminal) progress_clear();
    if (status || logitd_job_state(job) == LOGITD_DONE) return status;
    *err = *logitd_job_error(job);
    return err->status;
}

/// Full rows for the encoder, some at a time.
typedef struct full_rows {
    logitd_engine *engine;
    logitd_job *job;
    size_t n_vocab;
    float *rows;  // [n][n_vocab] logits
    int first, n; // rows held
} full_rows;

static enc_step full_row(void *arg, int iprompt, int irow, const float **logits, logitd_error *err) {
    full_rows *f = arg;
    if (irow < f->first || irow >= f->first + f->n) {
        const int most = limit_full_rows((int)f->n_vocab);
        if (!f->rows) f->rows = mem_alloc((size_t)most, f->n_vocab * sizeof(float));
        if (!f->rows) {
            error_set(err, LOGITD_ENOMEM, "no memory for full rows");
            return ENC_FAILED;
        }
        f->first = irow;
        f->n = MIN(most, logitd_job_rows_ready(f->job, iprompt) - irow);
        float *places[LIMIT_FULL_ROWS];
        for (int i = 0; i < f->n; i++) places[i] = f->rows + (size_t)i * f->n_vocab;
        if (logitd_project_rows(f->engine, f->job, iprompt, irow, f->n, places, err)) return ENC_FAILED;
    }
    *logits = f->rows + (size_t)(irow - f->first) * f->n_vocab;
    return ENC_MORE;
}

static logitd_status write_encoded(logitd_engine *engine, const dist_request *request, logitd_job *job, FILE *out,
                                   logitd_error *err) {
    const logitd_model_info *model = logitd_model(engine);
    token_json *tokens = token_json_create(logitd_tokenizer(engine));
    if (!tokens) return error_set(err, LOGITD_ENOMEM, "no memory for the texts of the vocabulary");
    full_rows rows = {.engine = engine, .job = job, .n_vocab = (size_t)model->n_vocab};
    enc_source source = {.model = model,
                         .tokenizer = logitd_tokenizer(engine),
                         .tokens = tokens,
                         .request = request,
                         .job = job,
                         .id = "score",
                         .created = time(NULL),
                         .full_row = full_row,
                         .arg = &rows};
    enc_reply encoder = enc_reply_start(&source);
    buffer piece = {0};
    enc_step step = ENC_MORE;
    while (step == ENC_MORE) {
        piece.len = 0;
        step = enc_reply_next(&encoder, &piece);
        if (piece.len && fwrite(piece.data, 1, piece.len, out) != piece.len) break; // the caller looks at ferror
    }
    if (step == ENC_FAILED) *err = *enc_reply_error(&encoder);
    buffer_free(&piece);
    mem_free(rows.rows);
    token_json_free(tokens);
    return step == ENC_FAILED ? err->status : LOGITD_OK;
}

static logitd_status write_reply(logitd_engine *engine, const score_options *o, const dist_request *request,
                                 logitd_job *job, FILE *out, logitd_error *err) {
    logitd_status status = LOGITD_OK;
    if (o->table) {
        score_table_write(logitd_tokenizer(engine), job, out);
    } else {
        status = write_encoded(engine, request, job, out, err);
    }
    bool failed = ferror(out) || fflush(out) != 0;
    if (!failed || status) return status;
    return error_set(err, LOGITD_EIO, "cannot write %s: %s", o->out ? o->out : "stdout", strerror(errno));
}

static logitd_status score(logitd_engine *engine, const score_options *o, FILE *out, logitd_error *err) {
    buffer text = {0};
    dist_request request = {0};
    logitd_job *job = NULL;
    logitd_status status = read_text(o->file, &text, err);
    if (!status) status = dist_request_from_text(engine, text.data ? text.data : "", text.len, &request, err);
    if (!status) {
        request.format = o->format;
        request.request.temperatures = o->temperatures;
        request.request.n_temperatures = o->n_temperatures;
        request.request.top_n = o->full ? 0 : o->table ? MAX(o->top_n, 1) : o->top_n; // the table shows the top one
        request.request.full = o->full;
        status = logitd_job_create(engine, &request.request, &job, err);
    }
    if (!status) status = run(engine, job, err);
    if (!status) status = empty_out(o, out, err);
    if (!status) status = write_reply(engine, o, &request, job, out, err);
    if (job) logitd_withdraw(engine, job, NULL);
    logitd_job_free(job);
    dist_request_free(&request);
    buffer_free(&text);
    return status;
}

int cmd_score(int argc, char **argv) {
    score_options o = {.temperatures = {1.0}, .n_temperatures = 1, .top_n = 20, .table = true};
    int exit_status = read_options(argc, argv, &o);
    if (exit_status >= 0) return exit_status;
    FILE *out = open_out(&o);
    if (!out) return 1;
    logitd_engine *engine = options_open(&o.engine);
    if (!engine) return 1;
    logitd_error err = {0};
    logitd_status status = score(engine, &o, out, &err);
    logitd_close(engine);
    if (o.out && fclose(out) != 0 && !status) {
        status = error_set(&err, LOGITD_EIO, "cannot write %s: %s", o.out, strerror(errno));
    }
    if (status) fprintf(stderr, "logitd score: %s\n", err.message);
    return status ? 1 : 0;
}
