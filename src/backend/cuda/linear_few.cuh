/* A linear map of few rows with what stands before and behind it in a model: the norm of a seam, and an
 * activation or the sum of the next seam.  In decoding each of them alone is a launch. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_FEW_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_FEW_CUH

#include "backend/cuda/activation.cuh"
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

/* At most KP_FEW_ROWS rows, in bfloat16. */
kp_status kp_linear_few_half(const kp_call *call, const kp_few_linear *few, kp_error *error);

/* More rows, and matrices that are not too large. */
enum { KP_SOME_ROWS = 64 };
bool kp_some_rows_fit(const kp_call *call, const kp_few_rows *map);
kp_status kp_linear_some(const kp_call *call, const kp_few_linear *few, kp_error *error);

/* ---- what their kernels share ---- */

/* c += a b of the matrix units: 16 rows by 16 columns, times 8 columns. */
__device__ static inline void kp_multiply_16(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                             uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ static inline float kp_few_activate(kp_activation_kind kind, float x) {
  float value = 0;
  kp_by_activation(kind, [&](auto constant) { value = kp_activate<decltype(constant)::value>(x).value; });
  return value;
}

/* An element of y, and what is made of it; zero in the padding. */
__device__ static inline void kp_few_finish(const kp_few_linear &few, int64_t at, bool inside, float sum,
                                            float stream) {
  const kp_few_end &end = few.end;
  const kp_half y = __float2bfloat16_rn(inside ? sum : 0.0f);
  ((kp_half *)few.map.y)[at] = y;
  if (end.activated != NULL)
    end.activated[at] = __float2bfloat16_rn(kp_few_activate(end.kind, kp_to_float(y)));
  if (end.residual != NULL) end.residual[at] = __float2bfloat16_rn(stream + kp_to_float(y));
}

#endif
