/* The lift of vectors to the hyperboloid: times of rows, or of groups of their channels. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/row_chunks.cuh"

enum { THREADS = 256, MOST_BLOCKS = 2048 };

/* Teams of `lanes` neighbouring threads, a power of two up to a warp, take one group of channels each. */
struct kp_lift_plan {
  int64_t items, pitch, time_pitch; /* rows times groups */
  unsigned groups;
  int D, chunks, lanes; /* channels and chunks of a group */
  bool wide, half;
};

static kp_lift_plan plan_of(const kp_call *call, const kp_tensor *space, const kp_tensor *time) {
  const kp_row_plan rows = kp_row_plan_of(call, space);
  const int64_t groups = kp_tensor_columns(time), D = rows.C / groups;
  const int size = rows.half ? 8 : 4;
  kp_lift_plan plan = {rows.rows * groups,
                       rows.pitch,
                       kp_pitch(time),
                       (unsigned)groups,
                       (int)D,
                       0,
                       1,
                       rows.wide && (groups == 1 || D % size == 0),
                       rows.half};
  plan.chunks = groups == 1 && plan.wide ? rows.chunks : plan.wide ? (int)(D / size) : (int)D;
  while (plan.lanes < 32 && plan.lanes < plan.chunks) plan.lanes *= 2;
  return plan;
}

/* c of a group, from one number or one a group. */
struct kp_radii {
  kp_numbers c;
  bool one;
  __device__ double operator[](int64_t group) const { return c.at == NULL ? 1 : (double)c[one ? 0 : group]; }
};

/* Bytes: space read, N · C · size, and 4 a time written: bound by memory. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    kp_lift_kernel(const kp_lift_plan plan, const T *space, const kp_radii radius, const kp_results time) {
  const int lane = threadIdx.x % plan.lanes;
  const int64_t item = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / plan.lanes;
  const int64_t row = item / plan.groups, group = item - row * plan.groups;
  double sum = 0;
  if (item < plan.items) {
    const T *at = space + row * plan.pitch + group * plan.D;
#pragma unroll 4
    for (int i = lane; i < plan.chunks; i += plan.lanes) {
      const kp_row_chunk<T, W> chunk = *(const kp_row_chunk<T, W> *)(at + (int64_t)i * W);
      float part = 0;
#pragma unroll
      for (int e = 0; e < W; e++) part += kp_to_float(chunk.value[e]) * kp_to_float(chunk.value[e]);
      sum += (double)part;
    }
  }
  for (int offset = plan.lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane == 0 && item < plan.items)
    time.set(row * plan.time_pitch + group, sqrtf((float)(sum + radius[group])));
}

static int lift_blocks(const kp_lift_plan &plan) {
  return kp_blocks(plan.items * plan.lanes, THREADS);
}

template <typename T, int W>
static void launch_lift(const kp_call *call, const kp_lift_plan &plan, const kp_radii &radius) {
  kp_lift_kernel<T, W><<<lift_blocks(plan), THREADS, 0, kp_cuda_of(call)->stream>>>(
      plan, (const T *)call->input[0], radius, kp_output_numbers(call, 0));
}

extern "C" kp_status kp_cuda_lift(const kp_call *call, kp_error *error) {
  const kp_tensor *c = call->node->input[1];
  const kp_lift_plan plan = plan_of(call, call->node->input[0], call->node->output[0]);
  const kp_radii radius = {kp_input_numbers(call, 1), c != NULL && kp_tensor_count(c) == 1};
  if (plan.half && plan.wide)
    launch_lift<kp_half, 8>(call, plan, radius);
  else if (plan.half)
    launch_lift<kp_half, 1>(call, plan, radius);
  else if (plan.wide)
    launch_lift<float, 4>(call, plan, radius);
  else
    launch_lift<float, 1>(call, plan, radius);
  return kp_launched(call, error);
}

/* ---- backward ---- */

struct kp_lift_gradients {
  const void *space, *direct; /* direct may be NULL */
  void *g_space;              /* may be direct */
  kp_numbers time, g_time;
  int64_t g_time_pitch;
  float *parts; /* of every block: the sum of g time / time, where c is one number; or NULL */
};

