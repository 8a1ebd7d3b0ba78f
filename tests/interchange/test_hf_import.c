/* Folders of transformers become runs: the logits that transformers gives, and what is refused. */
#include <jansson.h>
#include <math.h>

#include "backend/cpu/cpu.h"
#include "core/safetensors.h"
#include "data/fixture.h"
#include "infer/logits.h"
#include "interchange/hf_import.h"
#include "ops/ops.h"
#include "support/check_fails.h"

enum { MOST_TOKENS = 16 };

static const char *data_path(fixture *files, const char *name) {
  char *path = files->path[files->next++ % 32];
  snprintf(path, KP_PATH_SIZE, "%s/interchange/data/%s", KP_TEST_DIRECTORY, name);
  return path;
}

static void copy_file(fixture *files, const char *from_folder, const char *name) {
  char from[KP_PATH_SIZE], to[KP_PATH_SIZE];
  size_t size;
  snprintf(from, sizeof from, "%s/%s", from_folder, name);
  snprintf(to, sizeof to, "model/%s", name);
  char *bytes = fixture_read(from, &size);
  fixture_write(files, to, bytes, size);
  free(bytes);
}

/* A copy of a model's folder in which one text of config.json, `from`, is another; its path. */
static const char *changed_model(fixture *files, const char *model, const char *from, const char *to) {
  const char *source = data_path(files, model);
  kp_directory_listing listing;
  kp_error error = {0};
  size_t size;
  check_ok(kp_directory_remove_tree(fixture_path(files, "model"), &error), &error);
  check_ok(kp_directory_create(fixture_path(files, "model"), &error), &error);
  check_ok(kp_directory_list(source, &listing, &error), &error);
  for (size_t i = 0; i < listing.count; i++) copy_file(files, source, listing.names[i]);
  kp_directory_listing_clear(&listing);
  char *text = fixture_read(fixture_path(files, "model/config.json"), &size), *at = strstr(text, from);
  if (at == NULL) fail_msg("config.json has no '%s'", from);
  char *changed = malloc(size + strlen(to) + 1);
  assert_non_null(changed);
  const int length = sprintf(changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fixture_write(files, "model/config.json", changed, (size_t)length);
  free(changed);
  free(text);
  return fixture_path(files, "model");
}

/* ---- logits ---- */

static void check_logits(fixture *files, const char *model, const char *run) {
  char path[KP_PATH_SIZE];
  kp_trained trained;
  kp_error error = {0};
  json_error_t problem;
  int32_t tokens[MOST_TOKENS];
  double *logits;
  snprintf(path, sizeof path, "%s/logits.json", data_path(files, model));
  json_t *golden = json_load_file(path, 0, &problem);
  assert_non_null(golden);
  json_t *ids = json_object_get(golden, "tokens"), *rows = json_object_get(golden, "logits");
  const size_t count = json_array_size(ids), columns = json_array_size(json_array_get(rows, 0));
  for (size_t i = 0; i < count; i++) tokens[i] = (int32_t)json_integer_value(json_array_get(ids, i));
  check_ok(kp_trained_open(run, "best", kp_backend_ref(), &trained, &error), &error);
  assert_int_equal(trained.options.vocabulary, columns);
  check_ok(kp_logits(&trained, tokens, (int64_t)count, 1, &logits, &error), &error);
  for (size_t r = 0; r < count; r++)
    for (size_t c = 0; c < columns; c++) {
      const double expected = json_number_value(json_array_get(json_array_get(rows, r), c));
      const double got = logits[r * columns + c];
      /* The norms and angles of transformers are float32. */
      if (!(fabs(got - expected) < 2e-6))
        fail_msg("%s: logit (%zu, %zu) is %.9g, not %.9g", model, r, c, got, expected);
    }
  free(logits);
  json_decref(golden);
  kp_trained_close(&trained);
}

static void test_logits(void **state) {
  static const char *const models[] = {"hf_gpt2", "hf_llama"};
  fixture *files = *state;
  kp_error error = {0};
  for (int i = 0; i < 2; i++) {
    kp_import_report report;
    const char *run = fixture_path(files, models[i]);
    check_ok(kp_import(data_path(files, models[i]), &(kp_import_options){0}, run, &report, &error), &error);
    assert_string_equal(report.format, "hf");
    assert_non_null(strstr(report.notes, "no tokenizer"));
    assert_null(strstr(report.notes, "passed over"));
    check_logits(files, models[i], run);
  }
}

/* A base model's tensors have no prefix; a stored mask means nothing; a table of positions may be cut. */
static void test_base_model(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_safetensors *file;
  kp_safetensors_writer *writer;
  const char *folder = changed_model(files, "hf_gpt2", "\"gpt2\"", "\"gpt2\", \"new_key\": 1");
  char path[KP_PATH_SIZE];
  snprintf(path, sizeof path, "%s/model.safetensors", data_path(files, "hf_gpt2"));
  check_ok(kp_safetensors_open(path, &file, &error), &error);
  check_ok(kp_safetensors_writer_create(fixture_path(files, "model/model.safetensors"), &writer, &error),
           &error);
  for (size_t i = 0; i < kp_safetensors_count(file); i++) {
    const kp_safetensors_entry *e = kp_safetensors_entry_at(file, i);
    check_ok(kp_safetensors_writer_declare(writer, e->name + strlen("transformer."), e->dtype, e->rank,
                                           e->shape, &error),
             &error);
  }
  const int64_t one = 1;
  check_ok(kp_safetensors_writer_declare(writer, "h.0.attn.masked_bias", KP_F32, 1, &one, &error), &error);
  for (size_t i = 0; i < kp_safetensors_count(file); i++) {
    const kp_safetensors_entry *e = kp_safetensors_entry_at(file, i);
    check_ok(kp_safetensors_writer_write(writer, e->name + strlen("transformer."), e->data, e->size, &error),
             &error);
  }
  check_ok(
      kp_safetensors_writer_write(writer, "h.0.attn.masked_bias", &(float){-1e4f}, sizeof(float), &error),
      &error);
  check_ok(kp_safetensors_writer_commit(writer, &error), &error);
  kp_safetensors_writer_destroy(writer);
  kp_safetensors_close(file);
  const char *const sets[] = {"model.context=9"};
  kp_import_report report;
  check_ok(kp_import(folder, &(kp_import_options){.sets = sets, .set_count = 1}, fixture_path(files, "run"),
                     &report, &error),
           &error);
  assert_non_null(strstr(report.notes, "passed over: new_key"));
  check_logits(files, "hf_gpt2", fixture_path(files, "run"));
}

/* ---- refusals ---- */

typedef struct refusal {
  const char *model, *from, *to, *words;
} refusal;

static const refusal refusals[] = {
    {"hf_gpt2", "\"gpt2\"", "\"bert\"", "\"model_type\" is \"bert\": kappa reads gpt2, llama"},
    {"hf_gpt2", "\"gelu_new\"", "\"relu\"", "\"activation_function\" is \"relu\""},
    {"hf_gpt2", "\"n_layer\": 2", "\"n_layer\": 3", "h.2."},
    {"hf_gpt2", "\"n_layer\": 2", "\"n_layer\": 1", "has no place in a gpt model"},
    {"hf_gpt2", "\"n_layer\": 2", "\"n_layer\": \"2\"", "\"n_layer\" is \"2\": a whole number"},
    {"hf_gpt2", "\"n_layer\": 2", "\"n_layer\": -2", "\"n_layer\" is -2: a positive number"},
    {"hf_gpt2", "\"n_layer\": 2", "\"n_layer\": 99999999", "model.layers"},
    {"hf_gpt2", "\"n_embd\": 8", "\"x\": 8", "\"n_embd\" is absent"},
    {"hf_gpt2", "\"vocab_size\": 11", "\"vocab_size\": 12",
     "has the shape (11, 8), and config.json makes it (12, 8)"},
    {"hf_gpt2", "\"n_head\": 2", "\"n_head\": 3", "do not divide"},
    {"hf_gpt2", "\"scale_attn_weights\": true", "\"scale_attn_weights\": false",
     "\"scale_attn_weights\" is false"},
    {"hf_gpt2", "\"scale_attn_by_inverse_layer_idx\": false", "\"scale_attn_by_inverse_layer_idx\": true",
     "\"scale_attn_by_inverse_layer_idx\" is true"},
    {"hf_gpt2", "\"add_cross_attention\": false", "\"add_cross_attention\": true",
     "\"add_cross_attention\" is true"},
    {"hf_gpt2", "{", "[", "config.json"},
    {"hf_gpt2", "\"n_head\": 2", "\"n_head\": 2, \"n_head\": 4", "n_head"},
    {"hf_llama", "\"llama3\"", "\"longrope\"", "rope_parameters: \"rope_type\" is \"longrope\""},
    {"hf_llama", "\"llama3\"", "\"yarn\"", "kappa does not know high_freq_factor, low_freq_factor"},
    {"hf_llama", "\"rope_parameters\": {", "\"rope_parameters\": 3, \"y\": {", "no JSON object"},
    {"hf_llama", "\"factor\": 8.0", "\"factor\": 0.5", "\"factor\" is 0.5"},
    {"hf_llama", "\"high_freq_factor\": 4.0", "\"high_freq_factor\": 0.5", "model.rotary.beta_fast"},
    {"hf_llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "do not divide"},
    {"hf_llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0", "\"num_key_value_heads\" is 0"},
    {"hf_llama", "\"head_dim\": 4", "\"head_dim\": -4", "\"head_dim\" is -4"},
    {"hf_llama", "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": true", "\"rms_norm_eps\" is true"},
    {"hf_llama", "\"llama\"", "\"mistral\", \"sliding_window\": 4", "\"sliding_window\" is 4"},
    {"hf_llama", "\"llama\"", "\"qwen2\", \"layer_types\": [\"sliding_attention\"]", "\"layer_types\" is"},
    {"hf_llama", "\"llama\"", "\"kappa\"", "\"kappa\" is absent"},
    {"hf_llama", "\"llama\"", "\"kappa\", \"kappa\": {\"layer\": 1}", "layer"},
};

/* Each names file, key and value, and leaves no run behind. */
static void test_refused_configs(void **state) {
  fixture *files = *state;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    const refusal *r = &refusals[i];
    kp_error error = {0};
    const char *folder = changed_model(files, r->model, r->from, r->to);
    if (kp_import(folder, &(kp_import_options){0}, fixture_path(files, "run"), NULL, &error) == KP_OK)
      fail_msg("%s is accepted", r->to);
    check_words(&error, r->words);
    assert_int_equal(kp_path_kind_of(fixture_path(files, "run")), KP_PATH_MISSING);
  }
}

static void replace_in_file(fixture *files, const char *name, const char *from, const char *to) {
  size_t size;
  char *text = fixture_read(fixture_path(files, name), &size), *at = strstr(text, from);
  assert_non_null(at);
  char *changed = malloc(size + strlen(to) + 1);
  assert_non_null(changed);
  const int length = sprintf(changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fixture_write(files, name, changed, (size_t)length);
  free(changed);
  free(text);
}

static void test_refused_indices(void **state) {
  static const char index[] = "model/model.safetensors.index.json";
  static const refusal list[] = {
      {"", "\"weight_map\"", "\"map\"", "weight_map"},
      {"", "\"model-00001-of-00002.safetensors\"", "\"../model.safetensors\"", "no plain file name"},
      {"", "\"model-00001-of-00002.safetensors\"", "\"gone.safetensors\"", "gone.safetensors"},
      {"", "\"model-00001-of-00002.safetensors\"", "7", "no plain file name"},
      {"", "\"lm_head.weight\"", "\"lm_head.w\"", "lm_head.w"},
  };
  fixture *files = *state;
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    kp_error error = {0};
    const char *folder = changed_model(files, "hf_llama", "\"llama\"", "\"llama\"");
    replace_in_file(files, index, list[i].from, list[i].to);
    if (kp_import(folder, &(kp_import_options){0}, fixture_path(files, "run"), NULL, &error) == KP_OK)
      fail_msg("%s is accepted", list[i].to);
    check_words(&error, list[i].words);
    assert_int_equal(kp_path_kind_of(fixture_path(files, "run")), KP_PATH_MISSING);
  }
}

static void test_refused_calls(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  const kp_import_options none = {0};
  const char *model = data_path(files, "hf_gpt2"), *run = fixture_path(files, "run");
  fixture_write(files, "file", "x", 1);
  check_fails(kp_import(model, &(kp_import_options){.format = "gguf"}, run, NULL, &error), &error,
              KP_ERR_INPUT, "no format \"gguf\"; there are: hf");
  check_fails(kp_import(fixture_path(files, "nothing"), &none, run, NULL, &error), &error, KP_ERR_INPUT,
              "no such file");
  check_fails(kp_import(model, &none, fixture_path(files, "file"), NULL, &error), &error, KP_ERR_INPUT,
              "is there already");
  check_fails(
      kp_import(model, &(kp_import_options){.tokenizer = fixture_path(files, "nothing")}, run, NULL, &error),
      &error, KP_ERR_INPUT, "nothing");
  const char *const sets[] = {"model.context=99"};
  check_fails(kp_import(model, &(kp_import_options){.sets = sets, .set_count = 1}, run, NULL, &error), &error,
              KP_ERR_INPUT, "(12, 8)");
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

/* A tokenizer of more tokens than the model has is another model's; one that cannot be read is left out. */
static void test_tokenizers(void **state) {
  static const char large[] =
      "{\"type\": \"character\", \"characters\": "
      "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\", \"j\", \"k\", \"l\"]}";
  static const char small[] = "{\"type\": \"character\", \"characters\": [\"a\", \"b\"]}";
  fixture *files = *state;
  kp_error error = {0};
  kp_import_report report;
  const char *folder = changed_model(files, "hf_gpt2", "\"gpt2\"", "\"gpt2\"");
  fixture_write(files, "large.json", large, sizeof large - 1);
  fixture_write(files, "small.json", small, sizeof small - 1);
  fixture_write(files, "model/tokenizer.json", "{}", 2);
  check_fails(kp_import(folder, &(kp_import_options){.tokenizer = fixture_path(files, "large.json")},
                        fixture_path(files, "run"), NULL, &error),
              &error, KP_ERR_INPUT, "has 12 tokens, the model only 11");
  check_ok(kp_import(folder, &(kp_import_options){.tokenizer = fixture_path(files, "small.json")},
                     fixture_path(files, "run"), &report, &error),
           &error);
  assert_int_equal(report.vocabulary, 2);
  check_ok(kp_import(folder, &(kp_import_options){0}, fixture_path(files, "run2"), &report, &error), &error);
  assert_int_equal(report.vocabulary, 0);
  assert_non_null(strstr(report.notes, "the tokenizer was left out"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_logits),          with_fixture(test_base_model),
      with_fixture(test_refused_configs), with_fixture(test_refused_indices),
      with_fixture(test_refused_calls),   with_fixture(test_tokenizers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
