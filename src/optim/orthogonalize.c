/* Scratch memory: [ A | B | Y ] with A = X Xᵀ, B = a + b A + c A², both of the shorter side, and Y = B X. */
#include "optim/orthogonalize.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/sgemm.h"

static const double FIRST = 3.4445, SECOND = -4.7750, THIRD = 2.0315, NORM_SHIFT = 1e-7;

int64_t kp_orthogonalize_scratch(int64_t rows, int64_t columns) {
  const int64_t side = rows < columns ? rows : columns;
  return 2 * side * side + rows * columns;
}

/* ---- double ---- */

/* Both triangles of c = alpha · x xᵀ + beta · c, or of xᵀ x where `tall`. */
static void gram_double(const double *x, bool tall, int64_t rows, int64_t columns, double alpha, double beta,
                        double *c) {
  const int64_t side = tall ? columns : rows, depth = tall ? rows : columns;
  for (int64_t i = 0; i < side; i++)
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      for (int64_t k = 0; k < depth; k++)
        sum += tall ? x[k * columns + i] * x[k * columns + j] : x[i * columns + k] * x[j * columns + k];
      c[i * side + j] = c[j * side + i] = alpha * sum + beta * c[i * side + j];
    }
}

/* c (rows, columns) = a (rows, depth) b (depth, columns). */
static void multiply_double(const double *a, const double *b, int64_t rows, int64_t columns, int64_t depth,
                            double *c) {
  memset(c, 0, (size_t)(rows * columns) * sizeof *c);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < depth; k++)
      for (int64_t j = 0; j < columns; j++) c[i * columns + j] += a[i * depth + k] * b[k * columns + j];
}

static void iterate_double(double *x, int64_t rows, int64_t columns, double *scratch) {
  const bool tall = rows > columns;
  const int64_t side = tall ? columns : rows, count = rows * columns;
  double *a = scratch, *b = a + side * side, *y = b + side * side;
  gram_double(x, tall, rows, columns, 1, 0, a);
  for (int64_t i = 0; i < side * side; i++) b[i] = SECOND * a[i];
  gram_double(a, false, side, side, THIRD, 1, b);
  for (int64_t i = 0; i < side; i++) b[i * side + i] += FIRST;
  multiply_double(tall ? x : b, tall ? b : x, rows, columns, side, y);
  memcpy(x, y, (size_t)count * sizeof *x);
}

static void normalise_double(double *x, int64_t count) {
  double square = 0;
  for (int64_t i = 0; i < count; i++) square += x[i] * x[i];
  const double factor = 1 / (sqrt(square) + NORM_SHIFT);
  for (int64_t i = 0; i < count; i++) x[i] *= factor;
}

/* ---- float ---- */

/* What ssyrk leaves: the triangle above the diagonal. */
static void mirror(float *c, int64_t side) {
  enum { BLOCK = 32 };
  for (int64_t i0 = 0; i0 < side; i0 += BLOCK)
    for (int64_t j0 = 0; j0 <= i0; j0 += BLOCK)
      for (int64_t i = i0; i < side && i < i0 + BLOCK; i++)
        for (int64_t j = j0; j < i && j < j0 + BLOCK; j++) c[j * side + i] = c[i * side + j];
}

static void iterate_float(float *x, int64_t rows, int64_t columns, float *scratch, float *y) {
  const bool tall = rows > columns;
  const int64_t side = tall ? columns : rows;
  float *a = scratch, *b = a + side * side;
  kp_ssyrk(tall, side, tall ? rows : columns, 1, x, columns, 0, a, side);
  mirror(a, side);
  for (int64_t i = 0; i < side * side; i++) b[i] = (float)SECOND * a[i];
  kp_ssyrk(false, side, side, (float)THIRD, a, side, 1, b, side);
  for (int64_t i = 0; i < side; i++) b[i * side + i] += (float)FIRST;
  mirror(b, side);
  if (tall)
    kp_sgemm(false, false, rows, columns, side, 1, x, columns, b, side, 0, y, columns);
  else
    kp_sgemm(false, false, rows, columns, side, 1, b, side, x, columns, 0, y, columns);
}

static void normalise_float(float *x, int64_t count) {
  double square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t i = 0; i < count; i++) square += (double)x[i] * (double)x[i];
  const double factor = 1 / (sqrt(square) + NORM_SHIFT);
  for (int64_t i = 0; i < count; i++) x[i] = (float)((double)x[i] * factor);
}

/* The iterate goes to and fro between x and y. */
static void orthogonalize_float(float *x, int64_t rows, int64_t columns, int steps, float *scratch) {
  const int64_t side = rows < columns ? rows : columns, count = rows * columns;
  float *from = x, *to = scratch + 2 * side * side;
  normalise_float(x, count);
  for (int step = 0; step < steps; step++) {
    iterate_float(from, rows, columns, scratch, to);
    float *other = from;
    from = to;
    to = other;
  }
  if (from != x) memcpy(x, from, (size_t)count * sizeof *x);
}

void kp_orthogonalize(void *x, bool wide, int64_t rows, int64_t columns, int steps, void *scratch) {
  if (!wide) {
    orthogonalize_float(x, rows, columns, steps, scratch);
    return;
  }
  normalise_double(x, rows * columns);
  for (int step = 0; step < steps; step++) iterate_double(x, rows, columns, scratch);
}
