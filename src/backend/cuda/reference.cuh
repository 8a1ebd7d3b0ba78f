/* Reference points of each row from the rows before it: what its files share (ops/reference.c has the
 * definitions). */
#ifndef KAPPA_BACKEND_CUDA_REFERENCE_CUH
#define KAPPA_BACKEND_CUDA_REFERENCE_CUH

#include "backend/cuda/seam_sums.cuh"

struct kp_walk {
  int64_t rows;
  int T, C, D, pitch, window, held; /* held: rows of the history of a sequence */
  const void *stream, *history, *g;
  const int32_t *seen; /* rows before row 0; NULL: none */
  kp_curvatures kappa;
  void *out;
  void *scratch;
  double *bars; /* (N, G), or NULL */
  bool backward;

  __device__ int64_t before() const {
    const int64_t count = seen == NULL ? 0 : *seen;
    return count < 0 ? 0 : count;
  }
  /* Row t of sequence b starts at this element; t < 0 reaches into the history. */
  template <typename E> __device__ const E *row(int64_t b, int64_t t) const {
    if (t >= 0) return (const E *)stream + (b * T + t) * pitch;
    return (const E *)history + (b * held + held + t) * pitch;
  }
  /* Rows in row t's window. */
  __device__ int window_of(int64_t t) const {
    const int64_t past = before() + t;
    return past < window ? (int)past : window;
  }
};

/* The midpoint of windows, in reference_midpoint.cu. */
kp_status kp_reference_midpoint(const kp_call *call, const kp_walk &w, kp_error *error);
kp_status kp_reference_midpoint_backward(const kp_call *call, const kp_walk &w, kp_error *error);

#endif
