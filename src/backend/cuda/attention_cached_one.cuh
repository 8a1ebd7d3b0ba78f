/* Attention of one new token of each sequence over its cache, in one launch. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_CACHED_ONE_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_CACHED_ONE_CUH

#include "backend/cuda/attention_cached.cuh"

/* Whether a call is of that kind: bfloat16, dot product, plain mean, whole packs. */
bool kp_cached_one_can(const kp_call *call);

/* `early`: see early.cuh. */
kp_status kp_cached_one(const kp_call *call, bool early, kp_error *error);

#endif
