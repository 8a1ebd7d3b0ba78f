/* Studies: plans that are read and refused, claims against invented numbers, and a tiny study end to end. */
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "core/json_text.h"
#include "data/prepare.h"
#include "near.h"
#include "picture.h"
#include "study/study.h"
#include "study/study_claims.h"
#include "study/twin.h"
#include "support/check_fails.h"
#include "synthetic.h"

/* ---- plans ---- */

static const char *write_plan(void **state, const char *text) {
  const char *path = temporary_path(state, "plan.yaml");
  temporary_write(path, text, strlen(text));
  return path;
}

static void a_plan_is_read(void **state) {
  static const char text[] = "title: A title\n"
                             "config: base.yaml\n"
                             "set: [train.steps=5]\n"
                             "seeds: [3, 7]\n"
                             "texts:\n"
                             "  one: [data.path=x]\n"
                             "  two: [data.path=y]\n"
                             "variants:\n"
                             "  flat: []\n"
                             "  curved: [model.family=mixed, \"model.curvature.value=[-0.5]\"]\n"
                             "  other: {config: /elsewhere/o.yaml, set: [train.clip=2]}\n";
  kp_error error = {0};
  kp_study_plan plan;
  char folder[KP_PATH_SIZE];
  check_ok(kp_study_plan_open(write_plan(state, text), &plan, &error), &error);
  assert_string_equal(plan.title, "A title");
  assert_string_equal(plan.config, temporary_path(state, "base.yaml"));
  assert_int_equal(kp_study_plan_runs(&plan), 12);
  assert_string_equal(plan.variants[1].sets.list[1], "model.curvature.value=[-0.5]");
  assert_string_equal(plan.variants[2].config, "/elsewhere/o.yaml");
  const kp_study_run run = kp_study_plan_run(&plan, 9); /* the second text, the second variant, seed 7 */
  assert_string_equal(run.text->name, "two");
  assert_string_equal(run.variant->name, "curved");
  assert_int_equal(run.seed, 7);
  check_ok(kp_study_run_folder(&run, "out", folder, &error), &error);
  assert_string_equal(folder, "out/runs/two/curved-7");
  kp_study_plan_close(&plan);
}

