/* Analysis of models that the test trains, in double precision. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/json_text.h"
#include "data/prepare.h"
#include "near.h"
#include "picture.h"
#include "study/analyze.h"
#include "support/check_fails.h"
#include "support/temporary.h"
#include "train/settings.h"
#include "train/trainer.h"

enum { LAYERS = 2, WIDTH = 8, HEADS = 2, TOKENS = 2 * 4 * 8 }; /* tokens: of an evaluation */

static void prepare_data(void **state) {
  char text[4000];
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  for (size_t i = 0; i < sizeof text; i++) text[i] = "abcdefgh \n"[i * i / 7 % 10];
  temporary_write(temporary_path(state, "text"), text, sizeof text);
  const char *texts[] = {temporary_path(state, "text")};
  const kp_prepare_options options = {
      .texts = texts, .text_count = 1, .folder = temporary_path(state, "data")};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
}

/* Trains a model of the given settings (closed by NULL) and returns its folder. */
static const char *train(void **state, const char *name, const char *const *settings) {
  static const char base[] =
      "model: {layers: 2, heads: 2, width: 8, context: 8}\n"
      "train: {steps: 6, batch: 4, evaluate_every: 3, evaluate_batches: 2, log_every: 2, "
      "warmup: 0, learning_rate: 0.01, curvature_rate: 5}\n";
  kp_error error = {0};
  kp_config *config;
  char data[512];
  size_t count = 0;
  while (settings[count] != NULL) count++;
  prepare_data(state);
  snprintf(data, sizeof data, "data.path=%s", temporary_path(state, "data"));
  check_ok(
      kp_config_parse(base, sizeof base - 1, "base", kp_training_schema(), settings, count, &config, &error),
      &error);
  check_ok(kp_config_set(config, data, &error), &error);
  const kp_train_options options = {.backend = kp_backend_ref(), .threads = 1};
  check_ok(kp_train(config, temporary_path(state, name), &options, &error), &error);
  kp_config_destroy(config);
  return temporary_path(state, name);
}

static kp_analysis *analyze(const char *run, int64_t tokens) {
  kp_error error = {0};
  kp_analysis *analysis;
  const kp_analysis_options options = {.backend = kp_backend_ref(), .tokens = tokens, .threads = 1};
  check_ok(kp_analysis_create(run, &options, &analysis, &error), &error);
  return analysis;
}

static const kp_matrix_analysis *matrix_of(const kp_analysis *a, const char *name) {
  for (int i = 0; i < a->matrix_count; i++)
    if (strcmp(a->matrices[i].name, name) == 0) return &a->matrices[i];
  fail_msg("no matrix %s", name);
  return NULL;
}

static void a_flat_model(void **state) {
  kp_analysis *a = analyze(train(state, "run", (const char *[]){"model.family=gpt", NULL}), TOKENS);
  assert_int_equal(a->step, 6);
  assert_int_equal(a->layers, LAYERS);
  assert_int_equal(a->tokens, TOKENS);
  assert_int_equal(a->curvature[KP_PLACE_STREAM].groups, 0);
  /* The same windows as those of the run's last evaluation. */
  check_near(a->loss, a->record.evaluations[a->record.evaluation_count - 1].validation_loss, 1e-8);
  for (int i = 0; i <= LAYERS; i++) {
    const kp_stream_analysis *s = &a->streams[i];
    double variance = 0;
    for (int j = 0; j < WIDTH; j++) variance += s->eigenvalues[j];
    assert_int_equal(s->isotropy.rows, TOKENS);
    assert_true(fabs(s->isotropy.mean_cosine) <= 1);
    assert_true(s->isotropy.participation_ratio >= 1 && s->isotropy.participation_ratio <= WIDTH);
    assert_true(s->isotropy.effective_rank >= s->isotropy.participation_ratio &&
                s->isotropy.effective_rank <= WIDTH);
    assert_true(variance > 0 && variance <= 100 * s->isotropy.mean_norm * s->isotropy.mean_norm);
    assert_true(isnan(s->radius.mean) && isnan(s->radius.edge_share));
  }
  assert_int_equal(a->matrix_count, 2 + 4 * LAYERS);
  const kp_matrix_analysis *wide = matrix_of(a, "transformer.h.1.mlp.c_fc.weight");
  assert_string_equal(wide->kind, "mlp.c_fc");
  assert_int_equal(wide->layer, 1);
  assert_int_equal(wide->rows, 4 * WIDTH);
  assert_true(wide->entropy > 0 && wide->entropy < log(WIDTH));
  assert_int_equal(matrix_of(a, "transformer.wte.weight")->layer, -1);
  kp_analysis_destroy(a);
}

