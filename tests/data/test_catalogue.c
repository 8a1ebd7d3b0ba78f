/* The catalogue, with a server of our own for downloads and small programs for texts that are printed. */
#include "data/fixture.h"

#include <ctype.h>

#include "data/catalogue.h"
#include "data/program_output.h"
#include "support/http_server.h"

static const char text[] = "A text of some lines,\nenough to be split\nin two parts.\n";

static void check_digits(const char *sha256) {
  assert_int_equal(strlen(sha256), 64);
  for (const char *c = sha256; *c != 0; c++) assert_true(isdigit(*c) || (*c >= 'a' && *c <= 'f'));
}

/* Each kind of set says what it must. */
static void check_kind(const kp_data_set *set) {
  switch (set->kind) {
  case KP_DATA_SHARDS: assert_true(set->shards > 0 && set->shard_url != NULL); break;
  case KP_DATA_PIPE: assert_true(set->rows != NULL && set->files[0].url == NULL); break;
  default:
    assert_non_null(set->files[0].sha256);
    assert_true(set->arguments != NULL ? set->package != NULL : set->files[0].url != NULL);
  }
}

static void test_entries_are_sound(void **state) {
  (void)state;
  size_t count;
  const kp_data_set *sets = kp_catalogue(&count);
  assert_int_equal(count, 15);
  for (size_t i = 0; i < count; i++) {
    const kp_data_set *found = NULL;
    kp_error error = {0};
    check_ok(kp_catalogue_find(sets[i].name, &found, &error), &error);
    assert_ptr_equal(found, &sets[i]);
    assert_true(sets[i].what != NULL && sets[i].source != NULL && sets[i].licence != NULL);
    for (size_t f = 0; f < KP_DATA_FILES; f++) {
      if (sets[i].files[f].sha256 != NULL) check_digits(sets[i].files[f].sha256);
      if (sets[i].files[f].url != NULL) assert_int_equal(strncmp(sets[i].files[f].url, "https://", 8), 0);
    }
    check_kind(&sets[i]);
  }
  const kp_data_set *none = NULL;
  kp_error error = {0};
  assert_int_equal(kp_catalogue_find("bible", &none, &error), KP_ERR_INPUT);
  check_words(&error, "no data set 'bible'; known are kjv_char, shakespeare_char");
  check_words(&error, "oasst1");
}

/* A set like the catalogue's, of the text above. */
static kp_data_set small_set(char sha256[KP_SHA256_HEX_SIZE]) {
  kp_sha256(text, strlen(text), sha256);
  return (kp_data_set){.name = "small",
                       .what = "a test",
                       .source = "here",
                       .licence = "CC0",
                       .kind = KP_DATA_TEXT,
                       .files = {{NULL, (int64_t)strlen(text), sha256}}};
}

static void test_download_from_a_mirror(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_catalogue_report report;
  char sha256[KP_SHA256_HEX_SIZE], mirror[128];
  http_server server;
  setenv("no_proxy", "*", 1);
  assert_int_equal(http_server_start(&server, text, strlen(text)), 0);
  http_server_url(&server, "//", mirror, sizeof mirror);
  kp_data_set set = small_set(sha256);
  set.files[0].url = "https://example.invalid/some/where/file";
  kp_catalogue_options options = {.data_folder = files->folder, .mirror = mirror};
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_true(report.fresh && !report.other_edition);
  assert_string_equal(report.folder, fixture_path(files, "small"));
  assert_string_equal(report.prepared.text_sha256, sha256);
  assert_string_equal(report.prepared.licence, "CC0");
  check_ok(kp_prepared_read(report.folder, &report.prepared, &error), &error);
  /* Again: nothing is fetched, nothing written. */
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_false(report.fresh);
  assert_int_equal(server.log->requests, 1);
  /* The mirror may come from the environment, as the data folder. */
  setenv("KAPPA_MIRROR", mirror, 1);
  setenv("KAPPA_DATA", fixture_path(files, "other"), 1);
  check_ok(kp_catalogue_prepare(&set, &(kp_catalogue_options){0}, &report, &error), &error);
  assert_string_equal(report.folder, fixture_path(files, "other/small"));
  unsetenv("KAPPA_MIRROR");
  unsetenv("KAPPA_DATA");
  http_server_stop(&server);
}

static void test_failed_download_says_where_to_put_the_text(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_catalogue_report report;
  char sha256[KP_SHA256_HEX_SIZE];
  kp_data_set set = small_set(sha256);
  set.files[0].url = "http://127.0.0.1:1/file";
  kp_catalogue_options options = {.data_folder = files->folder, .mirror = ""};
  setenv("no_proxy", "*", 1);
  assert_int_equal(kp_catalogue_prepare(&set, &options, &report, &error), KP_ERR_IO);
  check_words(&error, "data set small");
  check_words(&error, "small/input.txt");
  check_words(&error, "is there a network?");
  fixture_write(files, "small/input.txt", text, strlen(text));
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_true(report.fresh);
}

static void test_text_of_a_program(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_catalogue_report report;
  char sha256[KP_SHA256_HEX_SIZE];
  const char *const arguments[] = {"printf", "%s", text, NULL};
  const char *const other[] = {"printf", "%s", "Another edition of the same text, somewhat different.", NULL};
  const char *const short_one[] = {"printf", "%s", "Not much", NULL};
  const char *const missing[] = {"kappa-has-no-such-program", NULL};
  kp_data_set set = small_set(sha256);
  set.package = "coreutils";
  kp_catalogue_options options = {.data_folder = files->folder};
  set.arguments = missing;
  assert_int_equal(kp_catalogue_prepare(&set, &options, &report, &error), KP_ERR_UNSUPPORTED);
  check_words(&error, "apt-get install coreutils");
  set.arguments = short_one;
  assert_int_equal(kp_catalogue_prepare(&set, &options, &report, &error), KP_ERR_INPUT);
  check_words(&error, "printed 8 bytes");
  set.arguments = other;
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_true(report.other_edition);
  set.arguments = arguments;
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_true(report.fresh && !report.other_edition);
  assert_string_equal(report.prepared.text_sha256, sha256);
  /* With the right text in place the program is not needed any more. */
  set.arguments = missing;
  check_ok(kp_catalogue_prepare(&set, &options, &report, &error), &error);
  assert_false(report.fresh);
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
  kp_catalogue_report report;
  const kp_prepared *prepared = &report.prepared;
  check_ok(kp_catalogue_find("kjv_char", &set, &error), &error);
  kp_catalogue_options options = {.data_folder = files->folder};
  kp_status status = kp_catalogue_prepare(set, &options, &report, &error);
  if (status == KP_ERR_UNSUPPORTED) {
    check_words(&error, "apt-get install bible-kjv");
    skip();
  }
  check_ok(status, &error);
  /* Another edition than Debian 12's may be installed; its size is close. */
  int64_t bytes = prepared->train.text_bytes + prepared->validation.text_bytes;
  assert_in_range(bytes, set->files[0].size - 50000, set->files[0].size + 50000);
  if (report.other_edition) return;
  assert_int_equal(bytes, set->files[0].size);
  assert_int_equal(prepared->vocabulary, 73);
  assert_int_equal(prepared->train.tokens, 3963970);
  assert_int_equal(prepared->validation.tokens, 440442);
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
