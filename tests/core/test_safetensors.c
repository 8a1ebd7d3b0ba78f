/* Reader and writer of safetensors files on good files; hostile ones are in
 * test_safetensors_hostile.c. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/directory.h"
#include "core/file.h"
#include "core/half.h"
#include "core/safetensors.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static kp_safetensors *open_file(const char *path) {
  kp_error error = {0};
  kp_safetensors *file = NULL;
  check_ok(kp_safetensors_open(path, &file, &error), &error);
  return file;
}

static kp_safetensors_writer *create_writer(const char *path) {
  kp_error error = {0};
  kp_safetensors_writer *writer = NULL;
  check_ok(kp_safetensors_writer_create(path, &writer, &error), &error);
  return writer;
}

static void finish(kp_safetensors_writer *writer) {
  kp_error error = {0};
  check_ok(kp_safetensors_writer_commit(writer, &error), &error);
  kp_safetensors_writer_destroy(writer);
}

/* Writes a file with one tensor of `count` elements called "t". */
static void write_one(const char *path, kp_dtype dtype, const void *data, int64_t count) {
  kp_error error = {0};
  kp_safetensors_writer *writer = create_writer(path);
  check_ok(kp_safetensors_writer_declare(writer, "t", dtype, 1, &count, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, "t", data, (size_t)count * kp_dtype_size(dtype), &error),
           &error);
  finish(writer);
}

typedef struct type_case {
  kp_dtype dtype;
  const void *data; /* three elements */
  double values[3];
} type_case;

static const type_case type_cases[] = {
    {KP_F64, (const double[]){0.1, -2.5, 1e30}, {0.1, -2.5, 1e30}},
    {KP_F32, (const float[]){0.1f, -2.5f, 1e30f}, {(double)0.1f, -2.5, (double)1e30f}},
    {KP_BF16, (const uint16_t[]){0x3f80, 0xc020, 0x7149}, {1.0, -2.5, 0x1.92p99}},
    {KP_F16, (const uint16_t[]){0x3c00, 0xc100, 0x0001}, {1.0, -2.5, 0x1p-24}},
    {KP_I64, (const int64_t[]){5, -6, INT32_MAX}, {5, -6, INT32_MAX}},
    {KP_I32, (const int32_t[]){INT32_MIN, -6, INT32_MAX}, {INT32_MIN, -6, INT32_MAX}},
    {KP_I16, (const int16_t[]){INT16_MIN, -6, INT16_MAX}, {INT16_MIN, -6, INT16_MAX}},
    {KP_I8, (const int8_t[]){INT8_MIN, -6, INT8_MAX}, {INT8_MIN, -6, INT8_MAX}},
    {KP_U8, (const uint8_t[]){0, 128, 255}, {0, 128, 255}},
    {KP_U16, (const uint16_t[]){0, 32768, 65535}, {0, 32768, 65535}},
    {KP_U32, (const uint32_t[]){0, 7, INT32_MAX}, {0, 7, INT32_MAX}},
    {KP_BOOL, (const uint8_t[]){0, 1, 2}, {0, 1, 1}},
};

static void check_integers(const kp_safetensors_entry *entry, const type_case *expected) {
  kp_error error = {0};
  int32_t integers[3];
  if (kp_dtype_is_float(entry->dtype)) {
    check_fails(kp_safetensors_read(entry, KP_I32, integers, &error), &error, KP_ERR_INPUT,
                "cannot be read as I32");
    return;
  }
  check_ok(kp_safetensors_read(entry, KP_I32, integers, &error), &error);
  for (int i = 0; i < 3; i++) assert_true((double)integers[i] == expected->values[i]);
}

static void test_all_types_come_back(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "t.safetensors");
  assert_int_equal(sizeof type_cases / sizeof type_cases[0], KP_DTYPE_COUNT);
  for (size_t c = 0; c < KP_DTYPE_COUNT; c++) {
    const type_case *expected = &type_cases[c];
    write_one(path, expected->dtype, expected->data, 3);
    kp_safetensors *file = open_file(path);
    const kp_safetensors_entry *entry = kp_safetensors_find(file, "t");
    assert_non_null(entry);
    assert_int_equal(entry->dtype, expected->dtype);
    assert_int_equal(entry->size, 3 * kp_dtype_size(expected->dtype));
    double doubles[3];
    float floats[3];
    unsigned char same[24];
    check_ok(kp_safetensors_read(entry, KP_F64, doubles, &error), &error);
    check_ok(kp_safetensors_read(entry, KP_F32, floats, &error), &error);
    check_ok(kp_safetensors_read(entry, expected->dtype, same, &error), &error);
    assert_memory_equal(same, expected->data, entry->size);
    for (int i = 0; i < 3; i++) {
      assert_true(doubles[i] == expected->values[i]);
      assert_true(floats[i] == (float)expected->values[i]);
    }
    check_integers(entry, expected);
    kp_safetensors_close(file);
  }
}

