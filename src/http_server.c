/*
 * http_server.c: see http_server.h.
 *
 * Guards. Each exchange's `mutex` guards its `asleep` and `woken`. The server's `mutex` guards the list of
 * exchanges and their count, and each one's `watched` and `told`. Everything else of an exchange belongs to the HTTP
 * thread that serves its connection. Order: server's mutex, then (in client_left) whatever the handler takes, then an
 * exchange's mutex, then libmicrohttpd's.
 */
#include "http_server.h"
#include "access_log.h"
#include "http_accept.h"
#include "http_conns.h"
#include "http_listen.h"
#include "http_stream.h"
#include "limits.h"
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define STREAM_BLOCK_BYTES (64u << 10) // what libmicrohttpd asks of a streamed reply at once
#define ALLOW_BYTES        64          // of an Allow header

typedef struct exchange {
    http_exchange x; // first: the handlers' view
    http_server *server;
    struct MHD_Connection *connection;
    http_conn *conn;
    const http_route *route; // NULL: the reply is an error already
    struct exchange *next, **prev;
    bool watched; // the handler is to be told when the client leaves
    bool told;
    pthread_mutex_t mutex;
    bool asleep;     // suspended in libmicrohttpd
    bool woken;      // since the handler last began
    uint64_t n_body; // bytes received, the discarded ones included
    buffer joined;   // by http_header_list
    buffer headers;  // of the reply, added by handlers: name NUL value NUL …
    http_stream stream;
    bool aborted; // the reply did not get through whole
} exchange;

struct http_server {
    http_options options;
    struct MHD_Daemon *daemon;
    int listen_fd; // libmicrohttpd's once the daemon runs
    char url[128];
    bool on_loopback;
    http_conns *conns;
    struct MHD_Response *no_memory; // made at start, for when nothing can be made any more
    pthread_mutex_t mutex;
    exchange *exchanges;
    int n_exchanges;
};

// -------------------------------------------------------------------------------------------------- sleep and wake

/// Suspends the connection unless it was woken since the handler began. True: asleep.
static bool fall_asleep(exchange *e) {
    pthread_mutex_lock(&e->mutex);
    bool sleep = !e->woken;
    if (sleep) {
        e->asleep = true;
        MHD_suspend_connection(e->connection);
    }
    e->woken = false;
    pthread_mutex_unlock(&e->mutex);
    return sleep;
}

void http_wake(http_exchange *x) {
    exchange *e = (exchange *)x;
    pthread_mutex_lock(&e->mutex);
    e->woken = true;
    if (e->asleep) {
        e->asleep = false;
        MHD_resume_connection(e->connection);
    }
    pthread_mutex_unlock(&e->mutex);
}

/// Whatever is woken from here on concerns the state that the handler is about to look at.
static void start_listening_for_wakes(exchange *e) {
    pthread_mutex_lock(&e->mutex);
    e->woken = false;
    pthread_mutex_unlock(&e->mutex);
}

// --------------------------------------------------------------------------------------------------- clients leave

static void tell_client_left(exchange *e) {
    log_line(LOG_DEBUG, "client left: %s %s", e->x.method, e->route ? e->route->path : "");
    e->x.client_left(&e->x);
    e->told = true;
}

/// From the thread of http_conns.
static void on_hang_up(void *arg, const http_conn *conn) {
    http_server *s = arg;
    pthread_mutex_lock(&s->mutex); // held over the call, so that the exchange cannot finish meanwhile
    exchange *e = s->exchanges;
    while (e && e->conn != conn) e = e->next;
    if (e && e->watched && !e->told) tell_client_left(e);
    pthread_mutex_unlock(&s->mutex);
}

/// Before an exchange sleeps: its handler is told from now on, and at once if its client has left already.
static void watch(exchange *e) {
    http_conn_expect(e->conn, EXPECT_NOTHING, 0);
    pthread_mutex_lock(&e->server->mutex);
    e->watched = e->x.client_left != NULL;
    if (e->watched && !e->told && http_conn_hung_up(e->conn)) tell_client_left(e);
    pthread_mutex_unlock(&e->server->mutex);
}

