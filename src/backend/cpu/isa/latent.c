/* Columns taken apart and put together: copies, and one sum over heads. */
#include <string.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

static void copy(float *to, const float *from, int64_t count) {
  memcpy(to, from, (size_t)count * sizeof *to);
}

/* Zeros where there is nothing to copy. */
static void copy_or_zero(float *to, const float *from, int64_t at, int64_t count) {
  if (from != NULL)
    copy(to, from + at, count);
  else
    memset(to, 0, (size_t)count * sizeof *to);
}

kp_status KP_KERNEL(latent_keys)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_latent_keys_arguments *a = call->node->arguments;
  const float *z = call->input[0], *rope = call->input[1];
  float *keys = call->output[0], *values = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[0]), p = a->plain_size, q = a->rope_size,
                v = a->value_size;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, N * a->heads * (p + q + v)))
  for (int64_t n = 0; n < N; n++)
    for (int64_t h = 0; h < a->heads; h++) {
      const int64_t head = n * a->heads + h;
      copy(keys + head * (p + q), z + head * (p + v), p);
      if (q > 0) copy(keys + head * (p + q) + p, rope + n * q, q);
      copy(values + head * v, z + head * (p + v) + p, v);
    }
  return KP_OK;
}

kp_status KP_KERNEL(latent_keys_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_latent_keys_arguments *a = call->node->arguments;
  const float *gkeys = call->input[0], *gvalues = call->input[1];
  float *gz = call->output[0], *grope = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->output[0]), p = a->plain_size, q = a->rope_size,
                v = a->value_size;
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, N * a->heads * (p + q + v)))
  for (int64_t n = 0; n < N; n++)
    for (int64_t h = 0; h < a->heads; h++) {
      const int64_t head = n * a->heads + h;
      copy_or_zero(gz + head * (p + v), gkeys, head * (p + q), p);
      copy_or_zero(gz + head * (p + v) + p, gvalues, head * v, v);
      if (grope == NULL) continue;
      const float *from = gkeys + head * (p + q) + p;
      for (int64_t i = 0; i < q; i++) grope[n * q + i] = from[i] + (h == 0 ? 0.0f : grope[n * q + i]);
    }
  return KP_OK;
}

kp_status KP_KERNEL(split_columns)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_split_arguments *a = call->node->arguments;
  const float *x = call->input[0];
  float *left = call->output[0], *right = call->output[1];
  const int64_t N = kp_tensor_rows(call->node->input[0]), C = kp_tensor_columns(call->node->input[0]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, N *C))
  for (int64_t n = 0; n < N; n++) {
    copy(left + n * a->left, x + n * C, a->left);
    copy(right + n * (C - a->left), x + n * C + a->left, C - a->left);
  }
  return KP_OK;
}

kp_status KP_KERNEL(split_columns_backward)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_split_arguments *a = call->node->arguments;
  const float *left = call->input[0], *right = call->input[1];
  float *g = call->output[0];
  const int64_t N = kp_tensor_rows(call->node->output[0]), C = kp_tensor_columns(call->node->output[0]);
#pragma omp parallel for schedule(static) num_threads(kp_threads_for(call, N *C))
  for (int64_t n = 0; n < N; n++) {
    copy_or_zero(g + n * C, left, n * a->left, a->left);
    copy_or_zero(g + n * C + a->left, right, n * (C - a->left), C - a->left);
  }
  return KP_OK;
}
