/* Sums for the gradients of experts' vectors and scales: each reads gy once, R M sizeof(T) bytes, and y where
 * the scales want it.
 *
 * An expert's rows are cut into slices.  A block sums a slice of 32 V columns; then one block an expert adds
 * the slices in their order. */
#include "backend/cuda/grouped_linear.cuh"
#include "backend/cuda/linear.cuh"

enum { WARPS = 8, MOST_SLICES = 64, SLICES_OF_ALL = 256, NARROWEST = 32 };

static int slices_of(int64_t experts) {
  const int64_t each = SLICES_OF_ALL / (experts < 1 ? 1 : experts);
  return each < 1 ? 1 : each > MOST_SLICES ? (int)MOST_SLICES : (int)each;
}

/* (E, slices, M) twice, (E, slices, tiles), and (E, parts): parts of 32 columns. */
struct partial_sums {
  float *plain, *with_time, *with_output;
  double *with_bias;
  int slices, parts;
  int64_t tiles;
};

static int64_t parts_of(int64_t M) {
  return (M + NARROWEST - 1) / NARROWEST;
}

size_t kp_grouped_sums_scratch(int64_t experts, int64_t M) {
  const int64_t parts = parts_of(M);
  return (size_t)(experts * slices_of(experts) * (2 * M + parts)) * sizeof(float) +
         (size_t)(experts * parts) * sizeof(double);
}

template <int V>
__device__ static void sum_warps(const float *sum, float *to, int64_t first, int64_t columns, float *shared) {
  const int lane = threadIdx.x, warp = threadIdx.y;
  for (int i = 0; i < V; i++) shared[(warp * V + i) * 32 + lane] = sum[i];
  __syncthreads();
  for (int i = warp; i < V; i += WARPS) {
    float total = 0;
    for (int w = 0; w < WARPS; w++) total += shared[(w * V + i) * 32 + lane];
    const int64_t column = first + lane * V + i;
    if (column < columns) to[column] = total;
  }
  __syncthreads();
}

/* The block's part of <gy, y>: its warps' in their order. */
__device__ static inline void write_output(const partial_sums &p, float output, int64_t place,
                                           float *shared) {
  const int lane = threadIdx.x, warp = threadIdx.y;
  output = kp_warp_sum(output);
  if (lane == 0) shared[warp] = output;
  __syncthreads();
  if (lane > 0 || warp > 0) return;
  for (int w = 1; w < WARPS; w++) output += shared[w];
  p.with_output[place] = output;
}

/* SCALED: with <gy, y> of the scales.  UNROLL rows are on their way at a time. */
template <typename T, int V, bool SCALED>
static __global__ void __launch_bounds__(32 * WARPS, 3) slice_kernel(kp_grouped_sums s, partial_sums p) {
  constexpr int UNROLL = SCALED ? 2 : 4;
  __shared__ float shared[WARPS * V * 32];
  const int lane = threadIdx.x, warp = threadIdx.y, expert = blockIdx.z, slice = blockIdx.y;
  const kp_expert_rows rows = kp_rows_of_expert(s.offsets, expert, s.rows);
  const int64_t length = (rows.count + p.slices - 1) / p.slices;
  const int64_t begin = min(slice * length, rows.count), end = min(begin + length, rows.count);
  const int64_t first_column = (int64_t)blockIdx.x * 32 * V, column = first_column + lane * V;
  const bool inside = column < s.M, timed = p.with_time != NULL;
  const T *gy = (const T *)s.gy + column, *y = (const T *)s.y + column;
  float plain[V] = {}, with_time[V] = {}, output = 0;
  for (int64_t row = begin + warp; row < end; row += WARPS * UNROLL) {
    kp_columns<T, V> g[UNROLL], u[UNROLL];
    float time[UNROLL] = {};
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      const int64_t r = row + i * WARPS, at = rows.first + r;
      g[i] = kp_read_columns<T, V>(gy + at * s.pitch, inside && r < end);
      if (SCALED) u[i] = kp_read_columns<T, V>(y + at * s.y_pitch, inside && r < end);
      if (timed && r < end) time[i] = s.time[at];
    }
#pragma unroll
    for (int i = 0; i < UNROLL; i++)
#pragma unroll
      for (int j = 0; j < V; j++) {
        const float value = kp_to_float(g[i].value[j]);
        plain[j] += value;
        with_time[j] += time[i] * value;
        if (SCALED) output += value * kp_to_float(u[i].value[j]);
      }
  }
  const int64_t place = (int64_t)expert * p.slices + slice;
  sum_warps<V>(plain, p.plain + place * s.M, first_column, s.M, shared);
  if (timed) sum_warps<V>(with_time, p.with_time + place * s.M, first_column, s.M, shared);
  if constexpr (SCALED) write_output(p, output, place * p.tiles + blockIdx.x, shared);
}

