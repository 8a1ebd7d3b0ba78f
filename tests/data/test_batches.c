/* Batches: the same for the same seed and step, however cut; every block once an epoch; every token scored.
 */
#include "data/fixture.h"

#include "data/batches.h"

/* A stream 0, 1, 2, ... in two files, so that a token tells its own position. */
static kp_tokens *counting_stream(fixture *files, int64_t count) {
  static uint16_t ids[65536];
  kp_error error = {0};
  for (int64_t i = 0; i < count; i++) ids[i] = (uint16_t)i;
  int64_t cut = count / 3 + 1;
  const char *paths[] = {fixture_write(files, "a.bin", ids, (size_t)cut * 2),
                         fixture_write(files, "b.bin", ids + cut, (size_t)(count - cut) * 2)};
  kp_tokens *tokens = NULL;
  check_ok(kp_tokens_open(paths, count > cut ? 2 : 1, NULL, &tokens, &error), &error);
  return tokens;
}

static kp_sampler make_sampler(const kp_tokens *tokens, kp_sampling rule, uint64_t seed, int64_t rows,
                               int64_t context, int64_t micro_batches) {
  kp_error error = {0};
  kp_sampler sampler;
  kp_sampler_options options = {.rule = rule,
                                .seed = seed,
                                .rows = rows,
                                .context = context,
                                .micro_batches = micro_batches,
                                .vocabulary = 65536};
  check_ok(kp_sampler_init(&sampler, tokens, &options, &error), &error);
  return sampler;
}

static void check_rows_count_upwards(const int32_t *inputs, const int32_t *targets, int64_t rows,
                                     int64_t context) {
  for (int64_t row = 0; row < rows; row++)
    for (int64_t t = 0; t < context; t++) {
      assert_int_equal(inputs[row * context + t], inputs[row * context] + t);
      assert_int_equal(targets[row * context + t], inputs[row * context + t] + 1);
    }
}

static void test_rows_are_windows_and_pure(void **state) {
  kp_tokens *tokens = counting_stream(*state, 5000);
  kp_error error = {0};
  int32_t inputs[4 * 32], targets[4 * 32], again[4 * 32], ignored[4 * 32];
  for (int rule = KP_SAMPLING_UNIFORM; rule <= KP_SAMPLING_SEQUENTIAL; rule++) {
    kp_sampler sampler = make_sampler(tokens, (kp_sampling)rule, 1, 4, 32, 2);
    check_ok(kp_batch_fill(&sampler, 17, 1, inputs, targets, &error), &error);
    check_rows_count_upwards(inputs, targets, 4, 32);
    check_ok(kp_batch_fill(&sampler, 3, 0, again, ignored, &error), &error);
    assert_memory_not_equal(inputs, again, sizeof inputs);
    check_ok(kp_batch_fill(&sampler, 17, 1, again, ignored, &error), &error);
    assert_memory_equal(inputs, again, sizeof inputs);
    kp_sampler other = make_sampler(tokens, (kp_sampling)rule, 2, 4, 32, 2);
    check_ok(kp_batch_fill(&other, 17, 1, again, ignored, &error), &error);
    assert_memory_not_equal(inputs, again, sizeof inputs);
  }
  kp_tokens_destroy(tokens);
}

static void test_a_step_does_not_depend_on_how_it_is_cut(void **state) {
  kp_tokens *tokens = counting_stream(*state, 3000);
  kp_error error = {0};
  int32_t whole[8 * 16], cut[8 * 16], ignored[8 * 16];
  for (int rule = KP_SAMPLING_UNIFORM; rule <= KP_SAMPLING_SEQUENTIAL; rule++) {
    kp_sampler one = make_sampler(tokens, (kp_sampling)rule, 9, 8, 16, 1);
    kp_sampler four = make_sampler(tokens, (kp_sampling)rule, 9, 2, 16, 4);
    check_ok(kp_batch_fill(&one, 5, 0, whole, ignored, &error), &error);
    for (int64_t m = 0; m < 4; m++)
      check_ok(kp_batch_fill(&four, 5, m, cut + m * 2 * 16, ignored, &error), &error);
    assert_memory_equal(whole, cut, sizeof whole);
  }
  kp_tokens_destroy(tokens);
}

static void test_uniform_reaches_both_ends(void **state) {
  kp_tokens *tokens = counting_stream(*state, 12); /* T = 8: offsets 0 to 3 */
  kp_sampler sampler = make_sampler(tokens, KP_SAMPLING_UNIFORM, 3, 4, 8, 1);
  int seen[4] = {0};
  for (int64_t step = 0; step < 1000; step++)
    for (int64_t row = 0; row < 4; row++) {
      int64_t offset = kp_sampler_offset(&sampler, step, row);
      assert_in_range(offset, 0, 3);
      seen[offset]++;
    }
  /* 1000 expected each, the deviation is 27. */
  for (int i = 0; i < 4; i++) assert_in_range(seen[i], 1000 - 137, 1000 + 137);
  kp_tokens_destroy(tokens);
}

