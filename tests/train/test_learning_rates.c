/* No value that is not finite over the learning rates of the published sweep and the range of κ, in float32.
 */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/random.h"
#include "optim/stepper.h"
#include "train/settings.h"
#include "train/trainer.h"

enum { BATCH = 4, LENGTH = 16, VOCABULARY = 17, STEPS = 40 };

/* Tokens with something to learn: each follows from the one before. */
static void fill(int64_t step, int32_t *inputs, int32_t *targets) {
  for (int b = 0; b < BATCH; b++) {
    int32_t token = (int32_t)kp_random_below(7, KP_RANDOM_GENERIC, (uint32_t)step, (uint64_t)b, VOCABULARY);
    for (int t = 0; t < LENGTH; t++) {
      inputs[b * LENGTH + t] = token;
      token = (token * 3 + 5) % VOCABULARY;
      targets[b * LENGTH + t] = token;
    }
  }
}

/* Trains and returns the last loss; every loss and gradient norm on the way must be finite. */
static double train_with(const char *const *sets, size_t count, const kp_optimizer_options *how) {
  static const char text[] =
      "model: {family: mixed, vocabulary: 17, layers: 3, heads: 2, width: 32, context: 16}\n";
  kp_error error = {0};
  kp_config *config;
  kp_model_options options;
  kp_engine *engine;
  int32_t inputs[BATCH * LENGTH], targets[BATCH * LENGTH];
  kp_step_outcome outcome = {0};
  check_ok(kp_config_parse(text, strlen(text), "test", kp_training_schema(), sets, count, &config, &error),
           &error);
  check_ok(kp_model_options_read(config, NULL, &options, &error), &error);
  check_ok(kp_engine_create(&options, BATCH, 3, kp_backend_cpu(), 1, &engine, &error), &error);
  kp_stepper *stepper;
  check_ok(kp_stepper_create(kp_engine_parameters(engine), how, 1, &stepper, &error), &error);
  for (int64_t step = 0; step < STEPS; step++) {
    fill(step, inputs, targets);
    check_ok(kp_stepper_begin(stepper, 1, 1, &error), &error);
    const kp_batch batch = {.inputs = inputs, .targets = targets};
    check_ok(kp_engine_accumulate(engine, &batch, 1, (uint64_t)step, &error), &error);
    check_ok(kp_stepper_add_loss(stepper, kp_engine_loss(engine), 1, &error), &error);
    check_ok(kp_stepper_submit(stepper, &error), &error);
    check_ok(kp_stepper_outcome(stepper, &outcome, &error), &error);
    if (outcome.skipped > 0)
      fail_msg("loss %g, gradient norm %g at step %d with %s, rates %g and %g", outcome.loss, outcome.norm,
               (int)step, sets[0], how->adamw.learning_rate, how->muon.learning_rate);
    check_ok(kp_engine_end_step(engine, true, &error), &error);
  }
  kp_stepper_destroy(stepper);
  kp_engine_destroy(engine);
  kp_model_options_destroy(&options);
  kp_config_destroy(config);
  return outcome.loss;
}

static kp_optimizer_options optimizer_of(kp_optimizer_kind kind, double rate, double muon_rate) {
  return (kp_optimizer_options){
      .kind = kind,
      .adamw = {.learning_rate = rate,
                .beta1 = 0.9,
                .beta2 = 0.99,
                .epsilon = 1e-8,
                .weight_decay = 0.1,
                .curvature_rate_multiplier = 1},
      .muon = {
          .learning_rate = muon_rate, .momentum = 0.95, .weight_decay = 0.1, .nesterov = true, .steps = 5}};
}

static double train(const char *const *sets, size_t count, double rate) {
  const kp_optimizer_options adamw = optimizer_of(KP_OPTIMIZER_ADAMW, rate, 0);
  return train_with(sets, count, &adamw);
}

static void test_fixed_curvatures(void **state) {
  (void)state;
  static const char *const curvatures[] = {"-10", "-2", "-1", "-0.1", "-1e-4", "0", "1e-4", "0.1", "1", "2"};
  static const char *const wirings[] = {"model.wiring=e1", "model.wiring=e2", "model.wiring=e3"};
  static const double rates[] = {1e-2, 1e-3, 1e-4};
  for (size_t c = 0; c < sizeof curvatures / sizeof *curvatures; c++)
    for (size_t w = 0; w < 3; w++)
      for (size_t r = 0; r < 3; r++) {
        char value[64];
        snprintf(value, sizeof value, "model.curvature.value=[%s]", curvatures[c]);
        train((const char *[]){value, wirings[w]}, 2, rates[r]);
      }
}

