/* Which update each parameter gets, and that no step leaves a manifold, in double and on every instruction
 * set. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "optim/optimizer.h"
#include "support/check.h"
#include "support/isa.h"

static const kp_backend double_backend = {
    .name = "double", .real_size = sizeof(double), .wide_size = sizeof(double)};

/* A table of one parameter of each kind; odd sizes. */
enum { HIDDEN, BATCH, STACKED, TABLE, ROWS, COLUMNS, LORENTZ, BALL, SPHERE, FLAT_BALL, BIAS, PARAMETERS };
static const struct {
  const char *name;
  int dimensions;
  int64_t shape[3];
  kp_group group;
  kp_manifold manifold;
  double curvature;
} kinds[PARAMETERS] = {
    [HIDDEN] = {"hidden", 2, {37, 21}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [BATCH] = {"batch", 3, {3, 10, 13}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [STACKED] = {"stacked", 2, {27, 9}, KP_GROUP_DECAY, KP_MANIFOLD_NONE, 0},
    [TABLE] = {"table", 2, {41, 7}, KP_GROUP_TABLE, KP_MANIFOLD_NONE, 0},
    [ROWS] = {"rows", 2, {300, 133}, KP_GROUP_DECAY, KP_MANIFOLD_UNIT_ROWS, 0},
    [COLUMNS] = {"columns", 3, {2, 33, 131}, KP_GROUP_DECAY, KP_MANIFOLD_UNIT_COLUMNS, 0},
    [LORENTZ] = {"lorentz", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_LORENTZ, -0.5},
    [BALL] = {"ball", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, -0.04},
    [SPHERE] = {"sphere", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, 0.3},
    [FLAT_BALL] = {"flat_ball", 2, {31, 12}, KP_GROUP_TABLE, KP_MANIFOLD_STEREOGRAPHIC, 0},
    [BIAS] = {"bias", 1, {53}, KP_GROUP_NO_DECAY, KP_MANIFOLD_NONE, 0},
};

static const kp_optimizer_options adamw = {
    .adamw = {.learning_rate = 3e-2, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1},
    .muon = {.learning_rate = 0.02, .momentum = 0.95, .weight_decay = 0.1, .nesterov = true, .steps = 5}};

static kp_optimizer_options of_kind(kp_optimizer_kind kind) {
  kp_optimizer_options options = adamw;
  options.kind = kind;
  return options;
}

static kp_parameters *make(const kp_backend *backend) {
  kp_error error = {0};
  kp_parameters *parameters = kp_parameters_create();
  for (int p = 0; p < PARAMETERS; p++) {
    kp_parameters_add(parameters, kinds[p].name, kinds[p].dimensions, kinds[p].shape,
                      (kp_initial){KP_INITIAL_NORMAL, 0, 0.5, NULL, 0}, kinds[p].group, true);
    kp_parameters_set_manifold(parameters, p, kinds[p].manifold, kinds[p].curvature);
  }
  kp_parameters_set_blocks(parameters, STACKED, 3);
  check_ok(kp_parameters_allocate(parameters, backend, true, &error), &error);
  kp_parameters_initialise(parameters, 5);
  kp_parameters_retract(parameters, 2);
  return parameters;
}

static double element(const kp_parameters *parameters, int p, int64_t i) {
  return kp_parameters_element(parameters, parameters->values, p, i);
}

static void set_gradients(kp_parameters *parameters, uint32_t step) {
  for (int p = 0; p < PARAMETERS; p++) {
    const int64_t count = parameters->list[p].count;
    double *g = malloc((size_t)count * sizeof *g);
    assert_non_null(g);
    for (int64_t i = 0; i < count; i++)
      g[i] = (double)(float)kp_random_normal(3, (uint32_t)p, step, (uint64_t)i);
    kp_parameters_write(parameters, parameters->gradients, p, g);
    free(g);
  }
}

static kp_parameters *train(const kp_backend *backend, const kp_optimizer_options *options, int threads,
                            int steps) {
  kp_error error = {0};
  kp_optimizer *optimizer;
  kp_parameters *parameters = make(backend);
  check_ok(kp_optimizer_create(parameters, options, threads, &optimizer, &error), &error);
  for (int t = 1; t <= steps; t++) {
    set_gradients(parameters, (uint32_t)t);
    kp_optimizer_step(optimizer, t, 1, 0.5);
  }
  kp_optimizer_destroy(optimizer);
  return parameters;
}

/* Σ x² of `count` elements, `stride` apart. */
static double squares(const kp_parameters *parameters, int p, int64_t first, int64_t count, int64_t stride) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) {
    const double x = element(parameters, p, first + i * stride);
    sum += x * x;
  }
  return sum;
}

