/* The scalar programs of the curved seam on rows of bfloat16: those that seams of two points have.
 *
 * Nothing is inlined into the kernels, whose rows then stay in registers; what a program reads and writes is
 * in shared memory, or is a number. */
#ifndef KAPPA_BACKEND_CUDA_SEAM_PROGRAMS_CUH
#define KAPPA_BACKEND_CUDA_SEAM_PROGRAMS_CUH

#include "backend/cuda/seam_gradients.cuh"

/* Floats of a row and group: inner products of a pair; what their gradients are combinations of. */
enum { KP_SEAM_GRAM = 3, KP_SEAM_FACTORS = 6 };

static inline bool kp_seam_programs_fit(const kp_seam &s) {
  const bool update = s.update_program == KP_PROGRAM_UPDATE_E3 || s.update_program == KP_PROGRAM_FLAT_BOUNDED;
  const bool tangent =
      s.tangent_program == KP_PROGRAM_TANGENT_LOG || s.tangent_program == KP_PROGRAM_TANGENT_TRANSPORTED;
  return (update || s.update != KP_SEAM_CURVED) && (tangent || s.tangent != KP_SEAM_CURVED);
}

struct kp_seam_pair {
  float first, second;
  int event;
};

/* The coefficients of a pair whose inner products are sum[0 ... 2]. */
static __device__ __noinline__ kp_seam_pair kp_seam_coefficients(int program, const float *sum, float kappa) {
  const kp_real gram[6] = {sum[0], sum[1], sum[2]};
  kp_real c[3] = {0, 0, 0};
  int event = 0;
  switch (program) {
  case KP_PROGRAM_UPDATE_E3: event = kp_update_e3_forward(gram, kappa, 0, c); break;
  case KP_PROGRAM_FLAT_BOUNDED: event = kp_flat_bounded_forward(gram, kappa, 0, c); break;
  case KP_PROGRAM_TANGENT_LOG: event = kp_tangent_log_forward(gram, kappa, 0, c); break;
  case KP_PROGRAM_TANGENT_TRANSPORTED: event = kp_tangent_transported_forward(gram, kappa, 0, c); break;
  default: break;
  }
  return kp_seam_pair{c[0], c[1], event};
}

/* ---- backward ---- */

/* A program's gradients are linear in those of its two coefficients.  So it runs ahead of them: what it
 * leaves are its coefficients and, for each of the two, the gradients of the inner products and of kappa. */
enum { KP_SEAM_COEFFICIENTS = 0, KP_SEAM_OF_FIRST = 2, KP_SEAM_OF_SECOND = 6, KP_SEAM_SLOPES = 10 };

template <typename Forward, typename Backward>
__device__ static inline void kp_seam_slopes_of(Forward forward, Backward backward, const float *sum,
                                                float kappa, float *to) {
  const kp_real gram[6] = {sum[0], sum[1], sum[2]};
  kp_real c[3] = {0, 0, 0}, unused;
  forward(gram, kappa, 0, c);
  to[0] = c[0], to[1] = c[1];
#pragma unroll
  for (int m = 0; m < 2; m++) {
    const kp_real bar[3] = {m == 0 ? kp_real(1) : kp_real(0), m == 1 ? kp_real(1) : kp_real(0), 0};
    kp_real gram_bar[6] = {}, kappa_bar = 0;
    backward(gram, kappa, 0, bar, gram_bar, &kappa_bar, &unused);
    float *slope = to + (m == 0 ? KP_SEAM_OF_FIRST : KP_SEAM_OF_SECOND);
    slope[0] = gram_bar[0], slope[1] = gram_bar[1], slope[2] = gram_bar[2], slope[3] = kappa_bar;
  }
}

static __device__ __noinline__ void kp_seam_slopes(int program, const float *sum, float kappa, float *to) {
  switch (program) {
  case KP_PROGRAM_UPDATE_E3:
    return kp_seam_slopes_of(kp_update_e3_forward, kp_update_e3_backward, sum, kappa, to);
  case KP_PROGRAM_FLAT_BOUNDED:
    return kp_seam_slopes_of(kp_flat_bounded_forward, kp_flat_bounded_backward, sum, kappa, to);
  case KP_PROGRAM_TANGENT_LOG:
    return kp_seam_slopes_of(kp_tangent_log_forward, kp_tangent_log_backward, sum, kappa, to);
  case KP_PROGRAM_TANGENT_TRANSPORTED:
    return kp_seam_slopes_of(kp_tangent_transported_forward, kp_tangent_transported_backward, sum, kappa, to);
  default: break;
  }
}

/* The gradients of x' and of the reference, and the normalised z, as combinations (seam_gradients.cuh). */
__device__ static inline void kp_seam_combine(const kp_seam_bars<float> &bars, float first, float second,
                                              const kp_real *gram_bar, float *to) {
  const float scale = bars.scale, fall = scale * scale * bars.mean_gn;
  const float one = fall * bars.mean - scale * bars.mean_g, r = -fall * first, d = -fall * second;
  const float along_d[4] = {second * scale, second * one, second * r + gram_bar[1],
                            second * d + 2 * gram_bar[2]};
  const float along_r[4] = {first * scale, first * one, first * r + 2 * gram_bar[0], first * d + gram_bar[1]};
#pragma unroll
  for (int j = 0; j < 4; j++) {
    to[KP_SEAM_TO_STREAM + j] = along_d[j];
    to[KP_SEAM_TO_REFERENCE + j] = along_r[j] - along_d[j];
  }
  to[KP_SEAM_NORMAL] = -scale * bars.mean;
  to[KP_SEAM_NORMAL + 1] = scale * first, to[KP_SEAM_NORMAL + 2] = scale * second;
}

#endif
