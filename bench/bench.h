/*
 * bench.h: what the sections of logitd-bench share. A section measures one subject and adds its cases to the report;
 * bench.c holds the table of sections.
 */
#ifndef BENCH_H
#define BENCH_H

#include "report.h"
#include "session.h"
#include "timing.h"

typedef struct bench {
    logitd_options engine; // as asked on the command line; n_threads is filled in
    int n_tokens;          // positions of a typical request
    timing_plan plan;
    report *report;
    // of the model's file
    const model_arch *arch;
    model_hparams hp;
    double weight_bytes; // that a pass must read
    peak_limit limit;    // of the level's vectors with all threads; measured at the start of each section
} bench;

typedef struct bench_section {
    const char *name;
    const char *sentence; // what its rows are
    logitd_status (*run)(bench *b, logitd_error *err);
} bench_section;

// section_peaks.c
logitd_status section_peaks(bench *b, logitd_error *err);
// section_kernels.c
logitd_status section_matmul(bench *b, logitd_error *err);
logitd_status section_projection(bench *b, logitd_error *err);
// section_model.c
logitd_status section_profile(bench *b, logitd_error *err);
logitd_status section_decode(bench *b, logitd_error *err);
// section_cuda.c
logitd_status section_cuda(bench *b, logitd_error *err);
// section_requests.c
logitd_status section_requests(bench *b, logitd_error *err);
logitd_status section_threads(bench *b, logitd_error *err);

/// Options of a backend as the command line asked.
backend_options bench_backend_options(const bench *b);

#endif
