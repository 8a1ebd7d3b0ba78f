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

template <typename T, int V> __device__ static void load_columns(const T *at, bool inside, float *to) {
  if constexpr (V > 1) {
    if (inside) {
      const kp_pack<T> pack = kp_load(at);
      for (int i = 0; i < V; i++) to[i] = kp_to_float(pack.value[i]);
      return;
    }
  } else if (inside) {
    to[0] = kp_to_float(*at);
    return;
  }
  for (int i = 0; i < V; i++) to[i] = 0;
}

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

template <typename T, int V> static __global__ void sums_kernel(const T *gy, pass p) {
  __shared__ float shared[WARPS * V * 32];
  const int lane = threadIdx.x, warp = threadIdx.y;
  const int64_t first_column = (int64_t)blockIdx.x * 32 * V, column = first_column + lane * V;
  const int64_t first = blockIdx.y * p.chunk, last = first + p.chunk < p.rows ? first + p.chunk : p.rows;
  const bool inside = column < p.columns, timed = p.weight != NULL, dotted = p.time_sums != NULL;
  float plain[V] = {}, with_time[V] = {}, weight[V] = {};
  for (int i = 0; i < V && dotted; i++)
    weight[i] = column + i < p.columns ? p.time_weight[(column + i) * p.weight_pitch] : 0;
  for (int64_t row = first + warp; row < last; row += WARPS * UNROLL) {
    float g[UNROLL][V], dot[UNROLL] = {};
#pragma unroll
    for (int u = 0; u < UNROLL; u++)
      load_columns<T, V>(gy + (row + u * WARPS) * p.pitch + column, inside && row + u * WARPS < last, g[u]);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int64_t r = row + u * WARPS;
      const float time = timed && r < last ? p.time[r * p.time_pitch] : 0;
      for (int i = 0; i < V; i++) {
        plain[i] += g[u][i];
        if (timed) with_time[i] += g[u][i] * time;
        if (dotted) dot[u] += g[u][i] * weight[i];
      }
    }
    if (!dotted) continue;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const float sum = kp_warp_sum(dot[u]);
      const int64_t r = row + u * WARPS;
      if (lane == 0 && r < last) p.time_sums[r * p.tiles + blockIdx.x] = sum;
    }
  }
  const int64_t place = blockIdx.y * p.columns;
  if (p.bias != NULL) sum_warps<V>(plain, p.bias + place, first_column, p.columns, shared);
  if (timed) sum_warps<V>(with_time, p.weight + place, first_column, p.columns, shared);
}

/* to[column · pitch] += Σ over chunks: 32 columns a block, whose WARPS slices of chunks are added in order. */
static __global__ void add_chunks(const float *sums, int64_t chunks, int64_t columns, kp_results to,
                                  int64_t pitch) {
  __shared__ float shared[WARPS][32];
  const int lane = threadIdx.x, slice = threadIdx.y;
  const int64_t column = (int64_t)blockIdx.x * 32 + lane;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (int64_t c = slice; c < chunks; c += WARPS) sum += sums[c * columns + column];
  }
  shared[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || column >= columns) return;
  for (int s = 1; s < WARPS; s++) sum += shared[s][lane];
  to.add(column * pitch, sum);
}

static __global__ void add_tiles(const float *sums, int64_t rows, int64_t tiles, kp_results to,
                                 int64_t pitch, int64_t group) {
  const int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  float sum = 0;
  for (int64_t t = 0; t < tiles; t++) sum += sums[row * tiles + t];
  to.set(row * pitch + group, sum);
}

template <typename T, int V> static void launch(const kp_call *call, const void *gy, pass *p) {
  p->tiles = (p->columns + 32 * V - 1) / (32 * V);
  const dim3 grid((unsigned)p->tiles, (unsigned)chunks_of(p->rows));
  sums_kernel<T, V><<<grid, dim3(32, WARPS), 0, kp_cuda_of(call)->stream>>>((const T *)gy, *p);
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
    launch_any(call, s, &p);
    if (p.bias != NULL) add_chunks<<<columns, dim3(32, WARPS), 0, stream>>>(p.bias, chunks, s->columns, s->bias, 1);
    if (p.weight != NULL)
      add_chunks<<<columns, dim3(32, WARPS), 0, stream>>>(
          p.weight, chunks, s->columns, group_of(s->weight_gradient, g), s->weight_gradient_pitch);
    if (p.time_sums != NULL)
      add_tiles<<<kp_blocks(s->rows, 128), 128, 0, stream>>>(p.time_sums, s->rows, p.tiles, s->time_gradient,
                                                            s->time_gradient_pitch, g);
    KP_TRY(kp_launched(call, error));
  }
  return KP_OK;
}
