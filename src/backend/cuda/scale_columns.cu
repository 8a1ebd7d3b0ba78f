/* The scaling of columns.
 *
 * A block has a strip of columns, a chunk of 16 bytes a thread, and every so-many-th line of rows; the
 * factors of its columns stay in registers. */
#include "backend/cuda/columns.cuh"
#include "backend/cuda/row_chunks.cuh"

enum { MOST_THREADS = 256, ROWS_AT_ONCE = 4 };

/* The blocks are (strips, lines of blocks); in a block `lines` rows are side by side, `width` chunks each. */
struct kp_strips {
  int64_t rows, pitch, C;
  int chunks, width, lines;
  int strips, blocks;
};

static kp_strips strips_of(const kp_call *call, const kp_row_plan &plan) {
  kp_strips s = {plan.rows, plan.pitch, plan.C, plan.chunks, 0, 0, 0, 0};
  s.strips = (plan.chunks + MOST_THREADS - 1) / MOST_THREADS;
  s.width = (plan.chunks + s.strips - 1) / s.strips;
  s.lines = MOST_THREADS / s.width;
  const int64_t wanted = (plan.rows + s.lines * ROWS_AT_ONCE - 1) / (s.lines * ROWS_AT_ONCE);
  const int64_t resident = ((int64_t)kp_cuda_of(call)->processors * 8 + s.strips - 1) / s.strips;
  const int64_t most = resident < kp_column_parts(plan.C) ? resident : kp_column_parts(plan.C);
  s.blocks = (int)(wanted < 1 ? 1 : wanted < most ? wanted : most);
  return s;
}

/* A thread's chunk of columns, its first row, and the distance of its rows. */
struct kp_strip_place {
  int chunk, line;
  int64_t row, stride;
  bool there;
  __device__ explicit kp_strip_place(const kp_strips &s) {
    const int column = (int)threadIdx.x % s.width;
    line = (int)threadIdx.x / s.width;
    chunk = (int)blockIdx.x * s.width + column;
    row = (int64_t)blockIdx.y * s.lines + line, stride = (int64_t)gridDim.y * s.lines;
    there = line < s.lines && chunk < s.chunks;
  }
};

/* Bytes: x read and written, 2 · N · C · size: bound by memory. */
template <typename T, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    kp_scale_columns_kernel(const kp_strips s, const T *x, T *out, const kp_vector columns, float scale) {
  const kp_strip_place at(s);
  if (!at.there) return;
  float factor[W];
  kp_get_columns<W>(columns, (int64_t)at.chunk * W, s.C, factor);
#pragma unroll
  for (int e = 0; e < W; e++) factor[e] *= scale;
#pragma unroll 4
  for (int64_t n = at.row; n < s.rows; n += at.stride) {
    const int64_t offset = n * s.pitch + (int64_t)at.chunk * W;
    kp_row_chunk<T, W> chunk = *(const kp_row_chunk<T, W> *)(x + offset);
#pragma unroll
    for (int e = 0; e < W; e++) chunk.value[e] = kp_from_float<T>(factor[e] * kp_to_float(chunk.value[e]));
    *(kp_row_chunk<T, W> *)(out + offset) = chunk;
  }
}

/* The strips' own columns of the block's part: the lines' sums, one after the other. */
template <int W>
__device__ static void write_part(const kp_strips &s, const kp_strip_place &at, const float (&sum)[W],
                                  float *part) {
  __shared__ float shared[MOST_THREADS * W];
  for (int line = 0; line < s.lines; line++) {
    if (at.line == line)
#pragma unroll
      for (int e = 0; e < W; e++) {
        float *total = &shared[e * MOST_THREADS + threadIdx.x - line * s.width];
        *total = (line == 0 ? 0 : *total) + sum[e];
      }
    __syncthreads();
  }
  if (at.line > 0 || !at.there) return;
  for (int e = 0; e < W && (int64_t)at.chunk * W + e < s.C; e++)
    part[(int64_t)at.chunk * W + e] = shared[e * MOST_THREADS + threadIdx.x];
}

