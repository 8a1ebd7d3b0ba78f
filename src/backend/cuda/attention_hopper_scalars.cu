/* The gradients of κ and β that attention for compute capability 9.0 gives: sums of its tiles' parts. */
#include "backend/cuda/attention_hopper_backward.cuh"

/* Adds the blocks' parts of a head, or of all heads, to the gradients of κ and β, in one order. */
__global__ static void __launch_bounds__(256)
    scalars_kernel(const kp_hopper_problem p, const float *q_parts, const float *k_parts, int blocks,
                   const float *mean_parts, kp_results kappa, kp_results beta, bool one_kappa,
                   bool one_beta) {
  __shared__ double shared[2][32];
  double kappa_sum = 0, beta_sum = 0;
  const int h = blockIdx.x, kv = p.kv_heads;
  for (int turn = 0; turn < 2; turn++) {
    /* A gradient of one number takes all heads' parts, in block 0. */
    const bool one = turn == 0 ? one_kappa : one_beta;
    if (one && h > 0) continue;
    double &sum = turn == 0 ? kappa_sum : beta_sum;
    for (int head = one ? 0 : h; head < (one ? p.heads : h + 1); head++)
      for (int i = threadIdx.x; i < p.batch * blocks; i += 256) {
        const int b = i / blocks, block = i % blocks;
        sum += (double)q_parts[2 * (((int64_t)b * p.heads + head) * blocks + block) + turn];
        if (turn == 0 && kv == p.heads)
          sum += (double)k_parts[2 * (((int64_t)b * kv + head) * blocks + block)];
        if (turn == 0 && mean_parts != NULL)
          for (int half = 0; half < 2; half++)
            sum += (double)mean_parts[((int64_t)b * p.heads + head) * p.row_blocks + 2 * block + half];
      }
  }
  kappa_sum = kp_block_sum(kappa_sum, shared[0]);
  beta_sum = kp_block_sum(beta_sum, shared[1]);
  if (threadIdx.x != 0) return;
  if (kappa.at != NULL && !(one_kappa && h > 0)) kappa.add(h, (float)kappa_sum);
  if (beta.at != NULL && !(one_beta && h > 0)) beta.add(h, (float)beta_sum);
}

void kp_hopper_add_scalars(const kp_call *call, const kp_hopper_backward_plan &plan, int blocks,
                           const float *mean_parts) {
  const kp_hopper_problem &p = plan.p;
  scalars_kernel<<<p.heads, 256, 0, kp_cuda_of(call)->stream>>>(
      p, plan.q_parts, plan.k_parts, blocks, p.centroid ? mean_parts : NULL, kp_output_numbers(call, 3),
      kp_output_numbers(call, 4), p.one_curvature, p.one_temperature);
}
