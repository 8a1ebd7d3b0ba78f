/* The load of experts, kept on the device: a few numbers a layer, bound by the launch. */
#include "backend/cuda/kernel.cuh"

extern "C" {
#include "backend/cuda/expert_load.h"
#include "core/load.h"
}

enum { LOAD_THREADS = 256 };

static __global__ void __launch_bounds__(LOAD_THREADS)
    add_counts(double *sums, const int32_t *counts, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += LOAD_THREADS) sums[i] += (double)counts[i];
}

/* Sums are whole numbers, so that their order does not matter; what follows is rounded as on the host, where
 * nothing is contracted. */
static __global__ void __launch_bounds__(LOAD_THREADS)
    move_bias(float *bias, const double *sums, int64_t experts, double speed, bool by_sign) {
  __shared__ double shared[32];
  double total = 0;
  for (int64_t e = threadIdx.x; e < experts; e += LOAD_THREADS) total += sums[e];
  total = kp_block_sum(total, shared);
  if (total == 0) return;
  for (int64_t e = threadIdx.x; e < experts; e += LOAD_THREADS) {
    const double missing = __dsub_rn(__ddiv_rn(total, (double)experts), sums[e]);
    const double share = by_sign ? (double)((missing > 0) - (missing < 0)) : __ddiv_rn(missing, total);
    bias[e] = (float)__dadd_rn((double)bias[e], __dmul_rn(speed, share));
  }
}

static kp_status add(kp_device *device, double *sums, const int32_t *counts, int64_t count, kp_error *error) {
  add_counts<<<1, LOAD_THREADS, 0, ((kp_cuda *)device)->stream>>>(sums, counts, count);
  return kp_cuda_check(cudaGetLastError(), "the load of experts", error);
}

static kp_status balance(kp_device *device, float *bias, const double *sums, int64_t experts, double speed,
                         bool by_sign, kp_error *error) {
  move_bias<<<1, LOAD_THREADS, 0, ((kp_cuda *)device)->stream>>>(bias, sums, experts, speed, by_sign);
  return kp_cuda_check(cudaGetLastError(), "the load of experts", error);
}

extern "C" const kp_load_driver kp_cuda_load_driver = {add, balance};
