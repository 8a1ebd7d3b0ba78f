/* The operator table as a whole, and what single operators promise beyond numbers: no row without a case and
 * without kernels, telling errors, what dropout drops, and that a cache changes nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "support/check_fails.h"
#include "support/isa.h"
#include "support/operator_cases.h"

/* ref and every cpu backend that runs here. */
typedef struct backends {
  const kp_backend *list[KP_TEST_ISAS + 1];
  int count;
} backends;

static backends all_backends(void) {
  kp_test_isa isas[KP_TEST_ISAS];
  backends all = {.list = {kp_backend_ref()}, .count = 1};
  const int count = kp_test_isas(isas);
  for (int i = 0; i < count; i++) all.list[all.count++] = isas[i].backend;
  return all;
}

/* ---- the table ---- */

static void test_every_operator_has_a_case(void **state) {
  (void)state;
  operator_cases cases = operator_cases_create();
  int differentiated[KP_OP_COUNT] = {0}, seen[KP_OP_COUNT] = {0}, missing = 0;
  for (int i = 0; i < cases.count; i++) {
    /* Wrapped operands need zeroed accumulators: the operator zero is among them. */
    bench *b = operator_case_build(&cases.list[i], true);
    differentiated[cases.list[i].operation] += !cases.list[i].decoding;
    for (int n = 0; n < b->graph->node_count; n++) seen[b->graph->nodes[n]->operation]++;
    bench_destroy(b);
  }
  for (int operation = 0; operation < KP_OP_COUNT; operation++) {
    const kp_operator *row = &kp_operator_table[operation];
    if (row->backward != NULL ? differentiated[operation] > 0 : seen[operation] > 0) continue;
    print_error("operator %s has no case in tests/support/operator_cases_*.c\n", row->name);
    missing++;
  }
  operator_cases_destroy(&cases);
  assert_int_equal(missing, 0);
}

static void test_every_operator_has_kernels(void **state) {
  (void)state;
  const backends all = all_backends();
  for (int i = 0; i < all.count; i++)
    for (int operation = 0; operation < KP_OP_COUNT; operation++)
      if (all.list[i]->kernels[operation] == NULL)
        fail_msg("backend %s has no kernel for %s", all.list[i]->name, kp_operator_table[operation].name);
}

static void test_in_place_pairs_exist(void **state) {
  (void)state;
  for (int operation = 0; operation < KP_OP_COUNT; operation++) {
    const kp_operator *row = &kp_operator_table[operation];
    assert_int_equal(row->inplace_output < 0, row->inplace_input < 0);
    assert_true(row->inplace_output < KP_MAX_OUTPUTS && row->inplace_input < KP_MAX_INPUTS);
  }
}

/* ---- indices out of range ---- */

enum { ROWS = 5, VOCABULARY = 7, WIDTH = 3 };

/* Runs an embedding (with positions) or a loss whose row `row` holds `wrong`. */
static kp_status run_with_index(const kp_backend *backend, const char *what, int row, int32_t wrong,
                                kp_error *error) {
  int32_t values[ROWS] = {0, 1, 2, 3, 4}, positions[ROWS] = {0};
  const int64_t rows = ROWS;
  bench *b = bench_create(false);
  (strcmp(what, "position") == 0 ? positions : values)[row] = wrong;
  if (strcmp(what, "target") == 0) {
    kp_tensor *logits = bench_operand(b, "logits", 0, 1, 2, (int64_t[]){ROWS, VOCABULARY});
    bench_output(b, kp_cross_entropy(b->graph, logits, bench_index(b, "targets", 1, &rows, values), -1));
  } else {
    kp_tensor *tokens = bench_index(b, "tokens", 1, &rows, values);
    kp_tensor *table = bench_operand(b, "table", 0, 1, 2, (int64_t[]){VOCABULARY, WIDTH});
    kp_tensor *place = bench_index(b, "positions", 1, &rows, positions);
    kp_tensor *places = bench_operand(b, "places", 0, 1, 2, (int64_t[]){VOCABULARY, WIDTH});
    bench_output(b, kp_embedding(b->graph, tokens, table, place, places));
  }
  bench_differentiate(b);
  kp_status status = bench_start(b, backend, 1, error);
  if (status == KP_OK) status = bench_run(b, error);
  bench_destroy(b);
  return status;
}

