/* Head and loss in one, chunk by chunk of the logits.
 *
 * A chunk is a piece (rows, entries of the vocabulary) in scratch memory, small enough to stay in a shared
 * cache between the pass that makes it and those that read it.  Each thread makes the chunk's columns of its
 * own range of entries; there it also takes their gradient and adds to the weight's, so that only the row
 * sums of the forward pass and the gradient of x wait for the other threads.  Chunks are cut by the
 * operator's sizes alone and visited in order: results do not depend on timing.
 *
 * The products of the forward pass are made twice, so four products stand against three: on a Zen 4 core a
 * step takes 1.35 to 1.4 times as long as linear and cross_entropy do (N 512 and 4096, C 390, V 32000), in
 * 10 and 20 MiB instead of 63 and 506; other sizes of the chunk between 2 and 32 MiB are as fast. */
#include <string.h>

#include "backend/cpu/isa/cross_entropy_rows.h"
#include "backend/cpu/isa/product.h"

enum {
  CHUNK_ROWS = 1024,
  CHUNK_FLOATS = 1 << 21,
  BLOCK = 128, /* rows whose sums a column keeps in float before they are added to the gradient */
};

/* The operands of a call, and the chunk that is being worked on. */
typedef struct head {
  int64_t rows, vocabulary, depth;
  const float *x, *weight, *time, *time_weight, *scale;
  const int32_t *target;
  float factor;
  int32_t ignore;
  float *logits;       /* the chunk (row.last - row.first, entry.last - entry.first) */
  kp_range row, entry; /* what the chunk covers */
} head;

typedef struct chunk_size {
  int64_t rows, entries;
} chunk_size;

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static chunk_size chunk_of(const kp_node *node) {
  const kp_linear_cross_entropy_arguments *a = node->arguments;
  const int64_t rows =
      smaller(a->chunk_rows > 0 ? a->chunk_rows : CHUNK_ROWS, kp_tensor_rows(node->input[0]));
  const int64_t entries = a->chunk_vocabulary > 0 ? a->chunk_vocabulary : CHUNK_FLOATS / rows;
  return (chunk_size){rows, smaller(entries, node->input[1]->shape[0])};
}

static size_t chunk_floats(const kp_node *node) {
  const chunk_size size = chunk_of(node);
  return (size_t)(size.rows * size.entries);
}

static head head_of(const kp_call *call, float *logits) {
  const kp_node *node = call->node;
  const kp_linear_cross_entropy_arguments *a = node->arguments;
  return (head){.rows = kp_tensor_rows(node->input[0]),
                .vocabulary = node->input[1]->shape[0],
                .depth = node->input[1]->shape[1],
                .x = call->input[0],
                .weight = call->input[1],
                .target = call->input[2],
                .time = call->input[3],
                .time_weight = call->input[4],
                .scale = call->input[5],
                .factor = (float)a->factor,
                .ignore = a->ignore,
                .logits = logits};
}

static int64_t width_of(const head *h) {
  return h->entry.last - h->entry.first;
}

/* The chunk's row of row n of x. */
static float *row_of(const head *h, int64_t n) {
  return h->logits + (n - h->row.first) * width_of(h);
}

/* x Wᵀ + time · time weight in the chunk's columns `own`. */
static void make_products(const head *h, kp_range own) {
  const float *time_weight = h->time == NULL ? NULL : h->time_weight + h->entry.first;
  for (int64_t n = h->row.first; n < h->row.last && h->time != NULL; n++) {
    float *row = row_of(h, n);
    const float time = h->time[n];
#pragma omp simd
    for (int64_t v = own.first; v < own.last; v++) row[v] = time * time_weight[v];
  }
  const int64_t rows = h->row.last - h->row.first;
  const kp_product product = {.rows = rows,
                              .columns = width_of(h),
                              .depth = h->depth,
                              .a = h->x + h->row.first * h->depth,
                              .b = h->weight + h->entry.first * h->depth,
                              .b_transposed = true,
                              .c = h->logits,
                              .add = h->time != NULL};
  KP_ISA_NAME(kp_cpu_product_tile)(&product, (kp_tile){{0, rows}, own});
}

/* Multiplies the chunk's columns `own` by factor · scale. */
static void scale_products(const head *h, kp_range own) {
  if (h->scale == NULL && h->factor == 1.0f) return;
  const float *scale = h->scale == NULL ? NULL : h->scale + h->entry.first, factor = h->factor;
  for (int64_t n = h->row.first; n < h->row.last; n++) {
    float *row = row_of(h, n);
    if (scale == NULL) {
#pragma omp simd
      for (int64_t v = own.first; v < own.last; v++) row[v] *= factor;
    } else {
#pragma omp simd
      for (int64_t v = own.first; v < own.last; v++) row[v] *= factor * scale[v];
    }
  }
}

/* ---- forward ---- */

/* What is known of a row when some of its chunks are done. */
typedef struct row_sum {
  kp_logsumexp sum;
  float at_target;
} row_sum;

