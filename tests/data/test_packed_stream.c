/* Rows of whole documents from a token file: what an epoch holds, and that a step's rows need no state. */
#include "data/fixture.h"

#include "core/random.h"
#include "data/packed_stream.h"
#include "data/token_writer.h"

enum { SEPARATOR = 7, VOCABULARY = 50, ROWS = 3, CONTEXT = 16, MICRO_BATCHES = 2, TOKENS = 2000 };

static const kp_sampler_options sequential = {.rule = KP_SAMPLING_SEQUENTIAL,
                                              .seed = 11,
                                              .rows = ROWS,
                                              .context = CONTEXT,
                                              .micro_batches = MICRO_BATCHES,
                                              .vocabulary = VOCABULARY};

/* Tokens of random numbers, with a separator about every `mean` of them; none for 0. */
static kp_tokens *make_tokens(fixture *files, int32_t *tokens, int mean) {
  kp_error error = {0};
  kp_token_writer *writer;
  kp_tokens *stream;
  const char *path = fixture_path(files, "tokens.bin");
  for (int i = 0; i < TOKENS; i++) {
    tokens[i] = 8 + (int32_t)kp_random_below(3, KP_RANDOM_GENERIC, 0, (uint64_t)i, VOCABULARY - 8);
    if (mean > 0 && kp_random_below(3, KP_RANDOM_GENERIC, 1, (uint64_t)i, (uint64_t)mean) == 0)
      tokens[i] = SEPARATOR;
  }
  check_ok(kp_token_writer_create(path, VOCABULARY, 0, &writer, &error), &error);
  check_ok(kp_token_writer_append(writer, tokens, TOKENS, &error), &error);
  check_ok(kp_token_writer_finish(writer, 0, &error), &error);
  check_ok(kp_tokens_open(&path, 1, NULL, &stream, &error), &error);
  return stream;
}

typedef struct buffers {
  int32_t inputs[ROWS * CONTEXT], targets[ROWS * CONTEXT], documents[ROWS * CONTEXT];
} buffers;

static void fill(const kp_packed_stream *stream, int64_t step, int64_t micro_batch, buffers *out) {
  kp_error error = {0};
  kp_batch batch = {.inputs = out->inputs, .targets = out->targets, .documents = out->documents};
  check_ok(kp_packed_stream_fill(stream, step, micro_batch, &batch, &error), &error);
}

/* How often each pair (token, the next one) comes in the stream, less how often it is input and target. */
static void count_pairs(const int32_t *inputs, const int32_t *targets, int count, int by,
                        int pairs[VOCABULARY][VOCABULARY]) {
  for (int i = 0; i < count; i++)
    if (targets[i] != KP_IGNORE) pairs[inputs[i]][targets[i]] += by;
}

/* An epoch reads each place of the stream once, with the token behind it as target. */
static void test_an_epoch_is_the_stream(void **state) {
  static int32_t tokens[TOKENS];
  static int pairs[VOCABULARY][VOCABULARY];
  static const int means[] = {4, 9, 60};
  for (int m = 0; m < 3; m++) {
    kp_error error = {0};
    kp_packed_stream stream;
    kp_sampler_options options = sequential;
    kp_tokens *source = make_tokens(*state, tokens, means[m]);
    options.rows = 1;
    options.micro_batches = 1;
    check_ok(kp_packed_stream_init(&stream, source, &options, KP_PACKING_EXACT, SEPARATOR, &error), &error);
    memset(pairs, 0, sizeof pairs);
    count_pairs(tokens, tokens + 1, TOKENS - 1, 1, pairs);
    for (int64_t step = 0; step < stream.packed.count; step++) {
      buffers row;
      fill(&stream, step, 0, &row);
      count_pairs(row.inputs, row.targets, CONTEXT, -1, pairs);
      for (int t = 1; t < CONTEXT; t++)
        if (row.inputs[t] == SEPARATOR)
          assert_true(row.documents[t] != row.documents[t - 1] || row.documents[t] < 0);
    }
    for (int a = 0; a < VOCABULARY; a++)
      for (int b = 0; b < VOCABULARY; b++) assert_int_equal(pairs[a][b], 0);
    assert_true(kp_packed_stream_efficiency(&stream) > 0.9);
    kp_packed_stream_clear(&stream);
    kp_tokens_destroy(source);
  }
}

