/* The optimizer on a GPU against the host's in double, from the same numbers; needs a GPU.
 *
 * Every kind of optimizer steps one parameter of each manifold and group, of odd shapes, over steps of which
 * some are clipped and some are not finite.  After each step gradients and pads are zero and the narrow copy
 * is the rounded values; run again, every bit is the same.  Rounded stochastically, it is one of the two
 * neighbours, and unbiased. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "core/half.h"
#include "core/memory.h"
#include "core/random.h"
#include "ops/ops.h"
#include "optim/stepper.h"
#include "support/check.h"

typedef struct kind {
  const char *name;
  int dimensions;
  int64_t shape[3];
  kp_group group;
  kp_manifold manifold;
  double curvature;
} kind;

enum { STACKED = 4, LARGE, FROZEN = 26, UNUSED, COUNTER, EXPERTS, EXPERT_BIAS, EXPERT_SHORT, PARAMETERS };
static const kind kinds[PARAMETERS] = {
    {"hidden", 2, {37, 21}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"tall", 2, {136, 40}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"wide", 2, {40, 136}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"batch", 3, {3, 10, 13}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"stacked", 2, {27, 9}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"large", 2, {200, 330}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    {"table", 2, {41, 7}, KP_GROUP_TABLE, KP_MANIFOLD_NONE, 0},
    {"embedding", 2, {1001, 33}, KP_GROUP_TABLE, KP_MANIFOLD_NONE, 0},
    {"rows", 2, {300, 133}, KP_GROUP_DECAY, KP_MANIFOLD_UNIT_ROWS, 0},
    {"short rows", 2, {70, 5}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_ROWS, 0},
    {"long rows", 2, {5, 1111}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_ROWS, 0},
    {"longest rows", 2, {2, 30001}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_ROWS, 0},
    {"columns", 3, {2, 333, 131}, KP_GROUP_DECAY, KP_MANIFOLD_UNIT_COLUMNS, 0},
    {"short columns", 2, {150, 7}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_COLUMNS, 0},
    {"long columns", 2, {2000, 70}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_COLUMNS, 0},
    {"table columns", 2, {33, 300}, KP_GROUP_TABLE, KP_MANIFOLD_UNIT_COLUMNS, 0},
    {"lorentz", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -0.5},
    {"short lorentz", 2, {9, 3}, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -2},
    {"wide lorentz", 2, {41, 390}, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -1},
    {"long lorentz", 2, {3, 1501}, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -1},
    {"ball", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, -0.04},
    {"long ball", 2, {3, 601}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, -0.001},
    {"sphere", 2, {31, 17}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, 0.3},
    {"flat ball", 2, {31, 5}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, 0},
    {"bias", 1, {53}, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0},
    {"curvature", 1, {3}, KP_GROUP_CURVATURE, KP_MANIFOLD_NONE, 0},
    [FROZEN] = {"frozen", 2, {12, 19}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [UNUSED] = {"unused", 2, {12, 19}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [COUNTER] = {"counter", 1, {6}, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0},
    [EXPERTS] = {"experts", 3, {6, 10, 23}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [EXPERT_BIAS] = {"expert bias", 2, {6, 29}, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0},
    [EXPERT_SHORT] = {"expert gate", 2, {6, 3}, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0},
};

/* A run of steps. */
typedef struct setting {
  kp_optimizer_kind kind;
  bool tangent, split, nesterov;
} setting;

enum { STEPS = 7, NAN_STEP = 3, INFINITE_LOSS_STEP = 5, TAKEN = STEPS - 2 };
static const double CLIP = 60;

static kp_optimizer_options options_of(const setting *s) {
  return (kp_optimizer_options){.kind = s->kind,
                                .adamw = {.learning_rate = 3e-2,
                                          .beta1 = 0.9,
                                          .beta2 = 0.95,
                                          .epsilon = 1e-6,
                                          .weight_decay = 0.1,
                                          .curvature_rate_multiplier = 4},
                                .muon = {.learning_rate = 0.02,
                                         .momentum = 0.95,
                                         .weight_decay = 0.1,
                                         .nesterov = s->nesterov,
                                         .steps = 5,
                                         .split = s->split},
                                .tangent = s->tangent};
}

