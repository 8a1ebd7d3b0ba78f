/* Curvatures from their parameters.  A model has at most some hundreds of them, so they are computed in
 * double on one thread. */
#include <math.h>

#include "backend/cpu/isa/isa.h"

static double logistic(double x) {
  return 1.0 / (1.0 + exp(-x));
}

/* log(1 + exp x) without overflow. */
static double softplus(double x) {
  return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

static double curvature(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_NEGATE: return -theta;
  case KP_CURVATURE_TANH: return 2.0 * tanh(theta);
  case KP_CURVATURE_SOFTPLUS: return -softplus(theta);
  case KP_CURVATURE_SIGMOID: return -logistic(theta);
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return 1.0 / theta;
  default: return theta;
  }
}

static double curvature_slope(kp_curvature_map map, double theta) {
  switch (map) {
  case KP_CURVATURE_NEGATE: return -1.0;
  case KP_CURVATURE_TANH: return 2.0 * (1.0 - tanh(theta) * tanh(theta));
  case KP_CURVATURE_SOFTPLUS: return -logistic(theta);
  case KP_CURVATURE_SIGMOID: return -logistic(theta) * logistic(-theta);
  case KP_CURVATURE_EXPONENTIAL: return -exp(theta);
  case KP_MAP_EXP: return exp(theta);
  case KP_MAP_RECIPROCAL: return -1.0 / (theta * theta);
  default: return 1.0;
  }
}

kp_status KP_KERNEL(curvature)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_curvature_arguments *arguments = call->node->arguments;
  const float *theta = call->input[0];
  float *kappa = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++) kappa[i] = (float)curvature(arguments->map, (double)theta[i]);
  return KP_OK;
}

kp_status KP_KERNEL(curvature_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_curvature_arguments *arguments = call->node->arguments;
  const float *theta = call->input[0], *g = call->input[1];
  float *g_theta = call->output[0];
  const int64_t count = kp_tensor_count(call->node->output[0]);
  for (int64_t i = 0; i < count; i++)
    g_theta[i] = (float)((double)g[i] * curvature_slope(arguments->map, (double)theta[i]));
  return KP_OK;
}
