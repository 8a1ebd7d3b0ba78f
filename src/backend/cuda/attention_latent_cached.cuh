/* A cache of latents: what its two files share. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_LATENT_CACHED_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_LATENT_CACHED_CUH

#include "backend/cuda/attention_cached.cuh"

/* A group of sequences; what is by row is by (sequence of the group, position). */
struct kp_latent_cache {
  int64_t batch, length, capacity;       /* sequences of the group, T, P */
  int heads, own, shared, value, latent; /* H, p, ρ, D', r */
  float epsilon;
  const void *rows, *up; /* new rows; up weight (H (p + D'), r) */
  void *state;           /* (B, P, r + ρ) */
  int64_t rows_pitch, state_pitch, up_pitch;
  kp_numbers norm_weight, time_weight, bias, kappa;
  const int32_t *start;
  float *inverse, *time; /* (batch, P): 1 / root mean square of a latent, √(|L|² + c) */
  void *keys, *values;   /* (batch, H, P, ·), expanded */
  int64_t key_pitch, value_pitch;
  kp_device_step *step;
  int node;
};

__device__ static inline int kp_latent_start(const kp_latent_cache &a) {
  return kp_cached_start(a.start, a.length, a.capacity, a.step, a.node);
}

/* Keys' own parts and values of all positions so far, from their latents. */
void kp_latent_expand(const kp_call *call, const kp_latent_cache &cache);

#endif
