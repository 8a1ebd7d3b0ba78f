/* A user's text to a prepared folder, and the state of such folders. */
#include "data/fixture.h"

#include "data/prepare.h"
#include "data/token_file.h"

/* 100 characters, some of several bytes; the ninetieth and the ninety-first are the euro and the e acute. */
static char *hundred_characters(void) {
  char *text = calloc(1, 512);
  assert_non_null(text);
  for (int i = 0; i < 100; i++)
    strcat(text, i == 89 ? "\xE2\x82\xAC" : i == 90 ? "\xC3\xA9" : i % 10 == 9 ? "\n" : "x");
  return text;
}

static const char *write_hundred(fixture *files, const char *name) {
  char *text = hundred_characters();
  const char *path = fixture_write(files, name, text, strlen(text));
  free(text);
  return path;
}

static char *decode_stream(const char *folder, const char *split, size_t *size) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  kp_tokenizer *tokenizer = NULL;
  char *text = NULL;
  check_ok(kp_tokens_open(&folder, 1, split, &tokens, &error), &error);
  check_ok(kp_tokenizer_open(folder, &tokenizer, &error), &error);
  check_ok(kp_tokens_check_tokenizer(tokens, tokenizer, &error), &error);
  check_ok(kp_tokens_check(tokens, tokenizer->vocabulary, &error), &error);
  int64_t count = kp_tokens_count(tokens);
  int32_t *ids = malloc((size_t)count * sizeof *ids);
  assert_non_null(ids);
  kp_tokens_copy(tokens, 0, count, ids);
  check_ok(kp_tokenizer_decode(tokenizer, ids, (size_t)count, &text, size, &error), &error);
  assert_int_equal(kp_tokens_text_bytes(tokens), *size);
  free(ids);
  kp_tokens_destroy(tokens);
  kp_tokenizer_destroy(tokenizer);
  return text;
}

static void test_split_at_a_character(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared, read;
  bool fresh = false;
  const char *texts[] = {write_hundred(files, "text.txt")};
  kp_prepare_options options = {.texts = texts, .text_count = 1, .folder = fixture_path(files, "deep/set/")};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(prepared.train.tokens, 90);
  assert_int_equal(prepared.validation.tokens, 10);
  assert_int_equal(prepared.vocabulary, 4);
  assert_string_equal(prepared.name, "set");
  assert_string_equal(prepared.source, texts[0]);
  size_t train_size, size;
  char *train = decode_stream(options.folder, "train", &train_size);
  char *validation = decode_stream(options.folder, "val", &size), *whole = hundred_characters();
  assert_int_equal(train_size, 92);
  assert_int_equal(train_size + size, strlen(whole));
  assert_memory_equal(train, whole, train_size);
  assert_memory_equal(validation, whole + train_size, size);
  check_ok(kp_prepared_read(options.folder, &read, &error), &error);
  assert_memory_equal(&read.train, &prepared.train, sizeof read.train);
  assert_string_equal(read.text_sha256, prepared.text_sha256);
  assert_true(read.fingerprint == prepared.fingerprint);
  free(train);
  free(validation);
  free(whole);
}

