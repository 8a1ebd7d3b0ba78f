/* Fast attention of every instruction set that this processor has, against the definition in double:
 * odd shapes, all scores, both layouts, shared key heads, hostile values, caches, reference numbers. */
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/operators.h"
#include "support/attention_oracle.h"
#include "support/golden.h"
#include "support/isa_symbols.h"

static const double output_tolerance = 1e-5, gradient_tolerance = 2e-5;

typedef struct kernel_set {
  const char *isa;
  kp_kernel forward, backward, cached;
  kp_scratch_size forward_scratch, backward_scratch, cached_scratch;
} kernel_set;

#define DECLARE(isa)                                                                                         \
  kp_status kp_cpu_attention_##isa(const kp_call *call, kp_error *error);                                    \
  kp_status kp_cpu_attention_backward_##isa(const kp_call *call, kp_error *error);                           \
  kp_status kp_cpu_attention_cached_##isa(const kp_call *call, kp_error *error);                             \
  size_t kp_cpu_scratch_attention_##isa(const kp_node *node, int threads);                                   \
  size_t kp_cpu_scratch_attention_backward_##isa(const kp_node *node, int threads);                          \
  size_t kp_cpu_scratch_attention_cached_##isa(const kp_node *node, int threads);
ISA_EACH(DECLARE)

