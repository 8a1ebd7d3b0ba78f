/* Linear maps of at most KP_FEW_ROWS rows, as in decoding: M K sizeof(T) bytes of the matrix are read, once
 * for all rows, and nothing else counts.  Those in bfloat16 are in linear_few_half.cu. */
#include "backend/cuda/linear_few.cuh"

enum { WARPS = 8 };

bool kp_few_rows_fit(const kp_few_rows *f) {
  return f->rows <= KP_FEW_ROWS && kp_rows_are_whole(f);
}

bool kp_rows_are_whole(const kp_few_rows *f) {
  return f->depth % 8 == 0 && f->x_pitch % 8 == 0 && f->w_pitch % 8 == 0 && (uintptr_t)f->x % 16 == 0 &&
         (uintptr_t)f->w % 16 == 0;
}

/* Writes an element of y or of its padding. */
__device__ static void finish(const kp_few_rows &f, int64_t column, int row, float sum) {
  float *y = (float *)f.y + row * f.y_pitch;
  if (column < f.columns)
    y[column] = sum + kp_linear_term(f.terms, row, column);
  else if (column < f.y_pitch)
    y[column] = 0;
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
    if (lane == 0) finish(f, column, n, total);
  }
}

kp_status kp_linear_few(const kp_call *call, const kp_few_rows *f, kp_error *error) {
  kp_few_linear few = {};
  few.map = *f;
  if (kp_is_half(call)) return kp_linear_few_half(call, &few, error);
  few_float_kernel<<<kp_blocks(f->y_pitch, WARPS), 32 * WARPS, 0, kp_cuda_of(call)->stream>>>(*f);
  return kp_launched(call, error);
}
