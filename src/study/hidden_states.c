/* The residual stream of a trained model at validation tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/assert.h"
#include "data/batches.h"
#include "study/analyze_private.h"
#include "study/model_pass.h"

enum { DEFAULT_TOKENS = 16384, ROWS = 8, SAMPLE = 512 };

/* What is gathered of one stream beside its analysis. */
typedef struct stream_sums {
  kp_isotropy *isotropy;
  kp_radii radii;
  double *sample; /* (SAMPLE, C): states of every so many tokens */
  int64_t sampled;
} stream_sums;

/* The trained model on its way through the text. */
typedef struct reading {
  kp_analysis *analysis;
  kp_model_pass pass;
  stream_sums *streams; /* layers + 1 */
  int64_t stride;       /* tokens between those of the sample */
} reading;

/* The block whose curvature a stream is measured with. */
static int reader_of(const kp_analysis *a, int stream) {
  return stream < a->layers ? stream : a->layers - 1;
}

/* Radii of the first `count` rows of states. */
static void add_radii(reading *r, int stream, int64_t count) {
  kp_model_pass *p = &r->pass;
  kp_chart chart;
  if (!kp_stream_is_curved(p, &chart)) return;
  const kp_stream_curvature kappa = kp_model_pass_stream(p, reader_of(r->analysis, stream));
  const int64_t width = p->options->width, groups = kappa.groups, slice = width / groups;
  const int64_t shared = p->network->build.batch * p->network->build.length / kappa.rows;
  for (int64_t row = 0; row < count; row++)
    for (int64_t g = 0; g < groups; g++) {
      double square = 0;
      for (int64_t i = 0; i < slice; i++) {
        const double h = p->states[row * width + g * slice + i];
        square += h * h;
      }
      kp_radii_add(&r->streams[stream].radii, sqrt(square), kappa.values[row / shared * groups + g], chart);
    }
}

static void add_sample(reading *r, stream_sums *sums, int64_t count) {
  const int64_t width = r->pass.options->width;
  for (int64_t row = 0; row < count; row++) {
    if ((r->analysis->tokens + row) % r->stride != 0 || sums->sampled == SAMPLE) continue;
    memcpy(sums->sample + sums->sampled++ * width, r->pass.states + row * width,
           (size_t)width * sizeof(double));
  }
}

static kp_status add_states(reading *r, int64_t count, kp_error *error) {
  for (int i = 0; i <= r->analysis->layers; i++) {
    stream_sums *sums = &r->streams[i];
    kp_executor_read(r->pass.executor, r->pass.network->hidden[i], r->pass.states);
    if (kp_isotropy_add(sums->isotropy, count, r->pass.states, error) != KP_OK)
      return kp_context(error, "hidden states before block %d", i);
    add_sample(r, sums, count);
    add_radii(r, i, count);
  }
  return KP_OK;
}

/* Adds the means of the batch's κ, weighted. */
static void add_curvature(kp_model_pass *p, double weight, int place, int groups, int layers, double *sums) {
  double *means = calloc((size_t)groups + 1, sizeof *means);
  kp_assert(means != NULL, "out of memory");
  for (int layer = 0; layer < layers; layer++) {
    const kp_tensor *table = kp_model_pass_curvature(p, (kp_place)place, layer);
    if (table != NULL) kp_model_pass_mean(p, table, means);
    for (int g = 0; g < groups; g++)
      sums[layer * groups + g] += table != NULL ? weight * means[g] : (double)NAN;
  }
  free(means);
}

static void add_seams(reading *r) {
  for (int i = 0; i < r->analysis->seam_count; i++) {
    double events;
    kp_executor_read(r->pass.executor, r->pass.network->events[i], &events);
    r->analysis->seams[i] += events;
  }
}

/* Loads and scores of a batch. */
static void add_experts(reading *r, int64_t count) {
  kp_model_pass *p = &r->pass;
  for (int layer = 0; layer < r->analysis->layers; layer++) {
    const kp_route_record *route = &p->network->routes[layer];
    kp_expert_analysis *e = &r->analysis->experts[layer];
    if (route->counts == NULL) continue;
    const int experts = e->load.experts;
    kp_executor_read(p->executor, route->counts, p->numbers);
    for (int i = 0; i < experts; i++) e->counts[i] += p->numbers[i];
    if (route->scores == NULL) continue;
    kp_executor_read(p->executor, route->scores, p->numbers);
    e->routing_entropy += kp_routing_entropy(experts, count, p->numbers) * (double)count;
  }
}

