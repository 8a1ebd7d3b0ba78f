/* Reference points of each row from the rows before it: what its files share (ops/reference.c has the
 * definitions). */
#ifndef KAPPA_BACKEND_CUDA_REFERENCE_CUH
#define KAPPA_BACKEND_CUDA_REFERENCE_CUH

#include "backend/cuda/seam_sums.cuh"

struct kp_walk {
  int64_t rows;
  int T, C, D, pitch, window, held; /* held: rows of the history of a sequence */
  const void *stream, *history, *g;
  const int32_t *seen;      /* rows before row 0; NULL: none */
  const int32_t *documents; /* (N), or NULL: a sequence is one */
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
  /* Whether rows t - 1 and t of sequence b are of two documents. */
  __device__ bool border(int64_t b, int64_t t) const {
    return documents != NULL && documents[b * T + t] != documents[b * T + t - 1];
  }
  /* The first row of row t's document, and the one behind its last. */
  __device__ int first_of(int64_t b, int64_t t) const {
    if (documents == NULL) return 0;
    while (t > 0 && !border(b, t)) t--;
    return (int)t;
  }
  __device__ int end_of(int64_t b, int64_t t) const {
    if (documents == NULL) return T;
    for (t++; t < T && !border(b, t);) t++;
    return (int)t;
  }
  /* Rows in row t's window. */
  __device__ int window_of(int64_t b, int64_t t) const {
    const int64_t past = before() + t;
    const int most = past < window ? (int)past : window;
    int count = 0;
    if (documents == NULL) return most;
    while (count < most && !border(b, t - count)) count++;
    return count;
  }
};

/* The midpoint of windows, in reference_midpoint.cu. */
kp_status kp_reference_midpoint(const kp_call *call, const kp_walk &w, kp_error *error);
kp_status kp_reference_midpoint_backward(const kp_call *call, const kp_walk &w, kp_error *error);

#endif
