/* Low-rank adapters, for all families and option sets of support/model_cases.c: outputs are the base's at
 * first, gradients are right, folding changes nothing; and what runs with adapters keep and leave alone. */
#include "data/fixture.h"

#include <math.h>

#include "core/random.h"
#include "core/safetensors.h"
#include "support/model_cases.h"
#include "support/small_run.h"
#include "train/lora.h"
#include "train/settings.h"
#include "train/trainer.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

enum { RANK = 3, LOGITS = MODEL_BATCH * MODEL_LENGTH * MODEL_VOCABULARY };
static const char *const targets[] = {"attention", "feed_forward"};
static const kp_lora_options adapters = {
    .rank = RANK, .alpha = 5, .targets = targets, .target_count = COUNT(targets)};

/* A model with adapters, whose other parameters are frozen in training. */
static model_run adapted_run(const model_case *c, kp_build_mode mode) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 1, .seed = 5, .poison = true};
  const kp_build build = {.mode = mode, .batch = MODEL_BATCH, .length = MODEL_LENGTH};
  const kp_learned learned = {.adapters = true};
  kp_model_options options = c->options;
  options.lora = adapters;
  model_run run = {.parameters = kp_parameters_create()};
  check_ok(kp_learned_apply(&learned, &options, run.parameters, &error), &error);
  check_ok(kp_network_create(&options, run.parameters, build, &run.network, &error), &error);
  check_ok(kp_parameters_allocate(run.parameters, kp_backend_ref(), true, &error), &error);
  model_fill_parameters(run.parameters);
  check_ok(
      kp_executor_create(run.network->graph, kp_backend_ref(), run.parameters, how, &run.executor, &error),
      &error);
  model_run_write(&run, -1);
  return run;
}

static double *values_of(const model_run *run, const kp_parameter *p) {
  return (double *)run->parameters->values + p->offset;
}

/* ---- outputs ---- */

static void silence(model_run *run) {
  for (int p = 0; p < run->parameters->count; p++) {
    const kp_parameter *parameter = &run->parameters->list[p];
    if (strstr(parameter->name, ".lora_b.") == NULL) continue;
    memset(values_of(run, parameter), 0, (size_t)parameter->count * sizeof(double));
  }
}

/* The adapters as a checkpoint has them, in memory; the bytes are for the caller to free. */
static kp_safetensors *adapters_of(const model_run *run, char **bytes) {
  enum { HEADER = 1 << 16 };
  kp_error error = {0};
  kp_safetensors *file;
  uint64_t used = 0, size = 0;
  *bytes = calloc(1, HEADER + (size_t)run->parameters->total * sizeof(double));
  assert_non_null(*bytes);
  char *header = *bytes + sizeof size;
  for (int p = 0; p < run->parameters->count; p++) {
    const kp_parameter *a = &run->parameters->list[p];
    const uint64_t count = (uint64_t)a->count * sizeof(double);
    if (!kp_is_adapter(a->name)) continue;
    used += (uint64_t)sprintf(header + used, "%s\"%s\": {\"dtype\": \"F64\", \"shape\": [",
                              used == 0 ? "{" : ", ", a->name);
    for (int d = 0; d < a->dimensions; d++)
      used += (uint64_t)sprintf(header + used, "%s%d", d == 0 ? "" : ", ", (int)a->shape[d]);
    used +=
        (uint64_t)sprintf(header + used, "], \"data_offsets\": [%d, %d]}", (int)size, (int)(size + count));
    memcpy(*bytes + HEADER + size, values_of(run, a), count);
    size += count;
  }
  used += (uint64_t)sprintf(header + used, "}");
  assert_true(used < HEADER - sizeof size);
  memset(header + used, ' ', HEADER - sizeof size - used);
  memcpy(*bytes, &(uint64_t){HEADER - sizeof size}, sizeof size);
  check_ok(kp_safetensors_parse(*bytes, HEADER + size, "adapters", &file, &error), &error);
  return file;
}

static double difference(const double *a, const double *b) {
  double worst = 0;
  for (int i = 0; i < LOGITS; i++) worst = fmax(worst, fabs(a[i] - b[i]));
  return worst;
}

/* With B = 0 every logit is the base's, bit for bit; with B as it may become they differ, and the folded
 * model has them again. */
