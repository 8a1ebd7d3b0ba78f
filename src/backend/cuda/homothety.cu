/* Homotheties: points of one hyperboloid moved to another along the rays from the origin of coordinates. */
#include "backend/cuda/row_chunks.cuh"

enum { THREADS = 256, PER_THREAD = 4, MOST_PARTS = 1024 };

/* f = √(to / from); absent: 1. */
struct kp_homothety_factor {
  kp_numbers from, to;
  __device__ double radius_from() const { return from.at == NULL ? 1 : (double)from[0]; }
  __device__ double radius_to() const { return to.at == NULL ? 1 : (double)to[0]; }
  __device__ double operator()() const { return sqrt(radius_to() / radius_from()); }
};

/* The times of points: few, and of either width. */
struct kp_times {
  int64_t count;
  unsigned columns;
  int64_t pitch, g_pitch, out_pitch;
};

static kp_times times_of(const kp_tensor *time, const kp_tensor *g, const kp_tensor *out) {
  const int64_t pitch = kp_pitch(time);
  return kp_times{kp_tensor_count(time), (unsigned)kp_tensor_columns(time), pitch,
                  g == NULL ? pitch : kp_pitch(g), out == NULL ? pitch : kp_pitch(out)};
}

static kp_homothety_factor factor_of(const kp_call *call) {
  return kp_homothety_factor{kp_input_numbers(call, 2), kp_input_numbers(call, 3)};
}

/* Bytes: the space part read and written, 2 · N · C · size, and 8 a time: bound by memory.  Padding stays
 * zero, for it is multiplied. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    kp_homothety_kernel(const kp_homothety_factor of, const T *space, T *out, int64_t chunks,
                        const kp_times times, const kp_numbers time, const kp_results out_time) {
  const float factor = (float)of();
  const int64_t stride = (int64_t)gridDim.x * THREADS, first = (int64_t)blockIdx.x * THREADS + threadIdx.x;
#pragma unroll 4
  for (int64_t i = first; i < chunks; i += stride) {
    kp_row_chunk<T, W> chunk = *(const kp_row_chunk<T, W> *)(space + i * W);
#pragma unroll
    for (int e = 0; e < W; e++) chunk.value[e] = kp_from_float<T>(factor * kp_to_float(chunk.value[e]));
    *(kp_row_chunk<T, W> *)(out + i * W) = chunk;
  }
  for (int64_t i = first; i < times.count; i += stride) {
    const int64_t row = i / times.columns, column = i - row * times.columns;
    out_time.set(row * times.out_pitch + column, factor * time[row * times.pitch + column]);
  }
}

/* Chunks of a whole padded tensor, and blocks for them. */
static int64_t chunks_of(const kp_tensor *tensor, int W) {
  return kp_padded_count(tensor) / W;
}

static int blocks_of(const kp_call *call, int64_t chunks) {
  const int64_t most = 8 * kp_cuda_of(call)->processors;
  return kp_blocks(chunks, THREADS * PER_THREAD, most < MOST_PARTS ? most : (int64_t)MOST_PARTS);
}

template <typename T, int W> static void launch_homothety(const kp_call *call) {
  const int64_t chunks = chunks_of(call->node->input[0], W);
  const kp_times times = times_of(call->node->input[1], NULL, call->node->output[1]);
  kp_homothety_kernel<T, W><<<blocks_of(call, chunks), THREADS, 0, kp_cuda_of(call)->stream>>>(
      factor_of(call), (const T *)call->input[0], (T *)call->output[0], chunks, times,
      kp_input_numbers(call, 1), kp_output_numbers(call, 1));
}

extern "C" kp_status kp_cuda_homothety(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->output[0])) return kp_row_misfit(call, error);
  if (plan.half && plan.wide)
    launch_homothety<kp_half, 8>(call);
  else if (plan.half)
    launch_homothety<kp_half, 1>(call);
  else if (plan.wide)
    launch_homothety<float, 4>(call);
  else
    launch_homothety<float, 1>(call);
  return kp_launched(call, error);
}

/* ---- backward ---- */