#define ROW(isa)                                                                                             \
  {#isa,                                                                                                     \
   kp_cpu_attention_##isa,                                                                                   \
   kp_cpu_attention_backward_##isa,                                                                          \
   kp_cpu_attention_cached_##isa,                                                                            \
   kp_cpu_scratch_attention_##isa,                                                                           \
   kp_cpu_scratch_attention_backward_##isa,                                                                  \
   kp_cpu_scratch_attention_cached_##isa},
static const kernel_set sets[] = {ISA_EACH(ROW)};
enum { SET_COUNT = sizeof sets / sizeof *sets };

/* ---- Problems ---- */

static float uniform(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (float)((double)(*state >> 11) * 0x1p-53 * 2.0 - 1.0);
}

/* Random rows; for distances of a norm up to `norm`. */
static void fill_rows(float *rows, size_t count, int size, double norm, uint64_t *state) {
  for (size_t i = 0; i < count; i++) {
    float *row = rows + i * (size_t)size;
    double square = 0;
    for (int d = 0; d < size; d++) {
      row[d] = uniform(state);
      square += (double)row[d] * (double)row[d];
    }
    const double length = norm * (0.6 + 0.4 * (double)uniform(state));
    for (int d = 0; d < size; d++) row[d] *= norm > 0 ? (float)(length / sqrt(square)) : 1.7f;
  }
}

/* Values of order 1; for distances rows of a norm up to `norm`. */
static void fill_problem(oracle_problem *p, double norm) {
  uint64_t state = 1234567u + (uint64_t)(p->length * 131 + p->size * 17 + p->heads * 7 + p->power);
  const size_t rows = (size_t)p->batch * (size_t)p->heads * (size_t)p->length;
  const size_t key_rows = rows / (size_t)p->heads * (size_t)p->kv_heads, D = (size_t)p->size;
  const float curvatures[] = {-1.0f, 0.7f, -1.9f, 1e-3f, 0.0f, -1e-5f, -0.2f, 0.3f};
  fill_rows(p->q, rows, p->size, p->power == 0 ? 0 : norm, &state);
  fill_rows(p->k, key_rows, p->size, p->power == 0 ? 0 : norm, &state);
  for (size_t i = 0; i < rows * D; i++) p->out_bar[i] = uniform(&state);
  for (size_t i = 0; i < key_rows * D; i++) p->v[i] = uniform(&state);
  for (int h = 0; h < p->heads; h++) p->kappa[h] = curvatures[h % 8], p->beta[h] = 0.5f + 0.25f * (float)h;
}

static kp_attention_arguments arguments_of(const oracle_problem *p, bool packed) {
  return (kp_attention_arguments){.batch = p->batch,
                                  .length = p->length,
                                  .heads = p->heads,
                                  .kv_heads = p->kv_heads,
                                  .head_size = p->size,
                                  .packed = packed,
                                  .causal = p->causal,
                                  .score = (kp_score)p->power,
                                  .scale = p->scale};
}

/* ---- Layouts: (B, H, T, D) of the oracle, and the operator's rows ---- */

typedef struct row_layout {
  int heads, stride, column;
} row_layout;

static float *row_at(const oracle_problem *p, float *rows, row_layout layout, size_t i, int d) {
  const size_t D = (size_t)p->size, T = (size_t)p->length, H = (size_t)layout.heads;
  const size_t t = i % T, h = i / T % H, b = i / T / H;
  return rows + (b * T + t) * (size_t)layout.stride + (size_t)layout.column + h * D + (size_t)d;
}

static void lay_rows(const oracle_problem *p, const float *from, float *rows, row_layout layout) {
  const size_t count = (size_t)p->batch * (size_t)layout.heads * (size_t)p->length;
  for (size_t i = 0; i < count; i++)
    for (int d = 0; d < p->size; d++) *row_at(p, rows, layout, i, d) = from[i * (size_t)p->size + (size_t)d];
}

/* Gradients that vanish are compared with a tenth of the size of the data. */
static double least_size(const oracle_problem *p) {
  const size_t count = (size_t)p->batch * (size_t)p->kv_heads * (size_t)p->length * (size_t)p->size;
  double largest = 1.0;
  for (size_t i = 0; i < count; i++)
    largest = fmax(largest, fmax(fabs((double)p->q[i]), fabs((double)p->k[i])));
  return 0.1 * largest;
}

/* Largest difference of rows from the oracle's numbers, relative to the largest of these. */
static double rows_error(const oracle_problem *p, float *rows, row_layout layout, const double *expected) {
  const size_t count = (size_t)p->batch * (size_t)layout.heads * (size_t)p->length;
  double largest = least_size(p), error = 0;
  for (size_t i = 0; i < count; i++)
    for (int d = 0; d < p->size; d++) {
      const double e = expected[i * (size_t)p->size + (size_t)d];
      const double difference = fabs((double)*row_at(p, rows, layout, i, d) - e);
      largest = fmax(largest, fabs(e));
      if (!(difference <= error)) error = difference;
    }
  return error / largest;
}

static double line_error(const float *line, float start, const double *expected, size_t count) {
  double largest = 0.1, error = 0;
  for (size_t i = 0; i < count; i++) {
    const double difference = fabs((double)line[i] - (double)start - expected[i]);
    largest = fmax(largest, fabs(expected[i]));
    if (!(difference <= error)) error = difference;
  }
  return error / largest;
}

/* ---- One run of the kernels ---- */

typedef struct kernel_run {
  kp_attention_arguments arguments;
  row_layout q, k, v, o;
  size_t rows_size[3]; /* of q, k, v as the operator takes them; 0 where packed */
  float *input[3], *gradient[3];
  float *o_rows, *o_bar_rows, *logsumexp;
  float *kappa_bar, *beta_bar;
  size_t o_count, logsumexp_count;
} kernel_run;

static const float scalar_start = 0.5f;

static float *poisoned(size_t count) {
  float *memory = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
  assert_non_null(memory);
  for (size_t i = 0; i < count; i++) memory[i] = NAN;
  return memory;
}

static void run_create(kernel_run *run, const oracle_problem *p, bool packed) {
  const int width = p->heads * p->size, kv_width = p->kv_heads * p->size, all = width + 2 * kv_width;
  const size_t N = (size_t)p->batch * (size_t)p->length;
  *run = (kernel_run){.arguments = arguments_of(p, packed)};
  run->q = (row_layout){p->heads, packed ? all : width, 0};
  run->k = (row_layout){p->kv_heads, packed ? all : kv_width, packed ? width : 0};
  run->v = (row_layout){p->kv_heads, packed ? all : kv_width, packed ? width + kv_width : 0};
  run->o = (row_layout){p->heads, width, 0};
  run->rows_size[0] = N * (size_t)run->q.stride;
  run->rows_size[1] = run->rows_size[2] = packed ? 0 : N * (size_t)kv_width;
  for (int i = 0; i < 3; i++) {
    run->input[i] = poisoned(run->rows_size[i]);
    run->gradient[i] = poisoned(run->rows_size[i]);
  }
  run->o_count = N * (size_t)width;
  run->logsumexp_count = N * (size_t)p->heads;
  run->o_rows = poisoned(run->o_count);
  run->o_bar_rows = poisoned(run->o_count);
  run->logsumexp = poisoned(run->logsumexp_count);
  run->kappa_bar = poisoned((size_t)p->heads);
  run->beta_bar = poisoned((size_t)p->heads);
  lay_rows(p, p->q, run->input[0], run->q);
  lay_rows(p, p->k, run->input[packed ? 0 : 1], run->k);
  lay_rows(p, p->v, run->input[packed ? 0 : 2], run->v);
  lay_rows(p, p->out_bar, run->o_bar_rows, run->o);
}

static void run_destroy(kernel_run *run) {
  for (int i = 0; i < 3; i++) free(run->input[i]), free(run->gradient[i]);
  float *others[] = {run->o_rows, run->o_bar_rows, run->logsumexp, run->kappa_bar, run->beta_bar};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) free(others[i]);
}

