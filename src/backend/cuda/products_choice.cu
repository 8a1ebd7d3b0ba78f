#include "backend/cuda/products_choice.h"

#include <stdlib.h>
#include <string.h>

/* Candidates that are measured, and how often. */
enum { CANDIDATES = 16, LAUNCHES = 3, TRIALS = 3 };

static int alignment_of(const void *at) {
  const uintptr_t address = (uintptr_t)at;
  return address % 16 == 0 ? 16 : address % 8 == 0 ? 8 : address % 4 == 0 ? 4 : 2;
}

kp_product_key kp_product_key_of(const kp_product *p) {
  const bool batched = p->batch > 1;
  kp_product_key key = {};
  key.m = p->m, key.n = p->n, key.k = p->k;
  key.lda = p->lda, key.ldb = p->ldb, key.ldc = p->ldc;
  key.batch = batched ? p->batch : 1;
  key.stride_a = batched ? p->stride_a : 0;
  key.stride_b = batched ? p->stride_b : 0;
  key.stride_c = batched ? p->stride_c : 0;
  const int bits[] = {p->a_transposed, p->b_transposed, p->type == CUDA_R_16BF, p->result == CUDA_R_16BF,
                      p->bias != NULL, p->beta != 0};
  for (int i = 0; i < 6; i++) key.flags |= (int64_t)bits[i] << i;
  key.flags |= (int64_t)(alignment_of(p->a) | alignment_of(p->b) << 5 | alignment_of(p->c) << 10) << 8;
  return key;
}

/* ---- cuBLASLt's candidates ---- */

/* Split sums are added in a fixed order in float, or not at all: the result's own bfloat16 is too coarse. */
static cublasStatus_t candidates_of(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan, int most,
                                    cublasLtMatmulHeuristicResult_t *found, int *count) {
  const uint64_t workspace = KP_PRODUCTS_WORKSPACE_BYTES;
  const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                           (p->result == CUDA_R_32F ? CUBLASLT_REDUCTION_SCHEME_INPLACE : 0);
  const uint32_t alignment[] = {(uint32_t)alignment_of(p->b), (uint32_t)alignment_of(p->a),
                                (uint32_t)alignment_of(p->c)};
  static const cublasLtMatmulPreferenceAttributes_t which[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
  cublasLtMatmulPreference_t preference = NULL;
  cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
  *count = 0;
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                       sizeof workspace);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                       sizeof schemes);
  for (int i = 0; i < 3; i++)
    cublasLtMatmulPreferenceSetAttribute(preference, which[i], &alignment[i], sizeof alignment[i]);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment[2],
                                       sizeof alignment[2]);
  status = cublasLtMatmulAlgoGetHeuristic(cuda->products->handle, plan->operation, plan->a, plan->b, plan->c,
                                          plan->c, preference, most, found, count);
  cublasLtMatmulPreferenceDestroy(preference);
  int usable = 0;
  for (int i = 0; i < *count; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS) found[usable++] = found[i];
  *count = usable;
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? CUBLAS_STATUS_SUCCESS : status;
}

/* ---- measuring ---- */

static size_t result_bytes(const kp_product *p) {
  const int64_t batch = p->batch > 1 ? p->batch : 1;
  const int64_t elements = (batch - 1) * (batch > 1 ? p->stride_c : 0) + (p->m - 1) * p->ldc + p->n;
  return (size_t)elements * (p->result == CUDA_R_16BF ? sizeof(kp_half) : sizeof(float));
}

struct stopwatch {
  cudaEvent_t start, stop;
};

static cublasStatus_t run(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan, void *c,
                          const cublasLtMatmulAlgo_t *algorithm) {
  return cublasLtMatmul(cuda->products->handle, plan->operation, &p->alpha, p->b, plan->a, p->a, plan->b,
                        &p->beta, c, plan->c, c, plan->c, algorithm, cuda->products->workspace,
                        KP_PRODUCTS_WORKSPACE_BYTES, cuda->stream);
}

