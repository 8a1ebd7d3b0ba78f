#include "data/labelled_batches.h"

#include "core/assert.h"
#include "core/random.h"

kp_status kp_example_sampler_init(kp_example_sampler *sampler, const kp_examples *examples,
                                  const kp_labelling *labelling, const kp_sampler_options *options,
                                  kp_error *error) {
  const int32_t vocabulary = kp_labelling_vocabulary(labelling);
  if (examples->longest > options->context)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s has an example of %lld tokens, longer than the context of %lld: set model.context, or "
                   "prepare the data with --length %lld",
                   kp_tokens_path(examples->tokens, 0), (long long)examples->longest,
                   (long long)options->context, (long long)options->context);
  if (vocabulary > options->vocabulary)
    return kp_fail(error, KP_ERR_INPUT, "token file %s was made for a vocabulary of %d, the model has %d",
                   kp_tokens_path(examples->tokens, 0), vocabulary, options->vocabulary);
  *sampler = (kp_example_sampler){.examples = examples, .labelling = labelling, .options = *options};
  return KP_OK;
}

int64_t kp_example_of_row(const kp_example_sampler *sampler, int64_t step, int64_t row) {
  const kp_sampler_options *options = &sampler->options;
  const int64_t count = sampler->examples->count;
  kp_assert(row >= 0 && row < options->rows * options->micro_batches, "row %lld of a step", (long long)row);
  const int64_t visited = step * options->rows * options->micro_batches + row;
  return (int64_t)kp_random_permute(options->seed, KP_RANDOM_PERMUTATION, (uint32_t)(visited / count),
                                    (uint64_t)(visited % count), (uint64_t)count);
}

/* The last `context - size` places of a row. */
static void pad(const kp_example_sampler *sampler, int64_t size, int32_t *inputs, int32_t *documents) {
  for (int64_t t = size; t < sampler->options.context; t++) {
    inputs[t] = kp_labelling_padding(sampler->labelling);
    documents[t] = KP_PADDING_DOCUMENT;
  }
}

static kp_status check_tokens(const kp_example_sampler *sampler, int64_t begin, int64_t size,
                              const int32_t *inputs, kp_error *error) {
  const int32_t vocabulary = kp_labelling_vocabulary(sampler->labelling);
  for (int64_t t = 0; t < size; t++)
    if ((uint32_t)inputs[t] >= (uint32_t)vocabulary)
      return kp_tokens_fail_range(sampler->examples->tokens, begin + t, vocabulary, error);
  return KP_OK;
}

/* Row `row` of a batch; an example of -1 leaves it empty. */
static kp_status fill_row(const kp_example_sampler *sampler, int64_t example, int64_t row, kp_batch *batch,
                          kp_error *error) {
  const kp_examples *from = sampler->examples;
  const int64_t T = sampler->options.context;
  const bool words = sampler->labelling->task == KP_TASK_TAG;
  const int64_t begin = example < 0 ? 0 : from->offsets[example];
  const int64_t size = example < 0 ? 0 : from->offsets[example + 1] - begin;
  int32_t *inputs = batch->inputs + row * T, *documents = batch->documents + row * T;
  kp_tokens_copy(from->tokens, begin, size, inputs);
  KP_TRY(check_tokens(sampler, begin, size, inputs, error));
  for (int64_t t = 0; t < size; t++) documents[t] = 0;
  pad(sampler, size, inputs, documents);
  if (words)
    for (int64_t t = 0; t < T; t++)
      batch->targets[row * T + t] = t < size ? from->labels[begin + t] : KP_IGNORE;
  else
    batch->targets[row] = example < 0 ? KP_IGNORE : from->labels[example];
  return KP_OK;
}

kp_status kp_example_batch_fill(const kp_example_sampler *sampler, int64_t step, int64_t micro_batch,
                                kp_batch *batch, kp_error *error) {
  const int64_t rows = sampler->options.rows;
  for (int64_t row = 0; row < rows; row++)
    KP_TRY(fill_row(sampler, kp_example_of_row(sampler, step, micro_batch * rows + row), row, batch, error));
  return KP_OK;
}

int64_t kp_example_batches(const kp_example_sampler *sampler, int64_t maximum) {
  const int64_t rows = sampler->options.rows, all = (sampler->examples->count + rows - 1) / rows;
  return maximum > 0 && maximum < all ? maximum : all;
}

kp_status kp_example_validation_fill(const kp_example_sampler *sampler, int64_t batches, int64_t number,
                                     kp_batch *batch, kp_error *error) {
  const int64_t rows = sampler->options.rows, count = sampler->examples->count, places = batches * rows;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t place = number * rows + row;
    const int64_t example = places < count ? place * count / places : place;
    KP_TRY(fill_row(sampler, example < count ? example : -1, row, batch, error));
  }
  return KP_OK;
}
