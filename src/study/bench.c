#include "study/bench.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/random.h"
#include "optim/stepper.h"
#include "train/settings.h"

/* One configuration with what a step of it needs. */
typedef struct subject {
  kp_model_options options;
  kp_train_settings settings;
  kp_engine *engine;
  kp_stepper *stepper;
  kp_batch batch; /* owned */
  double *milliseconds;
  int64_t steps_done;
  size_t device_bytes;
} subject;

static void subject_destroy(subject *s) {
  kp_stepper_destroy(s->stepper);
  kp_engine_destroy(s->engine);
  kp_model_options_destroy(&s->options);
  free(s->batch.inputs);
  free(s->batch.targets);
  free(s->batch.documents);
  free(s->milliseconds);
}

/* Of a device's memory; 0 on the host, where nothing is scarce. */
static size_t free_bytes(const kp_backend *backend) {
  return backend->device == NULL ? 0 : backend->device->free_bytes(backend->device);
}

static kp_status subject_create(subject *s, const kp_config *config, const kp_bench_options *options,
                                kp_error *error) {
  KP_TRY(kp_train_settings_read(config, &s->settings, error));
  KP_TRY(kp_model_options_read(config, NULL, &s->options, error));
  s->options.recompute = s->settings.recompute;
  s->options.lora = s->settings.lora;
  s->options.packed = s->settings.packing != KP_PACKING_NONE;
  const size_t before = free_bytes(options->backend);
  KP_TRY(kp_engine_create(&s->options, s->settings.batch, s->settings.seed, options->backend,
                          options->threads, &s->engine, error));
  KP_TRY(kp_stepper_create(kp_engine_parameters(s->engine), &s->settings.optimizer, options->threads,
                           &s->stepper, error));
  s->device_bytes = before - free_bytes(options->backend);
  const int64_t tokens = s->settings.batch * s->options.context;
  const uint64_t vocabulary = (uint64_t)s->options.vocabulary;
  const uint64_t labels = s->options.task == KP_TASK_LANGUAGE ? vocabulary : (uint64_t)s->options.classes;
  kp_batch *batch = &s->batch;
  batch->inputs = malloc((size_t)tokens * sizeof *batch->inputs);
  batch->targets = malloc((size_t)tokens * sizeof *batch->targets);
  batch->documents = calloc((size_t)tokens, sizeof *batch->documents);
  s->milliseconds = malloc((size_t)options->steps * sizeof *s->milliseconds);
  kp_assert(batch->inputs && batch->targets && batch->documents && s->milliseconds,
            "out of memory for a batch");
  for (int64_t i = 0; i < tokens; i++) {
    batch->inputs[i] = (int32_t)kp_random_below(1, KP_RANDOM_GENERIC, 0, (uint64_t)i, vocabulary);
    batch->targets[i] = (int32_t)kp_random_below(1, KP_RANDOM_GENERIC, 1, (uint64_t)i, labels);
  }
  return KP_OK;
}

/* A whole training step, as the trainer makes it. */
static kp_status submit_step(subject *s, kp_error *error) {
  const double weight = 1 / (double)s->settings.accumulate;
  KP_TRY(kp_stepper_begin(s->stepper, 1, 1, error));
  for (int64_t m = 0; m < s->settings.accumulate; m++) {
    KP_TRY(kp_engine_accumulate(s->engine, &s->batch, weight, (uint64_t)s->steps_done, error));
    KP_TRY(kp_stepper_add_loss(s->stepper, kp_engine_loss(s->engine), weight, error));
  }
  s->steps_done++;
  return kp_stepper_submit(s->stepper, error);
}

/* Milliseconds of a step, the mean of `run` steps. */
static kp_status steps(subject *s, int run, double *milliseconds, kp_error *error) {
  const double start = omp_get_wtime();
  kp_step_outcome outcome;
  for (int i = 0; i < run; i++) KP_TRY(submit_step(s, error));
  KP_TRY(kp_stepper_outcome(s->stepper, &outcome, error));
  if (outcome.skipped > 0)
    return kp_fail(error, KP_ERR_NUMERIC, "the gradient of a benchmark step is not finite");
  *milliseconds = (omp_get_wtime() - start) * 1e3 / run;
  return KP_OK;
}

