/* The linear layer and its gradients.
 *
 * The bias is laid into the output before the product adds to it: OpenBLAS
 * would otherwise clear the output in a pass of its own, so the bias is free.
 * So is the part of the times of points, which goes the same way. */
#include <string.h>

#include "backend/cpu/isa/linear_few.h"
#include "backend/cpu/isa/product.h"

/* Up to this many elements, weight gradients are summed over parts of the rows, one a thread, and then
 * added up: the output is too small to be cut into good tiles. */
enum { SMALL_WEIGHT = 32768 };

/* What the output starts from: bias + time · time weightᵀ, either may be NULL, or numbers of its own shape,
 * which may stand in it. */
typedef struct start {
  const float *bias, *time, *time_weight; /* (M), (N, G), (M, G) */
  int64_t groups;
  const float *whole; /* (N, M) */
} start;

static void lay_whole(const float *whole, float *y, int64_t columns, kp_tile tile) {
  const size_t bytes = (size_t)(tile.columns.last - tile.columns.first) * sizeof *y;
  for (int64_t n = tile.rows.first; n < tile.rows.last && y != whole; n++)
    memcpy(y + n * columns + tile.columns.first, whole + n * columns + tile.columns.first, bytes);
}

static void lay_bias(const float *bias, float *y, int64_t columns, kp_tile tile) {
  const size_t bytes = (size_t)(tile.columns.last - tile.columns.first) * sizeof *y;
  for (int64_t n = tile.rows.first; n < tile.rows.last; n++)
    memcpy(y + n * columns + tile.columns.first, bias + tile.columns.first, bytes);
}

/* One time a row. */
static void lay_time(const start *s, float *y, int64_t columns, kp_tile tile) {
  const float *bias = s->bias, *weight = s->time_weight;
  for (int64_t n = tile.rows.first; n < tile.rows.last; n++) {
    const float time = s->time[n];
    float *row = y + n * columns;
    if (bias == NULL) {
#pragma omp simd
      for (int64_t m = tile.columns.first; m < tile.columns.last; m++) row[m] = time * weight[m];
    } else {
#pragma omp simd
      for (int64_t m = tile.columns.first; m < tile.columns.last; m++) row[m] = time * weight[m] + bias[m];
    }
  }
}

/* Several times a row: a small product of its own, in blocks of rows that stay in the cache. */
static void lay_times(const start *s, const kp_product *product, kp_tile tile) {
  enum { BLOCK = 64 };
  kp_product small = {.rows = product->rows,
                      .columns = product->columns,
                      .depth = s->groups,
                      .a = s->time,
                      .b = s->time_weight,
                      .b_transposed = true,
                      .c = product->c,
                      .add = s->bias != NULL};
  for (int64_t first = tile.rows.first; first < tile.rows.last; first += BLOCK) {
    const int64_t last = first + BLOCK < tile.rows.last ? first + BLOCK : tile.rows.last;
    const kp_tile block = {{first, last}, tile.columns};
    if (s->bias != NULL) lay_bias(s->bias, product->c, product->columns, block);
    KP_ISA_NAME(kp_cpu_product_tile)(&small, block);
  }
}

static void lay_start(const start *s, const kp_product *product, kp_tile tile) {
  if (s->whole != NULL)
    lay_whole(s->whole, product->c, product->columns, tile);
  else if (s->time != NULL && s->groups == 1)
    lay_time(s, product->c, product->columns, tile);
  else if (s->time != NULL)
    lay_times(s, product, tile);
  else if (s->bias != NULL)
    lay_bias(s->bias, product->c, product->columns, tile);
}

/* The thread's share of a product; call it from all `threads` threads of a parallel region. */
static void multiply_shares(const kp_product *product, const start *from, int threads) {
  const kp_grid grid = kp_grid_choose(product->rows, product->columns, threads);
#pragma omp for schedule(static) nowait
  for (int part = 0; part < threads; part++) {
    const kp_tile tile = kp_grid_tile(grid, product->rows, product->columns, part);
    if (from != NULL) lay_start(from, product, tile);
    KP_ISA_NAME(kp_cpu_product_tile)(product, tile);
  }
}

static void multiply(const kp_product *product, const start *from, int threads) {
  threads = kp_product_threads(product->rows, product->columns, product->depth, threads);
#pragma omp parallel num_threads(threads)
  multiply_shares(product, from, threads);
}

static start start_of(const kp_call *call) {
  const kp_node *node = call->node;
  start s = {.bias = node->inputs > 2 ? call->input[2] : NULL};
  if (node->inputs < 5) return s;
  s.time = call->input[3], s.time_weight = call->input[4];
  s.groups = kp_tensor_columns(node->input[3]);
  return s;
}

kp_status KP_KERNEL(linear)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const int64_t rows = kp_tensor_rows(node->input[0]), depth = kp_tensor_columns(node->input[0]);
  const int64_t columns = kp_tensor_columns(node->output[0]);
  const start from = start_of(call);
  if (rows <= KP_FEW_ROWS) {
    const int threads = kp_threads_for(call, rows * columns * depth / 4);
    const kp_few_rows few = {.x = call->input[0],
                             .w = call->input[1],
                             .bias = from.bias,
                             .time = from.time,
                             .time_weight = from.time_weight,
                             .y = call->output[0],
                             .rows = rows,
                             .columns = columns,
                             .depth = depth,
                             .groups = from.groups};
    KP_ISA_NAME(kp_cpu_linear_few)(&few, threads);
    return KP_OK;
  }
  const kp_product product = {.rows = rows,
                              .columns = columns,
                              .depth = depth,
                              .a = call->input[0],
                              .b = call->input[1],
                              .b_transposed = true,
                              .c = call->output[0],
                              .add = from.bias != NULL || from.time != NULL};
  multiply(&product, &from, call->run->threads);
  return KP_OK;
}

