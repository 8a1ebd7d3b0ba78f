/* The rows of a mixture of experts: tokens copied to their experts and back, the points of each expert's own
 * curvature, and the scales between curvatures. */
#include "backend/cuda/chunks.cuh"

constexpr int GATHER_ROWS = 2; /* of a thread */
constexpr int LIFT_WARPS = 8;

/* ---- gather_rows ---- */

/* N tokens with k rows each; token n's rows are slot[n·k] … slot[n·k + k-1]. */
struct kp_gather {
  const int32_t *slot;
  int64_t N, pitch, chunks;
  int k;
  const float *from_time; /* NULL: no time */
  float *to_time;
};

/* Bytes: x once, every sorted row once; a token's row is read once for all its experts. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    gather(const T *x, T *rows, const __grid_constant__ kp_gather g) {
  const kp_place place = kp_place_of(GATHER_ROWS);
  if (place.chunk >= g.chunks) return;
  const int64_t column = place.chunk * W;
#pragma unroll
  for (int i = 0; i < GATHER_ROWS; i++) {
    const int64_t n = place.row + i * place.step;
    if (n >= g.N) return;
    const kp_chunk<W> own = kp_read<W>(x + n * g.pitch + column);
#pragma unroll 4
    for (int j = 0; j < g.k; j++) {
      const int64_t r = g.slot[n * g.k + j];
      kp_write<W>(rows + r * g.pitch + column, own);
      if (column == 0 && g.from_time != NULL) g.to_time[r] = g.from_time[n];
    }
  }
}

/* Bytes: every row's gradient once, the tokens' once.  `g` may be NULL: then only times go back. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    gather_backward(const T *rows, T *gx, const __grid_constant__ kp_gather g) {
  const kp_place place = kp_place_of(GATHER_ROWS);
  if (place.chunk >= g.chunks) return;
  const int64_t column = place.chunk * W;
#pragma unroll
  for (int i = 0; i < GATHER_ROWS; i++) {
    const int64_t n = place.row + i * place.step;
    if (n >= g.N) return;
    kp_chunk<W> sum = {};
    float time = 0;
#pragma unroll 4
    for (int j = 0; j < g.k; j++) {
      const int64_t r = g.slot[n * g.k + j];
      if (column == 0 && g.from_time != NULL) time += g.from_time[r];
      if (rows == NULL) continue;
      const kp_chunk<W> own = kp_read<W>(rows + r * g.pitch + column);
#pragma unroll
      for (int c = 0; c < W; c++) sum.value[c] += own.value[c];
    }
    if (rows != NULL) kp_write<W>(gx + n * g.pitch + column, sum);
    if (column == 0 && g.from_time != NULL) g.to_time[n] = time;
  }
}

extern "C" kp_status kp_cuda_gather_rows(const kp_call *call, kp_error *error) {
  const kp_tensor *x = call->node->input[0], *slot = call->node->input[3];
  kp_gather g = {};
  g.slot = (const int32_t *)call->input[3];
  g.N = kp_tensor_rows(slot);
  g.k = (int)kp_tensor_columns(slot);
  g.pitch = kp_pitch(x);
  g.from_time = (const float *)call->input[1];
  g.to_time = (float *)call->output[1];
  if (g.N == 0) return KP_OK;
  const bool wide = kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0);
  kp_by_chunk(kp_tensor_is_half(call, x), wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(g.N, g.pitch / W, GATHER_ROWS);
    g.chunks = tile.chunks;
    gather<T, W><<<tile.grid, tile.block, 0, kp_cuda_of(call)->stream>>>((const T *)call->input[0],
                                                                         (T *)call->output[0], g);
  });
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_gather_rows_backward(const kp_call *call, kp_error *error) {
  const kp_tensor *rows = call->node->input[0], *slot = call->node->input[2];
  kp_gather g = {};
  g.slot = (const int32_t *)call->input[2];
  g.N = kp_tensor_rows(slot);
  g.k = (int)kp_tensor_columns(slot);
  g.pitch = call->input[0] == NULL ? 1 : kp_pitch(rows);
  g.from_time = (const float *)call->input[1];
  g.to_time = (float *)call->output[1];
  if (g.N == 0) return KP_OK;
  const bool half = call->input[0] != NULL && kp_tensor_is_half(call, rows);
  const bool wide = call->input[0] != NULL && kp_input_is_wide(call, 0) && kp_output_is_wide(call, 0);
  kp_by_chunk(half, wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    const kp_tile tile = kp_tile_of(g.N, g.pitch / W, GATHER_ROWS);
    g.chunks = tile.chunks;
    gather_backward<T, W><<<tile.grid, tile.block, 0, kp_cuda_of(call)->stream>>>((const T *)call->input[0],
                                                                                  (T *)call->output[0], g);
  });
  return kp_launched(call, error);
}

/* ---- expert_lift ---- */