static void test_values_that_do_not_fit(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "t.safetensors");
  /* The second chunk of the conversion holds the value that does not fit. */
  static double doubles[2000];
  static float floats[2000];
  doubles[1500] = -1e39;
  write_one(path, KP_F64, doubles, 2000);
  kp_safetensors *file = open_file(path);
  check_fails(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_F32, floats, &error), &error,
              KP_ERR_NUMERIC, "element 1500 of tensor 't'");
  kp_safetensors_close(file);

  doubles[1500] = (double)INFINITY;
  doubles[1501] = (double)NAN;
  write_one(path, KP_F64, doubles, 2000);
  file = open_file(path);
  check_ok(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_F32, floats, &error), &error);
  assert_true(isinf(floats[1500]) && isnan(floats[1501]));
  kp_safetensors_close(file);

  static const int64_t wide[2][2] = {{0, (int64_t)INT32_MAX + 1}, {0, (int64_t)INT32_MIN - 1}};
  for (int i = 0; i < 2; i++) {
    write_one(path, KP_I64, wide[i], 2);
    file = open_file(path);
    int32_t integers[2];
    check_fails(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_I32, integers, &error), &error,
                KP_ERR_NUMERIC, "element 1 of tensor 't'");
    assert_non_null(strstr(error.message, path));
    kp_safetensors_close(file);
  }
  write_one(path, KP_U32, (const uint32_t[]){UINT32_MAX}, 1);
  file = open_file(path);
  check_fails(kp_safetensors_read(kp_safetensors_find(file, "t"), KP_I32, floats, &error), &error,
              KP_ERR_NUMERIC, "4294967295");
  kp_safetensors_close(file);
}

static const float weight[6] = {1, 2, 3, 4, 5, 6};
static const uint8_t mask[3] = {1, 0, 1};
static const double loss[1] = {0.25};

static void declare_model(kp_safetensors_writer *writer, bool reversed) {
  kp_error error = {0};
  static const struct {
    const char *name;
    kp_dtype dtype;
    int rank;
    int64_t shape[2];
  } tensors[] = {
      {"weight", KP_F32, 2, {2, 3}}, {"mask", KP_U8, 1, {3}},       {"loss", KP_F64, 0, {0}},
      {"empty", KP_F32, 2, {0, 5}},  {"h.\xc3\xa9", KP_U8, 1, {3}},
  };
  for (int i = 0; i < 5; i++) {
    int t = reversed ? 4 - i : i;
    check_ok(kp_safetensors_writer_declare(writer, tensors[t].name, tensors[t].dtype, tensors[t].rank,
                                           tensors[t].shape, &error),
             &error);
  }
}

static void write_model(const char *path, bool reversed) {
  kp_error error = {0};
  kp_safetensors_writer *writer = create_writer(path);
  const char *keys[2] = {"step", "author"}, *values[2] = {"12", "k\"\xc3\xbc\"rt\n"};
  for (int i = 0; i < 2; i++) {
    int k = reversed ? 1 - i : i;
    check_ok(kp_safetensors_writer_metadata(writer, keys[k], values[k], &error), &error);
  }
  declare_model(writer, reversed);
  if (reversed) check_ok(kp_safetensors_writer_write(writer, "h.\xc3\xa9", mask, 3, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, "mask", mask, 3, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, "weight", weight, 10, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, "loss", loss, sizeof loss, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, "weight", (const char *)weight + 10, 14, &error), &error);
  if (!reversed) check_ok(kp_safetensors_writer_write(writer, "h.\xc3\xa9", mask, 3, &error), &error);
  finish(writer);
}

