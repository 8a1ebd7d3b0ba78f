/* Folders of labelled sets to batches. */
#include "data/labelled_sets.h"

#include "data/labelled_batches.h"

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
      with_fixture(test_an_epoch_sees_every_example_once),
      with_fixture(test_validation_goes_through_all_examples),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