static void check_near(const char *what, double got, double want, double tolerance) {
  if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
    fail_msg("%s: %.12g, not %.12g", what, got, want);
}

static void check_on_manifolds(const kp_parameters *parameters, double tolerance) {
  for (int64_t row = 0; row < 300; row++)
    check_near("unit row", squares(parameters, ROWS, row * 133, 133, 1), 1, tolerance);
  for (int64_t matrix = 0; matrix < 2; matrix++)
    for (int64_t column = 0; column < 131; column++)
      check_near("unit column", squares(parameters, COLUMNS, matrix * 33 * 131 + column, 33, 131), 1,
                 tolerance);
  for (int64_t row = 0; row < 31; row++) {
    const double time = element(parameters, LORENTZ, row * 12);
    assert_true(time > 0);
    check_near("time", time * time, squares(parameters, LORENTZ, row * 12 + 1, 11, 1) + 2, tolerance);
    assert_true(0.04 * squares(parameters, BALL, row * 12, 12, 1) < 1);
  }
}

static void check_manifolds(const kp_backend *backend, double tolerance) {
  for (int kind = KP_OPTIMIZER_ADAMW; kind <= KP_OPTIMIZER_HYPERBALL_MUON; kind++)
    for (int tangent = 0; tangent < 2; tangent++) {
      kp_optimizer_options options = of_kind((kp_optimizer_kind)kind);
      options.tangent = tangent == 1;
      kp_parameters *parameters = train(backend, &options, 2, 6);
      check_on_manifolds(parameters, tolerance);
      kp_parameters_destroy(parameters);
    }
}

static void test_manifolds(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  check_manifolds(&double_backend, 1e-14);
  for (int i = 0; i < isas; i++) check_manifolds(isa[i].backend, 1e-6);
}

/* Float and double agree, whatever the number of threads; the threads decide nothing at all. */
static void check_like_double(const kp_backend *backend, kp_optimizer_kind kind) {
  const kp_optimizer_options options = of_kind(kind);
  kp_parameters *wide = train(&double_backend, &options, 1, 3), *one = train(backend, &options, 1, 3),
                *three = train(backend, &options, 3, 3);
  for (int p = 0; p < PARAMETERS; p++)
    for (int64_t i = 0; i < wide->list[p].count; i++) {
      check_near(kinds[p].name, element(one, p, i), element(wide, p, i), 2e-5);
      assert_true(element(one, p, i) == element(three, p, i));
    }
  kp_parameters_destroy(wide);
  kp_parameters_destroy(one);
  kp_parameters_destroy(three);
}

static void test_float_like_double(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++)
    for (int kind = KP_OPTIMIZER_ADAMW; kind <= KP_OPTIMIZER_HYPERBALL_MUON; kind++)
      check_like_double(isa[i].backend, (kp_optimizer_kind)kind);
}

