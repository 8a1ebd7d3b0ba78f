/* Which tokens a training step sees, and the fixed windows of a validation.
 *
 * Training: the rows of step s are numbered 0 .. micro_batches * B - 1; micro batch m takes rows m * B to
 * (m + 1) * B - 1.  The offset of row r is a pure function of (seed, s, r): a resumed run needs no state, and
 * a step sees the same rows however it is cut into micro batches and ranks (give each rank its own range of
 * micro batch numbers).
 *
 *   uniform      offset uniform in [0, count - T), with replacement; nanoGPT's rule
 *   sequential   the stream is cut into floor((count - 1) / T) blocks of T tokens; an epoch visits each
 *                once, in an order shuffled anew every epoch by a permutation that needs no table
 *
 * Validation: consecutive windows of T targets from the front of the stream, so that every token but the
 * very first is scored once; what is missing in the last batch is padded with KP_IGNORE. */
#ifndef KAPPA_DATA_BATCHES_H
#define KAPPA_DATA_BATCHES_H

#include <stdint.h>

#include "core/error.h"
#include "data/token_file.h"

/* A target that is not scored. */
enum { KP_IGNORE = -1 };

/* What a training or evaluation pass reads; the buffers belong to whoever made them. */
typedef struct kp_batch {
  int32_t *inputs;    /* (B, T) tokens */
  int32_t *targets;   /* (B, T), or (B) where a row has one label */
  int32_t *documents; /* (B, T), equal among the tokens that belong together; NULL where nothing reads them */
  int32_t *positions; /* (B, T), or NULL: 0 … T - 1 in every row */
} kp_batch;

typedef enum kp_sampling { KP_SAMPLING_UNIFORM, KP_SAMPLING_SEQUENTIAL } kp_sampling;

typedef struct kp_sampler_options {
  kp_sampling rule;
  uint64_t seed;
  int64_t rows;          /* B: rows of a micro batch */
  int64_t context;       /* T: tokens of a row */
  int64_t micro_batches; /* in a step, over accumulation and all ranks */
  int32_t vocabulary;    /* of the model: every token must be smaller */
} kp_sampler_options;

/* A view: owns nothing, the tokens must outlive it. */
typedef struct kp_sampler {
  const kp_tokens *tokens;
  kp_sampler_options options;
  int64_t blocks; /* of an epoch of the sequential rule */
} kp_sampler;

/* Fails if the stream has no T + 1 tokens, or says that it was made for a larger vocabulary. */
kp_status kp_sampler_init(kp_sampler *sampler, const kp_tokens *tokens, const kp_sampler_options *options,
                          kp_error *error);

/* Which of `places` row `row` of step `step` takes. */
int64_t kp_sampling_place(const kp_sampler_options *options, int64_t places, int64_t step, int64_t row);

/* The stream's position of the first token of row `row` of step `step`. */
int64_t kp_sampler_offset(const kp_sampler *sampler, int64_t step, int64_t row);

/* Writes inputs (B, T) and targets (B, T), the tokens one further, of a micro batch.
 * 0 <= step < 2^32, 0 <= micro_batch < micro_batches.  Fails, naming file and position, on a token outside
 * the vocabulary. */
kp_status kp_batch_fill(const kp_sampler *sampler, int64_t step, int64_t micro_batch, int32_t *inputs,
                        int32_t *targets, kp_error *error);

/* The windows of a validation.  A view like the sampler. */
typedef struct kp_validation {
  const kp_tokens *tokens;
  int64_t rows, context; /* B, T */
  int32_t vocabulary;
  int64_t batches; /* calls of kp_validation_fill */
  int64_t scored;  /* tokens that are scored in all of them */
} kp_validation;

/* At most `maximum_batches` batches; 0 is no bound.  Fails if the stream has fewer than two tokens. */
kp_status kp_validation_init(kp_validation *validation, const kp_tokens *tokens, int64_t rows,
                             int64_t context, int32_t vocabulary, int64_t maximum_batches, kp_error *error);

/* Writes inputs and targets (B, T) of batch `batch` and the number of targets that are not KP_IGNORE.
 * Padded inputs are token 0. */
kp_status kp_validation_fill(const kp_validation *validation, int64_t batch, int32_t *inputs,
                             int32_t *targets, int64_t *scored, kp_error *error);

#endif