static void a_curved_model(void **state) {
  static const char *const settings[] = {"model.family=mixed", "model.curvature.value=[-0.5, -0.25]", NULL};
  kp_analysis *a = analyze(train(state, "run", settings), TOKENS);
  assert_int_equal(a->curvature[KP_PLACE_STREAM].groups, 1);
  const double expected[] = {-0.5, -0.25};
  for (int layer = 0; layer < LAYERS; layer++) {
    check_near(a->curvature[KP_PLACE_STREAM].end[layer], expected[layer], 1e-12);
    check_near(a->curvature[KP_PLACE_STREAM].start[layer], expected[layer], 1e-12);
  }
  /* With one κ for all channels the radius is 2√-κ times the mean length. */
  for (int i = 0; i <= LAYERS; i++)
    check_near(a->streams[i].radius.mean,
               2 * sqrt(-expected[i < LAYERS ? i : LAYERS - 1]) * a->streams[i].isotropy.mean_norm, 1e-10);
  assert_true(isnan(a->embedding_curvature));
  kp_analysis_destroy(a);
}

static void learned_curvature_of_heads_and_embedding(void **state) {
  static const char *const settings[] = {"model.family=mixed", "model.curvature.mode=parametric",
                                         "model.curvature.per_head=true", "model.curvature.embedding=true",
                                         NULL};
  kp_analysis *a = analyze(train(state, "run", settings), TOKENS);
  assert_int_equal(a->curvature[KP_PLACE_STREAM].groups, HEADS);
  const double *last = a->record.evaluations[a->record.evaluation_count - 1].curvature[KP_PLACE_STREAM];
  for (int i = 0; i < LAYERS * HEADS; i++) {
    check_near(a->curvature[KP_PLACE_STREAM].start[i], -0.1,
               1e-8); /* initial values are float32 on every backend */
    check_near(a->curvature[KP_PLACE_STREAM].end[i], last[i],
               1e-8); /* what the run wrote at its last evaluation */
    assert_true(fabs(a->curvature[KP_PLACE_STREAM].end[i] - a->curvature[KP_PLACE_STREAM].start[i]) > 1e-4);
  }
  check_near(a->embedding_start, -0.1, 1e-8);
  assert_true(fabs(a->embedding_curvature - a->embedding_start) > 1e-4);
  kp_analysis_destroy(a);
}

/* Random starts are drawn again from the seed: the analysis finds those of the run's evaluation at step 0. */
static void random_starts_are_found_again(void **state) {
  static const char *const settings[] = {"model.family=mixed", "model.curvature.mode=random",
                                         "model.curvature.per_head=true", NULL};
  kp_analysis *a = analyze(train(state, "run", settings), 8);
  const double *first = a->record.evaluations[0].curvature[KP_PLACE_STREAM];
  for (int i = 0; i < LAYERS * HEADS; i++) check_near(a->curvature[KP_PLACE_STREAM].start[i], first[i], 1e-8);
  assert_true(a->curvature[KP_PLACE_STREAM].start[0] != a->curvature[KP_PLACE_STREAM].start[1]);
  kp_analysis_destroy(a);
}

static void predicted_curvature_is_averaged(void **state) {
  static const char *const settings[] = {"model.family=mixed", "model.curvature.dynamic=true", NULL};
  kp_analysis *a = analyze(train(state, "run", settings), TOKENS);
  assert_int_equal(a->curvature[KP_PLACE_STREAM].groups, 1);
  for (int layer = 0; layer < LAYERS; layer++)
    assert_true(isfinite(a->curvature[KP_PLACE_STREAM].end[layer]));
  kp_analysis_destroy(a);
}

