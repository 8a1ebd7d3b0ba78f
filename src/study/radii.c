#include "study/radii.h"

#include <math.h>
#include <stdlib.h>

#include "core/assert.h"

/* Half of √|κ| d(0, x); tanh of it is √-κ |x|. */
static double half_radius(double norm, double kappa, kp_chart chart) {
  const double last_inside = 1 - 0x1p-24;
  const double s = sqrt(fabs(kappa)) * norm;
  switch (chart) {
  case KP_CHART_TANGENT: return s;
  case KP_CHART_BALL: return kappa < 0 ? atanh(fmin(s, last_inside)) : atan(s);
  case KP_CHART_LORENTZ: return asinh(s) / 2;
  }
  return (double)NAN;
}

double kp_scaled_radius(double norm, double kappa, kp_chart chart) {
  return 2 * half_radius(norm, kappa, chart);
}

bool kp_radius_is_edge(double scaled_radius, double kappa) {
  return kappa < 0 ? tanh(scaled_radius / 2) > 0.99 : scaled_radius > acos(-1.0) / 2;
}

double kp_boundary_distance(double scaled_radius, double kappa) {
  /* 1 - tanh(r / 2) without cancellation. */
  return kappa < 0 ? 2 / (exp(scaled_radius) + 1) : (double)NAN;
}

void kp_chart_to_tangent(kp_chart chart, double kappa, int64_t columns, double *row) {
  double square = 0;
  for (int64_t i = 0; i < columns; i++) square += row[i] * row[i];
  const double norm = sqrt(square), unit = sqrt(fabs(kappa)) * norm;
  if (chart == KP_CHART_TANGENT || unit == 0) return;
  const double factor = half_radius(norm, kappa, chart) / unit;
  for (int64_t i = 0; i < columns; i++) row[i] *= factor;
}

void kp_radii_add(kp_radii *r, double norm, double kappa, kp_chart chart) {
  if (r->count == r->capacity) {
    r->capacity = r->capacity == 0 ? 1024 : 2 * r->capacity;
    r->radius = realloc(r->radius, (size_t)r->capacity * sizeof *r->radius);
    r->boundary = realloc(r->boundary, (size_t)r->capacity * sizeof *r->boundary);
    kp_assert(r->radius != NULL && r->boundary != NULL, "out of memory");
  }
  const double radius = kp_scaled_radius(norm, kappa, chart);
  r->radius[r->count] = radius;
  r->boundary[r->count++] = kp_boundary_distance(radius, kappa);
  r->edge += kp_radius_is_edge(radius, kappa);
}

void kp_radii_clear(kp_radii *r) {
  free(r->radius);
  free(r->boundary);
  *r = (kp_radii){0};
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double mean_of(const double *values, int64_t count) {
  double sum = 0;
  int64_t known = 0;
  for (int64_t i = 0; i < count; i++)
    if (isfinite(values[i])) {
      sum += values[i];
      known++;
    }
  return known > 0 ? sum / (double)known : (double)NAN;
}

static double least_of(const double *values, int64_t count) {
  double least = (double)NAN;
  for (int64_t i = 0; i < count; i++) least = fmin(least, values[i]); /* which passes over NaN */
  return least;
}

kp_radius_summary kp_radii_summary(kp_radii *r) {
  const double unknown = (double)NAN;
  if (r->count == 0)
    return (kp_radius_summary){unknown, unknown, unknown, unknown, unknown, unknown, unknown};
  const double mean = mean_of(r->radius, r->count);
  qsort(r->radius, (size_t)r->count, sizeof *r->radius, ascending);
  return (kp_radius_summary){
      .mean = mean,
      .median = (r->radius[(r->count - 1) / 2] + r->radius[r->count / 2]) / 2,
      .ninth = r->radius[(int64_t)ceil(0.9 * (double)r->count) - 1],
      .largest = r->radius[r->count - 1],
      .boundary_mean = mean_of(r->boundary, r->count),
      .boundary_least = least_of(r->boundary, r->count),
      .edge_share = (double)r->edge / (double)r->count,
  };
}
