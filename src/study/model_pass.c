#include "study/model_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "optim/manifold.h"

/* κ of the embedding: the output of the map that reads its parameter. */
static kp_tensor *find_embedding_curvature(const kp_graph *graph) {
  for (int n = 0; n < graph->forward_count; n++) {
    const kp_node *node = graph->nodes[n];
    if (node->operation == KP_OP_CURVATURE && strcmp(node->input[0]->name, "embedding_curvature") == 0)
      return node->output[0];
  }
  return NULL;
}

static kp_tensor *curvature_of(const kp_network *network, kp_place place, int layer) {
  switch (place) {
  case KP_PLACE_STREAM: return network->curvature[layer];
  case KP_PLACE_HEADS: return network->head_curvature[layer];
  case KP_PLACE_EXPERTS: return network->routes[layer].curvature;
  case KP_PLACES: break;
  }
  return NULL;
}

const kp_tensor *kp_model_pass_curvature(const kp_model_pass *pass, kp_place place, int layer) {
  return curvature_of(pass->network, place, layer);
}

int kp_model_pass_groups(const kp_model_pass *pass, kp_place place) {
  for (int layer = 0; layer < pass->network->layers; layer++) {
    const kp_tensor *tensor = kp_model_pass_curvature(pass, place, layer);
    if (tensor != NULL) return (int)kp_tensor_columns(tensor);
  }
  return 0;
}

static void keep(kp_tensor *table, int64_t *largest) {
  if (table == NULL) return;
  kp_graph_keep(table);
  if (kp_tensor_count(table) > *largest) *largest = kp_tensor_count(table);
}

/* Keeps what is read after a run; the size of the largest of it. */
static int64_t keep_tables(kp_model_pass *p) {
  int64_t largest = 1;
  p->embedding_curvature = find_embedding_curvature(p->network->graph);
  keep(p->embedding_curvature, &largest);
  for (int layer = 0; layer < p->network->layers; layer++) {
    for (kp_place place = 0; place < KP_PLACES; place++)
      keep(curvature_of(p->network, place, layer), &largest);
    keep(p->network->routes[layer].counts, &largest);
    keep(p->network->routes[layer].scores, &largest);
  }
  return largest;
}

static double *room_for(int64_t count) {
  double *list = calloc((size_t)count + 1, sizeof *list);
  kp_assert(list != NULL, "out of memory");
  return list;
}

kp_status kp_model_pass_open(kp_model_pass *p, const kp_model_options *options, kp_parameters *parameters,
                             int64_t rows, uint64_t seed, const kp_backend *backend, int threads,
                             kp_error *error) {
  const kp_build build = {
      .mode = KP_BUILD_EVALUATE, .batch = rows, .length = options->context, .keep_hidden = true};
  *p = (kp_model_pass){.options = options};
  KP_TRY(kp_network_create(options, parameters, build, &p->network, error));
  const int64_t largest = keep_tables(p);
  if (parameters->values == NULL) {
    KP_TRY(kp_parameters_allocate(parameters, backend, false, error));
    kp_parameters_initialise(parameters, seed);
    kp_parameters_retract(parameters, threads);
  }
  KP_TRY(kp_executor_create(p->network->graph, backend, parameters, (kp_executor_options){.threads = threads},
                            &p->executor, error));
  kp_network_write_positions(p->network, p->executor);
  p->states = room_for(rows * options->context * options->width);
  p->numbers = room_for(largest);
  return KP_OK;
}

void kp_model_pass_close(kp_model_pass *p) {
  kp_executor_destroy(p->executor);
  kp_network_destroy(p->network);
  free(p->states);
  free(p->numbers);
}

kp_status kp_model_pass_run(kp_model_pass *p, const int32_t *inputs, const int32_t *targets,
                            kp_error *error) {
  kp_executor_write_int32(p->executor, p->network->tokens, inputs);
  kp_executor_write_int32(p->executor, p->network->targets, targets);
  return kp_executor_run(p->executor, 0, p->network->graph->forward_count, error);
}

void kp_model_pass_mean(kp_model_pass *p, const kp_tensor *table, double *means) {
  const int64_t rows = kp_tensor_rows(table), groups = kp_tensor_columns(table);
  kp_executor_read(p->executor, table, p->numbers);
  for (int64_t g = 0; g < groups; g++) means[g] = 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t g = 0; g < groups; g++) means[g] += p->numbers[r * groups + g] / (double)rows;
}

double kp_model_pass_embedding(const kp_model_pass *p) {
  double kappa = NAN;
  if (p->embedding_curvature != NULL) kp_executor_read(p->executor, p->embedding_curvature, &kappa);
  return kappa;
}

bool kp_stream_is_curved(const kp_model_pass *p, kp_chart *chart) {
  switch (p->options->residual) {
  case KP_RESIDUAL_STEREOGRAPHIC:
    *chart = p->options->variant == KP_VARIANT_UPSTREAM ? KP_CHART_BALL : KP_CHART_TANGENT;
    return true;
  case KP_RESIDUAL_LORENTZ: *chart = KP_CHART_LORENTZ; return true;
  default: return false;
  }
}

/* A stream whose curvature is a setting has no tensor for it. */
kp_stream_curvature kp_model_pass_stream(kp_model_pass *p, int layer) {
  const kp_tensor *table = p->network->curvature[layer];
  kp_stream_curvature stream = {.rows = 1, .groups = 1, .values = p->numbers};
  if (table == NULL) {
    p->numbers[0] = kp_curvature_start(&p->options->curvature, p->options->layers, layer, 1, 0);
    return stream;
  }
  stream.rows = kp_tensor_rows(table);
  stream.groups = kp_tensor_columns(table);
  kp_executor_read(p->executor, table, p->numbers);
  return stream;
}
