/*
 * cmd_serve.c: logitd serve. Opens the engine, starts the scheduler and the HTTP server, and waits for SIGTERM or
 * SIGINT.
 *
 * The first signal drains: accepted requests are answered, new ones get 503, then the process ends with 0. A second
 * signal at any time, or the end of --drain-seconds, cancels what is left. With --drain-delay-seconds a load balancer
 * first has that long to see in /health that it is to send no more. SIGHUP reads the file of keys again.
 */
#include "commands.h"
#include "http_server.h"
#include "limits.h"
#include "routes.h"
#include <signal.h>
#include <stddef.h>
#include <time.h>

#define DRAIN_S 60 // unless --drain-seconds says otherwise; systemd sends SIGKILL after 90 s
#define CUT_S   2  // for the last replies, which say that the request was cancelled

enum {
    OPTION_HOST = 256,
    OPTION_PORT,
    OPTION_DRAIN,
    OPTION_DRAIN_DELAY,
    OPTION_TLS_CERT,
    OPTION_TLS_KEY,
    OPTION_KEYS,
    OPTION_ORIGIN,
    OPTION_ALLOW_HOST,
    OPTION_HELP,
    OPTION_LIMIT
}; // OPTION_LIMIT + i: limit_rows[i]

static const struct option long_options[] = {
    ENGINE_OPTIONS,
    {"host", required_argument, NULL, OPTION_HOST},
    {"port", required_argument, NULL, OPTION_PORT},
    {"drain-seconds", required_argument, NULL, OPTION_DRAIN},
    {"drain-delay-seconds", required_argument, NULL, OPTION_DRAIN_DELAY},
    {"tls-cert", required_argument, NULL, OPTION_TLS_CERT},
    {"tls-key", required_argument, NULL, OPTION_TLS_KEY},
    {"api-keys", required_argument, NULL, OPTION_KEYS},
    {"allow-origin", required_argument, NULL, OPTION_ORIGIN},
    {"allow-host", required_argument, NULL, OPTION_ALLOW_HOST},
    {"help", no_argument, NULL, OPTION_HELP},
#define LIMIT_OPTION(name, flag, initial, least, most, what)                                                           \
    {flag, required_argument, NULL, OPTION_LIMIT + LIMIT_INDEX(name)},
    SETTABLE_LIMITS(LIMIT_OPTION)
#undef LIMIT_OPTION
        {0},
};

static void print_help(void) {
    printf(
        "logitd serve --model M.gguf [OPTIONS]: answers POST /distribution over HTTP\n\n"
        "  --host H              address to listen on (default 127.0.0.1)\n"
        "  --port N              port; 0 picks a free one (default 8080)\n"
        "  --drain-seconds N     how long SIGTERM lets accepted requests go on (default %d); a second SIGTERM or "
        "Ctrl-C\n"
        "                        cancels them at once\n"
        "  --drain-delay-seconds N  how long SIGTERM first only makes /health not ready: for a load balancer (default "
        "0)\n"
        "  --tls-cert FILE       PEM certificate, with its chain: HTTPS; needs --tls-key FILE\n"
        "  --api-keys FILE       lines of \"name key\"; all but pages, /health need one then; SIGHUP reads it again\n"
        "  --allow-origin O      let pages of this origin ask (CORS), \"*\": of any; may be repeated\n"
        "  --allow-host NAME     a name besides localhost that a server on loopback answers to; may be repeated\n%s"
        "\nLimits, all integers, with their defaults; GET /model shows them:\n",
        DRAIN_S, options_engine_help);
    for (int i = 0; i < n_limit_rows; i++) {
        const limit_row *row = &limit_rows[i];
        printf("  --%-25s %s (%lld)\n", row->flag, row->what, (long long)row->initial);
    }
    printf("\nThe line \"listening on http://H:N\" goes to stdout once it answers. SIGTERM drains and ends with 0.\n");
}

static bool read_limit(const limit_row *row, const char *text) {
    logitd_error err;
    if (!limit_set(row, text, &err)) return true;
    fprintf(stderr, "logitd: %s\n", err.message);
    return false;
}

static bool add_name(const char *option, const char *name, const char **list, int *n) {
    if (*n < GATE_NAMES_MAX) {
        list[(*n)++] = name;
        return true;
    }
    fprintf(stderr, "logitd: --%s is given more than %d times\n", option, GATE_NAMES_MAX);
    return false;
}

typedef struct serve_options {
    logitd_options engine;
    http_options http;
    gate_options gate;
    int drain_s, drain_delay_s;
} serve_options;

static bool read_server_option(int option, serve_options *out) {
    gate_options *g = &out->gate;
    switch (option) {
    case OPTION_HOST:
        out->http.host = optarg;
        return true;
    case OPTION_PORT:
        return options_int("port", optarg, 0, 65535, &out->http.port);
    case OPTION_DRAIN:
        return options_int("drain-seconds", optarg, 0, 86400, &out->drain_s);
    case OPTION_DRAIN_DELAY:
        return options_int("drain-delay-seconds", optarg, 0, 3600, &out->drain_delay_s);
    case OPTION_TLS_CERT:
        out->http.tls_cert_path = optarg;
        return true;
    case OPTION_TLS_KEY:
        out->http.tls_key_path = optarg;
        return true;
    case OPTION_KEYS:
        g->keys_path = optarg;
        return true;
    case OPTION_ORIGIN:
        return add_name("allow-origin", optarg, g->origins, &g->n_origins);
    case OPTION_ALLOW_HOST:
        return add_name("allow-host", optarg, g->hosts, &g->n_hosts);
    default:
        return option < OPTION_LIMIT || read_limit(&limit_rows[option - OPTION_LIMIT], optarg);
    }
}

