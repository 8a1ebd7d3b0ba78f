/* Training of byte-level BPE: against merges that Hugging Face's tokenizers learned, against a reference
 * implementation that breaks ties in another way, against a trainer that is too simple to be wrong, and the
 * same for every number of threads and order of the texts. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/bpe_count.h"
#include "data/bpe_tokenizer.h"
#include "data/bpe_train.h"
#include "data/byte_alphabet.h"
#include "data/pretokenizer.h"

static char *read_vectors(const char *name, size_t *size) {
  char path[KP_PATH_SIZE];
  snprintf(path, sizeof path, "%s/data/bpe_training/%s", KP_TEST_DIRECTORY, name);
  return fixture_read(path, size);
}

static kp_tokenizer *train(const kp_bpe_train_options *options, const kp_text_view *texts, size_t count) {
  kp_error error = {0};
  kp_tokenizer *tokenizer = NULL;
  check_ok(kp_bpe_train(texts, count, options, &tokenizer, &error), &error);
  return tokenizer;
}

static kp_tokenizer *train_text(const kp_bpe_train_options *options, const char *text) {
  const kp_text_view view = {.data = text, .size = strlen(text)};
  return train(options, &view, 1);
}

/* Appends a merge as it stands in files, "left right"; returns the new end of the text. */
static char *write_merge(char *end, kp_text_view left, kp_text_view right) {
  end += kp_alphabet_write(left.data, left.size, end);
  *end++ = ' ';
  end += kp_alphabet_write(right.data, right.size, end);
  *end++ = '\n';
  *end = 0;
  return end;
}

/* All merges, one a line; the caller frees them. */
static char *merges_of(const kp_tokenizer *tokenizer) {
  const kp_bpe_parts *parts = kp_bpe_tokenizer_parts(tokenizer);
  size_t room = 1;
  for (size_t i = 0; i < parts->merge_count; i++) room += 2 * parts->tokens[parts->merges[i].id].size + 2;
  char *text = malloc(room), *end = text;
  assert_non_null(text);
  *end = 0;
  for (size_t i = 0; i < parts->merge_count; i++)
    end = write_merge(end, parts->tokens[parts->merges[i].left], parts->tokens[parts->merges[i].right]);
  return text;
}

static void check_merges(const kp_tokenizer *tokenizer, const char *expected) {
  char *merges = merges_of(tokenizer);
  assert_string_equal(merges, expected);
  free(merges);
}

/* How many lines of two texts are the same from the front on. */
static size_t same_lines(const char *a, const char *b) {
  size_t lines = 0;
  for (; *a != 0 && *a == *b; a++, b++) lines += *a == '\n';
  return lines;
}

/* Compares with a file of one merge a line. */
static void check_merges_file(const char *merges, const char *name) {
  size_t size;
  char *expected = read_vectors(name, &size);
  assert_true(size > 1000);
  if (strcmp(merges, expected) != 0) fail_msg("%s: line %zu differs", name, same_lines(merges, expected) + 1);
  free(expected);
}

static const char *const endoftext = "<|endoftext|>";

static void test_as_tokenizers(void **state) {
  (void)state;
  size_t size;
  char *text = read_vectors("corpus.en", &size);
  const struct {
    const char *pattern, *merges;
    int32_t vocabulary;
  } cases[] = {{NULL, "gpt2_merges.txt", 1000}, {KP_PATTERN_LLAMA3, "llama3_merges.txt", 700}};
  for (size_t i = 0; i < 2; i++) {
    const kp_bpe_train_options options = {.vocabulary = cases[i].vocabulary,
                                          .minimum_count = 2,
                                          .pattern = cases[i].pattern,
                                          .specials = &endoftext,
                                          .special_count = 1};
    kp_tokenizer *tokenizer = train_text(&options, text);
    char *merges = merges_of(tokenizer);
    check_merges_file(merges, cases[i].merges);
    free(merges);
    kp_tokenizer_destroy(tokenizer);
  }
  free(text);
}

/* ---- the simplest trainer that there can be, with either rule for ties ---- */

typedef struct simple {
  int32_t words[20000][32]; /* of tokens, closed by -1 */
  int64_t counts[20000];
  int32_t word_count;
  char bytes[512][32];
  size_t sizes[512];
  int32_t token_count;
  int64_t pairs[512][512];
} simple;

static void simple_begin(simple *s, const kp_word_table *words) {
  memset(s, 0, sizeof *s);
  for (uint32_t c = 0; c < KP_ALPHABET_END; c++) {
    if (kp_alphabet_byte(c) < 0) continue;
    s->bytes[s->token_count][0] = (char)kp_alphabet_byte(c);
    s->sizes[s->token_count] = 1;
    s->token_count++;
  }
  assert_true(words->count <= 20000);
  for (int32_t w = 0; w < words->count; w++) {
    const kp_word *word = &words->words[w];
    assert_true(word->size < 32);
    for (size_t i = 0; i < word->size; i++)
      for (int32_t id = 0; id < 256; id++)
        if (s->bytes[id][0] == word->bytes[i]) s->words[w][i] = id;
    s->words[w][word->size] = -1;
    s->counts[w] = word->count;
  }
  s->word_count = words->count;
}

