/* Every file of reference numbers opens, and all its tensors can be read. */
#include "support/check.h"
#include "core/directory.h"
#include "core/safetensors.h"

#include <math.h>
#include <stdlib.h>

static void read_all_entries(const kp_safetensors *file) {
  kp_error error = {0};
  assert_true(kp_safetensors_count(file) > 0);
  for (size_t i = 0; i < kp_safetensors_count(file); i++) {
    const kp_safetensors_entry *entry = kp_safetensors_entry_at(file, i);
    assert_ptr_equal(kp_safetensors_find(file, entry->name), entry);
    double *values = malloc((size_t)entry->elements * sizeof *values + 1);
    assert_non_null(values);
    check_ok(kp_safetensors_read(entry, KP_F64, values, &error), &error);
    for (int64_t k = 0; k < entry->elements; k++)
      if (!isfinite(values[k])) fail_msg("%s of %s is not finite", entry->name, kp_safetensors_label(file));
    free(values);
  }
}

static size_t read_folder(const char *area) {
  kp_error error = {0};
  char folder[KP_PATH_SIZE], path[KP_PATH_SIZE];
  check_ok(kp_path_join(folder, KP_TEST_DIRECTORY "/goldens", area, &error), &error);
  kp_directory_listing cases;
  check_ok(kp_directory_list(folder, &cases, &error), &error);
  for (size_t i = 0; i < cases.count; i++) {
    check_ok(kp_path_join(path, folder, cases.names[i], &error), &error);
    check_ok(kp_path_join(path, path, "tensors.safetensors", &error), &error);
    kp_safetensors *file = NULL;
    check_ok(kp_safetensors_open(path, &file, &error), &error);
    read_all_entries(file);
    kp_safetensors_close(file);
  }
  size_t count = cases.count;
  kp_directory_listing_clear(&cases);
  return count;
}

static void test_all_cases_are_read(void **state) {
  (void)state;
  kp_error error = {0};
  kp_directory_listing areas;
  check_ok(kp_directory_list(KP_TEST_DIRECTORY "/goldens", &areas, &error), &error);
  size_t folders = 0;
  for (size_t i = 0; i < areas.count; i++) {
    char path[KP_PATH_SIZE];
    check_ok(kp_path_join(path, KP_TEST_DIRECTORY "/goldens", areas.names[i], &error), &error);
    if (kp_path_kind_of(path) != KP_PATH_FOLDER) continue;
    assert_true(read_folder(areas.names[i]) > 0);
    folders++;
  }
  kp_directory_listing_clear(&areas);
  assert_true(folders >= 2);
}

static void test_known_numbers(void **state) {
  (void)state;
  kp_error error = {0};
  kp_safetensors *file = NULL;
  check_ok(
      kp_safetensors_open(KP_TEST_DIRECTORY "/goldens/mixed/baseline/tensors.safetensors", &file, &error),
      &error);
  const kp_safetensors_entry *entry = NULL;
  check_ok(kp_safetensors_require_shape(file, "out/logits", 3, (int64_t[]){3, 7, 13}, &entry, &error),
           &error);
  assert_int_equal(entry->dtype, KP_F64);
  check_ok(kp_safetensors_require_shape(file, "out/loss", 1, (int64_t[]){1}, &entry, &error), &error);
  double loss = 0;
  check_ok(kp_safetensors_read(entry, KP_F64, &loss, &error), &error);
  assert_true(fabs(loss - 2.646919108362) < 1e-12);
  check_ok(kp_safetensors_require_shape(file, "in/targets", 2, (int64_t[]){3, 7}, &entry, &error), &error);
  int32_t targets[21];
  check_ok(kp_safetensors_read(entry, KP_I32, targets, &error), &error);
  assert_int_equal(targets[2], -1);
  kp_safetensors_close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_all_cases_are_read),
      cmocka_unit_test(test_known_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
