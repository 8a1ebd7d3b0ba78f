/* Files, and files that extend files. */
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_example.h"

static char folder[64];

static void path_of(const char *name, char path[128]) {
  snprintf(path, 128, "%s/%s", folder, name);
}

static void write_file(const char *name, const char *text) {
  char path[128];
  path_of(name, path);
  FILE *stream = fopen(path, "wb");
  assert_non_null(stream);
  assert_true(fputs(text, stream) >= 0);
  assert_int_equal(fclose(stream), 0);
}

static kp_status load(const char *name, kp_config **config, kp_error *error) {
  char path[128];
  path_of(name, path);
  return kp_config_load(path, &example_schema, NULL, 0, config, error);
}

/* `message` with "@/" for the folder. */
static void load_refused(const char *name, kp_status status, const char *message) {
  kp_config *config = NULL;
  kp_error error = {0};
  assert_int_equal(load(name, &config, &error), status);
  assert_null(config);
  char plain[1024];
  size_t used = 0, length = strlen(folder);
  for (const char *cursor = error.message; *cursor != 0;) {
    bool here = strncmp(cursor, folder, length) == 0;
    plain[used++] = here ? '@' : *cursor;
    cursor += here ? length : 1;
  }
  plain[used] = 0;
  assert_string_equal(plain, message);
}

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/kappa_config_XXXXXX");
  if (mkdtemp(folder) == NULL) return -1;
  char path[128];
  path_of("base", path);
  return mkdir(path, 0700);
}

static int remove_folder(void **state) {
  (void)state;
  static const char *const names[] = {"a.yaml", "b.yaml", "c.yaml", "base/a.yaml", "base/b.yaml"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    path_of(names[i], path);
    unlink(path);
  }
  for (int i = 0; i < 9; i++) {
    snprintf(path, sizeof path, "%s/%d.yaml", folder, i);
    unlink(path);
  }
  path_of("base", path);
  rmdir(path);
  return rmdir(folder);
}

static void test_later_files_stand_over_earlier(void **state) {
  (void)state;
  write_file("base/b.yaml", "data.path: base\nmodel: {layers: 1, heads: 1}\nseed: 1\n");
  write_file("base/a.yaml", "extends: b.yaml\nmodel.layers: 2\nmodel.heads: 2\n");
  write_file("a.yaml", "model.layers: 3\nextends: base/a.yaml\n");
  kp_config *config = NULL;
  kp_error error = {0};
  char path[128], expected[256];
  path_of("a.yaml", path);
  const char *const overrides[] = {"model.width=8"};
  check_ok(kp_config_load(path, &example_schema, overrides, 1, &config, &error), &error);
  assert_int_equal(kp_config_integer(config, "model.layers"), 3);
  assert_int_equal(kp_config_integer(config, "model.heads"), 2);
  assert_int_equal(kp_config_integer(config, "seed"), 1);
  assert_int_equal(kp_config_integer(config, "model.width"), 8);
  assert_string_equal(kp_config_string(config, "data.path"), "base");
  kp_config_fail(config, "model.heads", &error, "is even");
  snprintf(expected, sizeof expected, "%s/base/a.yaml:3: model.heads: is even", folder);
  assert_string_equal(error.message, expected);
  kp_config_destroy(config);
}

static void test_absolute_paths(void **state) {
  (void)state;
  char text[256];
  write_file("b.yaml", "data.path: here\n");
  snprintf(text, sizeof text, "extends: %s/b.yaml\n", folder);
  write_file("base/a.yaml", text);
  kp_config *config = NULL;
  kp_error error = {0};
  check_ok(load("base/a.yaml", &config, &error), &error);
  assert_string_equal(kp_config_string(config, "data.path"), "here");
  kp_config_destroy(config);
}

static void test_faults_name_their_file(void **state) {
  (void)state;
  load_refused("missing.yaml", KP_ERR_IO, "cannot open @/missing.yaml: No such file or directory");
  load_refused("base", KP_ERR_IO, "cannot read @/base: Is a directory");
  write_file("a.yaml", "data.path: x\nextends: missing.yaml\n");
  load_refused("a.yaml", KP_ERR_IO,
               "@/a.yaml:2: extends: cannot open @/missing.yaml: No such file or directory");
  write_file("b.yaml", "seed: x\n");
  write_file("a.yaml", "seed: 3\nextends: b.yaml\n");
  load_refused("a.yaml", KP_ERR_INPUT,
               "@/a.yaml:2: extends: @/b.yaml:1: seed: expected an integer, found 'x'");
  write_file("a.yaml", "extends: [b.yaml]\n");
  load_refused("a.yaml", KP_ERR_INPUT, "@/a.yaml:1: extends: expected the name of one file");
  write_file("a.yaml", "seed: 1\n");
  load_refused("a.yaml", KP_ERR_INPUT, "@/a.yaml: data.path: this key is required, a text (token file)");
}

static void test_circles_are_refused(void **state) {
  (void)state;
  write_file("a.yaml", "extends: b.yaml\n");
  write_file("b.yaml", "extends: base/../a.yaml\n");
  load_refused("a.yaml", KP_ERR_INPUT,
               "@/a.yaml:1: extends: @/b.yaml:1: extends: @/base/../a.yaml extends itself; break the circle");
}

static void test_long_chains_are_refused(void **state) {
  (void)state;
  char name[32], text[64];
  for (int i = 0; i < 8; i++) {
    snprintf(name, sizeof name, "%d.yaml", i);
    snprintf(text, sizeof text, "extends: %d.yaml\n", i + 1);
    write_file(name, text);
  }
  write_file("8.yaml", "data.path: x\n");
  kp_config *config = NULL;
  kp_error error = {0};
  check_ok(load("1.yaml", &config, &error), &error);
  kp_config_destroy(config);
  config = NULL;
  assert_int_equal(load("0.yaml", &config, &error), KP_ERR_INPUT);
  assert_null(config);
  assert_non_null(strstr(error.message, "8.yaml: more than 8 files extend each other"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_later_files_stand_over_earlier, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_absolute_paths, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_faults_name_their_file, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_circles_are_refused, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_long_chains_are_refused, make_folder, remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
