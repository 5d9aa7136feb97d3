/*
 * gate.h: who may ask. Every request passes here when its headers are there, before its route is looked at:
 *
 *   Host          one line in HTTP/1.1, at most one in HTTP/1.0, with a name or an address (RFC 9112, 3.2): 400. And
 *                 a server that listens on loopback answers only to IP addresses, localhost and the names allowed by
 *                 --allow-host, so that no web page can reach it under a name of its own (DNS rebinding): 403
 *   Origin        pages of origins allowed by --allow-origin ("*": all) get CORS headers and their preflight's answer
 *   Authorization with --api-keys, all routes but the open ones need "Bearer KEY": 401. The key's name is the client
 * for the limits of one client and in the log
 *
 * The file of keys has a name and a key of 16 to 256 printable characters a line; empty lines and lines that start with
 * # are skipped. Kept are SHA-256 sums, and a key is compared with all of them in a time that does not depend on it.
 * gate_reload reads the file again (on SIGHUP); a file with a mistake changes nothing.
 */
#ifndef GATE_H
#define GATE_H

#include "http_exchange.h"

#define GATE_NAMES_MAX 32 // hosts or origins

typedef struct gate_options {
    const char *keys_path; // NULL: no keys
    const char *origins[GATE_NAMES_MAX], *hosts[GATE_NAMES_MAX];
    int n_origins, n_hosts;
} gate_options;

typedef struct gate gate;

/// The options' strings outlive the gate. EIO, EINVAL (a line of the file), ENOMEM.
logitd_status gate_create(const gate_options *options, gate **out, logitd_error *err);
logitd_status gate_reload(gate *g, logitd_error *err); // any thread
void gate_free(gate *g);

/// False: the reply is filled in. `open`: the route needs no key.
bool gate_admit(gate *g, http_exchange *x, bool open);

#endif
