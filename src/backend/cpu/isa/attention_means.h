/* Values of attention beyond the plain mean, on a tile (backend/attention_values.h has the formulas).
 *
 * Lorentz: the space of the mean is the float product of the weights with the values; its time is summed
 * beside it in double, since the norm of the mean is a difference of squares of both.  It loses the digits of
 * t²/|M|²: for values of |v|² <= 100 c at most 1e-5 of the result. Midpoint: ambient coordinates grow like
 * exp(2|v|√-κ), and their squares cancel.  The products are in double, over lines (scale · v, cosine) of D' +
 * 1 numbers. */
#ifndef KAPPA_BACKEND_CPU_ATTENTION_MEANS_H
#define KAPPA_BACKEND_CPU_ATTENTION_MEANS_H

#include "backend/attention_values.h"
#include "backend/cpu/isa/attention_tile.h"

/* Where a block's rows of the output go: o `stride` apart, numbers H apart; all but o may be NULL. */
typedef struct kp_block_output {
  float *o, *logsumexp, *time, *norms;
  int stride, heads;
} kp_block_output;

/* Head h of sequence b in a node's outputs: o, and its time as output `time`. */
static inline kp_block_output kp_block_output_of(const kp_call *call, const kp_attention_arguments *a,
                                                 int64_t b, int h, int time) {
  const int64_t number = b * a->length * a->heads + h;
  const int size = kp_attention_value_size(a);
  float *times = call->output[time];
  return (kp_block_output){.o = (float *)call->output[0] + number * size,
                           .time = times == NULL ? NULL : times + number,
                           .stride = a->heads * size,
                           .heads = a->heads};
}

/* The output from row `row` on. */
static inline kp_block_output kp_block_output_at(kp_block_output output, int row) {
  output.o += (int64_t)row * output.stride;
  if (output.logsumexp != NULL) output.logsumexp += row;
  if (output.time != NULL) output.time += (int64_t)row * output.heads;
  if (output.norms != NULL) output.norms += (int64_t)row * output.heads;
  return output;
}

/* One row of weights: adds weight · time to the lanes' sums. */
static inline void kp_weigh_time(const float *weight, double time, int start, int lanes, double *extra) {
#pragma omp simd
  for (int i = start; i < lanes; i++) extra[i] += (double)weight[i] * time;
}

static inline double kp_value_time(const kp_attention_head *head, const float *v) {
  return kp_value_row_of(head->values, kp_inner_product(v, v, head->value_size), head->kappa).extra;
}

/* A midpoint's line of value v. */
static inline void kp_value_line_fill(const kp_attention_head *head, const float *v, double *line) {
  const int size = head->value_size;
  const kp_value_row row = kp_value_row_of(head->values, kp_inner_product(v, v, size), head->kappa);
  for (int d = 0; d < size; d++) line[d] = row.scale * (double)v[d];
  line[size] = row.extra;
}

/* Row `row` of the output from the weighted sum of lines (midpoint), or from the weighted sum that stands
 * there and that of the times. */
static inline void kp_finish_row(const kp_attention_head *head, kp_block_output output, int row, double extra,
                                 double weight, const double *line) {
  const int size = head->value_size;
  float *o = output.o + (int64_t)row * output.stride;
  double square = 0.0;
  if (head->values == KP_VALUES_LORENTZ) square = kp_inner_product(o, o, size);
  for (int d = 0; line != NULL && d < size; d++) square += line[d] * line[d];
  const kp_value_mean mean =
      kp_value_mean_of(head->values, square, line == NULL ? extra : line[size], weight, head->kappa);
  const float scale = (float)mean.scale;
  for (int d = 0; line != NULL && d < size; d++) o[d] = (float)(mean.scale * line[d]);
#pragma omp simd
  for (int d = 0; d < (line == NULL ? size : 0); d++) o[d] *= scale;
  if (output.time != NULL) output.time[(int64_t)row * output.heads] = (float)mean.time;
  if (output.norms != NULL) output.norms[(int64_t)row * output.heads] = (float)mean.norm;
}

#endif
