/* Operators on elements: add, zero, scale, sum. */
#include "backend/cuda/maps.cuh"

/* ---- add, zero, scale ---- */

struct kp_addition {
  template <int W> __device__ kp_chunk<W> operator()(kp_chunk<W> a, const kp_chunk<W> &b) const {
#pragma unroll
    for (int i = 0; i < W; i++) a.value[i] += b.value[i];
    return a;
  }
};

struct kp_scaling {
  float scale;
  template <int W> __device__ kp_chunk<W> operator()(kp_chunk<W> x, const kp_chunk<W> &) const {
#pragma unroll
    for (int i = 0; i < W; i++) x.value[i] *= scale;
    return x;
  }
};

extern "C" kp_status kp_cuda_add(const kp_call *call, kp_error *error) {
  return kp_map(call, kp_addition{}, error);
}

extern "C" kp_status kp_cuda_scale(const kp_call *call, kp_error *error) {
  const kp_scale_arguments *arguments = (const kp_scale_arguments *)call->node->arguments;
  return kp_map(call, kp_scaling{(float)arguments->scale}, error);
}

extern "C" kp_status kp_cuda_zero(const kp_call *call, kp_error *error) {
  const kp_tensor *out = call->node->output[0];
  const size_t size = kp_tensor_is_half(call, out) ? sizeof(kp_half) : sizeof(float);
  const size_t bytes = (size_t)kp_padded_count(out) * size;
  if (bytes == 0) return KP_OK;
  return kp_cuda_check(cudaMemsetAsync(call->output[0], 0, bytes, kp_cuda_of(call)->stream), "zero", error);
}

/* ---- sum ---- */

/* Blocks of the first pass, and so partial sums: their number depends on nothing but this. */
enum { SUM_BLOCKS = 1024 };

/* Reads all elements once, padding included: bound by that. */
template <typename T>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    sum_blocks(const T *x, int64_t count, bool wide, double *partial) {
  __shared__ double shared[32];
  const int64_t chunks = wide ? count / KP_CHUNK : 0;
  const int64_t first = (int64_t)blockIdx.x * KP_TILE_THREADS + threadIdx.x;
  double sum = 0;
#pragma unroll 4
  for (int64_t chunk = first; chunk < chunks; chunk += SUM_BLOCKS * KP_TILE_THREADS) {
    const kp_chunk<KP_CHUNK> c = kp_read<KP_CHUNK>(x + chunk * KP_CHUNK);
    const float low = (c.value[0] + c.value[1]) + (c.value[2] + c.value[3]);
    const float high = (c.value[4] + c.value[5]) + (c.value[6] + c.value[7]);
    sum += (double)low + (double)high;
  }
  for (int64_t i = chunks * KP_CHUNK + first; i < count; i += SUM_BLOCKS * KP_TILE_THREADS)
    sum += (double)kp_to_float(x[i]);
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static __global__ void sum_partials(const double *partial, double scale, kp_results out) {
  __shared__ double shared[32];
  const double sum = kp_block_sum(partial[threadIdx.x], shared);
  if (threadIdx.x == 0) out.set(0, (float)(scale * sum));
}

extern "C" size_t kp_cuda_scratch_sum(const kp_node *node, int threads) {
  (void)node, (void)threads;
  return SUM_BLOCKS * sizeof(double);
}

extern "C" kp_status kp_cuda_sum(const kp_call *call, kp_error *error) {
  const kp_scale_arguments *arguments = (const kp_scale_arguments *)call->node->arguments;
  const int64_t count = kp_padded_count(call->node->input[0]);
  const bool wide = kp_aligned(call->input[0]);
  double *partial = (double *)call->scratch;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (kp_tensor_is_half(call, call->node->input[0]))
    sum_blocks<<<SUM_BLOCKS, KP_TILE_THREADS, 0, stream>>>((const kp_half *)call->input[0], count, wide,
                                                           partial);
  else
    sum_blocks<<<SUM_BLOCKS, KP_TILE_THREADS, 0, stream>>>((const float *)call->input[0], count, wide,
                                                           partial);
  sum_partials<<<1, SUM_BLOCKS, 0, stream>>>(partial, arguments->scale, kp_output_numbers(call, 0));
  return kp_launched(call, error);
}

constexpr int FILL_ROWS = 4; /* of a thread */

/* Writes every element once: bound by that. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    fill_rows(kp_numbers g, float scale, T *out, int64_t rows, int64_t columns, int64_t pitch,
              int64_t chunks) {
  const kp_place place = kp_place_of(FILL_ROWS);
  if (place.chunk >= chunks) return;
  const float value = scale * g[0];
  kp_chunk<W> chunk;
#pragma unroll
  for (int i = 0; i < W; i++) chunk.value[i] = place.chunk * W + i < columns ? value : 0.0f;
#pragma unroll
  for (int i = 0; i < FILL_ROWS; i++) {
    const int64_t row = place.row + i * place.step;
    if (row < rows) kp_write<W>(out + row * pitch + place.chunk * W, chunk);
  }
}

extern "C" kp_status kp_cuda_sum_backward(const kp_call *call, kp_error *error) {
  const kp_scale_arguments *arguments = (const kp_scale_arguments *)call->node->arguments;
  const kp_tensor *out = call->node->output[0];
  const int64_t rows = kp_tensor_rows(out), columns = kp_tensor_columns(out), pitch = kp_pitch(out);
  if (rows * columns == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, out), kp_output_is_wide(call, 0), [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(rows, pitch / W, FILL_ROWS);
    fill_rows<T, W><<<tile.grid, tile.block, 0, kp_cuda_of(call)->stream>>>(
        kp_input_numbers(call, 0), (float)arguments->scale, (T *)call->output[0], rows, columns, pitch,
        tile.chunks);
  });
  return kp_launched(call, error);
}
