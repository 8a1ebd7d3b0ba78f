/* Generation: a prompt goes in, tokens and their text come out one by one. */
#ifndef KAPPA_INFER_GENERATE_H
#define KAPPA_INFER_GENERATE_H

#include <signal.h>

#include "data/tokenizer.h"
#include "infer/decoder.h"
#include "infer/sampler.h"
#include "infer/text_stream.h"

typedef struct kp_generation {
  const int32_t *prompt;
  int64_t prompt_length;         /* > 0 */
  int64_t tokens;                /* how many to generate, > 0 */
  int32_t stop_token;            /* ends the text, and is not part of it; -1: none */
  uint64_t sample;               /* numbers the samples of one seed; of several sequences the first */
  int64_t sequences;             /* side by side, each from the prompt; 0: 1 */
  int32_t *written;              /* (B, tokens) gets the tokens; may be NULL */
  const kp_tokenizer *tokenizer; /* NULL: no text is made */
  kp_text_sink sink;             /* gets the text as it comes; false ends it.  NULL: no text is made */
  void *context;                 /* of the sink */
  const volatile sig_atomic_t *interrupt; /* set: end after the present token; may be NULL */
} kp_generation;

typedef enum kp_generation_end {
  KP_END_LENGTH, /* as many tokens as were asked for */
  KP_END_STOP_TOKEN,
  KP_END_INTERRUPTED, /* by the flag or the sink */
} kp_generation_end;

typedef struct kp_generation_report {
  kp_generation_end end;
  int64_t sequences, prompt_tokens, tokens; /* of each sequence */
  double prompt_seconds;                    /* of reading the prompt */
  /* Of the passes over one generated token, sampling included: the last token has none, as nothing follows
   * it.  Seconds of one are NaN when there was none. */
  int64_t steps;
  double step_seconds; /* all together */
  double median_step, best_step;
  double parameter_bytes; /* read by a step */
  double cache_bytes;     /* of keys and values read by a step, the mean */
  double token_bytes;     /* that a token takes in the caches */
} kp_generation_report;

/* Generates with a decoder of so many sequences, which is reset first, and a sampler of the tokenizer's
 * vocabulary (of the model's without one).  Several sequences make no text and know no stop token. */
kp_status kp_generate(kp_decoder *decoder, kp_token_sampler *sampler, const kp_generation *generation,
                      kp_generation_report *report, kp_error *error);

/* The tokens of a prompt, for the caller to free.  No text, or a character that the tokenizer lacks, is an
 * error that says so. */
kp_status kp_prompt_encode(const kp_tokenizer *tokenizer, const char *text, size_t size, int32_t **tokens,
                           int64_t *count, kp_error *error);

#endif
