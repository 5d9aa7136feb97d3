/*
 * report.h: the results of a run, as a table that is printed while it grows and as one JSON document.
 *
 * A case is something that was timed, with the work that one run of it does. What follows from both (rates, the limit,
 * the share of it) is computed here and nowhere else, so that table, JSON, plots and comparisons say the same.
 *
 * The limit of a case is the time that its operations take at the measured f32 multiply-add peak, or its bytes at the
 * measured read bandwidth, whichever is longer (the roofline: Williams et al. 2009, doi 10.1145/1498765.1498785). Work
 * that uses cheaper arithmetic than f32, or data that stays in caches, can therefore pass 100 %.
 */
#ifndef REPORT_H
#define REPORT_H

#include "logitd/logitd.h"
#include "peaks.h"
#include "timing.h"
#include <stdio.h>

/// Numbers that do not apply to a case are 0, and left out.
typedef struct bench_case {
    const char *section; // "requests"
    char name[96];       // unique in its section
    int threads;
    int positions; // of one run: those whose results are wanted
    int temperatures, vocabulary, top_n;
    double ops, bytes; // of one run: multiplies and adds; bytes that must be read
    peak_limit limit;  // measured beside it; 0: the case is a limit itself
    timing time;
    double share_of_time; // of what this case is a part of
} bench_case;

/// What follows from a case. 0: does not apply.
typedef struct bench_rates {
    double positions_per_s, gops, gbps; // at the best time
    double limit_ms;                    // no run can be faster
    double limit_positions_per_s;
    double share_of_limit; // limit_ms / best_ms
    bool memory_bound;
} bench_rates;
bench_rates report_rates(const bench_case *c);

typedef struct report report;
/// `table`: where rows are printed; NULL: nowhere. NULL: no memory.
report *report_create(FILE *table);
void report_free(report *r);
/// Names what is measured. Printed at once.
void report_about(report *r, const logitd_model_info *model);
/// A heading: a sentence of what its rows are, and the limit that was measured before them (zeros: none).
void report_section(report *r, const char *section, const char *sentence, peak_limit limit);
void report_case(report *r, const bench_case *c);
/// A sentence of its own line in the table, and in "notes".
void report_note(report *r, const char *sentence);
/// What was counted instead of timed, in "counts": counts[n] of `units` units of a kernel's work.
void report_counts(report *r, const char *section, const char *name, const char *kernel, double units,
                   const char *const *names, const double *counts, int n);
/// The document, freed with free(); NULL: no memory.
///   { "schema": 1, "date", "machine": {"cpu", "processors"}, "logitd", "threads",
///     "model": {"name", "architecture", "sha256", "n_vocab", "n_embd", "n_params", "backend", "precision", "kernel"},
///     "cases": [ {"section", "name", …members of bench_case and bench_rates that apply…}, … ],
///     "notes": [ … ], "counts": [ {"section", "name", "kernel", "units", …names…}, … ] }     (where there are any)
char *report_json(const report *r);

#endif