/* A hyperball kind keeps the norm of each hidden matrix, of each of a batch, and of nothing else. */
static void check_norms(const kp_backend *backend, kp_optimizer_kind kind, double tolerance) {
  const kp_optimizer_options options = of_kind(kind);
  kp_parameters *before = make(backend), *after = train(backend, &options, 2, 20);
  check_near("hidden", squares(after, HIDDEN, 0, 37 * 21, 1), squares(before, HIDDEN, 0, 37 * 21, 1),
             tolerance);
  for (int64_t matrix = 0; matrix < 3; matrix++)
    check_near("batch", squares(after, BATCH, matrix * 130, 130, 1),
               squares(before, BATCH, matrix * 130, 130, 1), tolerance);
  assert_true(fabs(squares(after, TABLE, 0, 41 * 7, 1) - squares(before, TABLE, 0, 41 * 7, 1)) > 1e-3);
  assert_true(element(after, HIDDEN, 0) != element(before, HIDDEN, 0));
  kp_parameters_destroy(before);
  kp_parameters_destroy(after);
}

static void test_hyperball(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int kind = KP_OPTIMIZER_HYPERBALL_ADAMW; kind <= KP_OPTIMIZER_HYPERBALL_MUON; kind++) {
    check_norms(&double_backend, (kp_optimizer_kind)kind, 1e-13);
    for (int i = 0; i < isas; i++) check_norms(isa[i].backend, (kp_optimizer_kind)kind, 1e-7);
  }
}

/* With a curvature of zero, where λ = 2, Riemannian Adam is Adam whose second moment a row shares. */
static void test_flat_limit(void **state) {
  (void)state;
  kp_parameters *before = make(&double_backend), *after = train(&double_backend, &adamw, 1, 1);
  for (int64_t row = 0; row < 31; row++) {
    double g[12], length = 0;
    for (int64_t i = 0; i < 12; i++) {
      const double e = 0.5 * (double)(float)kp_random_normal(3, FLAT_BALL, 1, (uint64_t)(row * 12 + i));
      g[i] = e / 4;
      length += 4 * g[i] * g[i];
    }
    for (int64_t i = 0; i < 12; i++)
      check_near("flat", element(after, FLAT_BALL, row * 12 + i),
                 element(before, FLAT_BALL, row * 12 + i) - 3e-2 * g[i] / (sqrt(length) + 1e-8), 1e-14);
  }
  kp_parameters_destroy(before);
  kp_parameters_destroy(after);
}

/* The tangent part alone: a gradient along a unit row moves nothing. */
static void test_tangent(void **state) {
  (void)state;
  kp_error error = {0};
  kp_optimizer *optimizer;
  kp_optimizer_options options = adamw;
  options.tangent = true;
  options.adamw.epsilon = 1e-3; /* what rounding leaves of the gradient is no direction */
  kp_parameters *parameters = make(&double_backend);
  memcpy(parameters->gradients, parameters->values, (size_t)parameters->total * sizeof(double));
  const double row = element(parameters, ROWS, 500), column = element(parameters, COLUMNS, 500);
  check_ok(kp_optimizer_create(parameters, &options, 2, &optimizer, &error), &error);
  kp_optimizer_step(optimizer, 1, 1, 1);
  check_near("row", element(parameters, ROWS, 500), row, 1e-12);
  check_near("column", element(parameters, COLUMNS, 500), column, 1e-12);
  kp_optimizer_destroy(optimizer);
  kp_parameters_destroy(parameters);
}

/* A stack of three matrices, split, is what three parameters of their own would be. */
static void test_split(void **state) {
  (void)state;
  kp_optimizer_options options = of_kind(KP_OPTIMIZER_MUON);
  kp_parameters *whole = train(&double_backend, &options, 1, 2);
  options.muon.split = true;
  kp_parameters *split = train(&double_backend, &options, 1, 2), *own = kp_parameters_create();
  kp_optimizer *optimizer;
  kp_error error = {0};
  for (int block = 0; block < 3; block++) {
    char name[16];
    snprintf(name, sizeof name, "block-%d", block);
    kp_parameters_add(own, name, 2, (int64_t[]){9, 9}, (kp_initial){0}, KP_GROUP_DECAY, true);
  }
  kp_parameters *start = make(&double_backend);
  check_ok(kp_parameters_allocate(own, &double_backend, true, &error), &error);
  check_ok(kp_optimizer_create(own, &options, 1, &optimizer, &error), &error);
  for (int block = 0; block < 3; block++)
    kp_parameters_write(own, own->values, block,
                        (const double *)start->values + start->list[STACKED].offset + 81 * block);
  for (int t = 1; t <= 2; t++) {
    set_gradients(start, (uint32_t)t);
    for (int block = 0; block < 3; block++)
      kp_parameters_write(own, own->gradients, block,
                          (const double *)start->gradients + start->list[STACKED].offset + 81 * block);
    kp_optimizer_step(optimizer, t, 1, 0.5);
  }
  for (int64_t i = 0; i < 3 * 81; i++)
    assert_true(element(split, STACKED, i) == element(own, (int)(i / 81), i % 81));
  assert_true(element(split, STACKED, 0) != element(whole, STACKED, 0));
  kp_optimizer_destroy(optimizer);
  kp_parameters_destroy(whole);
  kp_parameters_destroy(split);
  kp_parameters_destroy(own);
  kp_parameters_destroy(start);
}

