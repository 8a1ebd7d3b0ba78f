/* The catalogue, with a server of our own for downloads and small programs for texts that are printed. */
#include "data/fixture.h"

#include <ctype.h>

#include "data/catalogue.h"
#include "data/program_output.h"
#include "support/http_server.h"

static const char text[] = "A text of some lines,\nenough to be split\nin two parts.\n";

static void test_entries_are_sound(void **state) {
  (void)state;
  size_t count;
  const kp_data_set *sets = kp_catalogue(&count);
  assert_true(count >= 2);
  for (size_t i = 0; i < count; i++) {
    const kp_data_set *found = NULL;
    kp_error error = {0};
    check_ok(kp_catalogue_find(sets[i].name, &found, &error), &error);
    assert_ptr_equal(found, &sets[i]);
    assert_int_equal(strlen(sets[i].sha256), 64);
    for (const char *c = sets[i].sha256; *c != 0; c++) assert_true(isdigit(*c) || (*c >= 'a' && *c <= 'f'));
    assert_true(sets[i].size > 0 && sets[i].what != NULL && sets[i].source != NULL &&
                sets[i].licence != NULL);
    assert_true(sets[i].method == KP_DATA_PROGRAM ? sets[i].arguments != NULL && sets[i].package != NULL
                                                  : sets[i].url != NULL);
  }
  const kp_data_set *none = NULL;
  kp_error error = {0};
  assert_int_equal(kp_catalogue_find("bible", &none, &error), KP_ERR_INPUT);
  check_words(&error, "no data set 'bible'; known are kjv_char, shakespeare_char");
}

/* A set like the catalogue's, of the text above. */
static kp_data_set small_set(char sha256[KP_SHA256_HEX_SIZE]) {
  kp_sha256(text, strlen(text), sha256);
  return (kp_data_set){.name = "small",
                       .what = "a test",
                       .source = "here",
                       .licence = "CC0",
                       .size = (int64_t)strlen(text),
                       .sha256 = sha256};
}

static void test_download_from_a_mirror(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  char sha256[KP_SHA256_HEX_SIZE], mirror[128], folder[KP_PATH_SIZE];
  http_server server;
  setenv("no_proxy", "*", 1);
  assert_int_equal(http_server_start(&server, text, strlen(text)), 0);
  http_server_url(&server, "//", mirror, sizeof mirror);
  kp_data_set set = small_set(sha256);
  set.url = "https://example.invalid/some/where/file";
  kp_catalogue_options options = {.data_folder = files->folder, .mirror = mirror};
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_true(fresh);
  assert_string_equal(folder, fixture_path(files, "small"));
  assert_string_equal(prepared.text_sha256, sha256);
  assert_string_equal(prepared.licence, "CC0");
  check_ok(kp_prepared_read(folder, &prepared, &error), &error);
  /* Again: nothing is fetched, nothing written. */
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_false(fresh);
  assert_int_equal(server.log->requests, 1);
  /* The mirror may come from the environment, as the data folder. */
  setenv("KAPPA_MIRROR", mirror, 1);
  setenv("KAPPA_DATA", fixture_path(files, "other"), 1);
  check_ok(kp_catalogue_prepare(&set, &(kp_catalogue_options){0}, folder, &prepared, &fresh, &error), &error);
  assert_string_equal(folder, fixture_path(files, "other/small"));
  unsetenv("KAPPA_MIRROR");
  unsetenv("KAPPA_DATA");
  http_server_stop(&server);
}

static void test_failed_download_says_where_to_put_the_text(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  char sha256[KP_SHA256_HEX_SIZE], folder[KP_PATH_SIZE];
  kp_data_set set = small_set(sha256);
  set.url = "http://127.0.0.1:1/file";
  kp_catalogue_options options = {.data_folder = files->folder, .mirror = ""};
  setenv("no_proxy", "*", 1);
  assert_int_equal(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), KP_ERR_IO);
  check_words(&error, "data set small");
  check_words(&error, "small/input.txt");
  check_words(&error, "is there a network?");
  fixture_write(files, "small/input.txt", text, strlen(text));
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_true(fresh);
}

