/* Maps: an output whose element i is f of the elements i of up to two inputs.
 *
 * f has a method of chunks, and f of zeros is zero, so that padding stays zero: where all tensors have the
 * same rows, they are long vectors.  An input may be the output: each thread reads what it will write.
 * Bytes: every input once, the output once; that is what bounds them. */
#ifndef KAPPA_BACKEND_CUDA_MAPS_CUH
#define KAPPA_BACKEND_CUDA_MAPS_CUH

#include "backend/cuda/chunks.cuh"

enum { KP_MAP_UNROLL = 2 };

template <typename A, typename B, typename O, typename F>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    kp_map_flat(const A *a, const B *b, O *out, int64_t count, F f) {
  const int64_t chunks = count / KP_CHUNK;
  const int64_t first = (int64_t)blockIdx.x * (KP_MAP_UNROLL * KP_TILE_THREADS) + threadIdx.x;
  kp_chunk<KP_CHUNK> x[KP_MAP_UNROLL], y[KP_MAP_UNROLL];
#pragma unroll
  for (int u = 0; u < KP_MAP_UNROLL; u++) {
    const int64_t chunk = first + u * KP_TILE_THREADS;
    if (chunk >= chunks) break;
    x[u] = kp_read<KP_CHUNK>(a + chunk * KP_CHUNK);
    if (b != NULL) y[u] = kp_read<KP_CHUNK>(b + chunk * KP_CHUNK);
  }
#pragma unroll
  for (int u = 0; u < KP_MAP_UNROLL; u++) {
    const int64_t chunk = first + u * KP_TILE_THREADS;
    if (chunk >= chunks) break;
    kp_write<KP_CHUNK>(out + chunk * KP_CHUNK, f(x[u], y[u]));
  }
  const int64_t rest = chunks * KP_CHUNK + first;
  if (first >= KP_CHUNK || rest >= count) return;
  kp_chunk<1> last = kp_read<1>(a + rest), second = last;
  if (b != NULL) second = kp_read<1>(b + rest);
  kp_write<1>(out + rest, f(last, second));
}

template <typename F>
static __global__ void kp_map_any(kp_elements a, kp_elements b, kp_results out, int64_t columns,
                                  int64_t pitch, int64_t count, F f) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int64_t column = at % pitch, i = at / pitch * columns + column;
  float result = 0;
  if (column < columns) {
    kp_chunk<1> x, y;
    x.value[0] = a[i];
    y.value[0] = b.numbers.at == NULL ? 0 : b[i];
    result = f(x, y).value[0];
  }
  out.set(at, result);
}

/* Whether input i has the output's rows and is aligned. */
static inline bool kp_map_is_flat(const kp_call *call, int i) {
  const kp_tensor *in = call->node->input[i], *out = call->node->output[0];
  return kp_pitch(in) == kp_pitch(out) && kp_tensor_columns(in) == kp_tensor_columns(out) &&
         kp_aligned(call->input[i]);
}

template <typename A, typename B, typename O, typename F>
static inline void kp_map_launch(const kp_call *call, int64_t count, F f, int second) {
  const int blocks = kp_blocks(count, KP_CHUNK * KP_MAP_UNROLL * KP_TILE_THREADS);
  const B *b = second < 0 ? NULL : (const B *)call->input[second];
  kp_map_flat<A, B, O, F><<<blocks, KP_TILE_THREADS, 0, kp_cuda_of(call)->stream>>>(
      (const A *)call->input[0], b, (O *)call->output[0], count, f);
}

/* Output 0 = f(input 0, input 1), or of input 0 alone where there is no other. */
template <typename F> static inline kp_status kp_map(const kp_call *call, F f, kp_error *error) {
  const kp_tensor *out = call->node->output[0];
  const int second = call->node->inputs > 1 && call->input[1] != NULL ? 1 : -1;
  const int64_t count = kp_padded_count(out);
  if (count == 0) return KP_OK;
  const bool a_half = kp_tensor_is_half(call, call->node->input[0]), o_half = kp_tensor_is_half(call, out);
  const bool b_half = second < 0 ? a_half : kp_tensor_is_half(call, call->node->input[1]);
  const bool flat =
      kp_aligned(call->output[0]) && kp_map_is_flat(call, 0) && (second < 0 || kp_map_is_flat(call, 1));
  if (flat && !a_half && !b_half && !o_half) {
    kp_map_launch<float, float, float>(call, count, f, second);
  } else if (flat && a_half && b_half && o_half) {
    kp_map_launch<kp_half, kp_half, kp_half>(call, count, f, second);
  } else if (flat && !a_half && b_half && !o_half) { /* a gradient and what is added to it */
    kp_map_launch<float, kp_half, float>(call, count, f, second);
  } else {
    const kp_elements b = second < 0 ? kp_elements{} : kp_input_elements(call, 1);
    kp_map_any<<<kp_blocks(count, KP_TILE_THREADS), KP_TILE_THREADS, 0, kp_cuda_of(call)->stream>>>(
        kp_input_elements(call, 0), b, kp_output_numbers(call, 0), kp_tensor_columns(out), kp_pitch(out),
        count, f);
  }
  return kp_launched(call, error);
}

#endif