static void test_learned_curvatures(void **state) {
  (void)state;
  static const char *const modes[] = {"model.curvature.mode=parametric", "model.curvature.mode=tied",
                                      "model.curvature.mode=random"};
  static const char *const heads[] = {"model.curvature.per_head=true", "model.curvature.dynamic=true"};
  static const double rates[] = {1e-2, 1e-3};
  for (size_t m = 0; m < 3; m++)
    for (size_t h = 0; h < 2; h++)
      for (size_t r = 0; r < 2; r++) train((const char *[]){modes[m], heads[h]}, 2, rates[r]);
}

static void test_the_published_variant(void **state) {
  (void)state;
  static const char *const curvatures[] = {"-1", "-0.1", "-1e-4"};
  for (size_t c = 0; c < 3; c++) {
    char value[64];
    snprintf(value, sizeof value, "model.curvature.value=[%s]", curvatures[c]);
    train((const char *[]){value, "model.variant=upstream"}, 2, 1e-3);
  }
}

/* Muon over the published rate halved and doubled, and the kinds that keep norms. */
static void test_other_optimizers(void **state) {
  (void)state;
  static const char *const models[][2] = {
      {"model.curvature.value=[-10]", "model.wiring=e3"},
      {"model.curvature.value=[-1]", "model.wiring=e1"},
      {"model.curvature.value=[1]", "model.wiring=e3"},
      {"model.curvature.mode=parametric", "model.curvature.per_head=true"},
      {"model.curvature.value=[-0.1]", "model.variant=upstream"},
  };
  static const double rates[] = {0.01, 0.02, 0.04};
  for (size_t m = 0; m < sizeof models / sizeof *models; m++)
    for (int kind = KP_OPTIMIZER_MUON; kind <= KP_OPTIMIZER_HYPERBALL_MUON; kind++)
      for (size_t r = 0; r < 3; r++) {
        const kp_optimizer_options how = optimizer_of((kp_optimizer_kind)kind, 1e-3, rates[r]);
        train_with(models[m], 2, &how);
      }
}

static bool is_model(const char *const *sets, size_t count) {
  static const char text[] = "model: {vocabulary: 17, layers: 3, heads: 2, width: 32, context: 16}\n";
  kp_error error = {0};
  kp_config *config;
  kp_model_options options;
  check_ok(kp_config_parse(text, strlen(text), "test", kp_training_schema(), sets, count, &config, &error),
           &error);
  const bool made = kp_model_options_read(config, NULL, &options, &error) == KP_OK;
  if (made) kp_model_options_destroy(&options);
  kp_config_destroy(config);
  return made;
}

/* Every family that there is, at every rate, at the curvatures that it takes. */
static void test_every_family(void **state) {
  (void)state;
  static const char *const curvatures[] = {"-10", "-1", "-0.1", "-1e-4", "0", "1e-4", "0.1", "1", "1.9"};
  static const double rates[] = {1e-2, 1e-3, 1e-4};
  const kp_family *family;
  for (int f = 0; (family = kp_family_at(f)) != NULL; f++) {
    char name[64];
    snprintf(name, sizeof name, "model.family=%s", family->name);
    for (size_t r = 0; r < 3; r++) train((const char *[]){name}, 1, rates[r]);
    const kp_optimizer_options muon = optimizer_of(KP_OPTIMIZER_MUON, 1e-3, 0.02);
    train_with((const char *[]){name}, 1, &muon);
    for (size_t c = 0; c < sizeof curvatures / sizeof *curvatures && family->curved; c++) {
      char stream[64], heads[64];
      snprintf(stream, sizeof stream, "model.curvature.value=[%s]", curvatures[c]);
      snprintf(heads, sizeof heads, "model.attention.curvature.value=[%s]", curvatures[c]);
      const char *const sets[] = {name, stream, heads, "model.attention.curvature.mode=fixed"};
      for (size_t r = 0; r < 2 && is_model(sets, 4); r++) train(sets, 4, rates[r]);
    }
  }
}

static void test_muon_learns(void **state) {
  (void)state;
  const kp_optimizer_options how = optimizer_of(KP_OPTIMIZER_MUON, 1e-2, 0.02);
  assert_true(train_with((const char *[]){"model.curvature.value=[-0.1]"}, 1, &how) < 0.7 * log(VOCABULARY));
}

static void test_it_learns(void **state) {
  (void)state;
  const double loss = train((const char *[]){"model.curvature.value=[-0.1]"}, 1, 1e-2);
  assert_true(loss < 0.7 * log(VOCABULARY));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fixed_curvatures),
      cmocka_unit_test(test_learned_curvatures),
      cmocka_unit_test(test_the_published_variant),
      cmocka_unit_test(test_other_optimizers),
      cmocka_unit_test(test_every_family),
      cmocka_unit_test(test_muon_learns),
      cmocka_unit_test(test_it_learns),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
