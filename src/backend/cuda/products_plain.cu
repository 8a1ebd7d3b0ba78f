/* Any matrix product, by float multiplications: for shapes that cuBLASLt does not take.  Tiny ones, so the
 * time is that of a launch. */
#include "backend/cuda/products_choice.h"

enum { TILE = 16 };

struct plain_product {
  int64_t m, n, k, bias_count, row_a, step_a, column_b, step_b, ldc, stride_a, stride_b, stride_c;
  kp_numbers a, b, bias;
  kp_results c;
  kp_numbers before; /* C */
  float alpha, beta;
};

static __global__ void multiply_kernel(plain_product p) {
  __shared__ float a[TILE][TILE + 1], b[TILE][TILE + 1];
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t row = (int64_t)blockIdx.y * TILE + y, column = (int64_t)blockIdx.x * TILE + x;
  const int64_t other_column = (int64_t)blockIdx.x * TILE + y;
  const int64_t from_a = blockIdx.z * p.stride_a, from_b = blockIdx.z * p.stride_b;
  float sum = 0;
  for (int64_t k = 0; k < p.k; k += TILE) {
    const bool inside = k + x < p.k;
    a[y][x] = inside && row < p.m ? p.a[from_a + row * p.row_a + (k + x) * p.step_a] : 0;
    b[x][y] = inside && other_column < p.n ? p.b[from_b + other_column * p.column_b + (k + x) * p.step_b] : 0;
    __syncthreads();
    for (int i = 0; i < TILE; i++) sum += a[y][i] * b[i][x];
    __syncthreads();
  }
  if (row >= p.m || column >= p.n) return;
  const int64_t at = blockIdx.z * p.stride_c + row * p.ldc + column;
  float result = p.alpha * sum + (p.bias.at == NULL || column >= p.bias_count ? 0 : p.bias[column]);
  if (p.beta != 0) result += p.beta * p.before[at];
  p.c.set(at, result);
}

kp_status kp_multiply_plain(kp_cuda *cuda, const kp_product *q, kp_error *error) {
  const bool half = q->type == CUDA_R_16BF, half_result = q->result == CUDA_R_16BF;
  plain_product p = {};
  p.m = q->m, p.n = q->n, p.k = q->k, p.ldc = q->ldc;
  p.row_a = q->a_transposed ? 1 : q->lda;
  p.step_a = q->a_transposed ? q->lda : 1;
  p.column_b = q->b_transposed ? q->ldb : 1;
  p.step_b = q->b_transposed ? 1 : q->ldb;
  p.stride_a = q->stride_a, p.stride_b = q->stride_b, p.stride_c = q->stride_c;
  p.a = {q->a, half};
  p.b = {q->b, half};
  p.bias = {q->bias, q->bias_half};
  p.bias_count = kp_bias_count(q);
  p.c = {q->c, half_result};
  p.before = {q->c, half_result};
  p.alpha = q->alpha, p.beta = q->beta;
  const int64_t rows = (q->m + TILE - 1) / TILE, most = 65535;
  for (int64_t first = 0; first < rows; first += most) { /* a grid has so many rows of blocks */
    plain_product part = p;
    const int64_t row = first * TILE;
    part.m = p.m - row;
    part.a.at = (const char *)q->a + row * p.row_a * (half ? 2 : 4);
    part.c.at = (char *)q->c + row * p.ldc * (half_result ? 2 : 4);
    part.before.at = part.c.at;
    const dim3 grid((unsigned)((q->n + TILE - 1) / TILE),
                    (unsigned)(rows - first > most ? most : rows - first),
                    (unsigned)(q->batch > 1 ? q->batch : 1));
    multiply_kernel<<<grid, dim3(TILE, TILE), 0, cuda->stream>>>(part);
  }
  return kp_cuda_check(cudaGetLastError(), "a plain product", error);
}