/* Bytes: space and direct read, g space written, 3 · N · C · size: bound by memory. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
    kp_lift_backward_kernel(const kp_lift_plan plan, const kp_lift_gradients g) {
  __shared__ float shared[32];
  const int lane = threadIdx.x % plan.lanes;
  const int64_t stride = (int64_t)gridDim.x * (THREADS / plan.lanes);
  float total = 0;
  for (int64_t item = (int64_t)blockIdx.x * (THREADS / plan.lanes) + threadIdx.x / plan.lanes;
       item < plan.items; item += stride) {
    const int64_t row = item / plan.groups, group = item - row * plan.groups;
    const float along = g.g_time[row * g.g_time_pitch + group] / g.time[row * plan.time_pitch + group];
    const int64_t offset = row * plan.pitch + group * plan.D;
    if (lane == 0) total += along;
#pragma unroll 4
    for (int i = lane; i < plan.chunks; i += plan.lanes) {
      const int64_t at = offset + (int64_t)i * W;
      const kp_row_chunk<T, W> space = kp_load_chunk<T, W>((const T *)g.space + at);
      kp_row_chunk<T, W> direct = space;
      if (g.direct != NULL) direct = kp_load_chunk<T, W>((const T *)g.direct + at);
      float sum[W];
#pragma unroll
      for (int e = 0; e < W; e++)
        sum[e] = (g.direct == NULL ? 0 : kp_to_float(direct.value[e])) + along * kp_to_float(space.value[e]);
      kp_put_chunk<T, W>((T *)g.g_space + offset, (int64_t)i * W, plan.D, sum);
    }
  }
  if (g.parts == NULL) return;
  total = kp_block_sum(total, shared);
  if (threadIdx.x == 0) g.parts[blockIdx.x] = 0.5f * total;
}

/* The padding of rows whose groups do not fill them. */
template <typename T>
__global__ void kp_lift_padding_kernel(T *rows, int64_t count, int64_t C, int64_t pitch) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count * (pitch - C)) return;
  rows[i / (pitch - C) * pitch + C + i % (pitch - C)] = T(0.0f);
}

/* The gradients of c where each group has one: half the sums of g time / time over all rows.  Bytes: 8 a
 * time; a block has a group. */
__global__ void __launch_bounds__(1024)
    kp_lift_radius_kernel(const kp_lift_plan plan, const kp_lift_gradients g, float *g_c) {
  __shared__ double shared[32];
  const int64_t group = blockIdx.x, rows = plan.items / plan.groups;
  double sum = 0;
#pragma unroll 4
  for (int64_t row = threadIdx.x; row < rows; row += 1024)
    sum += (double)(g.g_time[row * g.g_time_pitch + group] / g.time[row * plan.time_pitch + group]);
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) g_c[group] += (float)(0.5 * sum);
}

extern "C" size_t kp_cuda_scratch_lift_backward(const kp_node *node, int threads) {
  (void)node;
  (void)threads;
  return MOST_BLOCKS * sizeof(float);
}

template <typename T, int W>
static kp_status launch_backward(const kp_call *call, const kp_lift_plan &plan, const kp_lift_gradients &g,
                                 kp_error *error) {
  const int64_t C = (int64_t)plan.groups * plan.D, rows = plan.items / plan.groups;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const int blocks = kp_resident_blocks(call, (const void *)kp_lift_backward_kernel<T, W>, THREADS, 0,
                                        (plan.items * plan.lanes + THREADS - 1) / THREADS, MOST_BLOCKS);
  kp_lift_backward_kernel<T, W><<<blocks, THREADS, 0, stream>>>(plan, g);
  if (plan.pitch > C && plan.groups > 1)
    kp_lift_padding_kernel<T><<<kp_blocks(rows * (plan.pitch - C), THREADS), THREADS, 0, stream>>>(
        (T *)g.g_space, rows, C, plan.pitch);
  KP_TRY(kp_launched(call, error));
  const kp_column_sums sums = {g.parts, blocks, 1, {{0, 1, (float *)call->output[1]}}};
  return g.parts == NULL ? KP_OK : kp_add_columns(call, &sums, 1, error);
}

static kp_status choose_backward(const kp_call *call, const kp_lift_plan &plan, const kp_lift_gradients &g,
                                 kp_error *error) {
  if (plan.half && plan.wide) return launch_backward<kp_half, 8>(call, plan, g, error);
  if (plan.half) return launch_backward<kp_half, 1>(call, plan, g, error);
  if (plan.wide) return launch_backward<float, 4>(call, plan, g, error);
  return launch_backward<float, 1>(call, plan, g, error);
}

extern "C" kp_status kp_cuda_lift_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_lift_plan plan = plan_of(call, node->input[0], node->input[2]);
  const kp_row_plan rows = kp_row_plan_of(call, node->input[0]);
  if (!kp_row_fits(call, rows, node->input[4]) || !kp_row_fits(call, rows, node->output[0]))
    return kp_row_misfit(call, error);
  const int64_t radii = call->output[1] == NULL ? 0 : kp_tensor_count(node->output[1]);
  const kp_lift_gradients g = {call->input[0],
                               call->input[4],
                               call->output[0],
                               kp_input_numbers(call, 2),
                               kp_input_numbers(call, 3),
                               kp_pitch(node->input[3]),
                               radii == 1 ? (float *)call->scratch : NULL};
  KP_TRY(choose_backward(call, plan, g, error));
  if (radii > 1)
    kp_lift_radius_kernel<<<(int)radii, 1024, 0, kp_cuda_of(call)->stream>>>(plan, g,
                                                                             (float *)call->output[1]);
  return kp_launched(call, error);
}
