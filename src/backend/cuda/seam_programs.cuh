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

/* Norm and tangent map of a row and group: from the KP_SEAM_TANGENT_SUMS inner products and the row's moments
 * to the combinations; returns the gradient of kappa.  Where the row has several groups, terms are each one's
 * part of the means of gw and gw n, `stride` apart; groups is 0 where it has one.  A program that is none is
 * the flat difference. */
static __device__ __noinline__ float kp_seam_tangent_task(int program, bool layer, int channels, float kappa,
                                                          float2 moment, const float *sum, int groups,
                                                          const float *terms, int stride, float *to) {
  kp_seam_bars<float> bars = {};
  bars.mean = moment.x, bars.scale = moment.y, bars.channels = (float)channels, bars.layer = layer;
  bars.whole = groups == 0;
  for (int other = 0; other < groups; other++)
    bars.mean_g += terms[stride * other], bars.mean_gn += terms[stride * other + 1];
#pragma unroll
  for (int q = 0; q < KP_SEAM_TANGENT_SUMS; q++) bars.sum[q] = sum[q];
  const kp_real gram[6] = {bars.sum[0], bars.sum[1], bars.sum[2]};
  kp_real z[3] = {0, 1, 0}, bar[3], gram_bar[6] = {}, kappa_bar = 0, unused;
  switch (program) {
  case KP_PROGRAM_TANGENT_LOG:
    kp_tangent_log_forward(gram, kappa, 0, z);
    bars(z, bar);
    kp_tangent_log_backward(gram, kappa, 0, bar, gram_bar, &kappa_bar, &unused);
    break;
  case KP_PROGRAM_TANGENT_TRANSPORTED:
    kp_tangent_transported_forward(gram, kappa, 0, z);
    bars(z, bar);
    kp_tangent_transported_backward(gram, kappa, 0, bar, gram_bar, &kappa_bar, &unused);
    break;
  default: bars(z, bar); break;
  }
  kp_seam_combine(bars, z[0], z[1], gram_bar, to);
  return kappa_bar;
}

/* The update of a row and group: from KP_SEAM_PAIR_SUMS inner products to the factors of the gradients of x
 * and of u, of that of x', of x and of u each; returns the gradient of kappa. */
static __device__ __noinline__ float kp_seam_update_task(int program, float kappa, const float *sum,
                                                         float *to) {
  const kp_real gram[6] = {sum[0], sum[1], sum[2]}, bar[3] = {sum[3], sum[4], 0};
  kp_real c[3] = {0, 0, 0}, gram_bar[6] = {}, kappa_bar = 0, unused;
  switch (program) {
  case KP_PROGRAM_UPDATE_E3:
    kp_update_e3_forward(gram, kappa, 0, c);
    kp_update_e3_backward(gram, kappa, 0, bar, gram_bar, &kappa_bar, &unused);
    break;
  case KP_PROGRAM_FLAT_BOUNDED:
    kp_flat_bounded_forward(gram, kappa, 0, c);
    kp_flat_bounded_backward(gram, kappa, 0, bar, gram_bar, &kappa_bar, &unused);
    break;
  default: break;
  }
  to[0] = c[0], to[1] = 2 * gram_bar[0], to[2] = gram_bar[1];
  to[3] = c[1], to[4] = gram_bar[1], to[5] = 2 * gram_bar[2];
  return kappa_bar;
}

#endif
