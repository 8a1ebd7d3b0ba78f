/* Runs become models of transformers and come back: the same bits, the files that transformers looks for, and
 * what is refused.  That transformers computes the same is tested by tests/peers/transformers_equal.py. */
#include <jansson.h>
#include <math.h>

#include "backend/cpu/cpu.h"
#include "core/safetensors.h"
#include "infer/logits.h"
#include "interchange/export.h"
#include "interchange/import.h"
#include "support/check_fails.h"
#include "support/program.h"
#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

/* A run of one step with these settings, "key=value" with spaces between; its path. */
static const char *make_run(fixture *files, const char *name, const char *settings) {
  char words[512];
  const char *sets[16] = {"train.steps=1", "train.warmup=0"};
  size_t count = 2;
  kp_config *config;
  kp_error error = {0};
  snprintf(words, sizeof words, "%s", settings);
  for (char *rest = NULL, *word = strtok_r(words, " ", &rest); word != NULL;
       word = strtok_r(NULL, " ", &rest))
    sets[count++] = word;
  const char *path = fixture_path(files, "small.yaml"), *run = fixture_path(files, name);
  check_ok(kp_config_load(path, kp_training_schema(), sets, count, &config, &error), &error);
  check_ok(kp_train(config, run, &(kp_train_options){.backend = kp_backend_cpu(), .threads = 1}, &error),
           &error);
  kp_config_destroy(config);
  return run;
}

/* The caller frees them. */
static double *logits_of(const char *run, int64_t *count) {
  static const int32_t tokens[] = {1, 5, 2, 3, 0, 4};
  kp_trained trained;
  kp_error error = {0};
  double *logits;
  check_ok(kp_trained_open(run, "last", kp_backend_cpu(), &trained, &error), &error);
  check_ok(kp_logits(&trained, tokens, 6, 1, &logits, &error), &error);
  *count = 6 * trained.options.vocabulary;
  kp_trained_close(&trained);
  return logits;
}

static void check_same_logits(const char *a, const char *b, const char *what) {
  int64_t count, same;
  double *x = logits_of(a, &count), *y = logits_of(b, &same);
  assert_int_equal(count, same);
  for (int64_t i = 0; i < count; i++)
    if (x[i] != y[i])
      fail_msg("%s: logit %lld is %.9g, and %.9g after the way there and back", what, (long long)i, x[i],
               y[i]);
  free(x);
  free(y);
}

static json_t *json_in(fixture *files, const char *folder, const char *name) {
  char path[KP_PATH_SIZE];
  json_error_t problem;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  json_t *json = json_load_file(path, 0, &problem);
  if (json == NULL) fail_msg("%s: %s", path, problem.text);
  (void)files;
  return json;
}

static const char *text_at(const json_t *json, const char *key) {
  return json_string_value(json_object_get(json, key));
}

typedef struct journey {
  const char *settings, *model_type;
} journey;

static const journey journeys[] = {
    {"model.family=gpt", "gpt2"},
    {"model.family=gpt model.bias=false model.head=untied model.activation=silu", "gpt2"},
    {"model.family=llama", "llama"},
    {"model.family=llama model.attention.kv_heads=1 model.bias=true model.head=tied", "llama"},
    {"model.family=llama model.rotary.original_context=4 model.rotary.factor=2", "llama"},
    {"model.family=llama model.rotary.original_context=4 model.rotary.stretching=llama3 "
     "model.rotary.beta_fast=4",
     "llama"},
    {"model.family=llama model.variant=upstream", "kappa"},
    {"model.family=gpt model.token_difference=true", "kappa"},
    {"model.family=deepseek model.layers=2", "kappa"},
    {"model.family=mixed model.curvature.mode=parametric model.curvature.per_head=true", "kappa"},
    {"model.family=geometric", "kappa"},
    {"model.family=ngpt", "kappa"},
    {"model.family=helm_d model.variant=upstream", "kappa"},
    {"model.family=helm_mice model.layers=2", "kappa"},
};