static void measure_experts(kp_analysis *a) {
  const kp_curvature_analysis *c = &a->curvature[KP_PLACE_EXPERTS];
  for (int layer = 0; layer < a->layers; layer++) {
    kp_expert_analysis *e = &a->experts[layer];
    if (e->load.experts == 0) continue;
    e->load = kp_expert_load_of(e->load.experts, e->counts);
    e->routing_entropy /= (double)a->tokens;
    e->curvature_load = (kp_correlation){NAN, NAN};
    if (c->groups != e->load.experts || isnan(c->end[layer * c->groups])) continue;
    e->curvature = c->end + layer * c->groups;
    e->curvature_load = kp_spearman(e->curvature, e->counts, e->load.experts);
  }
}

/* δ of the sample; in the curved space, where each block has curvatures of its own and not of each token. */
static kp_status measure_trees(reading *r, int stream, kp_error *error) {
  kp_analysis *a = r->analysis;
  stream_sums *sums = &r->streams[stream];
  kp_chart chart;
  kp_product_space space, *of = NULL;
  if (kp_stream_is_curved(&r->pass, &chart)) {
    const kp_stream_curvature kappa = kp_model_pass_stream(&r->pass, reader_of(a, stream));
    const int64_t slice = a->width / kappa.groups;
    space = (kp_product_space){(int)kappa.groups, kappa.values};
    if (kappa.rows == 1) of = &space;
    for (int64_t i = 0; i < sums->sampled * kappa.groups && of != NULL; i++)
      kp_chart_to_tangent(chart, kappa.values[i % kappa.groups], slice, sums->sample + i * slice);
  }
  return kp_tree_likeness_measure(sums->sampled, a->width, sums->sample, of, &a->streams[stream].trees,
                                  error);
}

static kp_status measure(reading *r, kp_error *error) {
  for (int i = 0; i <= r->analysis->layers; i++) {
    kp_stream_analysis *stream = &r->analysis->streams[i];
    KP_TRY(kp_isotropy_measure(r->streams[i].isotropy, &stream->isotropy, stream->eigenvalues, error));
    stream->radius = kp_radii_summary(&r->streams[i].radii);
    KP_TRY(measure_trees(r, i, error));
  }
  return KP_OK;
}

/* Rows of a seam meet the boundary in each of their spaces. */
static int seam_groups(const kp_analysis *a) {
  const int groups = a->curvature[KP_PLACE_STREAM].groups;
  return groups > 0 ? groups : 1;
}

/* All batches. */
static kp_status read_trained(reading *r, const kp_validation *validation, int32_t *inputs, int32_t *targets,
                              kp_error *error) {
  kp_analysis *a = r->analysis;
  double places = 0;
  r->stride = validation->scored > SAMPLE ? (validation->scored + SAMPLE - 1) / SAMPLE : 1;
  for (int64_t b = 0; b < validation->batches; b++) {
    int64_t count;
    double loss;
    KP_TRY(kp_validation_fill(validation, b, inputs, targets, &count, error));
    KP_TRY(kp_model_pass_run(&r->pass, inputs, targets, error));
    kp_executor_read(r->pass.executor, r->pass.network->loss, &loss);
    a->loss += loss * (double)count;
    for (int place = 0; place < KP_PLACES; place++)
      add_curvature(&r->pass, (double)count, place, a->curvature[place].groups, a->layers,
                    a->curvature[place].end);
    KP_TRY(add_states(r, count, error));
    add_seams(r);
    add_experts(r, count);
    a->tokens += count;
    places += (double)(validation->rows * validation->context * seam_groups(a));
  }
  a->loss /= (double)a->tokens;
  for (int place = 0; place < KP_PLACES; place++)
    for (int i = 0; i < a->layers * a->curvature[place].groups; i++)
      a->curvature[place].end[i] /= (double)a->tokens;
  for (int i = 0; i < a->seam_count; i++) a->seams[i] /= places;
  a->embedding_curvature = kp_model_pass_embedding(&r->pass);
  measure_experts(a);
  return measure(r, error);
}

static uint64_t seed_of(const kp_analysis *a) {
  return (uint64_t)kp_config_integer(a->record.config, "train.seed");
}

