/*
 * http_conns.c: see http_conns.h. `mutex` guards the list and what links it, and is held while a listed connection is
 * used, so that its socket is open. What a connection is expected to do is atomic, since the thread that serves it says
 * so at every piece of a reply. An epoll event names a connection by its serial number, never by its address, since the
 * connection may be gone by then.
 */
#include "http_conns.h"
#include "limits.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPARE_PER_CLIENT    8    // connections above a client's limit that are told so; more are closed at once
#define SWEEP_MS            1000 // between two looks at what is late,
#define HURRY_MS            100  // … while a client that hung up has been promised nothing
#define SLOWEST_BYTES_PER_S 1024 // of a reader of a large piece
#define CLIENT_BYTES        64   // of a client's name, with its NUL

struct http_conn {
    http_conn *next, **prev;
    int fd;
    uint64_t serial; // from 1
    http_crowd crowd;
    char client[CLIENT_BYTES];
    atomic_int expected;        // http_expected
    _Atomic int64_t hung_up_us; // 0: it has not
    _Atomic int64_t due_us;     // INT64_MAX: nothing is due
};

struct http_conns {
    void (*on_hang_up)(void *arg, const http_conn *conn);
    void *arg;
    pthread_t watcher;
    int epoll_fd, stop_fd; // stop_fd: an eventfd that ends the watcher
    pthread_mutex_t mutex;
    http_conn *first;
    int n;
    uint64_t last_serial;
};

// ------------------------------------------------------------------------------------------------------- watcher

static void cut(http_conn *conn, const char *why) {
    static const char *const expected[] = {"", "send a request's headers", "send a request's body", "read the reply"};
    log_line(LOG_DEBUG, "a connection of %s is cut: it was to %s, but %s", conn->client,
             expected[atomic_load(&conn->expected)], why);
    shutdown(conn->fd, SHUT_RDWR);
    atomic_store(&conn->due_us, INT64_MAX);
    atomic_store(&conn->expected, EXPECT_NOTHING);
}

/// Whether a client that hung up still owes bytes: all that came before its end was read a while ago.
static bool owes_bytes(const http_conn *conn, int64_t now) {
    int64_t since = atomic_load(&conn->hung_up_us);
    int expected = atomic_load(&conn->expected), n_unread = 0;
    if (since == 0 || (expected != EXPECT_HEADERS && expected != EXPECT_BODY)) return false;
    return now - since >= HURRY_MS * 1000ll && ioctl(conn->fd, FIONREAD, &n_unread) == 0 && n_unread == 0;
}

/// Returns whether the next sweep is urgent.
static bool sweep(http_conns *c) {
    bool urgent = false;
    pthread_mutex_lock(&c->mutex);
    int64_t now = clock_us();
    for (http_conn *conn = c->first; conn; conn = conn->next) {
        if (owes_bytes(conn, now)) {
            cut(conn, "it hung up");
        } else if (atomic_load(&conn->due_us) < now) {
            cut(conn, "it is late");
        }
        urgent |= http_conn_hung_up(conn);
    }
    pthread_mutex_unlock(&c->mutex);
    return urgent;
}

static void hang_up(http_conns *c, uint64_t serial) {
    pthread_mutex_lock(&c->mutex);
    http_conn *conn = c->first;
    while (conn && conn->serial != serial) conn = conn->next;
    if (conn) {
        atomic_store(&conn->hung_up_us, clock_us());
        c->on_hang_up(c->arg, conn);
    }
    pthread_mutex_unlock(&c->mutex);
}

static void *watcher_main(void *arg) {
    http_conns *c = arg;
    int64_t swept_us = clock_us();
    for (bool urgent = false;;) {
        struct epoll_event events[64];
        const int wait_ms = urgent ? HURRY_MS : SWEEP_MS;
        int n = epoll_wait(c->epoll_fd, events, (int)ARRAY_LEN(events), wait_ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == 0) return NULL; // stop_fd
            hang_up(c, events[i].data.u64);
        }
        urgent |= n > 0;
        if (clock_us() - swept_us < wait_ms * 1000ll) continue;
        urgent = sweep(c);
        swept_us = clock_us();
    }
}

