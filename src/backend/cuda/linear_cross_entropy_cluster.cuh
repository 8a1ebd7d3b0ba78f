/* The loss head's pass over a chunk of products in training, for bfloat16 on Hopper: each product is read
 * once, and once overwritten by its gradient. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_CROSS_ENTROPY_CLUSTER_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_CROSS_ENTROPY_CLUSTER_CUH

#include "backend/cuda/cross_entropy.cuh"

/* Sums for the small gradients, and what the pass backward needs besides the products. */
struct gradient_parts {
  const float *logsumexp, *share;
  float *by_weight, *by_scale; /* (groups, pitch): sums over a group's rows; NULL: not wanted */
  float *by_time;              /* (rows, strips) */
  int64_t groups, strips;
};

/* The most parts of a row's gradient of time that the pass leaves. */
enum { KP_CLUSTER_LOSS_STRIPS = 128 };

/* Whether the pass can take a chunk of such rows: of bfloat16 products, with a time or a scale but not both.
 */
bool kp_cluster_loss_fits(const kp_call *call, const kp_loss_rows *rows, const kp_scaled_head *head);

/* Losses, logsumexp and, in the place of `products`, gradients of a chunk's rows.  On entry `to` has room for
 * `to->groups` groups; on return it says how many groups and strips there are. */
kp_status kp_cluster_loss(const kp_call *call, kp_half *products, const kp_loss_rows *rows,
                          const kp_scaled_head *head, gradient_parts *to, kp_error *error);

#endif
