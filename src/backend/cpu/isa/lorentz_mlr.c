/* Logits by distances to hyperplanes, from the products of points and normals.
 *
 * What belongs to an entry of the vocabulary is computed once, in double; the inner loops run along the rows
 * of logits.  Backward each thread owns a range of entries, so that their sums over the rows need no others;
 * the rows of a block are summed in float and the blocks in double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "backend/cpu/isa/vector_math.h"
#include "geometry/hyperplane.h"

enum { BLOCK = 64 }; /* rows */

/* asinh(u) = log1p(|u| + u² / (1 + √(1 + u²))), by log(1 + x) - ((1 + x - 1) - x) / (1 + x) near zero; far
 * out, where squares overflow, log 2|u|. */
static inline float inverse_sine(float u) {
  const float size = fabsf(u), near = size < 1e9f ? size : 1e9f;
  const float x = near + near * near / (1.0f + sqrtf(1.0f + near * near)), whole = 1.0f + x;
  const float inner = kp_logf(whole) - ((whole - 1.0f) - x) / whole;
  const float outer = kp_logf(size) + 0.693147181f;
  return copysignf(size < 1e9f ? inner : outer, u);
}

/* asinh u - u / √(1 + u²), given both; near zero, where they cancel, its power series. */
static inline float bend(float u, float inverse, float ratio) {
  const float square = u * u;
  float p = 0.195507812f;
  p = p * square + -0.208233173f;
  p = p * square + 0.223721591f;
  p = p * square + -0.243055556f;
  p = p * square + 0.267857143f;
  p = p * square + -0.3f;
  p = p * square + 0.333333333f;
  return fabsf(u) < 0.4f ? p * square * u : inverse - ratio;
}

/* Hyperplanes by entry (V each), as arrays. */
typedef struct planes {
  float *multiple, *by_product, *by_time;
} planes;

/* The sums of kp_hyperplane_sums over a block of rows, likewise. */
typedef struct sums {
  float *bend, *product, *time;
} sums;

static planes planes_at(float *memory, int64_t count) {
  return (planes){memory, memory + count, memory + 2 * count};
}

static double norm_of(const float *z, int64_t count) {
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t i = 0; i < count; i++) square += (double)z[i] * (double)z[i];
  return sqrt(square);
}

static double radius_of(const kp_call *call) {
  const float *c = call->input[4];
  return c == NULL ? 1 : sqrt((double)c[0]);
}

/* The hyperplanes of a range of entries. */
static void fill_planes(const kp_call *call, planes to, kp_range own) {
  const int64_t depth = kp_tensor_columns(call->node->input[2]);
  const float *z = call->input[2], *offset = call->input[3];
  for (int64_t v = own.first; v < own.last; v++) {
    const kp_hyperplane h =
        kp_hyperplane_of(norm_of(z + v * depth, depth), (double)offset[v], radius_of(call));
    to.multiple[v] = (float)h.multiple;
    to.by_product[v] = (float)h.by_product;
    to.by_time[v] = (float)h.by_time;
  }
}

size_t KP_SCRATCH(lorentz_mlr)(const kp_node *node, int threads) {
  (void)threads;
  return 3 * (size_t)kp_tensor_columns(node->input[0]) * sizeof(float);
}

static void logits_row(const planes *p, const float *products, float time, float *out, int64_t count) {
  const float *multiple = p->multiple, *by_product = p->by_product, *by_time = p->by_time;
#pragma omp simd
  for (int64_t v = 0; v < count; v++)
    out[v] = multiple[v] * inverse_sine(by_product[v] * products[v] + by_time[v] * time);
}

kp_status KP_KERNEL(lorentz_mlr)(const kp_call *call, kp_error *error) {
  (void)error;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), count = kp_tensor_columns(call->node->input[0]);
  const float *products = call->input[0], *time = call->input[1];
  float *out = call->output[0];
  const planes p = planes_at(call->scratch, count);
  const int threads = kp_threads_for(call, 20 * rows * count);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int part = 0; part < threads; part++) fill_planes(call, p, kp_split(count, 16, part, threads));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; n++) logits_row(&p, products + n * count, time[n], out + n * count, count);
  }
  return KP_OK;
}

/* ---- backward ---- */

/* Hyperplanes, the sums of a block of rows, and in double those of all. */
typedef struct backward {
  planes plane;
  sums sum;
  double *total;  /* (3 V): of bend, product, time */
  double *radius; /* (V): each entry's part of the gradient of R */
  int64_t rows, count;
} backward;

size_t KP_SCRATCH(lorentz_mlr_backward)(const kp_node *node, int threads) {
  (void)threads;
  return (size_t)kp_tensor_columns(node->input[0]) * (4 * sizeof(double) + 6 * sizeof(float));
}

