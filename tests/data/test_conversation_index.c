/* The index of conversations beside a token file, and the rows that are made of it: every marked token is a
 * target once in an epoch, of its own conversation, by every rule. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/packed_stream.h"
#include "data/token_writer.h"

enum { VOCABULARY = 300, ROWS = 3, CONTEXT = 24, CONVERSATIONS = 80, MOST = CONVERSATIONS * (CONTEXT + 1) };

/* Token i is i % VOCABULARY, so that a row shows where it comes from. */
typedef struct set {
  int32_t tokens[MOST];
  uint8_t mask[MOST];
  int64_t offsets[CONVERSATIONS + 1];
  kp_conversation_counts counts;
  const char *path;
  char index_path[KP_PATH_SIZE];
} set;

static uint64_t draw(uint32_t use, int64_t i, uint64_t below) {
  return kp_random_below(5, KP_RANDOM_GENERIC, use, (uint64_t)i, below);
}

static void write_tokens(const set *s, uint64_t fingerprint) {
  kp_error error = {0};
  kp_token_writer *writer;
  check_ok(kp_token_writer_create(s->path, VOCABULARY, fingerprint, &writer, &error), &error);
  check_ok(kp_token_writer_append(writer, s->tokens, (size_t)s->offsets[CONVERSATIONS], &error), &error);
  check_ok(kp_token_writer_finish(writer, 0, &error), &error);
}

static void write_index(const set *s, uint64_t fingerprint) {
  kp_error error = {0};
  check_ok(kp_conversation_index_write(s->index_path, s->offsets, s->mask, &s->counts, "chatml", fingerprint,
                                       &error),
           &error);
}

static void make_set(fixture *files, set *s) {
  kp_error error = {0};
  *s =
      (set){.path = fixture_path(files, "talks.bin"), .counts = {.conversations = CONVERSATIONS, .turns = 7}};
  for (int64_t e = 0; e < CONVERSATIONS; e++)
    s->offsets[e + 1] = s->offsets[e] + 2 + (int64_t)draw(0, e, CONTEXT);
  for (int64_t e = 0; e < CONVERSATIONS; e++)
    for (int64_t i = s->offsets[e]; i < s->offsets[e + 1]; i++) {
      s->tokens[i] = (int32_t)(i % VOCABULARY);
      s->mask[i] = i > s->offsets[e] && (i == s->offsets[e + 1] - 1 || draw(1, i, 3) == 0);
      s->counts.learned += s->mask[i];
    }
  check_ok(kp_conversation_index_path(s->path, s->index_path, &error), &error);
  assert_string_equal(s->index_path + strlen(s->index_path) - 27, "talks.documents.safetensors");
  write_tokens(s, 99);
  write_index(s, 99);
}

static kp_tokens *open_tokens(const set *s) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  check_ok(kp_tokens_open(&s->path, 1, NULL, &tokens, &error), &error);
  return tokens;
}

static void test_written_and_read(void **state) {
  static set s;
  kp_error error = {0};
  make_set(*state, &s);
  kp_tokens *tokens = open_tokens(&s);
  const kp_conversation_index *index = kp_tokens_index(tokens);
  assert_non_null(index);
  assert_int_equal(index->count, CONVERSATIONS);
  assert_memory_equal(index->offsets, s.offsets, sizeof s.offsets);
  assert_memory_equal(index->mask, s.mask, (size_t)s.offsets[CONVERSATIONS]);
  assert_int_equal(index->counts.learned, s.counts.learned);
  assert_int_equal(index->counts.turns, 7);
  assert_string_equal(index->template_name, "chatml");
  check_ok(kp_conversation_index_verify(index, &error), &error);
  kp_tokens_destroy(tokens);
  unlink(s.index_path);
  tokens = open_tokens(&s);
  assert_null(kp_tokens_index(tokens));
  kp_tokens_destroy(tokens);
}

static void refuse(const set *s, const char *words) {
  kp_error error = {0};
  kp_tokens *tokens = NULL;
  assert_int_equal(kp_tokens_open(&s->path, 1, NULL, &tokens, &error), KP_ERR_INPUT);
  check_words(&error, words);
  check_words(&error, "talks.documents.safetensors");
}

static void test_what_does_not_fit_is_refused(void **state) {
  static set s;
  make_set(*state, &s);
  write_tokens(&s, 98);
  refuse(&s, "of the tokenizer 0000000000000063, the tokens are of 0000000000000062");
  write_tokens(&s, 99);
  s.mask[3] = 2;
  write_index(&s, 99);
  refuse(&s, "the mask of token 3 is 2");
  make_set(*state, &s);
  s.mask[0] = 1;
  write_index(&s, 99);
  refuse(&s, "the mask of token 0 is 1");
  make_set(*state, &s);
  s.counts.learned++;
  write_index(&s, 99);
  refuse(&s, "its metadata say");
  make_set(*state, &s);
  memset(s.mask + s.offsets[4], 0, (size_t)(s.offsets[5] - s.offsets[4]));
  write_index(&s, 99);
  refuse(&s, "nothing of conversation 4");
  make_set(*state, &s);
  s.offsets[2] = s.offsets[1] + 1;
  write_index(&s, 99);
  refuse(&s, "conversation 1 lies at tokens");
  make_set(*state, &s);
  s.counts.conversations--;
  write_index(&s, 99);
  refuse(&s, "its conversations end at token");
  fixture_write(*state, "talks.documents.safetensors", "short", 5);
  refuse(&s, "too few for a safetensors file");
}

/* ---- rows ---- */

typedef struct buffers {
  int32_t inputs[ROWS * CONTEXT], targets[ROWS * CONTEXT], documents[ROWS * CONTEXT];
} buffers;

