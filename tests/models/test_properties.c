/* What every model must keep, for all families and option sets of support/model_cases.c:
 *
 *   gradients   the derivative along a random direction of all parameters, against finite differences
 *   causality   changing token t changes no logit before t, bit for bit
 *   flat limit  at κ = 0 a curved model is its Euclidean twin, and near 0 it is near
 *   cache       decoding in any chunks gives the logits of the full forward pass
 *
 * Parity with other implementations is in tests/parity/. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/random.h"
#include "support/check.h"
#include "support/model_cases.h"

static double worst_gradient, worst_cache_ref, worst_cache_cpu;

/* ---- gradients ---- */

static void test_gradients(void **state) {
  const model_case *c = *state;
  model_run run = model_run_create(&c->options, kp_backend_ref(), KP_BUILD_TRAIN);
  const size_t total = (size_t)run.parameters->total, bytes = total * sizeof(double);
  double *start = malloc(bytes), *direction = calloc(total, sizeof *direction), along = 0, square = 0;
  const double *gradient = run.parameters->gradients;
  assert_true(start != NULL && direction != NULL);
  memcpy(start, run.parameters->values, bytes);
  model_run_all(&run);
  for (int p = 0; p < run.parameters->count; p++) {
    const kp_parameter *parameter = &run.parameters->list[p];
    for (int64_t i = parameter->offset; i < parameter->offset + parameter->count; i++) {
      direction[i] = kp_random_normal(9, 0, 0, (uint64_t)i);
      along += gradient[i] * direction[i];
      square += gradient[i] * gradient[i];
    }
  }
  const double error = fabs(along - model_run_derivative(&run, start, direction, 2e-5)) / sqrt(square);
  if (!(error <= 1e-8)) fail_msg("%s: the derivative along a direction is off by %.2e", c->name, error);
  worst_gradient = fmax(worst_gradient, error);
  free(start);
  free(direction);
  model_run_destroy(&run);
}

/* Every parameter that an operator reads has a gradient, if it is learned by gradients. */
static void test_gradients_reach(void **state) {
  const model_case *c = *state;
  model_run run = model_run_create(&c->options, kp_backend_ref(), KP_BUILD_TRAIN);
  model_run_all(&run);
  for (int p = 0; p < run.parameters->count; p++) {
    const kp_parameter *parameter = &run.parameters->list[p];
    const double *gradient = (const double *)run.parameters->gradients + parameter->offset;
    double largest = 0;
    if (!parameter->trainable) continue;
    for (int64_t i = 0; i < parameter->count; i++) largest = fmax(largest, fabs(gradient[i]));
    if (parameter->used != (largest > 0))
      fail_msg("%s: %s is %sused, its largest gradient is %g", c->name, parameter->name,
               parameter->used ? "" : "not ", largest);
  }
  model_run_destroy(&run);
}

/* ---- causality ---- */

/* The published dynamic curvature is predicted from the last token: it sees the future. */
static bool leaks(const kp_model_options *options) {
  return options->residual == KP_RESIDUAL_STEREOGRAPHIC && options->variant == KP_VARIANT_UPSTREAM &&
         options->curvature.dynamic;
}

/* How far logits may be apart without being different: not at all.  But a library's float product rounds a
 * row by how many rows there are, and an expert gets as many as tokens choose it, later ones too. */
static double roundings(const model_case *c, const kp_backend *backend) {
  const bool routed = c->options.feed_forward >= KP_FEED_FORWARD_MOE;
  return routed && backend->real_size == sizeof(float) ? 1e-6 : 0;
}

/* Whether some logit before `changed` differs between two runs. */
static bool differs_before(const double *a, const double *b, int64_t changed, double allowed) {
  bool differs = false;
  for (int64_t s = 0; s < MODEL_BATCH; s++) {
    const int64_t first = s * MODEL_LENGTH * MODEL_VOCABULARY;
    for (int64_t i = first; i < first + changed * MODEL_VOCABULARY; i++)
      differs |= !(fabs(a[i] - b[i]) <= allowed * fmax(fabs(a[i]), 1));
  }
  return differs;
}

static void check_causality(const model_case *c, const kp_backend *backend) {
  model_run run = model_run_create(&c->options, backend, KP_BUILD_LOGITS);
  double *before = model_run_logits(&run);
  bool leaked = false;
  for (int64_t t = 1; t < MODEL_LENGTH; t++) {
    model_run_write(&run, t);
    double *after = model_run_logits(&run);
    leaked |= differs_before(before, after, t, roundings(c, backend));
    if (memcmp(before, after, sizeof *before * MODEL_BATCH * MODEL_LENGTH * MODEL_VOCABULARY) == 0)
      fail_msg("%s: token %d changes nothing", c->name, (int)t);
    free(after);
  }
  if (leaked != leaks(&c->options))
    fail_msg("%s on %s: later tokens %s earlier logits", c->name, backend->name,
             leaked ? "change" : "were expected to change");
  free(before);
  model_run_destroy(&run);
}

