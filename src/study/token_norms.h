/* Lengths of the embeddings of frequent and of rare tokens.
 *
 * In a hyperbolic space what is general should lie near the origin and what is
 * special far out; but in any model weight decay and the number of updates move
 * rare tokens differently, so a curved model's numbers stand beside its flat twin's. */
#ifndef KAPPA_STUDY_TOKEN_NORMS_H
#define KAPPA_STUDY_TOKEN_NORMS_H

#include <stdint.h>

#include "study/statistics.h"

enum { KP_FREQUENCY_GROUPS = 10 };

typedef struct kp_token_norms {
  int64_t seen, unseen; /* tokens of the vocabulary that the text has, and that it lacks */
  double unseen_norm;   /* mean length of the latter; NaN without any */
  /* Tokens that occur, by falling frequency, cut into groups of equally many tokens (fewer groups than ten
   * when there are fewer tokens). */
  int groups;
  double norm[KP_FREQUENCY_GROUPS];  /* mean length */
  double share[KP_FREQUENCY_GROUPS]; /* of the text's tokens */
  kp_correlation spearman;           /* of frequency and length, over tokens that occur */
} kp_token_norms;

/* counts and norms of `vocabulary` tokens. */
kp_token_norms kp_token_norms_of(int64_t vocabulary, const int64_t *counts, const double *norms);

#endif
