/*
 * limits.h: every cap of the service, each with its reason. What a person may want to change has a flag in main.c.
 */
#ifndef LIMITS_H
#define LIMITS_H

#define LIMIT_BODY_BYTES      (16u << 20)  // a request body; 8,192 tokens as ids are 56 KiB, so this is a large batch
#define LIMIT_PROMPTS         1024         // prompts of one request
#define LIMIT_REQUEST_TOKENS  (1 << 20)    // tokens of one request, over its prompts
#define LIMIT_CTX_TOKENS      8192         // longest prompt unless --ctx says otherwise: bounds the KV cache
#define LIMIT_KV_TOKENS       (1 << 24)    // of the KV cache: far more than any memory holds
#define LIMIT_TEMPERATURES    32           // one pass computes them all; each costs three accumulators a position
#define LIMIT_TEMPERATURE_MIN 0.001        // below it, logits / T overflow what float32 statistics can tell apart
#define LIMIT_TEMPERATURE_MAX 1000.0       // above it every distribution is uniform
#define LIMIT_TOP_N           1024         // entries of a row; the whole row is "full"
#define LIMIT_LISTED_IDS      1024         // listed ids of a request
#define LIMIT_RESULT_BYTES    (1ull << 30) // statistics and entries of one request, in memory
#define LIMIT_BATCH_TOKENS    512          // tokens of one batch: enough to amortise unpacking the weights
#define LIMIT_CONNECTIONS     256          // open connections
#define LIMIT_QUEUED_JOBS     256          // accepted requests that wait or run; more get 503
#define LIMIT_JSON_DEPTH      32           // nesting of a request body
#define LIMIT_JSON_VALUES     (2 << 20)    // values of a request body: each costs some 100 bytes while it is read
#define LIMIT_THREADS         256
#define LIMIT_VOCAB           (1 << 22)  // tokens of a vocabulary, against hostile files
#define LIMIT_TENSORS         (1 << 16)  // tensors of a file, against hostile files
#define LIMIT_METADATA        (1 << 16)  // metadata entries of a file
#define LIMIT_STRING_BYTES    (1u << 24) // a string of a file
#define LIMIT_LAYERS          1024
#define LIMIT_IDLE_S          60          // seconds a connection may stay idle
#define LIMIT_HTTP_THREADS    4           // threads that parse requests and write replies
#define LIMIT_FULL_ROWS       32          // rows of logits made by one call: the weights are unpacked once for them all
#define LIMIT_FULL_BYTES      (32u << 20) // … and their size: what one reply of full rows holds in memory
#define LIMIT_WHOLE_BYTES     (16u << 20) // a reply up to this size is sent whole with its Content-Length, else streamed

#endif