static void test_steps_need_no_state(void **state) {
  static int32_t tokens[TOKENS];
  kp_error error = {0};
  kp_tokens *source = make_tokens(*state, tokens, 9);
  for (int rule = 0; rule < 4; rule++) {
    kp_sampler_options options = sequential;
    kp_packed_stream one, other;
    const kp_packing_rule packing = rule % 2 == 0 ? KP_PACKING_EXACT : KP_PACKING_HELM;
    options.rule = rule < 2 ? KP_SAMPLING_SEQUENTIAL : KP_SAMPLING_UNIFORM;
    check_ok(kp_packed_stream_init(&one, source, &options, packing, SEPARATOR, &error), &error);
    check_ok(kp_packed_stream_init(&other, source, &options, packing, SEPARATOR, &error), &error);
    buffers a, b;
    int different = 0;
    for (int64_t step = 0; step < 40; step++) fill(&one, step, step % 2, &a);
    for (int64_t step = 30; step < 40; step++) {
      fill(&one, step, 1, &a);
      fill(&other, step, 1, &b);
      assert_memory_equal(&a, &b, sizeof a);
      fill(&other, step, 0, &b);
      different += memcmp(&a, &b, sizeof a) != 0;
    }
    assert_int_equal(different, 10);
    kp_packed_stream_clear(&one);
    kp_packed_stream_clear(&other);
  }
  kp_tokens_destroy(source);
}

/* Nobody reads separators, and the last token of most documents predicts one. */
static void test_helm(void **state) {
  static int32_t tokens[TOKENS];
  kp_error error = {0};
  kp_packed_stream stream;
  kp_tokens *source = make_tokens(*state, tokens, 9);
  check_ok(kp_packed_stream_init(&stream, source, &sequential, KP_PACKING_HELM, SEPARATOR, &error), &error);
  int ends = 0;
  for (int64_t step = 0; step < stream.packed.count / (ROWS * MICRO_BATCHES); step++) {
    buffers batch;
    fill(&stream, step, 0, &batch);
    for (int i = 0; i < ROWS * CONTEXT; i++) {
      assert_int_equal(batch.inputs[i] == SEPARATOR, batch.documents[i] < 0);
      ends += batch.targets[i] == SEPARATOR;
    }
  }
  assert_true(ends > 20);
  kp_packed_stream_clear(&stream);
  kp_tokens_destroy(source);
}

static void test_streams_without_separators(void **state) {
  static int32_t tokens[TOKENS];
  kp_error error = {0};
  kp_packed_stream stream;
  kp_tokens *source = make_tokens(*state, tokens, 0);
  assert_int_equal(kp_packed_stream_init(&stream, source, &sequential, KP_PACKING_EXACT, SEPARATOR, &error),
                   KP_ERR_INPUT);
  check_words(&error, "holds no token 7");
  kp_sampler_options narrow = sequential;
  narrow.vocabulary = VOCABULARY - 1;
  assert_int_equal(kp_packed_stream_init(&stream, source, &narrow, KP_PACKING_EXACT, SEPARATOR, &error),
                   KP_ERR_INPUT);
  check_words(&error, "made for a vocabulary of 50");
  kp_tokens_destroy(source);
}

static void test_numbers_of_windows(void **state) {
  (void)state;
  static const int32_t inputs[] = {1, 2, 7, 3, 7, 7, 4, 1, 7, 7, 1, 1};
  static const int32_t expected[] = {0, 0, 1, 1, 2, 3, 0, 0, 1, 2, 2, 2};
  int32_t documents[12];
  kp_number_documents(inputs, 2, 6, SEPARATOR, documents);
  assert_memory_equal(documents, expected, sizeof expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_an_epoch_is_the_stream),
      with_fixture(test_steps_need_no_state),
      with_fixture(test_helm),
      with_fixture(test_streams_without_separators),
      cmocka_unit_test(test_numbers_of_windows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
