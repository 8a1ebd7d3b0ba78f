/* Texts in memory: what is understood, what is refused and in which words. */
#include "support/check.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_example.h"

static kp_status parse(const char *text, kp_config **config, kp_error *error) {
  return kp_config_parse(text, strlen(text), "a.yaml", &example_schema, NULL, 0, config, error);
}

static kp_config *parsed(const char *text) {
  kp_config *config = NULL;
  kp_error error = {0};
  check_ok(parse(text, &config, &error), &error);
  return config;
}

/* The text must be refused with this very message. */
static void refused(const char *text, const char *message) {
  kp_config *config = NULL;
  kp_error error = {0};
  assert_int_equal(parse(text, &config, &error), KP_ERR_INPUT);
  assert_null(config);
  assert_string_equal(error.message, message);
}

static void refused_with(const char *text, const char *part) {
  kp_config *config = NULL;
  kp_error error = {0};
  assert_int_equal(parse(text, &config, &error), KP_ERR_INPUT);
  assert_null(config);
  if (strstr(error.message, part) == NULL) fail_msg("'%s' lacks '%s'", error.message, part);
}

static void test_defaults(void **state) {
  (void)state;
  kp_config *config = parsed("data.path: x");
  size_t count = 0;
  assert_int_equal(kp_config_integer(config, "model.layers"), 12);
  assert_true(kp_config_real(config, "train.rate") == 6e-4);
  assert_true(kp_config_boolean(config, "model.tie"));
  assert_int_equal(kp_config_choice(config, "model.curvature.kind"), 0);
  assert_string_equal(kp_config_string(config, "data.note"), "");
  const double *values = kp_config_reals(config, "model.curvature.values", &count);
  assert_int_equal(count, 3);
  assert_true(values[0] == -1 && values[1] == 0 && values[2] == 1);
  assert_non_null(kp_config_integers(config, "train.milestones", &count));
  assert_int_equal(count, 0);
  assert_false(kp_config_is_set(config, "model.layers"));
  assert_true(kp_config_is_set(config, "data.path"));
  kp_config_destroy(config);
}

static void test_every_type_is_read(void **state) {
  (void)state;
  kp_config *config = parsed("seed: -9223372036854775808\n"
                             "model:\n"
                             "  layers: 24   # comment\n"
                             "  curvature: {kind: tied, values: [.5, -1e-3, 2.]}\n"
                             "  tie: false\n"
                             "train:\n"
                             "  rate: \"6e-4\"\n"
                             "  milestones:\n    - 10\n    - +20\n"
                             "data.path: no\n"
                             "data:\n  note: |\n    two\n    lines\n");
  size_t count = 0;
  assert_true(kp_config_integer(config, "seed") == INT64_MIN);
  assert_int_equal(kp_config_integer(config, "model.layers"), 24);
  assert_int_equal(kp_config_choice(config, "model.curvature.kind"), 2);
  const double *values = kp_config_reals(config, "model.curvature.values", &count);
  assert_int_equal(count, 3);
  assert_true(values[0] == 0.5 && values[1] == -1e-3 && values[2] == 2);
  assert_false(kp_config_boolean(config, "model.tie"));
  assert_true(kp_config_real(config, "train.rate") == 6e-4);
  const int64_t *steps = kp_config_integers(config, "train.milestones", &count);
  assert_int_equal(count, 2);
  assert_true(steps[0] == 10 && steps[1] == 20);
  assert_string_equal(kp_config_string(config, "data.path"), "no");
  assert_string_equal(kp_config_string(config, "data.note"), "two\nlines\n");
  kp_config_destroy(config);
}

static void test_sections_may_be_empty_or_marked(void **state) {
  (void)state;
  kp_config_destroy(parsed("\xef\xbb\xbf# byte order mark\ndata.path: x\nmodel:\n  # layers: 3\n"));
  kp_config_destroy(parsed("%YAML 1.2\n---\n{data: {path: x}, model: {}, train: ~}\n...\n"));
  refused("{}", "a.yaml: data.path: this key is required, a text (token file)");
  refused("", "a.yaml: the file is empty; write {} to take every default");
  refused("# nothing\n", "a.yaml: the file is empty; write {} to take every default");
  refused("---\n", "a.yaml:2:1: expected lines of the form 'key: value'");
  refused("- 1\n", "a.yaml:1:1: expected lines of the form 'key: value'");
}

