/* Linear maps of up to KP_SOME_ROWS rows in bfloat16, as in decoding many sequences side by side: 2 M K bytes
 * of the matrix are read once, which bounds it, if enough of them are under way at a time.
 *
 * A cluster of eight blocks has a run of outputs, and each of its blocks an eighth of the depth: the products
 * of all rows with its part of the matrix, both in shared memory.  The blocks then read one another's sums,
 * each for an eighth of the rows.  The matrix is under way before the kernel in front has ended.  A norm in
 * front needs its rows' moments, to which each block contributes those of its channels. */
#include <cooperative_groups.h>

#include "backend/cuda/early.cuh"
#include "backend/cuda/linear_few.cuh"

namespace groups = cooperative_groups;

enum { SLICES = 8, THREADS = 256, WARPS = THREADS / 32, TILE = 16, HALF_STEP = 32 };
enum {
  ROWS_TOGETHER = 32,
  COLUMN_TILES = ROWS_TOGETHER / 8,
  SUM_GAP = 4,
  NORM_SLICE = KP_FEW_CHANNELS / SLICES
};
enum { MOST_OUTPUTS = 256, MOST_BYTES = 160 << 10 };
static_assert(WARPS * 8 == KP_SOME_ROWS, "a warp has the moments of eight rows");

/* How the work is cut: columns of a slice and their pitch, outputs of a cluster. */
struct some_cut {
  int slice, pitch, outputs;
  size_t bytes;
};

/* Rows in shared memory begin 64 bytes apart from where the ones before do, so that a quarter of a warp that
 * reads 64 bytes each of two of them meets all banks once. */
static some_cut cut_of(const kp_few_rows &f, int processors) {
  some_cut c = {};
  const int64_t slice = (f.depth + SLICES * HALF_STEP - 1) / (SLICES * HALF_STEP) * HALF_STEP;
  const int64_t clusters = processors / SLICES;
  c.slice = (int)slice;
  c.pitch = c.slice + (c.slice % (2 * HALF_STEP) == 0 ? HALF_STEP : 0);
  c.outputs = (int)((f.y_pitch + clusters * TILE - 1) / (clusters * TILE) * TILE);
  c.bytes = (size_t)(c.outputs + KP_SOME_ROWS) * (size_t)c.pitch * sizeof(kp_half) +
            (size_t)KP_SOME_ROWS * (size_t)(c.outputs + SUM_GAP) * sizeof(float);
  return c;
}

bool kp_some_rows_fit(const kp_call *call, const kp_few_rows *f) {
  const kp_cuda *cuda = kp_cuda_of(call);
  if (!kp_is_half(call) || cuda->major < 9 || f->rows > KP_SOME_ROWS || cuda->processors < SLICES ||
      !kp_rows_are_whole(f))
    return false;
  const some_cut c = cut_of(*f, cuda->processors);
  return c.outputs <= MOST_OUTPUTS && c.bytes <= MOST_BYTES && c.bytes <= cuda->shared_bytes;
}

#if __CUDA_ARCH__ >= 900

/* 16 bytes to shared memory, or zeros. */
__device__ static inline void bring(kp_half *to, const kp_half *from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)),
               "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}

__device__ static inline void all_brought() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/* `width` columns from `column` on of rows [first, last) of a matrix to `count` rows of shared memory; zeros
 * elsewhere. */
__device__ static void bring_rows(const some_cut &c, kp_half *to, const void *matrix, int64_t pitch,
                                  int64_t first, int64_t last, int count, int64_t column, int64_t depth) {
  const int packs = c.slice / 8;
  const kp_half *from = (const kp_half *)matrix;
  for (int i = threadIdx.x; i < count * packs; i += THREADS) {
    const int r = i / packs, k = (i - r * packs) * 8;
    const bool inside = first + r < last && column + k < depth;
    bring(to + r * c.pitch + k, inside ? from + (first + r) * pitch + column + k : from, inside);
  }
}

/* ---- the norm in front ---- */

struct some_gains {
  float weight[NORM_SLICE], bias[NORM_SLICE];
};

__device__ static void load_gains(const kp_few_norm &n, const some_cut &c, int column, some_gains *gains) {
  for (int k = threadIdx.x; k < c.slice; k += THREADS) {
    const bool inside = column + k < n.channels;
    gains->weight[k] = !inside ? 0.0f : n.weight.at == NULL ? 1.0f : n.weight[column + k];
    gains->bias[k] = inside && n.bias.at != NULL ? n.bias[column + k] : 0.0f;
  }
}

__device__ static inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