static int compare_bytes(const simple *s, int32_t a, int32_t b) {
  const size_t least = s->sizes[a] < s->sizes[b] ? s->sizes[a] : s->sizes[b];
  const int order = memcmp(s->bytes[a], s->bytes[b], least);
  return order != 0 ? order : (s->sizes[a] > s->sizes[b]) - (s->sizes[a] < s->sizes[b]);
}

/* Whether the pair (a, b) goes before (c, d), which came as often and has lower ids. */
static bool simple_prefers(const simple *s, bool greatest_bytes, int32_t a, int32_t b, int32_t c, int32_t d) {
  if (!greatest_bytes) return false;
  const int order = compare_bytes(s, a, c);
  return order > 0 || (order == 0 && compare_bytes(s, b, d) > 0);
}

static void simple_merge(simple *s, int32_t left, int32_t right) {
  const int32_t id = s->token_count++;
  memcpy(s->bytes[id], s->bytes[left], s->sizes[left]);
  memcpy(s->bytes[id] + s->sizes[left], s->bytes[right], s->sizes[right]);
  s->sizes[id] = s->sizes[left] + s->sizes[right];
  for (int32_t w = 0; w < s->word_count; w++) {
    int32_t *from = s->words[w], *to = from;
    for (; *from >= 0; from++, to++) {
      const bool both = from[0] == left && from[1] == right;
      *to = both ? id : *from;
      from += both;
    }
    *to = -1;
  }
}

/* Learns until there are `tokens`; the merges, one a line. */
static char *simple_train(simple *s, int32_t tokens, bool greatest_bytes) {
  char *merges = calloc(512, 2 * 65), *end = merges;
  assert_non_null(merges);
  while (s->token_count < tokens) {
    memset(s->pairs, 0, sizeof s->pairs);
    for (int32_t w = 0; w < s->word_count; w++)
      for (const int32_t *at = s->words[w]; at[0] >= 0 && at[1] >= 0; at++)
        s->pairs[at[0]][at[1]] += s->counts[w];
    int32_t left = 0, right = 0;
    for (int32_t a = 0; a < s->token_count; a++)
      for (int32_t b = 0; b < s->token_count; b++)
        if (s->pairs[a][b] > s->pairs[left][right] ||
            (s->pairs[a][b] == s->pairs[left][right] && simple_prefers(s, greatest_bytes, a, b, left, right)))
          left = a, right = b;
    assert_true(s->pairs[left][right] > 0);
    end = write_merge(end, (kp_text_view){s->bytes[left], s->sizes[left]},
                      (kp_text_view){s->bytes[right], s->sizes[right]});
    simple_merge(s, left, right);
  }
  return merges;
}

static kp_bpe_counter *count_words(const kp_pretokenizer *pretokenizer, kp_text_view text, int threads,
                                   const kp_word_table **words) {
  kp_error error = {0};
  kp_bpe_counter *counter = NULL;
  const kp_bpe_count_options options = {.pretokenizer = pretokenizer, .threads = threads};
  check_ok(kp_bpe_counter_create(&options, &counter, &error), &error);
  check_ok(kp_bpe_counter_add(counter, &text, 1, &error), &error);
  check_ok(kp_bpe_counter_words(counter, words, &error), &error);
  return counter;
}

/* The reference breaks a tie for the pair with the greatest bytes.  The simple trainer with that rule must
 * learn its merges; with our rule it must learn ours: then nothing but the rule is between the two. */
static void test_reference_but_for_ties(void **state) {
  (void)state;
  kp_error error = {0};
  size_t size;
  char *text = read_vectors("corpus.en", &size);
  const char *pattern = KP_PATTERN_GPT2;
  kp_pretokenizer *pretokenizer = NULL;
  check_ok(kp_pretokenizer_create(&pattern, 1, false, &pretokenizer, &error), &error);
  const kp_word_table *words;
  kp_bpe_counter *counter = count_words(pretokenizer, (kp_text_view){text, size}, 2, &words);
  simple *s = malloc(sizeof *s);
  assert_non_null(s);

  simple_begin(s, words);
  char *reference = simple_train(s, 499, true);
  check_merges_file(reference, "reference_merges.txt");
  simple_begin(s, words);
  char *expected = simple_train(s, 499, false);
  const kp_bpe_train_options options = {.vocabulary = 500, .specials = &endoftext, .special_count = 1};
  kp_tokenizer *tokenizer = train_text(&options, text);
  check_merges(tokenizer, expected);
  assert_int_equal(same_lines(reference, expected), 31); /* the first tie */

  free(reference);
  free(expected);
  kp_tokenizer_destroy(tokenizer);
  free(s);
  kp_bpe_counter_destroy(counter);
  kp_pretokenizer_destroy(pretokenizer);
  free(text);
}