static void test_indices_out_of_range(void **state) {
  (void)state;
  static const char *const kinds[] = {"token", "position", "target"};
  static const int32_t wrong[] = {VOCABULARY, 99, -2, INT32_MAX, INT32_MIN};
  const backends all = all_backends();
  kp_error error;
  for (int i = 0; i < all.count; i++)
    for (int kind = 0; kind < 3; kind++)
      for (int w = 0; w < 5; w++) {
        char value[64], place[32];
        snprintf(value, sizeof value, "%s %d", kinds[kind], wrong[w]);
        snprintf(place, sizeof place, "row %d", 3);
        check_fails(run_with_index(all.list[i], kinds[kind], 3, wrong[w], &error), &error, KP_ERR_INPUT,
                    value);
        if (strstr(error.message, place) == NULL) fail_msg("'%s' does not name %s", error.message, place);
      }
}

static void test_cache_too_short(void **state) {
  (void)state;
  const backends all = all_backends();
  for (int i = 0; i < all.count; i++)
    for (int start = -1; start <= 3; start += 4) {
      const kp_attention_arguments arguments = {.batch = 1,
                                                .length = 2,
                                                .heads = 1,
                                                .kv_heads = 1,
                                                .head_size = 4,
                                                .packed = true,
                                                .causal = true,
                                                .scale = 1};
      const int64_t cache[] = {1, 1, 4, 4}, one = 1;
      kp_error error = {0};
      bench *b = bench_create(false);
      kp_tensor *qkv = bench_operand(b, "qkv", 0, 1, 3, (int64_t[]){1, 2, 12});
      kp_tensor *keys = bench_state(b, "keys", 1, 4, cache), *values = bench_state(b, "values", 1, 4, cache);
      kp_tensor *first = bench_index(b, "start", 1, &one, &(int32_t){start});
      const kp_attention_operands packed = {.q = qkv};
      bench_output(b, kp_attend_cached(b->graph, packed, keys, values, first, arguments).space);
      check_ok(bench_start(b, all.list[i], 1, &error), &error);
      check_fails(bench_forward(b, &error), &error, KP_ERR_INPUT, "cache");
      bench_destroy(b);
    }
}

/* ---- dropout ---- */

enum { DROPOUT_COUNT = 40003 };

/* A bench of dropout over a vector of ones, run at a step. */
static bench *dropped(const kp_backend *backend, double rate, uint64_t stream, uint64_t step, int threads) {
  kp_error error = {0};
  bench *b = bench_create(false);
  const int64_t count = DROPOUT_COUNT;
  bench_output(b, kp_dropout(b->graph, bench_operand(b, "x", 1, 0, 1, &count), rate, stream));
  bench_differentiate(b);
  check_ok(bench_start(b, backend, threads, &error), &error);
  kp_executor_set_step(b->executor, step);
  check_ok(bench_run(b, &error), &error);
  return b;
}

static int64_t count_kept(const double *mask) {
  int64_t kept = 0;
  for (int64_t i = 0; i < DROPOUT_COUNT; i++) kept += mask[i] != 0;
  return kept;
}

static void check_mask(const kp_backend *backend, double rate, int threads) {
  bench *b = dropped(backend, rate, 2, 7, threads), *reference = dropped(kp_backend_ref(), rate, 2, 7, 1);
  double *mask = bench_read_output(b, 0), *gradient = bench_read_gradient(b, 0);
  double *want = bench_read_output(reference, 0);
  for (int64_t i = 0; i < DROPOUT_COUNT; i++) {
    assert_int_equal(mask[i] == 0, want[i] == 0);
    assert_int_equal(mask[i] == 0, gradient[i] == 0);
    if (mask[i] != 0) assert_true(fabs(mask[i] * (1 - rate) - 1) < 1e-6);
  }
  /* Five standard deviations of a binomial count. */
  const double expected = DROPOUT_COUNT * (1 - rate), deviation = sqrt(DROPOUT_COUNT * rate * (1 - rate));
  assert_true(fabs((double)count_kept(mask) - expected) < 5 * deviation);
  free(mask);
  free(gradient);
  free(want);
  bench_destroy(b);
  bench_destroy(reference);
}

