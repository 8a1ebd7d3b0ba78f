/* Batched log-likelihoods against one row at a time, by another operator: the loss of an evaluation. */
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "data/batches.h"
#include "infer/likelihood.h"
#include "support/model_cases.h"

/* Rows of up to a context and one token; several share all their inputs, or begin another's. */
enum { ROWS = 14, LONGEST = MODEL_CONTEXT + 1 };

typedef struct rows {
  int32_t tokens[ROWS][LONGEST];
  kp_scored_row rows[ROWS];
} rows;

static void make_rows(rows *r) {
  static const struct {
    int sequence, count, scored, last; /* last: what the last token is changed by */
  } made[ROWS] = {{0, 5, 1, 0},  {0, 5, 1, 1},  {0, 5, 1, 2}, {0, 8, 3, 0}, {0, 3, 2, 5},
                  {1, 10, 9, 0}, {1, 10, 1, 3}, {1, 2, 1, 0}, {2, 7, 2, 0}, {2, 7, 4, 0},
                  {3, 10, 5, 1}, {0, 8, 1, 4},  {4, 4, 3, 0}, {4, 6, 3, 1}};
  for (int i = 0; i < ROWS; i++) {
    const int count = made[i].count;
    for (int t = 0; t < count; t++) r->tokens[i][t] = model_token(made[i].sequence, t);
    r->tokens[i][count - 1] = (r->tokens[i][count - 1] + made[i].last) % MODEL_VOCABULARY;
    r->rows[i] = (kp_scored_row){.tokens = r->tokens[i], .count = count, .scored = made[i].scored};
  }
}

/* The loss of the row alone, without padding, times the tokens that are scored. */
static double plain_sum(const kp_trained *trained, const kp_scored_row *row) {
  kp_error error = {0};
  kp_network *network;
  kp_executor *executor;
  const int64_t length = row->count - 1;
  const kp_build build = {.mode = KP_BUILD_EVALUATE, .batch = 1, .length = length};
  int32_t targets[LONGEST];
  double loss;
  check_ok(kp_network_create(&trained->options, trained->parameters, build, &network, &error), &error);
  check_ok(kp_executor_create(network->graph, trained->backend, trained->parameters,
                              (kp_executor_options){.threads = 1}, &executor, &error),
           &error);
  kp_network_write_positions(network, executor);
  for (int64_t t = 0; t < length; t++) targets[t] = t < length - row->scored ? KP_IGNORE : row->tokens[t + 1];
  kp_executor_write_int32(executor, network->tokens, row->tokens);
  kp_executor_write_int32(executor, network->targets, targets);
  check_ok(kp_executor_run(executor, 0, network->graph->node_count, &error), &error);
  kp_executor_read(executor, network->loss, &loss);
  kp_executor_destroy(executor);
  kp_network_destroy(network);
  return -loss * (double)row->scored;
}

static void open_model(const char *settings, const kp_backend *backend, kp_trained *trained) {
  kp_error error = {0};
  kp_network *network;
  *trained = (kp_trained){.backend = backend, .parameters = kp_parameters_create()};
  if (!model_options_of(settings, &trained->options)) fail_msg("%s is refused", settings);
  check_ok(kp_network_create(&trained->options, trained->parameters,
                             (kp_build){.mode = KP_BUILD_LOGITS, .batch = 1, .length = 1}, &network, &error),
           &error);
  kp_network_destroy(network);
  check_ok(kp_parameters_allocate(trained->parameters, backend, false, &error), &error);
  model_fill_parameters(trained->parameters);
}

static void close_model(kp_trained *trained) {
  kp_parameters_destroy(trained->parameters);
  kp_model_options_destroy(&trained->options);
}

static void count_rows(void *context, int64_t done, int64_t all) {
  int64_t *last = context;
  assert_true(done > *last && done <= all);
  *last = done;
}

