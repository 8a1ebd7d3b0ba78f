/* Windows over a text: every token once, with enough of past; and the losses that they give, against those of
 * single rows scored by another path. */
#include "data/fixture.h"

#include <math.h>

#include "data/batches.h"
#include "infer/evaluate.h"
#include "infer/likelihood.h"
#include "infer/windows.h"
#include "support/small_run.h"
#include "train/settings.h"
#include "train/trainer.h"

/* Token i is i % 7: 0 stands between documents. */
enum { PERIOD = 7 };

static kp_tokens *stream(fixture *files, int64_t count) {
  static uint16_t ids[4096];
  kp_error error = {0};
  kp_tokens *tokens;
  for (int64_t i = 0; i < count; i++) ids[i] = (uint16_t)(i % PERIOD);
  const char *path = fixture_write(files, "text.bin", ids, (size_t)count * sizeof *ids);
  check_ok(kp_tokens_open(&path, 1, NULL, &tokens, &error), &error);
  return tokens;
}

static void check_windows(const kp_tokens *tokens, const kp_window_options *o) {
  kp_error error = {0};
  kp_windows w;
  const int64_t all = kp_tokens_count(tokens) - 1,
                targets = o->tokens > 0 && o->tokens < all ? o->tokens : all;
  check_ok(kp_windows_create(tokens, o, &w, &error), &error);
  int64_t next = 1;
  for (int64_t i = 0; i < w.count; i++) {
    const kp_window *x = &w.list[i];
    assert_in_range(x->inputs, 1, o->context);
    assert_in_range(x->scored, 1, x->inputs);
    /* Its scored targets are the next ones of the stream. */
    assert_int_equal(x->first + 1 + x->inputs - x->scored, next);
    /* The first has the past that it is promised, or the text or document begins there. */
    const int64_t past = x->inputs - x->scored + 1;
    const bool begins = o->separator < 0 ? x->first == 0 : x->first % PERIOD == 0;
    assert_true(past >= o->context - o->stride + 1 || (begins && x->inputs == x->scored));
    if (o->separator >= 0) assert_int_equal(x->first / PERIOD, (x->first + x->inputs - 1) / PERIOD);
    next += x->scored;
  }
  assert_int_equal(next, targets + 1);
  assert_int_equal(w.scored, targets);
  assert_int_equal(w.parts, o->separator < 0 ? 1 : (targets + PERIOD - 1) / PERIOD);
  kp_windows_clear(&w);
}

static void test_every_token_is_scored_once(void **state) {
  fixture *files = *state;
  static const int64_t counts[] = {2, 3, 8, 15, 64, 65, 501};
  for (size_t n = 0; n < sizeof counts / sizeof *counts; n++) {
    kp_tokens *tokens = stream(files, counts[n]);
    for (int64_t context = 1; context <= 16; context += 3)
      for (int64_t stride = 1; stride <= context; stride++)
        for (int documents = 0; documents < 2; documents++)
          for (int64_t most = 0; most <= 20; most += 10) {
            const kp_window_options o = {
                .context = context, .stride = stride, .separator = documents - 1, .tokens = most};
            check_windows(tokens, &o);
          }
    kp_tokens_destroy(tokens);
  }
}

static void test_texts_without_windows(void **state) {
  kp_error error = {0};
  kp_windows w;
  kp_tokens *tokens = stream(*state, 1);
  kp_window_options o = {.context = 4, .stride = 2, .separator = -1};
  assert_int_equal(kp_windows_create(tokens, &o, &w, &error), KP_ERR_INPUT);
  check_words(&error, "scoring needs two");
  kp_tokens_destroy(tokens);
  tokens = stream(*state, 30);
  o.separator = 9;
  assert_int_equal(kp_windows_create(tokens, &o, &w, &error), KP_ERR_INPUT);
  check_words(&error, "has no token 9, which stands between documents");
  kp_tokens_destroy(tokens);
}

/* ---- losses ---- */

static void train_small(fixture *files, const char *positions, const char *run) {
  kp_error error = {0};
  kp_config *config;
  char family[64];
  snprintf(family, sizeof family, "model.positions=%s", positions);
  const char *const sets[] = {family, "data.separator=3"};
  check_ok(kp_config_load(small_config(files), kp_training_schema(), sets, 2, &config, &error), &error);
  check_ok(kp_train(config, run, &(kp_train_options){.backend = kp_backend_ref(), .threads = 1}, &error),
           &error);
  kp_config_destroy(config);
}

