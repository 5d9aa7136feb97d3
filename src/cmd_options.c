// cmd_options.c: command-line options that several subcommands share; see commands.h.
#include "commands.h"
#include "limits.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUIET_US = 500000, BAR_US = 50000, LOG_US = 2000000 }; // of a load: unseen at first, then shown so often

const char options_engine_help[] =
    "  --model M.gguf        the model file (required)\n"
    "  --backend B           auto, cpu or cuda (default auto)\n"
    "  --precision P         exact, fast or bf16 (default exact)\n"
    "  --threads N           worker threads (default: the processors of this process)\n"
    "  --cpu LEVEL           auto, reference, portable, avx2, avx512, avx512vnni or neon (default auto)\n"
    "  --ctx N               longest prompt in tokens (default: the model's context, at most 8192)\n"
    "  --batch-tokens N      tokens of one batch (default 512)\n"
    "  --kv-tokens N         tokens that the KV cache holds (default: one context and four batches)\n"
    "  --log-level L         error, warn, info or debug (default info)\n"
    "  --log-format F        text or json: an object a line, on stderr (default text)\n";

bool options_int(const char *name, const char *text, long min, long max, int *out) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (!errno && end != text && !*end && value >= min && value <= max) {
        *out = (int)value;
        return true;
    }
    fprintf(stderr, "logitd: --%s is \"%s\"; it must be an integer from %ld to %ld\n", name, text, min, max);
    return false;
}

static int read_log_level(const char *text) {
    static const char *const names[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) != 0) continue;
        log_threshold = (log_level)i;
        return 0;
    }
    fprintf(stderr, "logitd: --log-level is \"%s\"; it must be error, warn, info or debug\n", text);
    return 2;
}

static int read_log_format(const char *text) {
    log_as_json = strcmp(text, "json") == 0;
    if (log_as_json || strcmp(text, "text") == 0) return 0;
    fprintf(stderr, "logitd: --log-format is \"%s\"; it must be text or json\n", text);
    return 2;
}

int options_engine(int option, const char *value, logitd_options *out) {
    switch (option) {
    case 'm':
        out->model_path = value;
        return 0;
    case 'b':
        out->backend = value;
        return 0;
    case 'P':
        out->precision = value;
        return 0;
    case 'C':
        out->cpu_level = value;
        return 0;
    case 't':
        return options_int("threads", value, 1, LIMIT_THREADS, &out->n_threads) ? 0 : 2;
    case 'c':
        return options_int("ctx", value, 1, 1 << 20, &out->n_ctx) ? 0 : 2;
    case 'B':
        return options_int("batch-tokens", value, 1, LIMIT_CTX_TOKENS, &out->batch_tokens) ? 0 : 2;
    case 'K':
        return options_int("kv-tokens", value, 1, LIMIT_KV_TOKENS, &out->kv_tokens) ? 0 : 2;
    case 'l':
        return read_log_level(value);
    case 'f':
        return read_log_format(value);
    default:
        return 1;
    }
}

int options_wrong(const char *command, int option, char **argv) {
    const char *word = option == 0 ? argv[optind] : argv[optind - 1];
    const char *what = option == ':' ? "needs a value"
                       : option == 0 ? "is not expected"
                                     : "is no option of this command";
    fprintf(stderr, "logitd %s: %s %s; see logitd %s --help\n", command, word, what, command);
    return 2;
}

int options_shown(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    fprintf(stderr, "logitd: cannot write stdout: %s\n", strerror(errno));
    return 1;
}

void progress_draw(double fraction, const char *text) {
    enum { WIDTH = 40 };
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) bar[i] = i < (int)(fraction * WIDTH) ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %s", bar, text);
    log_over_bar(true);
}

void progress_clear(void) {
    log_over_bar(false);
    fputs("\r\033[K", stderr);
}

/// A load that is shown.
typedef struct load_view {
    bool terminal;   // of stderr: a bar, else lines of the log
    int64_t next_us; // nothing is shown before it
} load_view;

static void show_load(void *arg, const char *what, double fraction) {
    load_view *view = arg;
    if (clock_us() < view->next_us) return;
    char text[80];
    snprintf(text, sizeof text, "%s, %.0f %%", what, fraction * 100);
    if (view->terminal)
        progress_draw(fraction, text);
    else
        log_line(LOG_INFO, "loading: %s", text);
    view->next_us = clock_us() + (view->terminal ? BAR_US : LOG_US);
}

logitd_engine *options_open(logitd_options *options) {
    logitd_engine *engine;
    logitd_error err = {0};
    load_view view = {.terminal = isatty(STDERR_FILENO), .next_us = clock_us() + QUIET_US};
    options->progress = show_load;
    options->progress_arg = &view;
    logitd_status status = logitd_open(options, &engine, &err);
    if (view.terminal) progress_clear();
    if (!status) return engine;
    fprintf(stderr, "logitd: %s\n", err.message);
    return NULL;
}
