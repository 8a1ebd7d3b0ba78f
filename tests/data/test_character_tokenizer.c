/* Characters to ids and back, the file of the vocabulary, and the words of its errors. */
#include "data/fixture.h"

#include "data/character_tokenizer.h"
#include "data/tokenizer.h"

static kp_tokenizer *make(const char *text, size_t size) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_character_tokenizer_create(&text, &size, 1, &tokenizer, &error), &error);
  return tokenizer;
}

static void check_round_trip(const kp_tokenizer *tokenizer, const char *text, size_t size) {
  kp_error error = {0};
  int32_t *ids;
  char *back;
  size_t count, back_size;
  check_ok(kp_tokenizer_encode(tokenizer, text, size, &ids, &count, &error), &error);
  check_ok(kp_tokenizer_decode(tokenizer, ids, count, &back, &back_size, &error), &error);
  assert_int_equal(back_size, size);
  assert_memory_equal(back, text, size);
  assert_int_equal(back[size], 0);
  free(ids);
  free(back);
}

static void test_ids_are_places_in_the_sorted_set(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = make("hello\nA", 7);
  assert_int_equal(tokenizer->vocabulary, 6); /* \n A e h l o */
  assert_string_equal(kp_tokenizer_name(tokenizer), "character");
  int32_t *ids;
  size_t count;
  check_ok(kp_tokenizer_encode(tokenizer, "hello\nA", 7, &ids, &count, &error), &error);
  static const int32_t expected[] = {3, 2, 4, 4, 5, 0, 1};
  assert_int_equal(count, 7);
  assert_memory_equal(ids, expected, sizeof expected);
  free(ids);
  kp_tokenizer_destroy(tokenizer);
}

static void test_all_of_unicode_comes_back(void **state) {
  (void)state;
  /* A byte order mark, a zero, two to four bytes, a combining accent, both line ends, the last code point. */
  static const char text[] = "\xEF\xBB\xBF"
                             "a\0\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"
                             "e\xCC\x81\r\n\xF4\x8F\xBF\xBF";
  kp_tokenizer *tokenizer = make(text, sizeof text - 1);
  assert_int_equal(tokenizer->vocabulary, 11);
  check_round_trip(tokenizer, text, sizeof text - 1);
  check_round_trip(tokenizer, "", 0);
  kp_tokenizer_destroy(tokenizer);
}

static void test_saved_and_opened(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  static const char text[] = "\"quotes\" \\ \0 \xE2\x82\xAC\xF0\x9F\x98\x80\n";
  kp_tokenizer *tokenizer = make(text, sizeof text - 1), *opened = NULL;
  check_ok(kp_tokenizer_save(tokenizer, fixture_path(files, "tokenizer.json"), &error), &error);
  check_ok(kp_tokenizer_open(fixture_path(files, "tokenizer.json"), &opened, &error), &error);
  assert_int_equal(opened->vocabulary, tokenizer->vocabulary);
  assert_true(opened->fingerprint == tokenizer->fingerprint);
  check_round_trip(opened, text, sizeof text - 1);
  kp_tokenizer_destroy(opened);
  check_ok(kp_tokenizer_open(files->folder, &opened, &error), &error);
  assert_true(opened->fingerprint == tokenizer->fingerprint);
  kp_tokenizer_destroy(opened);
  kp_tokenizer_destroy(tokenizer);
}

static void test_fingerprint_is_fnv_of_the_characters(void **state) {
  (void)state;
  /* The published test value of FNV-1a, 64 bits, for "foobar". */
  assert_true(kp_fnv(KP_FNV_BASIS, "foobar", 6) == UINT64_C(0x85944171f73967e8));
  kp_tokenizer *tokenizer = make("cab\xC3\xA9", 5), *same = make("bbca\xC3\xA9", 6), *other = make("ab", 2);
  assert_true(tokenizer->fingerprint == kp_fnv(KP_FNV_BASIS, "abc\xC3\xA9", 5));
  assert_true(same->fingerprint == tokenizer->fingerprint);
  assert_true(other->fingerprint != tokenizer->fingerprint);
  kp_tokenizer_destroy(tokenizer);
  kp_tokenizer_destroy(same);
  kp_tokenizer_destroy(other);
}

static void test_unknown_character_is_named(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = make("abc\n", 4);
  int32_t *ids = NULL;
  size_t count;
  assert_int_equal(kp_tokenizer_encode(tokenizer, "ab\nc\xC3\xA9", 6, &ids, &count, &error), KP_ERR_INPUT);
  check_words(&error, "'\xC3\xA9' (U+00E9) at byte 4 (line 2)");
  assert_int_equal(kp_tokenizer_encode(tokenizer, "a\t", 2, &ids, &count, &error), KP_ERR_INPUT);
  check_words(&error, "U+0009 at byte 1 (line 1)");
  assert_int_equal(kp_tokenizer_encode(tokenizer, "a\n\n\xC3", 4, &ids, &count, &error), KP_ERR_INPUT);
  check_words(&error, "0xC3 at offset 3 (line 3) is not valid UTF-8");
  kp_tokenizer_destroy(tokenizer);
}

