/* The orthogonal matrix next to a given one, by the quintic Newton–Schulz iteration of Muon (Jordan et al.
 * 2024; coefficients 3.4445, -4.7750, 2.0315, which trade accuracy for speed: after five iterations the
 * singular values lie between 0.68 and 1.13).
 *
 *   X ← X / (|X| + 1e-7)          A = X Xᵀ          X ← (a + b A + c A²) X
 *
 * A matrix with more rows than columns is taken from its other side, X ← X (a + b A + c A²) with A = Xᵀ X,
 * which is the iteration on its transpose.  A and A² are symmetric, so only half of each is computed.
 * In double by plain loops, in float by the library's products, which run on the calling thread inside of a
 * parallel region. */
#ifndef KAPPA_OPTIM_ORTHOGONALIZE_H
#define KAPPA_OPTIM_ORTHOGONALIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Elements of scratch memory that a matrix needs. */
int64_t kp_orthogonalize_scratch(int64_t rows, int64_t columns);

/* x (rows, columns) in place, `steps` iterations; of doubles where `wide`, else of floats, as `scratch` is.
 * A zero matrix stays zero. */
void kp_orthogonalize(void *x, bool wide, int64_t rows, int64_t columns, int steps, void *scratch);

#endif
