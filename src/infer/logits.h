/* What a trained model predicts after each of some tokens: the numbers before the softmax. */
#ifndef KAPPA_INFER_LOGITS_H
#define KAPPA_INFER_LOGITS_H

#include "train/run.h"

/* The logits (count, V) of a language model for tokens at positions 0, 1, …; at most its context.  The caller
 * frees *logits. */
kp_status kp_logits(const kp_trained *trained, const int32_t *tokens, int64_t count, int threads,
                    double **logits, kp_error *error);

#endif
