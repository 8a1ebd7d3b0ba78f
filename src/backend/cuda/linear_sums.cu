/* Sums of gy over its rows, plain and weighted by the times, and over its columns weighted by the time
 * weights, in one pass: N M sizeof(T) bytes read.
 *
 * A block sums a chunk of rows and 32 V columns; a second kernel adds the chunks in their order. */
#include "backend/cuda/linear.cuh"

enum { WARPS = 8, MOST_CHUNKS = 128, LEAST_ROWS = 32, UNROLL = 4, NARROWEST = 32 };

static int64_t chunk_rows(int64_t rows) {
  const int64_t even = (rows + MOST_CHUNKS - 1) / MOST_CHUNKS, whole = WARPS * UNROLL, least = LEAST_ROWS;
  const int64_t chosen = even < least ? least : even;
  return (chosen + whole - 1) / whole * whole;
}

static int64_t chunks_of(int64_t rows) {
  return (rows + chunk_rows(rows) - 1) / chunk_rows(rows);
}

static int64_t rounded(int64_t count) {
  return (count + 15) / 16 * 16;
}

size_t kp_linear_sums_scratch(int64_t rows, int64_t columns, bool timed) {
  const int64_t sums = rounded(chunks_of(rows) * columns);
  const int64_t tiles = (columns + NARROWEST - 1) / NARROWEST;
  return (size_t)(timed ? 2 * sums + rows * tiles : sums) * sizeof(float);
}

/* Of one group of times. */
struct pass {
  int64_t rows, columns, pitch, chunk, tiles;
  kp_numbers time, time_weight; /* of the group; NULL without */
  int64_t time_pitch, weight_pitch;
  float *bias, *weight, *time_sums; /* (chunks, M), (chunks, M), (N, tiles); NULL: not wanted */
};

/* The sums of the block's warps, in their order, to a row of partial sums. */
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

/* What these columns have of <gy, time weight>, for the rows of a warp. */
__device__ static inline void write_dots(const pass &p, int64_t row, int64_t last, const float *dot) {
#pragma unroll
  for (int u = 0; u < UNROLL; u++) {
    const float sum = kp_warp_sum(dot[u]);
    const int64_t r = row + u * WARPS;
    if (threadIdx.x == 0 && r < last) p.time_sums[r * p.tiles + blockIdx.x] = sum;
  }
}

/* TIMED: with times; otherwise the plain sums alone. */
template <typename T, int V, bool TIMED>
static __global__ void __launch_bounds__(32 * WARPS, TIMED ? 2 : 4) sums_kernel(const T *gy, pass p) {
  __shared__ float shared[WARPS * V * 32];
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t first_column = (int64_t)blockIdx.x * 32 * V, column = first_column + lane * V;
  const int64_t first = blockIdx.y * p.chunk, last = first + p.chunk < p.rows ? first + p.chunk : p.rows;
  const bool inside = column < p.columns, dotted = TIMED && p.time_sums != NULL;
  float plain[V] = {}, with_time[V] = {}, weight[V] = {};
  if constexpr (TIMED)
    for (int i = 0; i < V && dotted; i++)
      weight[i] = column + i < p.columns ? p.time_weight[(column + i) * p.weight_pitch] : 0;
  for (int64_t row = first + warp; row < last; row += WARPS * UNROLL) {
    kp_columns<T, V> g[UNROLL];
    float time[UNROLL] = {}, dot[UNROLL] = {};
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int64_t r = row + u * WARPS;
      g[u] = kp_read_columns<T, V>(gy + r * p.pitch + column, inside && r < last);
      if (TIMED && r < last) time[u] = p.time[r * p.time_pitch];
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++)
#pragma unroll
      for (int i = 0; i < V; i++) {
        const float value = kp_to_float(g[u].value[i]);
        plain[i] += value;
        if (TIMED) with_time[i] += value * time[u];
        if (TIMED) dot[u] += value * weight[i];
      }
    if (dotted) write_dots(p, row, last, dot);
  }
  const int64_t place = blockIdx.y * p.columns;
  if (p.bias != NULL) sum_warps<V>(plain, p.bias + place, first_column, p.columns, shared);
  if (TIMED && p.weight != NULL) sum_warps<V>(with_time, p.weight + place, first_column, p.columns, shared);
}

/* What the sums of chunks and tiles are added to. */
struct ends {
  kp_results bias, weight, time;
  int64_t weight_pitch, time_pitch, group, chunks;
};

