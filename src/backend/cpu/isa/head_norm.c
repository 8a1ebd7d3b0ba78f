/* Unit vectors by group of channels with a gain, turned before where there are positions.
 *
 * Groups are short, so their sums are kept in short vectors (row_vectors.h). */
#include <string.h>

#include "backend/cpu/isa/column_sums.h"
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/rotation.h"
#include "backend/cpu/isa/row_vectors.h"
#include "backend/cpu/isa/split.h"
#include "geometry/sphere.h"

typedef struct head_norm_call {
  const kp_head_norm_arguments *arguments;
  int64_t rows, width, D;
  int64_t gains; /* groups that have gains of their own; 0: no gain */
  const float *gain;
} head_norm_call;

static head_norm_call head_norm_of(const kp_call *call) {
  const kp_node *node = call->node;
  head_norm_call c = {.arguments = node->arguments,
                      .rows = kp_tensor_rows(node->input[0]),
                      .width = kp_tensor_columns(node->input[0]),
                      .gain = call->input[1]};
  c.D = c.arguments->head_size;
  c.gains = node->input[1] == NULL ? 0 : kp_tensor_count(node->input[1]) / c.D;
  return c;
}

static double square_of(const float *x, int64_t count) {
  kp_doubles sum = {0}, v;
  const int64_t whole = count / KP_DOUBLES * KP_DOUBLES;
  for (int64_t i = 0; i < whole; i += KP_DOUBLES) kp_widen(x + i, KP_DOUBLES, &v), sum += v * v;
  if (whole < count) kp_widen(x + whole, count - whole, &v), sum += v * v;
  return kp_total(&sum);
}

size_t KP_SCRATCH(head_norm)(const kp_node *node, int threads) {
  const kp_head_norm_arguments *arguments = node->arguments;
  (void)threads;
  return node->input[2] == NULL ? 0 : kp_rotation_bytes(&arguments->rotary, kp_tensor_rows(node->input[0]));
}

/* y may be x. */
static void normalise_group(const float *x, const float *gain, float factor, int64_t D, float *y) {
  const float scale = factor * (float)kp_sphere_inverse_length(square_of(x, D));
  if (gain == NULL) {
#pragma omp simd
    for (int64_t i = 0; i < D; i++) y[i] = scale * x[i];
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < D; i++) y[i] = scale * x[i] * gain[i];
}

kp_status KP_KERNEL(head_norm)(const kp_call *call, kp_error *error) {
  (void)error;
  const head_norm_call c = head_norm_of(call);
  const int heads = c.arguments->heads;
  const int64_t used = heads * c.D;
  const bool turned = call->input[2] != NULL;
  kp_rotation rotation = {0};
  if (turned) rotation = kp_rotation_of(call, &c.arguments->rotary, call->input[2], c.rows, call->scratch);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, c.rows *c.width))
  for (int64_t n = 0; n < c.rows; n++) {
    const float *x = (const float *)call->input[0] + n * c.width;
    float *y = (float *)call->output[0] + n * c.width;
    for (int h = 0; h < heads; h++) {
      const float *gain = c.gains == 0 ? NULL : c.gain + h % c.gains * c.D;
      if (turned) kp_rotate_head(&rotation, n, false, x + h * c.D, y + h * c.D);
      normalise_group((turned ? y : x) + h * c.D, gain, (float)c.arguments->factor, c.D, y + h * c.D);
    }
    if (y != x) memcpy(y + used, x + used, (size_t)(c.width - used) * sizeof *y);
  }
  return KP_OK;
}

/* ---- backward: n̄ = factor · gain · g, x̄ = (n̄ - n <n, n̄>)/|x| ---- */

/* Column sums, and with positions: the table of angles, and a turned head a thread. */
size_t KP_SCRATCH(head_norm_backward)(const kp_node *node, int threads) {
  const kp_head_norm_arguments *arguments = node->arguments;
  const size_t sums =
      kp_column_sums_bytes(node->input[1] == NULL ? 0 : kp_tensor_count(node->input[1]), threads);
  if (node->input[3] == NULL) return sums;
  return sums + kp_rotation_bytes(&arguments->rotary, kp_tensor_rows(node->input[0])) +
         (size_t)(threads * arguments->head_size) * sizeof(float);
}

