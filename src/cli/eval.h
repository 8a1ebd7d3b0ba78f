/* kappa eval, by what a model was trained for and what it is asked. */
#ifndef KAPPA_CLI_EVAL_H
#define KAPPA_CLI_EVAL_H

#include <jansson.h>
#include <time.h>

#include "infer/evaluate_labels.h"

/* What the command line says; NULL and 0 where it does not. */
typedef struct kp_eval_arguments {
  const char *run, *checkpoint, *data, *file;
  const char *task, *labels, *examples, *details; /* of multiple choice */
  const kp_backend *backend;
  kp_evaluation_options options;
  long long shots, questions, seed;
  bool json;
} kp_eval_arguments;

/* A line of progress: a terminal gets one that is overwritten, a file one every ten seconds; short work says
 * nothing. */
typedef struct kp_progress_line {
  time_t start, last;
  bool terminal, shown;
} kp_progress_line;

kp_progress_line kp_progress_line_begin(void);
/* Whether a line is due; then the caller prints one, between these two. */
bool kp_progress_line_open(kp_progress_line *line);
void kp_progress_line_close(const kp_progress_line *line, int64_t done, int64_t all);
/* Wipes what a terminal shows. */
void kp_progress_line_end(const kp_progress_line *line);

/* The progress of kp_evaluate; `context` is a kp_progress_line. */
void kp_eval_show_batches(void *context, int64_t done, int64_t batches, double loss);

/* The tokens that --data or --file names. */
kp_status kp_eval_open_text(const kp_eval_arguments *a, const kp_trained *trained, kp_tokens **tokens,
                            kp_error *error);

/* Prints the result where --json asks for it, and adds it to evaluations.jsonl of the run. */
kp_status kp_eval_finish(const kp_eval_arguments *a, const kp_trained *trained, json_t *result,
                         kp_error *error);

/* Scores labelled examples. */
kp_status kp_eval_labels(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error);

/* Scores a text by windows of 1/4 to 8 contexts, and draws context.png and .svg into the run. */
kp_status kp_eval_context(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error);

/* Scores multiple-choice questions. */
kp_status kp_eval_choices(const kp_eval_arguments *a, const kp_trained *trained, kp_error *error);

#endif