static backward backward_of(const kp_call *call) {
  const int64_t count = kp_tensor_columns(call->node->input[0]);
  double *total = call->scratch;
  float *narrow = (float *)(total + 4 * count);
  return (backward){.plane = planes_at(narrow, count),
                    .sum = {narrow + 3 * count, narrow + 4 * count, narrow + 5 * count},
                    .total = total,
                    .radius = total + 3 * count,
                    .rows = kp_tensor_rows(call->node->input[0]),
                    .count = count};
}

/* Row n in a range of entries: g becomes the gradient of the products. */
static void backward_row(const kp_call *call, const backward *b, int64_t n, kp_range own) {
  const float *products = (const float *)call->input[0] + n * b->count;
  const float *g = (const float *)call->input[5] + n * b->count;
  float *out = (float *)call->output[0] + n * b->count;
  const float time = ((const float *)call->input[1])[n];
  const planes p = b->plane;
  const sums sum = b->sum;
#pragma omp simd
  for (int64_t v = own.first; v < own.last; v++) {
    const float u = p.by_product[v] * products[v] + p.by_time[v] * time;
    const float size = fabsf(u), near = size < 1e9f ? size : 1e9f;
    const float slope = size < 1e9f ? 1.0f / sqrtf(1.0f + near * near) : 1.0f / size;
    const float gu = g[v] * p.multiple[v] * slope;
    sum.bend[v] += g[v] * bend(u, inverse_sine(u), u * slope);
    sum.product[v] += gu * products[v];
    sum.time[v] += gu * time;
    out[v] = gu * p.by_product[v];
  }
}

static void flush(const float *sum, double *total, kp_range own) {
  for (int64_t v = own.first; v < own.last; v++) total[v] += (double)sum[v];
}

static void clear(const backward *b, kp_range own) {
  const size_t bytes = (size_t)(own.last - own.first) * sizeof(float);
  memset(b->sum.bend + own.first, 0, bytes);
  memset(b->sum.product + own.first, 0, bytes);
  memset(b->sum.time + own.first, 0, bytes);
}

static void sum_rows(const kp_call *call, const backward *b, kp_range own) {
  for (int i = 0; i < 3; i++)
    memset(b->total + i * b->count + own.first, 0, (size_t)(own.last - own.first) * sizeof *b->total);
  for (int64_t first = 0; first < b->rows; first += BLOCK) {
    clear(b, own);
    for (int64_t n = first; n < first + BLOCK && n < b->rows; n++) backward_row(call, b, n, own);
    flush(b->sum.bend, b->total, own);
    flush(b->sum.product, b->total + b->count, own);
    flush(b->sum.time, b->total + 2 * b->count, own);
  }
}

/* The gradients of the range's normals and offsets. */
static void finish_entries(const kp_call *call, const backward *b, kp_range own) {
  const int64_t depth = kp_tensor_columns(call->node->input[2]);
  const float *offset = call->input[3];
  float *gz = call->output[2], *ga = call->output[3];
  for (int64_t v = own.first; v < own.last; v++) {
    const float *z = (const float *)call->input[2] + v * depth;
    const double norm = norm_of(z, depth);
    const kp_hyperplane_sums g = {b->total[v], b->total[b->count + v], b->total[2 * b->count + v]};
    const kp_hyperplane_gradient to = kp_hyperplane_backward(norm, (double)offset[v], radius_of(call), g);
    const float along = norm > 0 ? (float)(to.norm / norm) : 0.0f;
    for (int64_t i = 0; i < depth && gz != NULL; i++) gz[v * depth + i] += along * z[i];
    if (ga != NULL) ga[v] += (float)to.offset;
    b->radius[v] = to.radius;
  }
}

/* Σ_v g u · t, from the gradients of the products, which are g u · p. */
static float time_gradient(const backward *b, const float *g_products) {
  const float *by_time = b->plane.by_time, *by_product = b->plane.by_product;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < b->count; v++) sum += g_products[v] * (by_time[v] / by_product[v]);
  return sum;
}

kp_status KP_KERNEL(lorentz_mlr_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const backward b = backward_of(call);
  const float *g_products = call->output[0];
  float *g_time = call->output[1], *gc = call->output[4];
  const int threads = kp_threads_for(call, 30 * b.rows * b.count);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int part = 0; part < threads; part++) {
      const kp_range own = kp_split(b.count, 16, part, threads);
      fill_planes(call, b.plane, own);
      sum_rows(call, &b, own);
      finish_entries(call, &b, own);
    }
#pragma omp for schedule(static)
    for (int64_t n = 0; n < b.rows; n++)
      if (g_time != NULL) g_time[n] = time_gradient(&b, g_products + n * b.count);
  }
  double sum = 0;
  for (int64_t v = 0; v < b.count; v++) sum += b.radius[v];
  if (gc != NULL) gc[0] += (float)(sum / (2 * radius_of(call)));
  return KP_OK;
}
