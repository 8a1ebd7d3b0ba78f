/* Cross-entropy and its gradient on every instruction set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/isa.h"
#include "support/kernel.h"

enum { IGNORE = -100 };

typedef struct shape {
  int rows, vocabulary;
} shape;

/* Vocabularies beside the vector length and beside the kernel's block of 2048. */
static const shape shapes[] = {{1, 1},    {3, 17},   {17, 3},   {64, 65}, {65, 63},
                               {7, 1000}, {3, 2048}, {5, 2049}, {2, 5000}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct result {
  float loss, *logsumexp, *g; /* (1), (N), (N, V) */
} result;

static kp_status run(const kp_test_isa *isa, shape s, const float *logits, const int32_t *target, int threads,
                     result *to, kp_error *error) {
  kp_test_kernel kernel;
  const kp_cross_entropy_arguments arguments = {IGNORE};
  const float g_loss = 0.5f;
  kp_test_kernel_begin(&kernel, KP_OP_CROSS_ENTROPY, &arguments);
  kp_test_input(&kernel, logits, KP_TYPE_REAL, 2, s.rows, s.vocabulary);
  kp_test_input(&kernel, target, KP_TYPE_INT32, 1, s.rows);
  kp_test_output(&kernel, &to->loss, KP_TYPE_STATISTIC, 1, 1);
  kp_test_output(&kernel, to->logsumexp, KP_TYPE_STATISTIC, 1, s.rows);
  KP_TRY(kp_test_run(&kernel, isa->backend, threads, error));
  memcpy(to->g, logits, (size_t)(s.rows * s.vocabulary) * sizeof *to->g);
  kp_test_kernel_begin(&kernel, KP_OP_CROSS_ENTROPY_BACKWARD, &arguments);
  kp_test_input(&kernel, to->g, KP_TYPE_REAL, 2, s.rows, s.vocabulary);
  kp_test_input(&kernel, target, KP_TYPE_INT32, 1, s.rows);
  kp_test_input(&kernel, to->logsumexp, KP_TYPE_STATISTIC, 1, s.rows);
  kp_test_input(&kernel, &g_loss, KP_TYPE_STATISTIC, 1, 1);
  kp_test_output(&kernel, to->g, KP_TYPE_REAL, 2, s.rows, s.vocabulary); /* in place */
  return kp_test_run(&kernel, isa->backend, threads, error);
}

static result make_result(shape s) {
  return (result){NAN, kp_test_unwritten(s.rows), kp_test_unwritten(s.rows * s.vocabulary)};
}

static void free_result(result r) {
  free(r.logsumexp);
  free(r.g);
}

static double logsumexp(const float *row, int count) {
  double high = (double)row[0], sum = 0;
  for (int i = 0; i < count; i++) high = fmax(high, (double)row[i]);
  for (int i = 0; i < count; i++) sum += exp((double)row[i] - high);
  return high + log(sum);
}

/* Checks a run on `logits` against double loops. */
static void check_logits(const kp_test_isa *isa, shape s, const float *logits, const int32_t *target,
                         int threads, double tolerance) {
  kp_error error = {0};
  const int count = s.rows * s.vocabulary;
  int counted = 0;
  result r = make_result(s);
  double *sums = malloc((size_t)s.rows * sizeof *sums), *g = malloc((size_t)count * sizeof *g), loss = 0;
  for (int n = 0; n < s.rows; n++) {
    sums[n] = logsumexp(logits + n * s.vocabulary, s.vocabulary);
    if (target[n] == IGNORE) continue;
    counted++;
    loss += sums[n] - (double)logits[n * s.vocabulary + target[n]];
  }
  loss = counted > 0 ? loss / counted : 0;
  for (int i = 0; i < count; i++) {
    const int n = i / s.vocabulary, v = i % s.vocabulary;
    const double share = exp((double)logits[i] - sums[n]) - (v == target[n]);
    g[i] = target[n] == IGNORE ? 0 : 0.5 * share / counted;
  }
  check_ok(run(isa, s, logits, target, threads, &r, &error), &error);
  kp_test_close("cross_entropy", isa->name, &r.loss, &loss, 1, tolerance, 1);
  kp_test_close("logsumexp", isa->name, r.logsumexp, sums, s.rows, tolerance, 1);
  kp_test_close("cross_entropy_backward", isa->name, r.g, g, count, 5 * tolerance,
                counted > 0 ? 0.5 / counted : 1);
  free_result(r);
  free(sums);
  free(g);
}

static int32_t *make_targets(shape s) {
  int32_t *target = malloc((size_t)s.rows * sizeof *target);
  for (int n = 0; n < s.rows; n++) target[n] = n % 5 == 4 ? IGNORE : n * 31 % s.vocabulary;
  return target;
}

static void test_against_loops(void **state) {
  (void)state;
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int s = 0; s < SHAPES; s++) {
    int32_t *target = make_targets(shapes[s]);
    float *logits = kp_test_uniform(shapes[s].rows * shapes[s].vocabulary, 6, 1);
    for (int i = 0; i < isas; i++)
      for (int threads = 1; threads <= 3; threads++)
        check_logits(&isa[i], shapes[s], logits, target, threads, 3e-7);
    free(target);
    free(logits);
  }
}