static void test_outputs(void **state) {
  const model_case *c = *state;
  kp_error error = {0};
  char *bytes;
  model_run base = model_run_create(&c->options, kp_backend_ref(), KP_BUILD_LOGITS);
  model_run run = adapted_run(c, KP_BUILD_LOGITS);
  double *plain = model_run_logits(&base), *adapted = model_run_logits(&run);
  const double moved = difference(plain, adapted);
  kp_safetensors *file = adapters_of(&run, &bytes);
  check_ok(kp_lora_fold(file, &adapters, base.parameters, &error), &error);
  double *folded = model_run_logits(&base);
  const double apart = difference(folded, adapted);
  silence(&run);
  double *silent = model_run_logits(&run);
  if (difference(plain, silent) != 0) fail_msg("%s: silent adapters change an output", c->name);
  if (!(moved > 1e-6)) fail_msg("%s: adapters change nothing", c->name);
  if (!(apart <= 1e-12)) fail_msg("%s: folded, outputs differ by %.2e of %.2e", c->name, apart, moved);
  kp_safetensors_close(file);
  free(bytes);
  free(plain);
  free(adapted);
  free(folded);
  free(silent);
  model_run_destroy(&base);
  model_run_destroy(&run);
}

/* ---- gradients ---- */

/* A short step is rounded, a long one is not straight: which is worse hangs on the model. */
static double error_along(model_run *run, const double *start, const double *direction, double along) {
  const double rounded = fabs(along - model_run_derivative(run, start, direction, 2e-5));
  return fmin(rounded, fabs(along - model_run_derivative(run, start, direction, 2e-4)));
}

static void check_reached(const model_case *c, const kp_parameter *p, const double *gradient) {
  double largest = 0;
  for (int64_t i = 0; i < p->count; i++) largest = fmax(largest, fabs(gradient[i]));
  if (!(largest > 0)) fail_msg("%s: %s has no gradient", c->name, p->name);
}

/* All that is learned is adapters, and each has its gradient. */
static void test_gradients(void **state) {
  const model_case *c = *state;
  model_run run = adapted_run(c, KP_BUILD_TRAIN);
  const size_t learned = (size_t)run.parameters->learned, bytes = learned * sizeof(double);
  double *start = malloc(bytes), *direction = calloc(learned, sizeof *direction), along = 0, square = 0;
  const double *gradient = run.parameters->gradients;
  assert_true(start != NULL && direction != NULL);
  memcpy(start, run.parameters->values, bytes);
  model_run_all(&run);
  for (int p = 0; p < run.parameters->count; p++) {
    const kp_parameter *parameter = &run.parameters->list[p];
    const bool counts =
        !parameter->frozen && !parameter->trainable; /* a published router's counts of steps */
    if (!parameter->used || counts) continue;
    assert_true(parameter->frozen != kp_is_adapter(parameter->name));
    if (parameter->frozen) continue;
    check_reached(c, parameter, gradient + parameter->offset);
    for (int64_t i = parameter->offset; i < parameter->offset + parameter->count; i++) {
      direction[i] = kp_random_normal(9, 0, 0, (uint64_t)i);
      along += gradient[i] * direction[i];
      square += gradient[i] * gradient[i];
    }
  }
  const double error = error_along(&run, start, direction, along) / sqrt(square);
  if (!(error <= 1e-8)) fail_msg("%s: the derivative along a direction is off by %.2e", c->name, error);
  free(start);
  free(direction);
  model_run_destroy(&run);
}

/* ---- runs ---- */

typedef struct watch {
  volatile sig_atomic_t stop;
  int64_t after;
  double first_loss, last_loss;
} watch;

static void look(void *context, const kp_progress *progress) {
  watch *w = context;
  if (w->after > 0 && progress->step >= w->after) w->stop = 1;
  if (!progress->evaluated) return;
  if (progress->step == 0) w->first_loss = progress->validation_loss;
  w->last_loss = progress->validation_loss;
}

/* Goes on when there are no settings. */
static kp_status train(fixture *files, const char *run, const char *const *sets, size_t count, watch *w,
                       kp_error *error) {
  kp_config *config = NULL;
  if (sets != NULL)
    check_ok(
        kp_config_load(fixture_path(files, "small.yaml"), kp_training_schema(), sets, count, &config, error),
        error);
  const kp_train_options options = {.backend = kp_backend_ref(),
                                    .threads = 1,
                                    .resume = sets == NULL,
                                    .progress = look,
                                    .context = w,
                                    .stop = &w->stop};
  const kp_status status = kp_train(config, run, &options, error);
  kp_config_destroy(config);
  return status;
}

static kp_safetensors *open_part(const char *run, int step, const char *part) {
  kp_error error = {0};
  kp_safetensors *file;
  char path[512];
  snprintf(path, sizeof path, "%s/checkpoints/step-%d/%s.safetensors", run, step, part);
  check_ok(kp_safetensors_open(path, &file, &error), &error);
  return file;
}