/* ---- parameters ---- */

static kp_parameters *make(const kp_backend *backend) {
  kp_error error = {0};
  kp_parameters *parameters = kp_parameters_create();
  for (int p = 0; p < PARAMETERS; p++) {
    kp_parameters_add(parameters, kinds[p].name, kinds[p].dimensions, kinds[p].shape,
                      (kp_initial){KP_INITIAL_NORMAL, 0, 0.5, NULL, 0}, kinds[p].group,
                      p != FROZEN && p != COUNTER);
    kp_parameters_set_manifold(parameters, p, kinds[p].manifold, kinds[p].curvature);
    if (p >= EXPERTS) kp_parameters_set_counter(parameters, p, COUNTER);
  }
  kp_parameters_set_blocks(parameters, STACKED, 3);
  parameters->list[UNUSED].used = false;
  check_ok(kp_parameters_allocate(parameters, backend, true, &error), &error);
  return parameters;
}

static double *room(const kp_parameters *parameters, int p) {
  double *numbers = calloc((size_t)parameters->list[p].count, sizeof *numbers);
  assert_non_null(numbers);
  return numbers;
}

/* Points on their manifolds as floats say them. */
static void initialise(kp_parameters *host, kp_parameters *device) {
  kp_parameters_initialise(host, 5);
  kp_parameters_retract(host, 0);
  for (int p = 0; p < PARAMETERS; p++) {
    double *values = room(host, p);
    kp_parameters_read(host, host->values, p, values);
    for (int64_t i = 0; i < host->list[p].count; i++) values[i] = (double)(float)values[i];
    kp_parameters_write(host, host->values, p, values);
    kp_parameters_write(device, device->values, p, values);
    free(values);
  }
}

/* Experts are idle now and then; one gradient is not a number in NAN_STEP. */
static double *make_gradient(const kp_parameters *parameters, int p, int step) {
  double *g = room(parameters, p);
  const int64_t count = parameters->list[p].count, slice = count / kinds[p].shape[0];
  const double size = step % 2 == 0 ? 1 : 0.01;
  for (int64_t i = 0; i < count; i++) {
    const bool idle = p == FROZEN || p == UNUSED || p == COUNTER;
    if (idle || (p >= EXPERTS && (i / slice + step) % 3 == 0)) continue;
    g[i] = (double)(float)(size * kp_random_normal(3, (uint32_t)p, (uint32_t)step, (uint64_t)i));
  }
  if (step == NAN_STEP && p == LARGE) g[4321] = (double)NAN;
  return g;
}

static void set_gradients(kp_parameters *parameters, int step) {
  static double *made[STEPS + 1][PARAMETERS];
  for (int p = 0; p < PARAMETERS; p++) {
    if (made[step][p] == NULL) made[step][p] = make_gradient(parameters, p, step);
    kp_parameters_write(parameters, parameters->gradients, p, made[step][p]);
  }
}

/* ---- steps ---- */

static void run_step(kp_parameters *parameters, kp_stepper *stepper, void *loss, int step) {
  kp_error error = {0};
  const size_t size = parameters->backend->wide_size;
  check_ok(kp_stepper_begin(stepper, 1 / (double)step, CLIP, &error), &error);
  set_gradients(parameters, step);
  for (int micro = 0; micro < 2; micro++) {
    double number[1];
    kp_number_set(number, size, 0, step == INFINITE_LOSS_STEP ? (double)INFINITY : step + micro);
    check_ok(kp_memory_write(parameters->backend, loss, number, size, &error), &error);
    check_ok(kp_stepper_add_loss(stepper, loss, 0.5, &error), &error);
  }
  check_ok(kp_stepper_submit(stepper, &error), &error);
}

static void check_outcome(kp_stepper *stepper, int step, const kp_step_outcome *host) {
  kp_step_outcome o;
  kp_error error = {0};
  check_ok(kp_stepper_outcome(stepper, &o, &error), &error);
  assert_true(o.taken == host->taken && o.skipped == host->skipped &&
              o.skipped_in_a_row == host->skipped_in_a_row);
  if (step == NAN_STEP) assert_true(isnan(o.norm));
  if (step == INFINITE_LOSS_STEP) assert_true(isinf(o.loss));
  if (step == NAN_STEP || step == INFINITE_LOSS_STEP) return;
  assert_true(fabs(o.norm - host->norm) <= 1e-12 * host->norm);
  assert_true(fabs(o.loss - host->loss) <= 1e-12 * fabs(host->loss));
}

