#include "train/metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "core/assert.h"
#include "core/json_text.h"

kp_status kp_metrics_open(const char *run, int64_t step, kp_metrics *metrics, kp_error *error) {
  metrics->board = NULL;
  KP_TRY(kp_path_join(metrics->path, run, "metrics.jsonl", error));
  KP_TRY(kp_jsonl_truncate_after(metrics->path, "step", step, error));
  return kp_tensorboard_open(run, step < 0 ? 0 : step, &metrics->board, error);
}

void kp_metrics_close(kp_metrics *metrics) {
  kp_tensorboard_close(metrics->board);
  metrics->board = NULL;
}

static kp_status scalar(kp_metrics *metrics, json_t *line, const char *key, double value, int64_t step,
                        kp_error *error) {
  json_object_set_new(line, key, kp_json_number(value));
  return kp_tensorboard_scalar(metrics->board, key, (float)value, step, error);
}

kp_status kp_metrics_step(kp_metrics *metrics, const kp_progress *p, kp_error *error) {
  json_t *line = json_object();
  json_object_set_new(line, "step", json_integer(p->step));
  kp_status status = scalar(metrics, line, "loss", p->loss, p->step, error);
  if (status == KP_OK) status = scalar(metrics, line, "gradient_norm", p->gradient_norm, p->step, error);
  if (status == KP_OK) status = scalar(metrics, line, "learning_rate", p->learning_rate, p->step, error);
  if (status == KP_OK) status = scalar(metrics, line, "step_ms", p->step_ms, p->step, error);
  if (status == KP_OK && !isnan(p->boundary_share))
    status = scalar(metrics, line, "boundary_share", p->boundary_share, p->step, error);
  json_object_set_new(line, "tokens_per_s", kp_json_number(p->tokens_per_s));
  json_object_set_new(line, "seconds", kp_json_number(p->seconds));
  json_object_set_new(line, "skipped", json_integer(p->skipped));
  if (status == KP_OK) status = kp_jsonl_append(metrics->path, line, KP_JSON_FLOAT_DIGITS, error);
  json_decref(line);
  return status;
}

/* Numbers of one block, one a group; a table of several rows gives their mean. */
static json_t *block_values(const kp_tensor *tensor, const kp_executor *executor) {
  const int64_t rows = kp_tensor_rows(tensor), groups = kp_tensor_columns(tensor);
  double *values = malloc((size_t)(rows * groups) * sizeof *values);
  kp_assert(values != NULL, "out of memory");
  kp_executor_read(executor, tensor, values);
  json_t *list = json_array();
  for (int64_t g = 0; g < groups; g++) {
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) sum += values[r * groups + g];
    json_array_append_new(list, kp_json_number(sum / (double)rows));
  }
  free(values);
  return list;
}

static kp_tensor *stream_curvature(const kp_network *network, int layer) {
  return network->curvature[layer];
}
static kp_tensor *head_curvature(const kp_network *network, int layer) {
  return network->head_curvature[layer];
}
static kp_tensor *expert_curvature(const kp_network *network, int layer) {
  return network->routes[layer].curvature;
}
static kp_tensor *expert_counts(const kp_network *network, int layer) {
  return network->routes[layer].counts;
}

/* A list for each block of what it has of a kind; nothing where no block has any. */
static void add_blocks(json_t *line, const char *key, const kp_network *network, const kp_executor *executor,
                       kp_tensor *(*tensor_of)(const kp_network *network, int layer)) {
  bool any = false;
  json_t *blocks = json_array();
  for (int layer = 0; layer < network->layers; layer++) {
    const kp_tensor *tensor = tensor_of(network, layer);
    any |= tensor != NULL;
    json_array_append_new(blocks, tensor != NULL ? block_values(tensor, executor) : json_array());
  }
  if (any) json_object_set(line, key, blocks);
  json_decref(blocks);
}

kp_status kp_metrics_evaluation(kp_metrics *metrics, const kp_progress *p, int64_t tokens,
                                const kp_network *network, const kp_executor *executor, kp_error *error) {
  json_t *line = json_object();
  json_object_set_new(line, "step", json_integer(p->step));
  json_object_set_new(line, "tokens", json_integer(tokens));
  json_object_set_new(line, "seconds", kp_json_number(p->seconds));
  kp_status status = scalar(metrics, line, "validation_loss", p->validation_loss, p->step, error);
  if (status == KP_OK && !isnan(p->bits_per_byte))
    status = scalar(metrics, line, "bits_per_byte", p->bits_per_byte, p->step, error);
  const struct {
    const char *key;
    double value;
  } scores[] = {
      {"accuracy", p->accuracy}, {"macro_f1", p->macro_f1}, {"mcc", p->mcc}, {"entity_f1", p->entity_f1}};
  for (int i = 0; i < 4 && status == KP_OK; i++)
    if (!isnan(scores[i].value))
      status = scalar(metrics, line, scores[i].key, scores[i].value, p->step, error);
  add_blocks(line, "curvature", network, executor, stream_curvature);
  add_blocks(line, "head_curvature", network, executor, head_curvature);
  add_blocks(line, "expert_curvature", network, executor, expert_curvature);
  add_blocks(line, "expert_load", network, executor, expert_counts);
  if (status == KP_OK) status = kp_jsonl_append(metrics->path, line, KP_JSON_FLOAT_DIGITS, error);
  json_decref(line);
  return status;
}

double kp_boundary_share(const kp_network *network, const kp_executor *executor) {
  if (network->event_count == 0) return (double)NAN;
  double events = 0, places = 0;
  const double rows = (double)(network->build.batch * network->build.length);
  for (int i = 0; i < network->event_count; i++) {
    double count;
    kp_executor_read(executor, network->events[i], &count);
    events += count;
    places += rows * (network->curvature[0] != NULL ? (double)kp_tensor_columns(network->curvature[0]) : 1);
  }
  return events / places;
}
