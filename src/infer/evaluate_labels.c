#include "infer/evaluate_labels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/executor.h"
#include "data/labelled_batches.h"
#include "data/prepare.h"
#include "train/settings.h"
#include "train/trainer.h"

/* ---- the examples ---- */

/* The folder that the words mean: a path, or a name in the folder of the data sets. */
static kp_status find_folder(const char *data, char folder[KP_PATH_SIZE], kp_error *error) {
  KP_TRY(kp_path_check(data, error));
  snprintf(folder, KP_PATH_SIZE, "%s", data);
  if (kp_path_kind_of(folder) != KP_PATH_FOLDER) {
    KP_TRY(kp_data_folder(folder, error));
    KP_TRY(kp_path_join(folder, folder, data, error));
  }
  if (kp_labelling_stands_in(folder)) return KP_OK;
  return kp_fail(error, KP_ERR_INPUT,
                 "neither %s nor %s is a folder of labelled examples; `kappa data prepare --task` makes one",
                 data, folder);
}

/* Labels and tokens must mean what they meant in training. */
static kp_status check_set(const kp_trained *trained, const kp_labelled_set *set, const char *folder,
                           kp_error *error) {
  kp_labelling own;
  KP_TRY(kp_labelling_read(trained->run, &own, error));
  const bool same =
      own.task == set->labelling.task && kp_label_set_equal(&own.labels, &set->labelling.labels);
  kp_labelling_clear(&own);
  if (!same)
    return kp_fail(
        error, KP_ERR_INPUT,
        "%s has other labels than run %s was trained on: prepare it with --like and the data of the "
        "run",
        folder, trained->run);
  return trained->tokenizer == NULL
             ? KP_OK
             : kp_tokens_check_tokenizer(set->validation.tokens, trained->tokenizer, error);
}

kp_status kp_evaluation_examples_open(const kp_trained *trained, const char *data, kp_labelled_set *set,
                                      kp_error *error) {
  char folder[KP_PATH_SIZE];
  *set = (kp_labelled_set){0};
  KP_TRY(find_folder(data != NULL ? data : kp_config_string(trained->config, "data.path"), folder, error));
  KP_TRY(kp_labelled_open(folder, set, error));
  kp_status status = check_set(trained, set, folder, error);
  if (status != KP_OK) kp_labelled_close(set);
  return status;
}

/* ---- scoring ---- */

typedef struct evaluator {
  const kp_trained *trained;
  kp_example_sampler examples;
  kp_network *network;
  kp_executor *executor;
  kp_batch batch;
  double *logits; /* (B, K) or (B, T, K) */
} evaluator;

static void tear_down(evaluator *e) {
  kp_executor_destroy(e->executor);
  kp_network_destroy(e->network);
  free(e->batch.inputs);
  free(e->batch.targets);
  free(e->batch.documents);
  free(e->logits);
}

static kp_status allocate(evaluator *e, kp_error *error) {
  const size_t bytes = (size_t)kp_tensor_count(e->network->tokens) * sizeof(int32_t);
  e->batch = (kp_batch){.inputs = malloc(bytes), .targets = malloc(bytes), .documents = malloc(bytes)};
  e->logits = malloc((size_t)kp_tensor_count(e->network->logits) * sizeof *e->logits);
  if (e->batch.inputs != NULL && e->batch.targets != NULL && e->batch.documents != NULL && e->logits != NULL)
    return KP_OK;
  return kp_fail(error, KP_ERR_MEMORY, "no memory for a batch");
}

static kp_status set_up(evaluator *e, const kp_labelled_set *set, const kp_evaluation_options *options,
                        kp_error *error) {
  const kp_trained *trained = e->trained;
  const kp_build build = {.mode = KP_BUILD_EVALUATE,
                          .batch = kp_config_integer(trained->config, "train.batch"),
                          .length = trained->options.context,
                          .documents = true};
  const kp_sampler_options sampler = {.rows = build.batch,
                                      .context = build.length,
                                      .micro_batches = 1,
                                      .vocabulary = (int32_t)trained->options.vocabulary};
  const kp_executor_options executor = {.threads = options->threads};
  KP_TRY(kp_example_sampler_init(&e->examples, &set->validation, &set->labelling, &sampler, error));
  KP_TRY(kp_network_create(&trained->options, trained->parameters, build, &e->network, error));
  KP_TRY(kp_executor_create(e->network->graph, trained->backend, trained->parameters, executor, &e->executor,
                            error));
  kp_network_write_positions(e->network, e->executor);
  return allocate(e, error);
}

static kp_status score_batch(evaluator *e, int64_t batches, int64_t number, kp_scores *scores,
                             kp_error *error) {
  const bool words = e->trained->options.task == KP_TASK_TAG;
  double loss;
  KP_TRY(kp_example_validation_fill(&e->examples, batches, number, &e->batch, error));
  kp_network_write_batch(e->network, e->executor, &e->batch);
  KP_TRY(kp_executor_run(e->executor, 0, e->network->graph->forward_count, error));
  kp_executor_read(e->executor, e->network->loss, &loss);
  if (!isfinite(loss))
    return kp_fail(error, KP_ERR_NUMERIC, "the loss of batch %lld is %g", (long long)number + 1, loss);
  kp_executor_read(e->executor, e->network->logits, e->logits);
  kp_scores_add(scores, e->logits, e->batch.targets, e->network->build.batch,
                words ? e->network->build.length : 1);
  return KP_OK;
}

static kp_status score_all(evaluator *e, const kp_evaluation_options *options, kp_scores *scores,
                           kp_error *error) {
  const int64_t batches = kp_example_batches(&e->examples, options->batches);
  for (int64_t n = 0; n < batches; n++) {
    KP_TRY(score_batch(e, batches, n, scores, error));
    if (options->progress != NULL)
      options->progress(options->context, n + 1, batches, kp_scores_report(scores).loss);
  }
  return KP_OK;
}

kp_status kp_evaluate_labels(const kp_trained *trained, const kp_labelled_set *set,
                             const kp_evaluation_options *options, kp_scores *scores, kp_error *error) {
  evaluator e = {.trained = trained};
  KP_TRY(kp_scores_init(scores, &set->labelling, &set->train, trained->options.context, error));
  kp_status status = set_up(&e, set, options, error);
  if (status == KP_OK) status = score_all(&e, options, scores, error);
  tear_down(&e);
  if (status != KP_OK) kp_scores_clear(scores);
  return status;
}
