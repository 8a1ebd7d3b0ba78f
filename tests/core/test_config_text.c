/* The resolved configuration as text, its hash, and the table of all keys. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_example.h"

static kp_config *parsed(const char *text) {
  kp_config *config = NULL;
  kp_error error = {0};
  check_ok(kp_config_parse(text, strlen(text), "a.yaml", &example_schema, NULL, 0, &config, &error), &error);
  return config;
}

static char *text_of(const kp_config *config) {
  char *text = NULL;
  size_t size = 0;
  kp_error error = {0};
  check_ok(kp_config_text(config, &text, &size, &error), &error);
  assert_int_equal(strlen(text), size);
  return text;
}

static void test_text_is_nested_and_ordered(void **state) {
  (void)state;
  kp_config *config =
      parsed("data.path: runs/1\ntrain.rate: 1e-5\nmodel.curvature: {values: [], kind: random}\n");
  char *text = text_of(config);
  assert_string_equal(text, "seed: 1\n"
                            "model:\n"
                            "  layers: 12\n"
                            "  heads: 6\n"
                            "  curvature:\n"
                            "    kind: random\n"
                            "    values: []\n"
                            "  tie: true\n"
                            "  width: 384\n"
                            "train:\n"
                            "  rate: 1.0e-05\n"
                            "  betas: [0.9, 0.95]\n"
                            "  clip: 1.0\n"
                            "  milestones: []\n"
                            "  offset: 0.0\n"
                            "data:\n"
                            "  path: \"runs/1\"\n"
                            "  note: \"\"\n");
  free(text);
  kp_config_destroy(config);
}

static void test_text_reads_back(void **state) {
  (void)state;
  kp_config *config =
      parsed("seed: 9223372036854775807\n"
             "model.curvature.values: [0.1, -0.30000000000000004, 5e-324, -0.0, 2.2250738585072014e-308]\n"
             "train: {offset: 1.7976931348623157e308, milestones: [1, 20, 300]}\n"
             "data:\n"
             "  path: \"null\"\n"
             "  note: \" a\\n\\t\\\"\\\\\\x01\\e\\N\\L\\P\\_\\uFEFF\\uFFFE \xce\xba \\U0001F600: # \"\n");
  char *text = text_of(config);
  kp_config *again = parsed(text);
  char *text_again = text_of(again);
  assert_string_equal(text, text_again);
  assert_string_equal(kp_config_string(again, "data.path"), "null");
  assert_string_equal(kp_config_string(again, "data.note"), kp_config_string(config, "data.note"));
  size_t count = 0, count_again = 0;
  const double *values = kp_config_reals(config, "model.curvature.values", &count);
  const double *values_again = kp_config_reals(again, "model.curvature.values", &count_again);
  assert_int_equal(count, 5);
  assert_int_equal(count_again, 5);
  assert_memory_equal(values, values_again, 5 * sizeof *values);
  assert_true(signbit(values_again[3]));
  assert_true(kp_config_integer(again, "seed") == INT64_MAX);
  assert_true(kp_config_real(again, "train.offset") == 1.7976931348623157e308);
  assert_true(kp_config_hash(config) == kp_config_hash(again));
  free(text);
  free(text_again);
  kp_config_destroy(config);
  kp_config_destroy(again);
}

static void test_hash_follows_the_values(void **state) {
  (void)state;
  kp_error error = {0};
  kp_config *config = parsed("data: {path: x}\nmodel: {layers: 3}\n");
  kp_config *other = parsed("# another order\nmodel.layers: +3\ndata.path: 'x'\n");
  uint64_t hash = kp_config_hash(config);
  assert_true(hash == kp_config_hash(other));
  check_ok(kp_config_set(other, "seed=2", &error), &error);
  assert_true(hash != kp_config_hash(other));
  kp_config_destroy(config);
  kp_config_destroy(other);
}

static void test_hash_is_fnv(void **state) {
  (void)state;
  static const kp_config_row rows[] = {{"a", KP_CONFIG_INTEGER, "1", NULL, "a number"}};
  static const kp_config_table table = {rows, 1};
  static const kp_config_table *const tables[] = {&table};
  static const kp_schema schema = {.tables = tables, .count = 1};
  kp_config *config = NULL;
  kp_error error = {0};
  check_ok(kp_config_parse("{}", 2, "a.yaml", &schema, NULL, 0, &config, &error), &error);
  /* FNV-1a of "a: 1\n", computed apart from this program. */
  assert_true(kp_config_hash(config) == UINT64_C(0xc2dffb5d14281c4d));
  kp_config_destroy(config);
}

static void test_describe(void **state) {
  (void)state;
  char *text = NULL;
  size_t size = 0;
  kp_error error = {0};
  check_ok(kp_config_describe(&example_schema, &text, &size, &error), &error);
  assert_int_equal(strlen(text), size);
  size_t lines = 0;
  for (const char *cursor = text; (cursor = strchr(cursor, '\n')) != NULL; cursor++) lines++;
  assert_int_equal(lines, kp_schema_size(&example_schema) + 1);
  assert_ptr_equal(strstr(text, "key "), text);
  assert_non_null(strstr(text, "\nmodel.layers            integer   12           [1, 512]    "));
  assert_non_null(strstr(text, "\ndata.path               text      (required)   any    "));
  assert_non_null(strstr(text, " fixed|parametric|tied|random  how it is learned\n"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_text_is_nested_and_ordered),
      cmocka_unit_test(test_text_reads_back),
      cmocka_unit_test(test_hash_follows_the_values),
      cmocka_unit_test(test_hash_is_fnv),
      cmocka_unit_test(test_describe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