/* float32 parameters and their way to file names, layouts and back change no bit. */
static void test_there_and_back(void **state) {
  fixture *files = *state;
  small_config(files);
  for (size_t i = 0; i < sizeof journeys / sizeof *journeys; i++) {
    char names[3][16];
    kp_error error = {0};
    kp_export_report report;
    kp_import_report back;
    for (int n = 0; n < 3; n++) snprintf(names[n], sizeof names[n], "%c%zu", "rmb"[n], i);
    const char *run = make_run(files, names[0], journeys[i].settings);
    const char *model = fixture_path(files, names[1]), *again = fixture_path(files, names[2]);
    const kp_export_options options = {.dtype = KP_F32, .checkpoint = "last"};
    check_ok(kp_export_hf(run, &options, model, &report, &error), &error);
    assert_string_equal(report.model_type, journeys[i].model_type);
    assert_true(report.tokenizer);
    json_t *config = json_in(files, model, "config.json");
    assert_string_equal(text_at(config, "model_type"), journeys[i].model_type);
    json_decref(config);
    check_ok(kp_import(model, &(kp_import_options){0}, again, &back, &error), &error);
    assert_string_equal(back.notes, "");
    check_same_logits(run, again, journeys[i].settings);
  }
}

/* bfloat16 keeps 8 bits, and the same ones the second time; data begins at a multiple of 256 bytes. */
static void test_narrow_types(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_export_report report;
  kp_safetensors *file;
  char path[KP_PATH_SIZE];
  size_t size;
  small_config(files);
  const char *run = make_run(files, "run", "model.family=gpt"), *model = fixture_path(files, "bf16");
  const kp_export_options options = {.dtype = KP_BF16, .checkpoint = "last"};
  check_ok(kp_export_hf(run, &options, model, &report, &error), &error);
  snprintf(path, sizeof path, "%s/model.safetensors", model);
  check_ok(kp_safetensors_open(path, &file, &error), &error);
  assert_int_equal(kp_safetensors_entry_at(file, 0)->dtype, KP_BF16);
  assert_string_equal(kp_safetensors_metadata(file, "format"), "pt");
  kp_safetensors_close(file);
  char *bytes = fixture_read(path, &size);
  uint64_t header;
  memcpy(&header, bytes, sizeof header);
  assert_int_equal((8 + header) % 256, 0);
  free(bytes);
  check_ok(kp_import(model, &(kp_import_options){0}, fixture_path(files, "first"), NULL, &error), &error);
  check_ok(
      kp_export_hf(fixture_path(files, "first"), &options, fixture_path(files, "again"), &report, &error),
      &error);
  small_check_same(path, fixture_path(files, "again/model.safetensors"));
}

/* Biases that a model lacks are zeros to GPT-2. */
static void test_zero_biases(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_export_report report;
  kp_safetensors *file;
  const kp_safetensors_entry *entry;
  double values[24];
  small_config(files);
  const char *run = make_run(files, "run", "model.family=gpt model.bias=false");
  check_ok(kp_export_hf(run, &(kp_export_options){.dtype = KP_F32, .checkpoint = "best"},
                        fixture_path(files, "model"), &report, &error),
           &error);
  check_ok(kp_safetensors_open(fixture_path(files, "model/model.safetensors"), &file, &error), &error);
  static const char *const names[] = {"transformer.h.0.attn.c_attn.bias", "transformer.ln_f.bias"};
  for (int n = 0; n < 2; n++) {
    check_ok(kp_safetensors_require(file, names[n], &entry, &error), &error);
    check_ok(kp_safetensors_read(entry, KP_F64, values, &error), &error);
    for (int64_t i = 0; i < entry->elements; i++) assert_true(values[i] == 0);
  }
  assert_null(kp_safetensors_find(file, "transformer.wte.bias"));
  assert_null(kp_safetensors_find(file, "lm_head.weight"));
  kp_safetensors_close(file);
}

static void test_files_of_a_curved_model(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_export_report report;
  size_t size;
  small_config(files);
  const char *run = make_run(files, "run", "model.family=ngpt"), *model = fixture_path(files, "model");
  check_ok(
      kp_export_hf(run, &(kp_export_options){.dtype = KP_F32, .checkpoint = "last"}, model, &report, &error),
      &error);
  json_t *config = json_in(files, model, "config.json"), *map = json_object_get(config, "auto_map");
  assert_string_equal(text_at(map, "AutoModelForCausalLM"), "modeling_kappa.KappaForCausalLM");
  assert_string_equal(text_at(json_object_get(config, "kappa"), "residual"), "lerp");
  json_decref(config);
  char *code = fixture_read(fixture_path(files, "model/modeling_kappa.py"), &size);
  assert_non_null(strstr(code, "class KappaForCausalLM"));
  free(code);
  json_t *tokenizer = json_in(files, model, "tokenizer.json");
  assert_string_equal(text_at(json_object_get(tokenizer, "model"), "type"), "WordLevel");
  json_decref(tokenizer);
  json_decref(json_in(files, model, "generation_config.json"));
  json_decref(json_in(files, model, "tokenizer_config.json"));
}

