/*
 * fuzz_http.c: raw bytes at the real server: http_server, routes and scheduler in this process, over the fake engine.
 * Byte 0 says how the bytes are cut into pieces; each piece is written at once, the next after a pause. Whatever comes,
 * what comes back begins as HTTP does, no status is one that openapi.json does not know, the connection ends soon after
 * the client's side ended, and nothing of the request is left. Between inputs a right request must get its right reply.
 */
#include "fuzz.h"
#include "http_server.h"
#include "limits.h"
#include "routes.h"
#include "unit/fake_engine.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUIET_MS    2     // without a byte from the server: it waits for more, or works
#define PATIENCE_MS 20000 // for what must come
#define CHECK_EVERY 32    // inputs

static service shared;
static http_server *server;
static int port;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    logitd_error err;
    log_threshold = LOG_ERROR;
    signal(SIGPIPE, SIG_IGN);
    limits.request_positions = 40;
    limits.request_tokens = 400;
    limits.body_bytes = 4096; // 413s are within reach
    limits.json_values = 1000;
    limits.prompts = 8;
    limits.header_s = limits.body_s = limits.stall_s = 10;
    mem_set_ceiling(1 << 30);
    logitd_engine *engine = fake_open();
    sched *scheduler;
    static const gate_options open = {0};
    ASSERT(!sched_create(&(sched_options){.engine = engine}, &scheduler, &err));
    ASSERT(!service_init(&shared, engine, scheduler, &err) && !gate_create(&open, &shared.gate, &err));
    const http_options options = {
        .routes = routes, .n_routes = n_routes, .context = &shared, .admit = service_admit, .observe = service_observe};
    ASSERT(!http_server_create(&options, &server, &err));
    port = atoi(strrchr(http_server_url(server), ':') + 1);
    return 0;
}

static int connect_to_server(void) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // A reset at close leaves no port in TIME_WAIT, of which there are 28,000.
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ASSERT(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    ASSERT(connect(fd, (const struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/// Appends what comes until `ms` pass without a byte. False: the connection has ended.
static bool read_some(int fd, int ms, buffer *out) {
    char bytes[16384];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ms) == 0) return true;
        const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n <= 0) return false;
        buffer_append(out, bytes, (size_t)n);
    }
}

/// The first reply's status line; those that follow cannot be told apart without the requests.
static void check_status(const buffer *reply) {
    static const int known[] = {100, 200, 204, 400, 401, 403, 404, 405, 413, 414, 415, 429, 431, 501, 503, 505};
    if (reply->len == 0) return; // it closed without a word
    ASSERT(reply->len > strlen("HTTP/1.1 200 ") && strncmp(reply->data, "HTTP/1.", strlen("HTTP/1.")) == 0);
    const int status = atoi(reply->data + strlen("HTTP/1.1 "));
    bool found = false;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) found |= status == known[i];
    if (!found) fprintf(stderr, "%.400s\n", reply->data);
    ASSERT(found);
}

static void wait_until_nothing_is_left(void) {
    const int64_t end_us = clock_us() + PATIENCE_MS * 1000ll;
    while (http_server_n_exchanges(server) > 0 || fake_n_live_jobs() > 0) {
        ASSERT(clock_us() < end_us);
        usleep(100);
    }
}

static void check_alive(void) {
    static const char request[] = "POST /distribution HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                  "Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}";
    buffer reply = {0};
    const int fd = connect_to_server();
    ASSERT(send(fd, request, sizeof request - 1, 0) == (ssize_t)sizeof request - 1);
    ASSERT(!read_some(fd, PATIENCE_MS, &reply));
    close(fd);
    ASSERT(strncmp(reply.data, "HTTP/1.1 200 ", strlen("HTTP/1.1 200 ")) == 0 && strstr(reply.data, "\"results\":["));
    buffer_free(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static unsigned n_inputs;
    cursor c = cursor_make(data, MIN(n, (size_t)16384));
    const uint8_t cut = cursor_u8(&c);
    const size_t n_left = (size_t)(c.end - c.p), piece = cut < 192 || !n_left ? n_left : n_left / (cut - 190u) + 1;
    buffer reply = {0};
    const int fd = connect_to_server();
    bool open = true;
    for (size_t at = 0; at < n_left && open; at += piece) {
        const size_t some = MIN(piece, n_left - at);
        open = send(fd, c.p + at, some, 0) == (ssize_t)some && read_some(fd, QUIET_MS, &reply);
    }
    if (open) {
        shutdown(fd, SHUT_WR);
        ASSERT(!read_some(fd, PATIENCE_MS, &reply)); // it does not stay open for a client that has gone
    }
    close(fd);
    check_status(&reply);
    buffer_free(&reply);
    wait_until_nothing_is_left();
    if (++n_inputs % CHECK_EVERY == 1) check_alive();
    return 0;
}
