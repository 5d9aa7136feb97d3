// gate.c: see gate.h. `mutex` guards the keys, which gate_reload replaces; the options are fixed.
#include "gate.h"
#include "limits.h"
#include "sha256.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#define KEY_LEN_MIN    16
#define KEY_LEN_MAX    256
#define KEY_NAME_MAX   48
#define KEYS_MAX       10000
#define KEY_LINE_BYTES 512

typedef struct key {
    char name[KEY_NAME_MAX + 1];
    char sha256[65];
} key;

struct gate {
    gate_options options;
    pthread_mutex_t mutex;
    key *keys; // [n_keys]
    int n_keys;
};

// ---------------------------------------------------------------------------------------------------------- keys

/// Reads "name key" from a line that may end in a line break. False: it is neither that nor to be skipped.
static bool read_line(char *line, key *out, bool *skip) {
    char *rest = NULL, *name = strtok_r(line, " \t\r\n", &rest);
    char *text = name ? strtok_r(NULL, " \t\r\n", &rest) : NULL;
    *skip = !name || *name == '#';
    if (*skip) return true;
    if (!text || strtok_r(NULL, " \t\r\n", &rest) || strlen(name) > KEY_NAME_MAX) return false;
    size_t n = strlen(text);
    if (n < KEY_LEN_MIN || n > KEY_LEN_MAX) return false;
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~') return false;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c)) return false; // it goes to the log
    snprintf(out->name, sizeof out->name, "%s", name);
    sha256_hex(text, n, out->sha256);
    return true;
}

/// *n keys of the file. A sentence never holds a key.
static logitd_status read_keys(const char *path, key *keys, int *n, logitd_error *err) {
    FILE *file = fopen(path, "r");
    if (!file) return error_set(err, LOGITD_EIO, "cannot open the file of keys %s: %s", path, strerror(errno));
    logitd_status status = LOGITD_OK;
    char line[KEY_LINE_BYTES];
    *n = 0;
    for (int i = 1; !status && fgets(line, sizeof line, file); i++) {
        bool skip = false, whole = strchr(line, '\n') || feof(file);
        key next;
        if (!whole || !read_line(line, &next, &skip)) {
            status =
                error_set(err, LOGITD_EINVAL,
                          "line %d of %s is not \"name key\": a name of at most %d letters, digits, dots, dashes and "
                          "underscores, and a key of %d to %d printable characters",
                          i, path, KEY_NAME_MAX, KEY_LEN_MIN, KEY_LEN_MAX);
        } else if (!skip && *n == KEYS_MAX) {
            status = error_set(err, LOGITD_EINVAL, "the file of keys %s holds more than %d keys", path, KEYS_MAX);
        } else if (!skip) {
            keys[(*n)++] = next;
        }
    }
    explicit_bzero(line, sizeof line);
    if (!status && ferror(file))
        status = error_set(err, LOGITD_EIO, "cannot read the file of keys %s: %s", path, strerror(errno));
    fclose(file);
    if (!status && *n == 0) status = error_set(err, LOGITD_EINVAL, "the file of keys %s holds no key", path);
    return status;
}

logitd_status gate_reload(gate *g, logitd_error *err) {
    if (!g->options.keys_path) return LOGITD_OK;
    key *keys = mem_alloc(KEYS_MAX, sizeof *keys), *old;
    if (!keys) return error_set(err, LOGITD_ENOMEM, "no memory for the keys");
    int n = 0;
    logitd_status status = read_keys(g->options.keys_path, keys, &n, err);
    if (status) {
        mem_free(keys);
        return status;
    }
    pthread_mutex_lock(&g->mutex);
    old = g->keys;
    g->keys = keys;
    g->n_keys = n;
    pthread_mutex_unlock(&g->mutex);
    mem_free(old);
    log_line(LOG_INFO, "%d keys from %s", n, g->options.keys_path);
    return LOGITD_OK;
}

/// Whether an Authorization header holds a key; then its name is the exchange's client.
static bool find_key(gate *g, http_exchange *x) {
    const char *value = http_header(x, "Authorization");
    if (!value || strncasecmp(value, "Bearer ", strlen("Bearer ")) != 0) return false;
    value += strlen("Bearer ");
    char sha256[65];
    sha256_hex(value, strlen(value), sha256);
    const key *found = NULL;
    pthread_mutex_lock(&g->mutex);
    for (int i = 0; i < g->n_keys; i++) { // all of them, and all of each
        unsigned char differs = 0;
        for (size_t k = 0; k < sizeof sha256; k++) differs |= (unsigned char)(sha256[k] ^ g->keys[i].sha256[k]);
        if (!differs) found = &g->keys[i];
    }
    if (found) snprintf(x->client, sizeof x->client, "key:%s", found->name);
    pthread_mutex_unlock(&g->mutex);
    return found != NULL;
}

