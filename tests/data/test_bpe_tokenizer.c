/* Byte-level BPE: ids that Hugging Face's tokenizers gives, merging against a plain reference, special
 * tokens, and threads. */
#include "data/small_tokenizer.h"

#include "core/random.h"
#include "data/bpe_merge.h"
#include "data/bpe_tokenizer.h"

static void test_known_ids(void **state) {
  (void)state;
  kp_tokenizer *tokenizer = open_tokenizer(SMALL);
  check_small(tokenizer);
  kp_tokenizer_destroy(tokenizer);
}

/* ---- merging ---- */

/* The rule, word for word: the lowest rank, the leftmost of it. */
static size_t merge_plainly(const kp_merge_table *table, int32_t *ids, size_t count) {
  for (;;) {
    uint32_t best_rank = KP_NO_MERGE;
    int32_t id, best_id = -1;
    size_t best = 0;
    for (size_t i = 0; i + 1 < count; i++) {
      const uint32_t rank = kp_merge_find(table, ids[i], ids[i + 1], &id);
      if (rank >= best_rank) continue;
      best_rank = rank;
      best_id = id;
      best = i;
    }
    if (best_rank == KP_NO_MERGE) return count;
    ids[best] = best_id;
    count--;
    memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
  }
}

static void test_merging(void **state) {
  (void)state;
  enum { LETTERS = 4, MERGES = 40, LONGEST = 300 };
  for (uint64_t seed = 0; seed < 400; seed++) {
    kp_error error = {0};
    kp_merge merges[MERGES];
    kp_merge_table table;
    int32_t plain[LONGEST], quick[LONGEST];
    for (int32_t i = 0; i < MERGES; i++)
      merges[i] =
          (kp_merge){.left = (int32_t)kp_random_below(seed, 0, 0, (uint64_t)i, LETTERS + (uint64_t)i),
                     .right = (int32_t)kp_random_below(seed, 0, 1, (uint64_t)i, LETTERS + (uint64_t)i),
                     .id = LETTERS + i};
    check_ok(kp_merge_table_init(&table, merges, MERGES, &error), &error);
    const size_t count = 1 + kp_random_below(seed, 0, 2, 0, LONGEST - 1);
    for (size_t i = 0; i < count; i++) plain[i] = quick[i] = (int32_t)kp_random_below(seed, 0, 3, i, LETTERS);
    const size_t expected = merge_plainly(&table, plain, count);
    size_t found = count;
    check_ok(kp_bpe_merge_long(&table, quick, &found, &error), &error);
    assert_int_equal(found, expected);
    assert_memory_equal(quick, plain, expected * sizeof *plain);
    const size_t few = count < KP_BPE_SHORT ? count : KP_BPE_SHORT;
    for (size_t i = 0; i < few; i++) plain[i] = quick[i] = (int32_t)kp_random_below(seed, 0, 4, i, LETTERS);
    const size_t short_expected = merge_plainly(&table, plain, few);
    assert_int_equal(kp_bpe_merge_short(&table, quick, few), short_expected);
    assert_memory_equal(quick, plain, short_expected * sizeof *plain);
    kp_merge_table_clear(&table);
  }
}

/* Letters a, and tokens of 2, 4, 8, ... of them. */
static kp_tokenizer *make_doubling(void) {
  enum { TOKENS = 12 };
  static char letters[1 << TOKENS];
  kp_text_view tokens[TOKENS];
  kp_merge merges[TOKENS];
  static const char *const pattern[] = {KP_PATTERN_GPT2};
  memset(letters, 'a', sizeof letters);
  for (int32_t i = 0; i < TOKENS; i++) {
    tokens[i] = (kp_text_view){.data = letters, .size = (size_t)1 << i};
    merges[i] = (kp_merge){.left = i, .right = i, .id = i + 1};
  }
  const kp_bpe_parts parts = {.tokens = tokens,
                              .vocabulary = TOKENS,
                              .merges = merges,
                              .merge_count = TOKENS - 1,
                              .patterns = pattern,
                              .pattern_count = 1,
                              .begin = -1,
                              .end = -1};
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_bpe_tokenizer_create(&parts, &tokenizer, &error), &error);
  return tokenizer;
}

/* A word of megabytes costs no more than many short ones. */
static void test_a_long_word(void **state) {
  (void)state;
  enum { SIZE = (1 << 22) + 1027 }; /* 2048 · 2048 + 1024 + 2 + 1 */
  kp_error error = {0};
  kp_tokenizer *tokenizer = make_doubling();
  char *text = malloc(SIZE), *back;
  int32_t *ids;
  size_t count, size;
  memset(text, 'a', SIZE);
  check_ok(kp_tokenizer_encode(tokenizer, text, SIZE, &ids, &count, &error), &error);
  assert_int_equal(count, 2048 + 3);
  assert_int_equal(ids[0], 11);
  assert_int_equal(ids[2047], 11);
  assert_int_equal(ids[2048], 10);
  assert_int_equal(ids[2049], 1);
  assert_int_equal(ids[2050], 0);
  check_ok(kp_tokenizer_decode(tokenizer, ids, count, &back, &size, &error), &error);
  assert_int_equal(size, SIZE);
  assert_memory_equal(back, text, SIZE);
  free(back);
  free(ids);
  /* A byte that no token has. */
  text[SIZE - 3] = 'b';
  assert_int_equal(kp_tokenizer_encode(tokenizer, text, SIZE, &ids, &count, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "0x62"));
  free(text);
  kp_tokenizer_destroy(tokenizer);
}

