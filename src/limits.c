// limits.c: the table of limits.h as rows that can be walked, reading a flag's value, and what follows from limits.
#include "limits.h"
#include <errno.h>
#include <stdlib.h>

limit_values limits = {
#define LIMIT_INITIAL(name, flag, initial, least, most, what) .name = (initial),
    SETTABLE_LIMITS(LIMIT_INITIAL)
#undef LIMIT_INITIAL
};

const limit_row limit_rows[] = {
#define LIMIT_ROW(name, flag, initial, least, most, what) {#name, flag, what, &limits.name, initial, least, most},
    SETTABLE_LIMITS(LIMIT_ROW)
#undef LIMIT_ROW
};
const int n_limit_rows = (int)ARRAY_LEN(limit_rows);

logitd_status limit_set(const limit_row *row, const char *text, logitd_error *err) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (!errno && end != text && !*end && value >= row->least && value <= row->most) {
        *row->value = value;
        return LOGITD_OK;
    }
    return error_set(err, LOGITD_EINVAL, "--%s is \"%s\"; it must be an integer from %lld to %lld", row->flag, text,
                     (long long)row->least, (long long)row->most);
}

int limit_full_rows(int n_vocab) {
    _Static_assert(LIMIT_FULL_BYTES >= LIMIT_VOCAB * sizeof(float), "one row of any vocabulary fits");
    return (int)MIN((size_t)LIMIT_FULL_ROWS, LIMIT_FULL_BYTES / ((size_t)n_vocab * sizeof(float)));
}