/* The base is as it was, bit for bit, and has no moments; adapters are not and do. */
static void check_base(const char *base, const char *run, int last) {
  kp_safetensors *before = open_part(base, 20, "model"), *after = open_part(run, last, "model"),
                 *moments = open_part(run, last, "optimizer");
  for (size_t i = 0; i < kp_safetensors_count(after); i++) {
    const kp_safetensors_entry *b = kp_safetensors_entry_at(after, i),
                               *a = kp_safetensors_find(before, b->name);
    char moment[160];
    snprintf(moment, sizeof moment, "moment2/%s", b->name);
    assert_true(kp_is_adapter(b->name) == (kp_safetensors_find(moments, moment) != NULL));
    assert_true(kp_is_adapter(b->name) == (a == NULL));
    if (a != NULL) assert_memory_equal(a->data, b->data, a->size);
  }
  kp_safetensors_close(before);
  kp_safetensors_close(after);
  kp_safetensors_close(moments);
}

static void check_family(fixture *files, const char *family, const char *more) {
  kp_error error = {0};
  watch base = {0}, tuned = {0}, again = {0}, stopped = {.after = 7};
  char name[64], model[64], init[KP_PATH_SIZE + 32];
  snprintf(model, sizeof model, "model.family=%s", family);
  snprintf(name, sizeof name, "%s-base", family);
  const char *run = fixture_path(files, name);
  small_config(files);
  check_ok(train(files, run, (const char *const[]){model, more}, 2, &base, &error), &error);
  snprintf(init, sizeof init, "train.init=%s@20", run);
  const char *const sets[] = {init, "train.lora.rank=2", "train.learning_rate=0.01",
                              more, "train.keep=9",      "train.lora.dropout=0.1"};
  snprintf(name, sizeof name, "%s-tuned", family);
  const char *lora = fixture_path(files, name);
  check_ok(train(files, lora, sets, 6, &tuned, &error), &error);
  if (!(fabs(tuned.first_loss - base.last_loss) <= 1e-12))
    fail_msg("%s: a loss of %.15g, not the base's %.15g", family, tuned.first_loss, base.last_loss);
  assert_true(fabs(tuned.last_loss - tuned.first_loss) > 1e-3);
  check_base(run, lora, 20);
  /* Stopped and gone on with, it ends with the same bits. */
  snprintf(name, sizeof name, "%s-stopped", family);
  const char *killed = fixture_path(files, name);
  assert_int_equal(train(files, killed, sets, 6, &stopped, &error), KP_ERR_INTERRUPTED);
  watch rest = {0};
  check_ok(train(files, killed, NULL, 0, &rest, &error), &error);
  char a[512], b[512];
  snprintf(a, sizeof a, "%s/checkpoints/step-20/model.safetensors", lora);
  snprintf(b, sizeof b, "%s/checkpoints/step-20/model.safetensors", killed);
  small_check_same(a, b);
  /* What is made again in the backward pass is the same. */
  const char *const less[] = {sets[0], sets[1], sets[2], sets[3], sets[5], "train.recompute=linears"};
  snprintf(name, sizeof name, "%s-recomputed", family);
  const char *recomputed = fixture_path(files, name);
  check_ok(train(files, recomputed, less, 6, &rest, &error), &error);
  snprintf(b, sizeof b, "%s/checkpoints/step-20/model.safetensors", recomputed);
  small_check_same(a, b);
  /* Another run starts from the folded model, whose loss is that of the adapted one. */
  snprintf(init, sizeof init, "train.init=%s@20", lora);
  snprintf(name, sizeof name, "%s-again", family);
  check_ok(train(files, fixture_path(files, name), (const char *const[]){init, "train.learning_rate=1e-9"}, 2,
                 &again, &error),
           &error);
  if (!(fabs(again.first_loss - tuned.last_loss) <= 1e-10))
    fail_msg("%s: folded, a loss of %.15g, not %.15g", family, again.first_loss, tuned.last_loss);
}

static void test_runs(void **state) {
  check_family(*state, "gpt", "train.optimizer=muon");
  check_family(*state, "geometric", "train.optimizer=adamw");
  check_family(*state, "helm_d", "train.optimizer=adamw");
  check_family(*state, "deepseek", "train.optimizer=hyperball_muon");
}

static void test_what_is_refused(void **state) {
  static const char *const cases[][2] = {
      {"train.lora.targets=[embedding]", "train.lora.targets: no linear map"},
      {"train.freeze=[\"*.lora_*\"]", "leave no parameter to train"},
  };
  fixture *files = *state;
  small_config(files);
  for (size_t i = 0; i < COUNT(cases); i++) {
    kp_error error = {0};
    watch w = {0};
    const char *const sets[] = {"train.lora.rank=2", cases[i][0]}, *run = fixture_path(files, "refused");
    assert_int_equal(train(files, run, sets, 2, &w, &error), KP_ERR_INPUT);
    check_words(&error, cases[i][1]);
    assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_runs),
      with_fixture(test_what_is_refused),
  };
  return model_cases_run("outputs", test_outputs) + model_cases_run("gradients", test_gradients) +
         cmocka_run_group_tests(tests, NULL, NULL);
}