// ------------------------------------------------------------------------------------------------------- exchange

static exchange *exchange_create(http_server *s, struct MHD_Connection *connection, http_conn *conn, const char *path,
                                 const char *method, const char *version) {
    exchange *e = mem_alloc(1, sizeof *e);
    if (!e) return NULL;
    e->server = s;
    e->connection = connection;
    e->conn = conn;
    snprintf(e->x.client, sizeof e->x.client, "%s", http_conn_client(conn));
    request_id_choose(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Request-Id"), e->x.request_id);
    e->x.on_loopback = s->on_loopback;
    e->x.context = s->options.context;
    e->x.method = method; // libmicrohttpd keeps all three while the request lives
    e->x.path = path;
    e->x.version = version;
    e->x.start_us = clock_us();
    e->x.content_type = "application/json";
    pthread_mutex_init(&e->mutex, NULL);
    pthread_mutex_lock(&s->mutex);
    e->next = s->exchanges;
    e->prev = &s->exchanges;
    if (e->next) e->next->prev = &e->next;
    s->exchanges = e;
    s->n_exchanges++;
    pthread_mutex_unlock(&s->mutex);
    return e;
}

/// libmicrohttpd's last word about a request; the socket is still open.
static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code) {
    (void)connection;
    http_server *s = cls;
    exchange *e = *con_cls;
    *con_cls = NULL;
    if (!e || (void *)e == s) return; // s: there was no memory for an exchange
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK) e->aborted = true;
    access_log_write(&e->x, e->aborted);
    if (s->options.observe) s->options.observe(&e->x, e->aborted);
    http_conn_expect(e->conn, EXPECT_HEADERS, 0);
    pthread_mutex_lock(&s->mutex);
    *e->prev = e->next;
    if (e->next) e->next->prev = e->prev;
    pthread_mutex_unlock(&s->mutex);
    if (e->x.finish) e->x.finish(&e->x);
    pthread_mutex_lock(&s->mutex); // counted until now, so that a count of 0 means that no handler's state is left
    s->n_exchanges--;
    pthread_mutex_unlock(&s->mutex);
    buffer_free(&e->x.body);
    buffer_free(&e->x.reply);
    buffer_free(&e->headers);
    buffer_free(&e->joined);
    http_stream_free(&e->stream);
    pthread_mutex_destroy(&e->mutex);
    mem_free(e);
}

const char *http_header(const http_exchange *x, const char *name) {
    return MHD_lookup_connection_value(((const exchange *)x)->connection, MHD_HEADER_KIND, name);
}

typedef struct name_count {
    const char *name;
    int n;
} name_count;

static enum MHD_Result count_name(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
    (void)kind, (void)value;
    name_count *c = cls;
    c->n += strcasecmp(key, c->name) == 0;
    return MHD_YES;
}

int http_n_headers(const http_exchange *x, const char *name) {
    name_count c = {.name = name};
    MHD_get_connection_values(((const exchange *)x)->connection, MHD_HEADER_KIND, count_name, &c);
    return c.n;
}

typedef struct name_values {
    const char *name;
    buffer *values;
} name_values;

static enum MHD_Result join_value(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
    (void)kind;
    const name_values *v = cls;
    if (strcasecmp(key, v->name) == 0 && value) buffer_printf(v->values, "%s%s", v->values->len ? "," : "", value);
    return MHD_YES;
}

const char *http_header_list(http_exchange *x, const char *name) {
    exchange *e = (exchange *)x;
    if (http_n_headers(x, name) <= 1) return http_header(x, name);
    e->joined.len = 0;
    MHD_get_connection_values(e->connection, MHD_HEADER_KIND, join_value, &(name_values){name, &e->joined});
    return e->joined.failed ? http_header(x, name) : e->joined.data;
}

const char *http_query(const http_exchange *x, const char *name) {
    const exchange *e = (const exchange *)x;
    const char *value = NULL;
    bool there = MHD_lookup_connection_value_n(e->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value,
                                               NULL) == MHD_YES;
    return there && !value ? "" : value;
}