static void test_a_model_comes_back(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "model.safetensors");
  write_model(path, false);
  kp_safetensors *file = open_file(path);
  assert_string_equal(kp_safetensors_label(file), path);
  assert_int_equal(kp_safetensors_count(file), 5);
  assert_string_equal(kp_safetensors_metadata(file, "format"), "pt");
  assert_string_equal(kp_safetensors_metadata(file, "step"), "12");
  assert_string_equal(kp_safetensors_metadata(file, "author"), "k\"\xc3\xbc\"rt\n");
  assert_null(kp_safetensors_metadata(file, "none"));
  assert_null(kp_safetensors_find(file, "none"));
  assert_non_null(kp_safetensors_find(file, "h.\xc3\xa9"));
  assert_string_equal(kp_safetensors_entry_at(file, 0)->name, "loss");

  const kp_safetensors_entry *entry = NULL;
  check_ok(kp_safetensors_require_shape(file, "weight", 2, (int64_t[]){2, 3}, &entry, &error), &error);
  float values[6];
  check_ok(kp_safetensors_read(entry, KP_F32, values, &error), &error);
  assert_memory_equal(values, weight, sizeof weight);
  check_ok(kp_safetensors_require_shape(file, "loss", 0, NULL, &entry, &error), &error);
  assert_int_equal(entry->elements, 1);
  check_ok(kp_safetensors_require(file, "empty", &entry, &error), &error);
  assert_int_equal(entry->elements, 0);
  check_ok(kp_safetensors_read(entry, KP_F64, NULL, &error), &error);

  check_fails(kp_safetensors_require(file, "bias", &entry, &error), &error, KP_ERR_INPUT,
              "has no tensor 'bias'");
  check_fails(kp_safetensors_require_shape(file, "weight", 2, (int64_t[]){3, 2}, &entry, &error), &error,
              KP_ERR_INPUT, "has the shape (2, 3) instead of (3, 2)");
  check_fails(kp_safetensors_require_shape(file, "weight", 1, (int64_t[]){6}, &entry, &error), &error,
              KP_ERR_INPUT, "(2, 3) instead of (6)");
  kp_safetensors_close(file);
  kp_safetensors_close(NULL);
}

static void test_layout_is_aligned_and_reproducible(void **state) {
  kp_error error = {0};
  const char *first = temporary_path(state, "first"), *second = temporary_path(state, "second");
  write_model(first, false);
  write_model(second, true);
  kp_file_map one, two;
  check_ok(kp_file_map_open(first, KP_EMPTY_REFUSED, &one, &error), &error);
  check_ok(kp_file_map_open(second, KP_EMPTY_REFUSED, &two, &error), &error);
  assert_int_equal(one.size, two.size);
  assert_memory_equal(one.data, two.data, one.size);
  uint64_t header = 0;
  memcpy(&header, one.data, sizeof header);
  assert_int_equal((header + 8) % 256, 0);
  assert_int_equal(one.size, header + 8 + 8 + 24 + 3 + 3);
  assert_int_equal(one.data[header + 7], ' ');
  kp_file_map_close(&one);
  kp_file_map_close(&two);

  kp_safetensors *file = open_file(first);
  for (size_t i = 0; i < kp_safetensors_count(file); i++) {
    const kp_safetensors_entry *entry = kp_safetensors_entry_at(file, i);
    assert_int_equal((uintptr_t)entry->data % kp_dtype_size(entry->dtype), 0);
  }
  kp_safetensors_close(file);
}

