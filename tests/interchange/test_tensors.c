/* Named tensors of folders: single files, shards, and what is refused. */
#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/directory.h"
#include "core/safetensors.h"
#include "interchange/tensors.h"

#include <stdio.h>
#include <stdlib.h>

#define DATA KP_TEST_DIRECTORY "/interchange/data/"

/* A safetensors file with one tensor of one number. */
static void write_one(const char *path, const char *name, float value) {
  kp_error error = {0};
  kp_safetensors_writer *writer = NULL;
  check_ok(kp_safetensors_writer_create(path, &writer, &error), &error);
  check_ok(kp_safetensors_writer_declare(writer, name, KP_F32, 1, (int64_t[]){1}, &error), &error);
  check_ok(kp_safetensors_writer_write(writer, name, &value, sizeof value, &error), &error);
  check_ok(kp_safetensors_writer_commit(writer, &error), &error);
  kp_safetensors_writer_destroy(writer);
}

static void write_text(const char *path, const char *text) {
  temporary_write(path, text, strlen(text));
}

static void copy_file(const char *from, const char *to) {
  static unsigned char bytes[8192];
  FILE *file = fopen(from, "rb");
  assert_non_null(file);
  const size_t size = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  temporary_write(to, bytes, size);
}

static double read_number(kp_tensors *tensors, const char *name) {
  kp_error error = {0};
  const kp_tensors_entry *entry;
  double value;
  check_ok(kp_tensors_require(tensors, name, &entry, &error), &error);
  check_ok(kp_tensors_read(tensors, entry, &value, &error), &error);
  return value;
}

static kp_tensors *open_path(const char *path) {
  kp_error error = {0};
  kp_tensors *tensors = NULL;
  check_ok(kp_tensors_open(path, &tensors, &error), &error);
  return tensors;
}

static void refuse(const char *path, const char *words) {
  kp_error error = {0};
  kp_tensors *tensors = NULL;
  check_fails(kp_tensors_open(path, &tensors, &error), &error, KP_ERR_INPUT, words);
  assert_null(tensors);
}

static void test_shards(void **state) {
  const char *folder = temporary_path(state, "");
  const char *index = temporary_path(state, "model.safetensors.index.json");
  write_one(temporary_path(state, "model-00001-of-00002.safetensors"), "b", 2);
  write_one(temporary_path(state, "model-00002-of-00002.safetensors"), "a", 1);
  write_text(index, "{\"metadata\": {}, \"weight_map\": {\"a\": \"model-00002-of-00002.safetensors\", "
                    "\"b\": \"model-00001-of-00002.safetensors\"}}");
  assert_true(kp_tensors_recognises(folder));
  const char *const paths[] = {folder, index};
  for (int i = 0; i < 2; i++) {
    kp_tensors *tensors = open_path(paths[i]);
    assert_int_equal(kp_tensors_count(tensors), 2);
    assert_string_equal(kp_tensors_at(tensors, 0)->name, "a");
    assert_true(read_number(tensors, "a") == 1 && read_number(tensors, "b") == 2);
    assert_int_equal(json_object_size(kp_tensors_settings(tensors)), 0);
    kp_tensors_close(tensors);
  }
}

static void test_shards_of_torch(void **state) {
  write_one(temporary_path(state, "one.safetensors"), "a", 1);
  copy_file(DATA "repacked.pt", temporary_path(state, "two.bin"));
  write_text(temporary_path(state, "pytorch_model.bin.index.json"),
             "{\"weight_map\": {\"a\": \"one.safetensors\", \"w\": \"two.bin\"}}");
  kp_tensors *tensors = open_path(temporary_path(state, ""));
  assert_true(read_number(tensors, "a") == 1);
  assert_int_equal(kp_tensors_find(tensors, "w")->elements, 2);
  kp_tensors_close(tensors);
}