/* 32 columns a block, whose WARPS slices of chunks are added in order. */
__device__ static void add_chunks(const float *sums, int64_t chunks, int64_t columns, int64_t first,
                                  kp_results to, int64_t pitch) {
  __shared__ float shared[WARPS][32];
  const int lane = threadIdx.x, slice = threadIdx.y;
  const int64_t column = first + lane;
  float sum = 0;
#pragma unroll 4
  for (int64_t c = slice; c < chunks && column < columns; c += WARPS) sum += sums[c * columns + column];
  shared[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || column >= columns) return;
  for (int s = 1; s < WARPS; s++) sum += shared[s][lane];
  to.add(column * pitch, sum);
}

/* Row 0 of the grid adds the bias, row 1 the weight of the times, row 2 sets the gradients of the times. */
static __global__ void end_kernel(pass p, ends e) {
  const int64_t first = (int64_t)blockIdx.x * 32;
  if (blockIdx.y == 0 && p.bias != NULL && first < p.columns)
    add_chunks(p.bias, e.chunks, p.columns, first, e.bias, 1);
  if (blockIdx.y == 1 && p.weight != NULL && first < p.columns)
    add_chunks(p.weight, e.chunks, p.columns, first, e.weight, e.weight_pitch);
  if (blockIdx.y < 2 || p.time_sums == NULL) return;
  const int64_t row = (int64_t)blockIdx.x * 32 * WARPS + threadIdx.y * 32 + threadIdx.x;
  if (row >= p.rows) return;
  float sum = 0;
  for (int64_t t = 0; t < p.tiles; t++) sum += p.time_sums[row * p.tiles + t];
  e.time.set(row * e.time_pitch + e.group, sum);
}

template <typename T, int V> static void launch(const kp_call *call, const void *gy, pass *p) {
  p->tiles = (p->columns + 32 * V - 1) / (32 * V);
  const dim3 grid((unsigned)p->tiles, (unsigned)chunks_of(p->rows));
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (p->weight == NULL && p->time_sums == NULL)
    sums_kernel<T, V, false><<<grid, dim3(32, WARPS), 0, stream>>>((const T *)gy, *p);
  else
    sums_kernel<T, V, true><<<grid, dim3(32, WARPS), 0, stream>>>((const T *)gy, *p);
}

static void launch_any(const kp_call *call, const kp_linear_sums *s, pass *p) {
  const bool whole = s->pitch % KP_CUDA_ROW_MULTIPLE == 0;
  if (kp_is_half(call))
    whole ? launch<kp_half, 8>(call, s->gy, p) : launch<kp_half, 1>(call, s->gy, p);
  else
    whole ? launch<float, 4>(call, s->gy, p) : launch<float, 1>(call, s->gy, p);
}

static kp_numbers group_of(kp_numbers numbers, int64_t group) {
  const int64_t size = numbers.half ? sizeof(kp_half) : sizeof(float);
  if (numbers.at != NULL) numbers.at = (const char *)numbers.at + group * size;
  return numbers;
}

static kp_results group_of(kp_results results, int64_t group) {
  const int64_t size = results.half ? sizeof(kp_half) : sizeof(float);
  if (results.at != NULL) results.at = (char *)results.at + group * size;
  return results;
}

/* One pass over gy for each group; the bias is done by the first. */
kp_status kp_linear_sum(const kp_call *call, const kp_linear_sums *s, void *scratch, kp_error *error) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const int64_t chunks = chunks_of(s->rows), sums = rounded(chunks * s->columns);
  const int columns = kp_blocks(s->columns, 32);
  float *place = (float *)scratch;
  for (int64_t g = 0; g < s->groups || g == 0; g++) {
    pass p = {};
    p.rows = s->rows, p.columns = s->columns, p.pitch = s->pitch, p.chunk = chunk_rows(s->rows);
    p.bias = g == 0 && s->bias.at != NULL ? place : NULL;
    if (s->groups > 0) {
      p.time = group_of(s->time, g);
      p.time_weight = group_of(s->time_weight, g);
      p.time_pitch = s->time_pitch, p.weight_pitch = s->weight_pitch;
      p.weight = s->weight_gradient.at != NULL ? place + sums : NULL;
      p.time_sums = s->time_gradient.at != NULL ? place + 2 * sums : NULL;
    }
    if (p.bias == NULL && p.weight == NULL && p.time_sums == NULL) continue;
    launch_any(call, s, &p);
    const ends e = {s->bias,
                    group_of(s->weight_gradient, g),
                    s->time_gradient,
                    s->weight_gradient_pitch,
                    s->time_gradient_pitch,
                    g,
                    chunks};
    const int rows = p.time_sums == NULL ? 1 : kp_blocks(s->rows, 32 * WARPS);
    const dim3 grid((unsigned)(rows > columns ? rows : columns), s->groups == 0 ? 1 : 3);
    end_kernel<<<grid, dim3(32, WARPS), 0, stream>>>(p, e);
    KP_TRY(kp_launched(call, error));
  }
  return KP_OK;
}