void http_add_header(http_exchange *x, const char *name, const char *value) {
    exchange *e = (exchange *)x;
    buffer_append(&e->headers, name, strlen(name) + 1);
    buffer_append(&e->headers, value, strlen(value) + 1);
}

// --------------------------------------------------------------------------------------------------------- reply

static ssize_t on_pull(void *cls, uint64_t pos, char *out, size_t max) {
    (void)pos;
    exchange *e = cls;
    http_conn_expect(e->conn, EXPECT_READING, 0);
    for (http_step step = HTTP_MORE;;) {
        const size_t n = http_stream_take(&e->stream, &e->x, out, max);
        e->x.n_reply_bytes += n;
        if (n > 0) return (ssize_t)n;
        if (e->stream.ended) return e->aborted ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
        if (step == HTTP_WAIT) { // and the piece that came with it is sent
            watch(e);
            if (fall_asleep(e)) return 0;
        }
        start_listening_for_wakes(e);
        step = http_stream_next(&e->stream, &e->x);
        e->aborted = step == HTTP_ABORT;
    }
}

/// False once one of them could not be added.
static bool add_header(struct MHD_Response *response, const char *name, const char *value) {
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

static void list_allowed(const exchange *e, char *out, size_t size) {
    *out = '\0';
    for (size_t i = 0; i < e->server->options.n_routes; i++) {
        const http_route *route = &e->server->options.routes[i];
        if (strcmp(route->path, e->x.path) != 0) continue;
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", used ? ", " : "",
                 !strcmp(route->method, "GET") ? "GET, HEAD" : route->method);
    }
}

/// False: no memory. A reply without one of its headers would say something else.
static bool add_headers(const exchange *e, struct MHD_Response *response, content_coding coding) {
    bool added = add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, e->x.content_type) &&
                 add_header(response, MHD_HTTP_HEADER_VARY, "Accept, Accept-Encoding") &&
                 add_header(response, "X-Request-Id", e->x.request_id) && !e->headers.failed;
    if (coding != CODING_IDENTITY) added &= add_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, coding_name(coding));
    if (e->x.status == 503 || e->x.status == 429) added &= add_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    for (size_t i = 0; i < e->headers.len && added;) {
        const char *name = e->headers.data + i, *value = name + strlen(name) + 1;
        added = add_header(response, name, value);
        i += strlen(name) + strlen(value) + 2;
    }
    if (http_conn_crowd(e->conn)) added &= add_header(response, MHD_HTTP_HEADER_CONNECTION, "close"); // it makes room
    char allow[ALLOW_BYTES];
    list_allowed(e, allow, sizeof allow);
    if (e->x.status == 405) added &= add_header(response, MHD_HTTP_HEADER_ALLOW, allow);
    return added;
}

static struct MHD_Response *make_no_memory_reply(void) {
    static char text[] = "{\"error\":{\"message\":\"no memory for this request; try again later\",\"type\":\"busy\","
                         "\"param\":null,\"code\":\"unavailable\"}}\n";
    struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_PERSISTENT);
    if (r && add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") &&
        add_header(r, MHD_HTTP_HEADER_RETRY_AFTER, "1") && add_header(r, MHD_HTTP_HEADER_CONNECTION, "close"))
        return r;
    if (r) MHD_destroy_response(r);
    return NULL;
}

static bool is_streamed(const exchange *e) {
    return e->x.pull || e->stream.coder;
}

/// The reply as a response of the library, with the exchange left as it was; NULL: no memory.
static struct MHD_Response *make_response(exchange *e) {
    http_exchange *x = &e->x;
    content_coding coding = http_stream_start(&e->stream, x, http_header_list(x, MHD_HTTP_HEADER_ACCEPT_ENCODING));
    bool size_known = coding == CODING_IDENTITY && x->reply_bytes;
    struct MHD_Response *response =
        is_streamed(e) ? MHD_create_response_from_callback(size_known ? x->reply_bytes : MHD_SIZE_UNKNOWN,
                                                           STREAM_BLOCK_BYTES, on_pull, e, NULL)
                       : MHD_create_response_from_buffer(x->reply.len, x->reply.data, MHD_RESPMEM_PERSISTENT);
    if (response && !add_headers(e, response, coding)) {
        MHD_destroy_response(response);
        response = NULL;
    }
    return response;
}