static void test_bad_indices(void **state) {
  const char *folder = temporary_path(state, "");
  const char *index = temporary_path(state, "model.safetensors.index.json");
  write_one(temporary_path(state, "one.safetensors"), "a", 1);
  write_one(temporary_path(state, "two.safetensors"), "a", 2);
  static const struct {
    const char *text, *words;
  } cases[] = {
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"c\": \"one.safetensors\"}}",
       "puts the tensor 'c' in 'one.safetensors', which lacks it"},
      {"{\"weight_map\": {\"a\": \"three.safetensors\"}}", "'three.safetensors', which is not there"},
      {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", "no plain file name for the tensor 'a'"},
      {"{\"weight_map\": {\"a\": \"..\"}}", "no plain file name for the tensor 'a'"},
      {"{\"weight_map\": {\"a\": 3}}", "no plain file name for the tensor 'a'"},
      {"{\"weight_map\": {}}", "has no \"weight_map\""},
      {"[]", "has no \"weight_map\""},
      {"{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}",
       "have a tensor called 'a'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_text(index, cases[i].text);
    refuse(folder, cases[i].words);
  }
}

static void test_single_files_of_folders(void **state) {
  kp_error error = {0};
  const char *folder = temporary_path(state, "model");
  check_ok(kp_directory_create(folder, &error), &error);
  refuse(folder, "has no tensors");
  assert_false(kp_tensors_recognises(folder));
  copy_file(DATA "nested.pt", temporary_path(state, "model/ckpt.pt"));
  kp_tensors *tensors = open_path(folder);
  assert_int_equal(kp_tensors_count(tensors), 4);
  kp_tensors_close(tensors);
  copy_file(DATA "nested.pt", temporary_path(state, "model/other.pt"));
  refuse(folder, "several files of tensors ('ckpt.pt', 'other.pt')");
  write_one(temporary_path(state, "model/model.safetensors"), "a", 3);
  tensors = open_path(folder);
  assert_true(read_number(tensors, "a") == 3);
  kp_tensors_close(tensors);
}

static void test_what_is_recognised(void **state) {
  const char *text = temporary_path(state, "text.pt"), *empty = temporary_path(state, "empty.safetensors");
  write_text(text, "a text, and no tensors at all");
  write_text(empty, "");
  assert_false(kp_tensors_recognises(text));
  assert_false(kp_tensors_recognises(empty));
  assert_false(kp_tensors_recognises(temporary_path(state, "missing")));
  assert_true(kp_tensors_recognises(DATA "views.pt"));
  assert_true(kp_tensors_recognises(DATA "legacy.pt")); /* to say what to do with it */
  kp_error error = {0};
  kp_tensors *tensors = NULL;
  check_fails(kp_tensors_open(temporary_path(state, "missing"), &tensors, &error), &error, KP_ERR_IO,
              "missing");
  refuse(empty, "empty");
}

/* Of torch.compile and of data parallel training. */
static void test_prefixes(void **state) {
  static const char *const names[] = {"module._orig_mod.a", "_orig_mod.module.a", "module.a", "a"};
  const char *path = temporary_path(state, "one.safetensors");
  for (size_t i = 0; i < 4; i++) {
    write_one(path, names[i], 4);
    kp_tensors *tensors = open_path(path);
    assert_true(read_number(tensors, "a") == 4);
    kp_tensors_close(tensors);
  }
}

static void test_missing_tensor(void **state) {
  (void)state;
  kp_error error = {0};
  const kp_tensors_entry *entry;
  kp_tensors *tensors = open_path(DATA "nested.pt");
  check_fails(kp_tensors_require(tensors, "nothing", &entry, &error), &error, KP_ERR_INPUT,
              "has no tensor 'nothing'");
  kp_tensors_close(tensors);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_shards, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_shards_of_torch, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_bad_indices, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_single_files_of_folders, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_what_is_recognised, temporary_create, temporary_remove),
      cmocka_unit_test_setup_teardown(test_prefixes, temporary_create, temporary_remove),
      cmocka_unit_test(test_missing_tensor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
