/* Riemannian Adam (Bécigneul and Ganea 2019) on tables whose rows are points.
 *
 * A row is one point x of a manifold, so it has one second moment, of its gradient's Riemannian length, and
 * its step is as long as the learning rate says in the manifold's own distance:
 *
 *   g = Riemannian gradient               m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) ⟨g, g⟩ₓ
 *   u = -λ m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε)
 *   x' = expₓ(u)                          m ← m carried from x to x' along the geodesic
 *
 * Lorentz, rows [time | space], c = -1/κ, ⟨,⟩ the Minkowski product: g = e + x⟨x, e⟩/c with the sign of e's
 * time turned; exp by cosh and sinh; transport in closed form, m + (x + x')⟨x', m⟩ / (c - ⟨x, x'⟩).
 *
 * Stereographic: g = e/λₓ² with the conformal factor λₓ = 2 / (1 + κ|x|²), exp and transport those of
 * kappa/geometry.h.
 *
 * Manifold tables do not decay.  The first moment is a row's as any other; the second stands in the first
 * element of the row's second moments, the rest of which is not touched.  All arithmetic is in double. */
#ifndef KAPPA_OPTIM_RIEMANNIAN_ADAM_H
#define KAPPA_OPTIM_RIEMANNIAN_ADAM_H

#include "optim/adamw.h"

/* Doubles of scratch memory that a step on rows of so many columns needs. */
int64_t kp_riemannian_adam_scratch(int64_t columns);

/* The step on rows [first, last) of a parameter that lives on a hyperboloid or in a stereographic model. */
void kp_riemannian_adam_apply(const kp_parameters *parameters, const kp_parameter *parameter,
                              const kp_adamw_step *step, int64_t first, int64_t last, double *scratch);

#endif