/// `e`: NULL, or the exchange whose own reply there is no memory for.
static enum MHD_Result queue_no_memory(const http_server *s, struct MHD_Connection *connection, exchange *e) {
    if (e) {
        e->x.status = MHD_HTTP_SERVICE_UNAVAILABLE;
        e->x.pull = NULL;
    }
    return MHD_queue_response(connection, MHD_HTTP_SERVICE_UNAVAILABLE, s->no_memory);
}

static enum MHD_Result queue_reply(exchange *e) {
    http_exchange *x = &e->x;
    if (x->reply.failed) http_fail(x, 503, "", "no memory for the reply; try again later");
    struct MHD_Response *response = x->reply.failed ? NULL : make_response(e);
    if (!response) return queue_no_memory(e->server, e->connection, e);
    const size_t n_whole = is_streamed(e) ? 0 : x->reply.len;
    http_conn_expect(e->conn, EXPECT_READING, n_whole);
    x->n_reply_bytes = n_whole;
    enum MHD_Result result = MHD_queue_response(e->connection, (unsigned)x->status, response);
    MHD_destroy_response(response); // the connection holds it now; its bytes live as long as the exchange
    return result;
}

// -------------------------------------------------------------------------------------------------------- request

static void refuse_too_large(exchange *e, uint64_t n_bytes, const char *or_more) {
    e->route = NULL;
    http_fail(&e->x, 413, "", "the body has %llu bytes%s; at most %lld are taken", (unsigned long long)n_bytes, or_more,
              (long long)limits.body_bytes);
}

static void refuse_for_memory(exchange *e) {
    e->route = NULL;
    buffer_free(&e->x.body);
    http_fail(&e->x, 503, "", "the requests in flight hold the memory there is for them; try again in a second");
}

static void refuse_crowd(exchange *e, http_crowd crowd) {
    http_fail(&e->x, crowd == CROWD_CLIENT ? 429 : 503, "",
              "there are too many connections; at most %lld are open at once, and %lld of one client",
              (long long)limits.connections, (long long)limits.connections_per_client);
}

/// The route of method and path, or NULL.
static const http_route *find_route(const exchange *e, const char *method, bool *path_known) {
    const http_options *o = &e->server->options;
    *path_known = false;
    for (size_t i = 0; i < o->n_routes; i++) {
        if (strcmp(o->routes[i].path, e->x.path) != 0) continue;
        *path_known = true;
        if (strcmp(o->routes[i].method, method) == 0) return &o->routes[i];
    }
    return NULL;
}

/// Bytes of a refused body that are read, so that the client gets to see the reply.
static uint64_t most_discarded(void) {
    return 64 * (uint64_t)limits.body_bytes;
}

