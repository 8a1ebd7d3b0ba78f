/* The learning rate's factor at steps whose value is known. */
#include "support/check.h"

#include <math.h>
#include <string.h>

#include "train/settings.h"

static void check_factor(const kp_schedule *schedule, int64_t step, double expected) {
  const double factor = kp_schedule_factor(schedule, step);
  if (fabs(factor - expected) > 1e-15)
    fail_msg("step %lld: %.17g, not %.17g", (long long)step, factor, expected);
}

/* 1/5, 2/5, 3/5, 4/5, then the peak. */
static void test_warmup(void **state) {
  (void)state;
  const kp_schedule cosine = {.kind = KP_SCHEDULE_COSINE, .steps = 104, .warmup = 4, .minimum = 0.1};
  const kp_schedule constant = {
      .kind = KP_SCHEDULE_CONSTANT, .steps = 100, .warmup = 4, .minimum = 0.1, .cooldown = 0.2};
  for (int64_t step = 0; step < 4; step++) {
    check_factor(&cosine, step, (double)(step + 1) / 5);
    check_factor(&constant, step, (double)(step + 1) / 5);
  }
  check_factor(&cosine, 4, 1);
  check_factor(&constant, 4, 1);
}

/* Over 100 steps from 1 to 0.1: cos π/3 = 1/2 after a third, 0 in the middle. */
static void test_cosine(void **state) {
  (void)state;
  const kp_schedule schedule = {.kind = KP_SCHEDULE_COSINE, .steps = 124, .warmup = 4, .minimum = 0.1};
  check_factor(&schedule, 4, 1);
  check_factor(&schedule, 4 + 40, 0.1 + 0.9 * 0.75);
  check_factor(&schedule, 4 + 60, 0.55);
  check_factor(&schedule, 4 + 80, 0.1 + 0.9 * 0.25);
  check_factor(&schedule, 124, 0.1);
  check_factor(&schedule, 1000, 0.1);
  const kp_schedule none = {.kind = KP_SCHEDULE_COSINE, .steps = 8};
  check_factor(&none, 0, 1);
  check_factor(&none, 4, 0.5);
  check_factor(&none, 8, 0);
}

static void test_constant(void **state) {
  (void)state;
  const kp_schedule schedule = {.kind = KP_SCHEDULE_CONSTANT, .steps = 100, .minimum = 0.1, .cooldown = 0.2};
  check_factor(&schedule, 0, 1);
  check_factor(&schedule, 79, 1);
  check_factor(&schedule, 80, 1);
  check_factor(&schedule, 90, 0.55);
  check_factor(&schedule, 99, 1 - 0.9 * 0.95);
  check_factor(&schedule, 100, 0.1);
  const kp_schedule flat = {.kind = KP_SCHEDULE_CONSTANT, .steps = 100, .minimum = 0.1};
  check_factor(&flat, 99, 1);
  const kp_schedule falling = {.kind = KP_SCHEDULE_CONSTANT, .steps = 100, .cooldown = 1};
  check_factor(&falling, 0, 1);
  check_factor(&falling, 25, 0.75);
}

/* From 0, so that the first update moves nothing; the cosine falls by 0.9 and the minimum is added to it. */
static void test_helm(void **state) {
  (void)state;
  const kp_schedule schedule = {.kind = KP_SCHEDULE_HELM, .steps = 124, .warmup = 4, .minimum = 0.05};
  check_factor(&schedule, 0, 0);
  check_factor(&schedule, 3, 0.75);
  check_factor(&schedule, 4, 0.95);
  check_factor(&schedule, 4 + 40, 0.05 + 0.9 * 0.75);
  check_factor(&schedule, 124, 0.05);
  const kp_schedule none = {.kind = KP_SCHEDULE_HELM, .steps = 8, .minimum = 0.1};
  check_factor(&none, 0, 1);
}

static kp_config *configure(const char *text) {
  kp_error error = {0};
  kp_config *config;
  check_ok(kp_config_parse(text, strlen(text), "test", kp_training_schema(), NULL, 0, &config, &error),
           &error);
  return config;
}

/* The default warm-up gives way to a short run; one that was asked for is refused. */
static void test_warmup_that_does_not_fit(void **state) {
  (void)state;
  kp_error error = {0};
  kp_train_settings settings;
  kp_config *config = configure("train: {steps: 50}");
  check_ok(kp_train_settings_read(config, &settings, &error), &error);
  assert_int_equal(settings.schedule.warmup, 5);
  kp_config_destroy(config);
  config = configure("train: {steps: 101}");
  check_ok(kp_train_settings_read(config, &settings, &error), &error);
  assert_int_equal(settings.schedule.warmup, 100);
  kp_config_destroy(config);
  config = configure("train: {steps: 50, warmup: 50}");
  assert_int_equal(kp_train_settings_read(config, &settings, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "train.warmup"));
  kp_config_destroy(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_warmup),
      cmocka_unit_test(test_cosine),
      cmocka_unit_test(test_constant),
      cmocka_unit_test(test_helm),
      cmocka_unit_test(test_warmup_that_does_not_fit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
