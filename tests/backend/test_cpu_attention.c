/* Fast attention of every instruction set that this processor has, against the definition in double:
 * odd shapes, all scores, both layouts, shared key heads, hostile values. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "support/attention_run.h"

static void check_problem(const oracle_problem *p) {
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  oracle_result expected;
  oracle_result_create(&expected, p);
  oracle_run(p, &expected);
  for (int s = 0; s < set_count; s++) {
    attention_check(&sets[s], p, &expected, false);
    attention_check(&sets[s], p, &expected, true);
  }
  oracle_result_destroy(&expected);
}

static void test_shapes(void **state) {
  (void)state;
  const int lengths[] = {1, 7, 63, 64, 65, 200};
  const int sizes[] = {1, 5, 8, 33, 64, 8};
  for (int power = 0; power <= 2; power++)
    for (int causal = 0; causal <= 1; causal++)
      for (int i = 0; i < 6; i++)
        for (int shift = 0; shift < 2; shift++) {
          oracle_problem p =
              attention_problem(i < 2 ? 3 : 1, lengths[i], 3, 3, sizes[(i + 3 * shift) % 6], causal, power);
          check_problem(&p);
          oracle_problem_destroy(&p);
        }
}

/* Heads beyond 120 channels have smaller tiles. */
static void test_large_heads(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = attention_problem(1, 150, 2, 2, 128, power != 1, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

static void test_shared_key_heads(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = attention_problem(2, 70, 6, 2, 12, true, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
    p = attention_problem(1, 33, 4, 1, 7, false, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Up to |u| sqrt|κ| of 2 (the curvatures reach -1.9), where w is a difference of numbers near 200. */
static void test_far_rows(void **state) {
  (void)state;
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = attention_problem(1, 130, 8, 8, 16, true, power);
    attention_fill(&p, 2.0 / sqrt(1.9));
    p.kappa[0] = -1.9f;
    p.kappa[1] = 1.9f;
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Coincident points: w is zero up to rounding, and 1/sqrt(w) is not. */
static void test_keys_equal_queries(void **state) {
  (void)state;
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = attention_problem(1, 66, 6, 6, 16, true, power);
    memcpy(p.k, p.q, sizeof(float) * 6 * 66 * 16);
    check_problem(&p);
    for (int i = 0; i < 6 * 66 * 16; i++) p.q[i] = p.k[i] = p.k[i % 16]; /* all rows the same point */
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

static void test_zeros(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = attention_problem(1, 70, 2, 2, 8, true, power);
    memset(p.q, 0, sizeof(float) * 2 * 70 * 8);
    check_problem(&p);
    memset(p.k, 0, sizeof(float) * 2 * 70 * 8);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Scores of ±10⁴, exact in float: the softmax picks single keys and nothing overflows. */
static void test_huge_scores(void **state) {
  (void)state;
  oracle_problem p = attention_problem(1, 150, 2, 2, 4, true, 0);
  p.scale = 1;
  for (int i = 0; i < 2 * 150; i++)
    for (int d = 0; d < 4; d++) {
      p.q[i * 4 + d] = d == 0 ? 100.0f : 0.0f;
      p.k[i * 4 + d] = d == 0 ? (float)((i * 37) % 201 - 100) : 0.25f;
    }
  check_problem(&p);
  oracle_problem_destroy(&p);
}

/* A NaN stays visible in its row, and does not leave its head. */
static void test_nan_comes_out(void **state) {
  (void)state;
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  for (int power = 0; power <= 2; power++)
    for (int s = 0; s < set_count; s++) {
      oracle_problem p = attention_problem(1, 70, 2, 2, 8, true, power);
      p.q[66 * 8 + 3] = NAN;
      attention_run run;
      attention_run_create(&run, &p, true);
      attention_run_forward(&sets[s], &run, &p, 1);
      for (int t = 0; t < 70; t++)
        for (int c = 0; c < 16; c++) assert_true(isnan(run.o_rows[t * 16 + c]) == (t == 66 && c < 8));
      attention_run_backward(&sets[s], &run, &p, 1);
      for (int d = 0; d < 8; d++) assert_true(isnan(run.gradient[0][66 * 48 + d]));
      if (power > 0)
        assert_true(isnan(run.kappa_bar[0]) && isnan(run.beta_bar[0]) && isfinite(run.kappa_bar[1]));
      attention_run_destroy(&run);
      oracle_problem_destroy(&p);
    }
}

/* Two runs, and runs with one and two threads, give the same bits. */
static void test_reproducible(void **state) {
  (void)state;
  attention_kernels sets[ATTENTION_SETS];
  const int set_count = attention_kernel_sets(sets);
  for (int power = 0; power <= 2; power++)
    for (int s = 0; s < set_count; s++) {
      oracle_problem p = attention_problem(2, 150, 5, 5, 24, true, power);
      attention_run runs[3];
      for (int i = 0; i < 3; i++) {
        attention_run_create(&runs[i], &p, true);
        attention_run_forward(&sets[s], &runs[i], &p, i == 0 ? 1 : 2);
        attention_run_backward(&sets[s], &runs[i], &p, i == 0 ? 1 : 2);
        assert_memory_equal(runs[i].o_rows, runs[0].o_rows, runs[0].o_count * sizeof(float));
        assert_memory_equal(runs[i].gradient[0], runs[0].gradient[0], runs[0].rows_size[0] * sizeof(float));
        if (power == 0) continue;
        assert_memory_equal(runs[i].kappa_bar, runs[0].kappa_bar, 5 * sizeof(float));
        assert_memory_equal(runs[i].beta_bar, runs[0].beta_bar, 5 * sizeof(float));
      }
      for (int i = 0; i < 3; i++) attention_run_destroy(&runs[i]);
      oracle_problem_destroy(&p);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_large_heads),
      cmocka_unit_test(test_shared_key_heads),
      cmocka_unit_test(test_far_rows),
      cmocka_unit_test(test_keys_equal_queries),
      cmocka_unit_test(test_zeros),
      cmocka_unit_test(test_huge_scores),
      cmocka_unit_test(test_nan_comes_out),
      cmocka_unit_test(test_reproducible),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