static void test_unknown_keys_are_refused(void **state) {
  (void)state;
  refused("data.path: x\nmodel:\n  layer: 3\n",
          "a.yaml:3: model.layer: unknown key; did you mean 'model.layers'?");
  refused("modle:\n  layers: 3\n", "a.yaml:2: modle.layers: unknown key; did you mean 'model.layers'?");
  refused("layers: 3\n", "a.yaml:1: layers: unknown key; did you mean 'model.layers'?");
  refused("optimizer: adam\n", "a.yaml:1: optimizer: unknown key");
  refused("optimizer: {}\n", "a.yaml:1: optimizer: unknown key");
  refused("model: 3\n", "a.yaml:1: model: expected a section with keys of its own, found the integer 3");
  refused("model.tie.head: true\n",
          "a.yaml:1: model.tie.head: unknown key; model.tie is true or false and has no keys of its own");
}

static void test_duplicates_are_refused(void **state) {
  (void)state;
  refused("seed: 1\nseed: 1\n", "a.yaml:2:1: seed: this key already stands in line 1");
  refused("model: {layers: 3}\nmodel.layers: 3\n",
          "a.yaml:2:1: model.layers: this key already stands in line 1");
  refused("model: {layers: 3}\ntrain: {}\nmodel: {heads: 3}\n",
          "a.yaml:3:1: model: this key already stands in line 1");
}

static void test_types_are_checked(void **state) {
  (void)state;
  refused("model.layers: 1.5", "a.yaml:1: model.layers: expected an integer, found the number 1.5");
  refused("model.layers: many", "a.yaml:1: model.layers: expected an integer, found 'many'");
  refused("model.layers: 0x10", "a.yaml:1: model.layers: expected an integer, found '0x10'");
  refused("model.layers: 1_000",
          "a.yaml:1: model.layers: expected an integer, found '1_000'; write numbers without '_'");
  refused("model.layers:", "a.yaml:1: model.layers: expected an integer, found nothing");
  refused("model.layers: null", "a.yaml:1: model.layers: expected an integer, found nothing");
  refused("model.layers: [3]", "a.yaml:1: model.layers: expected an integer, found a list");
  refused("model.layers: {n: 3}", "a.yaml:1: model.layers: expected an integer, found a mapping");
  refused("seed: 9223372036854775808",
          "a.yaml:1: seed: 9223372036854775808 is too large for a 64-bit integer");
  refused("train.offset: .inf",
          "a.yaml:1: train.offset: expected a real number, found '.inf'; numbers must be finite");
  refused("train.offset: nan",
          "a.yaml:1: train.offset: expected a real number, found 'nan'; numbers must be finite");
  refused("train.offset: 1e999", "a.yaml:1: train.offset: 1e999 is too large for a double");
  refused("train.offset: 1e-999", "a.yaml:1: train.offset: 1e-999 is too small for a double");
  refused("train.offset: 1,5", "a.yaml:1: train.offset: expected a real number, found '1,5'");
  refused("model.tie: yes", "a.yaml:1: model.tie: expected true or false, found 'yes'; write true");
  refused("model.tie: False", "a.yaml:1: model.tie: expected true or false, found 'False'; write false");
  refused("model.tie: 1", "a.yaml:1: model.tie: expected true or false, found the integer 1");
  refused("data.path: ~",
          "a.yaml:1: data.path: expected a text, found nothing; write \"\" for the empty text");
  refused("data.path: [a]", "a.yaml:1: data.path: expected a text, found a list");
  refused("train.betas: 0.9",
          "a.yaml:1: train.betas: expected a list of real numbers, found the number 0.9; write it as [1, 2]");
  refused("train.betas: [0.9, x]", "a.yaml:1: train.betas: item 2: expected a real number, found 'x'");
  refused("train.milestones: [1, 2.5]",
          "a.yaml:1: train.milestones: item 2: expected an integer, found the number 2.5");
}

static void test_long_values_are_cut_in_messages(void **state) {
  (void)state;
  refused("model.layers: \"a\\n0123456789012345678901234567890123456789012345678901234567890123456789\"",
          "a.yaml:1: model.layers: expected an integer, found "
          "'a 012345678901234567890123456789012345678901234567890123...'");
  /* Never within a character: here the 56th byte is the first of two. */
  refused("model.layers: 1234567890123456789012345678901234567890123456789012345\xce\xba\xce\xba",
          "a.yaml:1: model.layers: expected an integer, found "
          "'1234567890123456789012345678901234567890123456789012345\xce\xba...'");
}

