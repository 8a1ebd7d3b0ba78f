/* How well a trained model predicts the labels of examples. */
#ifndef KAPPA_INFER_EVALUATE_LABELS_H
#define KAPPA_INFER_EVALUATE_LABELS_H

#include "infer/evaluate.h"
#include "train/scores.h"

/* The examples to score: those of the run's own data when `data` is NULL, else those of a prepared folder or
 * a data set's name.  A set with other labels or another tokenizer than the run's is refused.  Close with
 * kp_labelled_close. */
kp_status kp_evaluation_examples_open(const kp_trained *trained, const char *data, kp_labelled_set *set,
                                      kp_error *error);

/* Scores the validation examples of the set, or options->batches batches taken evenly from them.  Clear
 * *scores with kp_scores_clear; it refers to the set. */
kp_status kp_evaluate_labels(const kp_trained *trained, const kp_labelled_set *set,
                             const kp_evaluation_options *options, kp_scores *scores, kp_error *error);

#endif
