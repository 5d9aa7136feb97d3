/*
 * profile.h: a backend's operations, timed. Attaching puts a table of the profile's own in front of the backend's: each
 * operation is passed on unchanged, waited for, and its time, arithmetic and bytes are added to a row. Rows are one for
 * each operation and weight's role: "matmul ffn_up" is that of all layers.
 *
 * Attach before the model is loaded: shapes are learnt as weights and buffers are created. An operation that the
 * profile does not know is passed on untimed. One thread at a time, the backend's worker.
 */
#ifndef PROFILE_H
#define PROFILE_H

#include "backend.h"

typedef struct profile profile;

typedef struct profile_row {
    char name[48]; // "matmul ffn_up", "attention"
    int n_calls;
    double ms;
    double ops;   // multiplies and adds; only those of matrix products and attention count
    double bytes; // each weight, row and key that is read or written, once a call
} profile_row;

profile *profile_attach(backend *b); // NULL: no memory
/// Puts the backend's own table back, and frees.
void profile_detach(profile *p);
/// Rows in the order of their first calls.
int profile_rows(const profile *p, const profile_row **rows);
/// Sets the numbers of all rows to 0; the rows stay.
void profile_clear(profile *p);

/// Multiplies and adds of attention: 2 for each of q.k and p.v, visible key, head and dimension. A row at position p
/// sees p + 1 keys, or n_swa where that is fewer.
double profile_attention_ops(const attention_params *params, const token_batch *batch);

#endif
