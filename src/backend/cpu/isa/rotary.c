/* Rotary position embedding (Su et al. 2021, equation 34).
 *
 * Cosines and sines are computed once a position, in double, and serve all
 * heads and all rows at that position.  Scratch:
 *   frequency (D/2) double, then table (N, D) float: cosines (D/2), sines (D/2); of the published deviation
 *   the two factors of each pair instead.
 * Where the positions of a call span more than N numbers, the table has a line
 * a row instead of a line a position. */
#include <math.h>
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "geometry/rotary.h"

typedef struct kp_rotation {
  const double *frequency; /* (pairs) */
  float *table;            /* (lines, 2·pairs) */
  int64_t pairs;           /* D/2 */
  bool transposed, upstream;
} kp_rotation;

size_t KP_SCRATCH(rotary)(const kp_node *node, int threads) {
  (void)threads;
  const kp_rotary_arguments *arguments = node->arguments;
  const size_t pairs = (size_t)arguments->head_size / 2, rows = (size_t)kp_tensor_rows(node->input[0]);
  return pairs * sizeof(double) + rows * 2 * pairs * sizeof(float);
}

static void fill_rotation(const kp_rotation *rotation, int64_t position, float *cosine, float *sine) {
  const double sign = rotation->transposed ? -1 : 1;
  for (int64_t i = 0; i < rotation->pairs; i++) {
    const double angle = (double)position * rotation->frequency[i];
    cosine[i] = (float)cos(angle);
    sine[i] = (float)(sign * sin(angle));
  }
}

/* Column j of the published table is the sine (even j) or cosine of angle j/2; its first half multiplies the
 * first, its second half the second number of a pair. */
static void fill_upstream(const kp_rotation *rotation, int64_t position, float *first, float *second) {
  const int64_t pairs = rotation->pairs;
  const double signs[2] = {rotation->transposed ? 1 : -1, rotation->transposed ? -1 : 1};
  for (int64_t i = 0; i < pairs; i++) {
    const int64_t column[2] = {rotation->transposed ? i : pairs + i, rotation->transposed ? pairs + i : i};
    double entry[2];
    for (int side = 0; side < 2; side++) {
      const double angle = (double)position * rotation->frequency[column[side] / 2];
      entry[side] = signs[side] * (column[side] % 2 == 0 ? sin(angle) : cos(angle));
    }
    first[i] = (float)entry[0];
    second[i] = (float)entry[1];
  }
}

static void fill_line(const kp_rotation *rotation, int64_t line, int64_t position) {
  float *first = rotation->table + line * 2 * rotation->pairs, *second = first + rotation->pairs;
  if (rotation->upstream)
    fill_upstream(rotation, position, first, second);
  else
    fill_rotation(rotation, position, first, second);
}

static void rotate_halves(const float *cosine, const float *sine, const float *x, float *y, int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[i], b = x[i + pairs];
    y[i] = a * cosine[i] - b * sine[i];
    y[i + pairs] = a * sine[i] + b * cosine[i];
  }
}

static void rotate_neighbours(const float *cosine, const float *sine, const float *x, float *y,
                              int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cosine[i] - b * sine[i];
    y[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

static void exchange_neighbours(const float *first, const float *second, const float *x, float *y,
                                int64_t pairs) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; i++) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = first[i] * b;
    y[2 * i + 1] = second[i] * a;
  }
}

static int64_t stride_of(const kp_rotary_arguments *arguments) {
  return arguments->stride == 0 ? arguments->head_size : arguments->stride;
}

/* Channels of the row that no head rotates. */
static void copy_rest(const kp_rotary_arguments *arguments, const float *x, float *y, int64_t width) {
  const int64_t stride = stride_of(arguments), used = arguments->heads * stride;
  const int64_t before = arguments->offset, after = before + arguments->head_size;
  if (stride > arguments->head_size)
    for (int64_t at = 0; at < used; at += stride) {
      memcpy(y + at, x + at, (size_t)before * sizeof *y);
      memcpy(y + at + after, x + at + after, (size_t)(stride - after) * sizeof *y);
    }
  memcpy(y + used, x + used, (size_t)(width - used) * sizeof *y);
}

static void rotate_row(const kp_rotary_arguments *arguments, const float *line, const float *x, float *y,
                       int64_t width) {
  const int64_t pairs = arguments->head_size / 2, stride = stride_of(arguments);
  for (int64_t h = 0; h < arguments->heads; h++) {
    const int64_t at = h * stride + arguments->offset;
    if (arguments->upstream)
      exchange_neighbours(line, line + pairs, x + at, y + at, pairs);
    else if (arguments->halves)
      rotate_halves(line, line + pairs, x + at, y + at, pairs);
    else
      rotate_neighbours(line, line + pairs, x + at, y + at, pairs);
  }
  if (y != x) copy_rest(arguments, x, y, width);
}

/* The smallest position; `span` gets the count of numbers up to the largest. */
static int64_t first_position(const int32_t *position, int64_t rows, int64_t *span) {
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t n = 0; n < rows; n++) {
    if (position[n] < low) low = position[n];
    if (position[n] > high) high = position[n];
  }
  *span = (int64_t)high - low + 1;
  return low;
}

kp_status KP_KERNEL(rotary)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_rotary_arguments *arguments = call->node->arguments;
  const int64_t rows = kp_tensor_rows(call->node->input[0]), width = kp_tensor_columns(call->node->input[0]);
  const int64_t pairs = arguments->head_size / 2;
  const int32_t *position = call->input[1];
  const float *x = call->input[0];
  float *y = call->output[0];
  double *frequency = call->scratch;
  const kp_yarn yarn = {arguments->factor, arguments->original, arguments->beta_fast, arguments->beta_slow,
                        arguments->by_turns};
  for (int i = 0; i < pairs; i++)
    frequency[i] = kp_rotary_frequency(arguments->base, arguments->head_size, i, yarn);
  const kp_rotation rotation = {frequency, (float *)(frequency + pairs), pairs, arguments->transposed,
                                arguments->upstream};
  int64_t span;
  const int64_t low = first_position(position, rows, &span);
  const bool by_position = span <= rows;
  const int64_t lines = by_position ? span : rows;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, 40 * lines * pairs))
  for (int64_t line = 0; line < lines; line++)
    fill_line(&rotation, line, by_position ? low + line : position[line]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, rows *width))
  for (int64_t n = 0; n < rows; n++) {
    const int64_t line = by_position ? position[n] - low : n;
    rotate_row(arguments, rotation.table + line * 2 * pairs, x + n * width, y + n * width, width);
  }
  return KP_OK;
}
