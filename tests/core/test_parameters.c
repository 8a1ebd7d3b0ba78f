/* The table of parameters and its flat buffers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/parameters.h"
#include "ops/ops.h"
#include "support/check.h"

static const int64_t matrix[] = {7, 5}, vector = 3, cube[] = {2, 3, 4};

static kp_initial initial_of(kp_initial_kind kind, double a, double b) {
  return (kp_initial){.kind = kind, .a = a, .b = b};
}

/* Four parameters of every initial distribution; `reversed` adds them in the other order. */
static kp_parameters *table(bool reversed) {
  const double list[] = {0.1, -2, 30};
  kp_parameters *p = kp_parameters_create();
  for (int step = 0; step < 4; step++) switch (reversed ? 3 - step : step) {
    case 0:
      kp_parameters_add(p, "normal", 2, matrix, initial_of(KP_INITIAL_NORMAL, 1, 0.5), KP_GROUP_DECAY, true);
      break;
    case 1:
      kp_parameters_add(p, "constant", 1, &vector, initial_of(KP_INITIAL_CONSTANT, 0.3, 0), KP_GROUP_NO_DECAY,
                        true);
      break;
    case 2:
      kp_parameters_add(p, "uniform", 3, cube, initial_of(KP_INITIAL_UNIFORM, -2, 4), KP_GROUP_DECAY, false);
      break;
    default:
      kp_parameters_add(p, "list", 2, matrix,
                        (kp_initial){.kind = KP_INITIAL_LIST, .values = list, .count = 3}, KP_GROUP_CURVATURE,
                        true);
    }
  return p;
}

static kp_parameters *filled(const kp_backend *backend, bool reversed, uint64_t seed) {
  kp_error error = {0};
  kp_parameters *p = table(reversed);
  check_ok(kp_parameters_allocate(p, backend, true, &error), &error);
  kp_parameters_initialise(p, seed);
  return p;
}

static double *values_of(const kp_parameters *p, const char *name) {
  const int index = kp_parameters_find(p, name);
  assert_true(index >= 0);
  double *values = malloc((size_t)p->list[index].count * sizeof *values);
  assert_non_null(values);
  kp_parameters_read(p, p->values, index, values);
  return values;
}

static void test_table(void **state) {
  (void)state;
  kp_parameters *p = table(false);
  assert_int_equal(p->count, 4);
  assert_int_equal(kp_parameters_find(p, "uniform"), 2);
  assert_int_equal(kp_parameters_find(p, "nothing"), -1);
  assert_int_equal(kp_parameters_elements(p), 35 + 3 + 24 + 35);
  assert_int_equal(kp_parameters_add(p, "normal", 2, matrix, (kp_initial){0}, KP_GROUP_DECAY, true), 0);
  assert_int_equal(p->count, 4);
  assert_int_equal(p->list[0].group, KP_GROUP_DECAY);
  assert_true(p->list[0].used && p->list[0].trainable && !p->list[2].trainable);
  kp_parameters_destroy(p);
  kp_parameters_destroy(NULL);
}

/* Every parameter starts on a cache line of either backend, and none overlap. */
static void test_alignment(void **state) {
  (void)state;
  kp_parameters *p = filled(kp_backend_cpu(), false, 1);
  int64_t end = 0;
  assert_int_equal((uintptr_t)p->values % 64, 0);
  assert_int_equal((uintptr_t)p->gradients % 64, 0);
  for (int i = 0; i < p->count; i++) {
    assert_int_equal(p->list[i].offset % 16, 0);
    assert_true(p->list[i].offset >= end);
    end = p->list[i].offset + p->list[i].count;
  }
  assert_true(p->total >= end);
  kp_parameters_destroy(p);
}

static void check_same(const kp_parameters *a, const kp_parameters *b) {
  for (int i = 0; i < a->count; i++) {
    double *x = values_of(a, a->list[i].name), *y = values_of(b, a->list[i].name);
    assert_memory_equal(x, y, (size_t)a->list[i].count * sizeof *x);
    free(x);
    free(y);
  }
}

static void test_same_numbers_everywhere(void **state) {
  (void)state;
  kp_parameters *ref = filled(kp_backend_ref(), false, 7), *cpu = filled(kp_backend_cpu(), false, 7);
  kp_parameters *reversed = filled(kp_backend_ref(), true, 7);
  check_same(ref, cpu);
  check_same(ref, reversed);
  for (int64_t i = 0; i < ref->total; i++) {
    const double value = ((const double *)ref->values)[i];
    assert_true(value == (double)(float)value);
  }
  kp_parameters_destroy(ref);
  kp_parameters_destroy(cpu);
  kp_parameters_destroy(reversed);
}