static void *copy_of(const kp_parameters *parameters, const void *buffer, size_t size) {
  kp_error error = {0};
  const size_t bytes = (size_t)parameters->total * size;
  void *host = malloc(bytes);
  assert_non_null(host);
  check_ok(kp_memory_read(parameters->backend, host, buffer, bytes, &error), &error);
  return host;
}

/* What must hold of the flat buffers after every step. */
static void check_buffers(const kp_parameters *parameters) {
  float *values = copy_of(parameters, parameters->values, sizeof(float));
  float *gradients = copy_of(parameters, parameters->gradients, sizeof(float));
  for (int64_t i = 0; i < parameters->total; i++)
    if (gradients[i] != 0) fail_msg("gradient %lld is %g after the step", (long long)i, (double)gradients[i]);
  for (int p = 0; p < PARAMETERS; p++) {
    const kp_parameter *x = &parameters->list[p];
    const int64_t columns = x->shape[x->dimensions - 1];
    for (int64_t i = 0; i < x->count / columns * x->pitch; i++)
      if (i % x->pitch >= columns && values[x->offset + i] != 0)
        fail_msg("%s: the pad at %lld is %g", x->name, (long long)i, (double)values[x->offset + i]);
  }
  if (parameters->working != NULL) {
    uint16_t *working = copy_of(parameters, parameters->working, sizeof(uint16_t));
    for (int64_t i = 0; i < parameters->total; i++)
      if (working[i] != kp_bf16_from_float(values[i]))
        fail_msg("narrow value %lld is not %g", (long long)i, (double)values[i]);
    free(working);
  }
  free(values);
  free(gradients);
}

static kp_stepper *stepper_of(kp_parameters *parameters, const setting *s) {
  const kp_optimizer_options options = options_of(s);
  kp_error error = {0};
  kp_stepper *stepper;
  check_ok(kp_stepper_create(parameters, &options, 0, &stepper, &error), &error);
  return stepper;
}

/* ---- comparing ---- */

static double worst[PARAMETERS][3];

/* The largest difference over the largest number. */
static double difference(const kp_parameters *got, const void *buffer, const kp_parameters *want,
                         const void *wanted, int p) {
  double *a = room(got, p), *b = room(want, p), largest = 1e-30, apart = 0;
  kp_parameters_read(got, buffer, p, a);
  kp_parameters_read(want, wanted, p, b);
  for (int64_t i = 0; i < got->list[p].count; i++) {
    largest = fmax(largest, fabs(b[i]));
    apart = fabs(a[i] - b[i]) <= apart ? apart : fabs(a[i] - b[i]);
  }
  free(a);
  free(b);
  return apart / largest;
}

/* What a number of a parameter may be apart.  A point far out on a hyperboloid is on it as far as floats can
 * say so: its moments' error grows with the square of its time.  Muon's directions are as good as their
 * products, and with them the values that say what is tangent. */
static double allowed(const setting *s, const kp_parameter *parameter, bool value, double muon) {
  const kp_optimizer_options options = options_of(s);
  const bool by_muon = kp_optimizer_update(&options, parameter).rule == KP_UPDATE_MUON;
  if (parameter->manifold == KP_MANIFOLD_LORENTZ) return value ? 3e-6 : 5e-5;
  return by_muon && (value || s->tangent) ? muon : 3e-6;
}

static void compare(const kp_parameters *got, const kp_parameters *want, const setting *s, double muon) {
  static const char *const what[3] = {"value", "first moment", "second moment"};
  for (int p = 0; p < PARAMETERS; p++) {
    const double apart[3] = {difference(got, got->values, want, want->values, p),
                             difference(got, got->moment1, want, want->moment1, p),
                             difference(got, got->moment2, want, want->moment2, p)};
    for (int i = 0; i < 3; i++) {
      worst[p][i] = fmax(worst[p][i], apart[i]);
      if (!(apart[i] <= allowed(s, &got->list[p], i == 0, muon)))
        fail_msg("%s, kind %d, tangent %d: %s is %.2e apart", kinds[p].name, (int)s->kind, s->tangent,
                 what[i], apart[i]);
    }
  }
}

