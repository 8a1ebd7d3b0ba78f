/* Comparison of invented runs: numbers, grouping, twins and warnings. */
#include <jansson.h>

#include "core/json_text.h"
#include "data/program_output.h"
#include "near.h"
#include "picture.h"
#include "study/compare.h"
#include "study/run_plot.h"
#include "support/check_fails.h"
#include "synthetic.h"

static const synthetic flat = {.name = "flat", .settings = {"model.family=gpt"}, .loss = 2.0, .step_ms = 10};
static const synthetic twin = {.name = "twin",
                               .settings = {"model.family=gpt", "model.token_difference=true"},
                               .loss = 1.75,
                               .step_ms = 20};
static const synthetic mixed = {.name = "mixed",
                                .settings = {"model.family=mixed", "model.curvature.value=[-0.5]"},
                                .loss = 1.5,
                                .step_ms = 30,
                                .curvature = "[[-0.5],[-0.5]]"};

static kp_comparison *compare(const char *const *runs, size_t count) {
  kp_error error = {0};
  kp_comparison *comparison;
  check_ok(kp_comparison_create(runs, count, &comparison, &error), &error);
  return comparison;
}

static bool warns(const kp_comparison *c, const char *words) {
  for (int i = 0; i < c->warning_count; i++)
    if (strstr(c->warnings[i], words) != NULL) return true;
  return false;
}

static void numbers_of_a_row(void **state) {
  const char *runs[] = {synthetic_run(state, &flat)};
  kp_comparison *c = compare(runs, 1);
  const kp_comparison_row *row = &c->rows[0];
  assert_int_equal(c->row_count, 1);
  assert_string_equal(row->name, "flat");
  assert_string_equal(row->model, "gpt");
  check_near(row->measures[KP_FINAL_LOSS].mean, 2.0, 1e-9);
  assert_true(isnan(row->measures[KP_FINAL_LOSS].spread));
  check_near(row->measures[KP_BEST_LOSS].mean, 2.0, 1e-9);
  check_near(row->measures[KP_BEST_STEP].mean, 100, 0);
  check_near(row->measures[KP_BITS_PER_BYTE].mean, 4.0, 1e-9);
  check_near(row->measures[KP_QUARTER_LOSS].mean, 5.0,
             1e-9); /* at step 25, between the evaluations of 20 and 30 */
  check_near(row->measures[KP_STEPS].mean, 100, 0);
  check_near(row->measures[KP_TOKENS].mean, 6400, 0);
  check_near(row->measures[KP_SECONDS].mean, 1.0, 1e-9);
  check_near(row->measures[KP_TOKENS_PER_S].mean, 6400, 1e-6);
  check_near(row->measures[KP_STEP_MS].mean, 10, 1e-9);
  check_near(row->step_ratio, 1, 1e-12);
  check_near(row->measures[KP_BOUNDARY_SHARE].mean, 0.25, 0);
  check_near(row->measures[KP_SKIPPED].mean, 3, 0);
  check_near(row->parameters, 1234567, 0);
  check_near(row->planned_bytes, 1048576, 0);
  assert_int_equal(c->key_count, 0);
  assert_int_equal(c->warning_count, 0);
  kp_comparison_destroy(c);
}

static void seeds_share_a_row(void **state) {
  synthetic a = flat, b = flat, other = flat;
  a.name = "a", a.settings[1] = "train.seed=1", a.loss = 2.0, a.step_ms = 10;
  b.name = "b", b.settings[1] = "train.seed=2", b.loss = 2.2, b.step_ms = 14;
  other.name = "other", other.settings[1] = "train.learning_rate=0.01";
  const char *runs[] = {synthetic_run(state, &a), synthetic_run(state, &other), synthetic_run(state, &b)};
  kp_comparison *c = compare(runs, 3);
  assert_int_equal(c->row_count, 2);
  assert_int_equal(c->rows[0].count, 2);
  assert_string_equal(c->rows[0].name, "a (+1)");
  check_near(c->rows[0].measures[KP_FINAL_LOSS].mean, 2.1, 1e-9);
  check_near(c->rows[0].measures[KP_FINAL_LOSS].spread, 0.1 * sqrt(2), 1e-8); /* sample standard deviation */
  assert_int_equal(c->rows[0].measures[KP_FINAL_LOSS].count, 2);
  check_near(c->rows[0].measures[KP_STEP_MS].mean, 12, 1e-9);
  assert_int_equal(c->key_count, 1);
  assert_string_equal(c->keys[0].key, "train.learning_rate");
  assert_string_equal(c->keys[0].values[1], "0.01");
  assert_false(warns(c, "one seed"));
  kp_comparison_destroy(c);
}

