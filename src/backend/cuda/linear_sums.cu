/* Sums of gy over its rows, plain and weighted by the times, and over its columns weighted by the time
 * weights: N M sizeof(T) bytes read once; further groups of times find them in the cache.
 *
 * A block sums a strip of rows, four of them at a time in each of its lines of threads, whose loads are all
 * on their way before the first is used; a second kernel adds the strips in their order. */
#include "backend/cuda/linear.cuh"

enum { MOST_BLOCKS = 384, MOST_STRIPS = MOST_BLOCKS, LEAST_ROWS = 32, SLICES = 16 };

/* Rows of a strip, where a row is cut into so many tiles. */
static int64_t strip_rows(int64_t rows, int64_t tiles) {
  const int64_t most = MOST_BLOCKS / tiles, strips = most < 1 ? 1 : most;
  const int64_t even = (rows + strips - 1) / strips, least = LEAST_ROWS;
  return even < least ? least : even;
}

static int64_t strips_of(int64_t rows, int64_t tiles) {
  return (rows + strip_rows(rows, tiles) - 1) / strip_rows(rows, tiles);
}

/* (strips, 1 + G, M), and (G, parts, N): no way to read rows makes more of both than these two. */
size_t kp_linear_sums_scratch(int64_t rows, int64_t columns, int64_t groups) {
  const kp_row_cut narrow = kp_cut_row(columns, 1), wide = kp_cut_row(columns, 8);
  const int64_t sums = strips_of(rows, wide.tiles) * (1 + groups) * columns;
  return (size_t)(sums + groups * narrow.parts * rows) * sizeof(float);
}

struct pass {
  kp_linear_sums s;
  int64_t strip, strips, parts;
  float *sums, *dots; /* (strips, 1 + G, M), (G, parts, N) */
};

/* One group of a strip: its sums stay in registers. */
template <typename T, int V, bool TIMED> struct strip_sums {
  float plain[V], with_time[V], weight[V];
  int64_t column, group;
  bool inside;

  __device__ inline void start(const pass &p, int64_t at, int64_t g) {
    column = at, group = g, inside = at < p.s.columns;
#pragma unroll
    for (int i = 0; i < V; i++) plain[i] = with_time[i] = weight[i] = 0;
    if (TIMED && p.s.time_gradient.at != NULL)
      kp_take_numbers<V>(p.s.time_weight, column * p.s.weight_pitch + group, p.s.weight_pitch,
                         p.s.columns - column, weight);
  }

  /* KP_FOUR rows from `row` on, those before `last`. */
  __device__ inline void add(const pass &p, int64_t row, int64_t last) {
    const T *gy = (const T *)p.s.gy + row * p.s.pitch + column;
    kp_columns<T, V> g[KP_FOUR];
    float time[KP_FOUR] = {}, dot[KP_FOUR] = {};
#pragma unroll
    for (int u = 0; u < KP_FOUR; u++)
      g[u] = kp_read_columns<T, V>(gy + u * p.s.pitch, inside && row + u < last);
    if (TIMED)
      kp_take_numbers<KP_FOUR>(p.s.time, row * p.s.time_pitch + group, p.s.time_pitch, last - row, time);
#pragma unroll
    for (int u = 0; u < KP_FOUR; u++)
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float value = kp_to_float(g[u].value[i]);
        plain[i] += value;
        if (TIMED) with_time[i] += value * time[u];
        if (TIMED) dot[u] += value * weight[i];
      }
    if (!TIMED || p.s.time_gradient.at == NULL) return;
    const float sum = kp_sum_four(dot);
    const int lane = threadIdx.x % 32;
    const int64_t part = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, to = row + lane / 8;
    if (lane % 8 == 0 && to < last) p.dots[(group * p.parts + part) * p.s.rows + to] = sum;
  }
};

/* TIMED: with times; otherwise the plain sums alone. */
template <typename T, int V, bool TIMED>
static __global__ void __launch_bounds__(KP_STRIP_THREADS, KP_STRIP_BLOCKS) strip_kernel(pass p) {
  __shared__ __align__(16) float shared[KP_STRIP_THREADS * V];
  const int64_t first_column = (int64_t)blockIdx.x * blockDim.x * V;
  const int64_t first = blockIdx.y * p.strip, last = min(first + p.strip, p.s.rows);
  float *to = p.sums + blockIdx.y * (1 + p.s.groups) * p.s.columns;
  strip_sums<T, V, TIMED> sums;
  for (int64_t g = 0; g == 0 || g < p.s.groups; g++) {
    sums.start(p, first_column + threadIdx.x * V, g);
    for (int64_t row = first + threadIdx.y * KP_FOUR; row < last; row += blockDim.y * KP_FOUR)
      sums.add(p, row, last);
    if (g == 0 && p.s.bias.at != NULL) kp_leave_sums<V>(sums.plain, to, first_column, p.s.columns, shared);
    if (TIMED && p.s.weight_gradient.at != NULL)
      kp_leave_sums<V>(sums.with_time, to + (1 + g) * p.s.columns, first_column, p.s.columns, shared);
  }
}

