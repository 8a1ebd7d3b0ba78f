/* AdamW in double and on every instruction set against the formulas, one number at a time. */
#include <math.h>
#include <stdlib.h>

#include "core/random.h"
#include "optim/optimizer.h"
#include "support/check.h"
#include "support/isa.h"

static const kp_backend double_backend = {
    .name = "double", .real_size = sizeof(double), .wide_size = sizeof(double)};
static const kp_adamw_options options = {1e-2, 0.9, 0.95, 1e-8, 0.1, 5.0};
enum { DECAYING, PLAIN, CURVATURE, FROZEN, UNUSED, PARAMETERS };
static const int64_t sizes[PARAMETERS] = {1003, 65, 3, 17, 40};

static double gradient_at(int parameter, int64_t i, int step) {
  return (double)(float)kp_random_normal(9, (uint32_t)parameter, (uint32_t)step, (uint64_t)i);
}

/* One step of all parameters. */
static void step_all(kp_parameters *parameters, const kp_adamw_options *adamw, int64_t t,
                     double gradient_scale, int threads) {
  const kp_optimizer_options all = {.adamw = *adamw};
  kp_error error = {0};
  kp_optimizer *optimizer;
  check_ok(kp_optimizer_create(parameters, &all, threads, &optimizer, &error), &error);
  kp_optimizer_step(optimizer, t, 1, gradient_scale);
  kp_optimizer_destroy(optimizer);
}

static kp_parameters *make(const kp_backend *backend) {
  static const kp_group groups[PARAMETERS] = {KP_GROUP_DECAY, KP_GROUP_NO_DECAY, KP_GROUP_CURVATURE,
                                              KP_GROUP_DECAY, KP_GROUP_DECAY};
  static const char *const names[PARAMETERS] = {"decaying", "plain", "curvature", "frozen", "unused"};
  kp_error error = {0};
  kp_parameters *parameters = kp_parameters_create();
  for (int p = 0; p < PARAMETERS; p++)
    kp_parameters_add(parameters, names[p], 1, &sizes[p], (kp_initial){KP_INITIAL_NORMAL, 0, 1, NULL, 0},
                      groups[p], p != FROZEN);
  parameters->list[UNUSED].used = false;
  check_ok(kp_parameters_allocate(parameters, backend, true, &error), &error);
  kp_parameters_initialise(parameters, 1);
  return parameters;
}

static void set_gradients(kp_parameters *parameters, int step) {
  for (int p = 0; p < PARAMETERS; p++) {
    double *g = malloc((size_t)sizes[p] * sizeof *g);
    for (int64_t i = 0; i < sizes[p]; i++) g[i] = p == FROZEN || p == UNUSED ? 0 : gradient_at(p, i, step);
    kp_parameters_write(parameters, parameters->gradients, p, g);
    free(g);
  }
}

/* What `value` becomes in `steps` steps. */
static double expected(int parameter, int64_t i, double value, int steps, double gradient_scale) {
  if (parameter == FROZEN || parameter == UNUSED) return value;
  const double rate =
      options.learning_rate * (parameter == CURVATURE ? options.curvature_rate_multiplier : 1);
  double m = 0, v = 0;
  for (int t = 1; t <= steps; t++) {
    const double g = gradient_scale * gradient_at(parameter, i, t);
    if (parameter == DECAYING) value *= 1 - rate * options.weight_decay;
    m = options.beta1 * m + (1 - options.beta1) * g;
    v = options.beta2 * v + (1 - options.beta2) * g * g;
    const double mean = m / (1 - pow(options.beta1, t)), square = v / (1 - pow(options.beta2, t));
    value -= rate * mean / (sqrt(square) + options.epsilon);
  }
  return value;
}

static void check_steps(const kp_backend *backend, int threads, double tolerance) {
  enum { STEPS = 5 };
  const double gradient_scale = 0.3;
  kp_parameters *parameters = make(backend);
  double *start = malloc((size_t)parameters->total * sizeof *start);
  double *end = malloc((size_t)parameters->total * sizeof *end);
  for (int p = 0; p < PARAMETERS; p++)
    kp_parameters_read(parameters, parameters->values, p, start + parameters->list[p].offset);
  for (int t = 1; t <= STEPS; t++) {
    set_gradients(parameters, t);
    step_all(parameters, &options, t, gradient_scale, threads);
  }
  for (int p = 0; p < PARAMETERS; p++) {
    const int64_t offset = parameters->list[p].offset;
    kp_parameters_read(parameters, parameters->values, p, end + offset);
    for (int64_t i = 0; i < sizes[p]; i++) {
      const double wanted = expected(p, i, start[offset + i], STEPS, gradient_scale);
      if (!(fabs(end[offset + i] - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%s, %s[%lld]: %.9g, not %.9g", backend->name, parameters->list[p].name, (long long)i,
                 end[offset + i], wanted);
    }
  }
  free(start);
  free(end);
  kp_parameters_destroy(parameters);
}

static void test_steps(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int threads = 1; threads <= 3; threads++) {
    check_steps(&double_backend, threads, 1e-14);
    for (int i = 0; i < isas; i++) check_steps(isa[i].backend, threads, 5e-7);
  }
}

/* Without gradients and decay nothing moves: 0 / (0 + ε). */
static void test_zero_gradients(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  kp_adamw_options still = options;
  still.weight_decay = 0;
  for (int i = 0; i < isas; i++) {
    kp_parameters *parameters = make(isa[i].backend);
    const float *value = parameters->values, before = value[500];
    step_all(parameters, &still, 1, 1, 2);
    assert_true(value[500] == before);
    kp_parameters_destroy(parameters);
  }
}

static void check_norm(const kp_backend *backend, double tolerance) {
  kp_parameters *parameters = make(backend);
  double squares = 0;
  set_gradients(parameters, 1);
  for (int p = 0; p < FROZEN; p++)
    for (int64_t i = 0; i < sizes[p]; i++) squares += gradient_at(p, i, 1) * gradient_at(p, i, 1);
  const double norm = kp_gradient_norm(parameters, 1);
  assert_true(fabs(norm - sqrt(squares)) <= tolerance * norm);
  assert_true(norm == kp_gradient_norm(parameters, 3));
  double bad[3] = {0, (double)INFINITY, 0};
  kp_parameters_write(parameters, parameters->gradients, CURVATURE, bad);
  assert_false(isfinite(kp_gradient_norm(parameters, 2)));
  bad[1] = (double)NAN;
  kp_parameters_write(parameters, parameters->gradients, CURVATURE, bad);
  assert_false(isfinite(kp_gradient_norm(parameters, 2)));
  bad[1] = 1e30; /* its square is no float */
  kp_parameters_write(parameters, parameters->gradients, CURVATURE, bad);
  assert_true(fabs(kp_gradient_norm(parameters, 2) - 1e30) < 1e24);
  kp_gradient_zero(parameters, 3);
  assert_true(kp_gradient_norm(parameters, 2) == 0);
  kp_parameters_destroy(parameters);
}

static void test_norm(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  check_norm(&double_backend, 1e-14);
  for (int i = 0; i < isas; i++) check_norm(isa[i].backend, 1e-14);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_steps),
      cmocka_unit_test(test_zero_gradients),
      cmocka_unit_test(test_norm),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