static void assert_same_bits(const kp_parameters *a, const void *a_buffer, const kp_parameters *b,
                             const void *b_buffer) {
  void *x = copy_of(a, a_buffer, sizeof(float)), *y = copy_of(b, b_buffer, sizeof(float));
  assert_true(memcmp(x, y, (size_t)a->total * sizeof(float)) == 0);
  free(x);
  free(y);
}

static const kp_backend *backend;
static double muon_tolerance;

static void test_setting(void **state) {
  const setting *s = *state;
  kp_error error = {0};
  void *loss, *host_loss;
  kp_parameters *host = make(kp_backend_ref()), *device = make(backend), *again = make(backend);
  initialise(host, device);
  initialise(host, again);
  kp_stepper *host_stepper = stepper_of(host, s), *stepper = stepper_of(device, s),
             *second = stepper_of(again, s);
  check_ok(kp_memory_create(backend, sizeof(float), "a loss", &loss, &error), &error);
  check_ok(kp_memory_create(host->backend, sizeof(double), "a loss", &host_loss, &error), &error);
  for (int step = 1; step <= STEPS; step++) {
    kp_step_outcome outcome;
    run_step(host, host_stepper, host_loss, step);
    run_step(device, stepper, loss, step);
    check_ok(kp_stepper_outcome(host_stepper, &outcome, &error), &error);
    check_outcome(stepper, step, &outcome);
    check_buffers(device);
    compare(device, host, s, muon_tolerance);
  }
  for (int step = 1; step <= STEPS; step++) run_step(again, second, loss, step);
  assert_same_bits(device, device->values, again, again->values);
  assert_same_bits(device, device->moment1, again, again->moment1);
  assert_same_bits(device, device->moment2, again, again->moment2);
  kp_memory_destroy(backend, loss);
  kp_memory_destroy(host->backend, host_loss);
  kp_stepper_destroy(host_stepper);
  kp_stepper_destroy(stepper);
  kp_stepper_destroy(second);
  kp_parameters_destroy(host);
  kp_parameters_destroy(device);
  kp_parameters_destroy(again);
}

/* A stepper that goes on from a checkpoint's counts takes the step that the first would have taken. */
static void test_resume(void **state) {
  const setting s = {KP_OPTIMIZER_ADAMW, false, false, false};
  kp_error error = {0};
  kp_step_outcome outcome;
  void *loss;
  (void)state;
  kp_parameters *host = make(kp_backend_ref()), *device = make(backend);
  initialise(host, device);
  check_ok(kp_memory_create(backend, sizeof(double), "a loss", &loss, &error), &error);
  kp_stepper *first = stepper_of(device, &s), *host_stepper = stepper_of(host, &s);
  run_step(device, first, loss, 1);
  check_ok(kp_stepper_outcome(first, &outcome, &error), &error);
  kp_stepper_destroy(first);
  kp_stepper *second = stepper_of(device, &s);
  check_ok(kp_stepper_resume(second, &outcome, &error), &error);
  run_step(device, second, loss, 2);
  double host_loss;
  run_step(host, host_stepper, &host_loss, 1);
  run_step(host, host_stepper, &host_loss, 2);
  compare(device, host, &s, muon_tolerance);
  kp_memory_destroy(backend, loss);
  kp_stepper_destroy(second);
  kp_stepper_destroy(host_stepper);
  kp_parameters_destroy(host);
  kp_parameters_destroy(device);
}

/* A value's neighbours in bfloat16 are `below` it and the next; a rounded one in units of their distance,
 * less what nearest rounding would have to be to be unbiased: up - (value - below). */
static double excess(float value, uint16_t rounded) {
  const uint32_t bits = kp_float_bits(value);
  const uint16_t below = (uint16_t)(bits >> 16); /* in size */
  const double part = (double)(bits & 0xffffu) / 65536;
  if (rounded != below && (rounded != below + 1 || part == 0))
    fail_msg("%g is rounded to %g", (double)value, (double)kp_float_from_bf16(rounded));
  return (rounded == below ? 0 : 1) - part;
}

