/* The word tokenizer: how texts are cut, what the vocabulary holds, and that nothing is ever lost. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/prepare.h"
#include "data/token_file.h"
#include "data/word_pieces.h"
#include "data/word_tokenizer.h"

static kp_tokenizer *make(const char *text, int32_t vocabulary) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  const size_t size = strlen(text);
  check_ok(kp_word_tokenizer_create(&text, &size, 1, 1, vocabulary, &tokenizer, &error), &error);
  assert_int_equal(tokenizer->vocabulary, vocabulary);
  return tokenizer;
}

static const char *token_text(const kp_tokenizer *tokenizer, int32_t id) {
  static char text[256];
  const char *bytes;
  size_t size;
  tokenizer->kind->token_bytes(tokenizer, id, &bytes, &size);
  snprintf(text, sizeof text, "%.*s", (int)size, bytes);
  return text;
}

/* The tokens of `text`, joined by '|'. */
static void check_tokens(const kp_tokenizer *tokenizer, const char *text, const char *expected) {
  kp_error error = {0};
  int32_t *ids;
  size_t count;
  char joined[512] = "";
  check_ok(kp_tokenizer_encode(tokenizer, text, strlen(text), &ids, &count, &error), &error);
  for (size_t i = 0; i < count; i++) {
    strcat(joined, i == 0 ? "" : "|");
    strcat(joined, token_text(tokenizer, ids[i]));
  }
  assert_string_equal(joined, expected);
  free(ids);
}

static void test_pieces(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t bytes, characters;
  } cases[] = {
      {"word, more", 4, 4},
      {" word", 5, 5},
      {"  word", 1, 1},
      {", word", 1, 1},
      {"\nword", 1, 1},
      {"don't", 3, 3},
      {"x1y2 ", 4, 4},
      {" ", 1, 1},
      {" \xE2\x80\x9Cyes", 1, 1},
      {"\xE2\x80\x9Cyes", 3, 1},
      {"\xC3\xA9t\xC3\xA9.", 5, 3},
      {"a\xE3\x80\x82", 1, 1},
      {"\xC2\xA0word", 2, 1},
      {"\xFFword", 0, 0},
      {"a\xFF", 1, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t bytes, characters;
    kp_word_piece(cases[i].text, strlen(cases[i].text), &bytes, &characters);
    if (bytes != cases[i].bytes || characters != cases[i].characters)
      fail_msg("'%s': %zu bytes, %zu characters", cases[i].text, bytes, characters);
  }
}

static void test_long_words_are_cut(void **state) {
  (void)state;
  char text[200];
  size_t bytes, characters;
  memset(text, 'a', sizeof text);
  text[0] = ' ';
  kp_word_piece(text, sizeof text, &bytes, &characters);
  assert_int_equal(bytes, KP_WORD_LONGEST);
  assert_int_equal(characters, KP_WORD_LONGEST);
}

/* " the" three times, "the" and " cat" twice; 8 characters. */
static void test_frequent_words_are_tokens(void **state) {
  (void)state;
  kp_tokenizer *tokenizer = make("the cat the cat,\nthe the the", 11);
  assert_string_equal(kp_tokenizer_name(tokenizer), "word");
  assert_string_equal(token_text(tokenizer, 8), " the");
  assert_string_equal(token_text(tokenizer, 9), " cat");
  assert_string_equal(token_text(tokenizer, 10), "the");
  check_tokens(tokenizer, "the cat the", "the| cat| the");
  check_tokens(tokenizer, "hat, the  cat", "h|a|t|,| the| | cat");
  check_tokens(tokenizer, " that", " |t|h|a|t");
  kp_tokenizer_destroy(tokenizer);
}

