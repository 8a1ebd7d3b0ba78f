#include "support/attention_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"
#include "support/isa_symbols.h"

static const double output_tolerance = 1e-5, gradient_tolerance = 2e-5;

/* ---- The kernels ---- */

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

int attention_kernel_sets(attention_kernels list[ATTENTION_SETS]) {
  static const attention_kernels sets[] = {ISA_EACH(ROW)};
  int count = 0;
  for (size_t s = 0; s < sizeof sets / sizeof *sets; s++)
    if (isa_available(sets[s].isa)) list[count++] = sets[s];
  return count;
}

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

void attention_fill(oracle_problem *p, double norm) {
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

oracle_problem attention_problem(int batch, int length, int heads, int kv_heads, int size, bool causal,
                                 int power) {
  oracle_problem p = {batch, length, heads, kv_heads,
                      size,  causal, power, .scale = power == 0 ? 1 / sqrt(size) : 1};
  oracle_problem_create(&p);
  attention_fill(&p, 1.4);
  return p;
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

static const float scalar_start = 0.5f;

float *attention_poisoned(size_t count) {
  float *memory = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
  assert_non_null(memory);
  for (size_t i = 0; i < count; i++) memory[i] = NAN;
  return memory;
}

void attention_run_create(attention_run *run, const oracle_problem *p, bool packed) {
  const int width = p->heads * p->size, kv_width = p->kv_heads * p->size, all = width + 2 * kv_width;
  const size_t N = (size_t)p->batch * (size_t)p->length;
  *run = (attention_run){.arguments = arguments_of(p, packed)};
  run->q = (row_layout){p->heads, packed ? all : width, 0};
  run->k = (row_layout){p->kv_heads, packed ? all : kv_width, packed ? width : 0};
  run->v = (row_layout){p->kv_heads, packed ? all : kv_width, packed ? width + kv_width : 0};
  run->o = (row_layout){p->heads, width, 0};
  run->rows_size[0] = N * (size_t)run->q.stride;
  run->rows_size[1] = run->rows_size[2] = packed ? 0 : N * (size_t)kv_width;
  for (int i = 0; i < 3; i++) {
    run->input[i] = attention_poisoned(run->rows_size[i]);
    run->gradient[i] = attention_poisoned(run->rows_size[i]);
  }
  run->o_count = N * (size_t)width;
  run->logsumexp_count = N * (size_t)p->heads;
  run->o_rows = attention_poisoned(run->o_count);
  run->o_bar_rows = attention_poisoned(run->o_count);
  run->logsumexp = attention_poisoned(run->logsumexp_count);
  run->kappa_bar = attention_poisoned((size_t)p->heads);
  run->beta_bar = attention_poisoned((size_t)p->heads);
  lay_rows(p, p->q, run->input[0], run->q);
  lay_rows(p, p->k, run->input[packed ? 0 : 1], run->k);
  lay_rows(p, p->v, run->input[packed ? 0 : 2], run->v);
  lay_rows(p, p->out_bar, run->o_bar_rows, run->o);
}

void attention_run_destroy(attention_run *run) {
  for (int i = 0; i < 3; i++) free(run->input[i]), free(run->gradient[i]);
  float *others[] = {run->o_rows, run->o_bar_rows, run->logsumexp, run->kappa_bar, run->beta_bar};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) free(others[i]);
}

void attention_call(kp_kernel kernel, kp_scratch_size scratch, kp_node *node, kp_call *call, int threads) {
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

void attention_run_forward(const attention_kernels *set, attention_run *run, const oracle_problem *p,
                           int threads) {
  kp_node node = {.operation = KP_OP_ATTENTION, .inputs = 5, .outputs = 2, .arguments = &run->arguments};
  const bool packed = run->arguments.packed, dot = p->power == 0;
  kp_call call = {.input = {run->input[0], packed ? NULL : run->input[1], packed ? NULL : run->input[2],
                            dot ? NULL : p->kappa, dot ? NULL : p->beta},
                  .output = {run->o_rows, run->logsumexp}};
  attention_call(set->forward, set->forward_scratch, &node, &call, threads);
}

void attention_run_backward(const attention_kernels *set, attention_run *run, const oracle_problem *p,
                            int threads) {
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
  attention_call(set->backward, set->backward_scratch, &node, &call, threads);
}

/* ---- Comparison ---- */

static void check_error(double error, double tolerance, const char *isa, const char *what,
                        const oracle_problem *p) {
  if (!(error <= tolerance))
    fail_msg("%s: %s is off by %.3g (B %d, T %d, H %d over %d, D %d, power %d, %s)", isa, what, error,
             p->batch, p->length, p->heads, p->kv_heads, p->size, p->power, p->causal ? "causal" : "full");
}

void attention_check_output(const attention_kernels *set, const attention_run *run, const oracle_problem *p,
                            const oracle_result *expected, const char *what) {
  check_error(rows_error(p, run->o_rows, run->o, expected->out), output_tolerance, set->isa, what, p);
}

void attention_check(const attention_kernels *set, const oracle_problem *p, const oracle_result *expected,
                     bool packed) {
  attention_run run;
  attention_run_create(&run, p, packed);
  attention_run_forward(set, &run, p, 2);
  attention_check_output(set, &run, p, expected, "the output");
  check_error(line_error(run.logsumexp, 0, expected->logsumexp, run.logsumexp_count), output_tolerance,
              set->isa, "logsumexp", p);
  attention_run_backward(set, &run, p, 2);
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
  attention_run_destroy(&run);
}
