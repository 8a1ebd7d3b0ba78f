/* Sums for the gradients of experts' vectors and scales: each reads gy once, R M sizeof(T) bytes, and y where
 * the scales want it.
 *
 * An expert's rows are cut into slices.  A block sums a slice; then the slices are added in their order. */
#include "backend/cuda/grouped_linear.cuh"
#include "backend/cuda/linear.cuh"

enum { WARPS = 8, MOST_SLICES = 128, SLICES_OF_ALL = 384, NARROWEST = 32 };

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

/* The block's part of <gy, y>: its warps' in their order. */
__device__ static inline void write_output(float *to, float output, float *shared) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, warps = blockDim.x * blockDim.y / 32;
  output = kp_warp_sum(output);
  __syncthreads();
  if (thread % 32 == 0) shared[thread / 32] = output;
  __syncthreads();
  if (thread > 0) return;
  for (int w = 1; w < warps; w++) output += shared[w];
  *to = output;
}

/* What a thread adds up of its columns. */
template <int V> struct slice_sums { float plain[V], with_time[V], output; };

/* ROWS rows from `row` on, those before `end`: all of them are on their way before the first is used. SCALED:
 * with <gy, y> of the scales. */
template <typename T, int V, int ROWS, bool SCALED>
__device__ static inline void add_rows(const kp_grouped_sums &s, int64_t row, int64_t end, int64_t column,
                                       slice_sums<V> *sums) {
  const T *gy = (const T *)s.gy + column, *y = (const T *)s.y + column;
  const bool inside = column < s.M, timed = s.time.at != NULL;
  kp_columns<T, V> g[ROWS], u[ROWS];
  float time[ROWS] = {};
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const int64_t at = row + i;
    g[i] = kp_read_columns<T, V>(gy + at * s.pitch, inside && at < end);
    if (SCALED) u[i] = kp_read_columns<T, V>(y + at * s.y_pitch, inside && at < end);
  }
  if (timed) kp_take_numbers<ROWS>(s.time, row, 1, end - row, time);
#pragma unroll
  for (int i = 0; i < ROWS; i++)
#pragma unroll
    for (int j = 0; j < V; j++) {
      const float value = kp_to_float(g[i].value[j]);
      sums->plain[j] += value;
      sums->with_time[j] += time[i] * value;
      if (SCALED) sums->output += value * kp_to_float(u[i].value[j]);
    }
}

template <typename T, int V, bool SCALED>
static __global__ void __launch_bounds__(KP_STRIP_THREADS, KP_STRIP_BLOCKS)
    slice_kernel(kp_grouped_sums s, partial_sums p) {
  constexpr int ROWS = SCALED ? 2 : 4;
  __shared__ __align__(16) float shared[KP_STRIP_THREADS * V];
  const int expert = blockIdx.z, slice = blockIdx.y;
  const kp_expert_rows rows = kp_rows_of_expert(s.offsets, expert, s.rows);
  const int64_t length = (rows.count + p.slices - 1) / p.slices, place = (int64_t)expert * p.slices + slice;
  const int64_t begin = rows.first + min(slice * length, rows.count);
  const int64_t end = min(begin + length, rows.first + rows.count);
  const int64_t first_column = (int64_t)blockIdx.x * blockDim.x * V;
  slice_sums<V> sums = {};
  for (int64_t row = begin + threadIdx.y * ROWS; row < end; row += blockDim.y * ROWS)
    add_rows<T, V, ROWS, SCALED>(s, row, end, first_column + threadIdx.x * V, &sums);
  kp_leave_sums<V>(sums.plain, p.plain + place * s.M, first_column, s.M, shared);
  if (p.with_time != NULL)
    kp_leave_sums<V>(sums.with_time, p.with_time + place * s.M, first_column, s.M, shared);
  if constexpr (SCALED) write_output(p.with_output + place * p.tiles + blockIdx.x, sums.output, shared);
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
  const kp_row_cut cut = kp_cut_row(s->M, V);
  const dim3 grid((unsigned)cut.tiles, (unsigned)p->slices, (unsigned)s->experts);
  const dim3 block((unsigned)cut.threads, (unsigned)(KP_STRIP_THREADS / cut.threads));
  p->tiles = cut.tiles;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p->with_output != NULL)
    slice_kernel<T, V, true><<<grid, block, 0, stream>>>(*s, *p);
  else
    slice_kernel<T, V, false><<<grid, block, 0, stream>>>(*s, *p);
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

/* <gy, time weight> of rows `row` … `end` - 1 of an expert, at most eight, by a warp: lane 4 r gets row r's.
 */
template <typename T, int V>
__device__ static inline float dots_of(const kp_grouped_time &t, int expert, int64_t row, int64_t end) {
  const T *gy = (const T *)t.gy + row * t.pitch;
  const int64_t weights = expert * t.time_weight_pitch;
  float dot[KP_EIGHT] = {};
  for (int64_t m = threadIdx.x % 32 * V; m < t.M; m += 32 * V) {
    kp_columns<T, V> g[KP_EIGHT];
    float weight[V];
#pragma unroll
    for (int i = 0; i < KP_EIGHT; i++) g[i] = kp_read_columns<T, V>(gy + i * t.pitch + m, row + i < end);
    kp_take_numbers<V>(t.time_weight, weights + m, 1, t.M - m, weight);
#pragma unroll
    for (int i = 0; i < KP_EIGHT; i++)
#pragma unroll
      for (int j = 0; j < V; j++) dot[i] += kp_to_float(g[i].value[j]) * weight[j];
  }
  return kp_sum_eight(dot);
}

/* A warp takes eight rows: of one expert, but where experts meet. */
template <typename T, int V> static __global__ void time_kernel(kp_grouped_time t) {
  const int lane = threadIdx.x % 32;
  const int64_t first = ((int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * KP_EIGHT;
  const int64_t last = min(first + KP_EIGHT, t.rows);
  if (first >= t.rows) return;
  const int begin = expert_of_row(t.offsets, t.experts, first);
  const int end = expert_of_row(t.offsets, t.experts, last - 1);
  for (int expert = begin; expert <= end; expert++) {
    const int64_t from = expert == begin ? first : t.offsets[expert];
    const int64_t to = expert == end ? last : t.offsets[expert + 1];
    if (from >= to) continue;
    const float dot = dots_of<T, V>(t, expert, from, to);
    if (lane % 4 == 0 && from + lane / 4 < to)
      t.result.set(from + lane / 4, kp_scale_of(t.in, expert) * kp_scale_of(t.out, expert) * dot);
  }
}

kp_status kp_grouped_time_gradient(const kp_call *call, const kp_grouped_time *t, kp_error *error) {
  enum { WARPS_OF_ROWS = 4, THREADS = 32 * WARPS_OF_ROWS };
  const int blocks = kp_blocks(t->rows, WARPS_OF_ROWS * KP_EIGHT);
  const bool whole = t->pitch % KP_CUDA_ROW_MULTIPLE == 0;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (kp_is_half(call) && whole)
    time_kernel<kp_half, 8><<<blocks, THREADS, 0, stream>>>(*t);
  else if (kp_is_half(call))
    time_kernel<kp_half, 1><<<blocks, THREADS, 0, stream>>>(*t);
  else if (whole)
    time_kernel<float, 4><<<blocks, THREADS, 0, stream>>>(*t);
  else
    time_kernel<float, 1><<<blocks, THREADS, 0, stream>>>(*t);
  return kp_launched(call, error);
}