static kp_batch batch_of(buffers *b) {
  return (kp_batch){.inputs = b->inputs, .targets = b->targets, .documents = b->documents};
}

static const kp_sampler_options in_order = {.rule = KP_SAMPLING_SEQUENTIAL,
                                            .seed = 3,
                                            .rows = ROWS,
                                            .context = CONTEXT,
                                            .micro_batches = 1,
                                            .vocabulary = VOCABULARY};

/* Targets of a batch; *wrong counts those that do not follow their input, or stand in padding. */
static int64_t count_targets(const buffers *b, int64_t *wrong) {
  int64_t count = 0;
  for (int i = 0; i < ROWS * CONTEXT; i++) {
    if (b->targets[i] == KP_IGNORE) continue;
    count++;
    *wrong += b->targets[i] != (b->inputs[i] + 1) % VOCABULARY || b->documents[i] < 0;
  }
  return count;
}

/* An epoch of single rows. */
static void check_epoch(const kp_tokens *tokens, kp_packing_rule rule, int64_t expected) {
  kp_error error = {0};
  kp_packed_stream stream;
  kp_sampler_options options = in_order;
  static buffers b;
  int64_t count = 0, said = 0, wrong = 0;
  options.rows = 1;
  check_ok(kp_packed_stream_init_conversations(&stream, tokens, &options, rule, &error), &error);
  for (int i = CONTEXT; i < ROWS * CONTEXT; i++) b.targets[i] = KP_IGNORE;
  for (int64_t step = 0; step < stream.packed.count; step++) {
    kp_batch batch = batch_of(&b);
    check_ok(kp_packed_stream_fill(&stream, step, 0, &batch, &error), &error);
    const int64_t here = count_targets(&b, &wrong);
    assert_int_equal(here, kp_packed_stream_targets(&stream, step, 0));
    count += here;
    said += stream.targets[step];
    if (rule != KP_PACKING_SINGLE) continue;
    for (int t = 0; t < CONTEXT; t++) assert_true(b.documents[t] <= 0);
  }
  assert_int_equal(wrong, 0);
  assert_int_equal(count, said);
  if (rule != KP_PACKING_HELM) assert_int_equal(count, expected);
  if (rule == KP_PACKING_SINGLE) assert_int_equal(stream.packed.count, CONVERSATIONS);
  if (rule == KP_PACKING_EXACT) assert_true(kp_packed_stream_efficiency(&stream) > 0.9);
  kp_packed_stream_clear(&stream);
}

static void test_an_epoch_learns_what_is_marked(void **state) {
  static set s;
  make_set(*state, &s);
  kp_tokens *tokens = open_tokens(&s);
  for (kp_packing_rule rule = KP_PACKING_EXACT; rule <= KP_PACKING_HELM; rule++)
    check_epoch(tokens, rule, s.counts.learned);
  kp_tokens_destroy(tokens);
}

/* A validation of all batches scores every marked token once; of few it takes rows from everywhere. */
static void test_validation(void **state) {
  static set s;
  static buffers b;
  kp_error error = {0};
  kp_packed_stream stream;
  make_set(*state, &s);
  kp_tokens *tokens = open_tokens(&s);
  check_ok(kp_packed_stream_init_conversations(&stream, tokens, &in_order, KP_PACKING_EXACT, &error), &error);
  const int64_t batches = kp_packed_stream_batches(&stream, 0);
  int64_t total = 0, scored, wrong = 0;
  kp_batch batch = batch_of(&b);
  for (int64_t n = 0; n < batches; n++) {
    check_ok(kp_packed_stream_validation_fill(&stream, batches, n, &batch, &scored, &error), &error);
    assert_int_equal(count_targets(&b, &wrong), scored);
    total += scored;
  }
  assert_int_equal(total, s.counts.learned);
  assert_int_equal(wrong, 0);
  assert_int_equal(kp_packed_stream_batches(&stream, 2), 2);
  int32_t first = 0;
  for (int64_t n = 0; n < 2; n++) {
    check_ok(kp_packed_stream_validation_fill(&stream, 2, n, &batch, &scored, &error), &error);
    if (n == 0) first = b.inputs[CONTEXT];
  }
  assert_int_not_equal(first, b.inputs[CONTEXT]);
  kp_packed_stream_clear(&stream);
  kp_tokens_destroy(tokens);
}

static void test_a_context_that_is_too_short(void **state) {
  static set s;
  kp_error error = {0};
  kp_packed_stream stream;
  kp_sampler_options options = in_order;
  make_set(*state, &s);
  kp_tokens *tokens = open_tokens(&s);
  options.context = kp_tokens_index(tokens)->longest - 1;
  check_ok(kp_packed_stream_init_conversations(&stream, tokens, &options, KP_PACKING_EXACT, &error), &error);
  kp_packed_stream_clear(&stream);
  options.context--;
  assert_int_equal(kp_packed_stream_init_conversations(&stream, tokens, &options, KP_PACKING_EXACT, &error),
                   KP_ERR_INPUT);
  check_words(&error, "or prepare the data with --length");
  kp_tokens_destroy(tokens);
}

static void test_positions(void **state) {
  (void)state;
  const int32_t documents[] = {0, 0, 1, 1, 1, -1, -1, 0, 0, 0, 0, 0, 1, -1};
  const int32_t expected[] = {0, 1, 0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 0, 0};
  int32_t positions[14];
  kp_document_positions(documents, 2, 7, positions);
  assert_memory_equal(positions, expected, sizeof expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {with_fixture(test_written_and_read),
                                     with_fixture(test_what_does_not_fit_is_refused),
                                     with_fixture(test_an_epoch_learns_what_is_marked),
                                     with_fixture(test_validation),
                                     with_fixture(test_a_context_that_is_too_short),
                                     cmocka_unit_test(test_positions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
