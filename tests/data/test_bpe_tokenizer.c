/* Byte-level BPE: ids that Hugging Face's tokenizers gives, merging against a plain reference, special
 * tokens, files of every kind, and threads. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/bpe_files.h"
#include "data/bpe_merge.h"
#include "data/bpe_tokenizer.h"

/* A vocabulary of 500 tokens, <|endoftext|> first (tests/data/tokenizers/small). */
#define SMALL KP_TEST_DIRECTORY "/data/tokenizers/small"

static kp_tokenizer *open_tokenizer(const char *path) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_tokenizer_open(path, &tokenizer, &error), &error);
  return tokenizer;
}

static void check_ids(const kp_tokenizer *tokenizer, const char *text, bool with_specials,
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
static void check_small(const kp_tokenizer *tokenizer) {
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

/* ---- files ---- */

static void copy_file(fixture *files, const char *from, const char *to) {
  size_t size;
  char *content = fixture_read(from, &size);
  fixture_write(files, to, content, size);
  free(content);
}

static void test_pairs_of_files(void **state) {
  fixture *files = *state;
  static const char *const names[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
  kp_tokenizer *small = open_tokenizer(SMALL);
  for (size_t i = 0; i < 2; i++) {
    copy_file(files, SMALL "/vocab.json", names[i][0]);
    kp_error error = {0};
    kp_tokenizer *tokenizer = NULL;
    assert_int_equal(kp_tokenizer_open(files->folder, &tokenizer, &error), KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "merges.txt"));
    copy_file(files, SMALL "/merges.txt", names[i][1]);
    const char *const paths[] = {files->folder, fixture_path(files, names[i][0])};
    for (size_t k = 0; k < 2; k++) {
      tokenizer = open_tokenizer(paths[k]);
      check_small(tokenizer);
      assert_true(tokenizer->fingerprint == small->fingerprint);
      kp_tokenizer_destroy(tokenizer);
    }
    assert_int_equal(unlink(fixture_path(files, names[i][0])), 0);
    assert_int_equal(unlink(fixture_path(files, names[i][1])), 0);
  }
  kp_tokenizer_destroy(small);
}

static void test_save_and_open(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokenizer *small = open_tokenizer(SMALL);
  const char *path = fixture_path(files, "tokenizer.json");
  check_ok(kp_tokenizer_save(small, path, &error), &error);
  const char *const paths[] = {files->folder, path};
  for (size_t i = 0; i < 2; i++) {
    kp_tokenizer *opened = open_tokenizer(paths[i]);
    check_small(opened);
    assert_true(opened->fingerprint == small->fingerprint);
    kp_tokenizer_destroy(opened);
  }
  kp_tokenizer_destroy(small);
}

/* The parsed tokenizer.json of the small vocabulary; the caller releases it. */
static json_t *small_json(fixture *files) {
  kp_error error = {0};
  kp_tokenizer *small = open_tokenizer(SMALL);
  const char *path = fixture_path(files, "small.json");
  check_ok(kp_tokenizer_save(small, path, &error), &error);
  kp_tokenizer_destroy(small);
  json_t *document = json_load_file(path, 0, NULL);
  assert_non_null(document);
  return document;
}

static json_t *parsed(const char *text) {
  json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
  assert_non_null(value);
  return value;
}

static void test_merges_as_pairs(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokenizer *small = open_tokenizer(SMALL), *tokenizer = NULL;
  json_t *document = small_json(files), *pairs = json_array(), *model = json_object_get(document, "model");
  const json_t *merges = json_object_get(model, "merges");
  for (size_t i = 0; i < json_array_size(merges); i++) {
    const char *merge = json_string_value(json_array_get(merges, i)), *space = strchr(merge, ' ');
    json_array_append_new(pairs, json_pack("[s%, s]", merge, (size_t)(space - merge), space + 1));
  }
  json_object_set_new(model, "merges", pairs);
  check_ok(kp_bpe_read_json(document, &tokenizer, &error), &error);
  check_small(tokenizer);
  assert_true(tokenizer->fingerprint == small->fingerprint);
  kp_tokenizer_destroy(tokenizer);
  kp_tokenizer_destroy(small);
  json_decref(document);
}

/* What a tokenizer.json may say instead, and the word of the error about it. */
static void test_unsupported_json(void **state) {
  fixture *files = *state;
  static const char *const cases[][3] = {
      {"normalizer", "{\"type\": \"NFC\"}", "NFC"},
      {"pre_tokenizer", "null", "ByteLevel"},
      {"pre_tokenizer", "{\"type\": \"Metaspace\"}", "Metaspace"},
      {"pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "add_prefix_space"},
      {"pre_tokenizer",
       "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"MergedWithNext\"}",
       "MergedWithNext"},
      {"pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Isolated\"}",
       "Regex"},
      {"pre_tokenizer",
       "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}",
       "Digits"},
      {"pre_tokenizer",
       "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, "
       "\"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\"}]}",
       "regular expression"},
      {"post_processor", "{\"type\": \"Other\"}", "Other"},
      {"post_processor",
       "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"[CLS]\"}}, "
       "{\"Sequence\": "
       "{\"id\": \"A\"}}]}",
       "[CLS]"},
      {"model", "{\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}", "WordPiece"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}", "id 0"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": -1}, \"merges\": []}", "'b'"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 99999999}, \"merges\": []}", "99999999"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 2}, \"merges\": [\"a b\"]}", "merge 1"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 2, \"ab\": 3}, \"merges\": [\"ab\"]}",
       "merge 1"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a b\": 1}, \"merges\": []}", "alphabet"},
      {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 1}, \"merges\": [], \"byte_fallback\": true}",
       "byte_fallback"},
      {"model",
       "{\"type\": \"BPE\", \"vocab\": {\"a\": 1}, \"merges\": [], \"end_of_word_suffix\": \"</w>\"}",
       "end_of_word_suffix"},
      {"added_tokens", "[{\"id\": 0, \"content\": \"<|endoftext|>\", \"lstrip\": true}]", "lstrip"},
      {"added_tokens", "[{\"id\": 1, \"content\": \"<|endoftext|>\"}]", "id 1"},
      {"added_tokens", "[{\"id\": 600, \"content\": \"\"}]", "added token 0"},
      {"added_tokens", "[{\"id\": -3, \"content\": \"x\"}]", "'x'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    kp_tokenizer *tokenizer = NULL;
    json_t *document = small_json(files);
    if (strcmp(cases[i][0], "model") == 0) json_object_set_new(document, "added_tokens", json_array());
    json_object_set_new(document, cases[i][0], parsed(cases[i][1]));
    assert_int_not_equal(kp_bpe_read_json(document, &tokenizer, &error), KP_OK);
    if (strstr(error.message, cases[i][2]) == NULL) fail_msg("case %zu: %s", i, error.message);
    json_decref(document);
  }
}