/* ---- threads, order, parts ---- */

/* Words of few letters, so that ties abound, and of every kind of character; the caller frees the text. */
static char *many_words(size_t size, uint64_t seed) {
  static const char *const ends[] = {" ", " ", " ", "\n", "  ", ", ", "7", "\xC3\xA9", "\xE4\xB8\xAD ", "' "};
  char *text = malloc(size + 64);
  size_t at = 0;
  assert_non_null(text);
  for (uint64_t i = 0; at < size; i++) {
    const uint64_t draw = kp_random_bits(seed, 0, 0, i);
    const size_t letters = 1 + draw % 12;
    for (size_t k = 0; k < letters; k++) text[at++] = "aabcde"[(draw >> (8 + 3 * k)) % 6];
    at += (size_t)sprintf(text + at, "%s", ends[(draw >> 50) % 10]);
  }
  text[at] = 0;
  return text;
}

static void test_threads_and_order(void **state) {
  (void)state;
  char *text = many_words(5 << 18, 1); /* several parts */
  kp_text_view whole[] = {{text, strlen(text)}, {"one more", 8}}, swapped[] = {whole[1], whole[0]};
  kp_bpe_train_options options = {
      .vocabulary = 3000, .minimum_count = 2, .specials = &endoftext, .special_count = 1, .threads = 1};
  kp_tokenizer *one = train(&options, whole, 2);
  assert_int_equal(one->vocabulary, 3000);
  for (int threads = 2; threads <= 4; threads++) {
    options.threads = threads;
    kp_tokenizer *other = train(&options, threads % 2 == 0 ? whole : swapped, 2);
    if (one->fingerprint != other->fingerprint) fail_msg("%d threads learn otherwise than one", threads);
    kp_tokenizer_destroy(other);
  }
  kp_tokenizer_destroy(one);
  free(text);
}

/* Text by text, in one batch, or with a special token between them: the same. */
static void test_batches(void **state) {
  (void)state;
  const kp_text_view texts[] = {{"low lower lowest", 16}, {" low", 4}, {"er newer", 8}};
  const kp_bpe_train_options options = {.vocabulary = 290, .specials = &endoftext, .special_count = 1};
  kp_error error = {0};
  kp_bpe_trainer *trainer = NULL;
  kp_tokenizer *single = NULL, *batch = train(&options, texts, 3);
  kp_tokenizer *joined = train_text(
      &options, "<|endoftext|>low lower lowest<|endoftext|> low<|endoftext|><|endoftext|>er newer");
  check_ok(kp_bpe_trainer_create(&options, &trainer, &error), &error);
  for (size_t i = 0; i < 3; i++) check_ok(kp_bpe_trainer_add(trainer, &texts[i], 1, &error), &error);
  check_ok(kp_bpe_trainer_finish(trainer, &single, &error), &error);
  kp_bpe_trainer_destroy(trainer);
  assert_true(batch->fingerprint == single->fingerprint);
  assert_true(batch->fingerprint == joined->fingerprint);
  char *merges = merges_of(batch);
  assert_memory_equal(merges, "l o\n", 4);
  free(merges);
  kp_tokenizer_destroy(batch);
  kp_tokenizer_destroy(single);
  kp_tokenizer_destroy(joined);
}

/* ---- small cases that can be done by hand ---- */

static void check_learned(kp_bpe_train_options options, const char *text, const char *merges) {
  kp_tokenizer *tokenizer = train_text(&options, text);
  check_merges(tokenizer, merges);
  kp_tokenizer_destroy(tokenizer);
}

static void test_by_hand(void **state) {
  (void)state;
  /* In "aaab" aa stands twice; then (aa, a) and (a, b) once each: the lowest ids go first. */
  check_learned((kp_bpe_train_options){.vocabulary = 1000}, "aaab", "a a\na b\naa ab\n");
  check_learned((kp_bpe_train_options){.vocabulary = 258}, "aaab", "a a\na b\n");
  check_learned((kp_bpe_train_options){.vocabulary = 1000, .minimum_count = 3}, "ab ab ab cd cd", "a b\n");
  check_learned((kp_bpe_train_options){.vocabulary = 256}, "aaab", "");
  check_learned((kp_bpe_train_options){.vocabulary = 300}, "", "");
}

