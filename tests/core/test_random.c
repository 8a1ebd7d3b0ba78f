/* Random numbers: the known answers of Random123, purity, moments, permutations. */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"

/* Rows "philox4x32 10" of tests/kat_vectors in the Random123 distribution, 1.14.0. */
static void test_philox_known_answers(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], expected[4];
  } rows[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
    kp_philox_block block = kp_philox(rows[row].key, rows[row].counter);
    for (int i = 0; i < 4; i++) assert_int_equal(block.word[i], rows[row].expected[i]);
  }
}

static void test_place_goes_into_key_and_counter(void **state) {
  (void)state;
  const uint32_t key[2] = {0xa4093822, 0x299f31d0},
                 counter[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
  kp_philox_block direct = kp_philox(key, counter);
  kp_philox_block placed =
      kp_random_block(UINT64_C(0x299f31d0a4093822), 0x03707344, 0x13198a2e, UINT64_C(0x85a308d3243f6a88));
  assert_memory_equal(&direct, &placed, sizeof direct);
}

static void test_uniform_range_and_moments(void **state) {
  (void)state;
  enum { count = 200000 };
  double sum = 0, squares = 0, sum_float = 0;
  for (uint64_t i = 0; i < count; i++) {
    double u = kp_random_uniform(7, KP_RANDOM_GENERIC, 3, i);
    float f = kp_random_uniform_float(7, KP_RANDOM_GENERIC, 4, i);
    assert_true(u >= 0 && u < 1 && f >= 0 && f < 1);
    sum += u, squares += u * u, sum_float += (double)f;
  }
  /* Five standard errors: the numbers are fixed, so this either holds for good or never. */
  double error = 5 / sqrt(12.0 * count);
  assert_true(fabs(sum / count - 0.5) < error);
  assert_true(fabs(sum_float / count - 0.5) < error);
  assert_true(fabs(squares / count - 1.0 / 3) < 5 * sqrt(4.0 / 45 / count));
}

static void test_normal_moments(void **state) {
  (void)state;
  enum { count = 200000 };
  double moment[5] = {0};
  for (uint64_t i = 0; i < count; i++) {
    double x = kp_random_normal(11, KP_RANDOM_PARAMETERS, 0, i), power = 1;
    assert_true(isfinite(x));
    for (int k = 1; k <= 4; k++) moment[k] += (power *= x) / count;
  }
  /* Standard errors of the first four moments of a normal sample: 1, 2, 15, 96 over count. */
  assert_true(fabs(moment[1]) < 5 * sqrt(1.0 / count));
  assert_true(fabs(moment[2] - 1) < 5 * sqrt(2.0 / count));
  assert_true(fabs(moment[3]) < 5 * sqrt(15.0 / count));
  assert_true(fabs(moment[4] - 3) < 5 * sqrt(96.0 / count));
}

static void test_fill_equals_one_by_one(void **state) {
  (void)state;
  float normal[17], uniform[17];
  kp_random_fill_normal(5, KP_RANDOM_PARAMETERS, 9, 0.5, 0.02, normal, 17);
  kp_random_fill_uniform(5, KP_RANDOM_PARAMETERS, 10, -2, 2, uniform, 17);
  for (uint64_t i = 0; i < 17; i++) {
    assert_true(normal[i] == (float)(0.5 + 0.02 * kp_random_normal(5, KP_RANDOM_PARAMETERS, 9, i)));
    assert_true(uniform[i] == (float)(-2 + 4 * kp_random_uniform(5, KP_RANDOM_PARAMETERS, 10, i)));
  }
}

static void test_streams_and_steps_differ(void **state) {
  (void)state;
  uint64_t base = kp_random_bits(1, 0, 0, 0);
  assert_true(base != kp_random_bits(2, 0, 0, 0));
  assert_true(base != kp_random_bits(UINT64_C(1) << 32 | 1, 0, 0, 0));
  assert_true(base != kp_random_bits(1, 1, 0, 0));
  assert_true(base != kp_random_bits(1, 0, 1, 0));
  assert_true(base != kp_random_bits(1, 0, 0, 1));
}

static void test_below_covers_its_range(void **state) {
  (void)state;
  int seen[7] = {0};
  for (uint64_t i = 0; i < 7000; i++) {
    uint64_t value = kp_random_below(3, KP_RANDOM_GENERIC, 0, i, 7);
    assert_true(value < 7);
    seen[value]++;
  }
  /* 1000 expected each; the deviation is sqrt(7000 * 1/7 * 6/7) = 29. */
  for (int i = 0; i < 7; i++) assert_in_range(seen[i], 1000 - 150, 1000 + 150);
  assert_int_equal(kp_random_below(3, KP_RANDOM_GENERIC, 0, 0, 1), 0);
}

static void test_permutation_is_one(void **state) {
  (void)state;
  static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097};
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    uint64_t size = sizes[s];
    char *seen = calloc(size, 1);
    assert_non_null(seen);
    for (uint64_t i = 0; i < size; i++) {
      uint64_t image = kp_random_permute(42, KP_RANDOM_PERMUTATION, 1, i, size);
      assert_true(image < size && !seen[image]);
      seen[image] = 1;
    }
    free(seen);
  }
}

static void test_permutation_mixes_and_depends_on_the_epoch(void **state) {
  (void)state;
  enum { size = 10000 };
  int fixed = 0, neighbours = 0, same = 0;
  for (uint64_t i = 0; i + 1 < size; i++) {
    uint64_t image = kp_random_permute(1, KP_RANDOM_PERMUTATION, 0, i, size);
    fixed += image == i;
    neighbours += kp_random_permute(1, KP_RANDOM_PERMUTATION, 0, i + 1, size) == image + 1;
    same += kp_random_permute(1, KP_RANDOM_PERMUTATION, 1, i, size) == image;
  }
  /* Each count is Poisson with mean 1 for a random permutation. */
  assert_in_range(fixed, 0, 8);
  assert_in_range(neighbours, 0, 8);
  assert_in_range(same, 0, 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_philox_known_answers),
      cmocka_unit_test(test_place_goes_into_key_and_counter),
      cmocka_unit_test(test_uniform_range_and_moments),
      cmocka_unit_test(test_normal_moments),
      cmocka_unit_test(test_fill_equals_one_by_one),
      cmocka_unit_test(test_streams_and_steps_differ),
      cmocka_unit_test(test_below_covers_its_range),
      cmocka_unit_test(test_permutation_is_one),
      cmocka_unit_test(test_permutation_mixes_and_depends_on_the_epoch),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