static void test_causality(void **state) {
  check_causality(*state, kp_backend_ref());
  check_causality(*state, kp_backend_cpu());
}

/* ---- flat limit ---- */

/* The largest difference of logits and of the gradients that both have, relative to the largest number. */
static double twin_difference(const char *curved_settings, const char *flat_settings) {
  kp_model_options options[2];
  model_run logits[2], training[2];
  const char *settings[2] = {curved_settings, flat_settings};
  double worst = 0, *values[2];
  for (int i = 0; i < 2; i++) {
    if (!model_options_of(settings[i], &options[i])) fail_msg("refused: %s", settings[i]);
    logits[i] = model_run_create(&options[i], kp_backend_ref(), KP_BUILD_LOGITS);
    training[i] = model_run_create(&options[i], kp_backend_ref(), KP_BUILD_TRAIN);
    values[i] = model_run_logits(&logits[i]);
    model_run_all(&training[i]);
  }
  for (int i = 0; i < MODEL_BATCH * MODEL_LENGTH * MODEL_VOCABULARY; i++)
    worst = fmax(worst, fabs(values[0][i] - values[1][i]));
  const kp_parameters *curved = training[0].parameters, *flat = training[1].parameters;
  for (int p = 0; p < flat->count; p++) {
    const int found = kp_parameters_find(curved, flat->list[p].name);
    assert_true(found >= 0 && curved->list[found].count == flat->list[p].count);
    const double *a = (const double *)curved->gradients + curved->list[found].offset;
    const double *b = (const double *)flat->gradients + flat->list[p].offset;
    for (int64_t i = 0; i < flat->list[p].count; i++) worst = fmax(worst, fabs(a[i] - b[i]));
  }
  for (int i = 0; i < 2; i++) {
    free(values[i]);
    model_run_destroy(&logits[i]);
    model_run_destroy(&training[i]);
    kp_model_options_destroy(&options[i]);
  }
  return worst;
}

static void check_twin(const char *curved, const char *flat) {
  static const double kappas[] = {0, 1e-8, -1e-8};
  for (int k = 0; k < 3; k++) {
    char settings[384];
    snprintf(settings, sizeof settings, "%s model.curvature.value=[%g]", curved, kappas[k]);
    const double difference = twin_difference(settings, flat), allowed = kappas[k] == 0 ? 1e-13 : 1e-6;
    if (!(difference <= allowed)) fail_msg("%s differs from %s by %.2e", settings, flat, difference);
  }
}

/* Whether a model of these settings is made. */
static bool is_model(const char *settings) {
  kp_model_options options;
  const bool made = model_options_of(settings, &options);
  if (made) kp_model_options_destroy(&options);
  return made;
}

/* A family whose curvatures may all be 0 goes smoothly through it. */
static void test_families_through_zero(void **state) {
  (void)state;
  static const char *const curvature =
      "model.family=%s model.curvature.value=[%g] model.attention.curvature.mode=fixed "
      "model.attention.curvature.value=[%g]";
  const kp_family *family;
  int curved = 0;
  for (int f = 0; (family = kp_family_at(f)) != NULL; f++) {
    char flat[256], near[256];
    if (!family->curved) continue;
    assert_non_null(family->twin);
    snprintf(flat, sizeof flat, curvature, family->name, 0.0, 0.0);
    if (!is_model(flat)) continue;
    for (int sign = -1; sign <= 1; sign += 2) {
      snprintf(near, sizeof near, curvature, family->name, sign * 1e-8, sign * 1e-8);
      const double difference = twin_difference(near, flat);
      if (!(difference <= 1e-6)) fail_msg("%s differs from κ = 0 by %.2e", near, difference);
    }
    curved++;
  }
  assert_true(curved > 1);
}

/* One temperature for all scores of a network: of distances β = 1/(4τ), as their square is 4|q - k|² at κ =
 * 0. */
static void set_temperature(model_run *run, double tau) {
  for (int p = 0; p < run->parameters->count; p++) {
    const kp_parameter *parameter = &run->parameters->list[p];
    const char *end = strrchr(parameter->name, '.');
    double values[8];
    if (strcmp(end, ".temperature") != 0 && strcmp(end, ".sharpness") != 0) continue;
    assert_true(parameter->count <= 8);
    for (int i = 0; i < parameter->count; i++)
      values[i] = strcmp(end, ".temperature") == 0 ? tau : -log(4 * tau);
    kp_parameters_write(run->parameters, run->parameters->values, p, values);
  }
}