/// -1: go on; else the exit status.
static int read_options(int argc, char **argv, serve_options *out) {
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
        if (option == '?' || option == ':') return options_wrong("serve", option, argv);
        if (options_engine(option, optarg, &out->engine) == 2 || !read_server_option(option, out)) return 2;
        if (option == OPTION_HELP) {
            print_help();
            return options_shown();
        }
    }
    if (optind < argc) return options_wrong("serve", 0, argv);
    if (!out->http.tls_cert_path != !out->http.tls_key_path) {
        fputs("logitd serve: --tls-cert and --tls-key are needed together\n", stderr);
        return 2;
    }
    if (out->engine.model_path) return -1;
    fputs("logitd serve: --model M.gguf is missing; see logitd serve --help\n", stderr);
    return 2;
}

static sigset_t signal_set(bool with_hangup) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (with_hangup) sigaddset(&set, SIGHUP);
    return set;
}

/// Until SIGTERM or SIGINT; reads the keys again at SIGHUP. Then /health is not ready, for `delay_s`. False: a second
/// signal came first.
static bool wait_for_the_end(service *s, int delay_s) {
    const sigset_t all = signal_set(true);
    int number = 0;
    while (sigwait(&all, &number) != 0 || number == SIGHUP) {
        logitd_error err = {0};
        if (number == SIGHUP && gate_reload(s->gate, &err))
            log_line(LOG_ERROR, "SIGHUP: %s; the keys stay as they were", err.message);
    }
    log_line(LOG_INFO, "%s: draining", number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_manager("STOPPING=1");
    atomic_store(&s->leaving, true);
    const sigset_t ending = signal_set(false);
    return delay_s == 0 || sigtimedwait(&ending, NULL, &(struct timespec){.tv_sec = delay_s}) < 0;
}

/// Until no request is in flight: true. False at a signal or after `seconds`. Looks every 20 ms, only at the end.
static bool wait_for_requests(http_server *http, int seconds, const sigset_t *signals) {
    const struct timespec tick = {.tv_nsec = 20 * 1000 * 1000};
    int64_t end_us = clock_us() + seconds * 1000000ll;
    while (http_server_n_exchanges(http) > 0) {
        if (sigtimedwait(signals, NULL, &tick) > 0 || clock_us() > end_us) return false;
    }
    return true;
}

/// `patient`: what was accepted may go on for `drain_s`.
static void drain(http_server *http, sched *scheduler, bool patient, int drain_s, const sigset_t *signals) {
    sched_drain(scheduler);
    bool drained = patient && wait_for_requests(http, drain_s, signals);
    if (!drained) log_line(LOG_WARN, "a second signal, or not drained after %d s: cancelling what is left", drain_s);
    sched_cancel_all(scheduler); // after this no exchange sleeps
    if (!drained) wait_for_requests(http, CUT_S, signals);
}

/// Serves until a signal ends it, with everything that it needs made.
static logitd_status listen_and_wait(service *shared, const serve_options *options, logitd_error *err) {
    http_options http = options->http;
    http.routes = routes;
    http.n_routes = n_routes;
    http.context = shared;
    http.admit = service_admit;
    http.observe = service_observe;
    http_server *server;
    logitd_status status = http_server_create(&http, &server, err);
    if (status) return status;
    printf("listening on %s\n", http_server_url(server));
    if (fflush(stdout) != 0) log_line(LOG_WARN, "cannot write stdout; listening on %s", http_server_url(server));
    notify_manager("READY=1");
    const bool patient = wait_for_the_end(shared, options->drain_delay_s);
    const sigset_t ending = signal_set(false);
    drain(server, shared->sched, patient, options->drain_s, &ending);
    http_server_free(server);
    return LOGITD_OK;
}

static logitd_status serve(logitd_engine *engine, const serve_options *options, logitd_error *err) {
    sched *scheduler;
    service shared = {0};
    logitd_status status = sched_create(&(sched_options){.engine = engine}, &scheduler, err);
    if (status) return status;
    status = service_init(&shared, engine, scheduler, err);
    if (!status) status = gate_create(&options->gate, &shared.gate, err);
    if (!status) {
        shared.memory = memory_plan_make(logitd_model(engine));
        status = memory_plan_enforce(&shared.memory, err);
    }
    if (!status) status = listen_and_wait(&shared, options, err);
    gate_free(shared.gate);
    sched_free(scheduler);
    service_end(&shared);
    return status;
}

int cmd_serve(int argc, char **argv) {
    serve_options options = {.http = {.port = 8080}, .drain_s = DRAIN_S};
    int exit_status = read_options(argc, argv, &options);
    if (exit_status >= 0) return exit_status;
    const sigset_t signals = signal_set(true);
    // before any thread starts, the engine's included: only sigwait takes them
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    logitd_engine *engine = options_open(&options.engine);
    if (!engine) return 1;
    const logitd_model_info *m = logitd_model(engine);
    log_line(LOG_INFO, "%s: %s, %d tokens of vocabulary, context %d, %s %s %s, %d threads", m->name, m->architecture,
             m->n_vocab, m->n_ctx, m->backend, m->kernel, m->precision, m->n_threads);
    logitd_error err = {0};
    logitd_status status = serve(engine, &options, &err);
    logitd_close(engine);
    if (status) fprintf(stderr, "logitd: %s\n", err.message);
    return status ? 1 : 0;
}
