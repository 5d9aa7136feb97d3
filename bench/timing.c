// timing.c: see timing.h.
#include "timing.h"
#include "util.h"
#include <stdlib.h>
#include <time.h>

double timing_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

timing timing_of(double *ms, int n) {
    ASSERT(n >= 1);
    qsort(ms, (size_t)n, sizeof *ms, compare_doubles);
    const double median = (ms[(n - 1) / 2] + ms[n / 2]) / 2.0;
    return (timing){.n_runs = n, .best_ms = ms[0], .median_ms = median, .spread = (median - ms[0]) / ms[0]};
}

bool timing_repeat(const timing_plan *plan, bool (*run)(void *context), void *context, timing *out) {
    double ms[TIMING_MAX_RUNS], spent = 0.0;
    int n = 0;
    ASSERT(plan->max_runs >= TIMING_MIN_RUNS && plan->max_runs <= TIMING_MAX_RUNS);
    if (!run(context)) return false;
    while (n < TIMING_MIN_RUNS || (n < plan->max_runs && spent < plan->budget_ms)) {
        const double start = timing_now_ms();
        if (!run(context)) return false;
        ms[n] = timing_now_ms() - start;
        spent += ms[n++];
    }
    *out = timing_of(ms, n);
    return true;
}