static void test_an_epoch_visits_every_block_once(void **state) {
  kp_tokens *tokens = counting_stream(*state, 1001); /* T = 10: 100 blocks */
  kp_sampler sampler = make_sampler(tokens, KP_SAMPLING_SEQUENTIAL, 4, 5, 10, 2);
  int64_t order[2][100];
  assert_int_equal(sampler.blocks, 100);
  for (int epoch = 0; epoch < 2; epoch++) {
    char seen[100] = {0};
    for (int64_t i = 0; i < 100; i++) {
      int64_t offset = kp_sampler_offset(&sampler, epoch * 10 + i / 10, i % 10);
      assert_int_equal(offset % 10, 0);
      assert_int_equal(seen[offset / 10]++, 0);
      order[epoch][i] = offset;
    }
  }
  assert_memory_not_equal(order[0], order[1], sizeof order[0]);
  kp_tokens_destroy(tokens);
}

static void test_the_shortest_stream(void **state) {
  kp_tokens *tokens = counting_stream(*state, 9);
  kp_error error = {0};
  int32_t inputs[8], targets[8];
  for (int rule = KP_SAMPLING_UNIFORM; rule <= KP_SAMPLING_SEQUENTIAL; rule++) {
    kp_sampler sampler = make_sampler(tokens, (kp_sampling)rule, 1, 1, 8, 1);
    check_ok(kp_batch_fill(&sampler, UINT32_MAX, 0, inputs, targets, &error), &error);
    assert_int_equal(inputs[0], 0);
    assert_int_equal(targets[7], 8);
  }
  kp_sampler sampler;
  kp_sampler_options options = {.rows = 1, .context = 9, .micro_batches = 1, .vocabulary = 9};
  assert_int_equal(kp_sampler_init(&sampler, tokens, &options, &error), KP_ERR_INPUT);
  check_words(&error, "has 9 tokens; a context of 9 needs 10");
  kp_tokens_destroy(tokens);
}

static void test_tokens_outside_the_vocabulary_are_refused(void **state) {
  kp_tokens *tokens = counting_stream(*state, 9);
  kp_error error = {0};
  kp_sampler sampler;
  kp_sampler_options options = {.rows = 1, .context = 8, .micro_batches = 1, .vocabulary = 8};
  int32_t inputs[8], targets[8];
  int64_t scored;
  check_ok(kp_sampler_init(&sampler, tokens, &options, &error), &error);
  assert_int_equal(kp_batch_fill(&sampler, 0, 0, inputs, targets, &error), KP_ERR_INPUT);
  check_words(&error, "b.bin: token 8 at position 4");
  kp_validation validation;
  check_ok(kp_validation_init(&validation, tokens, 1, 8, 8, 0, &error), &error);
  assert_int_equal(kp_validation_fill(&validation, 0, inputs, targets, &scored, &error), KP_ERR_INPUT);
  kp_tokens_destroy(tokens);
}

static void test_validation_scores_every_token_once(void **state) {
  kp_error error = {0};
  for (int64_t count = 2; count < 60; count++) {
    kp_tokens *tokens = counting_stream(*state, count);
    kp_validation validation;
    check_ok(kp_validation_init(&validation, tokens, 3, 4, 65536, 0, &error), &error);
    assert_int_equal(validation.scored, count - 1);
    int times[64] = {0};
    int64_t total = 0;
    for (int64_t batch = 0; batch < validation.batches; batch++) {
      int32_t inputs[12], targets[12];
      int64_t scored, found = 0;
      check_ok(kp_validation_fill(&validation, batch, inputs, targets, &scored, &error), &error);
      for (int i = 0; i < 12; i++) {
        if (targets[i] == KP_IGNORE) {
          assert_int_equal(inputs[i], 0);
          continue;
        }
        assert_int_equal(targets[i], inputs[i] + 1);
        times[targets[i]]++;
        found++;
      }
      assert_int_equal(found, scored);
      assert_true(scored > 0);
      total += scored;
    }
    assert_int_equal(total, count - 1);
    for (int64_t i = 1; i < count; i++) assert_int_equal(times[i], 1);
    kp_tokens_destroy(tokens);
  }
}

static void test_validation_is_bounded(void **state) {
  kp_tokens *tokens = counting_stream(*state, 100);
  kp_error error = {0};
  kp_validation validation;
  int32_t inputs[8], targets[8];
  int64_t scored;
  check_ok(kp_validation_init(&validation, tokens, 2, 4, 65536, 3, &error), &error);
  assert_int_equal(validation.batches, 3);
  assert_int_equal(validation.scored, 24);
  check_ok(kp_validation_fill(&validation, 2, inputs, targets, &scored, &error), &error);
  assert_int_equal(scored, 8);
  assert_int_equal(targets[7], 24);
  kp_tokens_destroy(tokens);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_rows_are_windows_and_pure),
      with_fixture(test_a_step_does_not_depend_on_how_it_is_cut),
      with_fixture(test_uniform_reaches_both_ends),
      with_fixture(test_an_epoch_visits_every_block_once),
      with_fixture(test_the_shortest_stream),
      with_fixture(test_tokens_outside_the_vocabulary_are_refused),
      with_fixture(test_validation_scores_every_token_once),
      with_fixture(test_validation_is_bounded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