static inline void add_products(const float *x, const float *gain, const float *g, int64_t count,
                                kp_doubles *square, kp_doubles *along) {
  kp_doubles a, b, c;
  kp_widen(x, count, &a), kp_widen(g, count, &b);
  *square += a * a;
  if (gain != NULL) kp_widen(gain, count, &c), b *= c;
  *along += a * b;
}

/* Adds <x, gain g> and |x|² over the group; gain may be NULL. */
static void sums_of(const float *x, const float *gain, const float *g, int64_t D, double *square,
                    double *along) {
  kp_doubles squares = {0}, products = {0};
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t i = 0; i < whole; i += KP_DOUBLES)
    add_products(x + i, gain == NULL ? NULL : gain + i, g + i, KP_DOUBLES, &squares, &products);
  if (whole < D)
    add_products(x + whole, gain == NULL ? NULL : gain + whole, g + whole, D - whole, &squares, &products);
  *square = kp_total(&squares);
  *along = kp_total(&products);
}

/* gx may be g. */
static void group_backward(const float *x, const float *gain, const float *g, double factor, int64_t D,
                           float *gx, double *gain_bar) {
  double square, along;
  sums_of(x, gain, g, D, &square, &along);
  const double inverse = kp_sphere_inverse_length(square);
  const float of_g = (float)(factor * inverse), of_n = (float)(factor * inverse * (along * inverse));
  const float direction = (float)inverse;
  if (gain == NULL) {
#pragma omp simd
    for (int64_t i = 0; i < D; i++) gx[i] = of_g * g[i] - of_n * (direction * x[i]);
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < D; i++) {
    const float bar = g[i];
    gain_bar[i] += (double)(direction * x[i] * bar);
    gx[i] = of_g * gain[i] * bar - of_n * (direction * x[i]);
  }
}

/* rotation NULL: nothing is turned; `head` has room for one. */
static void rows_backward(const kp_call *call, const head_norm_call *c, kp_range range,
                          const kp_rotation *rotation, float *head, double *gain_bar) {
  const int64_t used = c->arguments->heads * c->D;
  for (int64_t n = range.first; n < range.last; n++) {
    const float *x = (const float *)call->input[0] + n * c->width;
    const float *g = (const float *)call->input[2] + n * c->width;
    float *gx = (float *)call->output[0] + n * c->width;
    for (int h = 0; h < c->arguments->heads; h++) {
      const int64_t at = h * c->D, of_gain = c->gains == 0 ? 0 : h % c->gains * c->D;
      if (rotation != NULL) kp_rotate_head(rotation, n, false, x + at, head);
      group_backward(rotation == NULL ? x + at : head, c->gains == 0 ? NULL : c->gain + of_gain, g + at,
                     c->arguments->factor, c->D, gx + at, gain_bar + of_gain);
      if (rotation != NULL) kp_rotate_head(rotation, n, true, gx + at, gx + at);
    }
    if (gx != g) memcpy(gx + used, g + used, (size_t)(c->width - used) * sizeof *gx);
  }
}

kp_status KP_KERNEL(head_norm_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const head_norm_call c = head_norm_of(call);
  const int threads = kp_threads_for(call, 2 * c.rows * c.width);
  const int64_t columns = c.gains * c.D;
  const bool turned = call->input[3] != NULL;
  char *table = (char *)call->scratch + kp_column_sums_bytes(columns, threads);
  kp_rotation rotation = {0};
  float *heads = NULL;
  if (turned) {
    rotation = kp_rotation_of(call, &c.arguments->rotary, call->input[3], c.rows, table);
    heads = (float *)(table + kp_rotation_bytes(&c.arguments->rotary, c.rows));
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    rows_backward(call, &c, kp_split(c.rows, 1, part, threads), turned ? &rotation : NULL,
                  turned ? heads + part * c.D : NULL, kp_column_sums_part(call->scratch, columns, part));
  float *ggain = call->output[1];
  for (int64_t i = 0; i < columns && ggain != NULL; i++)
    ggain[i] += (float)(c.arguments->factor * kp_column_sum(call->scratch, columns, threads, i));
  return KP_OK;
}
