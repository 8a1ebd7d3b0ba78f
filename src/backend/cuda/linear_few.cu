/* Linear maps of at most KP_FEW_ROWS rows, as in decoding: M K sizeof(T) bytes of the matrix are read, once
 * for all rows, and nothing else counts.
 *
 * In bfloat16 the matrix units multiply, so that 8 rows cost what one does: they take 16 outputs by 8 rows.
 * The order of a sum's terms is free, so a thread reads 16 bytes of a row of W and the same 16 bytes of a row
 * of x, and gives them to the units as if they were the columns that it should hold. */
#include "backend/cuda/linear.cuh"

enum { TILE_OUTPUTS = 16, STEP = 64, WARPS = 8, MOST_WARPS = 16 };

bool kp_few_rows_fit(const kp_few_rows *f) {
  return f->rows <= KP_FEW_ROWS && f->depth % 8 == 0 && f->x_pitch % 8 == 0 && f->w_pitch % 8 == 0 &&
         (uintptr_t)f->x % 16 == 0 && (uintptr_t)f->w % 16 == 0;
}

__device__ static inline uint4 read_16(const void *at, bool inside) {
  return inside ? __ldg((const uint4 *)at) : make_uint4(0, 0, 0, 0);
}

__device__ static inline void multiply_16(float *c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                          uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Writes y and its padding: `outputs` columns from `first` on, of sums in shared memory (n, outputs). */
template <typename T>
__device__ static void finish(const kp_few_rows &f, int64_t column, int row, float sum) {
  T *y = (T *)f.y + row * f.y_pitch;
  if (column < f.columns)
    y[column] = kp_from_float<T>(sum + kp_linear_term(f.terms, row, column));
  else if (column < f.y_pitch)
    y[column] = kp_from_float<T>(0);
}

/* A block computes `outputs` (4, 8 or 16) columns of y; its warps share the depth. */
static __global__ void __launch_bounds__(32 * MOST_WARPS) few_half_kernel(kp_few_rows f, int outputs) {
  __shared__ float sums[MOST_WARPS][TILE_OUTPUTS][KP_FEW_ROWS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int row = lane / 4, part = lane % 4 * 8;
  const int64_t first = (int64_t)blockIdx.x * outputs;
  const bool low = row < outputs && first + row<f.columns, high = outputs> 8 && first + row + 8 < f.columns;
  const bool present = row < f.rows;
  const kp_half *w = (const kp_half *)f.w + (first + row) * f.w_pitch + part;
  const kp_half *w_high = w + 8 * f.w_pitch, *x = (const kp_half *)f.x + row * f.x_pitch + part;
  float c[4] = {};
#pragma unroll 2
  for (int64_t k = warp * STEP; k < f.depth; k += warps * STEP) {
    const bool inside = k + part < f.depth, inside_too = k + part + 32 < f.depth;
    const uint4 a = read_16(w + k, inside && low), b = read_16(w_high + k, inside && high);
    const uint4 d = read_16(w + k + 32, inside_too && low), e = read_16(w_high + k + 32, inside_too && high);
    const uint4 u = read_16(x + k, inside && present), v = read_16(x + k + 32, inside_too && present);
    multiply_16(c, a.x, b.x, a.y, b.y, u.x, u.y);
    multiply_16(c, a.z, b.z, a.w, b.w, u.z, u.w);
    multiply_16(c, d.x, e.x, d.y, e.y, v.x, v.y);
    multiply_16(c, d.z, e.z, d.w, e.w, v.z, v.w);
  }
  const int n = lane % 4 * 2;
  sums[warp][row][n] = c[0], sums[warp][row][n + 1] = c[1];
  sums[warp][row + 8][n] = c[2], sums[warp][row + 8][n + 1] = c[3];
  __syncthreads();
  for (int i = threadIdx.x; i < outputs * f.rows; i += blockDim.x) {
    float sum = 0;
    for (int s = 0; s < warps; s++) sum += sums[s][i % outputs][i / outputs];
    finish<kp_half>(f, first + i % outputs, i / outputs, sum);
  }
}

/* A warp computes one column of y for all rows. */
static __global__ void few_float_kernel(kp_few_rows f) {
  const int lane = threadIdx.x % 32;
  const int64_t column = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (column >= f.y_pitch) return;
  const bool inside = column < f.columns;
  const float *w = (const float *)f.w + column * f.w_pitch, *x = (const float *)f.x;
  float sum[KP_FEW_ROWS] = {};
#pragma unroll 2
  for (int64_t k = lane * 4; k < f.depth && inside; k += 128) {
    const kp_pack<float> a = kp_load(w + k);
#pragma unroll
    for (int n = 0; n < KP_FEW_ROWS; n++) {
      if (n >= f.rows) break;
      const kp_pack<float> b = kp_load(x + n * f.x_pitch + k);
      for (int i = 0; i < 4; i++) sum[n] += a.value[i] * b.value[i];
    }
  }
#pragma unroll
  for (int n = 0; n < KP_FEW_ROWS; n++) {
    if (n >= f.rows) break;
    const float total = kp_warp_sum(sum[n]);
    if (lane == 0) finish<float>(f, column, n, total);
  }
}

kp_status kp_linear_few(const kp_call *call, const kp_few_rows *f, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  if (!kp_is_half(call)) {
    few_float_kernel<<<kp_blocks(f->y_pitch, WARPS), 32 * WARPS, 0, cuda->stream>>>(*f);
    return kp_launched(call, error);
  }
  /* Enough blocks for all processors, and enough depth for a block's warps. */
  int outputs = TILE_OUTPUTS, warps = WARPS;
  while (outputs > 4 && f->y_pitch / outputs < 2 * cuda->processors) outputs /= 2;
  while (warps > 1 && warps * STEP > f->depth) warps /= 2;
  if (outputs == TILE_OUTPUTS && warps == WARPS && f->depth < 4 * WARPS * STEP) warps /= 2;
  if (outputs < TILE_OUTPUTS && f->depth >= 2 * MOST_WARPS * STEP) warps = MOST_WARPS;
  few_half_kernel<<<kp_blocks(f->y_pitch, outputs), 32 * warps, 0, cuda->stream>>>(*f, outputs);
  return kp_launched(call, error);
}
