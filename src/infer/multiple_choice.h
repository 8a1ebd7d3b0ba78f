/* Multiple choice by log-likelihood: the choice is taken that is likeliest behind the question.
 *
 *   accuracy         by log p(choice | prompt)
 *   accuracy_norm    by log p over the characters of the choice, Unicode's; lm-evaluation-harness's acc_norm
 *   accuracy_bytes   by log p over its bytes; its acc_bytes
 *
 * Prompt and choice become tokens as there: white space at the prompt's end goes to the choice; the choice's
 * tokens are those of both together without as many as the prompt alone has; in front stands the tokenizer's
 * begin token, where it has one.  What does not fit into the context is left out at the front. */
#ifndef KAPPA_INFER_MULTIPLE_CHOICE_H
#define KAPPA_INFER_MULTIPLE_CHOICE_H

#include "data/tokenizer.h"
#include "infer/choice_tasks.h"
#include "infer/likelihood.h"

typedef struct kp_choice_options {
  const kp_choice_task *task;
  const kp_questions *examples; /* where examples are taken from; NULL: the questions themselves, others */
  int shots;
  uint64_t seed; /* of drawing examples: the numbers are those of Python's random.Random(seed).sample */
  size_t limit;  /* questions, from the front; 0: all */
  kp_likelihood_options likelihood;
} kp_choice_options;

typedef struct kp_choice_result {
  int count, gold;
  int chosen, chosen_norm, chosen_bytes; /* the first of equally good ones */
  bool cut;                              /* some choice's row was longer than the context */
  double scores[KP_MAX_CHOICES];         /* log-likelihoods */
} kp_choice_result;

typedef struct kp_choice_report {
  size_t questions, cut;
  double accuracy, accuracy_norm, accuracy_bytes;
  double accuracy_error, accuracy_norm_error, accuracy_bytes_error; /* √(p (1 - p) / (n - 1)); NaN for one */
  double chance;    /* the mean over questions of 1 / choices */
  double p, p_norm; /* of so many right or rarer by chance alone (Poisson binomial, exact) */
} kp_choice_report;

/* Scores the questions; results[i] is that of question i. */
kp_status kp_multiple_choice(const kp_trained *trained, const kp_questions *questions,
                             const kp_choice_options *options, kp_choice_result *results, kp_error *error);

kp_status kp_choice_report_of(const kp_choice_result *results, size_t count, kp_choice_report *report,
                              kp_error *error);

/* Tokens of a prompt and of what follows it, by the rules above; *scored of the *row at its end are the
 * continuation's. */
kp_status kp_encode_continuation(const kp_tokenizer *tokenizer, const char *prompt, const char *continuation,
                                 kp_ids *row, int64_t *scored, kp_error *error);

/* The two-sided p of `right` successes when trial i succeeds with probability chances[i]: the probability of
 * all numbers that are not likelier, exact up to 20000 trials, by the normal distribution beyond. */
kp_status kp_chance_test(const double *chances, size_t count, size_t right, double *p, kp_error *error);

#endif