static void test_whole_sets_are_left_alone(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared first, second;
  bool fresh;
  const char *texts[] = {write_hundred(files, "text.txt")};
  kp_prepare_options options = {
      .texts = texts, .text_count = 1, .folder = fixture_path(files, "set"), .train_fraction = 1.0 / 3};
  check_ok(kp_prepare(&options, &first, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(first.train.tokens, 33);
  check_ok(kp_prepare(&options, &second, &fresh, &error), &error);
  assert_false(fresh);
  assert_memory_equal(&first.train, &second.train, sizeof first.train);
  options.train_fraction = 0.5;
  check_ok(kp_prepare(&options, &second, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(second.train.tokens, 50);
  fixture_write(files, "text.txt", "another text\n", 13);
  check_ok(kp_prepare(&options, &second, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(second.train.tokens, 6);
}

static void test_damaged_sets_are_made_again(void **state) {
  fixture *files = *state;
  static const char *const damaged[] = {"set/train.bin", "set/val.bin", "set/tokenizer.json"};
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  const char *texts[] = {write_hundred(files, "text.txt")};
  kp_prepare_options options = {.texts = texts, .text_count = 1, .folder = fixture_path(files, "set")};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  for (int i = 0; i < 3; i++) {
    size_t size;
    char *content = fixture_read(fixture_path(files, damaged[i]), &size);
    content[size - 2] ^= 1;
    fixture_write(files, damaged[i], content, size);
    free(content);
    check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
    assert_true(fresh);
    assert_int_equal(unlink(fixture_path(files, damaged[i])), 0);
    check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
    assert_true(fresh);
    check_ok(kp_prepared_verify(options.folder, &prepared, &error), &error);
  }
}

static void test_half_a_set_is_never_whole(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  const char *texts[] = {write_hundred(files, "text.txt")}, *folder = fixture_path(files, "set");
  kp_prepare_options options = {.texts = texts, .text_count = 1, .folder = folder};
  assert_int_not_equal(kp_prepared_read(folder, &prepared, &error), KP_OK);
  check_words(&error, "holds no prepared data");
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  check_ok(kp_prepared_begin(folder, &error), &error);
  assert_int_equal(kp_prepared_state_of(folder), KP_PREPARED_PARTIAL);
  assert_int_not_equal(kp_prepared_read(folder, &prepared, &error), KP_OK);
  check_words(&error, "only in part");
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(kp_prepared_state_of(folder), KP_PREPARED_COMPLETE);
  assert_int_equal(truncate(fixture_path(files, "set/val.bin"), 1030), 0);
  assert_int_not_equal(kp_prepared_read(folder, &prepared, &error), KP_OK);
  check_words(&error, "val.bin has 1030 bytes, data.json says 1044");
}

static void test_foreign_files_are_never_replaced(void **state) {
  fixture *files = *state;
  static const char *const names[] = {"train.bin", "val.bin", "tokenizer.json", "data.json"};
  const char *texts[] = {write_hundred(files, "text.txt")};
  for (int i = 0; i < 4; i++) {
    kp_error error = {0};
    kp_prepared prepared;
    bool fresh;
    const char *path = fixture_write(files, names[i], "{\"precious\": 1}", 15);
    kp_prepare_options options = {.texts = texts, .text_count = 1, .folder = files->folder};
    assert_int_equal(kp_prepare(&options, &prepared, &fresh, &error), KP_ERR_INPUT);
    check_words(&error, "never replaced");
    size_t size;
    char *content = fixture_read(path, &size);
    assert_string_equal(content, "{\"precious\": 1}");
    free(content);
    unlink(path);
  }
}

static void test_several_texts_and_one_for_validation(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  const char *texts[] = {fixture_write(files, "a.txt", "abc", 3), fixture_write(files, "b.txt", "cd\n", 3)};
  kp_prepare_options options = {.texts = texts,
                                .text_count = 2,
                                .validation = fixture_write(files, "v.txt", "xyz", 3),
                                .folder = fixture_path(files, "set"),
                                .name = "mine",
                                .source = "my own",
                                .licence = "CC0"};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_int_equal(prepared.vocabulary, 8);
  assert_string_equal(prepared.name, "mine");
  assert_true(prepared.train_fraction == 1);
  size_t size;
  char *text = decode_stream(options.folder, "train", &size);
  assert_string_equal(text, "abccd\n");
  free(text);
  text = decode_stream(options.folder, "val", &size);
  assert_string_equal(text, "xyz");
  free(text);
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_false(fresh);
}

static void test_bad_texts(void **state) {
  fixture *files = *state;
  static const struct {
    const char *content, *words;
    double fraction;
  } cases[] = {
      {"", "text.txt: it is empty", 0},
      {"fine\n\xFF", "text.txt: byte 0xFF at offset 5 (line 2)", 0},
      {"PAR1\x15", "text.txt is a Parquet file; pass its rows on as JSON lines", 0},
      {"abc", "2 characters for training and 1 for validation", 0},
      {"enough text", "train fraction is 1; it must lie between", 1},
      {"enough text", "train fraction is -0.5", -0.5},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    kp_error error = {0};
    kp_prepared prepared;
    bool fresh;
    const char *texts[] = {fixture_write(files, "text.txt", cases[i].content, strlen(cases[i].content))};
    kp_prepare_options options = {.texts = texts,
                                  .text_count = 1,
                                  .train_fraction = cases[i].fraction,
                                  .folder = fixture_path(files, "set")};
    assert_int_not_equal(kp_prepare(&options, &prepared, &fresh, &error), KP_OK);
    check_words(&error, cases[i].words);
    assert_int_equal(access(options.folder, F_OK), -1);
  }
}

static void test_names_that_are_not_text(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_prepared prepared;
  bool fresh;
  char licence[600];
  for (int i = 0; i < 299; i++) memcpy(licence + 2 * i, "\xC3\xA9", 3);
  const char *texts[] = {write_hundred(files, "\xFF.txt")};
  kp_prepare_options options = {
      .texts = texts, .text_count = 1, .folder = fixture_path(files, "set"), .licence = licence};
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_non_null(strstr(prepared.source, "/?.txt"));
  assert_int_equal(strlen(prepared.licence), 126);
  check_ok(kp_prepare(&options, &prepared, &fresh, &error), &error);
  assert_false(fresh);
}

static void test_data_folder(void **state) {
  (void)state;
  char folder[KP_PATH_SIZE];
  kp_error error = {0};
  unsetenv("KAPPA_DATA");
  check_ok(kp_data_folder(folder, &error), &error);
  assert_string_equal(folder, "data");
  setenv("KAPPA_DATA", "/elsewhere", 1);
  check_ok(kp_data_folder(folder, &error), &error);
  assert_string_equal(folder, "/elsewhere");
  unsetenv("KAPPA_DATA");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_split_at_a_character),
      with_fixture(test_whole_sets_are_left_alone),
      with_fixture(test_damaged_sets_are_made_again),
      with_fixture(test_half_a_set_is_never_whole),
      with_fixture(test_foreign_files_are_never_replaced),
      with_fixture(test_several_texts_and_one_for_validation),
      with_fixture(test_bad_texts),
      with_fixture(test_names_that_are_not_text),
      cmocka_unit_test(test_data_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