static void wrong_plans_are_refused(void **state) {
  static const struct {
    const char *text, *words;
  } cases[] = {
      {"config: a.yaml\nvariants: {}\n", "no variants"},
      {"variants: {a: []}\n", "variant a has no configuration"},
      {"config: a.yaml\nseed: [1]\nvariants: {a: []}\n", "plan.yaml:2: seed is not known"},
      {"config: a.yaml\nseeds: [1, 1]\nvariants: {a: []}\n", "a seed twice"},
      {"config: a.yaml\nseeds: [-1]\nvariants: {a: []}\n", "no whole number"},
      {"config: a.yaml\nvariants: {a: [train.steps]}\n", "not key=value"},
      {"config: a.yaml\nvariants: {a: {sets: []}}\n", "variants.a.sets is not known"},
      {"config: a.yaml\nvariants: {\"a/b\": []}\n", "letters, digits"},
      {"config: a.yaml\nvariants: 5\n", "must name each"},
      {"config: a.yaml\nset: 5\nvariants: {a: []}\n", "must be a list of settings"},
      {"config: a.yaml\nanalyze: some\nvariants: {a: []}\n", "must be a number of tokens"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    kp_study_plan plan;
    check_fails(kp_study_plan_open(write_plan(state, cases[i].text), &plan, &error), &error, KP_ERR_INPUT,
                cases[i].words);
    assert_null(plan.arena);
  }
}

/* ---- claims ---- */

static const char *seeded(void **state, const char *name, int seed, double loss, const char *const *settings,
                          const char *curvature) {
  char folder[64], text[32];
  synthetic run = {.loss = loss, .step_ms = 10, .curvature = curvature};
  size_t count = 0;
  for (; settings[count] != NULL; count++) run.settings[count] = settings[count];
  snprintf(folder, sizeof folder, "%s-%d", name, seed);
  snprintf(text, sizeof text, "train.seed=%d", seed);
  run.name = folder;
  run.settings[count] = text;
  return synthetic_run(state, &run);
}

static const kp_finding *finding_of(const kp_finding *list, int count, const char *model, kp_measure measure,
                                    kp_twin_kind twin) {
  for (int i = 0; i < count; i++)
    if (strcmp(list[i].model, model) == 0 && list[i].claim->measure == measure && list[i].claim->twin == twin)
      return &list[i];
  fail_msg("no claim about %s", model);
  return NULL;
}

static void claims_follow_from_numbers(void **state) {
  static const char *const twin[] = {"model.family=gpt", "model.token_difference=true", NULL};
  static const char *const better[] = {"model.family=mixed", "model.curvature.value=[-0.5]", NULL};
  static const char *const worse[] = {"model.family=mixed", "model.curvature.value=[-0.25]", NULL};
  static const char *const same[] = {"model.family=mixed", "model.curvature.value=[-0.1]", NULL};
  static const char *const lonely[] = {"model.family=mixed", "train.clip=7", NULL};
  static const char *const learned[] = {"model.family=mixed", "model.curvature.value=[-0.5]",
                                        "model.curvature.mode=parametric", NULL};
  static const char *const bounded[] = {"model.family=gpt", "model.token_difference=true",
                                        "model.residual=bounded", "model.curvature.value=[-0.5]", NULL};
  const char *runs[21];
  int count = 0;
  for (int seed = 1; seed <= 3; seed++) {
    const double noise = 0.001 * seed;
    runs[count++] = seeded(state, "twin", seed, 2 + noise, twin, NULL);
    runs[count++] = seeded(state, "better", seed, 1.9 - noise, better, "[[-0.5],[-0.5]]");
    runs[count++] = seeded(state, "worse", seed, 2.1 + noise, worse, NULL);
    runs[count++] = seeded(state, "same", seed, 2.0005 + noise, same, NULL);
    runs[count++] = seeded(state, "lonely", seed, 1, lonely, NULL);
    runs[count++] = seeded(state, "bounded", seed, 1.7 + noise, bounded, NULL);
    runs[count++] = seeded(state, "learned", seed, 1.8 + noise, learned, "[[-0.75],[0.5]]");
  }
  kp_error error = {0};
  kp_comparison *c;
  check_ok(kp_comparison_create(runs, 21, &c, &error), &error);
  assert_int_equal(c->row_count, 7);
  assert_string_equal(c->rows[1].name, "better");
  assert_int_equal(c->rows[6].twins[KP_TWIN_FROZEN], 1);
  assert_int_equal(c->rows[1].twins[KP_TWIN_FROZEN], -1);
  const kp_finding *list = kp_findings_of(c, &count);
  assert_int_equal(finding_of(list, count, "better", KP_FINAL_LOSS, KP_TWIN_FLAT)->outcome, KP_OUTCOME_HOLDS);
  assert_int_equal(finding_of(list, count, "worse", KP_FINAL_LOSS, KP_TWIN_FLAT)->outcome,
                   KP_OUTCOME_OPPOSITE);
  assert_int_equal(finding_of(list, count, "same", KP_FINAL_LOSS, KP_TWIN_FLAT)->outcome,
                   KP_OUTCOME_UNDECIDED);
  assert_int_equal(finding_of(list, count, "lonely", KP_FINAL_LOSS, KP_TWIN_FLAT)->outcome,
                   KP_OUTCOME_UNKNOWN);
  assert_null(finding_of(list, count, "lonely", KP_FINAL_LOSS, KP_TWIN_FLAT)->twin);
  assert_int_equal(finding_of(list, count, "learned", KP_FINAL_LOSS, KP_TWIN_FROZEN)->outcome,
                   KP_OUTCOME_HOLDS);
  assert_string_equal(finding_of(list, count, "learned", KP_FINAL_LOSS, KP_TWIN_FROZEN)->twin, "better");
  assert_int_equal(finding_of(list, count, "better", KP_FINAL_LOSS, KP_TWIN_BOUNDED)->outcome,
                   KP_OUTCOME_OPPOSITE);
  assert_int_equal(finding_of(list, count, "worse", KP_FINAL_LOSS, KP_TWIN_BOUNDED)->outcome,
                   KP_OUTCOME_UNKNOWN);
  /* The difference of 0.0005 is the same for each seed: by pairs it is one, and by Welch's test it is not. */
  const kp_comparison_row *row = &c->rows[3];
  assert_int_equal(kp_verdict_of(&row->twin_paired), KP_VERDICT_HIGHER);
  assert_int_equal(kp_verdict_of(&row->differences[KP_TWIN_FLAT][KP_FINAL_LOSS]), KP_VERDICT_SAME);
  /* Falling by 0.04 a step, the better model has the twin's 2.002 at step 97.4. */
  check_near(c->rows[1].twin_speed, 100 / 97.4, 1e-6);
  assert_true(isnan(c->rows[2].twin_speed));
  kp_comparison_destroy(c);
}

/* A random start can be frozen by the rate alone; a fixed κ of another value is another model. */
static void what_counts_as_frozen(void **state) {
  static const char *const random[] = {"model.family=mixed", "model.curvature.mode=random", NULL};
  static const char *const by_rate[] = {"model.family=mixed", "model.curvature.mode=random",
                                        "train.curvature_rate=0", NULL};
  static const char *const fixed[] = {"model.family=mixed", "model.curvature.mode=fixed", NULL};
  static const char *const other[] = {"model.family=mixed", "model.curvature.value=[-0.7]", NULL};
  static const char *const parametric[] = {"model.family=mixed", "model.curvature.mode=parametric", NULL};
  const char *const *settings[] = {random, by_rate, fixed, other, parametric};
  kp_run_record records[5];
  kp_error error = {0};
  for (int i = 0; i < 5; i++) {
    char name[16];
    snprintf(name, sizeof name, "run%d", i);
    check_ok(kp_run_record_open(seeded(state, name, 1, 2, settings[i], NULL), &records[i], &error), &error);
  }
  assert_true(kp_twin_is_frozen(&records[0], &records[1]));
  assert_false(kp_twin_is_frozen(&records[0], &records[2]));
  assert_true(kp_twin_is_frozen(&records[4], &records[2]));
  assert_false(kp_twin_is_frozen(&records[4], &records[3]));
  assert_false(kp_twin_is_frozen(&records[4], &records[0]));
  assert_false(kp_run_record_learns_curvature(&records[1]));
  for (int i = 0; i < 5; i++) kp_run_record_close(&records[i]);
}

/* ---- end to end ---- */

static void prepare(void **state) {
  char text[4000], config[1024];
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  for (size_t i = 0; i < sizeof text; i++) text[i] = "abcdefgh \n"[i * i / 7 % 10];
  temporary_write(temporary_path(state, "text"), text, sizeof text);
  const char *texts[] = {temporary_path(state, "text")};
  const kp_prepare_options options = {
      .texts = texts, .text_count = 1, .folder = temporary_path(state, "data")};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  snprintf(config, sizeof config,
           "model: {layers: 2, heads: 2, width: 8, context: 8}\ndata: {path: %s}\n"
           "train: {steps: 6, batch: 4, evaluate_every: 2, evaluate_batches: 2, log_every: 2, warmup: 0}\n",
           temporary_path(state, "data"));
  temporary_write(temporary_path(state, "base.yaml"), config, strlen(config));
}

static const char plan_text[] = "title: Tiny\nabout: A test.\nconfig: base.yaml\nseeds: [1, 2]\nanalyze: 64\n"
                                "variants:\n"
                                "  twin: [model.token_difference=true]\n"
                                "  learned: [model.family=mixed, model.curvature.mode=parametric]\n"
                                "  fixed: [model.family=mixed]\n";

typedef struct counted {
  int skipped, begun, analyzed;
} counted;

static void count_events(void *context, const kp_study_progress *p) {
  counted *c = context;
  assert_int_equal(p->count, 6);
  c->skipped += p->event == KP_STUDY_SKIPPED;
  c->begun += p->event == KP_STUDY_BEGINS;
  c->analyzed += p->event == KP_STUDY_ANALYZES;
}

static char *read_text(void **state, const char *name) {
  size_t size;
  return picture_read(temporary_path(state, name), &size);
}

static void a_study_from_plan_to_report(void **state) {
  kp_error error = {0};
  kp_study_plan plan;
  counted events = {0};
  const kp_study_options options = {.backend = kp_backend_ref(),
                                    .threads = 1,
                                    .figures = true,
                                    .progress = count_events,
                                    .context = &events};
  const char *out = temporary_path(state, "out");
  prepare(state);
  check_ok(kp_study_plan_open(write_plan(state, plan_text), &plan, &error), &error);
  check_ok(kp_study_train(&plan, out, &options, &error), &error);
  assert_true(events.begun == 6 && events.analyzed == 6 && events.skipped == 0);
  check_ok(kp_study_report(&plan, out, &options, &error), &error);
  check_png(temporary_path(state, "out/comparison/twins.png"));
  check_svg(temporary_path(state, "out/comparison/loss.svg"), "learned: mixed e3");
  char *table = read_text(state, "out/table.md");
  assert_non_null(strstr(table, "# Tiny\n"));
  assert_non_null(strstr(table, "### A model reaches a lower final validation loss than its flat twin"));
  assert_non_null(strstr(table, "Learned curvatures, all seeds together"));
  assert_non_null(strstr(table, "### Less the same with frozen curvature"));
  free(table);
  json_t *json;
  check_ok(kp_json_read_file(temporary_path(state, "out/study.json"), &json, &error), &error);
  const json_t *text = json_array_get(json_object_get(json, "texts"), 0);
  const json_t *rows = json_object_get(json_object_get(text, "comparison"), "rows");
  assert_int_equal(json_array_size(rows), 3);
  assert_int_equal(json_array_size(json_object_get(json_array_get(rows, 1), "seeds")), 2);
  assert_true(json_is_object(json_object_get(json_array_get(rows, 1), "frozen_twin")));
  assert_true(json_is_object(json_object_get(json_array_get(rows, 1), "relative_delta")));
  json_decref(json);
  /* Once more: nothing is trained again. */
  events = (counted){0};
  check_ok(kp_study_train(&plan, out, &options, &error), &error);
  assert_true(events.begun == 0 && events.analyzed == 0 && events.skipped == 6);
  kp_study_plan_close(&plan);
}

static volatile sig_atomic_t stop;

static void stop_in_the_third(void *context, const kp_study_progress *p) {
  (void)context;
  if (p->index == 2 && p->event == KP_STUDY_TRAINS && p->training->step == 2) stop = 1;
}

static void a_stopped_study_goes_on(void **state) {
  kp_error error = {0};
  kp_study_plan plan;
  counted events = {0};
  kp_study_options options = {
      .backend = kp_backend_ref(), .threads = 1, .progress = stop_in_the_third, .stop = &stop};
  const char *out = temporary_path(state, "out");
  prepare(state);
  stop = 0;
  check_ok(kp_study_plan_open(write_plan(state, plan_text), &plan, &error), &error);
  check_fails(kp_study_train(&plan, out, &options, &error), &error, KP_ERR_INTERRUPTED, "learned-1");
  options = (kp_study_options){
      .backend = kp_backend_ref(), .threads = 1, .progress = count_events, .context = &events};
  check_ok(kp_study_train(&plan, out, &options, &error), &error);
  assert_true(events.skipped == 2 && events.begun == 4);
  kp_study_plan_close(&plan);
  /* A plan that has changed does not mix with the runs of the old one. */
  const char *other = write_plan(state, "config: base.yaml\nseeds: [1, 2]\nset: [train.clip=9]\n"
                                        "variants: {twin: [model.token_difference=true]}\n");
  check_ok(kp_study_plan_open(other, &plan, &error), &error);
  options.progress = NULL;
  check_fails(kp_study_train(&plan, out, &options, &error), &error, KP_ERR_INPUT,
              "was trained with another train.clip");
  kp_study_plan_close(&plan);
}

static void mistakes_show_before_anything_is_trained(void **state) {
  kp_error error = {0};
  kp_study_plan plan;
  const kp_study_options options = {.backend = kp_backend_ref(), .threads = 1};
  prepare(state);
  const char *path = write_plan(state, "config: base.yaml\nvariants: {good: [], bad: [model.famly=mixed]}\n");
  check_ok(kp_study_plan_open(path, &plan, &error), &error);
  check_fails(kp_study_train(&plan, temporary_path(state, "out"), &options, &error), &error, KP_ERR_INPUT,
              "variant bad");
  assert_int_equal(access(temporary_path(state, "out"), F_OK), -1);
  kp_study_plan_close(&plan);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_create, temporary_remove)
  const struct CMUnitTest tests[] = {
      TEST(a_plan_is_read),
      TEST(wrong_plans_are_refused),
      TEST(claims_follow_from_numbers),
      TEST(what_counts_as_frozen),
      TEST(a_study_from_plan_to_report),
      TEST(a_stopped_study_goes_on),
      TEST(mistakes_show_before_anything_is_trained),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
