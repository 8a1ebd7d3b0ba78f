/* Row programs: operations of curved space as scalar functions of a Gram matrix.
 *
 * An operation on row vectors v_1 .. v_m (m <= 3) of any length n returns sum_i c_i b_i, where the basis b is
 * v_1 .. v_m, or v_1 .. v_{m-1}, v_m - v_1 for a program with `difference` set, and the coefficients c depend
 * on the Gram matrix of the basis, on one curvature kappa and on at most one parameter p.  A program with
 * `scalar` set returns one number instead.
 *
 *   Forward:   inner products of the basis  ->  forward  ->  one linear combination.
 *   Backward:  c_bar_i = <out_bar, b_i>  ->  backward  ->  b_bar_i = c_i out_bar + sum_j (1 + [i = j])
 * G_bar_ij b_j, and for a difference basis  v_m_bar = b_m_bar,  v_1_bar = b_1_bar - b_m_bar.
 *
 * The Gram matrix is packed as its upper triangle: 11 | 11, 12, 22 | 11, 12, 13, 22, 23, 33, and a gradient
 * has one entry per unordered pair.  The difference must be formed from the inputs themselves and the inner
 * products accumulated in double where they can be: near points and the boundary of the ball depend on it.
 *
 * A forward returns 0, or 1 when a clamp acted or the point is so near the boundary that the number type
 * does not resolve it.  A backward writes its results and does not add.  For finite input nothing is NaN.
 *
 * This table is in double, for the reference and the host's fast kernels; device code includes
 * geometry/programs.h with KP_GEOMETRY_FLOAT and calls the inline functions. */
#ifndef KAPPA_GEOMETRY_ROW_PROGRAM_H
#define KAPPA_GEOMETRY_ROW_PROGRAM_H

#include <stddef.h>

#define KP_ROW_PROGRAM_MAX_INPUTS 3
#define KP_ROW_PROGRAM_MAX_GRAM   6

#define KP_ROW_PROGRAM(id, name, inputs, difference, scalar, forward, backward, reference) id,
typedef enum kp_program {
#include "geometry/programs.def"
  KP_PROGRAM_COUNT
} kp_program;

typedef int kp_row_program_forward(const double *gram, double kappa, double p, double *coefficients);
typedef void kp_row_program_backward(const double *gram, double kappa, double p,
                                     const double *coefficients_bar, double *gram_bar, double *kappa_bar,
                                     double *p_bar);

typedef struct kp_row_program {
  kp_program id;
  const char *name;
  int inputs;
  int difference;
  int scalar;
  kp_row_program_forward *forward;
  kp_row_program_backward *backward;
  const char *reference; /* arguments and source */
} kp_row_program;

/* Indexed by kp_program. */
extern const kp_row_program kp_row_programs[KP_PROGRAM_COUNT];

/* The program of that name, or NULL. */
const kp_row_program *kp_row_program_find(const char *name);

/* Runs a program on one row in double, in the plainest way.  inputs: `inputs` vectors of length n, NULL for
 * the origin; output: n numbers, or one for a scalar program.  output may be one of the inputs.  Returns the
 * event of the forward.
 */
int kp_row_program_apply(const kp_row_program *program, size_t n, const double *const *inputs, double kappa,
                         double p, double *output);

/* Its backward.  output_bar: n numbers, or one for a scalar program.  Adds to inputs_bar[i] (n numbers each;
 * an entry may be NULL), *kappa_bar and *p_bar (either may be NULL).  No output may overlap an input. */
void kp_row_program_apply_backward(const kp_row_program *program, size_t n, const double *const *inputs,
                                   double kappa, double p, const double *output_bar,
                                   double *const *inputs_bar, double *kappa_bar, double *p_bar);

#endif
