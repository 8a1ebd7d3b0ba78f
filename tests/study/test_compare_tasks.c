/* The table of tasks × models, of runs whose results are written by hand. */
#include "study/synthetic.h"

#include <math.h>

#include "study/compare_tasks.h"

#define SHOT "{\"task\":\"piqa\",\"data\":\"a/piqa.jsonl\",\"shots\":0,\"questions\":100,\"chance\":0.5,"

static const kp_task_score *find(const kp_task_table *t, const char *task, const char *metric,
                                 int64_t examples) {
  for (int i = 0; i < t->score_count; i++)
    if (strcmp(t->scores[i].task, task) == 0 && strcmp(t->scores[i].metric, metric) == 0 &&
        t->scores[i].examples == examples)
      return &t->scores[i];
  fail_msg("there is no row %s, %s, %lld", task, metric, (long long)examples);
  return NULL;
}

static void check_close(double value, double expected) {
  if (!(fabs(value - expected) < 1e-12)) fail_msg("%.17g instead of %.17g", value, expected);
}

static void test_seeds_share_a_cell(void **state) {
  kp_error error = {0};
  kp_comparison *c;
  const synthetic made[] = {
      {.name = "a-1", .settings = {"train.seed=1"}, .loss = 2, .step_ms = 1},
      {.name = "a-2", .settings = {"train.seed=2"}, .loss = 2, .step_ms = 1},
      {.name = "b-1", .settings = {"train.seed=1", "model.family=mixed"}, .loss = 2, .step_ms = 1},
      {.name = "c-1", .settings = {"train.seed=1", "train.learning_rate=1e-5"}, .loss = 2, .step_ms = 1}};
  static const char *const lines[] = {
      SHOT "\"accuracy\":0.1}\n" SHOT "\"accuracy\":0.6,\"accuracy_norm\":0.7}\n" /* the last one counts */
           "{\"task\":\"language\",\"data\":\"x/"
           "text.txt\",\"tokens\":50,\"loss\":2.5,\"context\":16,\"stride\":4}\n"
           "{\"task\":\"context\",\"lengths\":[]}\n{\"other\":1}\n",
      SHOT "\"accuracy\":0.8,\"accuracy_norm\":null}\n",
      SHOT "\"accuracy\":0.4}\n{\"task\":\"piqa\",\"shots\":5,\"questions\":100,\"accuracy\":0.3}\n",
      SHOT "\"accuracy\":0.2}\n"};
  const char *runs[4];
  for (int i = 0; i < 4; i++) {
    runs[i] = synthetic_run(state, &made[i]);
    synthetic_write(runs[i], "evaluations.jsonl", lines[i]);
  }
  check_ok(kp_comparison_create(runs, 4, &c, &error), &error);
  const kp_task_table *t = c->tasks;
  assert_int_equal(t->model_count, 3); /* c is the same model, trained otherwise */
  assert_string_equal(t->models[1].name, "mixed");
  assert_string_not_equal(t->models[0].name, t->models[2].name);
  assert_int_equal(t->score_count, 4);
  const kp_task_score *piqa = find(t, "piqa, 0-shot", "accuracy", 100);
  check_close(piqa->chance, 0.5);
  assert_int_equal(piqa->models[0].count, 2);
  check_close(piqa->models[0].mean, 0.7);
  check_close(piqa->models[0].spread, sqrt(0.02));
  check_close(piqa->models[1].mean, 0.4);
  check_close(piqa->models[2].mean, 0.2);
  assert_int_equal(find(t, "piqa, 0-shot", "accuracy_norm", 100)->models[0].count, 1);
  assert_int_equal(find(t, "piqa, 5-shot", "accuracy", 100)->models[0].count, 0);
  check_close(find(t, "text.txt, windows of 16 every 4", "loss", 50)->models[0].mean, 2.5);
  json_t *json = kp_comparison_json(c);
  assert_int_equal(json_array_size(json_object_get(json, "tasks")), 4);
  json_decref(json);
  kp_comparison_destroy(c);
}

/* One model on two data sets is one column; what `kappa eval` says goes before what training said. */
static void test_tasks_share_a_column(void **state) {
  kp_error error = {0};
  kp_comparison *c;
  const synthetic made[] = {
      {.name = "x",
       .settings = {"model.task=classify", "model.classes=2", "data.path=sets/sst2"},
       .loss = 2,
       .step_ms = 1},
      {.name = "y",
       .settings = {"model.task=tag", "model.classes=5", "data.path=sets/wnut", "model.context=32"},
       .loss = 2,
       .step_ms = 1}};
  const char *runs[] = {synthetic_run(state, &made[0]), synthetic_run(state, &made[1])};
  static const char metrics[] =
      "{\"step\":0,\"tokens\":0,\"seconds\":0,\"validation_loss\":1,\"bits_per_byte\":null,"
      "\"accuracy\":0.75,\"macro_f1\":0.5}\n";
  synthetic_write(runs[0], "metrics.jsonl", metrics);
  synthetic_write(runs[1], "metrics.jsonl", metrics);
  synthetic_write(
      runs[1], "evaluations.jsonl",
      "{\"task\":\"tag\",\"data\":null,\"examples\":9,\"accuracy\":0.9,\"entity_f1\":0.25,\"loss\":1}\n");
  check_ok(kp_comparison_create(runs, 2, &c, &error), &error);
  const kp_task_table *t = c->tasks;
  assert_int_equal(t->model_count, 1);
  assert_int_equal(t->score_count, 4);
  check_close(find(t, "sst2", "accuracy", -1)->models[0].mean, 0.75);
  check_close(find(t, "sst2", "macro_f1", -1)->models[0].mean, 0.5);
  check_close(find(t, "wnut", "accuracy", 9)->models[0].mean, 0.9);
  check_close(find(t, "wnut", "entity_f1", 9)->models[0].mean, 0.25);
  kp_comparison_destroy(c);
}

static void test_broken_results_are_named(void **state) {
  kp_error error = {0};
  kp_comparison *c;
  const synthetic made = {.name = "a", .settings = {NULL}, .loss = 2, .step_ms = 1};
  const char *run = synthetic_run(state, &made);
  synthetic_write(run, "evaluations.jsonl", "{\"task\":\n{}\n");
  assert_int_equal(kp_comparison_create(&run, 1, &c, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "evaluations.jsonl"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_seeds_share_a_cell, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_tasks_share_a_column, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_broken_results_are_named, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