/* The first number of a file's first tensor becomes 1e6. */
static void enlarge(const char *path) {
  size_t size;
  uint64_t header;
  char *bytes = fixture_read(path, &size);
  memcpy(&header, bytes, sizeof header);
  memcpy(bytes + 8 + header, &(float){1e6f}, sizeof(float));
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  fclose(file);
  free(bytes);
}

static void test_refused(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_export_report report;
  const kp_export_options options = {.dtype = KP_F32, .checkpoint = "last"};
  small_config(files);
  const char *out = fixture_path(files, "out");
  const char *mixed = make_run(files, "mixed", "model.family=mixed model.variant=upstream");
  check_fails(kp_export_hf(mixed, &options, out, &report, &error), &error, KP_ERR_INPUT, "model.variant");
  const char *mice = make_run(files, "mice", "model.family=helm_mice model.variant=upstream model.layers=2");
  check_fails(kp_export_hf(mice, &options, out, &report, &error), &error, KP_ERR_INPUT, "model.variant");
  const char *gpt = make_run(files, "gpt", "model.family=gpt");
  check_fails(kp_export_hf(gpt, &options, mixed, &report, &error), &error, KP_ERR_INPUT, "is there already");
  check_fails(kp_export_hf(out, &options, out, &report, &error), &error, KP_ERR_INPUT, "is no run");
  enlarge(fixture_path(files, "gpt/checkpoints/step-1/model.safetensors"));
  check_fails(
      kp_export_hf(gpt, &(kp_export_options){.dtype = KP_F16, .checkpoint = "last"}, out, &report, &error),
      &error, KP_ERR_INPUT, "too large for f16");
  assert_int_equal(kp_path_kind_of(out), KP_PATH_MISSING);
}

/* ---- the commands ---- */

static void test_commands(void **state) {
  fixture *files = *state;
  program_result result;
  small_config(files);
  const char *run = make_run(files, "run", "model.family=llama"), *model = fixture_path(files, "model");
  const char *again = fixture_path(files, "again");
  RUN(&result, "export", run, "--to", "hf", "--out", model, "--dtype", "bf16");
  program_check_ok(&result);
  assert_non_null(strstr(result.output, "a llama model"));
  RUN(&result, "import", model, "--out", again, "--json");
  program_check_ok(&result);
  assert_non_null(strstr(result.output, "\"format\": \"hf\""));
  RUN(&result, "import", model, "--out", again);
  program_check_refused(&result, 1, "is there already");
  RUN(&result, "info", again, "--brief");
  program_check_ok(&result);
  RUN(&result, "eval", again);
  program_check_refused(&result, 1, "no data is named");
  RUN(&result, "sample", again, "--tokens", "4", "--prompt", "the");
  program_check_ok(&result);
  RUN(&result, "logits", again, "--tokens", "1, 2 3");
  program_check_ok(&result);
  RUN(&result, "logits", again, "--tokens", "1 999");
  program_check_refused(&result, 1, "token 1 is 999");
  RUN(&result, "logits", again, "--tokens", "1 x");
  program_check_refused(&result, 1, "no token id");
  RUN(&result, "logits", again, "--tokens", "1 1 1 1 1 1 1 1 1");
  program_check_refused(&result, 1, "context is 8");
  RUN(&result, "import", model);
  program_check_usage(&result, "--out");
  RUN(&result, "export", run, "--out", model, "--dtype", "f8");
  program_check_usage(&result, "--dtype");
  RUN(&result, "import", "--formats");
  program_check_ok(&result);
  assert_non_null(strstr(result.output, "hf"));
  program_limit_files(512);
  RUN(&result, "export", run, "--out", fixture_path(files, "full"));
  program_limit_files(0);
  assert_int_equal(result.exit_code, 1);
  assert_int_equal(kp_path_kind_of(fixture_path(files, "full")), KP_PATH_MISSING);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_there_and_back), with_fixture(test_narrow_types),
      with_fixture(test_zero_biases),    with_fixture(test_files_of_a_curved_model),
      with_fixture(test_refused),        with_fixture(test_commands),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