/* The Lorentz score and the geodesic one, which have no formula in common, meet at κ = 0. */
static void test_scores_meet_at_zero(void **state) {
  (void)state;
  static const char *const settings[] = {
      "model.attention.score=lorentz model.attention.curvature.value=[-1e-7]",
      "model.attention.score=distance_squared model.attention.curvature.value=[0]"};
  double *logits[2], worst = 0;
  for (int i = 0; i < 2; i++) {
    kp_model_options options;
    assert_true(model_options_of(settings[i], &options));
    model_run run = model_run_create(&options, kp_backend_ref(), KP_BUILD_LOGITS);
    set_temperature(&run, 0.3);
    logits[i] = model_run_logits(&run);
    model_run_destroy(&run);
    kp_model_options_destroy(&options);
  }
  for (int i = 0; i < MODEL_BATCH * MODEL_LENGTH * MODEL_VOCABULARY; i++)
    worst = fmax(worst, fabs(logits[0][i] - logits[1][i]));
  if (!(worst > 0 && worst < 1e-6)) fail_msg("the scores differ by %.2e", worst);
  free(logits[0]);
  free(logits[1]);
}

static void test_twins_of_mixed(void **state) {
  (void)state;
  static const char *const rest[] = {"", " model.positions=rotary",
                                     " model.attention.output_projection=false", " model.bias=false"};
  static const char *const modes[] = {"fixed", "parametric model.curvature.map=tanh",
                                      "tied model.curvature.map=identity"};
  static const char *const wirings[] = {"e1", "e2", "e3"};
  char curved[256], flat[256];
  for (int r = 0; r < 4; r++)
    for (int m = 0; m < 3; m++)
      for (int per_head = 0; per_head < 2; per_head++)
        for (int w = 0; w < 3; w++)
          for (int origin = 0; origin < 2; origin++) {
            if (w == 0 && !origin) continue; /* E1 at κ = 0 adds the reference point to the stream */
            snprintf(curved, sizeof curved,
                     "model.family=mixed model.wiring=%s model.reference=%s model.curvature.per_head=%s "
                     "model.curvature.mode=%s%s",
                     wirings[w], origin ? "origin" : "previous", per_head ? "true" : "false", modes[m],
                     rest[r]);
            snprintf(flat, sizeof flat, "model.family=gpt model.token_difference=%s%s",
                     origin ? "false" : "true", rest[r]);
            check_twin(curved, flat);
          }
}

/* ---- cache ---- */

/* Decoding networks for chunks of 1 … MODEL_LENGTH tokens; the states are those of the first that was made.
 */
typedef struct decoder {
  kp_parameters *parameters;
  kp_network *network[MODEL_LENGTH + 1];
  kp_executor *executor[MODEL_LENGTH + 1];
} decoder;

static decoder decoder_create(const kp_model_options *options, const kp_backend *backend) {
  kp_error error = {0};
  decoder d = {.parameters = kp_parameters_create()};
  for (int64_t length = 1; length <= MODEL_LENGTH; length++) {
    const kp_build build = {.mode = KP_BUILD_DECODE, .batch = MODEL_BATCH, .length = length};
    check_ok(kp_network_create(options, d.parameters, build, &d.network[length], &error), &error);
  }
  check_ok(kp_parameters_allocate(d.parameters, backend, false, &error), &error);
  model_fill_parameters(d.parameters);
  return d;
}

static void decoder_destroy(decoder *d) {
  for (int64_t length = 1; length <= MODEL_LENGTH; length++) {
    kp_executor_destroy(d->executor[length]);
    kp_network_destroy(d->network[length]);
  }
  kp_parameters_destroy(d->parameters);
}

/* Fresh executors whose states are shared by name with those of chunk 1. */
static void start_conversation(decoder *d, const kp_backend *backend) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 1, .poison = true};
  for (int64_t length = 1; length <= MODEL_LENGTH; length++) {
    const kp_graph *graph = d->network[length]->graph, *first = d->network[1]->graph;
    kp_executor_destroy(d->executor[length]);
    check_ok(kp_executor_create(graph, backend, d->parameters, how, &d->executor[length], &error), &error);
    for (int i = 0; length > 1 && i < graph->tensor_count; i++) {
      if (graph->tensors[i]->role != KP_ROLE_STATE) continue;
      bool found = false;
      for (int j = 0; j < first->tensor_count; j++)
        if (first->tensors[j]->role == KP_ROLE_STATE &&
            strcmp(first->tensors[j]->name, graph->tensors[i]->name) == 0) {
          kp_executor_bind(d->executor[length], graph->tensors[i],
                           kp_executor_memory(d->executor[1], first->tensors[j]));
          found = true;
        }
      assert_true(found);
    }
  }
}

