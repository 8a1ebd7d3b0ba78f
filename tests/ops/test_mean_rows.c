/* The mean over rows, by hand: padding counts neither in the sum nor in the number. */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>

#include "support/bench.h"

enum { B = 3, T = 4, C = 2 };

static void check_mean(const int32_t *documents, const int counted[B]) {
  kp_error error = {0};
  bench *b = bench_create(false);
  kp_tensor *x = bench_operand(b, "x", 0, 1, 3, (int64_t[]){B, T, C});
  kp_tensor *real = documents == NULL ? NULL : bench_index(b, "documents", 2, (int64_t[]){B, T}, documents);
  bench_output(b, kp_mean_rows(b->graph, x, real));
  bench_differentiate(b);
  check_ok(bench_start(b, kp_backend_ref(), 1, &error), &error);
  check_ok(bench_run(b, &error), &error);
  double *mean = bench_read_output(b, 0), *gradient = bench_read_gradient(b, 0);
  for (int s = 0; s < B; s++)
    for (int c = 0; c < C; c++) {
      double sum = 0;
      for (int t = 0; t < T; t++) {
        const int n = s * T + t;
        const bool counts = documents == NULL || documents[n] >= 0;
        if (counts) sum += b->value[0][n * C + c];
        const double expected = counts ? b->seed_value[0][s * C + c] / counted[s] : 0;
        assert_true(fabs(gradient[n * C + c] - expected) < 1e-15);
      }
      assert_true(fabs(mean[s * C + c] - (counted[s] > 0 ? sum / counted[s] : 0)) < 1e-15);
    }
  free(mean);
  free(gradient);
  bench_destroy(b);
}

static void test_all_rows(void **state) {
  (void)state;
  check_mean(NULL, (const int[]){T, T, T});
}

static void test_padding_is_left_out(void **state) {
  (void)state;
  static const int32_t documents[] = {0, 0, 0, -1, 7, -1, 3, -5, -1, -1, -1, -1};
  check_mean(documents, (const int[]){3, 2, 0});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_rows),
      cmocka_unit_test(test_padding_is_left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