kp_status KP_KERNEL(linear_backward_input)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const start from = {.whole = node->inputs > 2 ? call->input[2] : NULL};
  const kp_product product = {.rows = kp_tensor_rows(node->input[0]),
                              .columns = kp_tensor_columns(node->output[0]),
                              .depth = kp_tensor_columns(node->input[0]),
                              .a = call->input[0],
                              .b = call->input[1],
                              .c = call->output[0],
                              .add = from.whole != NULL};
  multiply(&product, &from, call->run->threads);
  return KP_OK;
}

/* Adds the column sums of gy (rows, columns) to g_bias, for a range of columns.  Rows are summed in blocks
 * first, so that rounding errors grow with the block and not with the batch. */
static void add_column_sums(const float *gy, int64_t rows, int64_t columns, kp_range range, float *g_bias) {
  enum { WIDTH = 64, BLOCK = 128 };
  for (int64_t first = range.first; first < range.last; first += WIDTH) {
    const int64_t width = range.last - first < WIDTH ? range.last - first : WIDTH;
    double total[WIDTH] = {0};
    for (int64_t block = 0; block < rows; block += BLOCK) {
      const int64_t last = block + BLOCK < rows ? block + BLOCK : rows;
      float sum[WIDTH] = {0};
      for (int64_t n = block; n < last; n++) {
        const float *row = gy + n * columns + first;
#pragma omp simd
        for (int64_t m = 0; m < width; m++) sum[m] += row[m];
      }
      for (int64_t m = 0; m < width; m++) total[m] += (double)sum[m];
    }
    for (int64_t m = 0; m < width; m++) g_bias[first + m] += (float)total[m];
  }
}

/* The thread's share of the column sums. */
static void add_bias_shares(const float *gy, int64_t rows, int64_t columns, float *g_bias, int threads) {
#pragma omp for schedule(static) nowait
  for (int part = 0; part < threads; part++)
    add_column_sums(gy, rows, columns, kp_split(columns, 16, part, threads), g_bias);
}

/* The thread's share of a weight gradient of few elements: each thread multiplies its part of the rows into a
 * copy of its own, and when all are done the copies are added in order. */
static void add_small_weight_shares(const kp_product *product, float *copies, int threads) {
  const int64_t rows = product->rows, columns = product->columns, count = rows * columns;
  float *c = product->c;
#pragma omp for schedule(static)
  for (int part = 0; part < threads; part++) {
    const kp_range range = kp_split(product->depth, 16, part, threads);
    kp_product own = *product;
    own.depth = range.last - range.first;
    own.a += range.first * rows;
    own.b += range.first * columns;
    own.c = copies + part * count;
    own.add = false;
    KP_ISA_NAME(kp_cpu_product_tile)(&own, (kp_tile){{0, rows}, {0, columns}});
  }
#pragma omp for schedule(static) nowait
  for (int64_t i = 0; i < count; i++) {
    float sum = copies[i];
    for (int part = 1; part < threads; part++) sum += copies[part * count + i];
    c[i] += sum;
  }
}

static bool weight_is_small(int64_t rows, int64_t columns, int64_t depth, int threads) {
  return kp_product_threads(rows, columns, depth, threads) > 1 && rows * columns <= SMALL_WEIGHT &&
         depth >= 64 * threads;
}

size_t KP_SCRATCH(linear_backward_weight)(const kp_node *node, int threads) {
  const int64_t rows = kp_tensor_columns(node->input[0]), columns = kp_tensor_columns(node->input[1]);
  if (!weight_is_small(rows, columns, kp_tensor_rows(node->input[0]), threads)) return 0;
  return (size_t)(rows * columns * threads) * sizeof(float);
}

kp_status KP_KERNEL(linear_backward_weight)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_node *node = call->node;
  const float *gy = call->input[0];
  float *g_weight = call->output[0], *g_bias = node->outputs > 1 ? call->output[1] : NULL;
  const kp_product product = {.rows = kp_tensor_columns(node->input[0]),
                              .columns = kp_tensor_columns(node->input[1]),
                              .depth = kp_tensor_rows(node->input[0]),
                              .a = gy,
                              .a_transposed = true,
                              .b = call->input[1],
                              .c = g_weight,
                              .add = true};
  const bool small = weight_is_small(product.rows, product.columns, product.depth, call->run->threads);
  const int threads = kp_product_threads(product.rows, product.columns, product.depth, call->run->threads);
#pragma omp parallel num_threads(threads)
  {
    if (g_weight != NULL && small)
      add_small_weight_shares(&product, call->scratch, threads);
    else if (g_weight != NULL)
      multiply_shares(&product, NULL, threads);
    if (g_bias != NULL) add_bias_shares(gy, product.depth, product.rows, g_bias, threads);
  }
  return KP_OK;
}