/* Added tokens, a template, another pattern and a sequence come back from a file as they were. */
static void test_all_parts_come_back(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL, *opened = NULL;
  json_t *document = small_json(files);
  json_object_set_new(document, "added_tokens",
                      parsed("[{\"id\": 0, \"content\": \"<|endoftext|>\", \"special\": true},"
                             "{\"id\": 503, \"content\": \"<s>\", \"special\": true},"
                             "{\"id\": 501, \"content\": \"  \\u00e9\", \"special\": false}]"));
  json_object_set_new(
      document, "pre_tokenizer",
      parsed("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
             "\"individual_digits\": true}, {\"type\": \"Split\", \"pattern\": {\"Regex\": "
             "\"[a-z]+\"}, \"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", \"use_regex\": false}]}"));
  json_object_set_new(
      document, "post_processor",
      parsed("{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
             "{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"<|endoftext|>\"}}]}"));
  check_ok(kp_bpe_read_json(document, &tokenizer, &error), &error);
  const char *path = fixture_path(files, "again.json");
  check_ok(kp_tokenizer_save(tokenizer, path, &error), &error);
  opened = open_tokenizer(path);
  assert_true(opened->fingerprint == tokenizer->fingerprint);
  const kp_tokenizer *const both[] = {tokenizer, opened};
  for (size_t i = 0; i < 2; i++) {
    assert_int_equal(both[i]->vocabulary, 504);
    assert_int_equal(both[i]->begin, 503);
    assert_int_equal(both[i]->end, 0);
    /* "  é" is found without being asked for, "<s>" is not. */
    CHECK_IDS(both[i], "the  \xC3\xA9the", false, 364, 501, 364);
    CHECK_IDS(both[i], "a<s>a", false, 65, 28, 83, 30, 65);
    CHECK_IDS(both[i], "a<s>a", true, 65, 503, 65);
  }
  kp_tokenizer_destroy(tokenizer);
  kp_tokenizer_destroy(opened);
  json_decref(document);
}

/* ---- rank files ---- */

static size_t write_base64(const char *bytes, size_t size, char *out) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  size_t used = 0;
  for (size_t at = 0; at < size; at += 3) {
    uint32_t group = 0;
    for (size_t i = 0; i < 3; i++) group = group << 8 | (at + i < size ? (unsigned char)bytes[at + i] : 0);
    for (size_t i = 0; i < 4; i++) out[used++] = at + i > size ? '=' : digits[group >> (18 - 6 * i) & 63];
  }
  return used;
}