static void test_ranges_are_checked(void **state) {
  (void)state;
  refused("model.layers: 0", "a.yaml:1: model.layers: 0 lies outside the range [1, 512]");
  refused("model.layers: 513", "a.yaml:1: model.layers: 513 lies outside the range [1, 512]");
  refused("train.rate: 0.0", "a.yaml:1: train.rate: 0.0 lies outside the range (0, 1]");
  refused("train.betas: [0.9, 1]", "a.yaml:1: train.betas: item 2: 1 lies outside the range [0, 1)");
  refused("train.clip: -1", "a.yaml:1: train.clip: -1 lies outside the range (0, inf)");
  kp_config *config = parsed("{data.path: x, model.layers: 512, train.rate: 1, train.betas: [0, 0.999999]}");
  assert_int_equal(kp_config_integer(config, "model.layers"), 512);
  assert_true(kp_config_real(config, "train.rate") == 1);
  kp_config_destroy(config);
}

static void test_choices_are_checked(void **state) {
  (void)state;
  refused("model.curvature.kind: fxied", "a.yaml:1: model.curvature.kind: expected one of fixed, parametric, "
                                         "tied, random; found 'fxied'; did you mean 'fixed'?");
  refused("model.curvature.kind: flat", "a.yaml:1: model.curvature.kind: expected one of fixed, parametric, "
                                        "tied, random; found 'flat'");
  refused("model.curvature.kind: fix", "a.yaml:1: model.curvature.kind: expected one of fixed, parametric, "
                                       "tied, random; found 'fix'");
}

static void test_syntax_errors_have_a_place(void **state) {
  (void)state;
  refused_with("seed: 1\nmodel: [1, 2\n", "a.yaml:3:1: did not find expected ',' or ']'");
  refused_with("model:\n\tlayers: 3\n", "a.yaml:2:1: found character that cannot start any token");
  refused_with("model:\n\tlayers: 3\n", "; indent with spaces, not tabs");
  refused_with("seed: 'x\n", "a.yaml:2:1: found unexpected end of stream");
  refused_with("seed: 1\nabc\n", "a.yaml:");
  refused("data.path: caf\xe9 and more\n",
          "a.yaml:1:16: invalid trailing UTF-8 octet; the text must be UTF-8 without "
          "control characters");
  refused_with("\xff\xfes\0e\0", "a.yaml:1:1: invalid leading UTF-8 octet");
  refused_with("seed: 1\ndata.path: \x01\n", "a.yaml:2:12: control characters are not allowed");
}

static void test_the_rest_of_yaml_is_refused(void **state) {
  (void)state;
  refused("seed: &a 1\n",
          "a.yaml:1:7: anchors (&name) are not supported; write the value again where it is needed");
  refused("model: &a {layers: 3}\n",
          "a.yaml:1:8: anchors (&name) are not supported; write the value again where it is needed");
  refused("seed: *a\n", "a.yaml:1:7: aliases (*name) are not supported; write the value again");
  refused("seed: !!int 1\n",
          "a.yaml:1:7: tags (!type) are not supported; the schema knows the type of every key");
  refused("seed: 1\n---\nseed: 2\n", "a.yaml:2:1: more than one document; put them in files of their own");
  refused("train.betas: [[1], 2]\n", "a.yaml:1:15: a list may hold numbers and texts only");
  refused("[1, 2]: 3\n", "a.yaml:1:1: a key must be a word");
  refused("? {a: 1}\n: 3\n", "a.yaml:1:3: a key must be a word");
  refused("data.path: \"a\\0b\"\n", "a.yaml:1:12: a text with a zero byte");
  refused("extends: b.yaml\n", "a.yaml:1: extends: only a file can extend another");
}

