/* Files as texts to learn a tokenizer from: however they are cut into blocks, whichever way the documents are
 * written, the same is learned; what is wrong is named with file and line. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/bpe_train_files.h"

static const char *const specials[] = {"<|endoftext|>",
                                       "word word"}; /* the second has a place to cut in it */

static kp_bpe_trainer *begin(void) {
  kp_error error = {0};
  kp_bpe_trainer *trainer = NULL;
  const kp_bpe_train_options options = {.vocabulary = 600, .specials = specials, .special_count = 2};
  check_ok(kp_bpe_trainer_create(&options, &trainer, &error), &error);
  return trainer;
}

/* The fingerprint of what is learned; ends the trainer. */
static uint64_t finish(kp_bpe_trainer *trainer) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_bpe_trainer_finish(trainer, &tokenizer, &error), &error);
  const uint64_t fingerprint = tokenizer->fingerprint;
  kp_tokenizer_destroy(tokenizer);
  kp_bpe_trainer_destroy(trainer);
  return fingerprint;
}

static uint64_t learn_texts(const kp_text_view *texts, size_t count) {
  kp_error error = {0};
  kp_bpe_trainer *trainer = begin();
  check_ok(kp_bpe_trainer_add(trainer, texts, count, &error), &error);
  return finish(trainer);
}

static uint64_t learn_files(const kp_bpe_train_files *files, uint64_t expected_bytes) {
  kp_error error = {0};
  uint64_t bytes;
  kp_bpe_trainer *trainer = begin();
  check_ok(kp_bpe_trainer_add_files(trainer, files, &bytes, &error), &error);
  assert_int_equal(bytes, expected_bytes);
  return finish(trainer);
}

static uint64_t learn_file(const char *path, size_t batch, uint64_t expected_bytes) {
  return learn_files(&(kp_bpe_train_files){.paths = &path, .path_count = 1, .batch = batch}, expected_bytes);
}

/* Words, white space, numbers, other scripts and special tokens; the caller frees the text. */
static char *mixed_text(size_t size, uint64_t seed, size_t *written) {
  static const char *const parts[] = {"word",          " word",    " ",       "\n",       "12345",
                                      "\xE4\xB8\xAD",  "don't",    "  wor d", "\r\n",     "!?",
                                      "<|endoftext|>", "\xC3\xA9", " sword",  "word word"};
  char *text = malloc(size + 32);
  assert_non_null(text);
  size_t at = 0;
  for (uint64_t i = 0; at < size; i++) {
    const char *part = parts[kp_random_below(seed, 0, 0, i, sizeof parts / sizeof *parts)];
    memcpy(text + at, part, strlen(part) + 1);
    at += strlen(part);
  }
  *written = at;
  return text;
}

/* Wherever the trainer says that a text may be cut, both parts give what the whole does. */
static void test_cuts(void **state) {
  (void)state;
  size_t size, cuts = 0, last = 0;
  char *text = mixed_text(1500, 3, &size);
  const uint64_t whole = learn_texts(&(kp_text_view){text, size}, 1);
  kp_bpe_trainer *trainer = begin();
  for (size_t known = 0; known <= size; known++) {
    const size_t cut = kp_bpe_trainer_cut(trainer, text, known);
    assert_true(cut <= known);
    if (cut == 0 || cut == last) continue;
    const kp_text_view parts[] = {{text, cut}, {text + cut, size - cut}};
    if (learn_texts(parts, 2) != whole) fail_msg("cut at %zu of %zu known bytes", cut, known);
    last = cut;
    cuts++;
  }
  assert_true(cuts > 0);
  assert_int_equal(kp_bpe_trainer_cut(trainer, "onelongwordwithoutaplace", 24), 0);
  kp_bpe_trainer_destroy(trainer);
  free(text);
}

