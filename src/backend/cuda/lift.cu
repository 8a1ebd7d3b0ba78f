/* The lift of vectors to the hyperboloid: times of rows, or of groups of their channels. */
#include "backend/cuda/row_chunks.cuh"

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
__global__ void __launch_bounds__(256)
    kp_lift_kernel(const kp_lift_plan plan, const T *space, const kp_radii radius, const kp_results time) {
  const int lane = threadIdx.x % plan.lanes;
  const int64_t item = ((int64_t)blockIdx.x * 256 + threadIdx.x) / plan.lanes;
  const int64_t row = item / plan.groups, group = item - row * plan.groups;
  double sum = 0;
  if (item < plan.items) {
    const T *at = space + row * plan.pitch + group * plan.D;
#pragma unroll 4
    for (int i = lane; i < plan.chunks; i += plan.lanes) {
      const kp_chunk<T, W> chunk = *(const kp_chunk<T, W> *)(at + (int64_t)i * W);
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
  return kp_blocks(plan.items * plan.lanes, 256);
}

template <typename T, int W>
static void launch_lift(const kp_call *call, const kp_lift_plan &plan, const kp_radii &radius) {
  kp_lift_kernel<T, W><<<lift_blocks(plan), 256, 0, kp_cuda_of(call)->stream>>>(
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
};

/* Bytes: space and direct read, g space written, 3 · N · C · size: bound by memory. */
template <typename T, int W>
__global__ void __launch_bounds__(256)
    kp_lift_backward_kernel(const kp_lift_plan plan, const kp_lift_gradients g) {
  const int lane = threadIdx.x % plan.lanes;
  const int64_t item = ((int64_t)blockIdx.x * 256 + threadIdx.x) / plan.lanes;
  const int64_t row = item / plan.groups, group = item - row * plan.groups;
  if (item >= plan.items) return;
  const float along = g.g_time[row * g.g_time_pitch + group] / g.time[row * plan.time_pitch + group];
  const int64_t offset = row * plan.pitch + group * plan.D;
#pragma unroll 4
  for (int i = lane; i < plan.chunks; i += plan.lanes) {
    const int64_t at = offset + (int64_t)i * W;
    kp_chunk<T, W> out = *(const kp_chunk<T, W> *)((const T *)g.space + at), direct;
    if (g.direct != NULL) direct = *(const kp_chunk<T, W> *)((const T *)g.direct + at);
#pragma unroll
    for (int e = 0; e < W; e++) {
      const float sum =
          (g.direct == NULL ? 0 : kp_to_float(direct.value[e])) + along * kp_to_float(out.value[e]);
      out.value[e] = kp_from_float<T>(W > 1 && i * W + e >= plan.D ? 0 : sum);
    }
    *(kp_chunk<T, W> *)((T *)g.g_space + at) = out;
  }
}

/* The padding of rows whose groups do not fill them. */
template <typename T>
__global__ void kp_lift_padding_kernel(T *rows, int64_t count, int64_t C, int64_t pitch) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count * (pitch - C)) return;
  rows[i / (pitch - C) * pitch + C + i % (pitch - C)] = T(0.0f);
}

/* The gradient of c: half the sum of g time / time, over all rows and, where c is one number, all groups.
 * Bytes: 8 a time; a block has one c, and all of its rows in a fixed order. */
__global__ void __launch_bounds__(1024)
    kp_lift_radius_kernel(const kp_lift_plan plan, const kp_lift_gradients g, bool one, float *g_c) {
  __shared__ double shared[32];
  const int64_t group = blockIdx.x, step = one ? 1 : plan.groups;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = group + threadIdx.x * step; i < plan.items; i += 1024 * step) {
    const int64_t row = i / plan.groups, column = i - row * plan.groups;
    sum += (double)(g.g_time[row * g.g_time_pitch + column] / g.time[row * plan.time_pitch + column]);
  }
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) g_c[group] += (float)(0.5 * sum);
}

template <typename T, int W>
static void launch_backward(const kp_call *call, const kp_lift_plan &plan, const kp_lift_gradients &g) {
  const int64_t C = (int64_t)plan.groups * plan.D, rows = plan.items / plan.groups;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_lift_backward_kernel<T, W><<<lift_blocks(plan), 256, 0, stream>>>(plan, g);
  if (plan.pitch > C && (plan.groups > 1 || !plan.wide))
    kp_lift_padding_kernel<T>
        <<<kp_blocks(rows * (plan.pitch - C), 256), 256, 0, stream>>>((T *)g.g_space, rows, C, plan.pitch);
}

extern "C" kp_status kp_cuda_lift_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_lift_plan plan = plan_of(call, node->input[0], node->input[2]);
  const kp_row_plan rows = kp_row_plan_of(call, node->input[0]);
  if (!kp_row_fits(call, rows, node->input[4]) || !kp_row_fits(call, rows, node->output[0]))
    return kp_row_misfit(call, error);
  const kp_lift_gradients g = {call->input[0],
                               call->input[4],
                               call->output[0],
                               kp_input_numbers(call, 2),
                               kp_input_numbers(call, 3),
                               kp_pitch(node->input[3])};
  if (plan.half && plan.wide)
    launch_backward<kp_half, 8>(call, plan, g);
  else if (plan.half)
    launch_backward<kp_half, 1>(call, plan, g);
  else if (plan.wide)
    launch_backward<float, 4>(call, plan, g);
  else
    launch_backward<float, 1>(call, plan, g);
  if (call->output[1] != NULL) {
    const int64_t count = kp_tensor_count(node->output[1]);
    kp_lift_radius_kernel<<<(int)count, 1024, 0, kp_cuda_of(call)->stream>>>(plan, g, count == 1,
                                                                             (float *)call->output[1]);
  }
  return kp_launched(call, error);
}