static void test_dropout_masks(void **state) {
  (void)state;
  const backends all = all_backends();
  for (int i = 0; i < all.count; i++)
    for (int threads = 1; threads <= 3; threads++)
      for (int tenth = 1; tenth <= 9; tenth += 4) check_mask(all.list[i], tenth / 10.0, threads);
}

/* Other steps and other streams drop other elements: of two independent masks of rate 1/2 half agree. */
static void test_dropout_streams(void **state) {
  (void)state;
  bench *b[3] = {dropped(kp_backend_ref(), 0.5, 2, 7, 1), dropped(kp_backend_ref(), 0.5, 3, 7, 1),
                 dropped(kp_backend_ref(), 0.5, 2, 8, 1)};
  double *mask[3];
  for (int i = 0; i < 3; i++) mask[i] = bench_read_output(b[i], 0);
  for (int i = 0; i < 3; i++) {
    int64_t same = 0;
    const double *other = mask[(i + 1) % 3];
    for (int64_t j = 0; j < DROPOUT_COUNT; j++) same += (mask[i][j] == 0) == (other[j] == 0);
    assert_true(fabs((double)same - DROPOUT_COUNT / 2.0) < 5 * sqrt(DROPOUT_COUNT / 4.0));
  }
  for (int i = 0; i < 3; i++) {
    free(mask[i]);
    bench_destroy(b[i]);
  }
}

/* ---- cached attention is attention ---- */

enum { TOKENS = 9, HEADS = 2, HEAD_SIZE = 5, QKV_WIDTH = 3 * HEADS * HEAD_SIZE };

static kp_attention_arguments attention_of(int64_t length, kp_score score) {
  return (kp_attention_arguments){.batch = 2,
                                  .length = length,
                                  .heads = HEADS,
                                  .kv_heads = HEADS,
                                  .head_size = HEAD_SIZE,
                                  .packed = true,
                                  .causal = true,
                                  .score = score,
                                  .scale = 0.4};
}

static void scalars_of(bench *b, kp_score score, double kappa, kp_tensor *scalar[2]) {
  const int64_t heads = HEADS;
  if (score == KP_SCORE_DOT) return;
  scalar[0] = bench_operand(b, "curvature", kappa, 0, 1, &heads);
  scalar[1] = bench_operand(b, "temperature", 1.3, 0, 1, &heads);
}

static double *full_attention(const kp_backend *backend, kp_score score, double kappa, double **qkv) {
  kp_error error = {0};
  kp_tensor *scalar[2] = {NULL, NULL};
  bench *b = bench_create(false);
  kp_tensor *x = bench_operand(b, "qkv", 0, 0.5, 3, (int64_t[]){2, TOKENS, QKV_WIDTH});
  scalars_of(b, score, kappa, scalar);
  const kp_attention_operands packed = {.q = x, .curvature = scalar[0], .temperature = scalar[1]};
  bench_output(b, kp_attend(b->graph, packed, attention_of(TOKENS, score)).space);
  check_ok(bench_start(b, backend, 1, &error), &error);
  check_ok(bench_forward(b, &error), &error);
  double *out = bench_read_output(b, 0);
  *qkv = b->value[0];
  b->value[0] = NULL;
  bench_destroy(b);
  return out;
}

