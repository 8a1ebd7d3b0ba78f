#include "infer/evaluate.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "core/executor.h"
#include "data/packed_stream.h"
#include "train/settings.h"

/* The model at work, and what one batch after the other adds. */
typedef struct evaluator {
  const kp_trained *trained;
  kp_validation validation;
  kp_network *network;
  kp_executor *executor;
  double *losses;  /* of each batch: mean over its scored tokens */
  int64_t *scored; /* tokens of each batch */
  int32_t *tokens; /* of a batch: inputs, targets and the numbers of documents, (B, T) each */
} evaluator;

static kp_status set_up(evaluator *e, const kp_tokens *tokens, const kp_evaluation_options *options,
                        kp_error *error) {
  const kp_trained *trained = e->trained;
  const int64_t rows = kp_config_integer(trained->config, "train.batch"), context = trained->options.context;
  const kp_build build = {.mode = KP_BUILD_EVALUATE,
                          .batch = rows,
                          .length = context,
                          .documents = kp_config_choice(trained->config, "train.packing") != KP_PACKING_NONE};
  const kp_executor_options executor = {.threads = options->threads};
  KP_TRY(kp_validation_init(&e->validation, tokens, rows, context, (int32_t)trained->options.vocabulary,
                            options->batches, error));
  KP_TRY(kp_network_create(&trained->options, trained->parameters, build, &e->network, error));
  KP_TRY(kp_executor_create(e->network->graph, trained->backend, trained->parameters, executor, &e->executor,
                            error));
  kp_network_write_positions(e->network, e->executor);
  e->losses = malloc((size_t)e->validation.batches * sizeof *e->losses);
  e->scored = malloc((size_t)e->validation.batches * sizeof *e->scored);
  e->tokens = malloc(3 * (size_t)(rows * context) * sizeof *e->tokens);
  return e->losses == NULL || e->scored == NULL || e->tokens == NULL
             ? kp_fail(error, KP_ERR_MEMORY, "no memory for the losses of %lld batches",
                       (long long)e->validation.batches)
             : KP_OK;
}

static void tear_down(evaluator *e) {
  kp_executor_destroy(e->executor);
  kp_network_destroy(e->network);
  free(e->losses);
  free(e->scored);
  free(e->tokens);
}

static kp_status run_batch(evaluator *e, int64_t batch, kp_error *error) {
  const int64_t count = e->validation.rows * e->validation.context;
  int32_t *inputs = e->tokens, *targets = inputs + count, *documents = targets + count;
  KP_TRY(kp_validation_fill(&e->validation, batch, inputs, targets, &e->scored[batch], error));
  kp_executor_write_int32(e->executor, e->network->tokens, inputs);
  kp_executor_write_int32(e->executor, e->network->targets, targets);
  if (e->network->documents != NULL) {
    kp_number_documents(inputs, e->validation.rows, e->validation.context,
                        (int32_t)kp_config_integer(e->trained->config, "data.separator"), documents);
    kp_executor_write_int32(e->executor, e->network->documents, documents);
  }
  KP_TRY(kp_executor_run(e->executor, 0, e->network->graph->node_count, error));
  kp_executor_read(e->executor, e->network->loss, &e->losses[batch]);
  if (!isfinite(e->losses[batch]))
    return kp_fail(error, KP_ERR_NUMERIC, "the loss of batch %lld of %lld is %g", (long long)batch + 1,
                   (long long)e->validation.batches, e->losses[batch]);
  return KP_OK;
}

/* The error of a weighted mean, weights being each batch's share of the tokens; with equal shares it is
 * s / sqrt(n), s the sample's standard deviation. */
static double standard_error(const evaluator *e, double mean, double tokens) {
  const double n = (double)e->validation.batches;
  double squares = 0;
  for (int64_t b = 0; b < e->validation.batches; b++) {
    const double part = (double)e->scored[b] / tokens * (e->losses[b] - mean);
    squares += part * part;
  }
  return n > 1 ? sqrt(squares * n / (n - 1)) : (double)NAN;
}

static void sum_up(const evaluator *e, const kp_tokens *tokens, kp_evaluation *result) {
  const double bytes = (double)kp_tokens_text_bytes(tokens), all = (double)kp_tokens_count(tokens);
  double total = 0, scored = 0;
  for (int64_t b = 0; b < e->validation.batches; b++) {
    total += e->losses[b] * (double)e->scored[b];
    scored += (double)e->scored[b];
  }
  result->loss = total / scored;
  result->standard_error = standard_error(e, result->loss, scored);
  result->perplexity = exp(result->loss);
  result->bits_per_byte = bytes > 0 ? result->loss / log(2) * all / bytes : (double)NAN;
  result->tokens = e->validation.scored;
  result->batches = e->validation.batches;
  result->rows = e->validation.rows;
}

kp_status kp_evaluate(const kp_trained *trained, const kp_tokens *tokens,
                      const kp_evaluation_options *options, kp_evaluation *result, kp_error *error) {
  const double start = omp_get_wtime();
  evaluator e = {.trained = trained};
  double sum = 0, scored = 0;
  kp_status status = set_up(&e, tokens, options, error);
  for (int64_t b = 0; status == KP_OK && b < e.validation.batches; b++) {
    status = run_batch(&e, b, error);
    if (status != KP_OK) break;
    sum += e.losses[b] * (double)e.scored[b];
    scored += (double)e.scored[b];
    if (options->progress != NULL)
      options->progress(options->context, b + 1, e.validation.batches, sum / scored);
  }
  if (status == KP_OK) {
    sum_up(&e, tokens, result);
    result->seconds = omp_get_wtime() - start;
  }
  tear_down(&e);
  return status;
}
