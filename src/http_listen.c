// http_listen.c: see http_listen.h.
#include "http_listen.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define PEM_BYTES_MAX (1 << 20)

logitd_status http_listen(const char *host, int port, int *fd, logitd_error *err) {
    char service[16];
    *fd = -1;
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int failure = getaddrinfo(host, service, &hints, &found);
    if (failure) {
        return error_set(err, LOGITD_EIO, "cannot listen on host \"%s\": %s; choose a name or address with --host",
                         host, gai_strerror(failure));
    }
    int s = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    bool listening = s >= 0 && setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
                     bind(s, found->ai_addr, found->ai_addrlen) == 0 && listen(s, SOMAXCONN) == 0;
    int why = errno;
    freeaddrinfo(found);
    if (listening) {
        *fd = s;
        return LOGITD_OK;
    }
    if (s >= 0) close(s);
    return error_set(err, LOGITD_EIO, "cannot listen on %s port %d: %s; choose another with --host and --port", host,
                     port, strerror(why));
}

bool http_listens_on_loopback(int fd) {
    struct sockaddr_storage address = {0};
    socklen_t n = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &n) != 0) return false;
    if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, &address, sizeof v6);
        return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    }
    struct sockaddr_in v4;
    memcpy(&v4, &address, sizeof v4);
    return address.ss_family == AF_INET && ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

void http_listen_url(int fd, bool tls, char *out, size_t size) {
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    char host[64] = "?", port[16] = "?";
    if (getsockname(fd, (struct sockaddr *)&address, &n) == 0) {
        getnameinfo((struct sockaddr *)&address, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    }
    snprintf(out, size, strchr(host, ':') ? "%s://[%s]:%s" : "%s://%s:%s", tls ? "https" : "http", host, port);
}

logitd_status http_read_pem(const char *path, buffer *out, logitd_error *err) {
    FILE *file = fopen(path, "r");
    if (!file) return error_set(err, LOGITD_EIO, "cannot open %s: %s", path, strerror(errno));
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0 && out->len < PEM_BYTES_MAX) buffer_append(out, chunk, n);
    explicit_bzero(chunk, sizeof chunk);
    fclose(file);
    if (out->len > 0 && out->len < PEM_BYTES_MAX && !out->failed) return LOGITD_OK;
    return error_set(err, LOGITD_EIO, "%s cannot be read, is empty or is larger than %d bytes", path, PEM_BYTES_MAX);
}
