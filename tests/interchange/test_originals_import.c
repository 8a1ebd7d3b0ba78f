/* Checkpoints of the original projects become runs whose logits are those of the original code: the weights
 * of the reference cases (tests/goldens), as safetensors and as files of torch.save. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "backend/cpu/cpu.h"
#include "core/safetensors.h"
#include "infer/logits.h"
#include "interchange/import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DATA    KP_TEST_DIRECTORY "/interchange/data/"
#define GOLDENS KP_TEST_DIRECTORY "/goldens/"

/* Of the largest logit, in float32. */
static const double tolerance = 5e-6;

static kp_safetensors *open_case(const char *name) {
  kp_error error = {0};
  char path[512];
  kp_safetensors *file = NULL;
  snprintf(path, sizeof path, GOLDENS "%s/tensors.safetensors", name);
  check_ok(kp_safetensors_open(path, &file, &error), &error);
  return file;
}

static double *values_of(const kp_safetensors *file, const char *name, const kp_safetensors_entry **entry) {
  kp_error error = {0};
  check_ok(kp_safetensors_require(file, name, entry, &error), &error);
  double *values = malloc((size_t)(*entry)->elements * sizeof *values + 1);
  assert_non_null(values);
  check_ok(kp_safetensors_read(*entry, KP_F64, values, &error), &error);
  return values;
}

/* Writes the case's parameters, under the names of the original project, and perhaps one number more. */
static void write_weights_and(const kp_safetensors *file, const char *path, const char *extra, double value) {
  kp_error error = {0};
  kp_safetensors_writer *writer = NULL;
  check_ok(kp_safetensors_writer_create(path, &writer, &error), &error);
  if (extra != NULL)
    check_ok(kp_safetensors_writer_declare(writer, extra, KP_F64, 1, (int64_t[]){1}, &error), &error);
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < kp_safetensors_count(file); i++) {
      const kp_safetensors_entry *e = kp_safetensors_entry_at(file, i);
      if (strncmp(e->name, "param/", 6) != 0) continue;
      if (pass == 0)
        check_ok(kp_safetensors_writer_declare(writer, e->name + 6, e->dtype, e->rank, e->shape, &error),
                 &error);
      else
        check_ok(kp_safetensors_writer_write(writer, e->name + 6, e->data, e->size, &error), &error);
    }
  if (extra != NULL)
    check_ok(kp_safetensors_writer_write(writer, extra, &value, sizeof value, &error), &error);
  check_ok(kp_safetensors_writer_commit(writer, &error), &error);
  kp_safetensors_writer_destroy(writer);
}

static void write_weights(const kp_safetensors *file, const char *path) {
  write_weights_and(file, path, NULL, 0);
}

/* Tokens of a row before its second document, of which kp_logits knows nothing. */
static int64_t first_document(const double *documents, int64_t row, int64_t length) {
  int64_t count = 1;
  if (documents == NULL) return length;
  while (count < length && documents[row * length + count] == documents[row * length]) count++;
  return count;
}

static void compare_row(const kp_trained *trained, const double *tokens, const double *want, int64_t count,
                        int64_t vocabulary, double scale) {
  kp_error error = {0};
  int32_t ids[64];
  double *got = NULL;
  assert_true(count <= 64);
  for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)tokens[i];
  check_ok(kp_logits(trained, ids, count, 1, &got, &error), &error);
  for (int64_t i = 0; i < count * vocabulary; i++)
    if (!(fabs(got[i] - want[i]) <= tolerance * scale))
      fail_msg("logit %lld is %.9g, not %.9g", (long long)i, got[i], want[i]);
  free(got);
}

/* The run's logits are the case's. */
static void compare_logits(const char *run, const kp_safetensors *file) {
  kp_error error = {0};
  kp_trained trained;
  const kp_safetensors_entry *tokens_entry, *logits_entry, *documents_entry;
  check_ok(kp_trained_open(run, "last", kp_backend_cpu(), &trained, &error), &error);
  double *tokens = values_of(file, "in/tokens", &tokens_entry);
  double *logits = values_of(file, "out/logits", &logits_entry), *documents = NULL;
  if (kp_safetensors_find(file, "in/documents") != NULL)
    documents = values_of(file, "in/documents", &documents_entry);
  const int64_t rows = tokens_entry->shape[0], length = tokens_entry->shape[1];
  const int64_t vocabulary = logits_entry->shape[2];
  double scale = 0;
  for (int64_t i = 0; i < logits_entry->elements; i++) scale = fmax(scale, fabs(logits[i]));
  for (int64_t row = 0; row < rows; row++)
    compare_row(&trained, tokens + row * length, logits + row * length * vocabulary,
                first_document(documents, row, length), vocabulary, scale);
  free(tokens);
  free(logits);
  free(documents);
  kp_trained_close(&trained);
}