/* The variance of a draw is part · (1 - part), 1/6 on average: five standard deviations are allowed. */
static void test_stochastic_rounding(void **state) {
  const setting s = {KP_OPTIMIZER_ADAMW, false, false, false};
  kp_optimizer_options options = options_of(&s);
  kp_error error = {0};
  kp_stepper *stepper;
  void *loss;
  (void)state;
  kp_parameters *host = make(kp_backend_ref()), *device = make(backend);
  if (device->working == NULL) {
    kp_parameters_destroy(host);
    kp_parameters_destroy(device);
    return;
  }
  options.stochastic_rounding = true;
  initialise(host, device);
  check_ok(kp_stepper_create(device, &options, 0, &stepper, &error), &error);
  check_ok(kp_memory_create(backend, sizeof(float), "a loss", &loss, &error), &error);
  for (int step = 1; step <= 2; step++) {
    run_step(device, stepper, loss, step);
    float *values = copy_of(device, device->values, sizeof(float));
    uint16_t *working = copy_of(device, device->working, sizeof(uint16_t));
    double sum = 0;
    int64_t up = 0;
    for (int64_t i = 0; i < device->total; i++) {
      sum += excess(values[i], working[i]);
      up += working[i] != kp_bf16_from_float(values[i]);
    }
    if (fabs(sum) > 5 * sqrt((double)device->total / 6)) fail_msg("the roundings add up to %g", sum);
    if (up < device->total / 10) fail_msg("%lld values only are not the nearest", (long long)up);
    free(values);
    free(working);
  }
  kp_memory_destroy(backend, loss);
  kp_stepper_destroy(stepper);
  kp_parameters_destroy(host);
  kp_parameters_destroy(device);
}

static setting settings[] = {
    {KP_OPTIMIZER_ADAMW, false, false, false},
    {KP_OPTIMIZER_ADAMW, true, false, false},
    {KP_OPTIMIZER_MUON, false, false, true},
    {KP_OPTIMIZER_MUON, true, true, false},
    {KP_OPTIMIZER_HYPERBALL_ADAMW, false, false, true},
    {KP_OPTIMIZER_HYPERBALL_ADAMW, true, false, true},
    {KP_OPTIMIZER_HYPERBALL_MUON, false, false, true},
    {KP_OPTIMIZER_HYPERBALL_MUON, true, true, true},
};

static void print_worst(void) {
  for (int p = 0; p < PARAMETERS; p++)
    print_message("%-16s value %.1e, moments %.1e and %.1e\n", kinds[p].name, worst[p][0], worst[p][1],
                  worst[p][2]);
}

static int run_backend(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_prestate(test_setting, &settings[0]),
      cmocka_unit_test_prestate(test_setting, &settings[1]),
      cmocka_unit_test_prestate(test_setting, &settings[2]),
      cmocka_unit_test_prestate(test_setting, &settings[3]),
      cmocka_unit_test_prestate(test_setting, &settings[4]),
      cmocka_unit_test_prestate(test_setting, &settings[5]),
      cmocka_unit_test_prestate(test_setting, &settings[6]),
      cmocka_unit_test_prestate(test_setting, &settings[7]),
      cmocka_unit_test(test_resume),
      cmocka_unit_test(test_stochastic_rounding),
  };
  return cmocka_run_group_tests_name(backend->name, tests, NULL, NULL);
}

int main(void) {
  int failures = 0, passed = 0;
  for (int precision = KP_CUDA_FLOAT32; precision <= KP_CUDA_BFLOAT16; precision++) {
    kp_error error = {0};
    if (kp_backend_cuda_open(0, (kp_cuda_precision)precision, &backend, &error) != KP_OK) {
      printf("%s\n0 passed, 1 failed\n", error.message);
      return 1;
    }
    memset(worst, 0, sizeof worst);
    muon_tolerance = precision == KP_CUDA_BFLOAT16 ? 1e-2 : 1e-5;
    const int failed = run_backend();
    failures += failed;
    passed += 10 - failed;
    print_worst();
    kp_backend_cuda_close(backend);
  }
  printf("%d passed, %d failed\n", passed, failures);
  return failures;
}
