/*
 * access_log.h: the log line of a request, as text or as a JSON object (--log-format), and the ids of requests: the
 * client's own X-Request-Id where it is 1 to 64 letters, digits, dots, dashes and underscores, else a new one.
 *
 * No header, no body and no query is ever logged, so no key and no text of a user is.
 */
#ifndef ACCESS_LOG_H
#define ACCESS_LOG_H

#include "http_exchange.h"

/// `offered`: the client's, or NULL.
void request_id_choose(const char *offered, char out[HTTP_REQUEST_ID_BYTES]);
/// When a request has ended. `cut`: its reply did not get through whole.
void access_log_write(const http_exchange *x, bool cut);

#endif
