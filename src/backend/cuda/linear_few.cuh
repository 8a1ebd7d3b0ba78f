/* A linear map of few rows with what stands before and behind it in a model: the norm of a seam, and an
 * activation or the sum of the next seam.  In decoding each of them alone is a launch. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_FEW_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_FEW_CUH

#include "backend/cuda/linear.cuh"

extern "C" {
#include "backend/operators.h"
}

enum { KP_FEW_CHANNELS = 1024 }; /* of a row that is normalised */

/* x = norm(h) of the map.  Everything that the operators would have written is written. */
struct kp_few_norm {
  const kp_half *h; /* (N, C) with the pitch of x; NULL: there is no norm */
  kp_numbers weight, bias;
  int channels; /* C */
  bool layer;   /* it has a mean */
  float epsilon;
  kp_half *y, *y_again; /* the second one may be NULL */
  float2 *statistics;
  float *events; /* one number, set to 0 */
};

/* Behind y = x Wᵀ + b: at most one of the two. */
struct kp_few_end {
  kp_half *activated; /* f(y); NULL: no activation */
  kp_activation_kind kind;
  const kp_half *stream; /* residual = stream + y, with the pitch of y */
  kp_half *residual;     /* NULL: no sum */
};

struct kp_few_linear {
  kp_few_rows map;
  kp_few_norm norm;
  kp_few_end end;
  bool early;  /* see early.cuh */
  bool staged; /* the input fits into shared memory: set by the launch */
};

/* In bfloat16. */
kp_status kp_linear_few_half(const kp_call *call, const kp_few_linear *few, kp_error *error);

#endif
