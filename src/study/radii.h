/* How far out points lie, in units of the curvature radius, and how near the boundary of their space.
 *
 * A row is stored in one of several charts; all measures are of the point that
 * it stands for.  A space of κ < 0 has a boundary in the ball's chart, at
 * √-κ |x| = 1, where float32 runs out of digits for what differs between
 * points; for κ > 0 the equator takes its place, beyond which a chart of the
 * sphere stretches without bound. */
#ifndef KAPPA_STUDY_RADII_H
#define KAPPA_STUDY_RADII_H

#include <stdbool.h>
#include <stdint.h>

typedef enum kp_chart {
  KP_CHART_TANGENT, /* h = log_0(x), half as long as the distance from the origin */
  KP_CHART_BALL,    /* the stereographic point x itself */
  KP_CHART_LORENTZ, /* the space coordinates of a point of the hyperboloid */
} kp_chart;

/* √|κ| d(0, x) of a point that is stored with this norm; one at or beyond the ball's boundary counts as the
 * last float32 inside.  0 for κ = 0. */
double kp_scaled_radius(double norm, double kappa, kp_chart chart);

/* Whether a point so far out is near the boundary (√-κ |x| > 0.99), or on a sphere beyond the equator. */
bool kp_radius_is_edge(double scaled_radius, double kappa);

/* 1 - √-κ |x| in the ball's chart: 1 at the origin, 0 at the boundary; NaN for κ >= 0. */
double kp_boundary_distance(double scaled_radius, double kappa);

/* Turns a row of any chart into the tangent vector log_0(x) in place. */
void kp_chart_to_tangent(kp_chart chart, double kappa, int64_t columns, double *row);

/* Radii of many points. */
typedef struct kp_radii {
  double *radius, *boundary; /* scaled radius and distance from the boundary of each point; owned */
  int64_t count, capacity, edge;
} kp_radii;

/* Zero-initialise before the first; kp_radii_clear frees. */
void kp_radii_add(kp_radii *radii, double norm, double kappa, kp_chart chart);
void kp_radii_clear(kp_radii *radii);

/* Of all points; NaN of none.  The boundary's are over points of spaces with κ < 0. */
typedef struct kp_radius_summary {
  double mean, median, ninth, largest; /* of the scaled radius; ninth: nine tenths are nearer */
  double boundary_mean, boundary_least;
  double edge_share;
} kp_radius_summary;

kp_radius_summary kp_radii_summary(kp_radii *radii);

#endif
