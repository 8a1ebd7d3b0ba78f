/* Labelled files to a prepared folder, and the folder to batches. */
#include "data/compressed.h"
#include "data/fixture.h"

#include "data/labelled_batches.h"
#include "data/labelled_prepare.h"
#include "data/prepare.h"

typedef struct prepared_set {
  kp_prepared prepared;
  kp_labelling labelling;
  bool fresh;
} prepared_set;

static kp_status prepare(const kp_labelled_prepare_options *options, prepared_set *set, kp_error *error) {
  kp_status status = kp_prepare_labelled(options, &set->prepared, &set->labelling, &set->fresh, error);
  if (status == KP_OK) kp_labelling_clear(&set->labelling);
  return status;
}

static const char *write_text(fixture *files, const char *name, const char *text) {
  return fixture_write(files, name, text, strlen(text));
}

static void open_set(const char *folder, kp_labelled_set *set) {
  kp_error error = {0};
  check_ok(kp_labelled_open(folder, set, &error), &error);
}

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

/* `count` sentences, each twice. */
static const char *write_doubles(fixture *files, int count) {
  char *text = calloc((size_t)count + 1, 40);
  assert_non_null(text);
  strcpy(text, "label\tsentence\n");
  char *at = text + strlen(text);
  for (int i = 0; i < 2 * count; i++) at += sprintf(at, "%d\tsentence %d\n", i % 3, i % count);
  const char *path = write_text(files, "doubles.tsv", text);
  free(text);
  return path;
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

/* ---- damaged folders ---- */

static void prepare_doubles(fixture *files, const char *folder) {
  kp_error error = {0};
  prepared_set made;
  const char *input[] = {write_doubles(files, 20)};
  kp_labelled_prepare_options options = {
      .task = KP_TASK_CLASSIFY, .files = input, .file_count = 1, .folder = folder, .name = "doubles"};
  check_ok(prepare(&options, &made, &error), &error);
}

/* Replaces the first `from` in a file of the folder; both have the same length, or the file is a text. */
static void replace(const char *folder, const char *name, const char *from, const char *to) {
  kp_error error = {0};
  char path[KP_PATH_SIZE];
  size_t size;
  check_ok(kp_path_join(path, folder, name, &error), &error);
  char *text = fixture_read(path, &size);
  char *at = strstr(text, from);
  assert_non_null(at);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  fwrite(text, 1, (size_t)(at - text), out);
  fputs(to, out);
  fputs(at + strlen(from), out);
  assert_int_equal(fclose(out), 0);
  free(text);
}

static void test_a_damaged_description_is_refused(void **state) {
  fixture *files = *state;
  static const char *const damages[][2] = {
      {"\"classify\"", "\"language\""},
      {"\"classify\"", "7"},
      {"\"labels\"", "\"names\""},
      {"\"0\"", "\"1\""},
      {"\"0\"", "null"},
      {"\"vocabulary\": ", "\"x\": "},
      {"\"vocabulary\": ", "\"vocabulary\": -"},
      {"\"examples\": ", "\"examples\": -"},
      {"\"train\"", "\"training\""},
      {"{", "["},
  };
  const char *folder = fixture_path(files, "set");
  for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
    kp_error error = {0};
    kp_labelled_set set;
    prepare_doubles(files, folder);
    replace(folder, KP_TASK_FILE, damages[i][0], damages[i][1]);
    assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
    check_words(&error, "task.json");
    replace(folder, KP_PREPARED_FILE, "\"complete\": true", "\"complete\": false");
  }
}

static void test_an_index_that_does_not_fit_is_refused(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_labelled_set set;
  const char *folder = fixture_path(files, "set");
  prepare_doubles(files, folder);
  /* Another number of examples than the index has. */
  kp_labelling labelling;
  check_ok(kp_labelling_read(folder, &labelling, &error), &error);
  labelling.train.examples--;
  check_ok(kp_labelling_write(folder, &labelling, &error), &error);
  assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
  check_words(&error, KP_TRAIN_EXAMPLES_FILE);
  /* The labels of three classes where two are named. */
  labelling.train.examples++;
  free(labelling.labels.names[--labelling.labels.count]);
  check_ok(kp_labelling_write(folder, &labelling, &error), &error);
  assert_int_equal(kp_labelled_open(folder, &set, &error), KP_ERR_INPUT);
  check_words(&error, "is none of the 2");
  kp_labelling_clear(&labelling);
}

/* ---- batches ---- */

typedef struct batch_buffers {
  int32_t inputs[8 * 32], targets[8 * 32], documents[8 * 32];
  kp_batch batch;
} batch_buffers;

static kp_batch *buffers(batch_buffers *b) {
  b->batch = (kp_batch){.inputs = b->inputs, .targets = b->targets, .documents = b->documents};
  return &b->batch;
}

