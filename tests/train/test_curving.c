/* From flat to curved: the first outputs are the flat model's, and then the curvatures leave 0. */
#include "data/fixture.h"

#include <math.h>

#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

enum { MOST = 8, TOKENS = 8 };

typedef struct watch {
  char note[512];
  double first_loss, last_loss;
} watch;

static void look(void *context, const kp_progress *progress) {
  watch *w = context;
  assert_true(isnan(progress->loss) || isfinite(progress->loss));
  assert_int_equal(progress->skipped, 0);
  if (!progress->evaluated) return;
  assert_true(isfinite(progress->validation_loss));
  if (progress->step == 0) w->first_loss = progress->validation_loss;
  w->last_loss = progress->validation_loss;
}

static void keep(void *context, const kp_transfers *transfers) {
  watch *w = context;
  for (int i = 0; i < transfers->count; i++) {
    const kp_transfer *t = &transfers->list[i];
    const bool of_heads = strstr(t->name, "sharpness") != NULL; /* from geometric to geometric it is copied */
    const bool new = strstr(t->name, "curvature") != NULL || (of_heads && t->kind == KP_TRANSFER_NEW);
    if (t->kind != (new ? KP_TRANSFER_NEW : KP_TRANSFER_COPIED)) fail_msg("%s: %d", t->name, t->kind);
  }
  snprintf(w->note, sizeof w->note, "%s", transfers->note == NULL ? "" : transfers->note);
}

/* Settings, NULL behind the last, with those of the fixture's small run. */
static void train(fixture *files, const char *run, const char *const *settings, const char *more, watch *w) {
  kp_error error = {0};
  kp_config *config;
  const char *sets[MOST + 4];
  size_t count = 0;
  while (settings[count] != NULL) {
    assert_true(count < MOST);
    sets[count] = settings[count];
    count++;
  }
  sets[count++] = "train.keep=9";
  sets[count++] = "train.learning_rate=0.02";
  if (more != NULL) sets[count++] = more;
  check_ok(
      kp_config_load(fixture_path(files, "small.yaml"), kp_training_schema(), sets, count, &config, &error),
      &error);
  const kp_train_options options = {
      .backend = kp_backend_ref(), .threads = 1, .progress = look, .initialised = keep, .context = w};
  check_ok(kp_train(config, run, &options, &error), &error);
  kp_config_destroy(config);
}

/* The logits of one row of tokens; free. */
static double *logits_of(const char *run, const char *which, int64_t *count) {
  kp_error error = {0};
  kp_trained model;
  kp_network *network;
  kp_executor *executor;
  const kp_build build = {.mode = KP_BUILD_LOGITS, .batch = 1, .length = TOKENS};
  check_ok(kp_trained_open(run, which, kp_backend_ref(), &model, &error), &error);
  check_ok(kp_network_create(&model.options, model.parameters, build, &network, &error), &error);
  check_ok(kp_executor_create(network->graph, kp_backend_ref(), model.parameters,
                              (kp_executor_options){.threads = 1}, &executor, &error),
           &error);
  const int32_t tokens[TOKENS] = {3, 1, 4, 1, 5, 9, 2, 6};
  kp_executor_write_int32(executor, network->tokens, tokens);
  kp_network_write_positions(network, executor);
  check_ok(kp_executor_run(executor, 0, network->graph->node_count, &error), &error);
  *count = kp_tensor_count(network->logits);
  double *logits = malloc((size_t)*count * sizeof *logits);
  kp_executor_read(executor, network->logits, logits);
  kp_executor_destroy(executor);
  kp_network_destroy(network);
  kp_trained_close(&model);
  return logits;
}

static double difference(const char *a, const char *a_which, const char *b, const char *b_which) {
  int64_t count, other;
  double *x = logits_of(a, a_which, &count), *y = logits_of(b, b_which, &other), worst = 0;
  assert_int_equal(count, other);
  for (int64_t i = 0; i < count; i++) worst = fmax(worst, fabs(x[i] - y[i]));
  free(x);
  free(y);
  return worst;
}

/* The largest |κ| that a run has met. */
static double last_curvature(const char *run) {
  static const char *const keys[] = {"curvature", "head_curvature"};
  json_t *lines = small_metrics(run);
  double largest = 0;
  for (size_t i = 0; i < json_array_size(lines); i++) {
    const json_t *line = json_array_get(lines, i);
    for (int k = 0; k < 2; k++) {
      const json_t *blocks = json_object_get(line, keys[k]);
      for (size_t b = 0; b < json_array_size(blocks); b++)
        for (size_t g = 0; g < json_array_size(json_array_get(blocks, b)); g++) {
          const double kappa = json_number_value(json_array_get(json_array_get(blocks, b), g));
          largest = fmax(largest, fabs(kappa));
        }
    }
  }
  json_decref(lines);
  return largest;
}

