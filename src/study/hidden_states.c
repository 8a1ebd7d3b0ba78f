/* The residual stream of a trained model at validation tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/executor.h"
#include "data/batches.h"
#include "optim/manifold.h"
#include "study/analyze_private.h"
#include "train/data_source.h"

enum { DEFAULT_TOKENS = 16384, ROWS = 8 };

/* Half of √|κ| d(0, x); tanh of it is √-κ |x|. */
static double half_radius(double norm, double kappa, bool point) {
  const double last_inside = 1 - 0x1p-24;
  const double s = sqrt(fabs(kappa)) * norm;
  if (!point) return s;
  return kappa < 0 ? atanh(fmin(s, last_inside)) : atan(s);
}

double kp_scaled_radius(double norm, double kappa, bool point) {
  return 2 * half_radius(norm, kappa, point);
}

bool kp_radius_is_edge(double scaled_radius, double kappa) {
  return kappa < 0 ? tanh(scaled_radius / 2) > 0.99 : scaled_radius > acos(-1.0) / 2;
}

/* One pass over the tokens with one set of parameters. */
typedef struct pass {
  kp_analysis *analysis;
  const kp_model_options *options;
  kp_network *network;
  kp_executor *executor;
  kp_tensor *embedding_curvature; /* κ (1), or NULL */
  double *states, *kappa;         /* (B·T, C), (K, G) of one batch */
} pass;

/* κ of the embedding: the output of the map that reads its parameter. */
static kp_tensor *find_embedding_curvature(const kp_graph *graph) {
  for (int n = 0; n < graph->forward_count; n++) {
    const kp_node *node = graph->nodes[n];
    if (node->operation == KP_OP_CURVATURE && strcmp(node->input[0]->name, "embedding_curvature") == 0)
      return node->output[0];
  }
  return NULL;
}

static void write_positions(pass *p) {
  int32_t *positions = kp_executor_memory(p->executor, p->network->positions);
  for (int64_t i = 0; i < kp_tensor_count(p->network->positions); i++)
    positions[i] = (int32_t)(i % p->network->build.length);
}

static double *numbers(int64_t count) {
  double *list = calloc((size_t)count + 1, sizeof *list);
  kp_assert(list != NULL, "out of memory");
  return list;
}

static kp_status open_pass(pass *p, kp_analysis *analysis, const kp_model_options *options,
                           kp_parameters *parameters, int64_t rows, const kp_analysis_options *how,
                           kp_error *error) {
  const kp_build build = {
      .mode = KP_BUILD_EVALUATE, .batch = rows, .length = options->context, .keep_hidden = true};
  *p = (pass){.analysis = analysis, .options = options};
  KP_TRY(kp_network_create(options, parameters, build, &p->network, error));
  p->embedding_curvature = find_embedding_curvature(p->network->graph);
  if (p->embedding_curvature != NULL) kp_graph_keep(p->embedding_curvature);
  for (int layer = 0; layer < p->network->layers && p->network->curvature[layer] != NULL; layer++)
    kp_graph_keep(p->network->curvature[layer]);
  if (parameters->values == NULL) {
    KP_TRY(kp_parameters_allocate(parameters, how->backend, false, error));
    kp_parameters_initialise(parameters, (uint64_t)kp_config_integer(analysis->record.config, "train.seed"));
    kp_parameters_retract(parameters, how->threads);
  }
  KP_TRY(kp_executor_create(p->network->graph, how->backend, parameters,
                            (kp_executor_options){.threads = how->threads}, &p->executor, error));
  write_positions(p);
  p->states = numbers(rows * options->context * options->width);
  p->kappa = numbers(rows * options->context * options->width);
  return KP_OK;
}

static void close_pass(pass *p) {
  kp_executor_destroy(p->executor);
  kp_network_destroy(p->network);
  free(p->states);
  free(p->kappa);
}

static kp_status run_batch(pass *p, const int32_t *inputs, const int32_t *targets, kp_error *error) {
  kp_executor_write_int32(p->executor, p->network->tokens, inputs);
  kp_executor_write_int32(p->executor, p->network->targets, targets);
  return kp_executor_run(p->executor, 0, p->network->graph->forward_count, error);
}