/// Bytes of the body by its Content-Length; 0 without one.
static uint64_t announced_bytes(const exchange *e) {
    const char *length = http_header(&e->x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return length ? strtoull(length, NULL, 10) : 0;
}

/// A Transfer-Encoding other than chunked, of which nobody knows where the body ends; NULL: none.
static const char *unknown_transfer(exchange *e) {
    const char *coding = http_header_list(&e->x, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    return coding && strcasecmp(coding, "chunked") != 0 ? coding : NULL;
}

/// True: refused.
static bool refuse_transfer(exchange *e) {
    const char *coding = unknown_transfer(e);
    if (coding) http_fail(&e->x, 400, "", "the Transfer-Encoding is %.80s; chunked alone is taken", coding);
    return coding != NULL;
}

/// Refuses a body for what its headers say of it. True: refused.
static bool refuse_body(exchange *e) {
    const char *type = http_header(&e->x, MHD_HTTP_HEADER_CONTENT_TYPE);
    const char *coding = http_header(&e->x, MHD_HTTP_HEADER_CONTENT_ENCODING);
    const uint64_t n_bytes = announced_bytes(e);
    if (n_bytes > (uint64_t)limits.body_bytes) {
        refuse_too_large(e, n_bytes, "");
    } else if (mem_is_scarce()) {
        refuse_for_memory(e);
    } else if (coding && strcasecmp(coding, "identity") != 0) {
        http_fail(&e->x, 415, "", "the Content-Encoding is %.80s; send the body as it is, without one", coding);
    } else if (!content_is_json(type)) {
        http_fail(&e->x, 415, "", "the Content-Type is %.80s; send JSON in UTF-8 as Content-Type: application/json",
                  type ? type : "missing");
    } else {
        return false;
    }
    return true;
}

/// Finds the route; without one, or with headers that rule the request out, the reply is the error.
static void route_request(exchange *e) {
    const http_options *o = &e->server->options;
    const char *wanted = strcmp(e->x.method, "HEAD") == 0 ? "GET" : e->x.method;
    bool path_known;
    http_crowd crowd = http_conn_crowd(e->conn);
    const http_route *route = find_route(e, wanted, &path_known);
    if (crowd) {
        refuse_crowd(e, crowd);
    } else if (o->admit && !o->admit(&e->x, route)) {
        return;
    } else if (!path_known) {
        http_fail(&e->x, 404, "", "there is nothing at %.200s; /openapi.json lists what there is", e->x.path);
    } else if (!route) {
        char allow[ALLOW_BYTES];
        list_allowed(e, allow, sizeof allow);
        http_fail(&e->x, 405, "", "%.200s does not take %.20s; it takes %s", e->x.path, e->x.method, allow);
    } else if (!refuse_transfer(e) && (strcmp(wanted, "GET") == 0 || !refuse_body(e))) {
        e->route = route;
    }
}

/// The headers are there, the body is not.
static enum MHD_Result begin_request(http_server *s, struct MHD_Connection *connection, const char *path,
                                     const char *method, const char *version, void **con_cls) {
    http_conn *conn = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    exchange *e = conn ? exchange_create(s, connection, conn, path, method, version) : NULL;
    *con_cls = e ? (void *)e : s; // s: the request is read to its end and refused
    if (!e) return MHD_YES;
    http_conn_expect(conn, EXPECT_BODY, 0);
    route_request(e);
    // A client that waits for "100 Continue" gets its refusal instead, and so does one whose body will not be read to
    // its end; others have sent their body already.
    const bool at_once =
        http_header(&e->x, MHD_HTTP_HEADER_EXPECT) || announced_bytes(e) > most_discarded() || unknown_transfer(e);
    return !e->route && at_once ? queue_reply(e) : MHD_YES;
}

static enum MHD_Result take_body(exchange *e, const char *data, size_t n) {
    e->n_body += n;
    if (e->n_body > most_discarded()) return MHD_NO;
    if (e->route && e->n_body > (uint64_t)limits.body_bytes) {
        buffer_free(&e->x.body);
        refuse_too_large(e, e->n_body, " or more");
    }
    if (e->route) buffer_append(&e->x.body, data, n);
    if (e->route && e->x.body.failed) refuse_for_memory(e);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **con_cls) {
    if (!*con_cls) return begin_request(cls, connection, path, method, version, con_cls);
    if (*con_cls == cls) {
        if (*upload_size == 0) return queue_no_memory(cls, connection, NULL);
        *upload_size = 0;
        return MHD_YES;
    }
    exchange *e = *con_cls;
    if (*upload_size) {
        size_t n = *upload_size;
        *upload_size = 0;
        return take_body(e, upload, n);
    }
    buffer_append(&e->x.body, "", 0);
    if (e->x.body.failed && e->route) refuse_for_memory(e);
    http_conn_expect(e->conn, EXPECT_NOTHING, 0);
    while (e->route) {
        start_listening_for_wakes(e);
        if (e->route->handle(&e->x) != HTTP_WAIT) break;
        watch(e);
        if (fall_asleep(e)) return MHD_YES;
    }
    return queue_reply(e);
}

// ---------------------------------------------------------------------------------------------------- connections

/// The socket's beginning and end; it is open at both.
static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
    const http_server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context =
            http_conn_add(s->conns, MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
                          MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    } else if (*socket_context) {
        http_conn_remove(s->conns, *socket_context);
    }
}

// --------------------------------------------------------------------------------------------------- start and end

static void on_mhd_log(void *cls, const char *format, va_list args) {
    (void)cls;
    char line[256];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\r\n")] = '\0';
    log_line(LOG_DEBUG, "libmicrohttpd: %s", line);
}

/// `tls`: options for HTTPS, ended by MHD_OPTION_END; none for HTTP.
static struct MHD_Daemon *start_mhd(http_server *s, unsigned flags, const struct MHD_OptionItem *tls) {
    return MHD_start_daemon(flags | MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
                            NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
                            MHD_OPTION_LISTEN_SOCKET, s->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
                            (unsigned)LIMIT_HTTP_THREADS, MHD_OPTION_CONNECTION_LIMIT,
                            (unsigned)(limits.connections + LIMIT_SPARE_CONNECTIONS), MHD_OPTION_CONNECTION_TIMEOUT,
                            (unsigned)limits.stall_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)LIMIT_CONNECTION_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
}

static logitd_status start_daemon(http_server *s, logitd_error *err) {
    const http_options *o = &s->options;
    buffer cert = {0}, key = {0};
    logitd_status status = LOGITD_OK;
    if (o->tls_cert_path) {
        status = http_read_pem(o->tls_cert_path, &cert, err);
        if (!status) status = http_read_pem(o->tls_key_path, &key, err);
    }
    if (!status) {
        const struct MHD_OptionItem end = {MHD_OPTION_END, 0, NULL}, tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, cert.data},
                                                                              {MHD_OPTION_HTTPS_MEM_KEY, 0, key.data},
                                                                              end};
        s->daemon = o->tls_cert_path ? start_mhd(s, MHD_USE_TLS, tls) : start_mhd(s, 0, &end);
        if (!s->daemon) {
            status =
                error_set(err, LOGITD_EIO, "the HTTP server did not start: %s",
                          o->tls_cert_path ? "the files of --tls-cert and --tls-key do not fit together, or are no PEM"
                                           : strerror(errno));
        }
    }
    if (key.data) explicit_bzero(key.data, key.len);
    buffer_free(&cert);
    buffer_free(&key);
    return status;
}