static void test_writer_refuses(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "t");
  int64_t shape[9] = {2, 1, 1, 1, 1, 1, 1, 1, 1};
  kp_safetensors_writer *w = create_writer(path);
  check_fails(kp_safetensors_writer_declare(w, "__metadata__", KP_F32, 1, shape, &error), &error,
              KP_ERR_INPUT, "__metadata__");
  check_fails(kp_safetensors_writer_declare(w, "\xff", KP_F32, 1, shape, &error), &error, KP_ERR_INPUT,
              "UTF-8");
  check_fails(kp_safetensors_writer_metadata(w, "key", "\xff", &error), &error, KP_ERR_INPUT, "UTF-8");
  check_fails(kp_safetensors_writer_declare(w, "t", KP_F32, 9, shape, &error), &error, KP_ERR_INPUT, "'t'");
  check_fails(kp_safetensors_writer_declare(w, "t", KP_F32, 1, (int64_t[]){-1}, &error), &error, KP_ERR_INPUT,
              "negative");
  check_fails(kp_safetensors_writer_declare(w, "t", KP_F32, 2, (int64_t[]){INT64_MAX / 2, 3}, &error), &error,
              KP_ERR_INPUT, "too many");
  check_ok(kp_safetensors_writer_declare(w, "t", KP_F32, 8, shape, &error), &error);
  check_fails(kp_safetensors_writer_write(w, "u", weight, 4, &error), &error, KP_ERR_INPUT,
              "was not declared");
  check_fails(kp_safetensors_writer_declare(w, "u", KP_F32, 1, shape, &error), &error, KP_ERR_INPUT,
              "after the first write");
  check_ok(kp_safetensors_writer_write(w, "t", weight, 4, &error), &error);
  check_fails(kp_safetensors_writer_write(w, "t", weight, 5, &error), &error, KP_ERR_INPUT,
              "more than its 8 bytes");
  check_fails(kp_safetensors_writer_commit(w, &error), &error, KP_ERR_INPUT, "4 of 8 bytes");
  kp_safetensors_writer_destroy(w);
  kp_safetensors_writer_destroy(NULL);

  w = create_writer(path);
  for (int i = 0; i < 2; i++)
    check_ok(kp_safetensors_writer_declare(w, "t", KP_F32, 1, shape, &error), &error);
  check_fails(kp_safetensors_writer_write(w, "t", weight, 8, &error), &error, KP_ERR_INPUT, "declared twice");
  check_fails(kp_safetensors_writer_commit(w, &error), &error, KP_ERR_INPUT, "declared twice");
  kp_safetensors_writer_destroy(w);
  w = create_writer(path);
  for (int i = 0; i < 2; i++)
    check_ok(kp_safetensors_writer_declare(w, i ? "a" : "b", KP_U8, 1, (int64_t[]){INT64_MAX}, &error),
             &error);
  check_fails(kp_safetensors_writer_commit(w, &error), &error, KP_ERR_INPUT, "too large for one file");
  kp_safetensors_writer_destroy(w);
  assert_int_equal(temporary_count(temporary_path(state, "")), 0);
  check_fails(kp_safetensors_writer_create(temporary_path(state, "none/t"), &w, &error), &error, KP_ERR_IO,
              "none/t");
  assert_null(w);
}

static void test_a_file_without_tensors(void **state) {
  const char *path = temporary_path(state, "t");
  finish(create_writer(path));
  kp_safetensors *file = open_file(path);
  assert_int_equal(kp_safetensors_count(file), 0);
  assert_null(kp_safetensors_find(file, "t"));
  kp_safetensors_close(file);
}

static void test_many_tensors_are_found(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "t");
  enum { COUNT = 1000 };
  kp_safetensors_writer *writer = create_writer(path);
  char name[16];
  for (int i = 0; i < COUNT; i++) {
    snprintf(name, sizeof name, "t%d", i);
    check_ok(kp_safetensors_writer_declare(writer, name, KP_I32, 1, (int64_t[]){1}, &error), &error);
  }
  for (int32_t i = 0; i < COUNT; i++) {
    snprintf(name, sizeof name, "t%d", i);
    check_ok(kp_safetensors_writer_write(writer, name, &i, sizeof i, &error), &error);
  }
  finish(writer);
  kp_safetensors *file = open_file(path);
  for (int32_t i = 0; i < COUNT; i++) {
    snprintf(name, sizeof name, "t%d", i);
    const kp_safetensors_entry *entry = NULL;
    int32_t value = -1;
    check_ok(kp_safetensors_require(file, name, &entry, &error), &error);
    check_ok(kp_safetensors_read(entry, KP_I32, &value, &error), &error);
    assert_int_equal(value, i);
  }
  kp_safetensors_close(file);
}

static void test_full_disk_keeps_the_old_file(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "t");
  write_model(path, false);
  static const float large[4096];
  kp_safetensors_writer *writer = create_writer(path);
  check_ok(kp_safetensors_writer_declare(writer, "t", KP_F32, 1, (int64_t[]){4096}, &error), &error);
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit limited = {.rlim_cur = 8000, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
  kp_status write_status = kp_safetensors_writer_write(writer, "t", large, sizeof large, &error);
  kp_status commit_status = kp_safetensors_writer_commit(writer, NULL);
  setrlimit(RLIMIT_FSIZE, &before);
  kp_safetensors_writer_destroy(writer);
  assert_int_equal(write_status, KP_ERR_IO);
  assert_non_null(strstr(error.message, path));
  assert_int_not_equal(commit_status, KP_OK);
  kp_safetensors *file = open_file(path);
  assert_int_equal(kp_safetensors_count(file), 5);
  kp_safetensors_close(file);
  assert_int_equal(temporary_count(temporary_path(state, "")), 1);
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      with_folder(test_all_types_come_back),    with_folder(test_values_that_do_not_fit),
      with_folder(test_a_model_comes_back),     with_folder(test_layout_is_aligned_and_reproducible),
      with_folder(test_writer_refuses),         with_folder(test_a_file_without_tensors),
      with_folder(test_many_tensors_are_found), with_folder(test_full_disk_keeps_the_old_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
