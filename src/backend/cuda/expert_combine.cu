/* One result a token from its experts' results.  Bytes: the k rows and the shared ones of a token once, the
 * result once; that bounds it. */
#include "backend/cuda/expert_combine.cuh"

constexpr int FIRST_SHARED = 4;
constexpr int FLAT_ROWS = 2; /* of a thread */

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
template <typename T, int W>
__device__ static double fold(const kp_combination &m, const kp_token &t, double c, kp_group_sums *sum,
                              double (&a)[COMBINE_ITEMS][W]) {
  double time = sqrt(c), factor = 0;
  for (int i = 0; i < m.k; i++) {
    const kp_combined_point<T> p = point_of<T>(m, t, i);
    const double square = (*sum)(add_point(m, t, p, factor, a));
    const double norm = (*sum)(square_of<W>(a));
    time += p.weight * sqrt(square + c);
    factor = m.scale * norm_factor(m, c, time * time - norm);
    time = sqrt(factor * factor * norm + c);
  }
  return factor;
}

template <typename T, int W>
__device__ static double centroid(const kp_combination &m, const kp_token &t, double c, kp_group_sums *sum,
                                  double (&a)[COMBINE_ITEMS][W]) {
  double time = 0;
  for (int i = 0; i < m.shared_count + m.k; i++) {
    const kp_combined_point<T> p = point_of<T>(m, t, i);
    time += p.weight * sqrt((*sum)(add_point(m, t, p, 1, a)) + c);
  }
  return norm_factor(m, c, time * time - (*sum)(square_of<W>(a)));
}

/* The time is that of the space as it is stored. */
template <typename T, int W, bool FOLD>
static __global__ void __launch_bounds__(COMBINE_GROUP)
    combine_points(const __grid_constant__ kp_combination m, T *out, float *time) {
  __shared__ double shared[2][COMBINE_GROUP / 32];
  kp_group_sums sum = {shared, 0};
  const kp_token t = token_of(m, (int64_t)blockIdx.x * blockDim.y + threadIdx.y);
  const double c = curvature_of(m);
  double a[COMBINE_ITEMS][W] = {}, square = 0;
  const double factor = FOLD ? fold<T, W>(m, t, c, &sum, a) : centroid<T, W>(m, t, c, &sum, a);
  each_item<W>(m, t, [&](int item, int64_t column) {
    kp_chunk<W> result;
#pragma unroll
    for (int i = 0; i < W; i++) {
      result.value[i] = (float)(factor * a[item][i]);
      const double kept = kp_rounded<T>(result.value[i]);
      square = fma(kept, kept, square);
    }
    kp_write<W>(out + t.n * m.pitch + column, result);
  });
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
  if (kind == KP_COMBINE_FOLD)
    combine_points<T, W, true><<<blocks, block, 0, stream>>>(m, out, time);
  else
    combine_points<T, W, false><<<blocks, block, 0, stream>>>(m, out, time);
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