size_t KP_SCRATCH(linear_cross_entropy)(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_rows(node->input[0]) * sizeof(row_sum) + chunk_floats(node) * sizeof(float);
}

static void add_row(const head *h, int64_t n, row_sum *sum) {
  const float *row = row_of(h, n);
  const int64_t at = h->target[n] - h->entry.first;
  kp_logsumexp_add(&sum->sum, row, width_of(h));
  if (at >= 0 && at < width_of(h)) sum->at_target = row[at];
}

/* One chunk, by all `threads` threads of a parallel region. */
static void forward_chunk(const head *h, row_sum *sums, int threads) {
#pragma omp for schedule(static)
  for (int part = 0; part < threads; part++) {
    const kp_range own = kp_split(width_of(h), 16, part, threads);
    make_products(h, own);
    scale_products(h, own);
  }
#pragma omp for schedule(static)
  for (int64_t n = h->row.first; n < h->row.last; n++) add_row(h, n, &sums[n]);
}

kp_status KP_KERNEL(linear_cross_entropy)(const kp_call *call, kp_error *error) {
  const chunk_size size = chunk_of(call->node);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  row_sum *sums = call->scratch;
  const head whole = head_of(call, (float *)(sums + rows));
  float *loss = call->output[0], *statistic = call->output[1];
  const int threads = kp_product_threads(rows, whole.vocabulary, whole.depth, call->run->threads);
  KP_TRY(kp_check_targets(whole.target, rows, whole.vocabulary, whole.ignore, error));
  for (int64_t n = 0; n < rows; n++) sums[n] = (row_sum){.sum = kp_logsumexp_start()};
#pragma omp parallel num_threads(threads)
  for (int64_t row = 0; row < rows; row += size.rows)
    for (int64_t entry = 0; entry < whole.vocabulary; entry += size.entries) {
      head h = whole;
      h.row = (kp_range){row, smaller(row + size.rows, rows)};
      h.entry = (kp_range){entry, smaller(entry + size.entries, whole.vocabulary)};
      forward_chunk(&h, sums, threads);
    }
  double total = 0;
  for (int64_t n = 0; n < rows; n++) {
    const double value = kp_logsumexp_value(&sums[n].sum);
    statistic[n] = (float)value;
    if (whole.target[n] != whole.ignore) total += value - (double)sums[n].at_target;
  }
  const int64_t count = kp_count_targets(whole.target, rows, whole.ignore);
  loss[0] = count == 0 ? 0.0f : (float)(total / (double)count);
  return KP_OK;
}

/* ---- backward ---- */

/* Where the gradients go, any NULL, and the sums over a block of rows (entries of a chunk). */
typedef struct gradients {
  const float *statistic;
  float share; /* g loss / targets that count */
  float *x, *time, *weight, *time_weight, *scale;
  float *time_weight_sum, *scale_sum;
} gradients;

size_t KP_SCRATCH(linear_cross_entropy_backward)(const kp_node *node, int threads) {
  (void)threads;
  return (chunk_floats(node) + 2 * (size_t)chunk_of(node).entries) * sizeof(float);
}

/* Turns the products of row n in the columns `own` into their gradient, and adds the scale's. */
static void gradient_of_scaled_row(const head *h, const gradients *g, int64_t n, kp_range own) {
  float *row = row_of(h, n), *sum = g->scale_sum;
  const float *scale = h->scale + h->entry.first;
  const float factor = h->factor, share = g->share, shift = g->statistic[n];
  const int64_t at = h->target[n] - h->entry.first;
  const bool has_target = at >= own.first && at < own.last;
  const float at_target = has_target ? row[at] : 0.0f;
#pragma omp simd
  for (int64_t v = own.first; v < own.last; v++) {
    const float product = row[v], by = factor * scale[v];
    const float p = share * kp_expf(by * product - shift);
    sum[v] += factor * product * p;
    row[v] = by * p;
  }
  if (!has_target) return;
  sum[at] -= factor * at_target * share;
  row[at] -= factor * scale[at] * share;
}

static void gradient_of_plain_row(const head *h, const gradients *g, int64_t n, kp_range own) {
  float *row = row_of(h, n);
  const float factor = h->factor, share = factor * g->share, shift = g->statistic[n];
  const int64_t at = h->target[n] - h->entry.first;
#pragma omp simd
  for (int64_t v = own.first; v < own.last; v++) row[v] = share * kp_expf(factor * row[v] - shift);
  if (at >= own.first && at < own.last) row[at] -= share;
}

static void gradient_of_row(const head *h, const gradients *g, int64_t n, kp_range own) {
  float *row = row_of(h, n), *sum = g->time_weight_sum;
  if (h->target[n] == h->ignore) {
    memset(row + own.first, 0, (size_t)(own.last - own.first) * sizeof *row);
    return;
  }
  if (h->scale != NULL)
    gradient_of_scaled_row(h, g, n, own);
  else
    gradient_of_plain_row(h, g, n, own);
  if (g->time_weight == NULL) return;
  const float time = h->time[n];
#pragma omp simd
  for (int64_t v = own.first; v < own.last; v++) sum[v] += time * row[v];
}