/* Calls one kernel with scratch memory of exactly the size that it asks for, filled with NaN. */
static void call_kernel(kp_kernel kernel, kp_scratch_size scratch, kp_node *node, kp_call *call,
                        int threads) {
  kp_error error = {0};
  const kp_run run = {.threads = threads};
  const size_t bytes = scratch(node, threads);
  call->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
  assert_non_null(call->scratch);
  memset(call->scratch, 0xff, bytes);
  call->node = node;
  call->run = &run;
  check_ok(kernel(call, &error), &error);
  free(call->scratch);
}

static void run_forward(const kernel_set *set, kernel_run *run, const oracle_problem *p, int threads) {
  kp_node node = {.operation = KP_OP_ATTENTION, .inputs = 5, .outputs = 2, .arguments = &run->arguments};
  const bool packed = run->arguments.packed, dot = p->power == 0;
  kp_call call = {.input = {run->input[0], packed ? NULL : run->input[1], packed ? NULL : run->input[2],
                            dot ? NULL : p->kappa, dot ? NULL : p->beta},
                  .output = {run->o_rows, run->logsumexp}};
  call_kernel(set->forward, set->forward_scratch, &node, &call, threads);
}

static void run_backward(const kernel_set *set, kernel_run *run, const oracle_problem *p, int threads) {
  kp_node node = {
      .operation = KP_OP_ATTENTION_BACKWARD, .inputs = 11, .outputs = 5, .arguments = &run->arguments};
  const bool packed = run->arguments.packed, dot = p->power == 0;
  for (int h = 0; h < p->heads; h++) run->kappa_bar[h] = run->beta_bar[h] = scalar_start;
  kp_call call = {.input = {run->input[0], packed ? NULL : run->input[1], packed ? NULL : run->input[2],
                            dot ? NULL : p->kappa, dot ? NULL : p->beta, NULL, run->o_rows, run->logsumexp,
                            NULL, run->o_bar_rows},
                  .output = {run->gradient[0], packed ? NULL : run->gradient[1],
                             packed ? NULL : run->gradient[2], dot ? NULL : run->kappa_bar,
                             dot ? NULL : run->beta_bar}};
  call_kernel(set->backward, set->backward_scratch, &node, &call, threads);
}

/* ---- Comparison ---- */

static void check_error(double error, double tolerance, const char *isa, const char *what,
                        const oracle_problem *p) {
  if (!(error <= tolerance))
    fail_msg("%s: %s is off by %.3g (B %d, T %d, H %d over %d, D %d, power %d, %s)", isa, what, error,
             p->batch, p->length, p->heads, p->kv_heads, p->size, p->power, p->causal ? "causal" : "full");
}

static void check_set(const kernel_set *set, const oracle_problem *p, const oracle_result *expected,
                      bool packed) {
  kernel_run run;
  run_create(&run, p, packed);
  run_forward(set, &run, p, 2);
  check_error(rows_error(p, run.o_rows, run.o, expected->out), output_tolerance, set->isa, "the output", p);
  check_error(line_error(run.logsumexp, 0, expected->logsumexp, run.logsumexp_count), output_tolerance,
              set->isa, "logsumexp", p);
  run_backward(set, &run, p, 2);
  float *const gk = run.gradient[packed ? 0 : 1], *const gv = run.gradient[packed ? 0 : 2];
  check_error(rows_error(p, run.gradient[0], run.q, expected->q_bar), gradient_tolerance, set->isa, "g q", p);
  check_error(rows_error(p, gk, run.k, expected->k_bar), gradient_tolerance, set->isa, "g k", p);
  check_error(rows_error(p, gv, run.v, expected->v_bar), gradient_tolerance, set->isa, "g v", p);
  if (p->power > 0) {
    const size_t H = (size_t)p->heads;
    check_error(line_error(run.kappa_bar, scalar_start, expected->kappa_bar, H), gradient_tolerance, set->isa,
                "g kappa", p);
    check_error(line_error(run.beta_bar, scalar_start, expected->beta_bar, H), gradient_tolerance, set->isa,
                "g beta", p);
  }
  run_destroy(&run);
}

