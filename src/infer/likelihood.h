/* Log-likelihoods of continuations: log p(continuation | context) of many rows of tokens.
 *
 * Rows of similar length run as one batch, padded on the right: attention is causal, so padding changes no
 * score.  A row whose inputs begin another row's is read from that one: the choices of a question that
 * differ in their last token alone, as letters do, cost one row. */
#ifndef KAPPA_INFER_LIKELIHOOD_H
#define KAPPA_INFER_LIKELIHOOD_H

#include "train/run.h"

/* The last `scored` of `count` tokens are scored, each given those before it in the row. */
typedef struct kp_scored_row {
  const int32_t *tokens;
  int64_t count, scored; /* 1 <= scored < count <= context + 1 */
} kp_scored_row;

typedef struct kp_likelihood {
  double sum;  /* of the natural logarithms */
  bool greedy; /* every scored token is the likeliest one; the first of equally likely ones */
} kp_likelihood;

typedef struct kp_likelihood_options {
  int64_t tokens; /* of a batch, padding included, if a row is no longer; 0: 2048 */
  int threads;    /* 0: all */
  /* After every batch, with the number of rows that are done; may be NULL. */
  void (*progress)(void *context, int64_t done, int64_t rows);
  void *context;
} kp_likelihood_options;

/* Scores `count` rows.  The logits of a batch take at most 256 MiB, or those of one row. */
kp_status kp_likelihoods(const kp_trained *trained, const kp_scored_row *rows, size_t count,
                         const kp_likelihood_options *options, kp_likelihood *results, kp_error *error);

#endif
