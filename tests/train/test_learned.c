/* Frozen parameters: which a pattern means, that they and they alone stay, and what they no longer need. */
#include "data/fixture.h"

#include "core/safetensors.h"
#include "models/name_pattern.h"
#include "support/model_cases.h"
#include "support/small_run.h"
#include "train/plan_report.h"
#include "train/trainer.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* ---- patterns ---- */

static void test_patterns(void **state) {
  (void)state;
  static const struct {
    const char *pattern, *name;
    bool matches;
  } cases[] = {
      {"embedding", "transformer.wte.weight", true},
      {"embedding", "transformer.wpe.weight", true},
      {"embedding", "lm_head.weight", false},
      {"head", "lm_head.time", true},
      {"head", "classifier.weight", true},
      {"head", "classifier.norm.weight", false},
      {"blocks", "transformer.h.11.mlp.c_fc.weight", true},
      {"blocks", "transformer.ln_f.weight", false},
      {"blocks.1", "transformer.h.1.ln_1.weight", true},
      {"blocks.1", "transformer.h.11.ln_1.weight", false},
      {"blocks.0-5", "transformer.h.5.attn.c_attn.bias", true},
      {"blocks.0-5", "transformer.h.6.attn.c_attn.bias", false},
      {"blocks.2-3.attn.*", "transformer.h.3.attn.c_proj.weight", true},
      {"blocks.2-3.attn.*", "transformer.h.3.mlp.c_proj.weight", false},
      {"blocks.2.feed_forward", "transformer.h.2.mlp.c_proj.weight", true},
      {"blocks.x", "transformer.h.2.mlp.c_proj.weight", false},
      {"blocks.2x", "transformer.h.2.mlp.c_proj.weight", false},
      {"attention", "transformer.h.0.attn.c_attn.weight", true},
      {"feed_forward", "transformer.h.0.attn.c_attn.weight", false},
      {"norms", "transformer.h.0.ln_2.bias", true},
      {"norms", "transformer.ln_f.weight", true},
      {"norms", "classifier.norm.bias", true},
      {"norms", "transformer.h.0.attn.kv_norm.weight", true},
      {"norms", "transformer.h.0.attn.c_attn.bias", false},
      {"curvature", "transformer.h.0.attn.curvature", true},
      {"curvature", "shared_curvature", true},
      {"*.bias", "transformer.h.0.attn.c_attn.bias", true},
      {"*.bias", "transformer.h.0.attn.c_attn.weight", false},
      {"transformer.h.?.ln_1.weight", "transformer.h.7.ln_1.weight", true},
      {"", "transformer.wte.weight", false},
  };
  for (size_t i = 0; i < COUNT(cases); i++)
    if (kp_name_matches(cases[i].pattern, cases[i].name) != cases[i].matches)
      fail_msg("%s: %s", cases[i].pattern, cases[i].name);
}

/* ---- gradients of every family ---- */

static model_run run_for(const kp_model_options *options, const kp_learned *learned) {
  kp_error error = {0};
  const kp_executor_options how = {.threads = 1, .seed = 5, .poison = true};
  const kp_build build = {.mode = KP_BUILD_TRAIN, .batch = MODEL_BATCH, .length = MODEL_LENGTH};
  model_run run = {.parameters = kp_parameters_create()};
  check_ok(kp_learned_apply(learned, options, run.parameters, &error), &error);
  check_ok(kp_network_create(options, run.parameters, build, &run.network, &error), &error);
  check_ok(kp_parameters_allocate(run.parameters, kp_backend_ref(), true, &error), &error);
  model_fill_parameters(run.parameters);
  check_ok(
      kp_executor_create(run.network->graph, kp_backend_ref(), run.parameters, how, &run.executor, &error),
      &error);
  model_run_write(&run, -1);
  return run;
}

/* What is left to learn has the very gradients that it has when all is learned. */
static void check_gradients(const model_case *c, const model_run *whole, const char *pattern) {
  const kp_learned learned = {.freeze = &pattern, .freeze_count = 1};
  model_run run = run_for(&c->options, &learned);
  int64_t frozen = 0;
  model_run_all(&run);
  for (int p = 0; p < run.parameters->count; p++) {
    const kp_parameter *a = &run.parameters->list[p];
    const int found = kp_parameters_find(whole->parameters, a->name);
    assert_true(found >= 0);
    const kp_parameter *b = &whole->parameters->list[found];
    if (a->frozen) {
      frozen += a->count;
      assert_true(kp_name_matches(pattern, a->name) && a->offset >= run.parameters->learned);
    } else if (memcmp((const double *)run.parameters->gradients + a->offset,
                      (const double *)whole->parameters->gradients + b->offset,
                      (size_t)a->count * sizeof(double)) != 0) {
      fail_msg("%s without %s: another gradient of %s", c->name, pattern, a->name);
    }
  }
  assert_true(frozen > 0 && run.parameters->learned < run.parameters->total);
  model_run_destroy(&run);
}

