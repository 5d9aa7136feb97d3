/*
 * fuzz.h: what a harness is. Each fuzz_*.c is one: it takes bytes as an enemy would send them, and aborts (ASSERT, or a
 * sanitizer) when a promise breaks. With -DFUZZ=ON clang's libFuzzer drives it; else replay.c runs it over the files of
 * cases/, so that what was once found is looked for by every compiler. Inputs are bounded by the harness, not by the
 * driver.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "util.h"
#include <string.h>

/// libFuzzer's names. The first takes the harness's own arguments, which begin with "--".
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/// Whether a text is an error as openapi.json has them: a sentence, and a status that is not OK.
static inline void fuzz_check_error(logitd_status status, const logitd_error *err) {
    ASSERT(status != LOGITD_OK && err->status == status);
    ASSERT(err->message[0] && memchr(err->message, '\0', sizeof err->message));
    ASSERT(memchr(err->param, '\0', sizeof err->param));
}

#endif
