/* Condition numbers σ_max / σ_min of a model's matrices, as Loshchilov et al. 2024 (nGPT, section 3.2)
 * compare models by: of attention's and the feed-forward's matrices in each block, as they are and with every
 * vector along the stream's axis brought to length 1; and of the tables of embedding and head, with the
 * lengths of their rows.
 *
 * The stream's axis is that of the rows of maps that read the stream and of the columns of those that write
 * it. Queries, keys and values count as a matrix each.  A singular matrix has condition number infinity. */
#ifndef KAPPA_STUDY_CONDITION_NUMBERS_H
#define KAPPA_STUDY_CONDITION_NUMBERS_H

#include <jansson.h>

#include "models/model.h"

typedef struct kp_condition {
  double raw, normalised;
} kp_condition;

typedef struct kp_matrix_condition {
  const char *name; /* "transformer.h.0.attn.c_attn.weight" */
  const char *part; /* "query", "key", "value", or "" for a whole parameter */
  int layer;
  bool attention; /* or of the feed-forward */
  kp_condition condition;
} kp_matrix_condition;

/* Medians over a block's matrices; NaN where it has none. */
typedef struct kp_block_condition {
  kp_condition attention, feed_forward;
} kp_block_condition;

/* A table of embedding or head: its condition number as it is, and the lengths of its rows. */
typedef struct kp_table_condition {
  const char *name;
  double condition;
  double least, mean, deviation, most;
} kp_table_condition;

typedef struct kp_condition_numbers {
  kp_matrix_condition *matrices;
  int matrix_count;
  kp_block_condition *blocks; /* (layers) */
  int layers;
  kp_table_condition *tables;
  int table_count;
} kp_condition_numbers;

/* Of one matrix (rows, columns), which is overwritten. */
kp_status kp_condition_number(int64_t rows, int64_t columns, double *matrix, double *condition,
                              kp_error *error);

/* Scales every row, or with `by_column` every column, to length 1; zero vectors stay. */
void kp_normalise_vectors(int64_t rows, int64_t columns, bool by_column, double *matrix);

/* Fills *numbers, whose arrays live in `arena`.  Needs time as the singular values of all matrices do. */
kp_status kp_condition_numbers_read(const kp_parameters *parameters, const kp_model_options *options,
                                    kp_arena *arena, kp_condition_numbers *numbers, kp_error *error);

/* The caller's to release. */
json_t *kp_condition_numbers_json(const kp_condition_numbers *numbers);

#endif
