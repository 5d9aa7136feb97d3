/*
 * peaks.h: what this machine can do at most, measured: the figures that every share in a bench is a share of. Each peak
 * is a loop that does nothing else, on all threads at once. Instruction sets are compiled in by function and chosen by
 * what the processor says at run time. A multiply and an add are two operations.
 */
#ifndef PEAKS_H
#define PEAKS_H

#include "timing.h"
#include <stddef.h>

typedef struct peak {
    const char *name;        // "f32 FMA, AVX-512"
    const char *level;       // CPU levels whose name begins with this are bounded by it; NULL: not a level's own bound
    bool reads;              // work is bytes, else operations
    bool (*supported)(void); // by this processor
    /// One thread's share of a round: returns the work done. memory: [n_bytes], of a peak that reads; a multiple of
    /// 256.
    double (*loop)(const void *memory, size_t n_bytes);
} peak;

extern const peak peaks[]; // widest first among those of one kind
extern const int n_peaks;

/// Measures one peak: best and median of several short rounds. *work: operations or bytes of a round, all threads.
timing peak_measure(const peak *p, int n_threads, double *work);

/// The two limits that cases are held against.
typedef struct peak_limit {
    double gops; // f32 multiply-adds of the level's vectors, in 1e9 operations a second
    double gbps; // memory read, in 1e9 bytes a second
} peak_limit;

/// Best round of the f32 peak of this level ("auto" or NULL: the widest that there is), in 1e9 operations a second.
double peak_gops(const char *level, int n_threads);
/// Best round of reading, in 1e9 bytes a second.
double peak_read_gbps(int n_threads);

#endif
