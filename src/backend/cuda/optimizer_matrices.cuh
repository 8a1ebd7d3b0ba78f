/* Matrices of one shape that are worked on together, and the orthogonalization that Muon asks for. */
#ifndef KAPPA_BACKEND_CUDA_OPTIMIZER_MATRICES_CUH
#define KAPPA_BACKEND_CUDA_OPTIMIZER_MATRICES_CUH

#include "backend/cuda/optimizer.cuh"

/* Sums of squares of a matrix: of Muon's direction, of the values before and after the step. */
enum kp_matrix_sum { KP_SUM_DIRECTION, KP_SUM_BEFORE, KP_SUM_AFTER, KP_MATRIX_SUMS };

/* As kernels see them: matrix number blockIdx.y. */
struct kp_matrices_at {
  const int64_t *at; /* where they start */
  int64_t size, part;
  int parts;
  int64_t columns, pitch;  /* of the flat buffers */
  int64_t x_pitch, x_size; /* of the products' matrices, whose pads hold anything */
  double *sums;            /* (matrices, KP_MATRIX_SUMS, parts) */
};

/* A matrix' sum over its parts: there are at most as many as a block has threads. */
static __device__ inline double kp_read_sum(const kp_matrices_at &m, kp_matrix_sum which) {
  __shared__ double shared[32];
  const double *sums = m.sums + ((int64_t)blockIdx.y * KP_MATRIX_SUMS + which) * m.parts;
  __syncthreads();
  return kp_block_sum((int)threadIdx.x < m.parts ? sums[threadIdx.x] : 0.0, shared);
}

/* The products' matrices, one behind the other: [ X | Y | A | B ], each as often as matrices go together. */
struct kp_product_sizes {
  int64_t x_pitch, x, side, side_pitch, square; /* elements of one X, of one A */
};
kp_product_sizes kp_product_sizes_of(const kp_matrix_class *c);

/* Muon's X is never divided by its norm where it stands: the iteration has s² in A = s² X Xᵀ, and the step
 * has s = 1 / (|X| + 1e-7). */
static __device__ inline double kp_muon_normaliser(const kp_matrices_at &m) {
  const double NORM_SHIFT = 1e-7;
  return 1 / (sqrt(kp_read_sum(m, KP_SUM_DIRECTION)) + NORM_SHIFT);
}

/* From X, which o->products begins with, to *result, which is s⁻¹ times what is orthogonal. */
kp_status kp_optimizer_orthogonalize(kp_cuda_optimizer *o, const kp_matrix_class *c, const kp_matrices_at &m,
                                     int together, const void **result, kp_error *error);

#endif
