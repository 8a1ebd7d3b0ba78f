/* What a linear map of points adds to the backward pass: gradients of the times, of their weights and of the
 * bias, in one pass over g y.
 *
 * Each thread takes a run of rows in blocks that stay in the cache.  A block's sums over rows are in float,
 * the thread's totals over blocks in double, and the threads' totals are added in their order. */
#include <string.h>

#include "backend/cpu/isa/product.h"
#include "backend/cpu/isa/scratch.h"

enum { BLOCK = 64 };

typedef struct time_call {
  int64_t rows, columns, groups; /* N, M, G */
  const float *gy, *time, *weight;
  float *g_time;
} time_call;

/* A thread's memory: sums of a block and of all its blocks. */
typedef struct sums {
  float *weight, *bias, *time;       /* (M, G), (M); (BLOCK, G) where g time is not wanted */
  double *weight_total, *bias_total; /* (M, G), (M) */
} sums;

static time_call time_call_of(const kp_call *call) {
  const kp_node *node = call->node;
  return (time_call){.rows = kp_tensor_rows(node->input[0]),
                     .columns = kp_tensor_columns(node->input[0]),
                     .groups = kp_tensor_columns(node->input[1]),
                     .gy = call->input[0],
                     .time = call->input[1],
                     .weight = call->input[2],
                     .g_time = call->output[0]};
}

static void lay_out(const time_call *c, kp_scratch *scratch, sums *s) {
  const size_t M = (size_t)c->columns, G = (size_t)c->groups;
  s->weight = kp_scratch_take(scratch, M * G, sizeof(float));
  s->bias = kp_scratch_take(scratch, M, sizeof(float));
  s->time = kp_scratch_take(scratch, BLOCK * G, sizeof(float));
  s->weight_total = kp_scratch_take(scratch, M * G, sizeof(double));
  s->bias_total = kp_scratch_take(scratch, M, sizeof(double));
}

size_t KP_SCRATCH(linear_backward_time)(const kp_node *node, int threads) {
  const kp_call shapes = {.node = node};
  const time_call c = time_call_of(&shapes);
  kp_scratch scratch = {NULL, 64};
  sums s;
  for (int i = 0; i < threads; i++) lay_out(&c, &scratch, &s);
  return scratch.used;
}

/* A row of g y with one time: adds to the block's sums, returns the gradient of the time. */
static inline float one_time(const float *restrict gy, float time, const float *restrict weight,
                             float *restrict weight_sum, float *restrict bias_sum, int64_t M) {
  float product = 0;
#pragma omp simd reduction(+ : product)
  for (int64_t m = 0; m < M; m++) {
    const float g = gy[m];
    product += g * weight[m];
    weight_sum[m] += g * time;
    bias_sum[m] += g;
  }
  return product;
}

static void one_time_block(const time_call *c, kp_range rows, const sums *s) {
  memset(s->weight, 0, (size_t)c->columns * sizeof(float));
  memset(s->bias, 0, (size_t)c->columns * sizeof(float));
  for (int64_t n = rows.first; n < rows.last; n++) {
    const float g = one_time(c->gy + n * c->columns, c->time[n], c->weight, s->weight, s->bias, c->columns);
    if (c->g_time != NULL) c->g_time[n] = g;
  }
}

static void multiply(kp_product product) {
  KP_ISA_NAME(kp_cpu_product_tile)(&product, (kp_tile){{0, product.rows}, {0, product.columns}});
}

static void many_times_block(const time_call *c, kp_range rows, const sums *s) {
  const int64_t count = rows.last - rows.first, M = c->columns, G = c->groups;
  const float *gy = c->gy + rows.first * M, *time = c->time + rows.first * G;
  float *g_time = c->g_time == NULL ? s->time : c->g_time + rows.first * G;
  multiply((kp_product){.rows = count, .columns = G, .depth = M, .a = gy, .b = c->weight, .c = g_time});
  multiply((kp_product){
      .rows = M, .columns = G, .depth = count, .a = gy, .a_transposed = true, .b = time, .c = s->weight});
  memset(s->bias, 0, (size_t)M * sizeof(float));
  for (int64_t n = 0; n < count; n++) {
#pragma omp simd
    for (int64_t m = 0; m < M; m++) s->bias[m] += gy[n * M + m];
  }
}

static void add_to(double *total, const float *sum, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) total[i] += (double)sum[i];
}

static void work(const time_call *c, kp_range range, const sums *s) {
  memset(s->weight_total, 0, (size_t)(c->columns * c->groups) * sizeof(double));
  memset(s->bias_total, 0, (size_t)c->columns * sizeof(double));
  for (int64_t first = range.first; first < range.last; first += BLOCK) {
    const kp_range rows = {first, first + BLOCK < range.last ? first + BLOCK : range.last};
    if (c->groups == 1)
      one_time_block(c, rows, s);
    else
      many_times_block(c, rows, s);
    add_to(s->weight_total, s->weight, c->columns * c->groups);
    add_to(s->bias_total, s->bias, c->columns);
  }
}

kp_status KP_KERNEL(linear_backward_time)(const kp_call *call, kp_error *error) {
  (void)error;
  const time_call c = time_call_of(call);
  const int threads = kp_threads_for(call, c.rows * c.columns * (2 * c.groups + 1));
  const kp_scratch scratch = kp_scratch_at(call->scratch);
  kp_scratch one = {NULL, 0};
  sums shape, first = {0};
  lay_out(&c, &one, &shape);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++) {
    sums s;
    kp_scratch own = {scratch.base + (size_t)part * one.used, 0};
    lay_out(&c, &own, &s);
    work(&c, kp_split(c.rows, BLOCK, part, threads), &s);
  }
  kp_scratch own = scratch;
  lay_out(&c, &own, &first);
  kp_add_parts(first.weight_total, one.used, threads, c.columns * c.groups, call->output[1]);
  kp_add_parts(first.bias_total, one.used, threads, c.columns, call->output[2]);
  return KP_OK;
}