/* Zeros stay zeros: no direction, no number that is not finite. */
static void test_zeros(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  kp_error error = {0};
  for (int kind = KP_OPTIMIZER_ADAMW; kind <= KP_OPTIMIZER_HYPERBALL_MUON; kind++)
    for (int i = -1; i < isas; i++) {
      const kp_optimizer_options options = of_kind((kp_optimizer_kind)kind);
      kp_parameters *parameters = make(i < 0 ? &double_backend : isa[i].backend);
      kp_optimizer *optimizer;
      memset(parameters->values, 0, (size_t)parameters->total * parameters->backend->real_size);
      kp_parameters_retract(parameters, 1);
      check_ok(kp_optimizer_create(parameters, &options, 2, &optimizer, &error), &error);
      kp_optimizer_step(optimizer, 1, 1, 1);
      for (int p = 0; p < PARAMETERS; p++)
        for (int64_t e = 0; e < parameters->list[p].count; e++)
          check_near(kinds[p].name, element(parameters, p, e), p == LORENTZ && e % 12 == 0 ? sqrt(2) : 0,
                     1e-7);
      kp_optimizer_destroy(optimizer);
      kp_parameters_destroy(parameters);
    }
}

static void check_update(kp_optimizer_kind kind, int parameter, const char *text, int moments) {
  const kp_optimizer_options options = of_kind(kind);
  kp_parameters *parameters = train(&double_backend, &options, 1, 0);
  assert_string_equal(kp_update_text(kp_optimizer_update(&options, &parameters->list[parameter])), text);
  assert_int_equal(parameters->list[parameter].moments, moments);
  kp_parameters_destroy(parameters);
}

static void test_updates(void **state) {
  (void)state;
  check_update(KP_OPTIMIZER_ADAMW, HIDDEN, "adamw", 2);
  check_update(KP_OPTIMIZER_MUON, HIDDEN, "muon", 1);
  check_update(KP_OPTIMIZER_MUON, BATCH, "muon", 1);
  check_update(KP_OPTIMIZER_MUON, TABLE, "adamw", 2);
  check_update(KP_OPTIMIZER_MUON, BIAS, "adamw", 2);
  check_update(KP_OPTIMIZER_MUON, LORENTZ, "riemannian adam", 2);
  check_update(KP_OPTIMIZER_HYPERBALL_ADAMW, HIDDEN, "adamw, norm kept", 2);
  check_update(KP_OPTIMIZER_HYPERBALL_MUON, HIDDEN, "muon, norm kept", 1);
  check_update(KP_OPTIMIZER_HYPERBALL_MUON, ROWS, "muon", 1);
  kp_parameter frozen = {.dimensions = 2, .group = KP_GROUP_DECAY, .used = true};
  assert_string_equal(kp_update_text(kp_optimizer_update(&adamw, &frozen)), "none");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_manifolds), cmocka_unit_test(test_float_like_double),
      cmocka_unit_test(test_hyperball), cmocka_unit_test(test_flat_limit),
      cmocka_unit_test(test_tangent),   cmocka_unit_test(test_split),
      cmocka_unit_test(test_zeros),     cmocka_unit_test(test_updates),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
