/* The rows of a sequence that decoding keeps: the last few, or the mean of all.
 *
 * The states are small: what bounds this is the launch.  A thread owns one column of one sequence and goes
 * down its rows, so that moving them up needs no second copy. */
#include "backend/cuda/kernel.cuh"

enum { THREADS = 128 };

/* x (B, T, C), state (B, W, C), both with rows of `pitch` numbers. */
struct stored_rows {
  int64_t batch, length, kept, pitch; /* B, T, W */
};

template <typename T> static __global__ void last_rows_kernel(T *state, const T *x, stored_rows s) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = i / s.pitch, c = i % s.pitch;
  if (b >= s.batch) return;
  T *rows = state + b * s.kept * s.pitch + c;
  const T *fresh = x + b * s.length * s.pitch + c;
  const int64_t stay = s.length < s.kept ? s.kept - s.length : 0;
  for (int64_t w = 0; w < stay; w++) rows[w * s.pitch] = rows[(w + s.length) * s.pitch];
  for (int64_t w = stay; w < s.kept; w++) rows[w * s.pitch] = fresh[(s.length - s.kept + w) * s.pitch];
}

template <typename T>
static __global__ void mean_rows_kernel(T *state, const T *x, const int32_t *seen, stored_rows s) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, b = i / s.pitch, c = i % s.pitch;
  if (b >= s.batch) return;
  const T *fresh = x + b * s.length * s.pitch + c;
  float mean = kp_to_float(state[i]);
  for (int64_t t = 0; t < s.length; t++)
    mean += (kp_to_float(fresh[t * s.pitch]) - mean) / (float)(*seen + t + 1);
  state[i] = kp_from_float<T>(mean);
}

template <typename T> static void store(const kp_call *call, const stored_rows &s) {
  const kp_store_arguments *a = (const kp_store_arguments *)call->node->arguments;
  const int blocks = kp_blocks(s.batch * s.pitch, THREADS);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  T *state = (T *)call->input[1];
  const T *x = (const T *)call->input[0];
  if (a->mean)
    mean_rows_kernel<<<blocks, THREADS, 0, stream>>>(state, x, (const int32_t *)call->input[2], s);
  else
    last_rows_kernel<<<blocks, THREADS, 0, stream>>>(state, x, s);
}

extern "C" kp_status kp_cuda_store_rows(const kp_call *call, kp_error *error) {
  const kp_store_arguments *a = (const kp_store_arguments *)call->node->arguments;
  const kp_tensor *state = call->node->input[1];
  const stored_rows s = {state->shape[0], a->length, state->shape[1], kp_pitch(state)};
  if (s.batch * s.pitch == 0) return KP_OK;
  if (kp_is_half(call))
    store<kp_half>(call, s);
  else
    store<float>(call, s);
  return kp_launched(call, error);
}