static void test_limits(void **state) {
  (void)state;
  refused("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "a.yaml:1:32: nested deeper than 8 levels");
  size_t size = (1 << 20) + 2;
  char *text = malloc(size);
  assert_non_null(text);
  memset(text, ' ', size);
  memcpy(text, "data.path: x #", 14);
  text[size - 1] = 0;
  refused(text, "a.yaml:1:1: a configuration of more than 1 MiB");
  text[size - 2] = 0;
  kp_config_destroy(parsed(text));
  memset(text, 'k', 201);
  memcpy(text + 201, ": 1", 4);
  refused(text, "a.yaml:1:1: a key of more than 200 bytes");
  memcpy(text, "data.path: ", 11);
  memset(text + 11, 'x', 4097);
  text[11 + 4097] = 0;
  refused(text, "a.yaml:1:12: a text of more than 4096 bytes");
  text[11 + 4096] = 0;
  kp_config_destroy(parsed(text));
  size_t used = 0;
  for (int i = 0; i < 2049; i++) used += (size_t)sprintf(text + used, "k%d: 1\n", i);
  refused(text, "a.yaml:2049:1: more than 2048 keys");
  used = (size_t)sprintf(text, "train.milestones: [1");
  for (int i = 0; i < 4096; i++) used += (size_t)sprintf(text + used, ",1");
  memcpy(text + used, "]", 2);
  refused(text, "a.yaml:1:8212: more than 4096 items");
  free(text);
}

static void test_overrides(void **state) {
  (void)state;
  const char *const overrides[] = {"model.layers=3", "model.layers=4", "train.betas=[0.5, 0.25]",
                                   "data.path=/a b/c=d", "data.note=\"\""};
  const char *text = "model.layers: 2";
  kp_config *config = NULL;
  kp_error error = {0};
  size_t count = 0;
  check_ok(kp_config_parse(text, strlen(text), "a.yaml", &example_schema, overrides, 5, &config, &error),
           &error);
  assert_int_equal(kp_config_integer(config, "model.layers"), 4);
  assert_true(kp_config_reals(config, "train.betas", &count)[1] == 0.25);
  assert_string_equal(kp_config_string(config, "data.path"), "/a b/c=d");
  assert_true(kp_config_is_set(config, "data.note"));
  check_ok(kp_config_set(config, "heads=3", &error), &error); /* the last word of one key alone */
  assert_int_equal(kp_config_integer(config, "model.heads"), 3);
  kp_config_destroy(config);
}

static void set_refused(kp_config *config, const char *assignment, const char *message) {
  kp_error error = {0};
  assert_int_equal(kp_config_set(config, assignment, &error), KP_ERR_INPUT);
  assert_string_equal(error.message, message);
}

static void test_wrong_overrides_change_nothing(void **state) {
  (void)state;
  kp_config *config = parsed("data.path: x\nmodel.layers: 7\n");
  set_refused(config, "model.layers=0", "--set model.layers: 0 lies outside the range [1, 512]");
  set_refused(config, "model.layers", "--set model.layers: expected key=value");
  set_refused(config, "=3", "--set =3: expected key=value");
  set_refused(config, "model.layer=3", "--set model.layer: unknown key; did you mean 'model.layers'?");
  set_refused(config,
              "data.path=", "--set data.path: expected a text, found nothing; write \"\" for the empty text");
  set_refused(config, "data.path={a: 1}",
              "--set data.path: column 1: expected one value or [a, list], found a mapping");
  set_refused(config, "data.path=&a x",
              "--set data.path: column 1: anchors (&name) are not supported; write the value again where it "
              "is needed");
  set_refused(config, "extends=b.yaml", "--set extends: unknown key");
  set_refused(config, "layers=0", "--set model.layers: 0 lies outside the range [1, 512]");
  set_refused(config, "train.betas=[0.1, 2]", "--set train.betas: item 2: 2 lies outside the range [0, 1)");
  assert_int_equal(kp_config_integer(config, "model.layers"), 7);
  assert_string_equal(kp_config_string(config, "data.path"), "x");
  kp_error error = {0};
  check_ok(kp_config_set(config, "data.path=y", &error), &error);
  assert_string_equal(kp_config_string(config, "data.path"), "y");
  kp_config_destroy(config);
}

static void test_later_checks_know_the_origin(void **state) {
  (void)state;
  kp_error error = {0};
  kp_config *config = parsed("data.path: x\n\nmodel:\n  heads: 5\n");
  assert_int_equal(kp_config_fail(config, "model.heads", &error, "%d does not divide model.width %d", 5, 384),
                   KP_ERR_INPUT);
  assert_string_equal(error.message, "a.yaml:4: model.heads: 5 does not divide model.width 384");
  kp_config_fail(config, "model.width", &error, "is odd");
  assert_string_equal(error.message, "a.yaml: model.width (its default): is odd");
  check_ok(kp_config_set(config, "model.heads=7", &error), &error);
  kp_config_fail(config, "model.heads", &error, "is odd");
  assert_string_equal(error.message, "--set model.heads: is odd");
  kp_config_destroy(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test(test_every_type_is_read),
      cmocka_unit_test(test_sections_may_be_empty_or_marked),
      cmocka_unit_test(test_unknown_keys_are_refused),
      cmocka_unit_test(test_duplicates_are_refused),
      cmocka_unit_test(test_types_are_checked),
      cmocka_unit_test(test_long_values_are_cut_in_messages),
      cmocka_unit_test(test_ranges_are_checked),
      cmocka_unit_test(test_choices_are_checked),
      cmocka_unit_test(test_syntax_errors_have_a_place),
      cmocka_unit_test(test_the_rest_of_yaml_is_refused),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_overrides),
      cmocka_unit_test(test_wrong_overrides_change_nothing),
      cmocka_unit_test(test_later_checks_know_the_origin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