static double nats(const kp_trained *trained, const kp_tokens *tokens, const kp_window *window) {
  kp_error error = {0};
  int32_t row[65];
  kp_likelihood result;
  assert_in_range(window->inputs, 1, 64);
  kp_tokens_copy(tokens, window->first, window->inputs + 1, row);
  const kp_scored_row scored = {.tokens = row, .count = window->inputs + 1, .scored = window->scored};
  check_ok(kp_likelihoods(trained, &scored, 1, &(kp_likelihood_options){.threads = 1}, &result, &error),
           &error);
  return -result.sum;
}

/* The loss of windows of at most the model's context, window by window. */
static void check_loss(const kp_trained *trained, const kp_tokens *tokens, kp_evaluation_options options) {
  kp_error error = {0};
  kp_evaluation e;
  kp_windows w;
  double sum = 0;
  const int64_t context = options.window > 0 ? options.window : trained->options.context;
  const kp_window_options how = {.context = context,
                                 .stride = options.stride > 0 ? options.stride : context,
                                 .separator = options.documents ? 3 : -1,
                                 .tokens = options.tokens};
  check_ok(kp_evaluate(trained, tokens, &options, &e, &error), &error);
  check_ok(kp_windows_create(tokens, &how, &w, &error), &error);
  for (int64_t i = 0; i < w.count; i++) sum += nats(trained, tokens, &w.list[i]);
  assert_int_equal(e.tokens, w.scored);
  assert_int_equal(e.documents, w.parts);
  if (!(fabs(e.loss - sum / (double)w.scored) < 1e-11))
    fail_msg("loss %.17g instead of %.17g", e.loss, sum / (double)w.scored);
  kp_windows_clear(&w);
}

static void test_losses(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_trained trained;
  kp_tokens *tokens;
  const char *run = fixture_path(files, "run");
  train_small(files, "learned", run);
  check_ok(kp_trained_open(run, "last", kp_backend_ref(), &trained, &error), &error);
  check_ok(kp_evaluation_data_open(&trained, NULL, &tokens, &error), &error);
  const kp_evaluation_options how[] = {{.threads = 1},
                                       {.threads = 1, .stride = 3},
                                       {.threads = 1, .stride = 1, .tokens = 20},
                                       {.threads = 1, .window = 5, .stride = 2},
                                       {.threads = 1, .documents = true},
                                       {.threads = 1, .documents = true, .stride = 4}};
  for (size_t i = 0; i < sizeof how / sizeof *how; i++) check_loss(&trained, tokens, how[i]);
  kp_evaluation e;
  const kp_evaluation_options longer = {.threads = 1, .window = 9}, wide = {.threads = 1, .stride = 9};
  assert_int_equal(kp_evaluate(&trained, tokens, &longer, &e, &error), KP_ERR_UNSUPPORTED);
  check_words(&error, "cannot read windows of 9: its positions are learned");
  assert_int_equal(kp_evaluate(&trained, tokens, &wide, &e, &error), KP_ERR_INPUT);
  check_words(&error, "would leave out tokens between windows of 8");
  kp_tokens_destroy(tokens);
  kp_trained_close(&trained);
}

/* Rotary positions go on beyond the context; there a token's loss still depends on nothing behind it, and in
 * the first context's worth of tokens it is what it was. */
static void test_windows_longer_than_the_context(void **state) {
  fixture *files = *state;
  kp_error error = {0};
  kp_trained trained;
  kp_tokens *tokens;
  kp_evaluation shorter, longer;
  const char *run = fixture_path(files, "run");
  train_small(files, "rotary", run);
  check_ok(kp_trained_open(run, "last", kp_backend_ref(), &trained, &error), &error);
  check_ok(kp_evaluation_data_open(&trained, NULL, &tokens, &error), &error);
  const int64_t context = trained.options.context;
  kp_evaluation_options options = {.threads = 1, .window = context, .tokens = context};
  check_ok(kp_evaluate(&trained, tokens, &options, &shorter, &error), &error);
  options.window = 4 * context;
  check_ok(kp_evaluate(&trained, tokens, &options, &longer, &error), &error);
  assert_true(fabs(shorter.loss - longer.loss) < 1e-12);
  options.tokens = 4 * context;
  check_ok(kp_evaluate(&trained, tokens, &options, &longer, &error), &error);
  assert_int_equal(longer.tokens, 4 * context);
  assert_int_equal(longer.batches, 1);
  assert_true(isfinite(longer.loss) && fabs(shorter.loss - longer.loss) > 1e-6);
  kp_tokens_destroy(tokens);
  kp_trained_close(&trained);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      with_fixture(test_every_token_is_scored_once),
      with_fixture(test_texts_without_windows),
      with_fixture(test_losses),
      with_fixture(test_windows_longer_than_the_context),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