static void import_and_compare(void **state, const char *path, const char *name,
                               const kp_import_options *options) {
  kp_error error = {0};
  static int number;
  char run[32];
  snprintf(run, sizeof run, "run-%d", number++);
  const char *folder = temporary_path(state, run);
  kp_safetensors *file = open_case(name);
  check_ok(kp_import(path, options, folder, NULL, &error), &error);
  compare_logits(folder, file);
  kp_safetensors_close(file);
}

typedef struct import_case {
  const char *name, *format;
  const char *sets[3];
} import_case;

static void import_cases(void **state, const import_case *cases, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const import_case *c = &cases[i];
    kp_import_options options = {.format = c->format, .sets = c->sets};
    while (options.set_count < 3 && c->sets[options.set_count] != NULL) options.set_count++;
    const char *path = temporary_path(state, "weights.safetensors");
    kp_safetensors *file = open_case(c->name);
    write_weights(file, path);
    kp_safetensors_close(file);
    import_and_compare(state, path, c->name, &options);
  }
}

static void test_mixed(void **state) {
  static const import_case cases[] = {
      {"mixed/random_perhead", NULL, {NULL}},
      {"mixed/random_perhead_nobias", NULL, {NULL}},
      {"mixed/random_perhead_emb", NULL, {NULL}},
      {"mixed/random_scalar", NULL, {"model.heads=2"}},
      {"mixed/parametric", NULL, {"model.heads=2"}},
      {"mixed/tied_scalar", NULL, {"model.heads=2"}},
      {"mixed/tied_perhead_emb", NULL, {NULL}},
      {"mixed/dynamic_perhead", NULL, {NULL}},
      {"mixed/dynamic_perhead_emb_default", NULL, {NULL}},
      {"mixed/fixed_c0p1", "mixed", {"model.heads=2", "model.curvature.value=[-0.1]"}},
      {"mixed/fixed_c0p1_emb", NULL, {"model.heads=2", "model.curvature.value=[-0.1]"}},
      {"mixed/baseline", "nanogpt", {"model.heads=2"}},
  };
  import_cases(state, cases, sizeof cases / sizeof *cases);
}

static void test_ngpt(void **state) {
  static const import_case cases[] = {
      {"ngpt/ngpt_upstream_rope", NULL, {"model.heads=2", "model.context=16"}},
      {"ngpt/ngpt_bias", NULL, {"model.heads=2", "model.context=16", "model.variant=exact"}},
      {"ngpt/gpt_upstream_rope", NULL, {"model.heads=2", "model.context=16"}},
  };
  import_cases(state, cases, sizeof cases / sizeof *cases);
}

static void test_helm(void **state) {
  static const import_case cases[] = {
      {"helm/helm_d_L2_W52_A4", NULL, {"model.context=24"}},
      {"helm/helm_mice_A", NULL, {"model.context=24"}},
      {"helm/helm_mice_B_curv", NULL, {"model.context=24"}},
  };
  import_cases(state, cases, sizeof cases / sizeof *cases);
}

/* Checkpoints say more than tensors: heads, context, step. */
static void test_checkpoints_of_torch(void **state) {
  const kp_import_options options = {0};
  kp_import_report report;
  kp_error error = {0};
  import_and_compare(state, DATA "original_mixed_random_perhead.pt", "mixed/random_perhead", &options);
  import_and_compare(state, DATA "original_mixed_baseline.pt", "mixed/baseline", &options);
  import_and_compare(state, DATA "original_ngpt_ngpt_upstream_rope.pt", "ngpt/ngpt_upstream_rope", &options);
  check_ok(
      kp_import(DATA "original_mixed_baseline.pt", &options, temporary_path(state, "run"), &report, &error),
      &error);
  assert_string_equal(report.format, "nanogpt");
  assert_string_equal(report.family, "gpt");
  assert_int_equal(report.step, 5);
}

