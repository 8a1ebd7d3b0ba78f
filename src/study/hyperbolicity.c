#include "study/hyperbolicity.h"

#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/random.h"
#include "geometry/geodesic_score.h"
#include "study/statistics.h"

/* Half the difference of the two largest of three sums. */
static double defect(double a, double b, double c) {
  const double largest = fmax(a, fmax(b, c)), smallest = fmin(a, fmin(b, c));
  return (2 * largest + smallest - (a + b + c)) / 2;
}

kp_four_point kp_four_point_of(int count, const double *d) {
  kp_four_point r = {0};
  double sum = 0, quadruples = 0;
  for (int x = 0; x < count; x++)
    for (int y = x + 1; y < count; y++) {
      r.diameter = fmax(r.diameter, d[x * count + y]);
      for (int z = y + 1; z < count; z++)
        for (int w = z + 1; w < count; w++) {
          const double here = defect(d[x * count + y] + d[z * count + w], d[x * count + z] + d[y * count + w],
                                     d[x * count + w] + d[y * count + z]);
          r.delta = fmax(r.delta, here);
          sum += here;
          quadruples++;
        }
    }
  r.mean = quadruples > 0 ? sum / quadruples : 0;
  return r;
}

/* ---- metrics ---- */

double kp_metric_euclidean(const double *a, const double *b, int64_t columns, const void *context) {
  double square = 0;
  (void)context;
  for (int64_t i = 0; i < columns; i++) square += (a[i] - b[i]) * (a[i] - b[i]);
  return sqrt(square);
}

/* Of one slice. */
static double geodesic(const double *a, const double *b, int64_t columns, double kappa) {
  double aa = 0, bb = 0, ab = 0;
  for (int64_t i = 0; i < columns; i++) {
    aa += a[i] * a[i];
    bb += b[i] * b[i];
    ab += a[i] * b[i];
  }
  const kp_geodesic_row x = kp_geodesic_row_of(aa, kappa), y = kp_geodesic_row_of(bb, kappa);
  return kp_geodesic_pair_of(&x, &y, x.scale * y.scale * ab, kappa, 1).distance;
}

double kp_metric_geodesic(const double *a, const double *b, int64_t columns, const void *context) {
  const kp_product_space *space = context;
  const int64_t slice = columns / space->groups;
  double square = 0;
  for (int g = 0; g < space->groups; g++) {
    const double d = geodesic(a + g * slice, b + g * slice, slice, space->kappa[g]);
    square += d * d;
  }
  return sqrt(square);
}

/* ---- samples ---- */

static kp_status measure_sample(int points, const int64_t *chosen, int64_t columns, const double *rows,
                                kp_metric metric, const void *context, double *distances,
                                kp_four_point *result, kp_error *error) {
  for (int i = 0; i < points; i++)
    for (int j = 0; j < i; j++) {
      const double d = metric(rows + chosen[i] * columns, rows + chosen[j] * columns, columns, context);
      if (!isfinite(d)) return kp_fail(error, KP_ERR_NUMERIC, "a distance between rows is not finite");
      distances[i * points + j] = distances[j * points + i] = d;
    }
  *result = kp_four_point_of(points, distances);
  return KP_OK;
}

static double share_of(double part, double whole) {
  return whole > 0 ? part / whole : 0; /* a space without extent is a tree of one point */
}

kp_status kp_hyperbolicity_measure(int64_t count, int64_t columns, const double *rows, kp_metric metric,
                                   const void *context, int samples, int points, uint64_t seed,
                                   kp_hyperbolicity *result, kp_error *error) {
  kp_status status = KP_OK;
  if (count <= points) {
    points = (int)count;
    samples = 1;
  }
  kp_assert(count > 0 && samples > 0, "no points to measure");
  kp_arena *arena = kp_arena_create();
  double *distances = kp_arena_take(arena, (size_t)(points * points) * sizeof *distances);
  double *largest = kp_arena_take(arena, (size_t)samples * sizeof *largest);
  int64_t *chosen = kp_arena_take(arena, (size_t)points * sizeof *chosen);
  double mean = 0;
  for (int s = 0; s < samples && status == KP_OK; s++) {
    kp_four_point here;
    for (int i = 0; i < points; i++)
      chosen[i] =
          (int64_t)kp_random_permute(seed, KP_RANDOM_GENERIC, (uint32_t)s, (uint64_t)i, (uint64_t)count);
    status = measure_sample(points, chosen, columns, rows, metric, context, distances, &here, error);
    if (status != KP_OK) break;
    largest[s] = share_of(2 * here.delta, here.diameter);
    mean += share_of(2 * here.mean, here.diameter) / samples;
  }
  if (status == KP_OK) {
    const kp_statistic all = kp_statistic_of(largest, samples);
    const double reach =
        samples > 1 ? kp_student_quantile(0.05, samples - 1) * all.spread / sqrt(samples) : (double)NAN;
    *result = (kp_hyperbolicity){.samples = samples,
                                 .points = points,
                                 .relative = all.mean,
                                 .low = all.mean - reach,
                                 .high = all.mean + reach,
                                 .mean_relative = mean};
  }
  kp_arena_destroy(arena);
  return status;
}

/* ---- clouds to compare with ---- */

void kp_cloud_gaussian(int64_t count, int64_t columns, uint64_t seed, double *out) {
  for (int64_t i = 0; i < count * columns; i++)
    out[i] = kp_random_normal(seed, KP_RANDOM_GENERIC, 0, (uint64_t)i);
}

/* mean + Σ g_i (row_i - mean) / √count with independent normal g has that covariance. */
void kp_cloud_like(int64_t count, int64_t columns, const double *rows, int64_t wanted, uint64_t seed,
                   double *out) {
  double *mean = calloc((size_t)columns + 1, sizeof *mean);
  kp_assert(mean != NULL, "out of memory");
  for (int64_t r = 0; r < count; r++)
    for (int64_t i = 0; i < columns; i++) mean[i] += rows[r * columns + i] / (double)count;
  for (int64_t row = 0; row < wanted; row++) {
    double *to = out + row * columns;
    for (int64_t i = 0; i < columns; i++) to[i] = mean[i];
    for (int64_t r = 0; r < count; r++) {
      const double g =
          kp_random_normal(seed, KP_RANDOM_GENERIC, 1, (uint64_t)(row * count + r)) / sqrt((double)count);
      for (int64_t i = 0; i < columns; i++) to[i] += g * (rows[r * columns + i] - mean[i]);
    }
  }
  free(mean);
}
