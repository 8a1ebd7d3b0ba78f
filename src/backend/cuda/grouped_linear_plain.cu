/* Products of experts by float multiplications: for float32, and for rows that do not start at multiples of
 * 16 bytes.  Bound by the multiplications, 2 R M K of them: a thread computes 4 by 4 results of a 64 by 64
 * tile from shared memory. */
#include "backend/cuda/grouped_linear.cuh"

enum { TILE = 64, DEPTH = 16, THREADS = 256, PITCH = TILE + 4 };

/* Where element (i, k) of an operand is, and how far they go. */
template <typename T> struct operand {
  const T *at;
  int64_t row_step, depth_step, rows, depth;
};

/* Consecutive threads read consecutive memory, whichever way the operand stands. */
template <typename T>
__device__ static void load_tile(const operand<T> &o, int64_t row, int64_t depth, float *to) {
  for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
    const int r = o.depth_step == 1 ? i / DEPTH : i % TILE, d = o.depth_step == 1 ? i % DEPTH : i / TILE;
    const bool inside = row + r < o.rows && depth + d < o.depth;
    to[d * PITCH + r] = inside ? kp_to_float(o.at[(row + r) * o.row_step + (depth + d) * o.depth_step]) : 0;
  }
}

template <typename T> struct tile_work {
  operand<T> a, b;
  int64_t row, column; /* of the tile in the expert's C */
  int expert;
  kp_expert_rows rows;
};

template <typename T>
__device__ static tile_work<T> work_of(const kp_grouped &g, const int *first, int tile) {
  tile_work<T> w;
  w.expert = kp_expert_of_tile(first, g.experts, tile);
  w.rows = kp_rows_of_expert(g.offsets, w.expert, g.rows);
  const int64_t width = g.kind == KP_GROUPED_FORWARD ? g.M : g.K;
  const int across = (int)((width + TILE - 1) / TILE), place = tile - first[w.expert];
  w.row = (int64_t)(place / across) * TILE;
  w.column = (int64_t)(place % across) * TILE;
  const T *a = (const T *)g.a + w.rows.first * g.a_pitch, *b = (const T *)g.b;
  if (g.kind == KP_GROUPED_FORWARD) {
    w.a = {a, g.a_pitch, 1, w.rows.count, g.K};
    w.b = {b + w.expert * g.expert_stride, g.b_pitch, 1, g.M, g.K};
  } else if (g.kind == KP_GROUPED_INPUT) {
    w.a = {a, g.a_pitch, 1, w.rows.count, g.M};
    w.b = {b + w.expert * g.expert_stride, 1, g.b_pitch, g.K, g.M};
  } else {
    w.a = {a, 1, g.a_pitch, g.M, w.rows.count};
    w.b = {b + w.rows.first * g.b_pitch, 1, g.b_pitch, g.K, w.rows.count};
  }
  return w;
}

template <typename T>
__device__ static void write_result(const kp_grouped &g, const tile_work<T> &w, int64_t row, int64_t column,
                                    float sum, float in, float out) {
  if (g.kind == KP_GROUPED_WEIGHT) {
    if (row < g.M && column < g.K)
      ((float *)g.c)[w.expert * g.expert_stride + row * g.c_pitch + column] += g.factor * in * out * sum;
    return;
  }
  if (row >= w.rows.count || column >= g.c_columns) return;
  const int64_t width = g.kind == KP_GROUPED_FORWARD ? g.M : g.K, at = w.rows.first + row;
  float result = 0;
  if (column < width && g.kind == KP_GROUPED_INPUT) result = g.factor * in * out * sum;
  if (column < width && g.kind == KP_GROUPED_FORWARD) {
    if (g.time.at != NULL) sum += g.time[at] * g.time_weight[w.expert * g.time_weight_pitch + column];
    result = out * (g.factor * in * sum + (g.bias.at == NULL ? 0 : g.bias[w.expert * g.bias_pitch + column]));
  }
  ((T *)g.c)[at * g.c_pitch + column] = kp_from_float<T>(result);
}

/* Padding that reaches into no tile is none: rows are padded by less than a tile, and to multiples of it. */
template <typename T> static __global__ void __launch_bounds__(THREADS) grouped_kernel(kp_grouped g) {
  extern __shared__ int first[];
  __shared__ float a[DEPTH * PITCH], b[DEPTH * PITCH];
  const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
  kp_number_tiles(g, TILE, TILE, first);
  for (int tile = blockIdx.x; tile < first[g.experts]; tile += gridDim.x) {
    const tile_work<T> w = work_of<T>(g, first, tile);
    const float in = kp_scale_of(g.in, w.expert), out = kp_scale_of(g.out, w.expert);
    float sum[4][4] = {};
    for (int64_t depth = 0; depth < w.a.depth; depth += DEPTH) {
      load_tile(w.a, w.row, depth, a);
      load_tile(w.b, w.column, depth, b);
      __syncthreads();
#pragma unroll
      for (int d = 0; d < DEPTH; d++) {
        const kp_pack<float> u = kp_load(&a[d * PITCH + y]), v = kp_load(&b[d * PITCH + x]);
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 4; j++) sum[i][j] += u.value[i] * v.value[j];
      }
      __syncthreads();
    }
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) write_result<T>(g, w, w.row + y + i, w.column + x + j, sum[i][j], in, out);
  }
}

kp_status kp_grouped_plain(const kp_call *call, const kp_grouped *g, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const size_t bytes = kp_tile_numbers_bytes(g->experts);
  const int64_t width = g->kind == KP_GROUPED_FORWARD ? g->M : g->K;
  const int64_t down =
      g->kind == KP_GROUPED_WEIGHT ? g->experts * ((g->M + TILE - 1) / TILE) : g->experts + g->rows / TILE;
  const int blocks = kp_blocks(down * ((width + TILE - 1) / TILE), 1, 6 * cuda->processors);
  if (kp_is_half(call))
    grouped_kernel<kp_half><<<blocks, THREADS, bytes, cuda->stream>>>(*g);
  else
    grouped_kernel<float><<<blocks, THREADS, bytes, cuda->stream>>>(*g);
  return kp_launched(call, error);
}