/* The published variant stores points of the ball, and its run can be opened again. */
static void the_upstream_variant(void **state) {
  static const char *const settings[] = {"model.family=mixed", "model.variant=upstream",
                                         "model.curvature.value=[-1]", NULL};
  kp_analysis *a = analyze(train(state, "run", settings), TOKENS);
  check_near(a->curvature[KP_PLACE_STREAM].end[0], -1, 1e-12);
  for (int i = 1; i <= LAYERS; i++) {
    assert_true(a->streams[i].isotropy.mean_norm <= 1 + 1e-6);
    assert_true(a->streams[i].radius.mean >= 2 * a->streams[i].isotropy.mean_norm);
  }
  assert_int_equal(a->matrix_count, 2 + 3 * LAYERS); /* without the maps that are kept and not applied */
  kp_analysis_destroy(a);
}

/* δ of every cloud lies in [0, 1], and the geodesic one is there for a curved stream alone. */
static void check_trees(const kp_tree_likeness *t, bool curved) {
  assert_true(t->rows.relative >= 0 && t->rows.relative <= 1);
  assert_true(t->gaussian.relative > 0 && t->gaussian.relative <= 1);
  assert_true(t->like.relative > 0 && t->like.relative <= 1);
  assert_true(t->curved == curved);
  if (curved) assert_true(t->geodesic.relative >= 0 && t->geodesic.relative <= 1);
}

/* The text has ten characters; their counts are those of the training part. */
static void embeddings_and_trees(void **state) {
  kp_analysis *a = analyze(train(state, "run", (const char *[]){"model.family=gpt", NULL}), TOKENS);
  double share = 0;
  assert_true(a->embedding.known);
  assert_int_equal(a->embedding.tokens, 3600);
  assert_int_equal(a->embedding.norms.groups, a->embedding.norms.seen);
  for (int g = 0; g < a->embedding.norms.groups; g++) share += a->embedding.norms.share[g];
  check_near(share, 1, 1e-12);
  check_trees(&a->embedding.trees, false);
  for (int i = 0; i <= LAYERS; i++) check_trees(&a->streams[i].trees, false);
  assert_int_equal(a->seam_count, 0);
  kp_analysis_destroy(a);
  a = analyze(train(state, "curved", (const char *[]){"model.family=mixed", NULL}), TOKENS);
  for (int i = 0; i <= LAYERS; i++) check_trees(&a->streams[i].trees, true);
  for (int i = 0; i < a->seam_count; i++) assert_true(a->seams[i] >= 0 && a->seams[i] <= 1);
  assert_true(a->seam_count > 0);
  kp_analysis_destroy(a);
}

/* Curvatures of attention heads, from random starts; the stream of this family is flat. */
static void curvature_of_attention_heads(void **state) {
  kp_analysis *a = analyze(train(state, "run", (const char *[]){"model.family=geometric", NULL}), TOKENS);
  const kp_curvature_analysis *heads = &a->curvature[KP_PLACE_HEADS];
  const double *first = a->record.evaluations[0].curvature[KP_PLACE_HEADS];
  const double *last = a->record.evaluations[a->record.evaluation_count - 1].curvature[KP_PLACE_HEADS];
  assert_int_equal(a->curvature[KP_PLACE_STREAM].groups, 0);
  assert_int_equal(heads->groups, HEADS);
  assert_int_equal(heads->table.heads, LAYERS * HEADS);
  for (int i = 0; i < LAYERS * HEADS; i++) {
    check_near(heads->start[i], first[i], 1e-8);
    check_near(heads->end[i], last[i], 1e-8);
  }
  kp_analysis_destroy(a);
}

/* The space coordinates of a point of the hyperboloid: sinh of its distance from the origin. */
static void a_stream_on_the_hyperboloid(void **state) {
  kp_analysis *a = analyze(train(state, "run", (const char *[]){"model.family=helm_d", NULL}), TOKENS);
  assert_true(a->embedding.known); /* its table holds points */
  for (int i = 0; i <= LAYERS; i++) {
    const double bound = asinh(a->streams[i].isotropy.mean_norm); /* asinh is concave */
    assert_true(a->streams[i].radius.mean > 0 && a->streams[i].radius.mean <= bound + 1e-12);
    check_trees(&a->streams[i].trees, true);
  }
  kp_analysis_destroy(a);
}

