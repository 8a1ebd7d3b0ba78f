/* Maps of a parameter to a curvature and their derivatives.  The tensors are small; in double, because
 * everything geometric depends on them. */
#include "backend/cuda/maps.cuh"

__device__ static double curvature(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_IDENTITY: return theta;
  case KP_CURVATURE_NEGATE: return -theta;
  case KP_CURVATURE_TANH: return 2 * tanh(theta);
  case KP_CURVATURE_SOFTPLUS: return -(theta > 0 ? theta + log1p(exp(-theta)) : log1p(exp(theta)));
  case KP_CURVATURE_SIGMOID: return -1 / (1 + exp(-theta));
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return 1 / theta;
  }
  return (double)NAN;
}

__device__ static double curvature_derivative(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_IDENTITY: return 1;
  case KP_CURVATURE_NEGATE: return -1;
  case KP_CURVATURE_TANH: return 2 / (cosh(theta) * cosh(theta));
  case KP_CURVATURE_SOFTPLUS: return -1 / (1 + exp(-theta));
  case KP_CURVATURE_SIGMOID: {
    const double s = 1 / (1 + exp(-theta));
    return -s * (1 - s);
  }
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return -1 / (theta * theta);
  }
  return (double)NAN;
}

/* out = f(θ), or g f'(θ) where there is a gradient. */
static __global__ void map_curvatures(kp_elements theta, kp_elements g, kp_results out, int64_t columns,
                                      int64_t pitch, int64_t count, kp_curvature_map map) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int64_t column = at % pitch, i = at / pitch * columns + column;
  double result = 0;
  if (column < columns)
    result = g.numbers.at == NULL ? curvature(map, (double)theta[i])
                                  : (double)g[i] * curvature_derivative(map, (double)theta[i]);
  out.set(at, (float)result);
}

static kp_status launch(const kp_call *call, kp_elements g, kp_error *error) {
  const kp_curvature_arguments *arguments = (const kp_curvature_arguments *)call->node->arguments;
  const kp_tensor *out = call->node->output[0];
  const int64_t count = kp_padded_count(out);
  if (count == 0) return KP_OK;
  map_curvatures<<<kp_blocks(count, KP_TILE_THREADS), KP_TILE_THREADS, 0, kp_cuda_of(call)->stream>>>(
      kp_input_elements(call, 0), g, kp_output_numbers(call, 0), kp_tensor_columns(out), kp_pitch(out), count,
      arguments->map);
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_curvature(const kp_call *call, kp_error *error) {
  return launch(call, kp_elements{}, error);
}

extern "C" kp_status kp_cuda_curvature_backward(const kp_call *call, kp_error *error) {
  return launch(call, kp_input_elements(call, 1), error);
}