static void test_an_epoch_sees_every_example_once(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_labelled_set set;
  kp_example_sampler sampler;
  const char *folder = fixture_path(files, "set");
  prepare_doubles(files, folder);
  open_set(folder, &set);
  const kp_sampler_options options = {
      .seed = 5, .rows = 3, .context = 32, .micro_batches = 2, .vocabulary = 100};
  check_ok(kp_example_sampler_init(&sampler, &set.train, &set.labelling, &options, &error), &error);
  const int64_t count = set.train.count, per_step = 6;
  int seen[64] = {0}, moved = 0;
  for (int64_t visited = 0; visited < 3 * count; visited++) {
    const int64_t example = kp_example_of_row(&sampler, visited / per_step, visited % per_step);
    assert_in_range(example, 0, count - 1);
    moved += example != visited % count;
    assert_int_equal(seen[example]++, visited / count);
  }
  assert_true(moved > count);
  batch_buffers first, again;
  for (int64_t micro = 0; micro < 2; micro++) {
    check_ok(kp_example_batch_fill(&sampler, 7, micro, buffers(&first), &error), &error);
    check_ok(kp_example_batch_fill(&sampler, 7, micro, buffers(&again), &error), &error);
    assert_memory_equal(first.inputs, again.inputs, 3 * 32 * sizeof(int32_t));
    for (int64_t row = 0; row < 3; row++) {
      const int64_t e = kp_example_of_row(&sampler, 7, micro * 3 + row);
      const int64_t size = set.train.offsets[e + 1] - set.train.offsets[e];
      int32_t ids[32];
      kp_tokens_copy(set.train.tokens, set.train.offsets[e], size, ids);
      assert_memory_equal(first.inputs + row * 32, ids, (size_t)size * sizeof *ids);
      assert_int_equal(first.targets[row], set.train.labels[e]);
      for (int64_t t = 0; t < 32; t++) {
        assert_int_equal(first.documents[row * 32 + t], t < size ? 0 : KP_PADDING_DOCUMENT);
        if (t >= size) assert_int_equal(first.inputs[row * 32 + t], kp_labelling_padding(&set.labelling));
      }
    }
  }
  kp_labelled_close(&set);
}

static void test_validation_goes_through_all_examples(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_labelled_set set;
  kp_example_sampler sampler;
  batch_buffers b;
  const char *folder = fixture_path(files, "set");
  prepare_doubles(files, folder);
  open_set(folder, &set);
  const kp_sampler_options options = {.rows = 7, .context = 20, .micro_batches = 1, .vocabulary = 100};
  check_ok(kp_example_sampler_init(&sampler, &set.train, &set.labelling, &options, &error), &error);
  const int64_t batches = kp_example_batches(&sampler, 0);
  assert_int_equal(batches, (set.train.count + 6) / 7);
  assert_int_equal(kp_example_batches(&sampler, 2), 2);
  int64_t scored = 0;
  for (int64_t n = 0; n < batches; n++) {
    check_ok(kp_example_validation_fill(&sampler, batches, n, buffers(&b), &error), &error);
    for (int64_t row = 0; row < 7; row++) {
      if (n * 7 + row < set.train.count)
        assert_int_equal(b.targets[row], set.train.labels[n * 7 + row]);
      else
        assert_int_equal(b.targets[row], KP_IGNORE);
      scored += b.targets[row] != KP_IGNORE;
    }
  }
  assert_int_equal(scored, set.train.count);
  /* One batch alone: from the front, the middle and the end. */
  check_ok(kp_example_validation_fill(&sampler, 1, 0, buffers(&b), &error), &error);
  for (int64_t row = 0; row < 7; row++)
    assert_int_equal(b.targets[row], set.train.labels[row * set.train.count / 7]);
  const kp_sampler_options narrow = {.rows = 7, .context = 10, .micro_batches = 1, .vocabulary = 100};
  assert_int_equal(kp_example_sampler_init(&sampler, &set.train, &set.labelling, &narrow, &error),
                   KP_ERR_INPUT);
  check_words(&error, "longer than the context of 10");
  const kp_sampler_options small = {.rows = 7, .context = 20, .micro_batches = 1, .vocabulary = 4};
  assert_int_equal(kp_example_sampler_init(&sampler, &set.train, &set.labelling, &small, &error),
                   KP_ERR_INPUT);
  check_words(&error, "the model has 4");
  kp_labelled_close(&set);
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
      with_fixture(test_a_damaged_description_is_refused),
      with_fixture(test_an_index_that_does_not_fit_is_refused),
      with_fixture(test_an_epoch_sees_every_example_once),
      with_fixture(test_validation_goes_through_all_examples),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
