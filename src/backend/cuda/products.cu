#include "backend/cuda/products.h"

#include <stdlib.h>

#include "backend/cuda/products_choice.h"

kp_status kp_cublas_check(cublasStatus_t result, kp_error *error) {
  if (result == CUBLAS_STATUS_SUCCESS) return KP_OK;
  return kp_fail(error, KP_ERR_IO, "cuBLASLt says: %s", cublasLtGetStatusString(result));
}

kp_status kp_products_create(kp_cuda *cuda, kp_products **products, kp_error *error) {
  *products = (kp_products *)calloc(1, sizeof **products);
  if (*products == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for matrix products");
  KP_TRY(cuda->base.allocate(&cuda->base, KP_PRODUCTS_WORKSPACE_BYTES + KP_PRODUCTS_BIAS_BYTES,
                             "matrix products", &(*products)->workspace, error));
  KP_TRY(kp_cublas_check(cublasLtCreate(&(*products)->handle), error));
  kp_product_choices_load(*products, cuda);
  return KP_OK;
}

void kp_products_destroy(kp_products *products) {
  if (products == NULL) return;
  if (products->handle != NULL) cublasLtDestroy(products->handle);
  cudaFree(products->workspace);
  free(products->choices);
  free(products);
}

/* ---- plans ---- */

static cublasStatus_t make_layout(cublasLtMatrixLayout_t *layout, cudaDataType_t type, int64_t rows,
                                  int64_t columns, int64_t leading, int64_t batch, int64_t stride) {
  const int32_t count = (int32_t)batch;
  cublasStatus_t status =
      cublasLtMatrixLayoutCreate(layout, type, (uint64_t)rows, (uint64_t)columns, leading);
  if (status != CUBLAS_STATUS_SUCCESS || batch <= 1) return status;
  status =
      cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                          sizeof stride);
}

/* The bias of cuBLASLt has the type of the result. */
static cublasStatus_t set_bias(cublasLtMatmulDesc_t operation, const void *bias, cudaDataType_t type) {
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const int32_t bias_type = type;
  cublasStatus_t status =
      cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status =
      cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(void *));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                        sizeof bias_type);
}

static cublasStatus_t make_plan(const kp_product *p, kp_product_plan *plan) {
  const cublasOperation_t first = p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const int64_t n = p->n, m = p->m, k = p->k;
  cublasStatus_t status = cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
  cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
  if (p->bias != NULL) status = set_bias(plan->operation, p->bias, p->result);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = make_layout(&plan->a, p->type, p->b_transposed ? k : n, p->b_transposed ? n : k, p->ldb, p->batch,
                       p->stride_b);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  status = make_layout(&plan->b, p->type, p->a_transposed ? m : k, p->a_transposed ? k : m, p->lda, p->batch,
                       p->stride_a);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return make_layout(&plan->c, p->result, n, m, p->ldc, p->batch, p->stride_c);
}

static void forget_plan(kp_product_plan *plan) {
  if (plan->c != NULL) cublasLtMatrixLayoutDestroy(plan->c);
  if (plan->b != NULL) cublasLtMatrixLayoutDestroy(plan->b);
  if (plan->a != NULL) cublasLtMatrixLayoutDestroy(plan->a);
  if (plan->operation != NULL) cublasLtMatmulDescDestroy(plan->operation);
}

/* ---- products ---- */

static __global__ void convert_bias(kp_numbers bias, int64_t count, kp_results to, int64_t columns) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < columns) to.set(i, i < count ? bias[i] : 0);
}

static bool bias_stays(const kp_product *p) {
  return p->bias == NULL || ((p->result == CUDA_R_16BF) == p->bias_half && kp_bias_count(p) == p->n);
}

/* Makes the bias one of n numbers in the result's type: itself, or a copy behind the workspace.  Work of a
 * device is one queue, so the copy of the last product is no longer read. */
static kp_status place_bias(kp_cuda *cuda, kp_product *p, kp_error *error) {
  if (bias_stays(p)) return KP_OK;
  const bool half = p->result == CUDA_R_16BF;
  void *copy = (char *)cuda->products->workspace + KP_PRODUCTS_WORKSPACE_BYTES;
  convert_bias<<<kp_blocks(p->n, 256), 256, 0, cuda->stream>>>(
      kp_numbers{p->bias, p->bias_half}, kp_bias_count(p), kp_results{copy, half}, p->n);
  p->bias = copy;
  p->bias_half = half;
  p->bias_count = 0;
  return kp_cuda_check(cudaGetLastError(), "a bias", error);
}

static bool bias_fits(const kp_product *p) {
  return bias_stays(p) || p->n * (int64_t)sizeof(float) <= KP_PRODUCTS_BIAS_BYTES;
}

static kp_status multiply(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan, kp_error *error) {
  kp_product_choice choice;
  KP_TRY(kp_product_choose(cuda, p, plan, &choice, error));
  if (choice.maker == KP_MAKER_PLAIN) return kp_multiply_plain(cuda, p, error);
  if (choice.maker == KP_MAKER_TILES) return kp_multiply_tiles(cuda, p, error);
  return kp_cublas_check(cublasLtMatmul(cuda->products->handle, plan->operation, &p->alpha, p->b, plan->a,
                                        p->a, plan->b, &p->beta, p->c, plan->c, p->c, plan->c,
                                        &choice.algorithm, cuda->products->workspace,
                                        KP_PRODUCTS_WORKSPACE_BYTES, cuda->stream),
                         error);
}

kp_status kp_multiply(kp_cuda *cuda, const kp_product *p, kp_error *error) {
  if (p->m <= 0 || p->n <= 0) return KP_OK;
  if (p->k <= 0 || !bias_fits(p)) return kp_multiply_plain(cuda, p, error);
  kp_product placed = *p;
  KP_TRY(place_bias(cuda, &placed, error));
  kp_product_plan plan = {};
  kp_status status = kp_cublas_check(make_plan(&placed, &plan), error);
  if (status == KP_OK) status = multiply(cuda, &placed, &plan, error);
  forget_plan(&plan);
  if (status == KP_OK) return KP_OK;
  return kp_context(error, "a product of %lld by %lld by %lld", (long long)p->m, (long long)p->n,
                    (long long)p->k);
}