/* The expert of sorted row r: as many of them end at or before it.  The lanes of a warp ask for one row. */
__device__ static inline int expert_of(const int32_t *offsets, int experts, int64_t r) {
  int expert = 0;
  for (int first = 0; first < experts; first += 32) {
    const int e = first + threadIdx.x % 32;
    expert += __popc(__ballot_sync(0xffffffffu, e < experts && offsets[e + 1] <= r));
  }
  return expert < experts ? expert : experts - 1;
}

/* A warp has a row.  Bytes: the space once. */
template <typename T, int W>
static __global__ void __launch_bounds__(LIFT_WARPS * 32)
    lift_rows(const T *space, const int32_t *offsets, kp_numbers c, float *time, int64_t rows, int64_t pitch,
              int experts) {
  const int64_t row = (int64_t)blockIdx.x * LIFT_WARPS + threadIdx.x / 32;
  if (row >= rows) return;
  const int expert = expert_of(offsets, experts, row);
  float square = 0;
#pragma unroll 4
  for (int64_t column = threadIdx.x % 32 * W; column < pitch; column += 32 * W) {
    const kp_chunk<W> x = kp_read<W>(space + row * pitch + column);
#pragma unroll
    for (int i = 0; i < W; i++) square = fmaf(x.value[i], x.value[i], square);
  }
  square = kp_warp_sum(square);
  if (threadIdx.x % 32 == 0) time[row] = sqrtf(square + c[expert]);
}

extern "C" kp_status kp_cuda_expert_lift(const kp_call *call, kp_error *error) {
  const kp_tensor *space = call->node->input[0];
  const int64_t rows = kp_tensor_rows(space), pitch = kp_pitch(space);
  if (rows == 0) return KP_OK;
  kp_by_chunk(kp_tensor_is_half(call, space), kp_input_is_wide(call, 0), [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    lift_rows<T, W><<<kp_blocks(rows, LIFT_WARPS), LIFT_WARPS * 32, 0, kp_cuda_of(call)->stream>>>(
        (const T *)call->input[0], (const int32_t *)call->input[1], kp_input_numbers(call, 2),
        (float *)call->output[0], rows, pitch, (int)kp_tensor_count(call->node->input[2]));
  });
  return kp_launched(call, error);
}

/* g space = direct + g time · s/t; `direct` may be NULL.  Bytes: each once. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    lift_backward(const T *space, const float *time, const float *g, const T *direct, T *out, int64_t rows,
                  int64_t pitch, int64_t chunks) {
  const kp_place place = kp_place_of(GATHER_ROWS);
  if (place.chunk >= chunks) return;
#pragma unroll
  for (int i = 0; i < GATHER_ROWS; i++) {
    const int64_t row = place.row + i * place.step, at = row * pitch + place.chunk * W;
    if (row >= rows) return;
    kp_chunk<W> x = kp_read<W>(space + at), sum = {};
    if (direct != NULL) sum = kp_read<W>(direct + at);
    const float slope = g[row] / time[row];
#pragma unroll
    for (int j = 0; j < W; j++) sum.value[j] = fmaf(slope, x.value[j], sum.value[j]);
    kp_write<W>(out + at, sum);
  }
}

/* g c of expert `blockIdx.x`: Σ g / (2 t) over its rows. */
static __global__ void sum_curvatures(const int32_t *offsets, const float *time, const float *g,
                                      kp_results out) {
  __shared__ double shared[32];
  double sum = 0;
#pragma unroll 4
  for (int64_t r = offsets[blockIdx.x] + (int64_t)threadIdx.x; r < offsets[blockIdx.x + 1]; r += blockDim.x)
    sum += 0.5 * (double)(g[r] / time[r]);
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) out.add(blockIdx.x, (float)sum);
}