struct kp_homothety_gradients {
  const void *space, *g; /* g NULL: none arrives at the space part */
  void *g_space;         /* NULL: not wanted */
  int64_t chunks;
  kp_times times;
  kp_numbers time, g_time;
  kp_results g_time_out;
  double *parts; /* of every block: the sum of x · g; NULL: not wanted */
};

/* Bytes: the space part and its gradient read, one gradient written, 3 · N · C · size: bound by memory. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    kp_homothety_backward_kernel(const kp_homothety_factor of, const kp_homothety_gradients k) {
  __shared__ double shared[32];
  const float factor = (float)of();
  const int64_t stride = (int64_t)gridDim.x * THREADS, first = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  double sum = 0;
  if (k.g != NULL) {
#pragma unroll 4
    for (int64_t i = first; i < k.chunks; i += stride) {
      kp_row_chunk<T, W> x = *(const kp_row_chunk<T, W> *)((const T *)k.space + i * W);
      const kp_row_chunk<T, W> g = *(const kp_row_chunk<T, W> *)((const T *)k.g + i * W);
      float part = 0;
#pragma unroll
      for (int e = 0; e < W; e++) {
        part += kp_to_float(x.value[e]) * kp_to_float(g.value[e]);
        x.value[e] = kp_from_float<T>(factor * kp_to_float(g.value[e]));
      }
      sum += (double)part;
      if (k.g_space != NULL) *(kp_row_chunk<T, W> *)((T *)k.g_space + i * W) = x;
    }
  }
  if (k.g_time.at != NULL) {
    for (int64_t i = first; i < k.times.count; i += stride) {
      const int64_t row = i / k.times.columns, column = i - row * k.times.columns;
      const float g = k.g_time[row * k.times.g_pitch + column];
      sum += (double)k.time[row * k.times.pitch + column] * (double)g;
      if (k.g_time_out.at != NULL) k.g_time_out.set(row * k.times.out_pitch + column, factor * g);
    }
  }
  if (k.parts == NULL) return;
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) k.parts[blockIdx.x] = sum;
}

/* One block: f Σ x g is the derivative with respect to log f, and log f = (log to - log from) / 2. */
__global__ void kp_homothety_radii_kernel(const kp_homothety_factor of, const double *parts, int count,
                                          float *g_from, float *g_to) {
  __shared__ double shared[32];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
  sum = kp_block_sum(sum, shared) * of();
  if (threadIdx.x > 0) return;
  if (g_from != NULL) *g_from -= (float)(sum / (2 * of.radius_from()));
  if (g_to != NULL) *g_to += (float)(sum / (2 * of.radius_to()));
}

extern "C" size_t kp_cuda_scratch_homothety_backward(const kp_node *node, int threads) {
  (void)node;
  (void)threads;
  return MOST_PARTS * sizeof(double);
}

template <typename T, int W> static void launch_backward(const kp_call *call) {
  const kp_node *node = call->node;
  const bool wanted = call->output[2] != NULL || call->output[3] != NULL;
  const kp_homothety_gradients k = {call->input[0],
                                    call->input[4],
                                    call->output[0],
                                    chunks_of(node->input[0], W),
                                    times_of(node->input[1], node->input[5], node->output[1]),
                                    kp_input_numbers(call, 1),
                                    kp_input_numbers(call, 5),
                                    kp_output_numbers(call, 1),
                                    wanted ? (double *)call->scratch : NULL};
  const int blocks = blocks_of(call, k.chunks);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_homothety_backward_kernel<T, W><<<blocks, THREADS, 0, stream>>>(factor_of(call), k);
  if (wanted)
    kp_homothety_radii_kernel<<<1, THREADS, 0, stream>>>(factor_of(call), k.parts, blocks,
                                                         (float *)call->output[2], (float *)call->output[3]);
}

extern "C" kp_status kp_cuda_homothety_backward(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->input[4]) || !kp_row_fits(call, plan, call->node->output[0]))
    return kp_row_misfit(call, error);
  if (plan.half && plan.wide)
    launch_backward<kp_half, 8>(call);
  else if (plan.half)
    launch_backward<kp_half, 1>(call);
  else if (plan.wide)
    launch_backward<float, 4>(call);
  else
    launch_backward<float, 1>(call);
  return kp_launched(call, error);
}
