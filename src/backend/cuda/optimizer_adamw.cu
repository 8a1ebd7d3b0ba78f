/* AdamW over runs of elements, one pass over memory: reads value, gradient and both moments, writes value,
 * moments, the narrow value, and zeroes the gradient: 34 bytes an element, and bound by them. */
#include "backend/cuda/optimizer.cuh"

enum { THREADS = 256, AT_ONCE = 2 };

/* AT_ONCE spans of each buffer are read before the first is needed. */
template <int W>
static __device__ void step_chunk(const kp_flat &flat, const kp_chunk &chunk, const kp_adamw_numbers &f) {
  for (int first = (int)threadIdx.x * W; first < chunk.count; first += AT_ONCE * THREADS * W) {
    kp_span<W> value[AT_ONCE], gradient[AT_ONCE], mean[AT_ONCE], square[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int64_t at = chunk.at + first + u * THREADS * W;
      if (first + u * THREADS * W >= chunk.count) continue;
      value[u] = kp_take<W>(flat.values + at);
      gradient[u] = kp_take<W>(flat.gradients + at);
      mean[u] = kp_take<W>(flat.moment1 + at);
      square[u] = kp_take<W>(flat.moment2 + at);
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      const int64_t at = chunk.at + first + u * THREADS * W;
      if (first + u * THREADS * W >= chunk.count) continue;
      kp_put_values<W>(flat, at, kp_adamw<W>(f, value[u], gradient[u], mean[u], square[u]));
      kp_put<W>(flat.moment1 + at, mean[u]);
      kp_put<W>(flat.moment2 + at, square[u]);
      kp_clear<W>(flat.gradients + at);
    }
  }
}

static __global__ void __launch_bounds__(THREADS)
    chunks_kernel(kp_flat flat, const kp_chunk *chunks, const kp_optimizer_state *state,
                  const kp_adamw_numbers *table) {
  const kp_chunk chunk = chunks[blockIdx.x];
  const kp_adamw_numbers numbers = table[chunk.numbers];
  if (!state->take) {
    for (int i = (int)threadIdx.x; i < chunk.count; i += THREADS) flat.gradients[chunk.at + i] = 0;
    return;
  }
  if (!numbers.active) return;
  if ((chunk.at | chunk.count) % 4 == 0)
    step_chunk<4>(flat, chunk, numbers);
  else
    step_chunk<1>(flat, chunk, numbers);
}

kp_status kp_optimizer_submit_chunks(kp_cuda_optimizer *o, kp_error *error) {
  if (o->chunks.count() == 0) return KP_OK;
  chunks_kernel<<<o->chunks.count(), THREADS, 0, o->cuda->stream>>>(o->flat, o->chunks.at, o->state,
                                                                    o->numbers);
  return kp_optimizer_launched(error);
}