typedef struct pair {
  const char *flat[MOST], *curved[MOST];
  const char *note;
  double near; /* how far the first logits are apart at most; below 0: they are not equal */
} pair;

#define SAME "at κ = 0 the outputs are the flat model's"

static void check_pair(fixture *files, const pair *p, const char *name) {
  char base[64], run[64], init[KP_PATH_SIZE + 32];
  const char *curved[MOST + 1] = {0};
  watch flat = {0}, w = {0};
  snprintf(base, sizeof base, "%s-flat", name);
  snprintf(run, sizeof run, "%s-curved", name);
  const char *from = fixture_path(files, base), *to = fixture_path(files, run);
  train(files, from, p->flat, NULL, &flat);
  snprintf(init, sizeof init, "train.init=%s@20", from);
  curved[0] = init;
  for (size_t i = 0; p->curved[i] != NULL; i++) curved[i + 1] = p->curved[i];
  train(files, to, curved, "train.steps=10", &w);
  if (strstr(w.note, p->note) == NULL) fail_msg("%s: '%s'", name, w.note);
  const double apart = difference(from, "20", to, "0"), kappa = last_curvature(to);
  if (p->near < 0 && !(apart > 1e-6)) fail_msg("%s: the first logits are equal", name);
  if (p->near >= 0 && !(apart <= p->near)) fail_msg("%s: the first logits differ by %.2e", name, apart);
  if (p->near >= 0 && !(kappa > 1e-3)) fail_msg("%s: the curvatures stay at 0", name);
}

/* Rotary positions, shared keys, no biases, a gated feed-forward and RMSNorm come along. */
static void test_equal_at_first(void **state) {
  static const pair pairs[] = {
      {{"model.family=gpt"}, {"model.family=mixed"}, SAME, 1e-13},
      {{"model.family=gpt", "model.layers=2"},
       {"model.family=mixed", "model.layers=2", "model.curvature.per_head=true"},
       SAME,
       1e-13},
      {{"model.family=gpt"}, {"model.family=mixed", "model.wiring=e2"}, SAME, 1e-13},
      {{"model.family=gpt"}, {"model.family=mixed", "model.wiring=e1"}, SAME, 1e-13},
      {{"model.family=gpt", "model.token_difference=true"}, {"model.family=mixed"}, SAME, 1e-13},
      {{"model.family=gpt"}, {"model.attention.values=midpoint"}, SAME, 1e-13},
      {{"model.family=gpt"},
       {"model.family=geometric", "model.attention.score=dot", "model.attention.query_norm=plain",
        "model.attention.values=midpoint"},
       SAME,
       1e-13},
      {{"model.family=llama"}, {"model.family=mixed"}, SAME, 1e-13},
      {{"model.family=llama", "model.attention.kv_heads=1"},
       {"model.family=mixed", "model.attention.values=midpoint"},
       SAME,
       1e-13},
      {{"model.family=gpt", "model.attention.query_norm=unit", "train.freeze=[\"*.query_gain\"]"},
       {"model.family=geometric", "model.attention.query_norm=unit"},
       "as far as its query gains are equal",
       1e-12},
      {{"model.family=llama", "model.attention.query_norm=unit", "train.freeze=[\"*.query_gain\"]"},
       {"model.attention.score=distance_squared"},
       "as far as its query gains are equal",
       1e-12},
      {{"model.family=geometric", "model.attention.curvature.mode=fixed"},
       {"model.attention.curvature.mode=parametric"},
       "",
       1e-13},
  };
  fixture *files = *state;
  small_config(files);
  for (size_t i = 0; i < COUNT(pairs); i++) {
    char name[32];
    snprintf(name, sizeof name, "pair-%d", (int)i);
    check_pair(files, &pairs[i], name);
  }
}

/* What cannot be equal says why, and is trained all the same. */
static void test_near_at_first(void **state) {
  static const pair pairs[] = {
      {{"model.family=gpt"}, {"model.family=geometric"}, "near the flat model's but not equal", -1},
      {{"model.family=gpt"},
       {"model.family=mixed", "model.curvature.value=[-0.3]"},
       "give model.curvature.value: [0]",
       -1},
      {{"model.family=gpt"},
       {"model.family=mixed", "model.reference=previous"},
       "model.reference: origin",
       -1},
      {{"model.family=gpt"}, {"model.attention.score=distance"}, "no function of a dot product", -1},
  };
  fixture *files = *state;
  small_config(files);
  for (size_t i = 0; i < COUNT(pairs); i++) {
    char name[32];
    snprintf(name, sizeof name, "near-%d", (int)i);
    check_pair(files, &pairs[i], name);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_equal_at_first),
      with_fixture(test_near_at_first),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