static bool occurs(const kp_parameters *parameters, const char *pattern) {
  for (int p = 0; p < parameters->count; p++)
    if (parameters->list[p].used && kp_name_matches(pattern, parameters->list[p].name)) return true;
  return false;
}

static void test_gradients(void **state) {
  static const char *const patterns[] = {"embedding", "head",     "attention",       "feed_forward", "norms",
                                         "curvature", "blocks.0", "*.c_proj.weight", "*bias"};
  const model_case *c = *state;
  static int number;
  model_run whole = run_for(&c->options, NULL);
  model_run_all(&whole);
  assert_int_equal(whole.parameters->learned, whole.parameters->total);
  for (int i = 0; i < 2; i++) {
    const char *pattern = patterns[(size_t)number++ % COUNT(patterns)];
    if (occurs(whole.parameters, pattern)) check_gradients(c, &whole, pattern);
  }
  model_run_destroy(&whole);
}

/* ---- runs ---- */

static const kp_safetensors_entry *entry(const kp_safetensors *file, const char *name) {
  const kp_safetensors_entry *found = kp_safetensors_find(file, name);
  if (found == NULL) fail_msg("%s is missing", name);
  return found;
}

/* After training, with decay, every bit of what is frozen is as it was, and all else is not. */
static void check_run(fixture *files, const char *model, const char *choice, const char *optimizer) {
  kp_error error = {0};
  kp_config *config;
  kp_safetensors *before, *after, *moments;
  static int number;
  char name[32], path[512];
  snprintf(name, sizeof name, "run-%d", number++);
  const char *run = fixture_path(files, name);
  const char *const sets[] = {model, choice, optimizer, "train.keep=9"};
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, COUNT(sets), &config, &error),
           &error);
  const kp_train_options options = {.backend = kp_backend_ref(), .threads = 1};
  check_ok(kp_train(config, run, &options, &error), &error);
  const kp_learned learned = kp_learned_read(config);
  const char *files_of[] = {"10/model", "20/model", "20/optimizer"};
  kp_safetensors **const opened[] = {&before, &after, &moments};
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/checkpoints/step-%s.safetensors", run, files_of[i]);
    check_ok(kp_safetensors_open(path, opened[i], &error), &error);
  }
  for (size_t i = 0; i < kp_safetensors_count(before); i++) {
    const kp_safetensors_entry *a = kp_safetensors_entry_at(before, i), *b = entry(after, a->name);
    const bool only = kp_name_is_among(learned.only, learned.only_count, a->name);
    const bool frozen = kp_name_is_among(learned.freeze, learned.freeze_count, a->name);
    const bool stays = frozen || (learned.only_count > 0 && !only);
    char moment[160];
    snprintf(moment, sizeof moment, "moment1/%s", a->name);
    if (stays != (memcmp(a->data, b->data, a->size) == 0)) fail_msg("%s: %s", choice, a->name);
    if (stays != (kp_safetensors_find(moments, moment) == NULL))
      fail_msg("%s: moments of %s", choice, a->name);
  }
  for (int i = 0; i < 3; i++) kp_safetensors_close(*opened[i]);
  kp_config_destroy(config);
}

static void test_what_is_frozen_stays(void **state) {
  check_run(*state, "model.family=gpt", "train.freeze=[embedding]", "train.optimizer=adamw");
  check_run(*state, "model.family=gpt", "train.freeze=[blocks.0.attn.*, norms]", "train.optimizer=adamw");
  check_run(*state, "model.family=gpt", "train.only=[feed_forward, \"*.ln_f.weight\"]",
            "train.optimizer=muon");
  check_run(*state, "model.family=ngpt", "train.freeze=[attention]", "train.optimizer=muon");
  check_run(*state, "model.family=ngpt", "train.only=[feed_forward]", "train.optimizer=adamw");
  check_run(*state, "model.family=geometric", "train.freeze=[curvature]", "train.optimizer=hyperball_adamw");
}