static void check_problem(const oracle_problem *p) {
  oracle_result expected;
  oracle_result_create(&expected, p);
  oracle_run(p, &expected);
  for (int s = 0; s < SET_COUNT; s++) {
    if (!isa_available(sets[s].isa)) continue;
    check_set(&sets[s], p, &expected, false);
    check_set(&sets[s], p, &expected, true);
  }
  oracle_result_destroy(&expected);
}

static oracle_problem problem_of(int batch, int length, int heads, int kv_heads, int size, bool causal,
                                 int power) {
  oracle_problem p = {batch, length, heads, kv_heads,
                      size,  causal, power, .scale = power == 0 ? 1 / sqrt(size) : 1};
  oracle_problem_create(&p);
  fill_problem(&p, 1.4);
  return p;
}

static void test_shapes(void **state) {
  (void)state;
  const int lengths[] = {1, 7, 63, 64, 65, 200};
  const int sizes[] = {1, 5, 8, 33, 64, 8};
  for (int power = 0; power <= 2; power++)
    for (int causal = 0; causal <= 1; causal++)
      for (int i = 0; i < 6; i++)
        for (int shift = 0; shift < 2; shift++) {
          oracle_problem p =
              problem_of(i < 2 ? 3 : 1, lengths[i], 3, 3, sizes[(i + 3 * shift) % 6], causal, power);
          check_problem(&p);
          oracle_problem_destroy(&p);
        }
}