// ---------------------------------------------------------------------------------------------------------- gate

logitd_status gate_create(const gate_options *options, gate **out, logitd_error *err) {
    gate *g = mem_alloc(1, sizeof *g);
    *out = NULL;
    if (!g) return error_set(err, LOGITD_ENOMEM, "no memory for the server");
    g->options = *options;
    pthread_mutex_init(&g->mutex, NULL);
    logitd_status status = gate_reload(g, err);
    if (status) {
        gate_free(g);
    } else {
        *out = g;
    }
    return status;
}

void gate_free(gate *g) {
    if (!g) return;
    pthread_mutex_destroy(&g->mutex);
    mem_free(g->keys);
    mem_free(g);
}

static bool is_listed(const char *const *list, int n, const char *text) {
    for (int i = 0; i < n; i++)
        if (strcasecmp(list[i], text) == 0) return true;
    return false;
}

/// Whether a Host header names this machine in a way that no other's web page can make a browser use.
static bool is_safe_host(const gate *g, const char *header) {
    char host[256];
    struct in6_addr address;
    snprintf(host, sizeof host, "%s", *header == '[' ? header + 1 : header);
    host[strcspn(host, *header == '[' ? "]" : ":")] = '\0';
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1 ||
           strcasecmp(host, "localhost") == 0 || is_listed(g->options.hosts, g->options.n_hosts, host);
}

/// Whether it is a host and perhaps a port as a URI has them (RFC 3986, 3.2.2), by its characters.
static bool is_host(const char *header) {
    static const char alike[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=";
    size_t n;
    if (*header == '[') {
        n = 1 + strspn(header + 1, alike);
        while (header[n] == ':') n += 1 + strspn(header + n + 1, alike);
        if (header[n++] != ']') return false;
    } else {
        n = strspn(header, alike);
    }
    if (header[n] == ':') n += 1 + strspn(header + n + 1, "0123456789");
    return header[n] == '\0';
}

/// Whether the request says whom it is for, as its version of HTTP wants; else the reply is filled in.
static bool check_host(const gate *g, http_exchange *x) {
    const char *host = http_header(x, "Host");
    const int n = http_n_headers(x, "Host");
    if (n > 1) {
        http_fail(x, 400, "", "there are %d Host headers; a request has one", n);
    } else if (n == 0 && strcmp(x->version, "HTTP/1.0") != 0) {
        http_fail(x, 400, "", "there is no Host header; a request of %.10s has one", x->version);
    } else if (host && !is_host(host)) {
        http_fail(x, 400, "", "the Host header is %.100s; it must be a name or an address, and may have a port", host);
    } else if (host && x->on_loopback && !is_safe_host(g, host)) {
        http_fail(
            x, 403, "",
            "the Host header is %.100s; this server is for its own machine and takes an IP address, localhost, or a "
            "name given by --allow-host",
            host);
    } else {
        return true;
    }
    return false;
}

/// CORS headers for an allowed origin. True: this was a preflight, which is answered.
static bool answer_origin(const gate *g, http_exchange *x) {
    const gate_options *o = &g->options;
    const char *origin = http_header(x, "Origin");
    if (!origin || (!is_listed(o->origins, o->n_origins, origin) && !is_listed(o->origins, o->n_origins, "*")))
        return false;
    http_add_header(x, "Access-Control-Allow-Origin", origin);
    http_add_header(x, "Vary", "Origin");
    http_add_header(x, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (strcmp(x->method, "OPTIONS") != 0 || !http_header(x, "Access-Control-Request-Method")) return false;
    http_add_header(x, "Access-Control-Allow-Methods", "GET, HEAD, POST");
    http_add_header(x, "Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id");
    http_add_header(x, "Access-Control-Max-Age", "600");
    x->status = 204;
    return true;
}

bool gate_admit(gate *g, http_exchange *x, bool open) {
    if (!check_host(g, x)) return false;
    if (answer_origin(g, x)) return false;
    if (!g->options.keys_path || open || find_key(g, x)) return true;
    http_add_header(x, "WWW-Authenticate", "Bearer");
    http_fail(x, 401, "", "%s; send Authorization: Bearer KEY with a key of this server",
              http_header(x, "Authorization") ? "the key is not one of this server's" : "a key is needed here");
    return false;
}