/* Ids: special tokens, bytes as GPT-2 orders them, merges. */
static void test_ids(void **state) {
  (void)state;
  const kp_bpe_train_options options = {.vocabulary = 259, .specials = &endoftext, .special_count = 1};
  static const struct {
    int32_t id;
    const char *bytes;
  } expected[] = {{0, "<|endoftext|>"}, {1, "!"},   {94, "~"}, {95, "\xA1"}, {189, ""},
                  {221, " "},           {257, "ab"}};
  kp_tokenizer *tokenizer = train_text(&options, "abc abd");
  const kp_bpe_parts *parts = kp_bpe_tokenizer_parts(tokenizer);
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    const kp_text_view token = parts->tokens[expected[i].id];
    assert_int_equal(token.size, expected[i].id == 189 ? 1 : strlen(expected[i].bytes));
    assert_memory_equal(token.data, expected[i].bytes, token.size);
  }
  assert_int_equal(tokenizer->end, 0);
  assert_int_equal(tokenizer->begin, -1);
  kp_tokenizer_destroy(tokenizer);
}

/* No token is ever written as a special token is. */
static void test_specials_are_reserved(void **state) {
  (void)state;
  static const char *const specials[] = {"low", "\xC4\xA0the"}; /* the second is how " the" is written */
  const kp_bpe_train_options options = {.vocabulary = 400, .specials = specials, .special_count = 2};
  kp_tokenizer *tokenizer = train_text(&options, "the the the the the slo slo west");
  char *merges = merges_of(tokenizer);
  assert_memory_equal(merges, "h e\nt he\n", 9);
  assert_null(strstr(merges, "\xC4\xA0 the"));
  free(merges);
  kp_tokenizer_destroy(tokenizer);
}

static void check_refused(const kp_bpe_train_options *options, const char *words) {
  kp_error error = {0};
  kp_bpe_trainer *trainer = NULL;
  assert_int_not_equal(kp_bpe_trainer_create(options, &trainer, &error), KP_OK);
  assert_null(trainer);
  check_words(&error, words);
}

static void test_refusals(void **state) {
  (void)state;
  static const char *const twice[] = {"<s>", "<s>"}, *empty = "", *letter = "a", *latin = "\xE9";
  check_refused(&(kp_bpe_train_options){.vocabulary = 255}, "no room for the 256 bytes");
  check_refused(&(kp_bpe_train_options){.vocabulary = 256, .specials = &endoftext, .special_count = 1},
                "1 special token");
  check_refused(&(kp_bpe_train_options){.vocabulary = 300, .specials = twice, .special_count = 2}, "twice");
  check_refused(&(kp_bpe_train_options){.vocabulary = 300, .specials = &empty, .special_count = 1},
                "is empty");
  check_refused(&(kp_bpe_train_options){.vocabulary = 300, .specials = &letter, .special_count = 1},
                "how a byte of text is written");
  check_refused(&(kp_bpe_train_options){.vocabulary = 300, .specials = &latin, .special_count = 1}, "UTF-8");

  kp_error error = {0};
  kp_bpe_trainer *trainer = NULL;
  const kp_bpe_train_options options = {.vocabulary = 300};
  const kp_text_view texts[] = {{"fine", 4}, {"line\nca\xE9", 8}};
  check_ok(kp_bpe_trainer_create(&options, &trainer, &error), &error);
  assert_int_equal(kp_bpe_trainer_add(trainer, texts, 2, &error), KP_ERR_INPUT);
  check_words(&error, "text 2: ");
  check_words(&error, "offset 7 (line 2)");
  kp_bpe_trainer_destroy(trainer);
}

static bool stop_at_300(void *context, int64_t done, int64_t total) {
  (void)context;
  assert_int_equal(total, 400);
  return done < 300;
}

static void test_stopping(void **state) {
  (void)state;
  kp_error error = {0};
  kp_bpe_trainer *trainer = NULL;
  kp_tokenizer *tokenizer = NULL;
  char *text = many_words(10000, 2);
  const kp_text_view view = {text, strlen(text)};
  const kp_bpe_train_options options = {.vocabulary = 400, .merging = stop_at_300};
  check_ok(kp_bpe_trainer_create(&options, &trainer, &error), &error);
  check_ok(kp_bpe_trainer_add(trainer, &view, 1, &error), &error);
  assert_int_equal(kp_bpe_trainer_finish(trainer, &tokenizer, &error), KP_ERR_INTERRUPTED);
  assert_null(tokenizer);
  kp_bpe_trainer_destroy(trainer);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_as_tokenizers),
      cmocka_unit_test(test_reference_but_for_ties),
      cmocka_unit_test(test_threads_and_order),
      cmocka_unit_test(test_batches),
      cmocka_unit_test(test_by_hand),
      cmocka_unit_test(test_specials_are_reserved),
      cmocka_unit_test(test_ids),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_stopping),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
