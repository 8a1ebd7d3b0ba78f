/* Labelled files to a prepared folder. */
#include "data/compressed.h"
#include "data/labelled_sets.h"

#include "data/batches.h"
#include "data/prepare.h"

/* The text of an example; the separator is written '|'. */
static char *text_of(const char *folder, const kp_labelled_set *set, const kp_examples *examples, int64_t e) {
  kp_error error = {0};
  kp_tokenizer *tokenizer;
  const int64_t begin = examples->offsets[e], count = examples->offsets[e + 1] - begin;
  int32_t ids[512];
  char *out = calloc(1, 1024);
  assert_non_null(out);
  check_ok(kp_tokenizer_open(folder, &tokenizer, &error), &error);
  kp_tokens_copy(examples->tokens, begin, count, ids);
  for (int64_t i = 0; i < count; i++) {
    char *one;
    size_t size;
    if (ids[i] == kp_labelling_separator(&set->labelling)) {
      strcat(out, "|");
      continue;
    }
    check_ok(kp_tokenizer_decode(tokenizer, &ids[i], 1, &one, &size, &error), &error);
    strcat(out, one);
    free(one);
  }
  kp_tokenizer_destroy(tokenizer);
  return out;
}

static void check_text(const char *folder, const kp_labelled_set *set, const kp_examples *examples, int64_t e,
                       const char *expected) {
  char *text = text_of(folder, set, examples, e);
  assert_string_equal(text, expected);
  free(text);
}

static const char pairs[] = "label\tpremise\thypothesis\n"
                            "yes\tshort\tabcdefghijkl\n"
                            "no\tabcdefghijkl\tshort\n"
                            "maybe\tabcdefghijkl\tmnopqrstuvwx\n"
                            "yes\tabcde\tfghij\n"
                            "no\tabcde\t\n";

static void test_pairs_are_joined_and_cut(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set made;
  kp_labelled_set set;
  const char *input[] = {write_text(files, "train.tsv", pairs)};
  kp_labelled_prepare_options options = {
      .task = KP_TASK_CLASSIFY,
      .files = input,
      .file_count = 1,
      .validation = write_text(files, "val.tsv", "label\tpremise\thypothesis\nno\tz\ty\n"),
      .length = 12,
      .folder = fixture_path(files, "set"),
      .name = "pairs"};
  check_ok(prepare(&options, &made, &error), &error);
  assert_true(made.fresh);
  open_set(options.folder, &set);
  assert_int_equal(set.labelling.labels.count, 3);
  assert_string_equal(set.labelling.labels.names[0], "maybe");
  assert_string_equal(set.labelling.labels.names[2], "yes");
  assert_int_equal(set.train.count, 5);
  assert_int_equal(set.validation.count, 1);
  check_text(options.folder, &set, &set.train, 0, "short|abcdef");
  check_text(options.folder, &set, &set.train, 1, "abcdef|short");
  check_text(options.folder, &set, &set.train, 2, "abcdef|mnopq");
  check_text(options.folder, &set, &set.train, 3, "abcde|fghij");
  check_text(options.folder, &set, &set.train, 4, "abcde|");
  check_text(options.folder, &set, &set.validation, 0, "z|y");
  assert_int_equal(set.labelling.train.truncated, 3);
  assert_int_equal(set.labelling.train.longest, 12);
  assert_int_equal(set.train.longest, 12);
  const int32_t labels[] = {2, 1, 0, 2, 1};
  assert_memory_equal(set.train.labels, labels, sizeof labels);
  assert_int_equal(kp_tokens_vocabulary(set.train.tokens), kp_labelling_vocabulary(&set.labelling));
  kp_labelled_close(&set);
  check_ok(prepare(&options, &made, &error), &error);
  assert_false(made.fresh);
  options.length = 13;
  check_ok(prepare(&options, &made, &error), &error);
  assert_true(made.fresh);
}

static const char tagged[] = "Ada\tB-PER\nLovelace\tI-PER\nwrote\tO\n\nin\tO\nLondon\tB-LOC\n";