static void the_same_seed_twice_is_one_sample(void **state) {
  synthetic again = flat;
  again.name = "again";
  const char *runs[] = {synthetic_run(state, &flat), synthetic_run(state, &again)};
  kp_comparison *c = compare(runs, 2);
  assert_int_equal(c->row_count, 1);
  assert_true(warns(c, "the same seed"));
  kp_comparison_destroy(c);
}

static void the_fair_twin_is_found(void **state) {
  const char *runs[] = {synthetic_run(state, &flat), synthetic_run(state, &mixed),
                        synthetic_run(state, &twin)};
  kp_comparison *c = compare(runs, 3);
  const kp_comparison_row *row = &c->rows[1];
  assert_string_equal(row->model, "mixed e3 κ=-0.5");
  assert_string_equal(c->rows[2].model, "gpt token difference");
  assert_int_equal(row->twins[KP_TWIN_FLAT], 2);
  assert_int_equal(c->rows[0].twins[KP_TWIN_FLAT], -1);
  check_near(row->differences[KP_TWIN_FLAT][KP_FINAL_LOSS].value, -0.25, 1e-9);
  check_near(row->differences[KP_TWIN_FLAT][KP_QUARTER_LOSS].value, -0.25, 1e-9);
  assert_true(isnan(row->differences[KP_TWIN_FLAT][KP_FINAL_LOSS].error));
  check_near(row->step_ratio, 1.5, 1e-9);     /* to the twin */
  check_near(c->rows[2].step_ratio, 2, 1e-9); /* to the first */
  assert_false(warns(c, "twin"));
  assert_true(warns(c, "one seed"));
  kp_comparison_destroy(c);
}

static void the_twins_error_comes_from_both_spreads(void **state) {
  synthetic m1 = mixed, m2 = mixed, t1 = twin, t2 = twin;
  m1.name = "m1", m1.settings[2] = "train.seed=1", m1.loss = 1.4;
  m2.name = "m2", m2.settings[2] = "train.seed=2", m2.loss = 1.6;
  t1.name = "t1", t1.settings[2] = "train.seed=1", t1.loss = 1.5;
  t2.name = "t2", t2.settings[2] = "train.seed=2", t2.loss = 2.0;
  const char *runs[] = {synthetic_run(state, &m1), synthetic_run(state, &m2), synthetic_run(state, &t1),
                        synthetic_run(state, &t2)};
  kp_comparison *c = compare(runs, 4);
  assert_int_equal(c->rows[0].twins[KP_TWIN_FLAT], 1);
  check_near(c->rows[0].differences[KP_TWIN_FLAT][KP_FINAL_LOSS].value, -0.25, 1e-9);
  check_near(c->rows[0].differences[KP_TWIN_FLAT][KP_FINAL_LOSS].error, sqrt(0.02 / 2 + 0.125 / 2), 1e-8);
  kp_comparison_destroy(c);
}

static void a_missing_twin_is_warned_of(void **state) {
  const char *alone[] = {synthetic_run(state, &mixed)};
  kp_comparison *c = compare(alone, 1);
  assert_true(warns(c, "no flat model stands beside it"));
  assert_true(warns(c, "--set model.family=gpt --set model.token_difference=true"));
  kp_comparison_destroy(c);
  const char *unfair[] = {alone[0], synthetic_run(state, &flat)};
  c = compare(unfair, 2);
  assert_int_equal(c->rows[0].twins[KP_TWIN_FLAT], -1);
  assert_true(warns(c, "no fair flat twin here: flat, the nearest, also differs in model.token_difference"));
  kp_comparison_destroy(c);
  synthetic faster = twin;
  faster.name = "faster", faster.settings[2] = "train.learning_rate=0.02";
  const char *other_rate[] = {alone[0], synthetic_run(state, &faster)};
  c = compare(other_rate, 2);
  assert_true(warns(c, "also differs in train.learning_rate"));
  kp_comparison_destroy(c);
}

/* With the origin as reference no token difference is left, and the published block has no output map. */
static void twins_of_other_references(void **state) {
  synthetic origin = mixed, upstream = mixed, bare = twin;
  origin.name = "origin", origin.settings[2] = "model.reference=origin";
  upstream.name = "upstream", upstream.settings[2] = "model.variant=upstream";
  bare.name = "bare", bare.settings[2] = "model.attention.output_projection=false";
  bare.settings[3] = "train.keep=7";
  const char *runs[] = {synthetic_run(state, &origin), synthetic_run(state, &upstream),
                        synthetic_run(state, &flat), synthetic_run(state, &bare)};
  kp_comparison *c = compare(runs, 4);
  assert_string_equal(c->rows[0].model, "mixed e3 origin κ=-0.5");
  assert_string_equal(c->rows[1].model, "mixed upstream κ=-0.5");
  assert_int_equal(c->rows[0].twins[KP_TWIN_FLAT], 2);
  assert_int_equal(c->rows[1].twins[KP_TWIN_FLAT], 3);
  kp_comparison_destroy(c);
}

