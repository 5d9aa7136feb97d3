/*
 * test_http_conns.c: how many connections one client may have, also when several threads take them at once. Sockets are
 * pairs; the addresses are only said.
 */
#include "http_conns.h"
#include "limits.h"
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_THREADS = 4, N_OF_THREAD = 8, N = N_THREADS * N_OF_THREAD, N_ALLOWED = 3, N_TOLD = 8 };

typedef struct connection {
    int ends[2]; // the server's, the client's
    http_conn *conn;
} connection;

static http_conns *conns;
static connection all[N];

static void on_hang_up(void *arg, const http_conn *conn) {
    (void)arg;
    (void)conn;
}

static void take(connection *c, uint32_t address) {
    const struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->ends), 0);
    c->conn = http_conn_add(conns, c->ends[0], (const struct sockaddr *)&from);
    assert_non_null(c->conn);
}

static void end(connection *c) {
    http_conn_remove(conns, c->conn);
    close(c->ends[0]);
    close(c->ends[1]);
}

static bool is_cut(const connection *c) {
    char byte;
    const ssize_t n = recv(c->ends[1], &byte, 1, MSG_DONTWAIT);
    assert_true(n == 0 || (n < 0 && errno == EAGAIN));
    return n == 0;
}

static void *take_some(void *arg) {
    for (connection *c = arg; c < (connection *)arg + N_OF_THREAD; c++) take(c, INADDR_LOOPBACK);
    return NULL;
}

static void beyond_its_limit_some_are_told_and_the_rest_is_cut(void **state) {
    (void)state;
    for (int i = 0; i < N; i++) take(&all[i], INADDR_LOOPBACK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(http_conn_crowd(all[i].conn), i < N_ALLOWED ? CROWD_NONE : CROWD_CLIENT);
        assert_int_equal(is_cut(&all[i]), i >= N_ALLOWED + N_TOLD);
    }
    connection other;
    take(&other, INADDR_LOOPBACK + 1);
    assert_int_equal(http_conn_crowd(other.conn), CROWD_NONE);
    assert_false(is_cut(&other));
    end(&other);
    for (int i = 0; i < N; i++) end(&all[i]);
}

static void threads_that_accept_at_once_let_no_more_stand(void **state) {
    (void)state;
    pthread_t threads[N_THREADS];
    for (int t = 0; t < N_THREADS; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, take_some, &all[t * N_OF_THREAD]), 0);
    for (int t = 0; t < N_THREADS; t++) pthread_join(threads[t], NULL);
    int n_served = 0, n_standing = 0;
    for (int i = 0; i < N; i++) {
        n_served += http_conn_crowd(all[i].conn) == CROWD_NONE;
        n_standing += !is_cut(&all[i]);
        end(&all[i]);
    }
    assert_int_equal(n_served, N_ALLOWED);
    assert_int_equal(n_standing, N_ALLOWED + N_TOLD);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(beyond_its_limit_some_are_told_and_the_rest_is_cut),
                                       cmocka_unit_test(threads_that_accept_at_once_let_no_more_stand)};
    logitd_error err;
    limits.connections_per_client = N_ALLOWED;
    if (http_conns_create(on_hang_up, NULL, &conns, &err)) return 1;
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_conns_free(conns);
    return n_failed || mem_held() != 0;
}