static void test_tags_stand_at_the_first_token_of_a_word(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set made;
  kp_labelled_set set;
  const char *input[] = {write_text(files, "train.conll", tagged)};
  kp_labelled_prepare_options options = {.task = KP_TASK_TAG,
                                         .files = input,
                                         .file_count = 1,
                                         .validation = write_text(files, "val.conll", "by O\nAda B-PER\n"),
                                         .length = 14,
                                         .folder = fixture_path(files, "set"),
                                         .name = "tags"};
  check_ok(prepare(&options, &made, &error), &error);
  open_set(options.folder, &set);
  check_text(options.folder, &set, &set.train, 0, "Ada Lovelace w");
  check_text(options.folder, &set, &set.train, 1, "in London");
  assert_int_equal(set.labelling.train.truncated, 1);
  assert_int_equal(set.labelling.validation.truncated, 0);
  for (int64_t i = 0; i < kp_tokens_count(set.train.tokens); i++) {
    const int32_t expected = i == 0    ? 1 /* B-PER */
                             : i == 4  ? 2 /* I-PER */
                             : i == 13 ? 3 /* O */
                             : i == 14 ? 3 /* in */
                             : i == 17 ? 0 /* B-LOC */
                                       : KP_IGNORE;
    assert_int_equal(set.train.labels[i], expected);
  }
  kp_labelled_close(&set);
}

/* The word tokenizer has the space in front of a word in its token, which then carries the tag. */
static void test_tags_of_whole_words(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set made;
  kp_labelled_set set;
  static const char text[] = "the O\nking O\nDavid B-PER\n\nthe O\nking O\nwas O\nQ B-PER\n";
  const char *input[] = {write_text(files, "train.conll", text)};
  kp_labelled_prepare_options options = {.task = KP_TASK_TAG,
                                         .files = input,
                                         .file_count = 1,
                                         .validation = input[0],
                                         .tokenizer = "word",
                                         .vocabulary = 17,
                                         .folder = fixture_path(files, "set"),
                                         .name = "words"};
  check_ok(prepare(&options, &made, &error), &error);
  open_set(options.folder, &set);
  assert_string_equal(made.prepared.tokenizer, "word");
  /* 15 characters and two words, "the" and " king"; others are spelled: "the", " king", " ", "D", "a", … */
  static const int32_t tags[] = {1, 1, KP_IGNORE, 0, KP_IGNORE, KP_IGNORE, KP_IGNORE, KP_IGNORE};
  check_text(options.folder, &set, &set.train, 0, "the king David");
  assert_int_equal(set.train.offsets[1], 8);
  assert_memory_equal(set.train.labels, tags, sizeof tags);
  kp_labelled_close(&set);
}

static bool holds(const char *folder, const kp_labelled_set *set, const kp_examples *examples,
                  const char *wanted) {
  bool found = false;
  for (int64_t e = 0; e < examples->count; e++) {
    char *text = text_of(folder, set, examples, e);
    found |= strcmp(text, wanted) == 0;
    free(text);
  }
  return found;
}

/* A table and JSON lines, compressed, give the set that the plain files give. */
static void test_compressed_files(void **state) {
  static const char table[] = "sentence\tlabel\nabc\tyes\ncab\tno\n",
                    lines[] = "{\"sentence\": \"bca\", \"label\": \"no\"}\n";
  fixture *files = *state;
  kp_error error = {0};
  const char *plain[] = {write_text(files, "train.tsv", table)},
             *packed[] = {fixture_compress(files, "train.tsv.xz", "xz", table, sizeof table - 1)};
  prepared_set made[2];
  kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                         .files = plain,
                                         .file_count = 1,
                                         .validation = write_text(files, "val.jsonl", lines),
                                         .folder = fixture_path(files, "plain"),
                                         .name = "letters"};
  check_ok(prepare(&options, &made[0], &error), &error);
  options.files = packed;
  options.validation = fixture_compress(files, "val.jsonl.gz", "gzip", lines, sizeof lines - 1);
  options.folder = fixture_path(files, "packed");
  check_ok(prepare(&options, &made[1], &error), &error);
  assert_string_equal(made[0].prepared.train.sha256, made[1].prepared.train.sha256);
  assert_string_equal(made[0].prepared.validation.sha256, made[1].prepared.validation.sha256);
  assert_int_equal(made[1].prepared.train.tokens, 6);
}

