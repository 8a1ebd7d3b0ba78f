/* Parameters that live on a manifold: back onto it after a step, and the part of a gradient that is tangent
 * to it.
 *
 *   unit rows, unit columns   divided by their norms (nGPT's normalisation; arXiv 2410.01131)
 *   Lorentz                   rows [time | space]: time = √(|space|² + c), c = -1/κ
 *   stereographic, κ < 0      moved to just inside the ball of radius 1/√-κ, where they stand outside
 *
 * A unit vector that is zero stays zero.  All sums are in double. */
#ifndef KAPPA_OPTIM_MANIFOLD_H
#define KAPPA_OPTIM_MANIFOLD_H

#include "core/parameters.h"

/* How far inside the ball's boundary a stereographic parameter stays, as a share of the radius: float32 still
 * tells the conformal factor there. */
#define KP_BALL_MARGIN 1e-5

/* A parameter as matrices of (rows, columns): a batch of them where it has three dimensions, its vectors one
 * matrix.  Matrix number b starts b·rows·columns elements behind the parameter's own first. */
typedef struct kp_matrices {
  int64_t count, rows, columns;
} kp_matrices;
kp_matrices kp_matrices_of(const kp_parameter *parameter);

/* Puts every used parameter on its manifold: after it was initialised or read from elsewhere.  0 threads are
 * all processors. */
void kp_parameters_retract(kp_parameters *parameters, int threads);
/* The same but for frozen ones, which keep every bit that they were given. */
void kp_parameters_retract_learned(kp_parameters *parameters, int threads);

/* Rows [first, last) of a parameter, counted over all its matrices, back onto its manifold.  Nothing for one
 * without a manifold of rows. */
void kp_retract_rows(const kp_parameters *parameters, const kp_parameter *parameter, int64_t first,
                     int64_t last);

/* Columns [first, last) of matrix `matrix` of a parameter to unit length; at most KP_COLUMN_STRIPE of them.
 */
enum { KP_COLUMN_STRIPE = 512 };
void kp_retract_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last);

/* g ← g - w⟨w, g⟩ for the same rows or columns w of a parameter of unit vectors and their gradients g. */
void kp_tangent_rows(const kp_parameters *parameters, const kp_parameter *parameter, int64_t first,
                     int64_t last);
void kp_tangent_columns(const kp_parameters *parameters, const kp_parameter *parameter, int64_t matrix,
                        int64_t first, int64_t last);

#endif