/* κ before training: parameters are drawn again from the seed. */
static kp_status read_start(kp_analysis *a, const kp_model_options *options, const kp_validation *validation,
                            const kp_analysis_options *how, int32_t *inputs, int32_t *targets,
                            kp_error *error) {
  kp_model_pass p;
  int64_t count;
  kp_parameters *parameters = kp_parameters_create();
  kp_status status = kp_model_pass_open(&p, options, parameters, validation->rows, seed_of(a), how->backend,
                                        how->threads, error);
  if (status == KP_OK) status = kp_validation_fill(validation, 0, inputs, targets, &count, error);
  if (status == KP_OK) status = kp_model_pass_run(&p, inputs, targets, error);
  if (status == KP_OK) {
    for (int place = 0; place < KP_PLACES; place++) {
      kp_curvature_analysis *c = &a->curvature[place];
      add_curvature(&p, 1, place, c->groups, a->layers, c->start);
      kp_curvature_table_add(&c->table, c->start, c->end, (int64_t)a->layers * c->groups);
    }
    a->embedding_start = kp_model_pass_embedding(&p);
  }
  kp_model_pass_close(&p);
  kp_parameters_destroy(parameters);
  return status;
}

static kp_status prepare(reading *r, kp_error *error) {
  kp_analysis *a = r->analysis;
  const kp_network *network = r->pass.network;
  const size_t row = (size_t)a->width * sizeof(double);
  a->layers = network->layers;
  a->streams = kp_arena_take(a->arena, (size_t)(a->layers + 1) * sizeof *a->streams);
  r->streams = kp_arena_take(a->arena, (size_t)(a->layers + 1) * sizeof *r->streams);
  for (int i = 0; i <= a->layers; i++) {
    a->streams[i].eigenvalues = kp_arena_take(a->arena, row);
    r->streams[i].sample = kp_arena_take(a->arena, SAMPLE * row);
    KP_TRY(kp_isotropy_create(a->width, &r->streams[i].isotropy, error));
  }
  for (int place = 0; place < KP_PLACES; place++) {
    kp_curvature_analysis *c = &a->curvature[place];
    c->groups = kp_model_pass_groups(&r->pass, (kp_place)place);
    const size_t bytes = (size_t)(a->layers * c->groups) * sizeof(double);
    c->start = kp_arena_take(a->arena, bytes);
    c->end = kp_arena_take(a->arena, bytes);
  }
  a->experts = kp_arena_take(a->arena, (size_t)a->layers * sizeof *a->experts);
  for (int layer = 0; layer < a->layers; layer++) {
    if (network->routes[layer].counts == NULL) continue;
    kp_expert_analysis *e = &a->experts[layer];
    a->has_experts = true;
    e->load.experts = (int)kp_tensor_count(network->routes[layer].counts);
    e->counts = kp_arena_take(a->arena, (size_t)e->load.experts * sizeof *e->counts);
  }
  a->seam_count = network->event_count;
  a->seams = kp_arena_take(a->arena, (size_t)(a->seam_count + 1) * sizeof *a->seams);
  return KP_OK;
}

static void close_reading(reading *r) {
  for (int i = 0; i <= r->analysis->layers && r->streams != NULL; i++) {
    kp_isotropy_destroy(r->streams[i].isotropy);
    kp_radii_clear(&r->streams[i].radii);
  }
  kp_model_pass_close(&r->pass);
}

static bool is_curved(const kp_analysis *a) {
  for (int place = 0; place < KP_PLACES; place++)
    if (a->curvature[place].groups > 0) return true;
  return false;
}

static kp_status read_model(kp_analysis *a, kp_trained *trained, const kp_validation *validation,
                            const kp_analysis_options *how, int32_t *inputs, int32_t *targets,
                            kp_error *error) {
  reading r = {.analysis = a};
  kp_status status = kp_model_pass_open(&r.pass, &trained->options, trained->parameters, validation->rows,
                                        seed_of(a), how->backend, how->threads, error);
  if (status == KP_OK) status = prepare(&r, error);
  if (status == KP_OK) status = read_trained(&r, validation, inputs, targets, error);
  close_reading(&r);
  if (status != KP_OK || !is_curved(a)) return status;
  return read_start(a, &trained->options, validation, how, inputs, targets, error);
}

kp_status kp_analysis_read_states(kp_analysis *a, kp_trained *trained, const kp_data_source *data,
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