static void different_data_and_training_are_warned_of(void **state) {
  synthetic data = flat, longer = flat, batch = flat, anew = flat, unfinished = flat;
  data.name = "data", data.settings[1] = "data.path=other/data";
  longer.name = "longer", longer.settings[1] = "train.steps=200", longer.steps = 200;
  batch.name = "batch", batch.settings[1] = "train.batch=8";
  anew.name = "anew", anew.settings[1] = "train.learning_rate=0.1", anew.training_tokens = 4999;
  unfinished.name = "unfinished", unfinished.settings[1] = "train.clip=2", unfinished.steps = 90;
  const char *first = synthetic_run(state, &flat);
  const struct {
    const synthetic *run;
    const char *words;
  } cases[] = {
      {&data, "data.path differs (flat has some/data, data has other/data)"},
      {&longer, "train.steps differs (flat has 100, longer has 200)"},
      {&batch, "flat learns from 64 tokens a step, batch from 128"},
      {&anew, "flat had 5000 training and 500 validation tokens, anew 4999 and 500"},
      {&unfinished, "unfinished was last evaluated at step 90 of 100"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *runs[] = {first, synthetic_run(state, cases[i].run)};
    kp_comparison *c = compare(runs, 2);
    if (!warns(c, cases[i].words)) fail_msg("no warning has '%s'", cases[i].words);
    kp_comparison_destroy(c);
  }
}

static void learned_curvature_is_described(void **state) {
  synthetic learned = mixed;
  learned.settings[2] = "model.curvature.mode=parametric";
  learned.curvature = "[[-0.25],[0.125]]";
  const char *runs[] = {synthetic_run(state, &learned)};
  kp_comparison *c = compare(runs, 1);
  assert_string_equal(c->rows[0].model, "mixed e3 κ=-0.5→[-0.25, 0.125]");
  assert_int_equal(c->runs[0].layers, 2);
  assert_int_equal(c->runs[0].groups[KP_PLACE_STREAM], 1);
  kp_comparison_destroy(c);
}

static void folders_of_one_name_are_told_apart(void **state) {
  synthetic first = flat, second = flat;
  first.name = "x/run", second.name = "y/run", second.settings[1] = "train.clip=2";
  const char *runs[] = {synthetic_run(state, &first), synthetic_run(state, &second)};
  kp_comparison *c = compare(runs, 2);
  assert_non_null(strstr(c->rows[0].name, "x/run"));
  assert_non_null(strstr(c->rows[1].name, "y/run"));
  kp_comparison_destroy(c);
}

static void broken_runs_are_refused(void **state) {
  kp_error error = {0};
  kp_comparison *c;
  const char *good = synthetic_run(state, &flat), *missing[] = {good, temporary_path(state, "nothing")};
  check_fails(kp_comparison_create(missing, 2, &c, &error), &error, KP_ERR_INPUT, "nothing is no run");
  assert_null(c);
  const char *twice[] = {good, good};
  check_fails(kp_comparison_create(twice, 2, &c, &error), &error, KP_ERR_INPUT, "given twice");
  synthetic_write(good, "metrics.jsonl", "{\"step\": 1, \"loss\": 2}\n{\"step\": oops}\n");
  check_fails(kp_comparison_create(&good, 1, &c, &error), &error, KP_ERR_INPUT, "metrics.jsonl");
  synthetic_write(good, "metrics.jsonl", "{\"step\": 1, \"loss\": 2}\n{\"loss\": 2}\n");
  check_fails(kp_comparison_create(&good, 1, &c, &error), &error, KP_ERR_INPUT, "metrics.jsonl:2");
  synthetic_write(good, "run.json", "[1, 2");
  check_fails(kp_comparison_create(&good, 1, &c, &error), &error, KP_ERR_INPUT, "run.json");
  synthetic_write(good, "config.yaml", "model: {layers: many}\n");
  check_fails(kp_comparison_create(&good, 1, &c, &error), &error, KP_ERR_INPUT, "config.yaml");
}

/* A line that is being written, a loss that is no number, and no metrics at all. */
static void unfinished_metrics_are_read(void **state) {
  const char *run = synthetic_run(state, &flat);
  synthetic_write(run, "metrics.jsonl",
                  "{\"step\":1,\"loss\":null,\"seconds\":0.5}\n{\"step\":2,\"validation_loss\":3.5,\"seco");
  kp_comparison *c = compare(&run, 1);
  assert_int_equal(c->runs[0].step_count, 1);
  assert_int_equal(c->runs[0].evaluation_count, 0);
  assert_true(isnan(c->runs[0].steps[0].loss));
  assert_true(isnan(c->rows[0].measures[KP_FINAL_LOSS].mean));
  assert_true(warns(c, "no evaluation yet"));
  kp_comparison_destroy(c);
  char path[KP_PATH_SIZE];
  kp_error error = {0};
  check_ok(kp_path_join(path, run, "metrics.jsonl", &error), &error);
  assert_int_equal(remove(path), 0);
  c = compare(&run, 1);
  assert_int_equal(c->runs[0].step_count, 0);
  kp_comparison_destroy(c);
}

static void files_are_written(void **state) {
  kp_error error = {0};
  synthetic seed = mixed;
  seed.name = "mixed_2", seed.settings[2] = "train.seed=2";
  const char *runs[] = {synthetic_run(state, &twin), synthetic_run(state, &mixed),
                        synthetic_run(state, &seed)};
  kp_comparison *c = compare(runs, 3);
  check_ok(kp_comparison_write(c, temporary_path(state, "out"), true, &error), &error);
  check_png(temporary_path(state, "out/loss.png"));
  check_svg(temporary_path(state, "out/loss.svg"), "mixed (+1): mixed e3 κ=-0.5");
  json_t *json;
  check_ok(kp_json_read_file(temporary_path(state, "out/comparison.json"), &json, &error), &error);
  const json_t *row = json_array_get(json_object_get(json, "rows"), 1);
  assert_string_equal(json_string_value(json_object_get(json_object_get(row, "twin"), "name")), "twin");
  check_near(json_number_value(json_object_get(json_object_get(row, "final_loss"), "mean")), 1.5, 1e-9);
  assert_int_equal(json_array_size(json_object_get(row, "runs")), 2);
  json_decref(json);
  kp_comparison_destroy(c);
}

static void one_run_is_drawn(void **state) {
  kp_error error = {0};
  kp_run_record run;
  check_ok(kp_run_record_open(synthetic_run(state, &mixed), &run, &error), &error);
  check_ok(kp_plot_run(&run, temporary_path(state, "out"), &error), &error);
  check_png(temporary_path(state, "out/run.png"));
  check_svg(temporary_path(state, "out/run.svg"), "curvature κ by block");
  kp_run_record_close(&run);
}

/* The command prints one JSON object and a table, and fails on a wrong run. */
static void the_command_prints(void **state) {
  kp_error error = {0};
  char *text;
  size_t size;
  const char *out = temporary_path(state, "out");
  const char *a = synthetic_run(state, &twin), *b = synthetic_run(state, &mixed);
  const char *json_words[] = {KP_PROGRAM, "compare", "--json", "--no-plot", "--out", out, a, b, NULL};
  check_ok(kp_program_output(json_words, 1 << 20, &text, &size, &error), &error);
  json_t *json = json_loadb(text, size, 0, NULL);
  assert_int_equal(json_array_size(json_object_get(json, "rows")), 2);
  json_decref(json);
  free(text);
  const char *words[] = {KP_PROGRAM, "compare", "--no-plot", "--out", out, a, b, NULL};
  check_ok(kp_program_output(words, 1 << 20, &text, &size, &error), &error);
  assert_non_null(
      strstr(text, "mixed against its flat twin, twin: final loss -0.2500; with one seed a side"));
  assert_non_null(strstr(text, "model.token_difference"));
  free(text);
  const char *wrong[] = {KP_PROGRAM, "compare", out, NULL};
  check_fails(kp_program_output(wrong, 1 << 20, &text, &size, &error), &error, KP_ERR_IO, "exit status 1");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_create, temporary_remove)
  const struct CMUnitTest tests[] = {
      TEST(numbers_of_a_row),
      TEST(seeds_share_a_row),
      TEST(the_same_seed_twice_is_one_sample),
      TEST(the_fair_twin_is_found),
      TEST(the_twins_error_comes_from_both_spreads),
      TEST(a_missing_twin_is_warned_of),
      TEST(twins_of_other_references),
      TEST(different_data_and_training_are_warned_of),
      TEST(learned_curvature_is_described),
      TEST(folders_of_one_name_are_told_apart),
      TEST(broken_runs_are_refused),
      TEST(unfinished_metrics_are_read),
      TEST(files_are_written),
      TEST(one_run_is_drawn),
      TEST(the_command_prints),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
