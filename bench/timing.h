/*
 * timing.h: running a case again and again, and what is kept of its times. Best is the machine at its least disturbed,
 * the median is what to expect, and the spread between them is the run's own noise: a change smaller than it says
 * nothing.
 */
#ifndef TIMING_H
#define TIMING_H

#include <stdbool.h>

enum { TIMING_MIN_RUNS = 3, TIMING_MAX_RUNS = 101 };

typedef struct timing {
    int n_runs;
    double best_ms, median_ms;
    double spread; // (median - best) / best
} timing;

/// How often a case runs: TIMING_MIN_RUNS times at least, then until `max_runs` or until `budget_ms` are spent.
typedef struct timing_plan {
    int max_runs; // TIMING_MIN_RUNS … TIMING_MAX_RUNS
    double budget_ms;
} timing_plan;

/// Of ms[n], n >= 1, which it sorts. The median of an even number is the mean of the middle two.
timing timing_of(double *ms, int n);

/// One run not counted (pages, caches, scratch), then as many as planned. False as soon as `run` returns false.
bool timing_repeat(const timing_plan *plan, bool (*run)(void *context), void *context, timing *out);

double timing_now_ms(void); // monotonic, to a nanosecond

#endif
