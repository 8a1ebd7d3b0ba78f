/* What the forward and the backward kernel of LORENTZ_RESIDUAL share: their operands. */
#ifndef KAPPA_BACKEND_CUDA_LORENTZ_RESIDUAL_CUH
#define KAPPA_BACKEND_CUDA_LORENTZ_RESIDUAL_CUH

#include "backend/cuda/row_held.cuh"

struct kp_lorentz_operands {
  const void *x, *u; /* (N, C); u may be NULL */
  kp_numbers x_time, u_time, w, s, c;
  bool one_w; /* w is one number, not one a row */
  kp_vector weight;
  bool norm;
  float epsilon, scale;
  double floor;
};

/* What all rows share, in registers. */
struct kp_lorentz_constants {
  float w, s, c; /* w, where it is one number */
  __device__ explicit kp_lorentz_constants(const kp_lorentz_operands &k)
      : w(k.u == NULL                  ? 0
          : k.w.at == NULL || !k.one_w ? 1
                                       : k.w[0]),
        s(k.s.at == NULL ? k.scale : k.s[0]), c(k.c.at == NULL ? 1 : k.c[0]) {}
  __device__ float branch_weight(const kp_lorentz_operands &k, int64_t n) const {
    return k.w.at == NULL || k.one_w ? w : k.w[n];
  }
};

static inline kp_lorentz_operands kp_lorentz_operands_of(const kp_call *call) {
  const kp_lorentz_residual_arguments *arguments =
      (const kp_lorentz_residual_arguments *)call->node->arguments;
  kp_lorentz_operands k = {};
  k.x = call->input[0], k.u = call->input[2];
  k.x_time = kp_input_numbers(call, 1), k.u_time = kp_input_numbers(call, 3);
  k.w = kp_input_numbers(call, 4), k.s = kp_input_numbers(call, 5), k.c = kp_input_numbers(call, 7);
  k.one_w = call->node->input[4] != NULL && kp_tensor_count(call->node->input[4]) == 1;
  k.weight = kp_vector_of(call->input[6], 1);
  k.norm = arguments->norm;
  k.epsilon = (float)arguments->epsilon, k.scale = (float)arguments->scale;
  k.floor = arguments->floor > KP_LORENTZ_LEAST_SQUARE ? arguments->floor : KP_LORENTZ_LEAST_SQUARE;
  return k;
}

/* Whether the tensors of rows among the first `inputs` inputs and the outputs are laid out alike. */
static inline bool kp_lorentz_fits(const kp_call *call, const kp_row_plan &plan, const int *inputs,
                                   int input_count, const int *outputs, int output_count) {
  bool fits = !kp_tensor_is_half(call, call->node->input[6]);
  for (int i = 0; i < input_count; i++) fits = fits && kp_row_fits(call, plan, call->node->input[inputs[i]]);
  for (int i = 0; i < output_count; i++)
    fits = fits && kp_row_fits(call, plan, call->node->output[outputs[i]]);
  return fits;
}

#endif