/* Adds the means of the batch's κ, weighted, to `sums` (layers, groups). */
static void add_curvature(pass *p, double weight, double *sums) {
  for (int layer = 0; layer < p->network->layers; layer++) {
    const kp_tensor *tensor = p->network->curvature[layer];
    const int64_t rows = kp_tensor_rows(tensor), groups = kp_tensor_columns(tensor);
    kp_executor_read(p->executor, tensor, p->kappa);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t g = 0; g < groups; g++)
        sums[layer * groups + g] += weight * p->kappa[r * groups + g] / (double)rows;
  }
}

static double read_embedding_curvature(const pass *p) {
  double kappa = NAN;
  if (p->embedding_curvature != NULL) kp_executor_read(p->executor, p->embedding_curvature, &kappa);
  return kappa;
}

/* Radii of the first `count` rows in p->states; κ of the layer in p->kappa, (K, G), a row of it for every
 * B·T / K rows of states. */
static void add_radii(pass *p, const kp_tensor *curvature, int64_t count, kp_stream_analysis *stream) {
  const bool point = p->options->variant == KP_VARIANT_UPSTREAM;
  const int64_t width = p->options->width, rows = kp_tensor_rows(curvature);
  const int64_t groups = kp_tensor_columns(curvature), slice = width / groups;
  const int64_t shared = p->network->build.batch * p->network->build.length / rows;
  for (int64_t r = 0; r < count; r++)
    for (int64_t g = 0; g < groups; g++) {
      double square = 0;
      for (int64_t i = 0; i < slice; i++) {
        const double h = p->states[r * width + g * slice + i];
        square += h * h;
      }
      const double kappa = p->kappa[r / shared * groups + g];
      const double radius = kp_scaled_radius(sqrt(square), kappa, point);
      stream->mean_radius += radius / (double)groups;
      stream->edge_share += kp_radius_is_edge(radius, kappa) / (double)groups;
    }
}

static kp_status add_states(pass *p, int64_t count, kp_isotropy *const *isotropy, kp_error *error) {
  const int layers = p->network->layers;
  for (int i = 0; i <= layers; i++) {
    kp_executor_read(p->executor, p->network->hidden[i], p->states);
    if (kp_isotropy_add(isotropy[i], count, p->states, error) != KP_OK)
      return kp_context(error, "hidden states before block %d", i);
    const kp_tensor *curvature = p->network->curvature[i < layers ? i : layers - 1];
    if (curvature == NULL) continue;
    kp_executor_read(p->executor, curvature, p->kappa);
    add_radii(p, curvature, count, &p->analysis->streams[i]);
  }
  return KP_OK;
}

static kp_status measure(kp_analysis *a, kp_isotropy *const *isotropy, kp_error *error) {
  for (int i = 0; i <= a->layers; i++) {
    kp_stream_analysis *stream = &a->streams[i];
    KP_TRY(kp_isotropy_measure(isotropy[i], &stream->isotropy, stream->eigenvalues, error));
    stream->mean_radius = a->groups > 0 ? stream->mean_radius / (double)a->tokens : (double)NAN;
    stream->edge_share = a->groups > 0 ? stream->edge_share / (double)a->tokens : (double)NAN;
  }
  return KP_OK;
}

/* The trained model over all batches. */
static kp_status read_trained(pass *p, const kp_validation *validation, int32_t *inputs, int32_t *targets,
                              kp_isotropy *const *isotropy, kp_error *error) {
  kp_analysis *a = p->analysis;
  const int values = a->layers * a->groups;
  for (int64_t b = 0; b < validation->batches; b++) {
    int64_t count;
    double loss;
    KP_TRY(kp_validation_fill(validation, b, inputs, targets, &count, error));
    KP_TRY(run_batch(p, inputs, targets, error));
    kp_executor_read(p->executor, p->network->loss, &loss);
    a->loss += loss * (double)count;
    a->tokens += count;
    if (a->groups > 0) add_curvature(p, (double)count, a->curvature);
    KP_TRY(add_states(p, count, isotropy, error));
  }
  a->loss /= (double)a->tokens;
  for (int i = 0; i < values; i++) a->curvature[i] /= (double)a->tokens;
  a->embedding_curvature = read_embedding_curvature(p);
  return measure(a, isotropy, error);
}

/* κ before training: parameters are drawn again from the seed. */
static kp_status read_start(kp_analysis *a, const kp_model_options *options, const kp_validation *validation,
                            const kp_analysis_options *how, int32_t *inputs, int32_t *targets,
                            kp_error *error) {
  pass p;
  int64_t count;
  kp_parameters *parameters = kp_parameters_create();
  kp_status status = open_pass(&p, a, options, parameters, validation->rows, how, error);
  if (status == KP_OK) status = kp_validation_fill(validation, 0, inputs, targets, &count, error);
  if (status == KP_OK) status = run_batch(&p, inputs, targets, error);
  if (status == KP_OK) {
    add_curvature(&p, 1, a->start);
    a->embedding_start = read_embedding_curvature(&p);
  }
  close_pass(&p);
  kp_parameters_destroy(parameters);
  return status;
}