/* The weights of a case, imported with these options, fail with these words. */
static void refuse(void **state, const char *name, const kp_import_options *options, const char *words) {
  kp_error error = {0};
  const char *path = temporary_path(state, "weights.safetensors"), *run = temporary_path(state, "refused");
  kp_safetensors *file = open_case(name);
  write_weights(file, path);
  kp_safetensors_close(file);
  check_fails(kp_import(path, options, run, NULL, &error), &error, KP_ERR_INPUT, words);
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

static void test_what_the_file_does_not_say(void **state) {
  const char *const three[] = {"model.heads=2", "model.context=16", "model.layers=3"};
  const char *const one[] = {"model.heads=2", "model.context=16", "model.layers=1"};
  const char *const heads[] = {"model.heads=2"};
  refuse(state, "ngpt/ngpt_upstream_rope", &(kp_import_options){0},
         "--set model.heads=… --set model.context=…");
  refuse(state, "ngpt/ngpt_upstream_rope", &(kp_import_options){.sets = heads, .set_count = 1},
         "give --set model.context=…");
  refuse(state, "helm/helm_mice_A", &(kp_import_options){0}, "give --set model.context=…");
  refuse(state, "mixed/fixed_c0p1", &(kp_import_options){.format = "mixed", .sets = heads, .set_count = 1},
         "give --set model.curvature.value=…");
  refuse(state, "ngpt/ngpt_upstream_rope", &(kp_import_options){.sets = three, .set_count = 3},
         "has no tensor 'transformer.h.2.query.weight'");
  refuse(state, "ngpt/ngpt_upstream_rope", &(kp_import_options){.sets = one, .set_count = 3},
         "the tensor \"transformer.h.1.att_c_proj.weight\" has no place");
  refuse(state, "mixed/baseline", &(kp_import_options){.format = "ngpt"}, "no tensor");
  refuse(state, "mixed/baseline", &(kp_import_options){.format = "helm"},
         "no tensor 'token_embed.embedding'");
}

/* What stands in files and says nothing of the model may stand there; anything else may not. */
static void test_tensors_without_meaning(void **state) {
  static const struct {
    const char *name, *extra, *words; /* NULL: fine */
    double value;
  } cases[] = {
      {"helm/helm_d_L2_W52_A4", "manifold_in.k", NULL, 1},
      {"helm/helm_d_L2_W52_A4", "resblocks.1.attn.manifold.k", NULL, 1},
      {"helm/helm_d_L2_W52_A4", "manifold_in.k", "is 2, and kappa's stream has the constant 1", 2},
      {"helm/helm_d_L2_W52_A4", "resblocks.1.attn.k", "\"resblocks.1.attn.k\" has no place", 1},
      {"mixed/baseline", "transformer.h.1.attn.bias", NULL, 0},
      {"mixed/baseline", "transformer.h.7.attn.masked", "\"transformer.h.7.attn.masked\" has no place", 0},
  };
  const char *const sets[] = {"model.context=8", "model.heads=2"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    char name[32];
    snprintf(name, sizeof name, "extra-%zu", i);
    const char *run = temporary_path(state, name), *path = temporary_path(state, "weights.safetensors");
    kp_safetensors *file = open_case(cases[i].name);
    write_weights_and(file, path, cases[i].extra, cases[i].value);
    kp_safetensors_close(file);
    const bool helm = strncmp(cases[i].name, "helm", 4) == 0;
    const kp_import_options options = {.sets = helm ? sets : sets + 1, .set_count = 1};
    const kp_status status = kp_import(path, &options, run, NULL, &error);
    if (cases[i].words == NULL && status != KP_OK) fail_msg("%s: %s", cases[i].extra, error.message);
    if (cases[i].words != NULL && strstr(error.message, cases[i].words) == NULL)
      fail_msg("%s: '%s' lacks '%s'", cases[i].extra, error.message, cases[i].words);
    assert_int_equal(kp_path_kind_of(run), cases[i].words == NULL ? KP_PATH_FOLDER : KP_PATH_MISSING);
  }
}

/* Nothing recognises these; the reason is the file's own, or what is in it. */
static void test_files_of_no_format(void **state) {
  static const struct {
    const char *path, *words;
    kp_status status;
  } cases[] = {
      {DATA "legacy.pt", "torch before 1.6", KP_ERR_UNSUPPORTED},
      {DATA "code.pt", "needs the name posix.system", KP_ERR_UNSUPPORTED},
      {DATA "nested.pt", "holds 4 tensors, 'decoder.a' the first", KP_ERR_INPUT},
      {DATA "make_torch_files.py", "looks like none of the formats", KP_ERR_INPUT},
  };
  const char *run = temporary_path(state, "run");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    check_fails(kp_import(cases[i].path, &(kp_import_options){0}, run, NULL, &error), &error, cases[i].status,
                cases[i].words);
  }
  assert_int_equal(kp_path_kind_of(run), KP_PATH_MISSING);
}

static void test_other_shapes(void **state) {
  const char *const context[] = {"model.heads=2", "model.context=9"};
  const char *const vocabulary[] = {"model.heads=2", "model.context=16", "model.vocabulary=18"};
  refuse(state, "mixed/baseline", &(kp_import_options){.sets = context, .set_count = 2},
         "'transformer.wpe.weight'");
  refuse(state, "ngpt/ngpt_upstream_rope", &(kp_import_options){.sets = vocabulary, .set_count = 3},
         "'transformer.wte.weight'");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_mixed, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_ngpt, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_helm, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_checkpoints_of_torch, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_what_the_file_does_not_say, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_tensors_without_meaning, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_files_of_no_format, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_other_shapes, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
