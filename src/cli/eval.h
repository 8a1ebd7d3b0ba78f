/* kappa eval, by what a model was trained for. */
#ifndef KAPPA_CLI_EVAL_H
#define KAPPA_CLI_EVAL_H

#include "infer/evaluate_labels.h"

/* Scores labelled examples and prints the scores, or one JSON object. */
kp_status kp_eval_labels(const kp_trained *trained, const char *data, const kp_evaluation_options *options,
                         bool json, kp_error *error);

#endif