__device__ static inline int channels_of(const kp_few_norm &n, const some_cut &c, int slice) {
  return max(0, min(c.slice, n.channels - slice * c.slice));
}

/* Calls use(x) with each of the thread's channels of a row: a quarter of them, as four lanes share it. */
template <typename Use>
__device__ static inline void each_channel(const kp_half *row, int channels, Use use) {
  for (int k = threadIdx.x % 4 * 8; k < channels; k += 32) {
    const kp_pack<kp_half> pack = kp_load(row + k);
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (k + j < channels) use(kp_to_float(pack.value[j]));
  }
}

/* Mean of the slice's channels of a row, and the sum of their squared distances from it. */
__device__ static float2 slice_moments(const kp_half *row, int channels) {
  float sum = 0, squares = 0;
  each_channel(row, channels, [&](float x) { sum += x; });
  const float mean = quad_sum(sum) / (float)max(channels, 1);
  each_channel(row, channels, [&](float x) { squares += (x - mean) * (x - mean); });
  return make_float2(mean, quad_sum(squares));
}

/* Mean and reciprocal deviation of a whole row, from those of its slices in order (Chan, Golub, LeVeque 1983,
 * equation 2.1). */
__device__ static float2 join_moments(const kp_few_norm &n, const some_cut &c, float2 *own, int row) {
  groups::cluster_group cluster = groups::this_cluster();
  float count = 0, mean = 0, squares = 0;
  float2 part[SLICES];
#pragma unroll
  for (int s = 0; s < SLICES; s++) part[s] = cluster.map_shared_rank(own, s)[row];
#pragma unroll
  for (int s = 0; s < SLICES; s++) {
    const float more = (float)channels_of(n, c, s), all = count + more, apart = part[s].x - mean;
    if (more == 0) continue;
    mean += apart * more / all;
    squares += part[s].y + apart * apart * count * more / all;
    count = all;
  }
  float variance = squares / (float)n.channels;
  if (!n.layer) variance += mean * mean;
  return make_float2(n.layer ? mean : 0.0f, 1 / sqrtf(variance + n.epsilon));
}

/* The slice of x becomes that of its norm; the first cluster writes it to memory too. */
__device__ static void normalise(const kp_few_linear &few, const some_cut &c, const some_gains *gains,
                                 float2 *parts, kp_half *x) {
  const kp_few_norm &n = few.norm;
  const int rank = blockIdx.x, row = threadIdx.x / 4, column = rank * c.slice;
  const int64_t pitch = few.map.x_pitch;
  const bool writes = blockIdx.y == 0 && row < few.map.rows;
  kp_half *own = x + row * c.pitch;
  const float2 part = slice_moments(own, channels_of(n, c, rank));
  if (threadIdx.x % 4 == 0) parts[row] = part;
  groups::this_cluster().sync();
  const float2 moments = join_moments(n, c, parts, row);
  if (writes && rank == 0 && threadIdx.x % 4 == 0) n.statistics[row] = moments;
  if (writes && rank == 0 && threadIdx.x == 0) *n.events = 0;
  for (int k = threadIdx.x % 4 * 8; k < c.slice; k += 32) {
    const kp_pack<kp_half> h = kp_load(own + k);
    kp_pack<kp_half> y;
#pragma unroll
    for (int j = 0; j < 8; j++)
      y.value[j] = __float2bfloat16_rn(
          (kp_to_float(h.value[j]) - moments.x) * moments.y * gains->weight[k + j] + gains->bias[k + j]);
    kp_store(own + k, y);
    if (!writes || column + k >= pitch) continue;
    kp_store(n.y + row * pitch + column + k, y);
    if (n.y_again != NULL) kp_store(n.y_again + row * pitch + column + k, y);
  }
  __syncthreads();
}

/* ---- products ---- */

/* 16 outputs from `w` on by up to 32 rows from `x` on, to sums (row, output). */
__device__ static void multiply(const some_cut &c, const kp_half *w, const kp_half *x, int rows, float *sums,
                                int sum_pitch) {
  const int lane = threadIdx.x % 32, g = lane / 4, part = lane % 4 * 8;
  float sum[COLUMN_TILES][4] = {};
#pragma unroll 2
  for (int k = part; k < c.slice; k += HALF_STEP) {
    const uint4 a = *(const uint4 *)(w + g * c.pitch + k), b = *(const uint4 *)(w + (g + 8) * c.pitch + k);
#pragma unroll
    for (int t = 0; t < COLUMN_TILES; t++) {
      if (t * 8 >= rows) break;
      const uint4 v = *(const uint4 *)(x + (t * 8 + g) * c.pitch + k);
      kp_multiply_16(sum[t], a.x, b.x, a.y, b.y, v.x, v.y);
      kp_multiply_16(sum[t], a.z, b.z, a.w, b.w, v.z, v.w);
    }
  }
#pragma unroll
  for (int t = 0; t < COLUMN_TILES; t++) {
    if (t * 8 >= rows) break;
    float *to = sums + (t * 8 + lane % 4 * 2) * sum_pitch + g;
    to[0] = sum[t][0], to[sum_pitch] = sum[t][1];
    to[8] = sum[t][2], to[sum_pitch + 8] = sum[t][3];
  }
}

