/* What the kernels of the backward pass of attention for compute capability 9.0 are launched with. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_BACKWARD_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_BACKWARD_CUH

#include "backend/cuda/attention_hopper.cuh"

/* The tensors of a call as matrices, and scratch memory. */
struct kp_hopper_backward_plan {
  kp_hopper_problem p;
  kp_hopper_matrix q, k, v, g, gq, gk, gv;
  int *taken; /* two counts of tiles that blocks took */
  float *q_parts, *k_parts;
  bool scalars;
  float *sums; /* both sides at once: (B, H, row_blocks) blocks of sums for gq */
  int *added;  /* and how many tiles have added theirs */
};

/* ---- attention_hopper_joint.cu ---- */

/* Whether both sides are dealt with at once. */
bool kp_hopper_joint_fits(const kp_node *node);
/* Bytes of scratch memory. */
size_t kp_hopper_joint_size(const kp_attention_arguments *a);
void kp_hopper_joint_place(kp_hopper_backward_plan *plan, void *memory, kp_hopper_rows *rows);
kp_status kp_hopper_joint(const kp_call *call, const kp_hopper_backward_plan &plan, kp_error *error);

#endif