logitd_status http_server_create(const http_options *options, http_server **out, logitd_error *err) {
    *out = NULL;
    http_server *s = mem_alloc(1, sizeof *s);
    if (!s) return error_set(err, LOGITD_ENOMEM, "no memory for the HTTP server");
    *s = (http_server){.options = *options, .listen_fd = -1};
    pthread_mutex_init(&s->mutex, NULL);
    s->no_memory = make_no_memory_reply();
    logitd_status status = s->no_memory ? http_conns_create(on_hang_up, s, &s->conns, err)
                                        : error_set(err, LOGITD_ENOMEM, "no memory for the HTTP server");
    if (!status) status = http_listen(options->host ? options->host : "127.0.0.1", options->port, &s->listen_fd, err);
    if (!status) {
        s->on_loopback = http_listens_on_loopback(s->listen_fd);
        http_listen_url(s->listen_fd, options->tls_cert_path != NULL, s->url, sizeof s->url);
        status = start_daemon(s, err);
    }
    if (!status) {
        *out = s;
        return LOGITD_OK;
    }
    if (s->listen_fd >= 0) close(s->listen_fd);
    http_server_free(s);
    return status;
}

const char *http_server_url(const http_server *s) {
    return s->url;
}

http_server *http_server_of(const http_exchange *x) {
    return ((const exchange *)x)->server;
}

int http_server_n_exchanges(http_server *s) {
    pthread_mutex_lock(&s->mutex);
    int n = s->n_exchanges;
    pthread_mutex_unlock(&s->mutex);
    return n;
}

void http_server_free(http_server *s) {
    if (!s) return;
    if (s->daemon) MHD_stop_daemon(s->daemon);
    if (s->no_memory) MHD_destroy_response(s->no_memory);
    http_conns_free(s->conns);
    pthread_mutex_destroy(&s->mutex);
    mem_free(s);
}
