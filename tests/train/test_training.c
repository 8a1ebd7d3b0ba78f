/* The training loop around the step: steps that are not finite, early stopping, which checkpoints stay, what
 * is written down. */
#include "support/small_run.h"

#include <math.h>

#include "ops/ops.h"
#include "train/settings.h"
#include "train/trainer.h"

/* Stops the run after `after` steps, as Ctrl-C would. */
typedef struct watch {
  volatile sig_atomic_t stop;
  int64_t after;
  int reasons; /* reports that said why a step was skipped */
  char reason[1024];
} watch;

static void stop_after(void *context, const kp_progress *progress) {
  watch *w = context;
  if (w->after > 0 && progress->step >= w->after) w->stop = 1;
  if (progress->reason == NULL) return;
  if (w->reasons++ == 0) snprintf(w->reason, sizeof w->reason, "%s", progress->reason);
}

static kp_status train(fixture *files, const char *const *sets, size_t count, const char *run, int64_t after,
                       kp_error *error) {
  watch w = {.after = after};
  const kp_train_options options = {
      .backend = kp_backend_ref(), .threads = 1, .progress = stop_after, .context = &w, .stop = &w.stop};
  kp_config *config;
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, count, &config, error), error);
  const kp_status status = kp_train(config, run, &options, error);
  kp_config_destroy(config);
  return status;
}

