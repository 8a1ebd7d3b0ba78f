/* Gated activations, with a scale of each column, and the time of the point that the result is the space of.
 *
 * Packed, a row is u and behind it its gate.  Without a time every element is on its own; with one a group of
 * threads has a row. */
#include "backend/cuda/column_sums.cuh"
#include "backend/cuda/gated.cuh"

constexpr int GATED_ROWS = 4, LIFT_ROWS = 2; /* of a thread */

/* ---- forward ---- */

/* Bytes: u, gate and the result once, which bounds it in float; in bfloat16 about as many cycles go to the
 * exponentials. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    gate_elements(const __grid_constant__ kp_gate_rows r, T *y) {
  const kp_place place = kp_place_of(GATED_ROWS);
  if (place.chunk >= r.chunks) return;
  const int64_t column = place.chunk * W;
  const T *us = (const T *)r.u + column, *gates = (const T *)r.gate + column;
  const kp_factors<W> f = kp_factors_of<W>(r, column);
#pragma unroll 2
  for (int i = 0; i < GATED_ROWS; i++) {
    const int64_t row = place.row + i * place.step;
    if (row >= r.rows) break;
    kp_chunk<W> out = {};
    if (W > 1 || column < r.width)
      out = kp_gated_chunk<W>(r.kind, f, kp_read<W>(us + row * r.pitch), kp_read<W>(gates + row * r.pitch));
    kp_write<W>(y + row * r.out_pitch + column, out);
  }
}

/* A block has LIFT_ROWS rows for each of its y, so that factors are read once for all of them. */
template <typename T, int W>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    gate_rows(const __grid_constant__ kp_gate_rows r, T *y, float *time, kp_numbers c) {
  __shared__ float shared[LIFT_ROWS][8][8]; /* row, y, warp */
  const int64_t first = ((int64_t)blockIdx.x * blockDim.y + threadIdx.y) * LIFT_ROWS;
  float squares[LIFT_ROWS] = {};
  for (int64_t chunk = threadIdx.x; chunk < r.chunks; chunk += blockDim.x) {
    const int64_t column = chunk * W;
    const kp_factors<W> f = kp_factors_of<W>(r, column);
    kp_chunk<W> u[LIFT_ROWS] = {}, gate[LIFT_ROWS] = {};
#pragma unroll
    for (int i = 0; i < LIFT_ROWS; i++)
      if (first + i < r.rows && (W > 1 || column < r.width)) {
        u[i] = kp_read<W>((const T *)r.u + (first + i) * r.pitch + column);
        gate[i] = kp_read<W>((const T *)r.gate + (first + i) * r.pitch + column);
      }
#pragma unroll
    for (int i = 0; i < LIFT_ROWS; i++) {
      const kp_chunk<W> out = kp_gated_chunk<W>(r.kind, f, u[i], gate[i]);
      if (first + i < r.rows) kp_write<W>(y + (first + i) * r.out_pitch + column, out);
#pragma unroll
      for (int j = 0; j < W; j++) {
        const float kept = kp_rounded<T>(out.value[j]);
        squares[i] = fmaf(kept, kept, squares[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < LIFT_ROWS; i++) {
    squares[i] = kp_warp_sum(squares[i]);
    if (threadIdx.x % 32 == 0) shared[i][threadIdx.y][threadIdx.x / 32] = squares[i];
  }
  __syncthreads();
  if (threadIdx.x >= LIFT_ROWS || first + threadIdx.x >= r.rows) return;
  float sum = c.at == NULL ? 1.0f : c[0];
  for (int warp = 0; warp < (int)blockDim.x / 32; warp++) sum += shared[threadIdx.x][threadIdx.y][warp];
  time[first + threadIdx.x] = sqrtf(sum);
}

static kp_gate_rows rows_of(const kp_call *call, int scale) {
  const kp_gated_arguments *a = (const kp_gated_arguments *)call->node->arguments;
  const kp_tensor *x = call->node->input[0];
  const int64_t width = a->packed ? kp_tensor_columns(x) / 2 : kp_tensor_columns(x);
  const size_t size = kp_tensor_is_half(call, x) ? sizeof(kp_half) : sizeof(float);
  const bool scaled = call->node->inputs > scale && call->input[scale] != NULL;
  return kp_gate_rows{call->input[0],
                      a->packed ? (const char *)call->input[0] + (size_t)width * size : call->input[1],
                      scaled ? (const float *)call->input[scale] : NULL,
                      kp_tensor_rows(x),
                      width,
                      kp_pitch(x),
                      0,
                      0,
                      scaled ? (float)a->gate_scale : 1.0f,
                      a->kind,
                      scaled && kp_is_wide(call->input[scale], width)};
}

/* Packed halves are whole chunks when their width is. */
static bool halves_are_wide(const kp_call *call, const kp_gate_rows *r) {
  const kp_gated_arguments *a = (const kp_gated_arguments *)call->node->arguments;
  return kp_is_wide(r->u, r->pitch) && kp_is_wide(r->gate, r->pitch) &&
         (!a->packed || r->width % KP_CHUNK == 0);
}

static bool halves_can_be_staged(const kp_call *call, const kp_gate_rows *r) {
  const kp_gated_arguments *a = (const kp_gated_arguments *)call->node->arguments;
  return a->packed && kp_is_wide(r->u, r->pitch) &&
         kp_gate_staged_fits(r, kp_tensor_is_half(call, call->node->input[0]));
}

extern "C" kp_status kp_cuda_gated_activation(const kp_call *call, kp_error *error) {
  kp_gate_rows r = rows_of(call, 2);
  if (r.rows == 0) return KP_OK;
  const bool lifted = call->node->outputs > 1 && call->output[1] != NULL;
  const kp_numbers c =
      call->node->inputs > 3 && call->input[3] != NULL ? kp_input_numbers(call, 3) : kp_numbers{};
  cudaStream_t stream = kp_cuda_of(call)->stream;
  r.out_pitch = kp_pitch(call->node->output[0]);
  const bool wide = halves_are_wide(call, &r) && kp_output_is_wide(call, 0);
  const bool half = kp_tensor_is_half(call, call->node->input[0]);
  if (!wide && kp_output_is_wide(call, 0) && halves_can_be_staged(call, &r)) {
    kp_gate_staged(stream, &r, half, call->output[0], lifted ? (float *)call->output[1] : NULL, c);
    return kp_launched(call, error);
  }
  kp_by_chunk(half, wide, [&](auto real, auto width) {
    using T = decltype(real);
    constexpr int W = decltype(width)::value;
    r.chunks = r.out_pitch / W;
    if (lifted) {
      const int64_t warps = (r.chunks + 63) / 64, x = 32 * (warps < 1 ? 1 : warps > 8 ? 8 : warps);
      const int64_t y = KP_TILE_THREADS / x;
      gate_rows<T, W><<<kp_blocks(r.rows, y * LIFT_ROWS), dim3((unsigned)x, (unsigned)y), 0, stream>>>(
          r, (T *)call->output[0], (float *)call->output[1], c);
      return;
    }
    const kp_tile tile = kp_tile_of(r.rows, r.chunks, GATED_ROWS);
    gate_elements<T, W><<<tile.grid, tile.block, 0, stream>>>(r, (T *)call->output[0]);
  });
  return kp_launched(call, error);
}

/* ---- backward ---- */

/* Bytes: u, gate and g once, their gradients once.  A thread has a chunk of several rows, and leaves its sums
 * over them as a row of `partial`. */
template <typename T, int W, bool SUMS>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    gate_backward(const __grid_constant__ kp_gate_rows r, const __grid_constant__ kp_gate_gradients b) {
  const int64_t chunk = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, column = chunk * W;
  if (chunk >= r.chunks) return;
  const int64_t group = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  const int64_t step = SUMS ? b.groups : blockDim.y;
  int64_t row = SUMS ? group : (int64_t)blockIdx.x * blockDim.y * b.rows_a_thread + threadIdx.y;
  if (SUMS && group >= b.groups) return;
  const T *us = (const T *)r.u + column, *gates = (const T *)r.gate + column, *gs = (const T *)b.g + column;
  const kp_factors<W> f = kp_factors_of<W>(r, column);
  kp_gate_sums<W> sums = {};
#pragma unroll 2
  for (int64_t i = 0; i < b.rows_a_thread && row < r.rows; i++, row += step) {
    kp_chunk<W> u = {}, gate = {};
    if (W > 1 || column < r.width) {
      u = kp_read<W>(us + row * r.pitch);
      gate = kp_read<W>(gates + row * r.pitch);
      const kp_chunk<W> g = kp_read<W>(gs + row * b.g_pitch);
      const float along = b.g_time == NULL ? 0.0f : b.g_time[row] / b.time[row];
      kp_gated_backward<W>(r.kind, f, along, &u, &gate, g, &sums);
    }
    if (W > 1 || column < b.u_end) kp_write<W>((T *)b.gu + row * b.pitch + column, u);
    if (W > 1 || column < b.gate_end) kp_write<W>((T *)b.gate + row * b.pitch + column, gate);
  }
  if constexpr (SUMS) {
#pragma unroll
    for (int i = 0; i < W; i++) {
      if (column + i < r.width) {
        b.partial[group * 2 * r.width + column + i] = sums.up.value[i];
        b.partial[group * 2 * r.width + r.width + column + i] = r.gate_scale * sums.gate.value[i];
      }
    }
  }
}

/* g c += Σ g time / (2 time), by one block. */
static __global__ void sum_times(const float *time, const float *g_time, int64_t rows, kp_results out) {
  __shared__ double shared[32];
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum += 0.5 * (double)(g_time[i] / time[i]);
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) out.add(0, (float)sum);
}

/* Groups of rows that have partial sums: threads enough for a large device, and few megabytes. */
static int64_t groups_of(int64_t rows, int64_t width) {
  int64_t groups = 131072 * KP_CHUNK / (width + 1);
  groups = groups < 64 ? 64 : groups > 2048 ? 2048 : groups;
  return rows < groups ? rows : groups;
}

extern "C" size_t kp_cuda_scratch_gated_activation_backward(const kp_node *node, int threads) {
  (void)threads;
  if (node->outputs < 3 || node->output[2] == NULL) return 0;
  const int64_t columns = kp_tensor_count(node->output[2]);
  return (size_t)(groups_of(kp_tensor_rows(node->input[0]), columns / 2) * columns) * sizeof(float);
}

template <typename T, int W>
static void launch_backward(const kp_call *call, const kp_gate_rows &r, kp_gate_gradients b) {
  kp_tile tile = kp_tile_of(r.rows, r.chunks, GATED_ROWS);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  b.rows_a_thread = GATED_ROWS;
  if (b.partial == NULL) {
    gate_backward<T, W, false><<<tile.grid, tile.block, 0, stream>>>(r, b);
    return;
  }
  /* As many groups as run at a time, so that all blocks end together. */
  int resident = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, gate_backward<T, W, true>,
                                                (int)(tile.block.x * tile.block.y), 0);
  const int64_t most = groups_of(r.rows, r.width);
  b.groups = (int64_t)resident * kp_cuda_of(call)->processors / tile.grid.y * tile.block.y;
  b.groups = b.groups < 1 ? 1 : b.groups > most ? most : b.groups;
  b.rows_a_thread = (r.rows + b.groups - 1) / b.groups;
  tile = kp_tile_of(b.groups, r.chunks, 1);
  gate_backward<T, W, true><<<tile.grid, tile.block, 0, stream>>>(r, b);
  kp_add_columns_to(call, b.partial, b.groups, 2 * r.width, 2 * r.width, kp_output_numbers(call, 2));
}

extern "C" kp_status kp_cuda_gated_activation_backward(const kp_call *call, kp_error *error) {
  const kp_gated_arguments *a = (const kp_gated_arguments *)call->node->arguments;
  kp_gate_rows r = rows_of(call, 3);
  if (r.rows == 0) return KP_OK;
  const kp_tensor *gx = call->node->output[0];
  const bool half = kp_tensor_is_half(call, gx), has_time = call->node->inputs > 6 && call->input[6] != NULL;
  const size_t size = half ? sizeof(kp_half) : sizeof(float);
  kp_gate_gradients b = {};
  b.g = call->input[2];
  b.time = has_time ? (const float *)call->input[5] : NULL;
  b.g_time = has_time ? (const float *)call->input[6] : NULL;
  b.gu = call->output[0];
  b.gate = a->packed ? (char *)call->output[0] + (size_t)r.width * size : call->output[1];
  b.partial = call->node->outputs > 2 && call->output[2] != NULL ? (float *)call->scratch : NULL;
  b.g_pitch = kp_pitch(call->node->input[2]);
  b.pitch = kp_pitch(gx);
  b.u_end = a->packed ? r.width : b.pitch;
  b.gate_end = a->packed ? b.pitch - r.width : b.pitch;
  const bool wide = halves_are_wide(call, &r) && kp_input_is_wide(call, 2) && kp_is_wide(b.gu, b.pitch) &&
                    kp_is_wide(b.gate, b.pitch);
  if (!wide && b.partial == NULL && halves_can_be_staged(call, &r) && kp_input_is_wide(call, 2) &&
      kp_is_wide(b.gu, b.pitch))
    kp_gate_staged_backward(kp_cuda_of(call)->stream, &r, half, &b);
  else
    kp_by_chunk(half, wide, [&](auto real, auto width) {
      constexpr int W = decltype(width)::value;
      const int64_t most = b.u_end > b.gate_end ? b.u_end : b.gate_end;
      r.chunks = W > 1 ? (r.width + W - 1) / W : most;
      launch_backward<decltype(real), W>(call, r, b);
    });
  if (has_time && call->node->outputs > 3 && call->output[3] != NULL)
    sum_times<<<1, 1024, 0, kp_cuda_of(call)->stream>>>(b.time, b.g_time, r.rows, kp_output_numbers(call, 3));
  return kp_launched(call, error);
}
