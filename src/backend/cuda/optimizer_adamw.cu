/* AdamW over runs of elements, one pass over memory: reads value, gradient and both moments, writes value,
 * moments, the narrow value, and zeroes the gradient: 34 bytes an element, and bound by them. */
#include "backend/cuda/optimizer.cuh"

enum { THREADS = 256 };

template <int W>
static __device__ void step_chunk(const kp_flat &flat, const kp_chunk &chunk, const kp_adamw_numbers &f) {
  for (int i = (int)threadIdx.x * W; i < chunk.count; i += THREADS * W) {
    const int64_t at = chunk.at + i;
    const kp_span<W> value = kp_take<W>(flat.values + at), gradient = kp_take<W>(flat.gradients + at);
    kp_span<W> mean = kp_take<W>(flat.moment1 + at), square = kp_take<W>(flat.moment2 + at);
    kp_put_values<W>(flat, at, kp_adamw<W>(f, value, gradient, mean, square));
    kp_put<W>(flat.moment1 + at, mean);
    kp_put<W>(flat.moment2 + at, square);
    kp_clear<W>(flat.gradients + at);
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