/* The sums over an expert's slices, added to the gradients: 32 columns a block, whose WARPS parts of slices
 * are added in order.  What columns have of <gy, b> goes to scratch memory. */
static __global__ void add_slices(kp_grouped_sums s, partial_sums p) {
  __shared__ float shared[2][WARPS][32];
  const int lane = threadIdx.x, part = threadIdx.y, expert = blockIdx.y;
  const float a = kp_scale_of(s.in, expert), o = kp_scale_of(s.out, expert);
  const int64_t m = (int64_t)blockIdx.x * 32 + lane, from = (int64_t)expert * p.slices * s.M + m;
  float sum = 0, timed = 0;
#pragma unroll 4
  for (int i = part; i < p.slices && m < s.M; i += WARPS) {
    sum += p.plain[from + i * s.M];
    if (p.with_time != NULL) timed += p.with_time[from + i * s.M];
  }
  shared[0][part][lane] = sum;
  shared[1][part][lane] = timed;
  __syncthreads();
  if (part > 0) return;
  for (int i = 1; i < WARPS; i++) {
    sum += shared[0][i][lane];
    timed += shared[1][i][lane];
  }
  double with_bias = 0;
  if (m < s.M) {
    if (s.bias_gradient.at != NULL) s.bias_gradient.add(expert * s.bias_gradient_pitch + m, o * sum);
    if (s.time_weight.at != NULL) s.time_weight.add(expert * s.time_weight_pitch + m, o * a * timed);
    if (s.bias.at != NULL) with_bias = (double)s.bias[expert * s.bias_pitch + m] * (double)sum;
  }
  with_bias = kp_warp_sum(with_bias);
  if (lane == 0 && p.with_bias != NULL) p.with_bias[expert * p.parts + blockIdx.x] = with_bias;
}

/* One block an expert: g_o = Σ <gy, y>/o and g_a = (Σ <gy, y> - o Σ <gy, b>)/a. */
static __global__ void add_scales(kp_grouped_sums s, partial_sums p) {
  __shared__ double shared[2][32];
  const int expert = blockIdx.x;
  const double a = (double)kp_scale_of(s.in, expert), o = (double)kp_scale_of(s.out, expert);
  const int64_t count = p.slices * p.tiles;
  double with_bias = 0, with_output = 0;
  for (int64_t i = threadIdx.x; i < p.parts; i += blockDim.x) with_bias += p.with_bias[expert * p.parts + i];
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x)
    with_output += (double)p.with_output[expert * count + i];
  with_bias = kp_block_sum(with_bias, shared[0]);
  with_output = kp_block_sum(with_output, shared[1]);
  if (threadIdx.x > 0) return;
  if (s.in_gradient.at != NULL) s.in_gradient.add(expert, (float)((with_output - o * with_bias) / a));
  if (s.out_gradient.at != NULL) s.out_gradient.add(expert, (float)(with_output / o));
}