/* 32 columns of sum `which` of the strips, in SLICES slices that are added in order. */
__device__ static void add_strips(const pass &p, int64_t which, kp_results to, int64_t pitch, int64_t from) {
  __shared__ float shared[SLICES][32];
  const int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x, row = (1 + p.s.groups) * p.s.columns;
  const float *sums = p.sums + which * p.s.columns + column;
  float part[MOST_STRIPS / SLICES], sum = 0;
#pragma unroll
  for (int i = 0; i < MOST_STRIPS / SLICES; i++) {
    const int64_t strip = threadIdx.y + i * SLICES;
    part[i] = strip < p.strips && column < p.s.columns ? sums[strip * row] : 0;
  }
#pragma unroll
  for (int i = 0; i < MOST_STRIPS / SLICES; i++) sum += part[i];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= p.s.columns) return;
  for (int s = 1; s < SLICES; s++) sum += shared[s][threadIdx.x];
  to.add(column * pitch + from, sum);
}

/* Row 0 of the grid adds the bias, row 1 + g the weight of a group of times; the last row sets the gradients
 * of the times. */
static __global__ void __launch_bounds__(32 * SLICES) end_kernel(pass p) {
  const int64_t which = blockIdx.y, groups = p.s.groups, first = (int64_t)blockIdx.x * 32;
  if (which == 0 && p.s.bias.at != NULL && first < p.s.columns) add_strips(p, 0, p.s.bias, 1, 0);
  if (which > 0 && which <= groups && p.s.weight_gradient.at != NULL && first < p.s.columns)
    add_strips(p, which, p.s.weight_gradient, p.s.weight_gradient_pitch, which - 1);
  if (which <= groups || p.s.time_gradient.at == NULL) return;
  const int64_t count = groups * p.s.rows, step = (int64_t)gridDim.x * 32 * SLICES;
  for (int64_t i = (int64_t)blockIdx.x * 32 * SLICES + threadIdx.y * 32 + threadIdx.x; i < count; i += step) {
    const int64_t group = i / p.s.rows, row = i % p.s.rows;
    const float *dots = p.dots + group * p.parts * p.s.rows + row;
    float sum = 0;
#pragma unroll 4
    for (int64_t part = 0; part < p.parts; part++) sum += dots[part * p.s.rows];
    p.s.time_gradient.set(row * p.s.time_gradient_pitch + group, sum);
  }
}

template <typename T, int V> static void launch(const kp_call *call, pass *p) {
  const kp_row_cut cut = kp_cut_row(p->s.columns, V);
  p->strip = strip_rows(p->s.rows, cut.tiles);
  p->strips = strips_of(p->s.rows, cut.tiles);
  p->parts = cut.parts;
  p->dots = p->sums + p->strips * (1 + p->s.groups) * p->s.columns;
  const dim3 grid((unsigned)cut.tiles, (unsigned)p->strips);
  const dim3 block((unsigned)cut.threads, (unsigned)(KP_STRIP_THREADS / cut.threads));
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p->s.groups == 0)
    strip_kernel<T, V, false><<<grid, block, 0, stream>>>(*p);
  else
    strip_kernel<T, V, true><<<grid, block, 0, stream>>>(*p);
}

kp_status kp_linear_sum(const kp_call *call, const kp_linear_sums *s, void *scratch, kp_error *error) {
  const bool whole = s->pitch % KP_CUDA_ROW_MULTIPLE == 0;
  pass p = {};
  p.s = *s;
  p.sums = (float *)scratch;
  if (s->bias.at == NULL && s->weight_gradient.at == NULL && s->time_gradient.at == NULL) return KP_OK;
  if (s->rows == 0 || s->columns == 0) return KP_OK;
  if (kp_is_half(call))
    whole ? launch<kp_half, 8>(call, &p) : launch<kp_half, 1>(call, &p);
  else
    whole ? launch<float, 4>(call, &p) : launch<float, 1>(call, &p);
  const int columns = kp_blocks(s->columns, 32), rows = kp_blocks(s->groups * s->rows, 32 * SLICES, 512);
  const dim3 grid((unsigned)(rows > columns ? rows : columns),
                  (unsigned)(s->groups == 0 ? 1 : s->groups + 2));
  end_kernel<<<grid, dim3(32, SLICES), 0, kp_cuda_of(call)->stream>>>(p);
  return kp_launched(call, error);
}