/* ---- many texts, long texts, threads ---- */

/* Words, breaks, special tokens and characters of several bytes. */
static size_t write_text(uint64_t seed, size_t parts, char *out) {
  static const char *const words[] = {" the",
                                      "work",
                                      "ing ",
                                      "\n\n",
                                      "<|endoftext|>",
                                      "<|end",
                                      " 123",
                                      "na\xC3\xAFve",
                                      "\xE4\xBD\xA0\xE5\xA5\xBD",
                                      ".",
                                      "  ",
                                      "'s",
                                      "\r\n",
                                      "\xF0\x9F\x98\x80",
                                      "a",
                                      "<"};
  size_t used = 0;
  for (size_t i = 0; i < parts; i++) {
    const char *word = words[kp_random_below(seed, 0, 0, i, sizeof words / sizeof *words)];
    memcpy(out + used, word, strlen(word));
    used += strlen(word);
  }
  return used;
}

static void test_threads(void **state) {
  (void)state;
  enum { TEXTS = 400, LONG = 3, LONG_PARTS = 300000, LONGEST_PART = 13 };
  kp_error error = {0};
  kp_tokenizer *tokenizer = open_tokenizer(SMALL);
  kp_text_view texts[TEXTS];
  char *room = malloc(LONGEST_PART * (LONG * LONG_PARTS + TEXTS * 100)), *at = room;
  for (size_t i = 0; i < TEXTS; i++) {
    const size_t parts = i % 150 == 3 ? LONG_PARTS : i % 7 == 0 ? 0 : i % 100;
    texts[i] = (kp_text_view){.data = at, .size = write_text(i, parts, at)};
    at += texts[i].size;
  }
  for (int with_specials = 0; with_specials < 2; with_specials++) {
    kp_ids expected = {0}, ids = {0};
    size_t ends[TEXTS + 1] = {0}, offsets[TEXTS + 1];
    for (size_t i = 0; i < TEXTS; i++) {
      check_ok(kp_tokenizer_append(tokenizer, texts[i], with_specials == 1, &expected, &error), &error);
      ends[i + 1] = expected.count;
    }
    for (int threads = 0; threads <= 3; threads++) {
      const int32_t first = 7;
      ids.count = 0;
      check_ok(kp_ids_append(&ids, &first, 1, &error), &error);
      check_ok(kp_tokenizer_append_all(tokenizer, texts, TEXTS, with_specials == 1, threads, &ids, offsets,
                                       &error),
               &error);
      assert_int_equal(ids.count, expected.count + 1);
      assert_memory_equal(ids.list + 1, expected.list, expected.count * sizeof *ids.list);
      for (size_t i = 0; i <= TEXTS; i++) assert_int_equal(offsets[i], ends[i] + 1);
    }
    kp_ids_clear(&expected);
    kp_ids_clear(&ids);
  }
  free(room);
  kp_tokenizer_destroy(tokenizer);
}

static void test_parts_of_a_text(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = open_tokenizer(SMALL);
  char *text = malloc(13 * 20000);
  const size_t size = write_text(9, 20000, text);
  static const size_t bytes[] = {0, 1, 100, 12345, SIZE_MAX};
  int32_t *whole;
  size_t count;
  check_ok(kp_tokenizer_encode(tokenizer, text, size, &whole, &count, &error), &error);
  for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
    kp_ids ids = {0};
    for (size_t offset = 0, calls = 0; offset < size; calls++) {
      const size_t before = offset;
      const kp_text_view view = {.data = text, .size = size};
      check_ok(kp_tokenizer_append_part(tokenizer, view, &offset, bytes[i], 2, &ids, &error), &error);
      assert_true(offset > before && (offset == size || offset - before >= bytes[i]));
      assert_true(offset - before < bytes[i] || offset - before - bytes[i] < 200);
    }
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.list, whole, count * sizeof *whole);
    kp_ids_clear(&ids);
  }
  free(whole);
  free(text);
  kp_tokenizer_destroy(tokenizer);
}

/* The first invalid byte is named, whichever thread comes upon one first; nothing is appended. */
static void test_invalid_text(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = open_tokenizer(SMALL);
  enum { SIZE = 3000000, FIRST = 1234567, SECOND = 2900000 };
  char *text = malloc(SIZE);
  kp_ids ids = {0};
  size_t offsets[3];
  for (size_t i = 0; i < SIZE; i++) text[i] = "the work\n"[i % 9];
  text[FIRST] = (char)0xFF;
  text[SECOND] = (char)0xC3;
  const kp_text_view texts[] = {{.data = "fine", .size = 4}, {.data = text, .size = SIZE}};
  for (int threads = 1; threads <= 2; threads++) {
    assert_int_equal(kp_tokenizer_append_all(tokenizer, texts, 2, true, threads, &ids, offsets, &error),
                     KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "0xFF at offset 1234567"));
    assert_int_equal(ids.count, 0);
  }
  free(text);
  kp_ids_clear(&ids);
  kp_tokenizer_destroy(tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_ids),       cmocka_unit_test(test_merging),
      cmocka_unit_test(test_a_long_word),     cmocka_unit_test(test_threads),
      cmocka_unit_test(test_parts_of_a_text), cmocka_unit_test(test_invalid_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