/* Heads beyond 120 channels have smaller tiles. */
static void test_large_heads(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = problem_of(1, 150, 2, 2, 128, power != 1, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

static void test_shared_key_heads(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = problem_of(2, 70, 6, 2, 12, true, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
    p = problem_of(1, 33, 4, 1, 7, false, power);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Up to |u| sqrt|κ| of 2 (the curvatures reach -1.9), where w is a difference of numbers near 200. */
static void test_far_rows(void **state) {
  (void)state;
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = problem_of(1, 130, 8, 8, 16, true, power);
    fill_problem(&p, 2.0 / sqrt(1.9));
    p.kappa[0] = -1.9f;
    p.kappa[1] = 1.9f;
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Coincident points: w is zero up to rounding, and 1/sqrt(w) is not. */
static void test_keys_equal_queries(void **state) {
  (void)state;
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = problem_of(1, 66, 6, 6, 16, true, power);
    memcpy(p.k, p.q, sizeof(float) * 6 * 66 * 16);
    check_problem(&p);
    for (int i = 0; i < 6 * 66 * 16; i++) p.q[i] = p.k[i] = p.k[i % 16]; /* all rows the same point */
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

static void test_zeros(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++) {
    oracle_problem p = problem_of(1, 70, 2, 2, 8, true, power);
    memset(p.q, 0, sizeof(float) * 2 * 70 * 8);
    check_problem(&p);
    memset(p.k, 0, sizeof(float) * 2 * 70 * 8);
    check_problem(&p);
    oracle_problem_destroy(&p);
  }
}

/* Scores of ±10⁴, exact in float: the softmax picks single keys and nothing overflows. */
static void test_huge_scores(void **state) {
  (void)state;
  oracle_problem p = problem_of(1, 150, 2, 2, 4, true, 0);
  p.scale = 1;
  for (int i = 0; i < 2 * 150; i++)
    for (int d = 0; d < 4; d++) {
      p.q[i * 4 + d] = d == 0 ? 100.0f : 0.0f;
      p.k[i * 4 + d] = d == 0 ? (float)((i * 37) % 201 - 100) : 0.25f;
    }
  check_problem(&p);
  oracle_problem_destroy(&p);
}

/* A NaN stays visible in its row, and does not leave its head. */
static void test_nan_comes_out(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++)
    for (int s = 0; s < SET_COUNT; s++) {
      if (!isa_available(sets[s].isa)) continue;
      oracle_problem p = problem_of(1, 70, 2, 2, 8, true, power);
      p.q[66 * 8 + 3] = NAN;
      kernel_run run;
      run_create(&run, &p, true);
      run_forward(&sets[s], &run, &p, 1);
      for (int t = 0; t < 70; t++)
        for (int c = 0; c < 16; c++) assert_true(isnan(run.o_rows[t * 16 + c]) == (t == 66 && c < 8));
      run_backward(&sets[s], &run, &p, 1);
      for (int d = 0; d < 8; d++) assert_true(isnan(run.gradient[0][66 * 48 + d]));
      if (power > 0)
        assert_true(isnan(run.kappa_bar[0]) && isnan(run.beta_bar[0]) && isfinite(run.kappa_bar[1]));
      run_destroy(&run);
      oracle_problem_destroy(&p);
    }
}

/* Two runs, and runs with one and two threads, give the same bits. */
static void test_reproducible(void **state) {
  (void)state;
  for (int power = 0; power <= 2; power++)
    for (int s = 0; s < SET_COUNT; s++) {
      if (!isa_available(sets[s].isa)) continue;
      oracle_problem p = problem_of(2, 150, 5, 5, 24, true, power);
      kernel_run runs[3];
      for (int i = 0; i < 3; i++) {
        run_create(&runs[i], &p, true);
        run_forward(&sets[s], &runs[i], &p, i == 0 ? 1 : 2);
        run_backward(&sets[s], &runs[i], &p, i == 0 ? 1 : 2);
        assert_memory_equal(runs[i].o_rows, runs[0].o_rows, runs[0].o_count * sizeof(float));
        assert_memory_equal(runs[i].gradient[0], runs[0].gradient[0], runs[0].rows_size[0] * sizeof(float));
        if (power == 0) continue;
        assert_memory_equal(runs[i].kappa_bar, runs[0].kappa_bar, 5 * sizeof(float));
        assert_memory_equal(runs[i].beta_bar, runs[0].beta_bar, 5 * sizeof(float));
      }
      for (int i = 0; i < 3; i++) run_destroy(&runs[i]);
      oracle_problem_destroy(&p);
    }
}

/* ---- The cached form ---- */

/* Feeds the sequence in pieces of the given lengths and compares with attention over the whole. */
static void check_cached(const kernel_set *set, const oracle_problem *p, const oracle_result *expected,
                         const int *pieces, int count) {
  enum { SPARE = 3 };
  const int D = p->size, all = (p->heads + 2 * p->kv_heads) * D, width = p->heads * D,
            capacity = p->length + SPARE;
  const size_t cache_count = (size_t)(p->batch * p->kv_heads * capacity * D);
  float *keys = poisoned(cache_count), *values = poisoned(cache_count);
  kernel_run whole;
  run_create(&whole, p, true);
  int32_t start = 0;
  for (int piece = 0; piece < count; start += pieces[piece++]) {
    const int T = pieces[piece];
    float *rows = poisoned((size_t)(p->batch * T * all)), *out = poisoned((size_t)(p->batch * T * width));
    for (int b = 0; b < p->batch; b++)
      memcpy(rows + b * T * all, whole.input[0] + (b * p->length + start) * all,
             sizeof(float) * (size_t)(T * all));
    kp_attention_arguments arguments = whole.arguments;
    arguments.length = T;
    kp_tensor cache = {.dimensions = 4, .shape = {p->batch, p->kv_heads, capacity, D}};
    kp_node node = {.operation = KP_OP_ATTENTION_CACHED, .inputs = 6, .outputs = 1, .arguments = &arguments};
    node.input[1] = node.input[2] = &cache;
    kp_call call = {.input = {rows, keys, values, &start, p->power == 0 ? NULL : p->kappa,
                              p->power == 0 ? NULL : p->beta},
                    .output = {out}};
    call_kernel(set->cached, set->cached_scratch, &node, &call, 2);
    for (int b = 0; b < p->batch; b++)
      memcpy(whole.o_rows + (b * p->length + start) * width, out + b * T * width,
             sizeof(float) * (size_t)(T * width));
    free(rows);
    free(out);
  }
  check_error(rows_error(p, whole.o_rows, whole.o, expected->out), output_tolerance, set->isa,
              "the cached output", p);
  run_destroy(&whole);
  free(keys);
  free(values);
}

static void test_cached_equals_whole(void **state) {
  (void)state;
  const int split[][6] = {{134, 1, 1, 1, 3, 9}, {1, 1, 7, 64, 65, 11}};
  for (int power = 0; power <= 2; power++)
    for (int shape = 0; shape < 2; shape++) {
      oracle_problem p = problem_of(2, 149, 6, shape == 0 ? 6 : 2, shape == 0 ? 8 : 33, true, power);
      oracle_result expected;
      oracle_result_create(&expected, &p);
      oracle_run(&p, &expected);
      for (int s = 0; s < SET_COUNT; s++)
        for (int i = 0; isa_available(sets[s].isa) && i < 2; i++)
          check_cached(&sets[s], &p, &expected, split[i], 6);
      oracle_result_destroy(&expected);
      oracle_problem_destroy(&p);
    }
}

static void test_full_cache_is_an_error(void **state) {
  (void)state;
  for (int s = 0; s < SET_COUNT; s++) {
    if (!isa_available(sets[s].isa)) continue;
    kp_attention_arguments arguments = {.batch = 1,
                                        .length = 2,
                                        .heads = 1,
                                        .kv_heads = 1,
                                        .head_size = 4,
                                        .packed = true,
                                        .causal = true,
                                        .scale = 0.5};
    kp_tensor cache = {.dimensions = 4, .shape = {1, 1, 8, 4}};
    kp_node node = {.operation = KP_OP_ATTENTION_CACHED, .arguments = &arguments};
    node.input[1] = node.input[2] = &cache;
    const kp_run run = {.threads = 1};
    int32_t start = 7;
    float rows[24] = {0}, keys[32] = {0}, values[32] = {0}, out[8];
    kp_call call = {.node = &node, .run = &run, .input = {rows, keys, values, &start}, .output = {out}};
    kp_error error = {0};
    assert_int_equal(sets[s].cached(&call, &error), KP_ERR_INPUT);
    assert_non_null(strstr(error.message, "cache of 8"));
  }
}

/* ---- Reference numbers ---- */

static void copy_floats(float *to, const golden_array *from) {
  for (size_t i = 0; i < from->count; i++) to[i] = (float)from->data[i];
}

static void test_reference_numbers(void **state) {
  (void)state;
  golden *file = golden_open("stereographic/geoattn");
  for (int power = 1; power <= 2; power++) {
    oracle_problem p = {1, 6, 7, 7, 8, true, power, .scale = 1};
    oracle_problem_create(&p);
    copy_floats(p.q, golden_find(file, "p%d/q", power));
    copy_floats(p.k, golden_find(file, "p%d/k", power));
    copy_floats(p.v, golden_find(file, "p%d/v", power));
    copy_floats(p.out_bar, golden_find(file, "p%d/gout", power));
    copy_floats(p.beta, golden_find(file, "p%d/beta", power));
    const double *theta = golden_find(file, "p%d/theta", power)->data;
    const double *theta_bar = golden_find(file, "p%d/grad_theta", power)->data;
    double kappa_bar[7], logsumexp[42];
    for (int h = 0; h < 7; h++) {
      const double kappa = 2 * tanh(theta[h]);
      p.kappa[h] = (float)kappa;
      kappa_bar[h] = theta_bar[h] / (2 - kappa * kappa / 2);
    }
    const golden_array *distance = golden_find(file, "p%d/dist", power);
    for (int i = 0; i < 42; i++) {
      double sum = 0;
      for (int j = 0; j <= i % 6; j++) {
        const double d = distance->data[i * 6 + j];
        sum += exp(-(double)p.beta[i / 6] * (power == 1 ? d : d * d));
      }
      logsumexp[i] = log(sum);
    }
    const oracle_result expected = {.out = golden_find(file, "p%d/out", power)->data,
                                    .logsumexp = logsumexp,
                                    .q_bar = golden_find(file, "p%d/grad_q", power)->data,
                                    .k_bar = golden_find(file, "p%d/grad_k", power)->data,
                                    .v_bar = golden_find(file, "p%d/grad_v", power)->data,
                                    .kappa_bar = kappa_bar,
                                    .beta_bar = golden_find(file, "p%d/grad_beta", power)->data};
    for (int s = 0; s < SET_COUNT; s++)
      if (isa_available(sets[s].isa)) check_set(&sets[s], &p, &expected, true);
    oracle_problem_destroy(&p);
  }
  golden_close(file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_large_heads),
      cmocka_unit_test(test_shared_key_heads),
      cmocka_unit_test(test_far_rows),
      cmocka_unit_test(test_keys_equal_queries),
      cmocka_unit_test(test_zeros),
      cmocka_unit_test(test_huge_scores),
      cmocka_unit_test(test_nan_comes_out),
      cmocka_unit_test(test_reproducible),
      cmocka_unit_test(test_cached_equals_whole),
      cmocka_unit_test(test_full_cache_is_an_error),
      cmocka_unit_test(test_reference_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