/* The small vocabulary as a rank file: its first token, which is special, moves behind the others. */
static size_t write_ranks(const kp_tokenizer *small, char *out) {
  size_t used = 0;
  for (int32_t id = 1; id < small->vocabulary; id++) {
    const char *bytes;
    size_t size;
    small->kind->token_bytes(small, id, &bytes, &size);
    used += write_base64(bytes, size, out + used);
    used += (size_t)sprintf(out + used, " %d\n", id - 1);
  }
  return used;
}

static const char *const end_of_text[] = {"<|endoftext|>", NULL};
static const kp_bpe_scheme small_scheme = {
    .pattern = KP_PATTERN_GPT2, .specials = end_of_text, .end = "<|endoftext|>"};

/* The same merges as in the file that lists them, so the same ids, one less. */
static void test_ranks(void **state) {
  (void)state;
  kp_error error = {0};
  kp_tokenizer *small = open_tokenizer(SMALL), *ranked = NULL;
  char ranks[16384];
  const size_t size = write_ranks(small, ranks);
  check_ok(kp_bpe_read_ranks(ranks, size, &small_scheme, &ranked, &error), &error);
  assert_int_equal(ranked->vocabulary, 500);
  assert_int_equal(ranked->end, 499);
  const kp_bpe_parts *listed = kp_bpe_tokenizer_parts(small), *found = kp_bpe_tokenizer_parts(ranked);
  assert_int_equal(found->merge_count, listed->merge_count);
  for (size_t i = 0; i < found->merge_count; i++) {
    assert_int_equal(found->merges[i].left, listed->merges[i].left - 1);
    assert_int_equal(found->merges[i].right, listed->merges[i].right - 1);
    assert_int_equal(found->merges[i].id, listed->merges[i].id - 1);
  }
  CHECK_IDS(ranked, "one<|endoftext|>two", true, 273, 68, 499, 83, 86, 78);
  kp_tokenizer_destroy(small);
  kp_tokenizer_destroy(ranked);
}

/* A token that no merges lead to is still found as a whole piece, and comes back from tokenizer.json so. */
static void test_whole_pieces(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_tokenizer *ranked = NULL;
  static const char ranks[] = "YQ== 0\nYg== 1\nYw== 2\nIA== 3\nYWJj 4\n"; /* a b c space abc */
  check_ok(kp_bpe_read_ranks(ranks, sizeof ranks - 1, &small_scheme, &ranked, &error), &error);
  const char *path = fixture_path(files, "whole.json");
  check_ok(kp_tokenizer_save(ranked, path, &error), &error);
  kp_tokenizer *opened = open_tokenizer(path);
  assert_true(opened->fingerprint == ranked->fingerprint);
  CHECK_IDS(ranked, "abc abc", true, 4, 3, 0, 1, 2);
  CHECK_IDS(opened, "abc abc", true, 4, 3, 0, 1, 2);
  kp_tokenizer_destroy(ranked);
  kp_tokenizer_destroy(opened);
}

static void test_bad_files(void **state) {
  fixture *files = *state;
  static const char *const cases[][2] = {
      {"", "empty"},
      {"YQ== 0\nYg== 1\n", "2 ranks"},
      {"YQ== 0\nYg==1\n", "line 2"},
      {"YQ= 0\n", "line 1"},
      {"Y*== 0\n", "line 1"},
      {"YQ== 0x\n", "line 1"},
      {"{\"a\": 0, \"b\": 1}", "merges.txt"},
      {"{\"a\": 0", "line 1"},
      {"{\"a\": []}", "is this a tokenizer?"},
      {"{\"type\": \"other\"}", "'other'"},
      {"#version: 0.2\na b\n", "vocab.json"},
      {"GGUF\x03", "GGUF"},
      {"\n\x0E\n\x05<unk>", "SentencePiece"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kp_error error = {0};
    kp_tokenizer *tokenizer = NULL;
    const char *path = fixture_write(files, "file", cases[i][0], strlen(cases[i][0]));
    assert_int_not_equal(kp_tokenizer_open(path, &tokenizer, &error), KP_OK);
    if (strstr(error.message, cases[i][1]) == NULL) fail_msg("case %zu: %s", i, error.message);
    assert_non_null(strstr(error.message, path));
  }
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  assert_int_equal(kp_tokenizer_open(files->folder, &tokenizer, &error), KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "tokenizer.model"));
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
      cmocka_unit_test(test_known_ids),
      cmocka_unit_test(test_merging),
      cmocka_unit_test(test_a_long_word),
      cmocka_unit_test_setup_teardown(test_pairs_of_files, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_save_and_open, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_merges_as_pairs, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_unsupported_json, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_all_parts_come_back, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_ranks),
      cmocka_unit_test_setup_teardown(test_whole_pieces, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_bad_files, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_parts_of_a_text),
      cmocka_unit_test(test_invalid_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
