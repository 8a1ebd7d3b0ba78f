/* The sampler against distributions worked out by hand. */
#include <math.h>
#include <stdlib.h>

#include "infer/sampler.h"
#include "support/check.h"
#include "support/check_fails.h"

enum { V = 5 };

/* Logarithms of probabilities 0.1, 0.4, 0.05, 0.3, 0.15, moved by a constant that must not matter. */
static void example(double logits[V]) {
  const double p[V] = {0.1, 0.4, 0.05, 0.3, 0.15};
  for (int i = 0; i < V; i++) logits[i] = log(p[i]) + 3;
}

static kp_token_sampler_options plain(void) {
  return (kp_token_sampler_options){
      .temperature = 1, .top_p = 1, .repetition_penalty = 1, .repetition_window = 8, .seed = 42};
}

/* The distribution under `options` must be `expected`, which sums to 1. */
static void check_distribution(kp_token_sampler_options options, const double *logits,
                               const int32_t *sequence, int64_t length, const double expected[V]) {
  kp_error error = {0};
  kp_token_sampler *sampler;
  const double *p;
  check_ok(kp_token_sampler_create(&options, V, &sampler, &error), &error);
  for (int repeat = 0; repeat < 2; repeat++) { /* the second call must not remember the first */
    check_ok(kp_token_sampler_distribution(sampler, logits, sequence, length, &p, &error), &error);
    for (int i = 0; i < V; i++)
      if (!(fabs(p[i] - expected[i]) < 1e-14)) fail_msg("token %d: %.17g, not %.17g", i, p[i], expected[i]);
  }
  kp_token_sampler_destroy(sampler);
}

static void test_no_bound_gives_the_softmax(void **state) {
  (void)state;
  double logits[V];
  example(logits);
  check_distribution(plain(), logits, NULL, 0, (double[V]){0.1, 0.4, 0.05, 0.3, 0.15});
}

static void test_temperature(void **state) {
  (void)state;
  double logits[V], expected[V], sum = 0;
  kp_token_sampler_options options = plain();
  example(logits);
  options.temperature = 0.5; /* squares the probabilities */
  for (int i = 0; i < V; i++) sum += expected[i] = exp(2 * (logits[i] - 3));
  for (int i = 0; i < V; i++) expected[i] /= sum;
  check_distribution(options, logits, NULL, 0, expected);
  options.temperature = 1e-300; /* so cold that only the likeliest is left, without overflow */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 1, 0, 0, 0});
}

static void test_greedy_takes_the_largest(void **state) {
  (void)state;
  double logits[V];
  kp_token_sampler_options options = plain();
  example(logits);
  options.temperature = 0;
  check_distribution(options, logits, NULL, 0, (double[V]){0, 1, 0, 0, 0});
  logits[3] = logits[1]; /* of equals the smaller id */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 1, 0, 0, 0});
}

