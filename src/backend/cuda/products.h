/* Matrix products by cuBLASLt, with the algorithm of each shape chosen by measurement. */
#ifndef KAPPA_BACKEND_CUDA_PRODUCTS_H
#define KAPPA_BACKEND_CUDA_PRODUCTS_H

#include "backend/cuda/kernel.cuh"

/* Handles, workspace and the table of chosen algorithms of one device. */
kp_status kp_products_create(kp_cuda *cuda, kp_products **products, kp_error *error);
void kp_products_destroy(kp_products *products);

/* C (m, n) = alpha · op(A) op(B) + beta · C, row-major.  op(A) is (m, k), op(B) is (k, n); a `transposed`
 * operand stands in memory as its transpose.  Leading dimensions are in elements.  A and B are of `type`;
 * C is of `result` (CUDA_R_32F or CUDA_R_16BF).  bias (n) is added to every row, or NULL; where C is bfloat16
 * it is rounded to bfloat16 first.  It may be shorter than n: zeros follow.
 *
 * A row of a bfloat16 operand may be read up to a multiple of 8 elements where its leading dimension has room
 * for them: what stands there is finite, unless `pads_undefined`.
 *
 * Float32 products are in float32, never in TF32.  Every algorithm gives the same bits on every run.  The
 * first product of a shape is measured, unless work is being recorded: nothing of C but the result shows it.
 */
struct kp_product {
  int64_t m, n, k;
  const void *a, *b;
  void *c;
  int64_t lda, ldb, ldc;
  bool a_transposed, b_transposed;
  cudaDataType_t type, result;
  float alpha, beta;
  const void *bias;
  int64_t batch, stride_a, stride_b, stride_c; /* batch 0 or 1: one product */
  bool bias_half;                              /* bias is bfloat16; float otherwise */
  int64_t bias_count;                          /* numbers of the bias; 0: n */
  bool pads_undefined;                         /* behind the rows of A and B may stand anything, NaN too */
};

static inline int64_t kp_bias_count(const kp_product *product) {
  return product->bias_count > 0 ? product->bias_count : product->n;
}

kp_status kp_multiply(kp_cuda *cuda, const kp_product *product, kp_error *error);

#endif