static void test_split_keeps_equal_sentences_together(void **state) {
  fixture *files = *state;
  enum { count = 200 };
  kp_error error = {0};
  prepared_set made;
  kp_labelled_set set;
  const char *input[] = {write_doubles(files, count)};
  kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                         .files = input,
                                         .file_count = 1,
                                         .train_fraction = 0.8,
                                         .folder = fixture_path(files, "set"),
                                         .name = "doubles"};
  check_ok(prepare(&options, &made, &error), &error);
  open_set(options.folder, &set);
  assert_int_equal(set.train.count + set.validation.count, 2 * count);
  assert_in_range(set.validation.count, 2 * count / 10, 2 * count * 3 / 10);
  for (int i = 0; i < count; i += 10) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "sentence %d", i);
    assert_true(holds(options.folder, &set, &set.train, wanted) !=
                holds(options.folder, &set, &set.validation, wanted));
  }
  kp_labelled_close(&set);
}

static void test_like_another_set(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set first, second;
  const char *input[] = {write_text(files, "train.tsv", "sentence\tlabel\nabc\tx\nbcd\ty\ncde\tz\n")};
  const char *other[] = {write_text(files, "other.tsv", "sentence\tlabel\nee\tz\n")};
  kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                         .files = input,
                                         .file_count = 1,
                                         .validation = input[0],
                                         .folder = fixture_path(files, "first"),
                                         .name = "first"};
  check_ok(prepare(&options, &first, &error), &error);
  options.like = options.folder;
  options.files = other;
  options.validation = other[0];
  options.folder = fixture_path(files, "second");
  check_ok(prepare(&options, &second, &error), &error);
  assert_true(first.prepared.fingerprint == second.prepared.fingerprint);
  kp_labelled_set set;
  open_set(options.folder, &set);
  assert_int_equal(set.labelling.labels.count, 3);
  assert_int_equal(set.train.labels[0], 2);
  kp_labelled_close(&set);
  options.validation = write_text(files, "new.tsv", "sentence\tlabel\nee\tnew\n");
  assert_int_equal(prepare(&options, &second, &error), KP_ERR_INPUT);
  check_words(&error, "new.tsv: line 2: the label 'new' is none of the 3");
  options.validation = write_text(files, "strange.tsv", "sentence\tlabel\nee\tx\nQ\tx\n");
  assert_int_equal(prepare(&options, &second, &error), KP_ERR_INPUT);
  check_words(&error, "strange.tsv: the example at line 3");
}

static void test_what_cannot_be_prepared(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set made;
  const char *input[] = {write_text(files, "one.tsv", "sentence\tlabel\na\tx\nb\tx\n")};
  kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                         .files = input,
                                         .file_count = 1,
                                         .folder = fixture_path(files, "set"),
                                         .name = "one"};
  assert_int_equal(prepare(&options, &made, &error), KP_ERR_INPUT);
  check_words(&error, "all examples have the label 'x'");
  assert_int_equal(kp_prepared_state_of(options.folder), KP_PREPARED_NOTHING);
  input[0] = write_text(files, "two.tsv", "sentence\tlabel\na\tx\na\ty\n");
  assert_int_equal(prepare(&options, &made, &error), KP_ERR_INPUT);
  check_words(&error, "or a file for validation");
  options.length = 3;
  assert_int_equal(prepare(&options, &made, &error), KP_ERR_INPUT);
  check_words(&error, "outside 4 to");
}

/* A text that is prepared into the folder of a labelled set ends that set. */
static void test_a_text_takes_the_folder(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  prepared_set made;
  kp_prepared text;
  const char *input[] = {write_text(files, "two.tsv", "sentence\tlabel\na\tx\nb\ty\n")};
  kp_labelled_prepare_options options = {.task = KP_TASK_CLASSIFY,
                                         .files = input,
                                         .file_count = 1,
                                         .validation = input[0],
                                         .folder = fixture_path(files, "set"),
                                         .name = "set"};
  check_ok(prepare(&options, &made, &error), &error);
  assert_true(kp_labelling_stands_in(options.folder));
  const kp_prepare_options plain = {
      .texts = input, .text_count = 1, .validation = input[0], .folder = options.folder, .name = "set"};
  check_ok(kp_prepare(&plain, &text, &made.fresh, &error), &error);
  assert_true(made.fresh);
  assert_false(kp_labelling_stands_in(options.folder));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_pairs_are_joined_and_cut),
      with_fixture(test_tags_stand_at_the_first_token_of_a_word),
      with_fixture(test_tags_of_whole_words),
      with_fixture(test_compressed_files),
      with_fixture(test_split_keeps_equal_sentences_together),
      with_fixture(test_like_another_set),
      with_fixture(test_what_cannot_be_prepared),
      with_fixture(test_a_text_takes_the_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