static void test_top_k(void **state) {
  (void)state;
  double logits[V];
  kp_token_sampler_options options = plain();
  example(logits);
  options.top_k = 3;
  check_distribution(options, logits, NULL, 0, (double[V]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  options.top_k = 1;
  check_distribution(options, logits, NULL, 0, (double[V]){0, 1, 0, 0, 0});
  options.top_k = 100;
  check_distribution(options, logits, NULL, 0, (double[V]){0.1, 0.4, 0.05, 0.3, 0.15});
  for (int i = 0; i < V; i++) logits[i] = 1; /* equal logits: exactly k, the smaller ids */
  options.top_k = 2;
  check_distribution(options, logits, NULL, 0, (double[V]){0.5, 0.5, 0, 0, 0});
}

static void test_top_p(void **state) {
  (void)state;
  double logits[V];
  kp_token_sampler_options options = plain();
  example(logits);
  options.top_p = 0.75; /* 0.4 + 0.3 is not enough: the token that reaches the share belongs to it */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  options.top_p = 0.65;
  check_distribution(options, logits, NULL, 0, (double[V]){0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
  options.top_p = 1e-9; /* never none */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 1, 0, 0, 0});
}

static void test_top_p_counts_from_what_top_k_left(void **state) {
  (void)state;
  double logits[V];
  kp_token_sampler_options options = plain();
  example(logits);
  options.top_k = 3;
  options.top_p = 0.8; /* (0.4 + 0.3) / 0.85 > 0.8, although 0.4 + 0.3 < 0.8 */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
}

static void test_min_p(void **state) {
  (void)state;
  double logits[V];
  kp_token_sampler_options options = plain();
  example(logits);
  options.min_p = 0.3; /* at least 0.12 */
  check_distribution(options, logits, NULL, 0, (double[V]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
}

static void test_repetition_penalty(void **state) {
  (void)state;
  const double logits[V] = {2, 1, -1, 0, 3};
  const int32_t sequence[] = {4, 0, 2, 2, 0}; /* the 4 is older than the window; 0 and 2 count once */
  double expected[V] = {exp(1), exp(1), exp(-2), exp(0), exp(3)}, sum = 0;
  kp_token_sampler_options options = plain();
  options.repetition_penalty = 2;
  options.repetition_window = 4;
  for (int i = 0; i < V; i++) sum += expected[i];
  for (int i = 0; i < V; i++) expected[i] /= sum;
  check_distribution(options, logits, sequence, 5, expected);
}

/* Frequencies of many draws are the probabilities. */
static void test_draws_follow_the_distribution(void **state) {
  (void)state;
  enum { DRAWS = 20000 };
  double logits[V], count[V] = {0};
  const double expected[V] = {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85};
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  options.top_k = 3;
  example(logits);
  check_ok(kp_token_sampler_create(&options, V, &sampler, &error), &error);
  for (int i = 0; i < DRAWS; i++) {
    int32_t token;
    check_ok(kp_token_sampler_pick(sampler, logits, NULL, i, 0, &token, &error), &error);
    assert_in_range(token, 0, V - 1);
    count[token]++;
  }
  for (int i = 0; i < V; i++) /* five standard deviations */
    if (fabs(count[i] / DRAWS - expected[i]) > 5 * sqrt(expected[i] * (1 - expected[i]) / DRAWS))
      fail_msg("token %d was drawn in %.4f of the cases, not %.4f", i, count[i] / DRAWS, expected[i]);
  kp_token_sampler_destroy(sampler);
}

/* Draws at positions 0 … 63. */
static void draw(uint64_t seed, uint64_t sample, double rounding, int32_t out[64]) {
  double logits[V];
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  options.seed = seed;
  example(logits);
  for (int i = 0; i < V; i++) logits[i] *= 1 + rounding * (i - 2);
  check_ok(kp_token_sampler_create(&options, V, &sampler, &error), &error);
  for (int i = 0; i < 64; i++)
    check_ok(kp_token_sampler_pick(sampler, logits, NULL, i, sample, &out[i], &error), &error);
  kp_token_sampler_destroy(sampler);
}

static void test_seed_and_sample_decide(void **state) {
  (void)state;
  int32_t first[64], again[64], rounded[64], other_seed[64], other_sample[64];
  draw(7, 0, 0, first);
  draw(7, 0, 0, again);
  draw(7, 0, 1e-9, rounded);
  draw(8, 0, 0, other_seed);
  draw(7, 1, 0, other_sample);
  assert_memory_equal(first, again, sizeof first);
  assert_memory_equal(first, rounded, sizeof first);
  assert_memory_not_equal(first, other_seed, sizeof first);
  assert_memory_not_equal(first, other_sample, sizeof first);
}

/* Many kept go through a heap alone, few through the bound that blocks give first. */
static void check_large_vocabulary(int kept) {
  enum { MANY = 1000 };
  double logits[MANY], sum = 0;
  const double *p;
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  options.top_k = kept;
  for (int i = 0; i < MANY; i++) logits[i] = (i * 389 % MANY) * 0.01; /* a permutation: rank is known */
  for (int rank = 0; rank < kept; rank++) sum += exp(-0.01 * rank);
  check_ok(kp_token_sampler_create(&options, MANY, &sampler, &error), &error);
  check_ok(kp_token_sampler_distribution(sampler, logits, NULL, 0, &p, &error), &error);
  for (int i = 0; i < MANY; i++) {
    const int rank = MANY - 1 - i * 389 % MANY;
    const double expected = rank < kept ? exp(-0.01 * rank) / sum : 0;
    if (!(fabs(p[i] - expected) < 1e-14)) fail_msg("token %d: %.17g, not %.17g", i, p[i], expected);
  }
  kp_token_sampler_destroy(sampler);
}

static void test_large_vocabulary_against_sorting(void **state) {
  (void)state;
  check_large_vocabulary(37);
  check_large_vocabulary(7);
  check_large_vocabulary(1);
}

/* Equal logits beyond the largest, some of which are among the k: those of the smaller ids. */
static void test_equal_logits_of_a_large_vocabulary(void **state) {
  (void)state;
  enum { MANY = 1003, KEPT = 6 };
  double logits[MANY];
  const double *p;
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  options.top_k = KEPT;
  for (int i = 0; i < MANY; i++) logits[i] = i >= MANY - 2 ? 3 : i >= 500 ? 2 : 1;
  check_ok(kp_token_sampler_create(&options, MANY, &sampler, &error), &error);
  check_ok(kp_token_sampler_distribution(sampler, logits, NULL, 0, &p, &error), &error);
  for (int i = 0; i < MANY; i++)
    assert_int_equal(p[i] > 0, i >= MANY - 2 || (i >= 500 && i < 500 + KEPT - 2));
  kp_token_sampler_destroy(sampler);
}

static void test_logits_that_are_not_finite(void **state) {
  (void)state;
  double logits[V];
  const double *p;
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  example(logits);
  check_ok(kp_token_sampler_create(&options, V, &sampler, &error), &error);
  logits[3] = NAN;
  check_fails(kp_token_sampler_distribution(sampler, logits, NULL, 0, &p, &error), &error, KP_ERR_NUMERIC,
              "the logit of token 3 is");
  logits[3] = INFINITY;
  check_fails(kp_token_sampler_distribution(sampler, logits, NULL, 0, &p, &error), &error, KP_ERR_NUMERIC,
              "the logit of token 3 is inf");
  kp_token_sampler_destroy(sampler);
}

static void test_options_out_of_range(void **state) {
  (void)state;
  kp_error error = {0};
  kp_token_sampler *sampler;
  kp_token_sampler_options options = plain();
  options.top_p = 0;
  check_fails(kp_token_sampler_create(&options, V, &sampler, &error), &error, KP_ERR_INPUT, "top-p");
  assert_null(sampler);
  options = plain();
  options.temperature = -1;
  check_fails(kp_token_sampler_create(&options, V, &sampler, &error), &error, KP_ERR_INPUT, "temperature");
  options = plain();
  options.repetition_penalty = 0.5;
  check_fails(kp_token_sampler_create(&options, V, &sampler, &error), &error, KP_ERR_INPUT, "penalty");
  options = plain();
  options.min_p = NAN;
  check_fails(kp_token_sampler_create(&options, V, &sampler, &error), &error, KP_ERR_INPUT, "min-p");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_no_bound_gives_the_softmax),
      cmocka_unit_test(test_temperature),
      cmocka_unit_test(test_greedy_takes_the_largest),
      cmocka_unit_test(test_top_k),
      cmocka_unit_test(test_top_p),
      cmocka_unit_test(test_top_p_counts_from_what_top_k_left),
      cmocka_unit_test(test_min_p),
      cmocka_unit_test(test_repetition_penalty),
      cmocka_unit_test(test_draws_follow_the_distribution),
      cmocka_unit_test(test_seed_and_sample_decide),
      cmocka_unit_test(test_large_vocabulary_against_sorting),
      cmocka_unit_test(test_equal_logits_of_a_large_vocabulary),
      cmocka_unit_test(test_logits_that_are_not_finite),
      cmocka_unit_test(test_options_out_of_range),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