static void test_seeds_differ(void **state) {
  (void)state;
  kp_parameters *a = filled(kp_backend_ref(), false, 7), *b = filled(kp_backend_ref(), false, 8);
  double *x = values_of(a, "normal"), *y = values_of(b, "normal");
  for (int i = 0; i < 35; i++) assert_true(x[i] != y[i]);
  free(x);
  free(y);
  kp_parameters_destroy(a);
  kp_parameters_destroy(b);
}

/* Two parameters of one shape and one distribution are not the same numbers. */
static void test_names_differ(void **state) {
  (void)state;
  kp_error error = {0};
  kp_parameters *p = kp_parameters_create();
  kp_parameters_add(p, "h.0.weight", 2, matrix, initial_of(KP_INITIAL_NORMAL, 0, 1), KP_GROUP_DECAY, true);
  kp_parameters_add(p, "h.1.weight", 2, matrix, initial_of(KP_INITIAL_NORMAL, 0, 1), KP_GROUP_DECAY, true);
  check_ok(kp_parameters_allocate(p, kp_backend_ref(), false, &error), &error);
  assert_null(p->gradients);
  kp_parameters_initialise(p, 1);
  const double *x = p->values, *y = x + p->list[1].offset;
  for (int i = 0; i < 35; i++) assert_true(x[i] != y[i]);
  kp_parameters_destroy(p);
}

static void test_distributions(void **state) {
  (void)state;
  enum { COUNT = 20000 };
  const int64_t size = COUNT;
  kp_error error = {0};
  kp_parameters *p = kp_parameters_create();
  kp_parameters_add(p, "normal", 1, &size, initial_of(KP_INITIAL_NORMAL, 1, 0.5), KP_GROUP_DECAY, true);
  kp_parameters_add(p, "uniform", 1, &size, initial_of(KP_INITIAL_UNIFORM, -2, 4), KP_GROUP_DECAY, true);
  check_ok(kp_parameters_allocate(p, kp_backend_ref(), false, &error), &error);
  kp_parameters_initialise(p, 3);
  const double *normal = p->values, *uniform = normal + p->list[1].offset;
  double mean[2] = {0, 0}, square[2] = {0, 0};
  for (int i = 0; i < COUNT; i++) {
    assert_true(uniform[i] >= -2 && uniform[i] <= 4);
    mean[0] += normal[i] / COUNT, square[0] += (normal[i] - 1) * (normal[i] - 1) / COUNT;
    mean[1] += uniform[i] / COUNT, square[1] += (uniform[i] - 1) * (uniform[i] - 1) / COUNT;
  }
  /* Five standard errors. */
  assert_true(fabs(mean[0] - 1) < 5 * 0.5 / sqrt(COUNT));
  assert_true(fabs(sqrt(square[0]) - 0.5) < 5 * 0.5 / sqrt(2.0 * COUNT));
  assert_true(fabs(mean[1] - 1) < 5 * sqrt(3.0 / COUNT));
  assert_true(fabs(square[1] - 3) < 5 * 3 / sqrt(COUNT));
  kp_parameters_destroy(p);
}

static void test_constant_and_list(void **state) {
  (void)state;
  static const double list[] = {0.1, -2, 30};
  kp_parameters *p = filled(kp_backend_ref(), false, 1);
  double *constant = values_of(p, "constant"), *repeated = values_of(p, "list");
  for (int i = 0; i < 3; i++) assert_true(constant[i] == (double)0.3F);
  for (int i = 0; i < 35; i++) assert_true(repeated[i] == (double)(float)list[i % 3]);
  free(constant);
  free(repeated);
  kp_parameters_destroy(p);
}

static void test_read_and_write(void **state) {
  (void)state;
  const kp_backend *backends[] = {kp_backend_ref(), kp_backend_cpu()};
  for (int b = 0; b < 2; b++) {
    kp_parameters *p = filled(backends[b], false, 1);
    double written[] = {1.5, -2.25, 1e-3}, read[3], *before = values_of(p, "uniform"), *after;
    const int index = kp_parameters_find(p, "constant");
    kp_parameters_write(p, p->gradients, index, written);
    kp_parameters_read(p, p->gradients, index, read);
    for (int i = 0; i < 3; i++) assert_true(read[i] == (b == 0 ? written[i] : (double)(float)written[i]));
    kp_parameters_write(p, p->values, index, written);
    after = values_of(p, "uniform"); /* its neighbour is untouched */
    assert_memory_equal(before, after, 24 * sizeof *before);
    free(before);
    free(after);
    kp_parameters_destroy(p);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table),
      cmocka_unit_test(test_alignment),
      cmocka_unit_test(test_seeds_differ),
      cmocka_unit_test(test_same_numbers_everywhere),
      cmocka_unit_test(test_names_differ),
      cmocka_unit_test(test_distributions),
      cmocka_unit_test(test_constant_and_list),
      cmocka_unit_test(test_read_and_write),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