/* The block's share of the rows: sums of all slices in order, and what follows them. */
__device__ static void finish_rows(const kp_few_linear &few, const some_cut &c, float *sums, int64_t first) {
  groups::cluster_group cluster = groups::this_cluster();
  const kp_few_rows &f = few.map;
  const int share = ((int)f.rows + SLICES - 1) / SLICES, begin = (int)blockIdx.x * share;
  const int rows = min(share, (int)f.rows - begin);
  const float *part[SLICES];
#pragma unroll
  for (int s = 0; s < SLICES; s++) part[s] = cluster.map_shared_rank(sums, s);
  for (int i = threadIdx.x; i < rows * c.outputs; i += THREADS) {
    const int r = i / c.outputs, o = i - r * c.outputs, row = begin + r;
    const int64_t column = first + o, at = row * f.y_pitch + column;
    if (column >= f.y_pitch) continue;
    const bool inside = column < f.columns;
    const float stream = few.end.residual == NULL ? 0.0f : kp_to_float(few.end.stream[at]);
    float total = inside ? kp_linear_term(f.terms, row, column) : 0.0f;
#pragma unroll
    for (int s = 0; s < SLICES; s++) total += part[s][row * (c.outputs + SUM_GAP) + o];
    kp_few_finish(few, at, inside, total, stream);
  }
}

#endif

template <bool NORM>
static __global__ void __launch_bounds__(THREADS)
    some_kernel(const __grid_constant__ kp_few_linear few, const __grid_constant__ some_cut c) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) kp_half memory[];
  __shared__ some_gains gains;
  __shared__ float2 parts[KP_SOME_ROWS];
  const kp_few_rows &f = few.map;
  kp_half *w = memory, *x = w + c.outputs * c.pitch;
  float *sums = (float *)(x + KP_SOME_ROWS * c.pitch);
  const int warp = threadIdx.x / 32, column = (int)blockIdx.x * c.slice, sum_pitch = c.outputs + SUM_GAP;
  const int64_t first = (int64_t)blockIdx.y * c.outputs;
  bring_rows(c, w, f.w, f.w_pitch, first, f.columns, c.outputs, column, f.depth);
  kp_let_next_begin();
  if (NORM) load_gains(few.norm, c, column, &gains);
  kp_wait_for_previous();
  bring_rows(c, x, NORM ? few.norm.h : f.x, f.x_pitch, 0, f.rows, KP_SOME_ROWS, column, f.depth);
  all_brought();
  __syncthreads();
  if (NORM) normalise(few, c, &gains, parts, x);
  const int tiles = c.outputs / TILE, units = tiles * (((int)f.rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER);
  for (int u = warp; u < units; u += WARPS) {
    const int tile = u % tiles, row = u / tiles * ROWS_TOGETHER;
    multiply(c, w + tile * TILE * c.pitch, x + row * c.pitch, (int)f.rows - row,
             sums + row * sum_pitch + tile * TILE, sum_pitch);
  }
  groups::this_cluster().sync();
  finish_rows(few, c, sums, first);
  groups::this_cluster().sync(); /* what the others read stays until they have */
#endif
}

template <bool NORM> static kp_status launch(const kp_call *call, const kp_few_linear *few, kp_error *error) {
  const some_cut c = cut_of(few->map, kp_cuda_of(call)->processors);
  kp_early_launch l = {};
  l.grid = dim3(SLICES, (unsigned)kp_blocks(few->map.y_pitch, c.outputs));
  l.block = dim3(THREADS);
  l.shared = c.bytes;
  l.early = few->early;
  l.cluster = SLICES;
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(some_kernel<NORM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)c.bytes),
      "a linear map", error));
  return kp_launch_early(kp_cuda_of(call), call->node->row->name, l, some_kernel<NORM>, error, *few, c);
}

kp_status kp_linear_some(const kp_call *call, const kp_few_linear *few, kp_error *error) {
  return few->norm.h != NULL ? launch<true>(call, few, error) : launch<false>(call, few, error);
}
