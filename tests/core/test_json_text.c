#include "support/check_fails.h"
#include "support/temporary.h"
#include "core/file.h"
#include "core/json_text.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

static void expect_content(const char *path, const char *expected) {
  kp_error error = {0};
  char *data = NULL;
  size_t size = 0;
  check_ok(kp_file_read_all(path, 1 << 20, &data, &size, &error), &error);
  assert_string_equal(data, expected);
  free(data);
}

static void test_files_come_back(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "report.json");
  json_t *value = json_pack("{s:i, s:o, s:o}", "step", 3, "third", kp_json_number(1.0 / 3.0), "loss",
                            kp_json_number((double)NAN));
  check_ok(kp_json_write_file(path, value, KP_JSON_DOUBLE_DIGITS, &error), &error);
  expect_content(path, "{\n  \"step\": 3,\n  \"third\": 0.33333333333333331,\n  \"loss\": null\n}\n");
  json_t *again = NULL;
  check_ok(kp_json_read_file(path, &again, &error), &error);
  assert_true(json_equal(value, again));
  json_decref(value);
  json_decref(again);
}

static void test_errors_have_a_place(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "bad.json");
  json_t *value = NULL;
  const char broken[] = "{\n  \"a\": 1,\n  \"b\" 2\n}\n";
  temporary_write(path, broken, sizeof broken - 1);
  check_fails(kp_json_read_file(path, &value, &error), &error, KP_ERR_INPUT, "bad.json:3:");
  assert_null(value);
  const char twice[] = "{\"a\": 1, \"a\": 2}";
  temporary_write(path, twice, sizeof twice - 1);
  check_fails(kp_json_read_file(path, &value, &error), &error, KP_ERR_INPUT, "duplicate");
  temporary_write(path, "", 0);
  check_fails(kp_json_read_file(path, &value, &error), &error, KP_ERR_INPUT, "bad.json:1:");
  check_fails(kp_json_read_file(temporary_path(state, "none"), &value, &error), &error, KP_ERR_IO, "none");
}

static void append_step(const char *path, int step) {
  kp_error error = {0};
  json_t *line = json_pack("{s:i, s:f}", "step", step, "loss", 0.5 * step);
  check_ok(kp_jsonl_append(path, line, KP_JSON_FLOAT_DIGITS, &error), &error);
  json_decref(line);
}

static int step_of(const json_t *lines, size_t index) {
  return (int)json_integer_value(json_object_get(json_array_get(lines, index), "step"));
}

static void test_lines_are_appended_and_read(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "metrics.jsonl");
  for (int step = 1; step <= 5; step++) append_step(path, step);
  json_t *lines = NULL;
  check_ok(kp_jsonl_read_last(path, 2, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 2);
  assert_int_equal(step_of(lines, 0), 4);
  assert_int_equal(step_of(lines, 1), 5);
  json_decref(lines);
  check_ok(kp_jsonl_read_last(path, SIZE_MAX, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 5);
  assert_int_equal(step_of(lines, 0), 1);
  json_decref(lines);
  check_ok(kp_jsonl_read_last(path, 0, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 0);
  json_decref(lines);
  check_fails(kp_jsonl_read_last(temporary_path(state, "none"), 1, &lines, &error), &error, KP_ERR_IO,
              "none");
}

static void test_a_torn_line_is_dropped(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "metrics.jsonl");
  const char torn[] = "{\"step\":1}\n{\"step\":2}\n{\"st";
  temporary_write(path, torn, sizeof torn - 1);
  json_t *lines = NULL;
  check_ok(kp_jsonl_read_last(path, 1, &lines, &error), &error);
  assert_int_equal(json_array_size(lines), 1);
  assert_int_equal(step_of(lines, 0), 2);
  json_decref(lines);
  append_step(path, 3);
  expect_content(path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"loss\":1.5}\n");
  temporary_write(path, "{\"step", 6);
  append_step(path, 4);
  expect_content(path, "{\"step\":4,\"loss\":2.0}\n");
}

static void test_truncation_for_a_resumed_run(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "metrics.jsonl");
  const char text[] =
      "{\"step\":10}\n{\"event\":\"saved\"}\n{\"step\":20}\n{\"step\":30}\n{\"step\":15}\n{\"ste";
  temporary_write(path, text, sizeof text - 1);
  check_ok(kp_jsonl_truncate_after(path, "step", 40, &error), &error);
  expect_content(path, "{\"step\":10}\n{\"event\":\"saved\"}\n{\"step\":20}\n{\"step\":30}\n{\"step\":15}\n");
  check_ok(kp_jsonl_truncate_after(path, "step", 20, &error), &error);
  expect_content(path, "{\"step\":10}\n{\"event\":\"saved\"}\n{\"step\":20}\n");
  check_ok(kp_jsonl_truncate_after(path, "step", 20, &error), &error);
  expect_content(path, "{\"step\":10}\n{\"event\":\"saved\"}\n{\"step\":20}\n");
  check_ok(kp_jsonl_truncate_after(path, "step", 0, &error), &error);
  expect_content(path, "");
  check_ok(kp_jsonl_truncate_after(temporary_path(state, "none"), "step", 0, &error), &error);
}

static void test_a_bad_line_is_named(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "metrics.jsonl");
  const char text[] = "{\"step\":10}\nnonsense\n{\"step\":20}\n";
  temporary_write(path, text, sizeof text - 1);
  json_t *lines = NULL;
  check_fails(kp_jsonl_read_last(path, 2, &lines, &error), &error, KP_ERR_INPUT, "metrics.jsonl:2:");
  assert_null(lines);
  check_fails(kp_jsonl_truncate_after(path, "step", 15, &error), &error, KP_ERR_INPUT, "metrics.jsonl:2:");
  expect_content(path, text);
}

static void test_a_full_disk_tears_no_line(void **state) {
  kp_error error = {0};
  const char *path = temporary_path(state, "metrics.jsonl");
  append_step(path, 1);
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit limited = {.rlim_cur = 30, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
  json_t *line = json_pack("{s:i, s:f}", "step", 2, "loss", 1.0);
  kp_status status = kp_jsonl_append(path, line, KP_JSON_FLOAT_DIGITS, &error);
  setrlimit(RLIMIT_FSIZE, &before);
  json_decref(line);
  assert_int_equal(status, KP_ERR_IO);
  expect_content(path, "{\"step\":1,\"loss\":0.5}\n");
}

#define with_folder(test) cmocka_unit_test_setup_teardown(test, temporary_create, temporary_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      with_folder(test_files_come_back),
      with_folder(test_errors_have_a_place),
      with_folder(test_lines_are_appended_and_read),
      with_folder(test_a_torn_line_is_dropped),
      with_folder(test_truncation_for_a_resumed_run),
      with_folder(test_a_bad_line_is_named),
      with_folder(test_a_full_disk_tears_no_line),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
