/* PyTorch files that torch.save wrote (tests/interchange/data/make_torch_files.py). */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "interchange/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DATA KP_TEST_DIRECTORY "/interchange/data/"

static kp_tensors *open_file(const char *path) {
  kp_error error = {0};
  kp_tensors *tensors = NULL;
  check_ok(kp_tensors_open(path, &tensors, &error), &error);
  return tensors;
}

/* The tensor has this shape and these values. */
static void check_tensor(kp_tensors *tensors, const char *name, int rank, const int64_t *shape,
                         const double *values) {
  kp_error error = {0};
  const kp_tensors_entry *entry = NULL;
  check_ok(kp_tensors_require(tensors, name, &entry, &error), &error);
  assert_int_equal(entry->rank, rank);
  for (int i = 0; i < rank; i++) assert_int_equal(entry->shape[i], shape[i]);
  double *got = malloc((size_t)entry->elements * sizeof *got + 1);
  float *floats = malloc((size_t)entry->elements * sizeof *floats + 1);
  assert_true(got != NULL && floats != NULL);
  check_ok(kp_tensors_read(tensors, entry, got, &error), &error);
  for (int64_t i = 0; i < entry->elements; i++)
    if (got[i] != values[i]) fail_msg("%s[%lld] is %.17g, not %.17g", name, (long long)i, got[i], values[i]);
  if (kp_tensors_read_floats(tensors, entry, floats, &error) == KP_OK)
    for (int64_t i = 0; i < entry->elements; i++) assert_true(floats[i] == (float)values[i]);
  free(got);
  free(floats);
}

static void test_all_types(void **state) {
  (void)state;
  static const struct {
    const char *name;
    kp_dtype dtype;
    double values[4];
  } cases[] = {
      {"float64", KP_F64, {0.1, -1e300, 5, 1e-310}},
      {"float32", KP_F32, {0.5, -1.25, (double)3e38f, (double)1e-40f}},
      {"float16", KP_F16, {0.5, -2.5, 0x1p-24, 65504}},
      {"bfloat16", KP_BF16, {0.5, -2.5, 1, 100}},
      {"int64", KP_I64, {-1, 0x1p40, 7, -0x1p62}},
      {"int32", KP_I32, {0, 1, 2, 100}},
      {"int16", KP_I16, {0, 1, 2, 100}},
      {"int8", KP_I8, {0, 1, 2, 100}},
      {"uint8", KP_U8, {0, 1, 2, 100}},
      {"uint16", KP_U16, {0, 1, 2, 100}},
      {"uint32", KP_U32, {0, 1, 2, 100}},
      {"bool", KP_BOOL, {0, 1, 1, 1}},
  };
  const size_t count = sizeof cases / sizeof *cases;
  kp_tensors *tensors = open_file(DATA "types.pt");
  assert_int_equal(kp_tensors_count(tensors), count);
  for (size_t i = 0; i < count; i++) {
    assert_int_equal(kp_tensors_find(tensors, cases[i].name)->dtype, cases[i].dtype);
    check_tensor(tensors, cases[i].name, 1, (const int64_t[]){4}, cases[i].values);
  }
  kp_error error = {0};
  float floats[4];
  check_fails(kp_tensors_read_floats(tensors, kp_tensors_find(tensors, "float64"), floats, &error), &error,
              KP_ERR_NUMERIC, "element 1 of tensor 'float64'");
  kp_tensors_close(tensors);
}