static kp_status resume(const char *run, kp_error *error) {
  const kp_train_options options = {.backend = kp_backend_ref(), .threads = 1, .resume = true};
  return kp_train(NULL, run, &options, error);
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* A run of the mixed family that was stopped after step 3, with one parameter spoilt. */
static void poisoned_run(fixture *files, const char *run, const char *limit, const char *tensor,
                         double value) {
  const char *const sets[] = {"model.family=mixed", "model.curvature.value=[-0.5]", "train.steps=6", limit};
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  assert_int_equal(train(files, sets, COUNT(sets), run, 3, &error), KP_ERR_INTERRUPTED);
  check_words(&error, "stopped after step 3 of 6");
  check_ok(kp_path_join(path, run, "checkpoints/step-3/model.safetensors", &error), &error);
  small_poison(path, tensor, value);
}

/* The run stops by itself, and says where the first wrong number came from. */
static void test_explanation(void **state) {
  fixture *files = *state;
  const char *run = fixture_path(files, "run");
  kp_error error = {0};
  poisoned_run(files, run, "train.skip_limit=2", "transformer.h.0.attn.c_attn.weight", (double)NAN);
  assert_int_equal(resume(run, &error), KP_ERR_NUMERIC);
  check_words(&error, "2 steps in a row were not finite, the last being step 5");
  check_words(&error, "try a smaller train.learning_rate");
  check_words(&error, "operator linear (transformer.h.0.attn) wrote nan");
  check_words(&error, "at row 0, column 0; its inputs in that row:");
  check_words(&error, "transformer.h.0.attn.c_attn.weight holds nan at row 0, column 0");
  /* Nothing of these steps was saved. */
  char names[256];
  assert_string_equal(small_listing(fixture_path(files, "run/checkpoints"), names, sizeof names), "step-3");
}

/* In a curved operator the curvature is named with its value. */
static void test_explanation_names_the_curvature(void **state) {
  fixture *files = *state;
  const char *run = fixture_path(files, "run");
  kp_error error = {0};
  poisoned_run(files, run, "train.skip_limit=2", "transformer.h.0.attn.c_proj.bias", 1e300);
  assert_int_equal(resume(run, &error), KP_ERR_NUMERIC);
  check_words(&error, "operator residual_norm");
  check_words(&error, "at row 0");
  check_words(&error, "(transformer.h.0.ln_2) wrote");
  check_words(&error, "|linear| = 1e+300,");
  check_words(&error, "curvature = -0.5");
}

/* A run that goes on says in each report why a step was skipped since the last. */
static void test_reasons_of_skipped_steps(void **state) {
  fixture *files = *state;
  const char *run = fixture_path(files, "run");
  kp_error error = {0};
  watch w = {0};
  const kp_train_options options = {
      .backend = kp_backend_ref(), .threads = 1, .resume = true, .progress = stop_after, .context = &w};
  poisoned_run(files, run, "train.skip_limit=10", "transformer.h.0.mlp.c_fc.bias", HUGE_VAL);
  check_ok(kp_train(NULL, run, &options, &error), &error);
  assert_int_equal(w.reasons, 3);
  assert_non_null(strstr(w.reason, "step 4: operator linear (transformer.h.0.mlp) wrote inf"));
  assert_non_null(strstr(w.reason, "transformer.h.0.mlp.c_fc.bias holds inf at row 0, column 0"));
}

/* A step that is skipped changes neither parameters nor moments, and is counted. */
static void test_skipped_steps_change_nothing(void **state) {
  fixture *files = *state;
  char run[KP_PATH_SIZE];
  kp_error error = {0};
  snprintf(run, sizeof run, "%s", fixture_path(files, "run"));
  poisoned_run(files, run, "train.skip_limit=10", "transformer.h.0.attn.c_attn.weight", HUGE_VAL);
  check_ok(resume(run, &error), &error);
  small_check_same(fixture_path(files, "run/checkpoints/step-3/model.safetensors"),
                   fixture_path(files, "run/checkpoints/step-6/model.safetensors"));
  small_check_same(fixture_path(files, "run/checkpoints/step-3/optimizer.safetensors"),
                   fixture_path(files, "run/checkpoints/step-6/optimizer.safetensors"));
  json_t *after = small_state(run, 6);
  assert_int_equal(json_integer_value(json_object_get(after, "skipped")), 3);
  assert_int_equal(json_integer_value(json_object_get(after, "skipped_in_a_row")), 3);
  assert_int_equal(json_integer_value(json_object_get(after, "adam_steps")), 3);
  assert_int_equal(json_integer_value(json_object_get(after, "tokens")), 6 * 4 * 8);
  json_decref(after);
  json_t *lines = small_metrics(run), *line = NULL;
  for (size_t i = 0; i < json_array_size(lines); i++)
    if (json_object_get(json_array_get(lines, i), "loss") != NULL) line = json_array_get(lines, i);
  assert_int_equal(json_integer_value(json_object_get(line, "step")), 6);
  assert_int_equal(json_integer_value(json_object_get(line, "skipped")), 3);
  assert_true(json_is_null(json_object_get(line, "loss")));
  json_decref(lines);
}

/* With a rate at which nothing can be learned the validation loss never falls again. */
static void test_early_stop(void **state) {
  fixture *files = *state;
  char run[KP_PATH_SIZE];
  kp_error error = {0};
  const char *const sets[] = {"train.learning_rate=10",     "train.schedule=constant", "train.warmup=0",
                              "train.steps=1000",           "train.evaluate_every=1",  "train.patience=3",
                              "train.checkpoint_every=1000"};
  snprintf(run, sizeof run, "%s", fixture_path(files, "run"));
  check_ok(train(files, sets, COUNT(sets), run, 0, &error), &error);
  json_t *lines = small_metrics(run);
  double best = HUGE_VAL;
  int64_t since = 0, last = -1;
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i), *loss = json_object_get(line, "validation_loss");
    if (loss == NULL) continue;
    assert_true(since < 3);
    since = json_number_value(loss) < best ? 0 : since + 1;
    best = fmin(best, json_number_value(loss));
    last = json_integer_value(json_object_get(line, "step"));
  }
  json_decref(lines);
  assert_int_equal(since, 3);
  assert_true(last < 1000);
  json_t *saved = small_state(run, last);
  assert_int_equal(json_integer_value(json_object_get(saved, "since_best")), 3);
  json_decref(saved);
  check_ok(resume(run, &error), &error); /* stays stopped */
  saved = small_state(run, last);
  json_decref(saved);
}

