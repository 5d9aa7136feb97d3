/*
 * fake_engine.h: a test double of the engine and the tokenizer, behind the same headers. Its numbers are a hash of
 * (token at the position, vocabulary id), so that a test can say what a reply must hold; its steps can be slowed,
 * held, counted and made to fail. One engine at a time.
 *
 * Vocabulary: ids 0 … 255 are the bytes, 256 is the control token <bos>, 257 "The", 258 " quote\"", 259 is no byte at
 * all.
 */
#ifndef FAKE_ENGINE_H
#define FAKE_ENGINE_H

#include "util.h"
#include <stdatomic.h>

#define FAKE_VOCAB 260
#define FAKE_BOS   256

typedef struct fake_engine {
    int step_us;              // what a step takes
    atomic_bool hold;         // a step that has begun waits while this is set; may change while the engine runs
    int step_tokens;          // tokens of a batch, default 8
    int fail_after;           // > 0: the jobs of this step number fail
    int project_fails_at_row; // > 0: logitd_project_rows fails for rows from here on
    bool broken;              // logitd_healthy is false
} fake_engine;
extern fake_engine fake; // set before the engine runs, but for `hold`

logitd_engine *fake_open(void);
float fake_logit(int32_t token, int32_t id);
int fake_n_live_jobs(void); // created and not freed

#endif
