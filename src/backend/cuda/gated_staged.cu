/* Gated activations whose packed halves are no whole chunks, as those of 1559 columns: the gate then begins
 * in the middle of a pack.
 *
 * Rows are brought to shared memory in packs as they stand, their elements are read and written there one by
 * one, and they leave in packs again.  Bytes bound it: u, gate and the result once, backward u, gate, g and
 * two gradients.
 *
 *     a row: u and behind it its gate (pitch) | forward the result (out_pitch), backward its gradient
 * (g_pitch) */
#include "backend/cuda/gated.cuh"

enum { ROW_THREADS = 128, ROWS = 2, MOST_BYTES = 48 << 10 };

/* ---- rows in shared memory ---- */

/* Starts the copy of a row of whole packs. */
template <typename T> __device__ static inline void bring(T *to, const T *from, int64_t pitch) {
  constexpr int SIZE = kp_pack<T>::size;
  for (int64_t i = threadIdx.x * SIZE; i < pitch; i += ROW_THREADS * SIZE)
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to + i)),
        "l"(from + i)
        : "memory");
}

/* All copies of the block have arrived. */
__device__ static inline void await_rows() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
}

template <typename T> __device__ static inline void leave(T *to, const T *from, int64_t pitch) {
  constexpr int SIZE = kp_pack<T>::size;
  for (int64_t i = threadIdx.x * SIZE; i < pitch; i += ROW_THREADS * SIZE)
    kp_store(to + i, kp_load(from + i));
}

template <typename T> __device__ static inline kp_chunk<1> one(T x) {
  kp_chunk<1> chunk;
  chunk.value[0] = kp_to_float(x);
  return chunk;
}

/* ---- forward ---- */

/* The result of a row, zeros in its padding; gives this thread's part of its square. */
template <typename T, kp_activation_kind KIND>
__device__ static inline float gate_row(const kp_gate_rows &r, const T *row, T *out) {
  float square = 0;
#pragma unroll 4
  for (int column = threadIdx.x; column < r.out_pitch; column += ROW_THREADS) {
    kp_chunk<1> y = {};
    if (column < r.width)
      y = kp_gated_by<KIND, 1>(kp_factors_of<1>(r, column), one(row[column]), one(row[r.width + column]));
    out[column] = kp_from_float<T>(y.value[0]);
    const float kept = kp_rounded<T>(y.value[0]);
    square = fmaf(kept, kept, square);
  }
  return square;
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS *ROWS)
    stage_forward(const __grid_constant__ kp_gate_rows r, T *y, float *time, kp_numbers c) {
  extern __shared__ uint4 staged[];
  __shared__ float squares[ROWS][ROW_THREADS / 32];
  const int64_t n = (int64_t)blockIdx.x * ROWS + threadIdx.y;
  T *const row = (T *)staged + threadIdx.y * (r.pitch + r.out_pitch), *const out = row + r.pitch;
  if (n < r.rows) bring(row, (const T *)r.u + n * r.pitch, r.pitch);
  await_rows();
  float square = 0;
  if (n < r.rows)
    kp_by_activation(r.kind,
                     [&](auto constant) { square = gate_row<T, decltype(constant)::value>(r, row, out); });
  square = kp_warp_sum(square);
  if (threadIdx.x % 32 == 0) squares[threadIdx.y][threadIdx.x / 32] = square;
  __syncthreads();
  if (n >= r.rows) return;
  leave(y + n * r.out_pitch, out, r.out_pitch);
  if (time == NULL || threadIdx.x > 0) return;
  float sum = c.at == NULL ? 1.0f : c[0];
  for (int warp = 0; warp < ROW_THREADS / 32; warp++) sum += squares[threadIdx.y][warp];
  time[n] = sqrtf(sum);
}

/* ---- backward ---- */

/* Both halves are overwritten by their gradients. */
template <typename T, kp_activation_kind KIND>
__device__ static inline void differentiate_row(const kp_gate_rows &r, T *row, const T *g, float along) {
#pragma unroll 4
  for (int column = threadIdx.x; column < r.width; column += ROW_THREADS) {
    kp_chunk<1> u = one(row[column]), gate = one(row[r.width + column]);
    kp_gate_sums<1> unused = {};
    kp_gated_backward_by<KIND, 1>(kp_factors_of<1>(r, column), along, &u, &gate, one(g[column]), &unused);
    row[column] = kp_from_float<T>(u.value[0]);
    row[r.width + column] = kp_from_float<T>(gate.value[0]);
  }
  for (int column = 2 * (int)r.width + threadIdx.x; column < r.pitch; column += ROW_THREADS)
    row[column] = kp_from_float<T>(0);
}

template <typename T>
static __global__ void __launch_bounds__(ROW_THREADS *ROWS)
    stage_backward(const __grid_constant__ kp_gate_rows r, const __grid_constant__ kp_gate_gradients b) {
  extern __shared__ uint4 staged[];
  const int64_t n = (int64_t)blockIdx.x * ROWS + threadIdx.y;
  T *const row = (T *)staged + threadIdx.y * (r.pitch + b.g_pitch), *const g = row + r.pitch;
  float along = 0;
  if (n < r.rows) {
    bring(row, (const T *)r.u + n * r.pitch, r.pitch);
    bring(g, (const T *)b.g + n * b.g_pitch, b.g_pitch);
    if (b.g_time != NULL) along = b.g_time[n] / b.time[n];
  }
  await_rows();
  if (n < r.rows)
    kp_by_activation(
        r.kind, [&](auto constant) { differentiate_row<T, decltype(constant)::value>(r, row, g, along); });
  __syncthreads();
  if (n < r.rows) leave((T *)b.gu + n * b.pitch, row, r.pitch);
}

/* ---- launching ---- */

/* A row's halves, and one more of its width. */
static size_t bytes_of(const kp_gate_rows *r, bool half, int64_t other_pitch) {
  return (size_t)(ROWS * (r->pitch + other_pitch)) * (half ? sizeof(kp_half) : sizeof(float));
}

bool kp_gate_staged_fits(const kp_gate_rows *rows, bool half) {
  return bytes_of(rows, half, rows->pitch) <= MOST_BYTES;
}

void kp_gate_staged(cudaStream_t stream, const kp_gate_rows *rows, bool half, void *y, float *time,
                    kp_numbers c) {
  const dim3 block(ROW_THREADS, ROWS);
  const int blocks = kp_blocks(rows->rows, ROWS);
  const size_t bytes = bytes_of(rows, half, rows->out_pitch);
  if (half)
    stage_forward<kp_half><<<blocks, block, bytes, stream>>>(*rows, (kp_half *)y, time, c);
  else
    stage_forward<float><<<blocks, block, bytes, stream>>>(*rows, (float *)y, time, c);
}

void kp_gate_staged_backward(cudaStream_t stream, const kp_gate_rows *rows, bool half,
                             const kp_gate_gradients *gradients) {
  const dim3 block(ROW_THREADS, ROWS);
  const int blocks = kp_blocks(rows->rows, ROWS);
  const size_t bytes = bytes_of(rows, half, gradients->g_pitch);
  if (half)
    stage_backward<kp_half><<<blocks, block, bytes, stream>>>(*rows, *gradients);
  else
    stage_backward<float><<<blocks, block, bytes, stream>>>(*rows, *gradients);
}