/* The newest two and the best, which the learning rate makes an early one. */
static void test_kept_checkpoints(void **state) {
  fixture *files = *state;
  char run[KP_PATH_SIZE], names[256], expected[256];
  kp_error error = {0};
  const char *const sets[] = {
      "train.learning_rate=0.1", "train.schedule=constant", "train.cooldown=0",         "train.warmup=0",
      "train.steps=40",          "train.evaluate_every=1",  "train.checkpoint_every=1", "train.keep=2"};
  snprintf(run, sizeof run, "%s", fixture_path(files, "run"));
  check_ok(train(files, sets, COUNT(sets), run, 0, &error), &error);
  json_t *saved = small_state(run, 40);
  const int64_t best = json_integer_value(json_object_get(saved, "best_step"));
  json_decref(saved);
  assert_true(best > 0 && best < 39);
  snprintf(expected, sizeof expected,
           best < 4 || best > 9 ? "step-%lld, step-39, step-40" : "step-39, step-40, step-%lld",
           (long long)best);
  assert_string_equal(small_listing(fixture_path(files, "run/checkpoints"), names, sizeof names), expected);
  int64_t found;
  check_ok(kp_checkpoint_find(run, "best", &found, &error), &error);
  assert_int_equal(found, best);
  check_ok(kp_checkpoint_find(run, "last", &found, &error), &error);
  assert_int_equal(found, 40);
  assert_int_equal(kp_checkpoint_find(run, "20", &found, &error), KP_ERR_INPUT);
  check_words(&error, "its last is step 40");
  assert_int_equal(kp_checkpoint_find(run, "39x", &found, &error), KP_ERR_INPUT);
}

static void check_keys(const json_t *line, const char *const *keys, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (json_object_get(line, keys[i]) == NULL) {
      char *text = json_dumps(line, 0);
      fail_msg("%s lacks %s", text, keys[i]);
    }
  assert_int_equal(json_object_size(line), count);
}

/* Steps 4, 8, ... and the last; evaluations at 0, 5, 10 and the last; curvature by block and head. */
static void test_metrics(void **state) {
  fixture *files = *state;
  char run[KP_PATH_SIZE];
  kp_error error = {0};
  static const char *const step_keys[] = {"step",          "loss",    "gradient_norm",
                                          "learning_rate", "step_ms", "boundary_share",
                                          "tokens_per_s",  "seconds", "skipped"};
  static const char *const evaluation_keys[] = {"step",          "tokens",   "seconds", "validation_loss",
                                                "bits_per_byte", "curvature"};
  static const int64_t steps[] = {4, 8, 10}, evaluations[] = {0, 5, 10};
  const char *const sets[] = {"model.family=mixed",
                              "model.layers=2",
                              "model.curvature.per_head=true",
                              "model.curvature.value=[-1, -0.5, 0.5, 1]",
                              "train.steps=10",
                              "train.log_every=4",
                              "train.evaluate_every=5"};
  snprintf(run, sizeof run, "%s", fixture_path(files, "run"));
  check_ok(train(files, sets, COUNT(sets), run, 0, &error), &error);
  json_t *lines = small_metrics(run);
  size_t s = 0, e = 0;
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i);
    const json_int_t step = json_integer_value(json_object_get(line, "step"));
    if (json_object_get(line, "validation_loss") == NULL) {
      check_keys(line, step_keys, COUNT(step_keys));
      assert_true(s < COUNT(steps));
      assert_int_equal(step, steps[s++]);
      continue;
    }
    check_keys(line, evaluation_keys, COUNT(evaluation_keys));
    assert_true(e < COUNT(evaluations));
    assert_int_equal(step, evaluations[e++]);
    assert_int_equal(json_integer_value(json_object_get(line, "tokens")), step * 4 * 8);
    json_t *expected = json_pack("[[f,f],[f,f]]", -1.0, -0.5, 0.5, 1.0);
    assert_true(json_equal(json_object_get(line, "curvature"), expected));
    json_decref(expected);
  }
  json_decref(lines);
  assert_int_equal(s, COUNT(steps));
  assert_int_equal(e, COUNT(evaluations));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_explanation),
      with_fixture(test_explanation_names_the_curvature),
      with_fixture(test_reasons_of_skipped_steps),
      with_fixture(test_skipped_steps_change_nothing),
      with_fixture(test_early_stop),
      with_fixture(test_kept_checkpoints),
      with_fixture(test_metrics),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