/* Milliseconds of LAUNCHES products, the least of some trials; negative where the algorithm fails. */
static float time_of(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan, void *c,
                     const cublasLtMatmulAlgo_t *algorithm, const stopwatch *watch) {
  float least = -1;
  if (run(cuda, p, plan, c, algorithm) != CUBLAS_STATUS_SUCCESS) return -1;
  for (int trial = 0; trial < TRIALS; trial++) {
    float milliseconds = 0;
    cudaEventRecord(watch->start, cuda->stream);
    for (int i = 0; i < LAUNCHES; i++)
      if (run(cuda, p, plan, c, algorithm) != CUBLAS_STATUS_SUCCESS) return -1;
    cudaEventRecord(watch->stop, cuda->stream);
    if (cudaEventSynchronize(watch->stop) != cudaSuccess) return -1;
    if (cudaEventElapsedTime(&milliseconds, watch->start, watch->stop) != cudaSuccess) return -1;
    if (least < 0 || milliseconds < least) least = milliseconds;
  }
  return least;
}

/* The index of the fastest candidate; 0 where nothing can be measured.  Products that add to C are measured
 * on memory of their own. */
static int fastest(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                   const cublasLtMatmulHeuristicResult_t *found, int count) {
  stopwatch watch = {};
  void *own = NULL;
  int best = 0;
  float least = -1;
  if (p->beta != 0 && cudaMalloc(&own, result_bytes(p)) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  if (own != NULL) cudaMemsetAsync(own, 0, result_bytes(p), cuda->stream);
  if (cudaEventCreate(&watch.start) == cudaSuccess && cudaEventCreate(&watch.stop) == cudaSuccess)
    for (int i = 0; i < count; i++) {
      const float time = time_of(cuda, p, plan, own != NULL ? own : p->c, &found[i].algo, &watch);
      if (time < 0 || (least >= 0 && time >= least)) continue;
      least = time;
      best = i;
    }
  if (watch.start != NULL) cudaEventDestroy(watch.start);
  if (watch.stop != NULL) cudaEventDestroy(watch.stop);
  cudaFree(own);
  return best;
}

/* ---- choosing ---- */

/* Whether cuBLASLt still takes an algorithm that was read from the file. */
static bool accepted(kp_cuda *cuda, const kp_product_plan *plan, kp_product_choice *choice) {
  cublasLtMatmulHeuristicResult_t result = {};
  if (choice->plain) return false;
  if (cublasLtMatmulAlgoCheck(cuda->products->handle, plan->operation, plan->a, plan->b, plan->c, plan->c,
                              &choice->algorithm, &result) != CUBLAS_STATUS_SUCCESS)
    return false;
  choice->checked = result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= KP_PRODUCTS_WORKSPACE_BYTES;
  return choice->checked;
}

kp_status kp_product_choose(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                            kp_product_choice *choice, kp_error *error) {
  kp_products *products = cuda->products;
  const kp_product_key key = kp_product_key_of(p);
  kp_product_choice *known = kp_product_choices_find(products, &key);
  if (known != NULL && (known->checked || accepted(cuda, plan, known))) {
    *choice = *known;
    return KP_OK;
  }
  cublasLtMatmulHeuristicResult_t found[CANDIDATES];
  int count = 0;
  KP_TRY(kp_cublas_check(
      candidates_of(cuda, p, plan, cuda->recording ? 1 : (int)CANDIDATES, found, &count), error));
  *choice = kp_product_choice{};
  choice->key = key;
  choice->checked = true;
  choice->plain = count == 0;
  if (count > 0) choice->algorithm = found[count > 1 ? fastest(cuda, p, plan, found, count) : 0].algo;
  if (cuda->recording) return KP_OK; /* to be measured another time */
  KP_TRY(kp_product_choices_add(products, choice, error));
  if (!choice->plain) kp_product_choices_save(products);
  return KP_OK;
}
