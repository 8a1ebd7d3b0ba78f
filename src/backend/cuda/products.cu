#include "backend/cuda/products.h"

#include <cublasLt.h>
#include <stdlib.h>

enum { WORKSPACE_BYTES = 32 << 20 };

struct kp_products {
  cublasLtHandle_t handle;
  void *workspace;
};

static kp_status check(cublasStatus_t result, kp_error *error) {
  if (result == CUBLAS_STATUS_SUCCESS) return KP_OK;
  return kp_fail(error, KP_ERR_IO, "cuBLASLt says: %s", cublasLtGetStatusString(result));
}

kp_status kp_products_create(kp_cuda *cuda, kp_products **products, kp_error *error) {
  *products = (kp_products *)calloc(1, sizeof **products);
  if (*products == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for matrix products");
  KP_TRY(cuda->base.allocate(&cuda->base, WORKSPACE_BYTES, "matrix products", &(*products)->workspace, error));
  return check(cublasLtCreate(&(*products)->handle), error);
}

void kp_products_destroy(kp_products *products) {
  if (products == NULL) return;
  if (products->handle != NULL) cublasLtDestroy(products->handle);
  cudaFree(products->workspace);
  free(products);
}
