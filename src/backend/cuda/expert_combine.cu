/* One result a token from its experts' results.  Bytes: the k rows and the shared ones of a token once, the
 * result once; that bounds it. */
#include "backend/cuda/expert_combine.cuh"

constexpr int FIRST_SHARED = 4;
constexpr int FORWARD_BATCH = 2; /* points under way together */
constexpr int FLAT_ROWS = 2;     /* of a thread */

/* Σ z + Σ w y: every element is on its own. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    combine_flat(const __grid_constant__ kp_combination m, T *out) {
  const kp_place place = kp_place_of(FLAT_ROWS);
  if (place.chunk >= m.chunks) return;
  const int64_t column = place.chunk * W;
#pragma unroll
  for (int i = 0; i < FLAT_ROWS; i++) {
    const int64_t n = place.row + i * place.step;
    if (n >= m.N) return;
    kp_chunk<W> sum = {};
    for (int s = 0; s < m.shared_count; s++) {
      const kp_chunk<W> z = kp_read<W>((const T *)m.shared[s] + n * m.pitch + column);
#pragma unroll
      for (int e = 0; e < W; e++) sum.value[e] += z.value[e];
    }
#pragma unroll 4
    for (int j = 0; j < m.k; j++) {
      const kp_chunk<W> y = kp_read<W>((const T *)m.rows + m.slot[n * m.k + j] * m.pitch + column);
      const float w = m.weights[n * m.k + j];
#pragma unroll
      for (int e = 0; e < W; e++) sum.value[e] = fmaf(w, y.value[e], sum.value[e]);
    }
    kp_write<W>(out + n * m.pitch + column, sum);
  }
}

/* The steps of the fold: afterwards `a` is the last one before it is scaled; returns the factor. */
template <typename T, int W, int I, typename R>
__device__ static double fold(const kp_combination &m, const kp_token &t, double c, kp_group_sums *sum,
                              R (&a)[I][W]) {
  double time = sqrt(c), factor = 0;
  for (int i = 0; i < m.k; i++) {
    double square[1], both[2];
#pragma unroll
    for (int item = 0; item < I; item++)
#pragma unroll
      for (int e = 0; e < W; e++) a[item][e] *= (R)factor;
    add_points<T, W>(m, t, i, m.k, a, square);
    both[0] = square[0];
    both[1] = dot_of<R, W>(a, a);
    (*sum)(both);
    time += (double)__shfl_sync(0xffffffffu, t.weight, i) * sqrt(both[0] + c);
    factor = m.scale * norm_factor(m, c, time * time - both[1]);
    time = sqrt(factor * factor * both[1] + c);
  }
  return factor;
}

/* The time is that of the space as it is stored. */
template <typename T, int W, bool FOLD, int I>
static __global__ void __launch_bounds__(COMBINE_THREADS, sizeof(T) == 2 ? 3 : 1)
    combine_points(const __grid_constant__ kp_combination m, T *out, float *time) {
  using R = typename kp_wide<T>::type;
  __shared__ double shared[2][2][COMBINE_THREADS / 32], warps[2][COMBINE_THREADS / 32][COMBINE_POINTS];
  __shared__ R part[COMBINE_THREADS / 32][COMBINE_POINTS][33];
  kp_group_sums sum = {shared, 0};
  kp_point_sums<R> of_points = {part[(threadIdx.y * blockDim.x + threadIdx.x) / 32], warps, 0};
  const kp_token t = token_of(m, (int64_t)blockIdx.x * blockDim.y + threadIdx.y);
  const double c = curvature_of(m);
  R a[I][W] = {};
  double square = 0, factor;
  if constexpr (FOLD) {
    factor = fold<T, W>(m, t, c, &sum, a);
  } else {
    double norm, lift;
    const double a0 = sum_points<T, W, FORWARD_BATCH>(m, t, c, &of_points, &sum, a, &norm, &lift);
    factor = norm_factor(m, c, a0 * a0 - norm);
  }
#pragma unroll
  for (int item = 0; item < I; item++) {
    kp_chunk<W> result;
    R part = 0;
#pragma unroll
    for (int i = 0; i < W; i++) {
      result.value[i] = (float)((R)factor * a[item][i]);
      const R kept = kp_rounded<T>(result.value[i]);
      part += kept * kept;
    }
    square += (double)part;
    write_item<W>(m, t.there, out + t.n * m.pitch, item, result);
  }
  square = sum(square);
  if (threadIdx.x == 0 && t.there && time != NULL) time[t.n] = (float)sqrt(square + c);
}

template <typename T, int W> static void launch(const kp_call *call, kp_combination m, kp_combine_kind kind) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  T *out = (T *)call->output[0];
  float *time = (float *)call->output[1];
  m.chunks = m.pitch / W;
  if (kind == KP_COMBINE_FLAT) {
    const kp_tile tile = kp_tile_of(m.N, m.chunks, FLAT_ROWS);
    combine_flat<T, W><<<tile.grid, tile.block, 0, stream>>>(m, out);
    return;
  }
  const dim3 block = kp_combine_block(m.chunks);
  const int blocks = kp_blocks(m.N, block.y);
  kp_by_items(m.chunks, block, [&](auto items) {
    constexpr int I = decltype(items)::value;
    if (kind == KP_COMBINE_FOLD)
      combine_points<T, W, true, I><<<blocks, block, 0, stream>>>(m, out, time);
    else
      combine_points<T, W, false, I><<<blocks, block, 0, stream>>>(m, out, time);
  });
}

extern "C" kp_status kp_cuda_expert_combine(const kp_call *call, kp_error *error) {
  const kp_combine_arguments *a = (const kp_combine_arguments *)call->node->arguments;
  const bool wide = kp_combination_is_wide(call, FIRST_SHARED) && kp_output_is_wide(call, 0);
  kp_combination m;
  KP_TRY(kp_combination_of(call, FIRST_SHARED, wide, &m, error));
  if (m.N == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, call->node->input[0]), wide, [&](auto real, auto width) {
    launch<decltype(real), decltype(width)::value>(call, m, a->kind);
  });
  return kp_launched(call, error);
}