static void test_vocabularies_that_cannot_be(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  const char *text = "one two", *bad = "fine\n\x80";
  const size_t size = 7, bad_size = 6;
  assert_int_equal(kp_word_tokenizer_create(&text, &size, 1, 1, 5, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, "no room for the 6 characters");
  assert_int_equal(kp_word_tokenizer_create(&text, &size, 1, 1, 9, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, "ask for 8");
  assert_int_equal(kp_word_tokenizer_create(&bad, &bad_size, 1, 1, 5, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, "not valid UTF-8");
  assert_null(tokenizer);
}

static void test_unknown_characters_are_named(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = make("the cat\n", 8);
  int32_t *ids;
  size_t count;
  assert_int_equal(kp_tokenizer_encode(tokenizer, "cat\n the cow", 12, &ids, &count, &error), KP_ERR_INPUT);
  check_words(&error, "'o' (U+006F) at byte 10 (line 2)");
  assert_int_equal(kp_tokenizer_encode(tokenizer, "cat\xFF", 4, &ids, &count, &error), KP_ERR_INPUT);
  check_words(&error, "0xFF at offset 3");
  kp_tokenizer_destroy(tokenizer);
}

/* A text of words of a small language, punctuation, all widths of UTF-8, and sometimes a very long word. */
static size_t random_text(uint64_t seed, char *text, size_t room) {
  static const char *const parts[] = {"a",
                                      "be",
                                      "cat",
                                      " ",
                                      "  ",
                                      "\n",
                                      ",",
                                      ". ",
                                      "\xC3\xA9t\xC3\xA9",
                                      "\xE2\x82\xAC",
                                      "\t",
                                      "\xC2\xA0",
                                      "'s",
                                      " the",
                                      "\xF0\x9F\x98\x80",
                                      "\xE2\x80\x94",
                                      "0",
                                      "\xD0\x96"};
  const uint64_t count = sizeof parts / sizeof *parts;
  size_t size = 0;
  for (uint32_t i = 0;; i++) {
    const char *part = parts[kp_random_below(seed, KP_RANDOM_GENERIC, i, 0, count)];
    size_t repeats = kp_random_below(seed, KP_RANDOM_GENERIC, i, 1, 40) == 0 ? 90 : 1;
    if (size + repeats * strlen(part) > room) return size;
    for (; repeats > 0; repeats--) {
      memcpy(text + size, part, strlen(part));
      size += strlen(part);
    }
  }
}

/* Encoded in parts of `bytes` or more, the text gives the same ids. */
static void check_parts(const kp_tokenizer *tokenizer, const char *text, size_t size, const int32_t *ids,
                        size_t count, size_t bytes) {
  kp_error error = {0};
  const kp_text_view whole = {.data = text, .size = size};
  kp_ids part = {0};
  size_t offset = 0, done = 0;
  while (offset < size) {
    part.count = 0;
    check_ok(kp_tokenizer_append_part(tokenizer, whole, &offset, bytes, 1, &part, &error), &error);
    assert_true(part.count > 0 && done + part.count <= count);
    assert_memory_equal(part.list, ids + done, part.count * sizeof *ids);
    done += part.count;
  }
  assert_int_equal(done, count);
  kp_ids_clear(&part);
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
  check_parts(tokenizer, text, size, ids, count, 1);
  check_parts(tokenizer, text, size, ids, count, 50);
  check_parts(tokenizer, text, size, ids, count, 201);
  free(ids);
  free(back);
}

static void test_nothing_is_lost(void **state) {
  (void)state;
  enum { ROOM = 6000, TEXTS = 60 };
  kp_error error = {0};
  char *text = malloc(ROOM), *other = malloc(ROOM);
  assert_true(text != NULL && other != NULL);
  for (uint64_t seed = 0; seed < TEXTS; seed++) {
    const size_t size = random_text(2 * seed, text, ROOM), rest = random_text(2 * seed + 1, other, ROOM);
    const char *texts[] = {text, other};
    const size_t sizes[] = {size, rest};
    kp_tokenizer *tokenizer = NULL;
    check_ok(kp_word_tokenizer_create(texts, sizes, 2, 1, 25 + (int32_t)seed, &tokenizer, &error), &error);
    check_round_trip(tokenizer, text, size);
    check_round_trip(tokenizer, other, rest);
    kp_tokenizer_destroy(tokenizer);
  }
  free(text);
  free(other);
}

static void test_files(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokenizer *made = make("the cat the cat,\nthe the \"the", 12), *read = NULL;
  const char *path = fixture_path(files, "tokenizer.json");
  check_ok(kp_tokenizer_save(made, path, &error), &error);
  check_ok(kp_tokenizer_open(path, &read, &error), &error);
  assert_int_equal(read->vocabulary, 12);
  assert_true(read->fingerprint == made->fingerprint && read->kind == made->kind);
  for (int32_t id = 0; id < 12; id++) {
    char text[256];
    snprintf(text, sizeof text, "%s", token_text(made, id));
    assert_string_equal(token_text(read, id), text);
  }
  kp_tokenizer_destroy(made);
  kp_tokenizer_destroy(read);
}

static void check_refused(fixture *files, const char *text, const char *words) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  const char *path = fixture_write(files, "bad.json", text, strlen(text));
  assert_int_equal(kp_tokenizer_open(path, &tokenizer, &error), KP_ERR_INPUT);
  check_words(&error, words);
}

static void test_bad_files(void **state) {
  fixture *files = *state;
  check_refused(files, "{\"type\": \"word\", \"words\": []}", "no object \"alphabet\"");
  check_refused(files, "{\"type\": \"word\", \"alphabet\": {\"characters\": [\"a\"]}}", "no array \"words\"");
  check_refused(files, "{\"type\": \"word\", \"alphabet\": {\"characters\": [\"a\"]}, \"words\": [\"a\"]}",
                "entry 0 of \"words\" is not a word");
  check_refused(files, "{\"type\": \"word\", \"alphabet\": {\"characters\": [\"a\"]}, \"words\": [\"aa b\"]}",
                "entry 0 of \"words\" is not a word");
  check_refused(files,
                "{\"type\": \"word\", \"alphabet\": {\"characters\": [\"a\"]}, \"words\": [\"aa\", \"aa\"]}",
                "entry 1 of \"words\" repeats entry 0");
  check_refused(files,
                "{\"type\": \"word\", \"alphabet\": {\"characters\": [\"a\"]}, \"words\": [\"aa\"], "
                "\"fingerprint\": \"12\"}",
                "the file was changed");
}

/* Sizes of a text in bytes stay with its tokens, whatever they are, so that bits per byte are right. */
static void test_prepared_set(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  char text[4000];
  const size_t size = random_text(7, text, sizeof text);
  const char *path = fixture_write(files, "text.txt", text, size);
  kp_prepared characters, words, again;
  bool fresh;
  kp_prepare_options options = {.texts = &path, .text_count = 1, .folder = fixture_path(files, "set")};
  check_ok(kp_prepare(&options, &characters, &fresh, &error), &error);
  options.tokenizer = "word";
  options.vocabulary = 40;
  check_ok(kp_prepare(&options, &words, &fresh, &error), &error);
  assert_true(fresh);
  assert_int_equal(words.vocabulary, 40);
  assert_string_equal(words.tokenizer, "word");
  assert_true(words.train.tokens < characters.train.tokens);
  assert_int_equal(words.train.text_bytes, characters.train.text_bytes);
  assert_int_equal(words.train.text_bytes + words.validation.text_bytes, size);
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_false(fresh);
  options.vocabulary = 41;
  check_ok(kp_prepare(&options, &again, &fresh, &error), &error);
  assert_true(fresh && again.vocabulary == 41);
  kp_tokens *tokens;
  check_ok(kp_tokens_open(&options.folder, 1, "val", &tokens, &error), &error);
  assert_int_equal(kp_tokens_text_bytes(tokens), words.validation.text_bytes);
  kp_tokens_destroy(tokens);
  options.vocabulary = 4000;
  assert_int_equal(kp_prepare(&options, &again, &fresh, &error), KP_ERR_INPUT);
  options.tokenizer = "syllable";
  assert_int_equal(kp_prepare(&options, &again, &fresh, &error), KP_ERR_INPUT);
  check_words(&error, "no tokenizer 'syllable'");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pieces),
      cmocka_unit_test(test_long_words_are_cut),
      cmocka_unit_test(test_frequent_words_are_tokens),
      cmocka_unit_test(test_vocabularies_that_cannot_be),
      cmocka_unit_test(test_unknown_characters_are_named),
      cmocka_unit_test(test_nothing_is_lost),
      with_fixture(test_files),
      with_fixture(test_bad_files),
      with_fixture(test_prepared_set),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