/* Decodes tokens [start, start + length); returns the logits (B, V) of the last one. */
static void decode(decoder *d, int64_t start, int64_t length, double *logits) {
  kp_error error = {0};
  const kp_network *network = d->network[length];
  kp_executor *executor = d->executor[length];
  int32_t tokens[MODEL_BATCH * MODEL_LENGTH], positions[MODEL_BATCH * MODEL_LENGTH];
  for (int64_t i = 0; i < MODEL_BATCH * length; i++) {
    tokens[i] = model_token(i / length, start + i % length);
    positions[i] = (int32_t)(start + i % length);
  }
  kp_executor_write_int32(executor, network->tokens, tokens);
  kp_executor_write_int32(executor, network->positions, positions);
  kp_executor_write_int32(executor, network->start, &(int32_t){(int32_t)start});
  check_ok(kp_executor_run(executor, 0, network->graph->node_count, &error), &error);
  kp_executor_read(executor, network->logits, logits);
}

/* The largest difference of one decoded token's logits from those of the full pass. */
static double token_difference(const double *decoded, const double *full, int64_t position) {
  double worst = 0;
  for (int64_t i = 0; i < MODEL_BATCH * MODEL_VOCABULARY; i++) {
    const int64_t at =
        (i / MODEL_VOCABULARY * MODEL_LENGTH + position) * MODEL_VOCABULARY + i % MODEL_VOCABULARY;
    const double error = fabs(decoded[i] - full[at]);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

static double check_cache(const model_case *c, const kp_backend *backend, double tolerance) {
  static const int chunks[][MODEL_LENGTH] = {
      {1, 1, 1, 1, 1, 1, 1}, {3, 1, 1, 1, 1}, {6, 1}, {2, 3, 1, 1}, {7}, {1, 5, 1}};
  double logits[MODEL_BATCH * MODEL_VOCABULARY], worst = 0;
  model_run run = model_run_create(&c->options, backend, KP_BUILD_LOGITS);
  double *full = model_run_logits(&run), largest = 0;
  for (int i = 0; i < MODEL_BATCH * MODEL_LENGTH * MODEL_VOCABULARY; i++)
    largest = fmax(largest, fabs(full[i]));
  decoder d = decoder_create(&c->options, backend);
  for (size_t s = 0; s < sizeof chunks / sizeof *chunks; s++) {
    start_conversation(&d, backend);
    for (int64_t start = 0, i = 0; start < MODEL_LENGTH; start += chunks[s][i++]) {
      decode(&d, start, chunks[s][i], logits);
      const double error = token_difference(logits, full, start + chunks[s][i] - 1) / largest;
      if (!(error <= tolerance))
        fail_msg("%s on %s: chunks %d, %d, …: token %d differs from the full pass by %.2e", c->name,
                 backend->name, chunks[s][0], chunks[s][1], (int)(start + chunks[s][i] - 1), error);
      worst = fmax(worst, error);
    }
  }
  decoder_destroy(&d);
  free(full);
  model_run_destroy(&run);
  return worst;
}

static void test_cache(void **state) {
  const model_case *c = *state;
  if (kp_model_uncacheable(&c->options) != NULL) {
    kp_error error = {0};
    kp_network *network;
    kp_parameters *parameters = kp_parameters_create();
    const kp_build build = {.mode = KP_BUILD_DECODE, .batch = 1, .length = 1};
    assert_int_equal(kp_network_create(&c->options, parameters, build, &network, &error), KP_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, kp_model_uncacheable(&c->options)));
    kp_parameters_destroy(parameters);
    return;
  }
  worst_cache_ref = fmax(worst_cache_ref, check_cache(c, kp_backend_ref(), 1e-12));
  worst_cache_cpu = fmax(worst_cache_cpu, check_cache(c, kp_backend_cpu(), 1e-5));
}

int main(void) {
  const struct CMUnitTest twins[] = {cmocka_unit_test(test_families_through_zero),
                                     cmocka_unit_test(test_scores_meet_at_zero),
                                     cmocka_unit_test(test_twins_of_mixed)};
  int failures = model_cases_run("gradients", test_gradients);
  failures += model_cases_run("gradients reach every parameter", test_gradients_reach);
  failures += model_cases_run("causality", test_causality);
  failures += cmocka_run_group_tests_name("flat limit", twins, NULL, NULL);
  failures += model_cases_run("cache", test_cache);
  print_message("worst error: gradients %.1e, cache %.1e in ref, %.1e in cpu\n", worst_gradient,
                worst_cache_ref, worst_cache_cpu);
  return failures;
}