static void test_blocks(void **state) {
  fixture *files = *state;
  size_t size;
  char *text = mixed_text(900000, 4, &size);
  const char *path = fixture_write(files, "text.txt", text, size);
  const uint64_t whole = learn_texts(&(kp_text_view){text, size}, 1);
  static const size_t batches[] = {0, 1, 300000};
  for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
    if (learn_file(path, batches[i], size) != whole) fail_msg("blocks of %zu bytes", batches[i]);
  /* A text that can be cut nowhere is read whole. */
  memset(text, 'a', size);
  path = fixture_write(files, "letters.txt", text, size);
  assert_true(learn_file(path, 1, size) == learn_texts(&(kp_text_view){text, size}, 1));
  assert_true(learn_file(fixture_write(files, "empty.txt", "", 0), 0, 0) == learn_texts(NULL, 0));
  free(text);
}

static void test_documents(void **state) {
  fixture *files = *state;
  static const char lines[] = "{\"body\": \"low lower\", \"n\": 1}\n\n{\"body\": \" lowest\\u00e9\"}\n";
  static const char array[] = "[{\"body\": \"low lower\"}, {\"body\": \" lowest\\u00e9\"}]";
  const kp_text_view texts[] = {{"low lower", 9}, {" lowest\xC3\xA9", 9}};
  const uint64_t expected = learn_texts(texts, 2);
  kp_bpe_train_files options = {.path_count = 1, .field = "body"};
  const char *path = fixture_write(files, "docs.jsonl", lines, sizeof lines - 1);
  options.paths = &path;
  for (options.batch = 0; options.batch < 2; options.batch++)
    assert_true(learn_files(&options, 18) == expected);
  path = fixture_write(files, "docs.json", array, sizeof array - 1);
  assert_true(learn_files(&options, 18) == expected);
  path = fixture_write(files, "docs.data", lines, sizeof lines - 1);
  options.format = KP_DOCUMENTS_LINES;
  assert_true(learn_files(&options, 18) == expected);
}

static kp_status try_files(const kp_bpe_train_files *files, kp_error *error) {
  uint64_t bytes;
  kp_bpe_trainer *trainer = begin();
  const kp_status status = kp_bpe_trainer_add_files(trainer, files, &bytes, error);
  kp_bpe_trainer_destroy(trainer);
  return status;
}

static void check_refused(const char *path, size_t batch, const char *words) {
  kp_error error = {0};
  const kp_bpe_train_files files = {.paths = &path, .path_count = 1, .batch = batch};
  assert_int_not_equal(try_files(&files, &error), KP_OK);
  check_words(&error, words);
  check_words(&error, path);
}

static void test_invalid_bytes(void **state) {
  fixture *files = *state;
  size_t size;
  char *text = mixed_text(900000, 5, &size), words[64];
  size_t lines = 1;
  for (size_t i = 0; i < size - 5; i++) lines += text[i] == '\n';
  memcpy(text + size - 5, "a\xFFz b", 5); /* far behind the first blocks */
  const char *path = fixture_write(files, "bad.txt", text, size);
  snprintf(words, sizeof words, "offset %zu (line %zu)", size - 4, lines);
  check_refused(path, 1000, words);
  check_refused(path, 0, words);
  static const char repaired[] = "ca\xEF\xBF\xBD\xEF\xBF\xBD t";
  path = fixture_write(files, "latin.txt", "ca\xE9\xFF t", 6);
  const kp_bpe_train_files replace = {.paths = &path, .path_count = 1, .replace_invalid = true};
  assert_true(learn_files(&replace, 6) == learn_texts(&(kp_text_view){repaired, sizeof repaired - 1}, 1));
  free(text);
}

static bool stop(void *context, int64_t bytes, int64_t files_left) {
  int64_t *seen = context;
  seen[0] = bytes;
  seen[1] = files_left;
  return false;
}

static void test_refusals(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  check_refused(fixture_path(files, "missing.txt"), 0, "it does not exist");
  check_refused(fixture_write(files, "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n", 26), 0, "bad.jsonl");
  const char *paths[] = {fixture_write(files, "a.txt", "first text", 10), files->folder};
  int64_t seen[2];
  const kp_bpe_train_files stopped = {.paths = paths, .path_count = 1, .progress = stop, .context = seen};
  assert_int_equal(try_files(&stopped, &error), KP_ERR_INTERRUPTED);
  assert_int_equal(seen[0], 10);
  assert_int_equal(seen[1], 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cuts),      with_fixture(test_blocks),   with_fixture(test_documents),
      with_fixture(test_invalid_bytes), with_fixture(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
