/*
 * cmd_score_table.h: a finished job of one prompt as a table for people: a line a token (its text with white space made
 * visible, its rank and surprisal under the distribution before it, that distribution's entropy and most likely token),
 * and a summary a temperature. The request must return every position in order, as log-probabilities, with top_n >= 1.
 */
#ifndef CMD_SCORE_TABLE_H
#define CMD_SCORE_TABLE_H

#include "tokenizer.h"

void score_table_write(const tokenizer *t, const logitd_job *job, FILE *out);

#endif