static void all_checkpoints(void **state) {
  static const char *const settings[] = {"model.family=gpt", "train.checkpoint_every=2", "train.keep=9",
                                         NULL};
  kp_error error = {0};
  kp_analysis *a;
  const kp_analysis_options options = {
      .backend = kp_backend_ref(), .tokens = TOKENS, .threads = 1, .over_training = true};
  check_ok(kp_analysis_create(train(state, "run", settings), &options, &a, &error), &error);
  assert_true(a->history_count >= 3);
  assert_ptr_equal(a->history[a->history_count - 1], a);
  for (int i = 1; i < a->history_count; i++) assert_true(a->history[i]->step > a->history[i - 1]->step);
  check_ok(kp_analysis_write(a, temporary_path(state, "out"), true, &error), &error);
  check_png(temporary_path(state, "out/training.png"));
  json_t *json;
  check_ok(kp_json_read_file(temporary_path(state, "out/analysis.json"), &json, &error), &error);
  assert_int_equal(json_array_size(json_object_get(json, "over_training")), a->history_count);
  json_decref(json);
  kp_analysis_destroy(a);
}

static void files_are_written(void **state) {
  kp_error error = {0};
  static const char *const settings[] = {"model.family=mixed", "model.curvature.mode=parametric", NULL};
  kp_analysis *a = analyze(train(state, "run", settings), TOKENS);
  check_ok(kp_analysis_write(a, temporary_path(state, "out"), true, &error), &error);
  static const char *const figures[] = {"isotropy", "curvature", "weights", "trees", "radii", "embedding"};
  for (int i = 0; i < 6; i++) {
    char name[64];
    snprintf(name, sizeof name, "out/%s.png", figures[i]);
    check_png(temporary_path(state, name));
    snprintf(name, sizeof name, "out/%s.svg", figures[i]);
    check_svg(temporary_path(state, name), "run: mixed e3");
  }
  json_t *json;
  check_ok(kp_json_read_file(temporary_path(state, "out/analysis.json"), &json, &error), &error);
  assert_int_equal(json_array_size(json_object_get(json, "streams")), LAYERS + 1);
  const json_t *curvature = json_object_get(json_object_get(json, "curvature"), "stream");
  const json_t *start = json_array_get(json_array_get(json_object_get(curvature, "start"), 1), 0);
  check_near(json_number_value(start), -0.1, 1e-8);
  assert_int_equal(json_array_size(json_object_get(curvature, "over_training")), 3);
  json_decref(json);
  kp_analysis_destroy(a);
}

static void what_cannot_be_analyzed_is_refused(void **state) {
  kp_error error = {0};
  kp_analysis *a;
  kp_analysis_options options = {.backend = kp_backend_ref(), .tokens = TOKENS, .threads = 1};
  const char *run = train(state, "run", (const char *[]){"model.family=gpt", NULL});
  check_fails(kp_analysis_create(temporary_path(state, "none"), &options, &a, &error), &error, KP_ERR_INPUT,
              "is no run");
  assert_null(a);
  options.checkpoint = "5";
  check_fails(kp_analysis_create(run, &options, &a, &error), &error, KP_ERR_INPUT, "no checkpoint");
  options.checkpoint = NULL;
  options.data = temporary_path(state, "no \"data\"");
  check_fails(kp_analysis_create(run, &options, &a, &error), &error, KP_ERR_INPUT, "no \"data\"");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, temporary_create, temporary_remove)
  const struct CMUnitTest tests[] = {
      TEST(a_flat_model),
      TEST(a_curved_model),
      TEST(learned_curvature_of_heads_and_embedding),
      TEST(random_starts_are_found_again),
      TEST(predicted_curvature_is_averaged),
      TEST(the_upstream_variant),
      TEST(embeddings_and_trees),
      TEST(curvature_of_attention_heads),
      TEST(a_stream_on_the_hyperboloid),
      TEST(all_checkpoints),
      TEST(files_are_written),
      TEST(what_cannot_be_analyzed_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