static void test_text_of_a_program(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  char sha256[KP_SHA256_HEX_SIZE], folder[KP_PATH_SIZE];
  const char *const arguments[] = {"printf", "%s", text, NULL};
  const char *const other[] = {"printf", "%s", "Another edition of the same text, somewhat different.", NULL};
  const char *const short_one[] = {"printf", "%s", "Not much", NULL};
  const char *const missing[] = {"kappa-has-no-such-program", NULL};
  kp_data_set set = small_set(sha256);
  set.method = KP_DATA_PROGRAM;
  set.package = "coreutils";
  kp_catalogue_options options = {.data_folder = files->folder};
  set.arguments = missing;
  assert_int_equal(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error),
                   KP_ERR_UNSUPPORTED);
  check_words(&error, "apt-get install coreutils");
  set.arguments = short_one;
  assert_int_equal(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), KP_ERR_INPUT);
  check_words(&error, "printed 8 bytes");
  set.arguments = other;
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_string_not_equal(prepared.text_sha256, sha256);
  set.arguments = arguments;
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_true(fresh);
  assert_string_equal(prepared.text_sha256, sha256);
  /* With the right text in place the program is not needed any more. */
  set.arguments = missing;
  check_ok(kp_catalogue_prepare(&set, &options, folder, &prepared, &fresh, &error), &error);
  assert_false(fresh);
}

static void test_program_output(void **state) {
  (void)state;
  kp_error error = {0};
  char *output = NULL;
  size_t size;
  const char *const large[] = {"head", "-c", "1000000", "/dev/zero", NULL};
  const char *const reader[] = {"cat", NULL};
  const char *const fails[] = {"false", NULL};
  const char *const killed[] = {"sh", "-c", "kill -9 $$", NULL};
  check_ok(kp_program_output(large, 1000000, &output, &size, &error), &error);
  assert_int_equal(size, 1000000);
  free(output);
  check_ok(kp_program_output(reader, 10, &output, &size, &error), &error);
  assert_string_equal(output, "");
  free(output);
  assert_int_equal(kp_program_output(large, 999999, &output, &size, &error), KP_ERR_INPUT);
  check_words(&error, "more than 999999 bytes");
  assert_int_equal(kp_program_output(fails, 10, &output, &size, &error), KP_ERR_IO);
  check_words(&error, "exit status 1");
  assert_int_equal(kp_program_output(killed, 10, &output, &size, &error), KP_ERR_IO);
  check_words(&error, "signal 9");
}

/* The catalogue's own entry, where Debian's package is installed. */
static void test_king_james(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  const kp_data_set *set = NULL;
  kp_prepared prepared;
  bool fresh;
  char folder[KP_PATH_SIZE];
  check_ok(kp_catalogue_find("kjv_char", &set, &error), &error);
  kp_catalogue_options options = {.data_folder = files->folder};
  kp_status status = kp_catalogue_prepare(set, &options, folder, &prepared, &fresh, &error);
  if (status == KP_ERR_UNSUPPORTED) {
    check_words(&error, "apt-get install bible-kjv");
    skip();
  }
  check_ok(status, &error);
  /* Another edition than Debian 12's may be installed; its size is close. */
  int64_t bytes = prepared.train.text_bytes + prepared.validation.text_bytes;
  assert_in_range(bytes, set->size - 50000, set->size + 50000);
  if (strcmp(prepared.text_sha256, set->sha256) != 0) return;
  assert_int_equal(bytes, set->size);
  assert_int_equal(prepared.vocabulary, 73);
  assert_int_equal(prepared.train.tokens, 3963970);
  assert_int_equal(prepared.validation.tokens, 440442);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_entries_are_sound),
      with_fixture(test_download_from_a_mirror),
      with_fixture(test_failed_download_says_where_to_put_the_text),
      with_fixture(test_text_of_a_program),
      cmocka_unit_test(test_program_output),
      with_fixture(test_king_james),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