/* Steps of a device are timed in runs, as training makes them: without waiting for each. */
static kp_status step(subject *s, double *milliseconds, kp_error *error) {
  enum { RUN = 10 };
  return steps(s, kp_stepper_is_asynchronous(s->stepper) ? RUN : 1, milliseconds, error);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static kp_bench_step summarise(subject *s, int steps) {
  const double tokens = (double)(s->settings.batch * s->settings.accumulate * s->options.context);
  const kp_network *network = kp_engine_network(s->engine);
  qsort(s->milliseconds, (size_t)steps, sizeof *s->milliseconds, ascending);
  kp_bench_step result = {.step_ms = s->milliseconds[steps / 2],
                          .step_ms_best = s->milliseconds[0],
                          .flops = (double)s->settings.accumulate *
                                   kp_network_flops(network, 0, network->graph->node_count),
                          .parameters = kp_parameters_elements(kp_engine_parameters(s->engine)),
                          .plan = kp_engine_memory(s->engine, &s->settings.optimizer),
                          .resident_bytes = kp_resident_bytes(),
                          .device_bytes = s->device_bytes};
  if (steps % 2 == 0) result.step_ms = (result.step_ms + s->milliseconds[steps / 2 - 1]) / 2;
  result.tokens_per_s = tokens / result.step_ms * 1e3;
  return result;
}

kp_status kp_bench_steps(kp_config *const *configs, int count, const kp_bench_options *options,
                         kp_bench_step *results, kp_error *error) {
  subject *subjects = calloc((size_t)count, sizeof *subjects);
  kp_assert(subjects != NULL, "out of memory");
  kp_status status = KP_OK;
  for (int i = 0; i < count && status == KP_OK; i++)
    status = subject_create(&subjects[i], configs[i], options, error);
  for (int n = -options->warmup; n < options->steps && status == KP_OK; n++)
    for (int i = 0; i < count && status == KP_OK; i++) {
      double milliseconds = 0;
      status = step(&subjects[i], &milliseconds, error);
      if (n >= 0) subjects[i].milliseconds[n] = milliseconds;
    }
  for (int i = 0; i < count && status == KP_OK; i++) results[i] = summarise(&subjects[i], options->steps);
  for (int i = 0; i < count; i++) subject_destroy(&subjects[i]);
  free(subjects);
  return status;
}

/* ---- operators ---- */

static double tensor_bytes(const kp_tensor *tensor, const kp_backend *backend) {
  return tensor == NULL ? 0 : (double)kp_tensor_count(tensor) * (double)kp_type_size(backend, tensor->type);
}

static double node_bytes(const kp_node *node, const kp_backend *backend) {
  double bytes = 0;
  for (int i = 0; i < node->inputs; i++) {
    bool counted = false; /* the same tensor twice is read once */
    for (int j = 0; j < i; j++) counted |= node->input[j] == node->input[i];
    if (!counted) bytes += tensor_bytes(node->input[i], backend);
  }
  for (int i = 0; i < node->outputs; i++) bytes += tensor_bytes(node->output[i], backend);
  return bytes;
}

static kp_bench_operator *entry_of(kp_bench_operator *results, int *count, const char *name) {
  for (int i = 0; i < *count; i++)
    if (results[i].name == name) return &results[i];
  kp_assert(*count < KP_BENCH_OPERATORS, "more than %d operators", KP_BENCH_OPERATORS);
  results[*count] = (kp_bench_operator){.name = name};
  return &results[(*count)++];
}

static int slowest_first(const void *a, const void *b) {
  const double x = ((const kp_bench_operator *)a)->ms, y = ((const kp_bench_operator *)b)->ms;
  return (x < y) - (x > y);
}

kp_status kp_bench_operators(const kp_config *config, const kp_bench_options *options,
                             kp_bench_operator *results, int *count, kp_error *error) {
  subject s = {0};
  double milliseconds;
  *count = 0;
  kp_status status = subject_create(&s, config, options, error);
  for (int n = 0; n < options->warmup && status == KP_OK; n++) status = steps(&s, 1, &milliseconds, error);
  if (status == KP_OK) kp_executor_profile(kp_engine_executor(s.engine), true);
  for (int n = 0; n < options->steps && status == KP_OK; n++) status = steps(&s, 1, &milliseconds, error);
  if (status == KP_OK) {
    const kp_network *network = kp_engine_network(s.engine);
    const double *seconds = kp_executor_node_seconds(kp_engine_executor(s.engine));
    for (int n = 0; n < network->graph->node_count; n++) {
      const kp_node *node = network->graph->nodes[n];
      kp_bench_operator *entry = entry_of(results, count, node->row->name);
      entry->nodes++;
      entry->ms += seconds[n] * 1e3 / options->steps;
      entry->bytes += node_bytes(node, options->backend);
      entry->flops += kp_network_flops(network, n, n + 1);
    }
    qsort(results, (size_t)*count, sizeof *results, slowest_first);
  }
  subject_destroy(&s);
  return status;
}
