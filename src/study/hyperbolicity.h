/* Gromov's δ: how far a metric space is from a tree.
 *
 * Four-point condition (Gromov 1987): of the three sums d(x,y) + d(z,w),
 * d(x,z) + d(y,w), d(x,w) + d(y,z) the two largest differ by at most 2δ.  A
 * tree has δ = 0.  Lengths have no unit, so δ is given relative to the
 * diameter, 2δ / max d, which lies in [0, 1] (Khrulkov et al. 2020).
 *
 * A cloud of high dimension has nearly equal distances and with them a small
 * relative δ without being like a tree: the number means something only beside
 * that of a Gaussian cloud, for which kp_cloud_gaussian and kp_cloud_like are. */
#ifndef KAPPA_STUDY_HYPERBOLICITY_H
#define KAPPA_STUDY_HYPERBOLICITY_H

#include <stdint.h>

#include "core/error.h"

/* Of one finite metric space. */
typedef struct kp_four_point {
  double delta;    /* the largest over all quadruples */
  double mean;     /* their mean */
  double diameter; /* the largest distance */
} kp_four_point;

/* All quadruples of `count` points: count⁴ / 24 of them.  distances (count, count), symmetric. */
kp_four_point kp_four_point_of(int count, const double *distances);

/* The distance of two rows. */
typedef double (*kp_metric)(const double *a, const double *b, int64_t columns, const void *context);
double kp_metric_euclidean(const double *a, const double *b, int64_t columns, const void *context);

/* Of spaces of constant curvature κ, one for each of `groups` equal slices of a row, whose points are stored
 * as tangent vectors log_0(x): the geodesic distance, of several slices √(Σ d²).  `context` is this struct.
 */
typedef struct kp_product_space {
  int groups;
  const double *kappa; /* (groups) */
} kp_product_space;
double kp_metric_geodesic(const double *a, const double *b, int64_t columns, const void *context);

typedef struct kp_hyperbolicity {
  int samples, points; /* samples of so many points each */
  /* 2δ / diameter of a sample, its mean over samples, and the 95 % interval of that mean (Student's t). */
  double relative, low, high;
  double mean_relative; /* the same of the mean over quadruples */
} kp_hyperbolicity;

/* Draws `samples` times `points` different rows of (count, columns) and looks at all their quadruples.
 * Smaller clouds are taken whole, once: then the interval is NaN.  Fails on rows that are not finite. */
kp_status kp_hyperbolicity_measure(int64_t count, int64_t columns, const double *rows, kp_metric metric,
                                   const void *context, int samples, int points, uint64_t seed,
                                   kp_hyperbolicity *result, kp_error *error);

/* Standard Gaussian rows (count, columns). */
void kp_cloud_gaussian(int64_t count, int64_t columns, uint64_t seed, double *out);
/* Gaussian rows (wanted, columns) with the mean and the covariance of the given ones (count, columns). */
void kp_cloud_like(int64_t count, int64_t columns, const double *rows, int64_t wanted, uint64_t seed,
                   double *out);

#endif
