#include "support/random_rows.h"

#include <math.h>

#include "core/random.h"

static double uniform(void) {
  static uint64_t drawn;
  return (double)(kp_random_bits(20, KP_RANDOM_GENERIC, 0, drawn++) >> 11) * 0x1p-53;
}

double random_between(double low, double high) {
  return low + (high - low) * uniform();
}

int random_choose(int count) {
  return (int)(uniform() * count);
}

double random_normal(void) {
  return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

double random_curvature(void) {
  static const double values[] = {-1.3, -0.4, -1e-4, 0, 1e-3, 0.3};
  return values[random_choose(6)];
}

/* A row of length `size` in a random direction. */
static void fill_row(double *row, int64_t C, double size) {
  double square = 0;
  for (int64_t c = 0; c < C; c++) {
    row[c] = random_normal();
    square += row[c] * row[c];
  }
  for (int64_t c = 0; c < C; c++) row[c] *= size / sqrt(square + 1e-30);
}

static double length_of(const double *row, int64_t C) {
  double square = 0;
  for (int64_t c = 0; c < C; c++) square += row[c] * row[c];
  return sqrt(square);
}

void random_rows(double *rows, int64_t count, int64_t C, double size, double far) {
  for (int64_t n = 0; n < count; n++) {
    double *row = rows + n * C;
    fill_row(row, C, size * random_between(0.1, 1));
    if (far == 0) continue;
    int kind = random_choose(8);
    if (kind == 4 && (n == 0 || !(length_of(row - C, C) <= size))) kind = 5;
    for (int64_t c = 0; c < C; c++) {
      if (kind == 0) row[c] = 0;
      if (kind == 1) row[c] *= 1e-20;
      if (kind == 2) row[c] *= far;
      if (kind == 3 && c == C / 2) row[c] = (double)NAN;
      if (kind == 4) row[c] = row[c - C];
    }
  }
}
