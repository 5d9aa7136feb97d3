/*
 * peaks.h: what this machine can do at most, measured: the figures that every share in a bench is a share of.
 */
#ifndef PEAKS_H
#define PEAKS_H

/// f32 multiply-adds of n_threads threads over registers alone (16 and more independent sums of the widest vectors),
/// in GFLOP/s; a multiply and an add are two. Best of several.
double peak_fma_gflops(int n_threads);
/// Sequential reads of 256 MiB a thread, in GB/s. Best of several.
double peak_read_gbps(int n_threads);

#endif
