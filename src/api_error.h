/*
 * api_error.h: the error object of every 4xx and 5xx reply, and the table that joins HTTP statuses, error types and
 * the engine's status codes:  {"error": {"message", "type", "param", "code"}}
 */
#ifndef API_ERROR_H
#define API_ERROR_H

#include "util.h"

/// The HTTP status that answers an engine's status.
int api_error_http_status(logitd_status status);
/// Appends `"error":{…}` without the outer braces. `param` may be "" (then null).
void api_error_write(buffer *out, int http_status, const char *param, const char *message);

#endif