/* Tokens [first, first + length) of both sequences over the cache; writes their rows of `out`. */
static void attend_chunk(const kp_backend *backend, kp_score score, double kappa, int first, int length,
                         const double *qkv, double *cache[2], double *out) {
  const int64_t shape[] = {2, HEADS, TOKENS, HEAD_SIZE}, one = 1;
  kp_error error = {0};
  kp_tensor *scalar[2] = {NULL, NULL};
  bench *b = bench_create(false);
  kp_tensor *x = bench_operand(b, "qkv", 0, 1, 3, (int64_t[]){2, length, QKV_WIDTH});
  kp_tensor *keys = bench_state(b, "keys", 0, 4, shape), *values = bench_state(b, "values", 0, 4, shape);
  kp_tensor *start = bench_index(b, "start", 1, &one, &(int32_t){first});
  scalars_of(b, score, kappa, scalar);
  const kp_attention_operands packed = {.q = x, .curvature = scalar[0], .temperature = scalar[1]};
  bench_output(b, kp_attend_cached(b->graph, packed, keys, values, start, attention_of(length, score)).space);
  for (int s = 0; s < 2; s++)
    memcpy(b->value[0] + s * length * QKV_WIDTH, qkv + (s * TOKENS + first) * QKV_WIDTH,
           (size_t)(length * QKV_WIDTH) * sizeof *qkv);
  for (int i = 0; i < 2; i++)
    memcpy(b->state_value[i], cache[i], (size_t)kp_tensor_count(keys) * sizeof *qkv);
  check_ok(bench_start(b, backend, 1, &error), &error);
  check_ok(bench_forward(b, &error), &error);
  double *rows = bench_read_output(b, 0);
  for (int s = 0; s < 2; s++)
    memcpy(out + (s * TOKENS + first) * HEADS * HEAD_SIZE, rows + s * length * HEADS * HEAD_SIZE,
           (size_t)(length * HEADS * HEAD_SIZE) * sizeof *out);
  for (int i = 0; i < 2; i++) {
    free(cache[i]);
    cache[i] = bench_read_state(b, i);
  }
  free(rows);
  bench_destroy(b);
}

static void check_cache(const kp_backend *backend, kp_score score, double kappa, int prefill) {
  double *qkv, *want = full_attention(backend, score, kappa, &qkv), got[2 * TOKENS * HEADS * HEAD_SIZE],
               *cache[2];
  for (int i = 0; i < 2; i++) {
    cache[i] = calloc(2 * HEADS * TOKENS * HEAD_SIZE, sizeof(double));
    assert_non_null(cache[i]);
  }
  attend_chunk(backend, score, kappa, 0, prefill, qkv, cache, got);
  for (int t = prefill; t < TOKENS; t++) attend_chunk(backend, score, kappa, t, 1, qkv, cache, got);
  const double tolerance = backend->real_size == sizeof(double) ? 1e-14 : 3e-6;
  for (int i = 0; i < 2 * TOKENS * HEADS * HEAD_SIZE; i++)
    if (!(fabs(got[i] - want[i]) <= tolerance))
      fail_msg("%s: score %d, kappa %g, %d tokens at once: %.9g is not %.9g", backend->name, score, kappa,
               prefill, got[i], want[i]);
  free(cache[0]);
  free(cache[1]);
  free(qkv);
  free(want);
}

static void test_cached_attention_is_attention(void **state) {
  (void)state;
  const backends all = all_backends();
  for (int i = 0; i < all.count; i++)
    for (int prefill = 1; prefill <= TOKENS; prefill += 4) {
      check_cache(all.list[i], KP_SCORE_DOT, 0, prefill);
      for (int k = 0; k < CASE_KAPPAS; k++)
        check_cache(all.list[i], k % 2 ? KP_SCORE_DISTANCE : KP_SCORE_DISTANCE_SQUARED, case_kappas[k],
                    prefill);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_operator_has_a_case), cmocka_unit_test(test_every_operator_has_kernels),
      cmocka_unit_test(test_in_place_pairs_exist),      cmocka_unit_test(test_indices_out_of_range),
      cmocka_unit_test(test_cache_too_short),           cmocka_unit_test(test_dropout_masks),
      cmocka_unit_test(test_dropout_streams),           cmocka_unit_test(test_cached_attention_is_attention),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