static void check_model(const char *settings, const kp_backend *backend, double tolerance) {
  static const int64_t batches[] = {1, 20, 1000};
  kp_error error = {0};
  kp_trained trained;
  rows r;
  kp_likelihood results[ROWS];
  open_model(settings, backend, &trained);
  make_rows(&r);
  for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
    int64_t done = 0;
    const kp_likelihood_options options = {
        .tokens = batches[b], .threads = 2, .progress = count_rows, .context = &done};
    check_ok(kp_likelihoods(&trained, r.rows, ROWS, &options, results, &error), &error);
    assert_int_equal(done, ROWS);
    for (int i = 0; i < ROWS; i++) {
      const double expected = plain_sum(&trained, &r.rows[i]);
      if (!(fabs(results[i].sum - expected) <= tolerance * (1 + fabs(expected))))
        fail_msg("%s, batches of %lld, row %d: %.17g instead of %.17g", settings, (long long)batches[b], i,
                 results[i].sum, expected);
    }
  }
  close_model(&trained);
}

/* Every family, and what reads the end of a sequence, so that nothing may be padded or shared. */
static void test_batches_padding_and_sharing_change_no_score(void **state) {
  (void)state;
  char settings[64];
  for (int f = 0; kp_family_at(f) != NULL; f++) {
    snprintf(settings, sizeof settings, "model.family=%s", kp_family_at(f)->name);
    check_model(settings, kp_backend_ref(), 1e-11);
    check_model(settings, kp_backend_cpu(), 2e-5);
  }
  check_model("model.family=mixed model.variant=upstream model.curvature.dynamic=true", kp_backend_ref(),
              1e-11);
}

/* The likeliest continuation, found token by token, is greedy, and no other last token is. */
static void test_greedy(void **state) {
  (void)state;
  kp_error error = {0};
  kp_trained trained;
  int32_t tokens[MODEL_VOCABULARY][4];
  kp_scored_row row[MODEL_VOCABULARY];
  kp_likelihood results[MODEL_VOCABULARY];
  const kp_likelihood_options options = {.threads = 1};
  open_model("", kp_backend_ref(), &trained);
  double sum = 0;
  int best = 0, greedy = 0;
  for (int v = 0; v < MODEL_VOCABULARY; v++) {
    for (int t = 0; t < 3; t++) tokens[v][t] = model_token(1, t);
    tokens[v][3] = v;
    row[v] = (kp_scored_row){.tokens = tokens[v], .count = 4, .scored = 1};
  }
  check_ok(kp_likelihoods(&trained, row, MODEL_VOCABULARY, &options, results, &error), &error);
  for (int v = 0; v < MODEL_VOCABULARY; v++) {
    sum += exp(results[v].sum);
    if (results[v].sum > results[best].sum) best = v;
    greedy += results[v].greedy;
  }
  assert_true(fabs(sum - 1) < 1e-12); /* probabilities of all that may follow */
  assert_true(results[best].greedy);
  assert_int_equal(greedy, 1);
  close_model(&trained);
}

static void test_wrong_rows(void **state) {
  (void)state;
  kp_error error = {0};
  kp_trained trained;
  kp_likelihood result;
  int32_t tokens[MODEL_CONTEXT + 2] = {1, 2, 3};
  const kp_likelihood_options options = {.threads = 1};
  open_model("", kp_backend_ref(), &trained);
  const kp_scored_row wrong[] = {{tokens, 3, 0}, {tokens, 3, 3}, {tokens, MODEL_CONTEXT + 2, 1}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_int_equal(kp_likelihoods(&trained, &wrong[i], 1, &options, &result, &error), KP_ERR_INPUT);
  tokens[1] = MODEL_VOCABULARY;
  assert_int_equal(kp_likelihoods(&trained, &(kp_scored_row){tokens, 3, 1}, 1, &options, &result, &error),
                   KP_ERR_INPUT);
  assert_non_null(strstr(error.message, "outside the model's vocabulary"));
  check_ok(kp_likelihoods(&trained, NULL, 0, &options, NULL, &error), &error);
  close_model(&trained);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_batches_padding_and_sharing_change_no_score),
      cmocka_unit_test(test_greedy),
      cmocka_unit_test(test_wrong_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
