/* A small byte-level BPE tokenizer whose ids are known. */
#ifndef KAPPA_TESTS_DATA_SMALL_TOKENIZER_H
#define KAPPA_TESTS_DATA_SMALL_TOKENIZER_H

#include "data/fixture.h"

#include "data/tokenizer.h"

/* A vocabulary of 500 tokens, <|endoftext|> first (tests/data/tokenizers/small). */
#define SMALL KP_TEST_DIRECTORY "/data/tokenizers/small"

static inline kp_tokenizer *open_tokenizer(const char *path) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_tokenizer_open(path, &tokenizer, &error), &error);
  return tokenizer;
}

static inline void check_ids(const kp_tokenizer *tokenizer, const char *text, bool with_specials,
                             const int32_t *expected, size_t count) {
  kp_error error = {0};
  kp_ids ids = {0};
  char *back;
  size_t size;
  const kp_text_view view = {.data = text, .size = strlen(text)};
  check_ok(kp_tokenizer_append(tokenizer, view, with_specials, &ids, &error), &error);
  assert_int_equal(ids.count, count);
  assert_memory_equal(ids.list, expected, count * sizeof *expected);
  check_ok(kp_tokenizer_decode(tokenizer, ids.list, ids.count, &back, &size, &error), &error);
  assert_int_equal(size, view.size);
  assert_memory_equal(back, text, size);
  free(back);
  kp_ids_clear(&ids);
}

#define CHECK_IDS(tokenizer, text, with_specials, ...)                                                       \
  do {                                                                                                       \
    const int32_t expected[] = {__VA_ARGS__};                                                                \
    check_ids(tokenizer, text, with_specials, expected, sizeof expected / sizeof *expected);                 \
  } while (0)

/* The ids are those of Hugging Face's tokenizers 0.23. */
static inline void check_small(const kp_tokenizer *tokenizer) {
  assert_int_equal(tokenizer->vocabulary, 500);
  assert_string_equal(kp_tokenizer_name(tokenizer), "bpe");
  CHECK_IDS(tokenizer, "the working world, 12345!", true, 364, 495, 283, 431, 382, 12, 408, 18, 19, 20, 21,
            1);
  CHECK_IDS(tokenizer, "  there's a\n\nway ", true, 221, 261, 262, 7, 83, 258, 199, 199, 87, 318, 221);
  CHECK_IDS(tokenizer, "na\xC3\xAFve \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80<|endoftext|>", false, 78, 65,
            128, 108, 327, 221, 161, 122, 255, 162, 99, 122, 221, 173, 254, 247, 223, 28, 92, 69, 269, 79,
            467, 69, 88, 84, 92, 30);
  CHECK_IDS(tokenizer, "one<|endoftext|>two", true, 274, 69, 0, 84, 87, 79);
  assert_int_equal(tokenizer->end, 0);
  assert_int_equal(tokenizer->begin, -1);
  assert_int_equal(kp_tokenizer_special(tokenizer, "<|endoftext|>"), 0);
  assert_int_equal(kp_tokenizer_special(tokenizer, "<|end"), -1);
}

#endif
