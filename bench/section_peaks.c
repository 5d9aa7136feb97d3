// section_peaks.c: the machine's own limits, for one thread, for all, and for the powers of two between.
#include "bench.h"

logitd_status section_peaks(bench *b, logitd_error *err) {
    (void)err;
    const int n_all = b->engine.n_threads;
    for (int i = 0; i < n_peaks; i++) {
        const peak *p = &peaks[i];
        if (!p->supported()) continue;
        for (int n = 1; n <= n_all; n = n < n_all ? MIN(2 * n, n_all) : n + 1) {
            bench_case c = {.section = "peaks", .threads = n};
            double work;
            c.time = peak_measure(p, n, &work);
            *(p->reads ? &c.bytes : &c.ops) = work;
            snprintf(c.name, sizeof c.name, "%s, %d thread%s", p->name, n, n == 1 ? "" : "s");
            report_case(b->report, &c);
        }
    }
    return LOGITD_OK;
}
