/*
 * limits.h: every cap of the service, each with its reason.
 *
 * Those of SETTABLE_LIMITS are the fields of `limits`: their defaults may be changed once at start, by a flag of
 * `logitd serve`, and GET /model shows them all (limits.c walks the same table). The rest are constants: of the
 * contract, or against hostile files.
 */
#ifndef LIMITS_H
#define LIMITS_H

#include "util.h"

#define LIMIT_MIB (1ll << 20)
#define LIMIT_GIB (1ll << 30)

// X(name in GET /model, flag, default, least, most, what it caps)
#define SETTABLE_LIMITS(X)                                                                                             \
    X(body_bytes, "max-body-bytes", 16 * LIMIT_MIB, 1024, 1024 * LIMIT_MIB, "a request body")                          \
    X(text_bytes, "max-text-bytes", LIMIT_MIB, 16, 1024 * LIMIT_MIB, "a text to tokenize: it is encoded at once")      \
    X(json_values, "max-json-values", 2 << 20, 16, 1 << 28,                                                            \
      "values of a request body: each takes some 100 bytes while it is read")                                          \
    X(prompts, "max-prompts", 1024, 1, 1 << 20, "prompts of one request")                                              \
    X(request_tokens, "max-request-tokens", 1 << 20, 1, 1 << 28, "tokens of one request, over its prompts")            \
    X(request_positions, "max-request-positions", 1 << 20, 1, 1 << 28, "positions of one request, over its prompts")   \
    X(result_bytes, "max-result-bytes", LIMIT_GIB, 1024, 1024 * LIMIT_GIB,                                             \
      "statistics and entries of one request, in memory")                                                              \
    X(memory_bytes, "max-memory-bytes", 2 * LIMIT_GIB, 8 * LIMIT_MIB, 1024 * LIMIT_GIB,                                \
      "memory of all requests together")                                                                               \
    X(reply_bytes, "max-reply-bytes", 64 * LIMIT_GIB, 1024, (1 << 20) * LIMIT_GIB,                                     \
      "one reply, of which memory holds little: the work that a request may cost")                                     \
    X(connections, "max-connections", 512, 1, 100000, "open connections")                                              \
    X(connections_per_client, "max-connections-per-client", 256, 1, 100000, "... of one address")                      \
    X(jobs, "max-jobs", 512, 1, 100000, "accepted requests that wait, run or are being answered")                      \
    X(jobs_per_client, "max-jobs-per-client", 256, 1, 100000, "... of one key, or of one address without keys")        \
    X(queue_s, "max-queue-s", 120, 1, 86400, "seconds that a request may wait for its first batch")                    \
    X(deadline_s, "max-deadline-s", 1800, 1, 864000, "seconds until a request must be computed")                       \
    X(header_s, "max-header-s", 60, 1, 86400, "seconds without a request's whole headers on an open connection")       \
    X(body_s, "max-body-s", 300, 1, 86400, "seconds that a request's body may take")                                   \
    X(stall_s, "max-stall-s", 60, 1, 86400, "seconds without a byte, or without 64 KiB of a reply, getting through")

typedef struct limit_values {
#define LIMIT_FIELD(name, flag, initial, least, most, what) int64_t name;
    SETTABLE_LIMITS(LIMIT_FIELD)
#undef LIMIT_FIELD
} limit_values;

/// Written at start, before a second thread runs; read anywhere.
extern limit_values limits;

typedef struct limit_row {
    const char *name, *flag, *what; // the flag without its dashes
    int64_t *value;                 // in `limits`
    int64_t initial, least, most;
} limit_row;
extern const limit_row limit_rows[];
extern const int n_limit_rows;

/// A row's index, which is its field's in `limits` too.
#define LIMIT_INDEX(name) ((int)(offsetof(limit_values, name) / sizeof(int64_t)))

/// Reads a flag's value. EINVAL: *err says what is allowed.
logitd_status limit_set(const limit_row *row, const char *text, logitd_error *err);

#define LIMIT_CTX_TOKENS        8192         // longest prompt unless --ctx says otherwise: bounds the KV cache
#define LIMIT_KV_TOKENS         (1 << 24)    // of the KV cache: far more than any memory holds
#define LIMIT_TEMPERATURES      32           // one pass computes them all; each costs three accumulators a position
#define LIMIT_TEMPERATURE_MIN   0.001        // below it, logits / T overflow what float32 statistics can tell apart
#define LIMIT_TEMPERATURE_MAX   1000.0       // above it every distribution is uniform
#define LIMIT_TOP_N             1024         // entries of a row; the whole row is "full"
#define LIMIT_LISTED_IDS        1024         // listed ids of a request
#define LIMIT_BATCH_TOKENS      512          // tokens of one batch: enough to amortise unpacking the weights
#define LIMIT_CONNECTION_BYTES  (128u << 10) // of one connection: headers, and chunks of a reply
#define LIMIT_SPARE_CONNECTIONS 64           // above the limit: they are told that they are too many
#define LIMIT_JSON_DEPTH        32           // nesting of a request body
#define LIMIT_THREADS           256          // of the CPU backend, against a slip of the hand
#define LIMIT_VOCAB             (1 << 22)    // tokens of a vocabulary, against hostile files
#define LIMIT_TENSORS           (1 << 16)    // tensors of a file, against hostile files
#define LIMIT_METADATA          (1 << 16)    // metadata entries of a file
#define LIMIT_STRING_BYTES      (1u << 24)   // a string of a file
#define LIMIT_LAYERS            1024         // transformer blocks, against hostile files
#define LIMIT_HTTP_THREADS      4            // threads that parse requests and write replies
#define LIMIT_FULL_ROWS         32 // rows of logits made by one call: the weights are unpacked once for them all
#define LIMIT_FULL_BYTES        (32u << 20) // … and their size
#define LIMIT_FULL_HELD         56 // rows that a reply holds for 32 made: the next are made while up to 24 are sent
#define LIMIT_WHOLE_BYTES       (16u << 20) // a reply up to this size is sent whole with its Content-Length, else streamed
#define LIMIT_CODED_BYTES       256         // a whole reply below this size is not compressed

/// Full rows that are made by one call, by both limits: at least 1.
int limit_full_rows(int n_vocab);

#endif
