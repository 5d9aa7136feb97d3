/*
 * sha256.h: SHA-256 as 64 lower-case hex digits and a NUL, at once or in a thread of its own. The only user of nettle.
 */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>

void sha256_hex(const void *data, size_t n, char out[65]);

/// A hash under way. `data` stays valid and unchanged until sha256_finish or sha256_cancel returns; each frees it.
typedef struct sha256_task sha256_task;
sha256_task *sha256_start(const void *data, size_t n); // NULL: no memory or no thread
void sha256_finish(sha256_task *task, char out[65]);   // waits
/// Waits for no more than a piece of the work. NULL is allowed.
void sha256_cancel(sha256_task *task);

#endif