logitd_status http_conns_create(void (*on_hang_up)(void *arg, const http_conn *conn), void *arg, http_conns **out,
                                logitd_error *err) {
    *out = NULL;
    http_conns *c = mem_alloc(1, sizeof *c);
    if (!c) return error_set(err, LOGITD_ENOMEM, "no memory for the HTTP server");
    c->on_hang_up = on_hang_up;
    c->arg = arg;
    c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    c->stop_fd = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&c->mutex, NULL);
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = 0};
    if (c->epoll_fd >= 0 && c->stop_fd >= 0 && epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->stop_fd, &stop) == 0 &&
        pthread_create(&c->watcher, NULL, watcher_main, c) == 0) {
        *out = c;
        return LOGITD_OK;
    }
    if (c->epoll_fd >= 0) close(c->epoll_fd);
    if (c->stop_fd >= 0) close(c->stop_fd);
    pthread_mutex_destroy(&c->mutex);
    mem_free(c);
    return error_set(err, LOGITD_EIO, "the system refused the thread that watches connections");
}

void http_conns_free(http_conns *c) {
    if (!c) return;
    ASSERT(!c->first);
    uint64_t one = 1;
    ssize_t written = write(c->stop_fd, &one, sizeof one);
    ASSERT(written == (ssize_t)sizeof one);
    pthread_join(c->watcher, NULL);
    close(c->epoll_fd);
    close(c->stop_fd);
    pthread_mutex_destroy(&c->mutex);
    mem_free(c);
}

// --------------------------------------------------------------------------------------------------- connections

static void name_client(const struct sockaddr *address, char out[CLIENT_BYTES]) {
    snprintf(out, CLIENT_BYTES, "unknown");
    if (address && address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        inet_ntop(AF_INET, &v4.sin_addr, out, CLIENT_BYTES);
    } else if (address && address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
            inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], out, CLIENT_BYTES);
            return;
        }
        memset(&v6.sin6_addr.s6_addr[8], 0, 8); // one household has a whole /64
        inet_ntop(AF_INET6, &v6.sin6_addr, out, CLIENT_BYTES);
    }
}

/// Lock held.
static int count_of(const http_conns *c, const char *client) {
    int n = 0;
    for (const http_conn *conn = c->first; conn; conn = conn->next) n += strcmp(conn->client, client) == 0;
    return n;
}

http_conn *http_conn_add(http_conns *c, int fd, const struct sockaddr *address) {
    http_conn *conn = mem_alloc(1, sizeof *conn);
    if (!conn) return NULL;
    conn->fd = fd;
    name_client(address, conn->client);
    http_conn_expect(conn, EXPECT_HEADERS, 0);
    pthread_mutex_lock(&c->mutex);
    conn->serial = ++c->last_serial;
    const int n_others = count_of(c, conn->client);
    conn->crowd = c->n >= limits.connections                  ? CROWD_SERVER
                  : n_others >= limits.connections_per_client ? CROWD_CLIENT
                                                              : CROWD_NONE;
    if (n_others >= limits.connections_per_client + SPARE_PER_CLIENT) cut(conn, "its client has too many");
    conn->next = c->first;
    conn->prev = &c->first;
    if (conn->next) conn->next->prev = &conn->next;
    c->first = conn;
    c->n++;
    pthread_mutex_unlock(&c->mutex);
    // The last event of a connection, hence once. Closing the socket takes it out of the set.
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLONESHOT, .data.u64 = conn->serial};
    if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return conn;
    log_line(LOG_WARN, "cannot watch a connection: %s", strerror(errno));
    http_conn_remove(c, conn);
    return NULL;
}

void http_conn_remove(http_conns *c, http_conn *conn) {
    pthread_mutex_lock(&c->mutex);
    *conn->prev = conn->next;
    if (conn->next) conn->next->prev = conn->prev;
    c->n--;
    pthread_mutex_unlock(&c->mutex);
    mem_free(conn);
}

const char *http_conn_client(const http_conn *conn) {
    return conn->client;
}

bool http_conn_hung_up(const http_conn *conn) {
    return atomic_load(&conn->hung_up_us) != 0;
}

http_crowd http_conn_crowd(const http_conn *conn) {
    return conn->crowd;
}

void http_conn_expect(http_conn *conn, http_expected what, size_t n_bytes) {
    const int64_t seconds[] = {0, limits.header_s, limits.body_s,
                               limits.stall_s + (int64_t)(n_bytes / SLOWEST_BYTES_PER_S)};
    atomic_store(&conn->expected, (int)what);
    atomic_store(&conn->due_us, what ? clock_us() + seconds[what] * 1000000 : INT64_MAX);
}