static void prepare(kp_analysis *a, const kp_network *network) {
  a->layers = network->layers;
  a->streams = kp_arena_take(a->arena, (size_t)(a->layers + 1) * sizeof *a->streams);
  for (int i = 0; i <= a->layers; i++)
    a->streams[i].eigenvalues = kp_arena_take(a->arena, (size_t)a->width * sizeof(double));
  if (network->curvature[0] == NULL) return;
  a->groups = (int)kp_tensor_columns(network->curvature[0]);
  const size_t bytes = (size_t)(a->layers * a->groups) * sizeof(double);
  a->curvature = kp_arena_take(a->arena, bytes);
  a->start = kp_arena_take(a->arena, bytes);
}

static kp_status read_model(kp_analysis *a, kp_trained *trained, const kp_validation *validation,
                            const kp_analysis_options *how, int32_t *inputs, int32_t *targets,
                            kp_error *error) {
  pass p;
  kp_isotropy **isotropy = NULL;
  kp_status status = open_pass(&p, a, &trained->options, trained->parameters, validation->rows, how, error);
  if (status == KP_OK) {
    prepare(a, p.network);
    isotropy = kp_arena_take(a->arena, (size_t)(a->layers + 1) * sizeof *isotropy);
  }
  for (int i = 0; i <= a->layers && status == KP_OK; i++)
    status = kp_isotropy_create(a->width, &isotropy[i], error);
  if (status == KP_OK) status = read_trained(&p, validation, inputs, targets, isotropy, error);
  for (int i = 0; i <= a->layers && isotropy != NULL; i++) kp_isotropy_destroy(isotropy[i]);
  close_pass(&p);
  if (status != KP_OK || a->groups == 0) return status;
  return read_start(a, &trained->options, validation, how, inputs, targets, error);
}

/* data.path=PATH for kp_config_set, whatever characters the path has. */
static kp_status choose_data(kp_config *config, const char *path, kp_error *error) {
  char assignment[2 * KP_PATH_SIZE + 16] = "data.path=\"";
  size_t length = strlen(assignment);
  KP_TRY(kp_path_check(path, error));
  for (; *path != 0; path++) {
    if (*path == '"' || *path == '\\') assignment[length++] = '\\';
    assignment[length++] = *path;
  }
  snprintf(assignment + length, sizeof assignment - length, "\"");
  KP_TRY(kp_config_set(config, assignment, error));
  KP_TRY(kp_config_set(config, "data.train=\"\"", error));
  return kp_config_set(config, "data.validation=\"\"", error);
}

static kp_status read_states(kp_analysis *a, kp_trained *trained, const kp_data_source *data,
                             const kp_analysis_options *how, kp_error *error) {
  const int64_t context = trained->options.context;
  const int64_t tokens = how->tokens > 0 ? how->tokens : DEFAULT_TOKENS,
                windows = (tokens + context - 1) / context;
  const int64_t rows = windows < ROWS ? windows : ROWS, batches = (windows + rows - 1) / rows;
  kp_validation validation;
  if (trained->tokenizer != NULL)
    KP_TRY(kp_tokens_check_tokenizer(data->validation, trained->tokenizer, error));
  KP_TRY(kp_validation_init(&validation, data->validation, rows, context,
                            (int32_t)trained->options.vocabulary, batches, error));
  const size_t bytes = (size_t)(rows * context) * sizeof(int32_t);
  int32_t *inputs = malloc(bytes), *targets = malloc(bytes);
  kp_assert(inputs != NULL && targets != NULL, "out of memory");
  kp_status status = read_model(a, trained, &validation, how, inputs, targets, error);
  free(inputs);
  free(targets);
  return status;
}

kp_status kp_analysis_read_states(kp_analysis *a, kp_trained *trained, const kp_analysis_options *how,
                                  kp_error *error) {
  kp_data_source data;
  if (how->data != NULL) KP_TRY(choose_data(trained->config, how->data, error));
  KP_TRY(kp_data_source_open(trained->config, &data, error));
  kp_status status = read_states(a, trained, &data, how, error);
  kp_data_source_close(&data);
  return status;
}