static void test_memory_is_less(void **state) {
  kp_error error = {0};
  kp_config *config;
  kp_plan_report *whole, *part;
  kp_engine *engine;
  const char *path = small_config(*state), *const set = "train.only=[head, norms]";
  const char *const sets[] = {set, "model.head=untied"};
  check_ok(kp_config_load(path, kp_training_schema(), sets + 1, 1, &config, &error), &error);
  check_ok(kp_plan_report_create(config, kp_backend_ref(), 1, &whole, &error), &error);
  kp_config_destroy(config);
  check_ok(kp_config_load(path, kp_training_schema(), sets, 2, &config, &error), &error);
  check_ok(kp_plan_report_create(config, kp_backend_ref(), 1, &part, &error), &error);
  const int64_t learned = part->parameters->learned;
  assert_true(learned > 0 && 2 * learned < part->parameters->total);
  assert_int_equal(part->memory.parameters, whole->memory.parameters);
  assert_int_equal(part->memory.gradients, (size_t)learned * sizeof(double));
  assert_int_equal(part->memory.moments, 2 * (size_t)learned * sizeof(double));
  assert_true(part->backward_flops < whole->backward_flops);
  check_ok(kp_engine_create_for(&part->model, &part->settings.learned, part->settings.batch, 1,
                                kp_backend_ref(), 1, &engine, &error),
           &error);
  assert_int_equal(kp_engine_memory(engine, &part->settings.optimizer).gradients, part->memory.gradients);
  kp_engine_destroy(engine);
  kp_plan_report_destroy(part);
  kp_plan_report_destroy(whole);
  kp_config_destroy(config);
}

static void test_what_is_refused(void **state) {
  static const struct {
    const char *set, *words;
  } cases[] = {{"train.freeze=[embeddings]", "train.freeze: no parameter matches \"embeddings\""},
               {"train.only=[blocks.7]", "train.only: no parameter matches \"blocks.7\""},
               {"train.freeze=[\"*\"]", "leave no parameter to train"}};
  fixture *files = *state;
  for (size_t i = 0; i < COUNT(cases); i++) {
    kp_error error = {0};
    kp_config *config;
    const char *run = fixture_path(files, "refused");
    check_ok(kp_config_load(small_config(files), kp_training_schema(), &cases[i].set, 1, &config, &error),
             &error);
    const kp_train_options options = {.backend = kp_backend_ref(), .threads = 1};
    assert_int_equal(kp_train(config, run, &options, &error), KP_ERR_INPUT);
    check_words(&error, cases[i].words);
    assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
    kp_config_destroy(config);
  }
}

/* A list of texts is the same when the resolved configuration is read again. */
static void test_lists_of_texts(void **state) {
  static const char *const given[] = {"embedding", "*.attn.*", "a \"b\", c", ""};
  (void)state;
  kp_error error = {0};
  kp_config *config, *again;
  char *text;
  size_t size, count;
  const char *const set = "train.freeze=[embedding, \"*.attn.*\", 'a \"b\", c', \"\"]";
  check_ok(kp_config_parse("{}", 2, "test", kp_training_schema(), &set, 1, &config, &error), &error);
  check_ok(kp_config_text(config, &text, &size, &error), &error);
  check_ok(kp_config_parse(text, size, "again", kp_training_schema(), NULL, 0, &again, &error), &error);
  const char *const *list = kp_config_texts(again, "train.freeze", &count);
  assert_int_equal(count, COUNT(given));
  for (size_t i = 0; i < count; i++) assert_string_equal(list[i], given[i]);
  assert_false(kp_config_is_default(again, "train.freeze"));
  assert_true(kp_config_is_default(again, "train.only"));
  assert_int_equal(kp_config_set(config, "train.freeze=embedding", &error), KP_ERR_INPUT);
  check_words(&error, "expected a list of texts");
  free(text);
  kp_config_destroy(again);
  kp_config_destroy(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_patterns),         cmocka_unit_test(test_lists_of_texts),
      with_fixture(test_what_is_frozen_stays), with_fixture(test_memory_is_less),
      with_fixture(test_what_is_refused),
  };
  return model_cases_run("gradients beside frozen parameters", test_gradients) +
         cmocka_run_group_tests(tests, NULL, NULL);
}