extern "C" kp_status kp_cuda_expert_lift_backward(const kp_call *call, kp_error *error) {
  const kp_tensor *space = call->node->input[0];
  const int64_t rows = kp_tensor_rows(space), pitch = kp_pitch(space);
  const unsigned experts = (unsigned)kp_tensor_count(call->node->input[1]) - 1;
  const float *time = (const float *)call->input[2], *g = (const float *)call->input[3];
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (rows == 0) return KP_OK;
  const bool wide = kp_input_is_wide(call, 0) && kp_input_is_wide(call, 4) && kp_output_is_wide(call, 0);
  if (call->output[0] != NULL)
    kp_by_chunk(kp_tensor_is_half(call, space), wide, [&](auto real, auto width) {
      using T = decltype(real);
      constexpr int W = decltype(width)::value;
      const kp_tile tile = kp_tile_of(rows, pitch / W, GATHER_ROWS);
      lift_backward<T, W><<<tile.grid, tile.block, 0, stream>>>(
          (const T *)call->input[0], time, g, (const T *)call->input[4], (T *)call->output[0], rows, pitch,
          tile.chunks);
    });
  if (call->output[1] != NULL)
    sum_curvatures<<<experts, 1024, 0, stream>>>((const int32_t *)call->input[1], time, g,
                                                 kp_output_numbers(call, 1));
  return kp_launched(call, error);
}

/* ---- expert_scale ---- */

__device__ static inline double number_or_one(const kp_numbers &numbers) {
  return numbers.at == NULL ? 1 : (double)numbers[0];
}

static __global__ void scale_experts(kp_numbers c, kp_numbers reference, kp_results out, int64_t experts,
                                     bool inverse) {
  const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= experts) return;
  const double own = (double)c[e], other = number_or_one(reference);
  out.set(e, (float)sqrt(inverse ? other / own : own / other));
}

/* One block, so that the reference's gradient has one order. */
static __global__ void scale_experts_backward(kp_numbers c, kp_numbers reference, kp_numbers scale,
                                              kp_numbers g, kp_results gc, kp_results g_reference,
                                              int64_t experts, double sign) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64_t e = threadIdx.x; e < experts; e += blockDim.x) {
    const double along = sign * (double)g[e] * (double)scale[e];
    if (gc.at != NULL) gc.add(e, (float)(along / (2 * (double)c[e])));
    sum += along;
  }
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0 && g_reference.at != NULL)
    g_reference.add(0, (float)(-sum / (2 * number_or_one(reference))));
}

static kp_numbers optional_numbers(const kp_call *call, int i) {
  return call->node->inputs > i && call->input[i] != NULL ? kp_input_numbers(call, i) : kp_numbers{};
}

extern "C" kp_status kp_cuda_expert_scale(const kp_call *call, kp_error *error) {
  const kp_expert_scale_arguments *a = (const kp_expert_scale_arguments *)call->node->arguments;
  const int64_t experts = kp_tensor_count(call->node->input[0]);
  scale_experts<<<kp_blocks(experts, 256), 256, 0, kp_cuda_of(call)->stream>>>(
      kp_input_numbers(call, 0), optional_numbers(call, 1), kp_output_numbers(call, 0), experts, a->inverse);
  return kp_launched(call, error);
}

extern "C" kp_status kp_cuda_expert_scale_backward(const kp_call *call, kp_error *error) {
  const kp_expert_scale_arguments *a = (const kp_expert_scale_arguments *)call->node->arguments;
  const kp_node *node = call->node;
  const kp_results gc = node->output[0] == NULL ? kp_results{} : kp_output_numbers(call, 0);
  const kp_results g_reference =
      node->outputs < 2 || node->output[1] == NULL ? kp_results{} : kp_output_numbers(call, 1);
  scale_experts_backward<<<1, 256, 0, kp_cuda_of(call)->stream>>>(
      kp_input_numbers(call, 0), optional_numbers(call, 1), kp_input_numbers(call, 2),
      kp_input_numbers(call, 3), gc, g_reference, kp_tensor_count(node->input[0]), a->inverse ? -1 : 1);
  return kp_launched(call, error);
}