/* Element (i, j) of the whole is 6 i + j. */
static void check_views(const char *path) {
  kp_tensors *t = open_file(path);
  double whole[24], transposed[24], cube[24];
  for (int i = 0; i < 24; i++) {
    whole[i] = i;
    transposed[i] = i % 4 * 6 + i / 4;
    cube[i] = i / 4 + i % 4 / 2 * 12 + i % 2 * 6; /* (6, 2, 2) */
  }
  check_tensor(t, "whole", 2, (const int64_t[]){4, 6}, whole);
  check_tensor(t, "transposed", 2, (const int64_t[]){6, 4}, transposed);
  check_tensor(t, "cube", 3, (const int64_t[]){6, 2, 2}, cube);
  check_tensor(t, "column", 1, (const int64_t[]){4}, (const double[]){2, 8, 14, 20});
  check_tensor(t, "inner", 2, (const int64_t[]){2, 4}, (const double[]){7, 8, 9, 10, 13, 14, 15, 16});
  check_tensor(t, "every", 2, (const int64_t[]){2, 2}, (const double[]){0, 3, 12, 15});
  check_tensor(t, "scalar", 0, NULL, (const double[]){2.5});
  check_tensor(t, "empty", 2, (const int64_t[]){0, 3}, NULL);
  check_tensor(t, "parameter", 1, (const int64_t[]){6}, whole + 6);
  check_tensor(t, "buffer", 1, (const int64_t[]){6}, whole + 12);
  assert_int_equal(kp_tensors_count(t), 10);
  assert_null(kp_tensors_unused(t));
  kp_tensors_close(t);
}

static void test_views_of_shared_storages(void **state) {
  (void)state;
  check_views(DATA "views.pt");
  check_views(DATA "views_protocol4.pt");
}

static void test_archive_of_another_program(void **state) {
  (void)state;
  kp_tensors *tensors = open_file(DATA "repacked.pt");
  check_tensor(tensors, "w", 1, (const int64_t[]){2}, (const double[]){0, 0});
  kp_tensors_close(tensors);
}

/* A checkpoint as nanoGPT writes it: the model's tensors without torch.compile's prefix, nothing of the
 * optimizer's, and what stands beside them. */
static void test_checkpoint(void **state) {
  (void)state;
  kp_tensors *tensors = open_file(DATA "checkpoint.pt");
  assert_int_equal(kp_tensors_count(tensors), 4);
  assert_string_equal(kp_tensors_at(tensors, 0)->name, "0.bias");
  check_tensor(tensors, "0.weight", 2, (const int64_t[]){3, 2}, (const double[]){0, 1, 2, 3, 4, 5});
  check_tensor(tensors, "1.bias", 1, (const int64_t[]){3}, (const double[]){30, 31, 32});
  assert_string_equal(kp_tensors_unused(tensors), "0.bias");
  kp_tensors_mark(tensors, kp_tensors_find(tensors, "0.bias"));
  assert_string_equal(kp_tensors_unused(tensors), "1.weight");

  const json_t *settings = kp_tensors_settings(tensors);
  const json_t *arguments = json_object_get(settings, "model_args"), *config;
  assert_int_equal(json_integer_value(json_object_get(arguments, "n_layer")), 2);
  assert_true(json_is_false(json_object_get(arguments, "bias")));
  assert_true(json_is_null(json_object_get(arguments, "vocab_size")));
  assert_true(json_real_value(json_object_get(arguments, "dropout")) == 0.1);
  assert_int_equal(json_integer_value(json_object_get(settings, "iter_num")), 70000);
  config = json_object_get(settings, "config");
  assert_string_equal(json_string_value(json_object_get(config, "out_dir")), "out");
  assert_int_equal(json_integer_value(json_array_get(json_object_get(config, "betas"), 1)), -1);
  assert_null(json_object_get(config, "big"));
  assert_true(json_real_value(json_object_get(json_object_get(settings, "args"), "lr")) == 0.25);
  assert_null(json_object_get(settings, "optimizer"));
  assert_null(json_object_get(settings, "model"));
  assert_null(json_object_get(settings, "rng"));
  kp_tensors_close(tensors);
}

static void test_nested_dicts(void **state) {
  (void)state;
  static const char *const names[] = {"decoder.a", "encoder.a", "encoder.list.0", "encoder.list.1"};
  kp_tensors *tensors = open_file(DATA "nested.pt");
  assert_int_equal(kp_tensors_count(tensors), 4);
  for (size_t i = 0; i < 4; i++) assert_string_equal(kp_tensors_at(tensors, i)->name, names[i]);
  kp_tensors_close(tensors);
}

