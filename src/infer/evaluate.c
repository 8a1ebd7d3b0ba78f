#include "infer/evaluate.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "core/executor.h"
#include "train/feed.h"
#include "train/trainer.h"

/* The model at work, and what one batch after the other adds. */
typedef struct evaluator {
  const kp_trained *trained;
  kp_feed feed;
  kp_network *network;
  kp_executor *executor;
  double *losses;  /* of each batch: mean over its scored tokens */
  int64_t *scored; /* tokens of each batch */
} evaluator;

static kp_status set_up(evaluator *e, const kp_tokens *tokens, const kp_evaluation_options *options,
                        kp_error *error) {
  const kp_trained *trained = e->trained;
  kp_train_settings settings;
  kp_model_options model = trained->options; /* its memory stays the run's */
  KP_TRY(kp_train_settings_read(trained->config, &settings, error));
  model.packed = kp_tokens_index(tokens) != NULL || settings.packing != KP_PACKING_NONE;
  const kp_build build = {.mode = KP_BUILD_EVALUATE,
                          .batch = settings.batch,
                          .length = model.context,
                          .documents = kp_model_reads_documents(&model)};
  const kp_executor_options executor = {.threads = options->threads};
  KP_TRY(kp_feed_init_evaluation(&e->feed, tokens, &settings, &model, options->batches, error));
  KP_TRY(kp_network_create(&trained->options, trained->parameters, build, &e->network, error));
  KP_TRY(kp_executor_create(e->network->graph, trained->backend, trained->parameters, executor, &e->executor,
                            error));
  kp_network_write_positions(e->network, e->executor);
  e->losses = malloc((size_t)e->feed.batches * sizeof *e->losses);
  e->scored = malloc((size_t)e->feed.batches * sizeof *e->scored);
  return e->losses == NULL || e->scored == NULL
             ? kp_fail(error, KP_ERR_MEMORY, "no memory for the losses of %lld batches",
                       (long long)e->feed.batches)
             : KP_OK;
}

static void tear_down(evaluator *e) {
  kp_executor_destroy(e->executor);
  kp_network_destroy(e->network);
  kp_feed_clear(&e->feed);
  free(e->losses);
  free(e->scored);
}

static kp_status run_batch(evaluator *e, int64_t batch, kp_error *error) {
  KP_TRY(kp_feed_evaluation(&e->feed, batch, &e->scored[batch], error));
  kp_network_write_batch(e->network, e->executor, &e->feed.batch);
  KP_TRY(kp_executor_run(e->executor, 0, e->network->graph->node_count, error));
  kp_executor_read(e->executor, e->network->loss, &e->losses[batch]);
  if (!isfinite(e->losses[batch]))
    return kp_fail(error, KP_ERR_NUMERIC, "the loss of batch %lld of %lld is %g", (long long)batch + 1,
                   (long long)e->feed.batches, e->losses[batch]);
  return KP_OK;
}

/* The error of a weighted mean, weights being each batch's share of the tokens; with equal shares it is
 * s / sqrt(n), s the sample's standard deviation. */
static double standard_error(const evaluator *e, double mean, double tokens) {
  const double n = (double)e->feed.batches;
  double squares = 0;
  for (int64_t b = 0; b < e->feed.batches; b++) {
    const double part = (double)e->scored[b] / tokens * (e->losses[b] - mean);
    squares += part * part;
  }
  return n > 1 ? sqrt(squares * n / (n - 1)) : (double)NAN;
}

static void sum_up(const evaluator *e, const kp_tokens *tokens, kp_evaluation *result) {
  const double bytes = (double)kp_tokens_text_bytes(tokens), all = (double)kp_tokens_count(tokens);
  double total = 0, scored = 0;
  for (int64_t b = 0; b < e->feed.batches; b++) {
    total += e->losses[b] * (double)e->scored[b];
    scored += (double)e->scored[b];
  }
  result->loss = total / scored;
  result->standard_error = standard_error(e, result->loss, scored);
  result->perplexity = exp(result->loss);
  result->bits_per_byte = bytes > 0 && !e->feed.dialogue ? result->loss / log(2) * all / bytes : (double)NAN;
  result->tokens = (int64_t)scored;
  result->batches = e->feed.batches;
  result->rows = e->feed.options.rows;
}

kp_status kp_evaluate(const kp_trained *trained, const kp_tokens *tokens,
                      const kp_evaluation_options *options, kp_evaluation *result, kp_error *error) {
  const double start = omp_get_wtime();
  evaluator e = {.trained = trained};
  double sum = 0, scored = 0;
  kp_status status = set_up(&e, tokens, options, error);
  for (int64_t b = 0; status == KP_OK && b < e.feed.batches; b++) {
    status = run_batch(&e, b, error);
    if (status != KP_OK) break;
    sum += e.losses[b] * (double)e.scored[b];
    scored += (double)e.scored[b];
    if (options->progress != NULL) options->progress(options->context, b + 1, e.feed.batches, sum / scored);
  }
  if (status == KP_OK) {
    sum_up(&e, tokens, result);
    result->seconds = omp_get_wtime() - start;
  }
  tear_down(&e);
  return status;
}
