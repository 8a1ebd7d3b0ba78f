/* Which examples a training step sees, and the batches of a validation.
 *
 * A batch has B rows of T tokens, one example a row, padded.  `documents` is 0 where a token of the example
 * stands and KP_PADDING_DOCUMENT elsewhere, so that attention stays among the tokens of the example.
 *
 * Training: the rows of all steps are numbered on; every epoch visits each example once, in an order shuffled
 * anew by (seed, epoch).  Row r of a step is a pure function of (seed, step, r), as in data/batches.h: a
 * resumed run needs no state.  Validation: the examples in their order; the last batch has empty rows. */
#ifndef KAPPA_DATA_LABELLED_BATCHES_H
#define KAPPA_DATA_LABELLED_BATCHES_H

#include "data/batches.h"
#include "data/labelled.h"

enum { KP_PADDING_DOCUMENT = -1 };

/* A view: owns nothing, the examples must outlive it. */
typedef struct kp_example_sampler {
  const kp_examples *examples;
  const kp_labelling *labelling;
  kp_sampler_options options; /* the rule is not read */
} kp_example_sampler;

/* Fails if an example is longer than the context, or the vocabulary smaller than the data's. */
kp_status kp_example_sampler_init(kp_example_sampler *sampler, const kp_examples *examples,
                                  const kp_labelling *labelling, const kp_sampler_options *options,
                                  kp_error *error);

/* The number of the example in row `row` of step `step`. */
int64_t kp_example_of_row(const kp_example_sampler *sampler, int64_t step, int64_t row);

/* Writes tokens (B, T), labels (B) of sentences or (B, T) of tokens, KP_IGNORE where there is none, and
 * documents (B, T).  Fails on a token outside the vocabulary. */
kp_status kp_example_batch_fill(const kp_example_sampler *sampler, int64_t step, int64_t micro_batch,
                                kp_batch *batch, kp_error *error);

/* Batches of a validation with `options->rows` rows; at most `maximum` of them, 0 is no bound. */
int64_t kp_example_batches(const kp_example_sampler *sampler, int64_t maximum);

/* The same for batch `number` of a validation of `batches` batches.  Fewer than all examples are taken evenly
 * from the whole split: its file may be sorted by label. */
kp_status kp_example_validation_fill(const kp_example_sampler *sampler, int64_t batches, int64_t number,
                                     kp_batch *batch, kp_error *error);

#endif