/* Bytes: x and g read, g x written, 3 · N · C · size: bound by memory.  g x may be g. */
template <typename T, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    kp_scale_columns_backward_kernel(const kp_strips s, const T *x, const T *g, T *gx,
                                     const kp_vector columns, float scale, float *parts) {
  const kp_strip_place at(s);
  float factor[W], sum[W];
#pragma unroll
  for (int e = 0; e < W; e++) factor[e] = sum[e] = 0;
  if (at.there) {
    kp_get_columns<W>(columns, (int64_t)at.chunk * W, s.C, factor);
#pragma unroll 4
    for (int64_t n = at.row; n < s.rows; n += at.stride) {
      const int64_t offset = n * s.pitch + (int64_t)at.chunk * W;
      const kp_row_chunk<T, W> values = *(const kp_row_chunk<T, W> *)(x + offset);
      kp_row_chunk<T, W> chunk = *(const kp_row_chunk<T, W> *)(g + offset);
#pragma unroll
      for (int e = 0; e < W; e++) {
        const float bar = scale * kp_to_float(chunk.value[e]);
        sum[e] += bar * kp_to_float(values.value[e]);
        chunk.value[e] = kp_from_float<T>(factor[e] * bar);
      }
      *(kp_row_chunk<T, W> *)(gx + offset) = chunk;
    }
  }
  if (parts != NULL) write_part<W>(s, at, sum, parts + blockIdx.y * s.C);
}

template <typename T, int W> static void launch(const kp_call *call, const kp_strips &s) {
  const float scale = (float)((const kp_scale_arguments *)call->node->arguments)->scale;
  kp_scale_columns_kernel<T, W><<<dim3(s.strips, s.blocks), MOST_THREADS, 0, kp_cuda_of(call)->stream>>>(
      s, (const T *)call->input[0], (T *)call->output[0], kp_vector_of(call->input[1], 1), scale);
}

template <typename T, int W> static void launch_backward(const kp_call *call, const kp_strips &s) {
  const float scale = (float)((const kp_scale_arguments *)call->node->arguments)->scale;
  float *parts = call->output[1] == NULL ? NULL : (float *)call->scratch;
  kp_scale_columns_backward_kernel<T, W>
      <<<dim3(s.strips, s.blocks), MOST_THREADS, 0, kp_cuda_of(call)->stream>>>(
          s, (const T *)call->input[0], (const T *)call->input[2], (T *)call->output[0],
          kp_vector_of(call->input[1], 1), scale, parts);
}

extern "C" kp_status kp_cuda_scale_columns(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->output[0]) || kp_tensor_is_half(call, call->node->input[1]))
    return kp_row_misfit(call, error);
  const kp_strips s = strips_of(call, plan);
  if (plan.half && plan.wide)
    launch<kp_half, 8>(call, s);
  else if (plan.half)
    launch<kp_half, 1>(call, s);
  else if (plan.wide)
    launch<float, 4>(call, s);
  else
    launch<float, 1>(call, s);
  return kp_launched(call, error);
}

extern "C" size_t kp_cuda_scratch_scale_columns_backward(const kp_node *node, int threads) {
  (void)threads;
  const int64_t columns = kp_tensor_columns(node->input[0]);
  return (size_t)(kp_column_parts(columns) * columns) * sizeof(float);
}

extern "C" kp_status kp_cuda_scale_columns_backward(const kp_call *call, kp_error *error) {
  const kp_row_plan plan = kp_row_plan_of(call, call->node->input[0]);
  if (!kp_row_fits(call, plan, call->node->input[2]) || !kp_row_fits(call, plan, call->node->output[0]) ||
      kp_tensor_is_half(call, call->node->input[1]))
    return kp_row_misfit(call, error);
  const kp_strips s = strips_of(call, plan);
  if (plan.half && plan.wide)
    launch_backward<kp_half, 8>(call, s);
  else if (plan.half)
    launch_backward<kp_half, 1>(call, s);
  else if (plan.wide)
    launch_backward<float, 4>(call, s);
  else
    launch_backward<float, 1>(call, s);
  KP_TRY(kp_launched(call, error));
  const kp_column_sums sums = {
      (const float *)call->scratch, s.blocks, s.C, {{0, s.C, (float *)call->output[1]}}};
  return kp_add_columns(call, &sums, s.C, error);
}