/* Rows that open with blocks of -inf, all but one of -inf, and shifts that would overflow exp. */
static void test_hostile_logits(void **state) {
  (void)state;
  const shape s = {4, 5000};
  const int32_t target[4] = {4500, 4999, 7, 4000};
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  float *logits = kp_test_uniform(s.rows * s.vocabulary, 5, 1);
  for (int v = 0; v < 4400; v++) logits[v] = -INFINITY;
  for (int v = 0; v < 4999; v++) logits[5000 + v] = -INFINITY;
  for (int v = 0; v < 5000; v++) logits[10000 + v] += 96.0f + (float)(v % 32);
  for (int v = 0; v < 5000; v++) logits[15000 + v] -= 120.0f;
  for (int i = 0; i < isas; i++) check_logits(&isa[i], s, logits, target, 2, 2e-6);
  free(logits);
}

static void test_nan_and_all_ignored(void **state) {
  (void)state;
  const shape s = {3, 70};
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  for (int i = 0; i < isas; i++) {
    kp_error error = {0};
    int32_t target[3] = {IGNORE, IGNORE, IGNORE};
    float *logits = kp_test_uniform(s.rows * s.vocabulary, 5, 1);
    result r = make_result(s);
    check_logits(&isa[i], s, logits, target, 2, 3e-7);
    target[1] = 3;
    logits[70 + 69] = NAN;
    check_ok(run(&isa[i], s, logits, target, 2, &r, &error), &error);
    assert_true(isnan(r.loss) && isnan(r.logsumexp[1]) && !isnan(r.logsumexp[0]));
    for (int v = 0; v < 70; v++) assert_true(isnan(r.g[70 + v]) && r.g[v] == 0.0f);
    free_result(r);
    free(logits);
  }
}

static void test_targets_outside_are_named(void **state) {
  (void)state;
  const shape s = {3, 70};
  kp_test_isa isa[KP_TEST_ISAS];
  const int isas = kp_test_isas(isa);
  float *logits = kp_test_uniform(s.rows * s.vocabulary, 5, 1);
  for (int i = 0; i < isas; i++) {
    kp_error error = {0};
    int32_t target[3] = {0, 69, 70};
    result r = make_result(s);
    assert_int_equal(run(&isa[i], s, logits, target, 2, &r, &error), KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "row 2 has target 70"));
    target[0] = -1;
    assert_int_equal(run(&isa[i], s, logits, target, 2, &r, &error), KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "row 0 has target -1"));
    free_result(r);
  }
  free(logits);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_loops),
      cmocka_unit_test(test_hostile_logits),
      cmocka_unit_test(test_nan_and_all_ignored),
      cmocka_unit_test(test_targets_outside_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