template <typename T, int V>
static void launch(const kp_call *call, const kp_grouped_sums *s, partial_sums *p) {
  p->tiles = (s->M + 32 * V - 1) / (32 * V);
  const dim3 grid((unsigned)p->tiles, (unsigned)p->slices, (unsigned)s->experts);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p->with_output != NULL)
    slice_kernel<T, V, true><<<grid, dim3(32, WARPS), 0, stream>>>(*s, *p);
  else
    slice_kernel<T, V, false><<<grid, dim3(32, WARPS), 0, stream>>>(*s, *p);
}

kp_status kp_grouped_sum(const kp_call *call, const kp_grouped_sums *s, void *scratch, kp_error *error) {
  const bool whole = s->pitch % KP_CUDA_ROW_MULTIPLE == 0;
  const bool scales = s->y != NULL && (s->in_gradient.at != NULL || s->out_gradient.at != NULL);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  partial_sums p = {};
  p.slices = slices_of(s->experts);
  p.parts = (int)parts_of(s->M);
  const int64_t sums = (int64_t)s->experts * p.slices * s->M;
  p.with_bias = scales ? (double *)scratch : NULL;
  p.plain = (float *)((double *)scratch + s->experts * p.parts);
  p.with_time = s->time_weight.at == NULL || s->time.at == NULL ? NULL : p.plain + sums;
  p.with_output = scales ? p.plain + 2 * sums : NULL;
  if (kp_is_half(call))
    whole ? launch<kp_half, 8>(call, s, &p) : launch<kp_half, 1>(call, s, &p);
  else
    whole ? launch<float, 4>(call, s, &p) : launch<float, 1>(call, s, &p);
  add_slices<<<dim3((unsigned)p.parts, (unsigned)s->experts), dim3(32, WARPS), 0, stream>>>(*s, p);
  if (scales) add_scales<<<s->experts, 128, 0, stream>>>(*s, p);
  return kp_launched(call, error);
}

/* ---- the gradient of the times: R M sizeof(T) bytes read ---- */

/* The expert of a row: the last one that begins at it or before. */
__device__ static int expert_of_row(const int32_t *offsets, int experts, int64_t row) {
  int low = 0, high = experts;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* A warp a row. */
template <typename T, int V> static __global__ void time_kernel(kp_grouped_time t) {
  const int lane = threadIdx.x % 32;
  const int64_t row = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= t.rows) return;
  const int expert = expert_of_row(t.offsets, t.experts, row);
  const T *gy = (const T *)t.gy + row * t.pitch;
  const int64_t weights = expert * t.time_weight_pitch;
  float sum = 0;
#pragma unroll 4
  for (int64_t m = lane * V; m < t.M; m += 32 * V) {
    const kp_columns<T, V> g = kp_read_columns<T, V>(gy + m, true);
    for (int i = 0; i < V; i++)
      if (V == 1 || m + i < t.M) sum += kp_to_float(g.value[i]) * t.time_weight[weights + m + i];
  }
  sum = kp_warp_sum(sum);
  if (lane == 0) t.result.set(row, kp_scale_of(t.in, expert) * kp_scale_of(t.out, expert) * sum);
}

kp_status kp_grouped_time_gradient(const kp_call *call, const kp_grouped_time *t, kp_error *error) {
  enum { ROWS = 8 };
  const int blocks = kp_blocks(t->rows, ROWS);
  const bool whole = t->pitch % KP_CUDA_ROW_MULTIPLE == 0;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (kp_is_half(call) && whole)
    time_kernel<kp_half, 8><<<blocks, 32 * ROWS, 0, stream>>>(*t);
  else if (kp_is_half(call))
    time_kernel<kp_half, 1><<<blocks, 32 * ROWS, 0, stream>>>(*t);
  else if (whole)
    time_kernel<float, 4><<<blocks, 32 * ROWS, 0, stream>>>(*t);
  else
    time_kernel<float, 1><<<blocks, 32 * ROWS, 0, stream>>>(*t);
  return kp_launched(call, error);
}
