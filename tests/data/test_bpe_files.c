/* Files of byte-level BPE: every kind gives the same tokenizer, what is written comes back, and what is not
 * supported is refused by name. */
#include "data/small_tokenizer.h"

#include "data/bpe_files.h"
#include "data/bpe_tokenizer.h"

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

/* ---- what is no tokenizer ---- */

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

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_pairs_of_files),      with_fixture(test_save_and_open),
      with_fixture(test_merges_as_pairs),     with_fixture(test_unsupported_json),
      with_fixture(test_all_parts_come_back), cmocka_unit_test(test_ranks),
      with_fixture(test_whole_pieces),        with_fixture(test_bad_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
