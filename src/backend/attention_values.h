/* What attention makes of its values, for the row and the mean of every kp_values: both backends' scalar
 * formulas, in the number type of geometry/.
 *
 * A value v enters as a row of ambient coordinates (scale · v, extra); A and E are the weighted sums of both
 * parts, and the output is o = scale' · A with the time scale' · E.  The plain mean has scale 1 and no extra.
 */
#ifndef KAPPA_BACKEND_ATTENTION_VALUES_H
#define KAPPA_BACKEND_ATTENTION_VALUES_H

#include "backend/operators.h"
#include "geometry/lorentz.h"
#include "geometry/tangent_midpoint.h"

typedef struct kp_value_row {
  kp_real scale, extra;
} kp_value_row;

/* square = |v|² */
KP_HD static inline kp_value_row kp_value_row_of(kp_values values, kp_real square, kp_real kappa) {
  kp_value_row row = {1, 0};
  if (values == KP_VALUES_LORENTZ) {
    row.extra = kp_lorentz_time(square, kp_lorentz_radius(kappa));
  } else if (values == KP_VALUES_MIDPOINT) {
    const kp_ambient_row ambient = kp_ambient_row_of(square, kappa);
    row.scale = ambient.scale;
    row.extra = ambient.cosine;
  }
  return row;
}

/* From <A', v> summed over the means that v is part of, and E' likewise: returns the factor of v in the
 * gradient v' = scale · A' + factor · v; adds to *kappa_bar. */
KP_HD static inline kp_real kp_value_row_backward(kp_values values, kp_real square, kp_real kappa,
                                                  kp_real vector_bar_v, kp_real extra_bar,
                                                  kp_real *kappa_bar) {
  if (values == KP_VALUES_LORENTZ) {
    const kp_real c = kp_lorentz_radius(kappa), time = kp_lorentz_time(square, c);
    *kappa_bar += c * c * extra_bar / (2 * time);
    return extra_bar / time;
  }
  if (values == KP_VALUES_MIDPOINT)
    return kp_ambient_row_backward(square, kappa, vector_bar_v, extra_bar, kappa_bar);
  return 0;
}

typedef struct kp_value_mean {
  kp_real scale; /* o = scale · A */
  kp_real time;  /* o_time */
  kp_real norm;  /* of (A, E) divided by the weights' sum */
} kp_value_mean;

/* square = |A|² and extra = E for weights of sum `weight`. */
KP_HD static inline kp_value_mean kp_value_mean_of(kp_values values, kp_real square, kp_real extra,
                                                   kp_real weight, kp_real kappa) {
  if (values == KP_VALUES_LORENTZ) {
    const kp_lorentz_centroid centroid =
        kp_lorentz_centroid_of(square, extra, weight, kp_lorentz_radius(kappa));
    const kp_value_mean mean = {centroid.scale, centroid.scale * extra, centroid.norm / weight};
    return mean;
  }
  if (values == KP_VALUES_MIDPOINT) {
    const kp_tangent_midpoint midpoint = kp_tangent_midpoint_of(square, extra, weight, kappa);
    const kp_value_mean mean = {midpoint.scale, 0, midpoint.norm / weight};
    return mean;
  }
  const kp_value_mean mean = {1 / weight, 0, 1};
  return mean;
}

/* The gradient of the mean A is gradient · g + along · o, g that of o; E's is `extra`. */
typedef struct kp_value_mean_slopes {
  kp_real gradient, along, extra, kappa;
} kp_value_mean_slopes;

/* square = |o|², product = <g, o>, time_bar the gradient of o_time or 0.  The time is lifted again: o with a
 * time that has been rounded by itself is off the hyperboloid, and M' not orthogonal to M by |o|²/c times as
 * much. */
KP_HD static inline kp_value_mean_slopes kp_value_mean_backward(kp_values values, kp_real square,
                                                                kp_real norm, kp_real product,
                                                                kp_real time_bar, kp_real kappa) {
  if (values == KP_VALUES_LORENTZ) {
    const kp_real c = kp_lorentz_radius(kappa), time = kp_lorentz_time(square, c);
    const kp_lorentz_centroid_slopes slopes =
        kp_lorentz_centroid_backward(norm, product + time_bar * time, c);
    const kp_value_mean_slopes result = {slopes.gradient, slopes.along_space,
                                         slopes.gradient * time_bar + slopes.along_time * time,
                                         c * c * slopes.by_radius};
    return result;
  }
  if (values == KP_VALUES_MIDPOINT) {
    const kp_tangent_midpoint_slopes slopes = kp_tangent_midpoint_backward(square, norm, product, kappa);
    const kp_value_mean_slopes result = {slopes.gradient, slopes.along, slopes.cosine, slopes.kappa};
    return result;
  }
  const kp_value_mean_slopes result = {1, 0, 0, 0};
  return result;
}

#endif