static void test_foreign_ids_are_refused(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = make("abc", 3);
  char *bytes;
  size_t size;
  static const int32_t high[] = {0, 3}, low[] = {-1};
  assert_int_equal(kp_tokenizer_decode(tokenizer, high, 2, &bytes, &size, &error), KP_ERR_INPUT);
  check_words(&error, "token 3 at position 1");
  assert_int_equal(kp_tokenizer_decode(tokenizer, low, 1, &bytes, &size, &error), KP_ERR_INPUT);
  kp_tokenizer_destroy(tokenizer);
}

static void test_parts_give_the_same_ids(void **state) {
  (void)state;
  kp_error error = {0};
  static const char text[] = "a\xC3\xA9z\xE2\x82\xAC\xF0\x9F\x98\x80q\n";
  size_t size = sizeof text - 1, count, offset = 0, done = 0;
  kp_tokenizer *tokenizer = make(text, size);
  int32_t *ids;
  check_ok(kp_tokenizer_encode(tokenizer, text, size, &ids, &count, &error), &error);
  kp_ids part = {0};
  while (offset < size) {
    const kp_text_view whole = {.data = text, .size = size};
    part.count = 0;
    check_ok(kp_tokenizer_append_part(tokenizer, whole, &offset, 2, 1, &part, &error), &error);
    assert_memory_equal(part.list, ids + done, part.count * sizeof *ids);
    done += part.count;
  }
  assert_int_equal(done, count);
  kp_ids_clear(&part);
  free(ids);
  kp_tokenizer_destroy(tokenizer);
}

static void test_bad_texts_make_no_tokenizer(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  const char *text = "fine\n\x80";
  size_t size = 6;
  assert_int_equal(kp_character_tokenizer_create(&text, &size, 1, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, "0x80 at offset 5 (line 2)");
  size = 0;
  assert_int_equal(kp_character_tokenizer_create(&text, &size, 1, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, "empty");
  assert_null(tokenizer);
}

static void test_bad_files_are_refused(void **state) {
  fixture *files = *state;
  static const struct {
    const char *content, *words;
  } cases[] = {
      {"{\"type\": \"character\", \"characters\": [\"a\", ", "line 1"},
      {"{\"characters\": [\"a\"]}", "no \"type\""},
      {"{\"type\": \"sentencepiece\"}", "type 'sentencepiece' is unknown"},
      {"{\"type\": \"character\"}", "no array"},
      {"{\"type\": \"character\", \"characters\": []}", "empty"},
      {"{\"type\": \"character\", \"characters\": [\"a\", 7]}", "entry 1"},
      {"{\"type\": \"character\", \"characters\": [\"a\", \"bc\"]}", "entry 1"},
      {"{\"type\": \"character\", \"characters\": [\"b\", \"a\"]}",
       "entry 1 of \"characters\" (U+0061) is not"},
      {"{\"type\": \"character\", \"characters\": [\"a\", \"a\"]}", "ascending"},
      {"{\"type\": \"character\", \"characters\": [\"a\"], \"fingerprint\": \"00\"}", "the file was changed"},
      {"{\"type\": \"character\", \"characters\": [\"a\"], \"fingerprint\": 3}", "the file was changed"},
      {"[]", "no \"type\""},
      {"", "empty"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    kp_error error = {0};
    kp_tokenizer *tokenizer = NULL;
    const char *path = fixture_write(files, "t.json", cases[i].content, strlen(cases[i].content));
    assert_int_not_equal(kp_tokenizer_open(path, &tokenizer, &error), KP_OK);
    check_words(&error, cases[i].words);
    check_words(&error, "t.json");
    assert_null(tokenizer);
  }
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  assert_int_not_equal(kp_tokenizer_open(fixture_path(files, "missing.json"), &tokenizer, &error), KP_OK);
  check_words(&error, "missing.json");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ids_are_places_in_the_sorted_set),
      cmocka_unit_test(test_all_of_unicode_comes_back),
      with_fixture(test_saved_and_opened),
      cmocka_unit_test(test_fingerprint_is_fnv_of_the_characters),
      cmocka_unit_test(test_unknown_character_is_named),
      cmocka_unit_test(test_foreign_ids_are_refused),
      cmocka_unit_test(test_parts_give_the_same_ids),
      cmocka_unit_test(test_bad_texts_make_no_tokenizer),
      with_fixture(test_bad_files_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
