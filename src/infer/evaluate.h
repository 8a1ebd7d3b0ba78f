/* How well a trained model predicts a text. */
#ifndef KAPPA_INFER_EVALUATE_H
#define KAPPA_INFER_EVALUATE_H

#include <stdbool.h>

#include "data/token_file.h"
#include "train/run.h"

typedef struct kp_evaluation_options {
  int64_t batches; /* at most so many, from the front of the text; 0: all */
  int64_t tokens;  /* score at most so many, from the front; 0: all */
  int64_t window;  /* tokens of one; 0: the model's context */
  int64_t stride;  /* of windows (infer/windows.h); 0: the window's length */
  bool documents;  /* document by document */
  int threads;     /* 0: all */
  /* After every batch, with the number done; may be NULL. */
  void (*progress)(void *context, int64_t done, int64_t batches, double loss);
  void *context;
} kp_evaluation_options;

typedef struct kp_evaluation {
  double loss;           /* mean over tokens, natural logarithm */
  double standard_error; /* of the loss, from the differences between batches; NaN with a single one */
  double perplexity;     /* exp(loss) */
  double bits_per_byte;  /* NaN when the bytes of the text are unknown, and of conversations */
  int64_t tokens;        /* scored */
  int64_t batches, rows; /* of rows x context tokens */
  int64_t window, stride;
  int64_t documents; /* 1 for a stream */
  double seconds;
} kp_evaluation;

/* Scores the text in windows of `window` tokens, every `stride` tokens (infer/windows.h): by default one
 * behind the other, each of the model's context, as training does to validate.  Tokens at the front of a
 * window have little to go on, so a loss depends on window and stride.  Batches have about as many tokens as
 * in training.
 *
 * Windows longer than the model's context are refused where positions are learned (kp_context_refusal), and
 * documents where nothing says which token stands between them.  Of conversations only
 * what is learned is scored, in rows of whole ones. */
kp_status kp_evaluate(const kp_trained *trained, const kp_tokens *tokens,
                      const kp_evaluation_options *options, kp_evaluation *evaluation, kp_error *error);

/* NULL, or why the model cannot read windows of `context` tokens. */
const char *kp_context_refusal(const kp_model_options *options, int64_t context);

/* The tokens to score: the validation tokens of the run's own data when `data` is NULL, else those of a
 * prepared folder, a data set's name or a token file.  Tokens of another tokenizer are refused.  Destroy with
 * kp_tokens_destroy. */
kp_status kp_evaluation_data_open(const kp_trained *trained, const char *data, kp_tokens **tokens,
                                  kp_error *error);

/* A text file, by the run's tokenizer. */
kp_status kp_evaluation_text_open(const kp_trained *trained, const char *path, kp_tokens **tokens,
                                  kp_error *error);

#endif