static void test_what_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *path, *words;
    kp_status status;
  } cases[] = {
      {DATA "code.pt", "needs the name posix.system", KP_ERR_UNSUPPORTED},
      {DATA "module.pt", "torch.nn.modules.container.Sequential", KP_ERR_UNSUPPORTED},
      {DATA "legacy.pt", "torch before 1.6", KP_ERR_UNSUPPORTED},
      {DATA "script.pt", "as TorchScript programs are", KP_ERR_UNSUPPORTED},
      {DATA "compressed.pt", "is compressed", KP_ERR_UNSUPPORTED},
      {DATA "big_endian.pt", "big-endian", KP_ERR_UNSUPPORTED},
      {DATA "float8.pt", "torch.float8_e4m3fn, which kappa does not know", KP_ERR_UNSUPPORTED},
      {DATA "complex.pt", "torch.ComplexFloatStorage, which kappa does not know", KP_ERR_UNSUPPORTED},
      {DATA "expanded.pt", "expanded view", KP_ERR_INPUT},
      {DATA "bare_tensor.pt", "a call of torch._utils._rebuild_tensor_v2 instead of a dict", KP_ERR_INPUT},
      {DATA "list.pt", "a list instead of a dict", KP_ERR_INPUT},
      {DATA "no_tensors.pt", "holds no tensors", KP_ERR_INPUT},
      {DATA "missing.pt", "missing.pt", KP_ERR_INPUT},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    kp_tensors *tensors = NULL;
    const kp_status status = kp_tensors_open(cases[i].path, &tensors, &error);
    if (strstr(error.message, cases[i].words) == NULL)
      fail_msg("%s: '%s' lacks '%s'", cases[i].path, error.message, cases[i].words);
    if (i + 1 < sizeof cases / sizeof *cases) assert_int_equal(status, cases[i].status);
    assert_true(status != KP_OK);
    assert_null(tensors);
  }
  assert_int_not_equal(access("/tmp/kappa-owned", F_OK), 0); /* what code.pt would have written */
}

/* A file that is cut at any byte is refused; so it is with any byte changed, or still read without harm. */
static void test_damaged_files(void **state) {
  static const char path[] = DATA "views.pt";
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  static unsigned char bytes[8192], copy[8192];
  const size_t size = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  assert_true(size > 1000 && size < sizeof bytes);
  const char *damaged = temporary_path(state, "damaged.pt");
  for (size_t i = 0; i < size; i += 7) {
    kp_error error = {0};
    kp_tensors *tensors = NULL;
    temporary_write(damaged, bytes, i);
    assert_true(kp_tensors_open(damaged, &tensors, &error) != KP_OK);
    assert_true(tensors == NULL && error.message[0] != 0);
    memcpy(copy, bytes, size);
    copy[i] ^= 0x41;
    temporary_write(damaged, copy, size);
    if (kp_tensors_open(damaged, &tensors, &error) != KP_OK) assert_true(error.message[0] != 0);
    for (size_t e = 0; tensors != NULL && e < kp_tensors_count(tensors); e++) {
      const kp_tensors_entry *entry = kp_tensors_at(tensors, e);
      double values[64];
      if (entry->elements <= 64) (void)kp_tensors_read(tensors, entry, values, &error);
    }
    kp_tensors_close(tensors);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_types),
      cmocka_unit_test(test_views_of_shared_storages),
      cmocka_unit_test(test_archive_of_another_program),
      cmocka_unit_test(test_checkpoint),
      cmocka_unit_test(test_nested_dicts),
      cmocka_unit_test(test_what_is_refused),
      cmocka_unit_test_setup_teardown(test_damaged_files, temporary_create, temporary_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
