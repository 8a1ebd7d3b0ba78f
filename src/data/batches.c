#include "data/batches.h"

#include "core/assert.h"
#include "core/random.h"

/* Refuses a stream that says it has tokens which the model cannot embed. */
static kp_status check_vocabulary(const kp_tokens *tokens, int32_t vocabulary, kp_error *error) {
  if (kp_tokens_vocabulary(tokens) <= vocabulary) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT, "token file %s was made for a vocabulary of %d, the model has %d",
                 kp_tokens_path(tokens, 0), kp_tokens_vocabulary(tokens), vocabulary);
}

kp_status kp_sampler_init(kp_sampler *sampler, const kp_tokens *tokens, const kp_sampler_options *options,
                          kp_error *error) {
  kp_assert(options->rows > 0 && options->context > 0 && options->micro_batches > 0 &&
                options->vocabulary > 0,
            "a batch of %lld x %lld, %lld micro batches, vocabulary %d", (long long)options->rows,
            (long long)options->context, (long long)options->micro_batches, options->vocabulary);
  int64_t count = kp_tokens_count(tokens);
  if (count - 1 < options->context)
    return kp_fail(
        error, KP_ERR_INPUT,
        "token file %s has %lld tokens; a context of %lld needs %lld: use more text or a shorter context",
        kp_tokens_path(tokens, 0), (long long)count, (long long)options->context,
        (long long)options->context + 1);
  KP_TRY(check_vocabulary(tokens, options->vocabulary, error));
  *sampler = (kp_sampler){.tokens = tokens, .options = *options, .blocks = (count - 1) / options->context};
  return KP_OK;
}

int64_t kp_sampling_place(const kp_sampler_options *options, int64_t places, int64_t step, int64_t row) {
  kp_assert(step >= 0 && step <= UINT32_MAX, "step %lld", (long long)step);
  kp_assert(row >= 0 && row < options->rows * options->micro_batches, "row %lld of a step", (long long)row);
  if (options->rule == KP_SAMPLING_UNIFORM)
    return (int64_t)kp_random_below(options->seed, KP_RANDOM_BATCHES, (uint32_t)step, (uint64_t)row,
                                    (uint64_t)places);
  const int64_t visited = step * options->rows * options->micro_batches + row;
  return (int64_t)kp_random_permute(options->seed, KP_RANDOM_PERMUTATION, (uint32_t)(visited / places),
                                    (uint64_t)(visited % places), (uint64_t)places);
}

int64_t kp_sampler_offset(const kp_sampler *sampler, int64_t step, int64_t row) {
  const kp_sampler_options *options = &sampler->options;
  if (options->rule == KP_SAMPLING_UNIFORM)
    return kp_sampling_place(options, kp_tokens_count(sampler->tokens) - options->context, step, row);
  return kp_sampling_place(options, sampler->blocks, step, row) * options->context;
}

/* Copies tokens and refuses those outside the vocabulary, which would read beyond the embedding. */
static kp_status copy_checked(const kp_tokens *tokens, int64_t offset, int64_t count, int32_t vocabulary,
                              int32_t *out, kp_error *error) {
  kp_tokens_copy(tokens, offset, count, out);
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++)
    if ((uint32_t)out[i] > largest) largest = (uint32_t)out[i];
  if (largest < (uint32_t)vocabulary) return KP_OK;
  int64_t i = 0;
  while ((uint32_t)out[i] < (uint32_t)vocabulary) i++;
  return kp_tokens_fail_range(tokens, offset + i, vocabulary, error);
}

/* One row: `count` inputs from `offset` on, and the tokens one further as targets. */
static kp_status fill_row(const kp_tokens *tokens, int64_t offset, int64_t count, int32_t vocabulary,
                          int32_t *inputs, int32_t *targets, kp_error *error) {
  KP_TRY(copy_checked(tokens, offset, count, vocabulary, inputs, error));
  return copy_checked(tokens, offset + 1, count, vocabulary, targets, error);
}

kp_status kp_batch_fill(const kp_sampler *sampler, int64_t step, int64_t micro_batch, int32_t *inputs,
                        int32_t *targets, kp_error *error) {
  int64_t rows = sampler->options.rows, context = sampler->options.context;
  for (int64_t row = 0; row < rows; row++) {
    int64_t offset = kp_sampler_offset(sampler, step, micro_batch * rows + row);
    KP_TRY(fill_row(sampler->tokens, offset, context, sampler->options.vocabulary, inputs + row * context,
                    targets + row * context, error));
  }
  return KP_OK;
}

kp_status kp_validation_init(kp_validation *validation, const kp_tokens *tokens, int64_t rows,
                             int64_t context, int32_t vocabulary, int64_t maximum_batches, kp_error *error) {
  kp_assert(rows > 0 && context > 0 && vocabulary > 0 && maximum_batches >= 0,
            "a validation batch of %lld x %lld, vocabulary %d", (long long)rows, (long long)context,
            vocabulary);
  int64_t scored = kp_tokens_count(tokens) - 1;
  if (scored < 1)
    return kp_fail(error, KP_ERR_INPUT, "token file %s has one token; scoring needs two",
                   kp_tokens_path(tokens, 0));
  KP_TRY(check_vocabulary(tokens, vocabulary, error));
  int64_t size = rows * context, batches = (scored + size - 1) / size;
  if (maximum_batches > 0 && batches > maximum_batches) {
    batches = maximum_batches;
    scored = batches * size;
  }
  *validation = (kp_validation){.tokens = tokens,
                                .rows = rows,
                                .context = context,
                                .vocabulary = vocabulary,
                                .batches = batches,
                                .scored = scored};
  return KP_OK;
}

kp_status kp_validation_fill(const kp_validation *validation, int64_t batch, int32_t *inputs,
                             int32_t *targets, int64_t *scored, kp_error *error) {
  kp_assert(batch >= 0 && batch < validation->batches, "batch %lld of %lld", (long long)batch,
            (long long)validation->batches);
  int64_t context = validation->context, total = 0;
  for (int64_t row = 0; row < validation->rows; row++) {
    int64_t offset = (batch * validation->rows + row) * context;
    int64_t left = kp_tokens_count(validation->tokens) - 1 - offset;
    int64_t count = left < 0 ? 0 : left < context ? left : context;
    int32_t *row_inputs = inputs + row * context, *row_targets = targets + row * context;
    if (count > 0)
      KP_TRY(fill_row(validation->tokens, offset, count, validation->vocabulary, row_inputs, row_targets,
                      error));
    for (int64_t t = count; t < context; t++) {
      row_inputs[t] = 0;
      row_targets[t] = KP_IGNORE;
    }
    total += count;
  }
  *scored = total;
  return KP_OK;
}