/* Adds the sums of a block of rows to a gradient and clears them. */
static void flush(float *sum, float *gradient, int64_t entry, kp_range own) {
  for (int64_t v = own.first; v < own.last; v++) {
    if (gradient != NULL) gradient[entry + v] += sum[v];
    sum[v] = 0;
  }
}

static void make_gradient(const head *h, const gradients *g, kp_range own) {
  flush(g->time_weight_sum, NULL, 0, own);
  flush(g->scale_sum, NULL, 0, own);
  for (int64_t n = h->row.first; n < h->row.last; n++) {
    gradient_of_row(h, g, n, own);
    if ((n - h->row.first) % BLOCK < BLOCK - 1 && n + 1 < h->row.last) continue;
    if (g->time_weight != NULL) flush(g->time_weight_sum, g->time_weight, h->entry.first, own);
    if (g->scale != NULL) flush(g->scale_sum, g->scale, h->entry.first, own);
  }
}

/* Adds the chunk's columns `own` to the rows of gW that belong to them. */
static void add_to_weight(const head *h, const gradients *g, kp_range own) {
  const kp_product product = {.rows = width_of(h),
                              .columns = h->depth,
                              .depth = h->row.last - h->row.first,
                              .a = h->logits,
                              .a_transposed = true,
                              .b = h->x + h->row.first * h->depth,
                              .c = g->weight + h->entry.first * h->depth,
                              .add = true};
  KP_ISA_NAME(kp_cpu_product_tile)(&product, (kp_tile){own, {0, h->depth}});
}

/* The part of the gradient of x that comes through this chunk. */
static void add_to_input(const head *h, const gradients *g, int part, int threads) {
  const kp_product product = {.rows = h->row.last - h->row.first,
                              .columns = h->depth,
                              .depth = width_of(h),
                              .a = h->logits,
                              .b = h->weight + h->entry.first * h->depth,
                              .c = g->x + h->row.first * h->depth,
                              .add = h->entry.first > 0};
  const kp_grid grid = kp_grid_choose(product.rows, product.columns, threads);
  KP_ISA_NAME(kp_cpu_product_tile)(&product, kp_grid_tile(grid, product.rows, product.columns, part));
}

static void add_to_time(const head *h, const gradients *g, int64_t n) {
  const float *row = row_of(h, n), *time_weight = h->time_weight + h->entry.first;
  const int64_t width = width_of(h);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < width; v++) sum += row[v] * time_weight[v];
  g->time[n] = h->entry.first > 0 ? g->time[n] + sum : sum;
}

/* One chunk, by all `threads` threads of a parallel region. */
static void backward_chunk(const head *h, const gradients *g, int threads) {
#pragma omp for schedule(static)
  for (int part = 0; part < threads; part++) {
    const kp_range own = kp_split(width_of(h), 16, part, threads);
    make_products(h, own);
    make_gradient(h, g, own);
    if (g->weight != NULL) add_to_weight(h, g, own);
  }
  if (g->time != NULL) {
#pragma omp for schedule(static) nowait
    for (int64_t n = h->row.first; n < h->row.last; n++) add_to_time(h, g, n);
  }
#pragma omp for schedule(static)
  for (int part = 0; part < threads; part++)
    if (g->x != NULL) add_to_input(h, g, part, threads);
}

kp_status KP_KERNEL(linear_cross_entropy_backward)(const kp_call *call, kp_error *error) {
  const chunk_size size = chunk_of(call->node);
  float *sums = call->scratch;
  const head whole = head_of(call, sums + 2 * size.entries);
  const float *g_loss = call->input[7];
  KP_TRY(kp_check_targets(whole.target, whole.rows, whole.vocabulary, whole.ignore, error));
  const int64_t count = kp_count_targets(whole.target, whole.rows, whole.ignore);
  const gradients g = {.statistic = call->input[6],
                       .share = count == 0 ? 0.0f : (float)((double)g_loss[0] / (double)count),
                       .x = call->output[0],
                       .time = call->output[1],
                       .weight = call->output[2],
                       .time_weight = call->output[3],
                       .scale = call->output[4],
                       .time_weight_sum = sums,
                       .scale_sum = sums + size.entries};
  const int threads = kp_product_threads(whole.rows, whole.vocabulary, whole.depth, call->run->threads);
#pragma omp parallel num_threads(threads)
  for (int64_t row = 0; row < whole.rows; row += size.rows)
    for (int64_t entry = 0; entry < whole.vocabulary; entry += size.entries) {
      head h = whole;
      h.row = (kp_range){row, smaller(row + size.rows, whole.rows)};
      h.entry = (kp_range){entry, smaller(entry + size.entries, whole.vocabulary)};
      backward_chunk(&h, &g, threads);
    }
  return KP_OK;
}
