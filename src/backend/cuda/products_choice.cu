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
                      p->bias != NULL, p->beta != 0,    p->pads_undefined};
  for (int i = 0; i < 7; i++) key.flags |= (int64_t)bits[i] << i;
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

/* One product by a candidate; false where it fails. */
static bool run(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                const kp_product_choice *by) {
  if (by->maker == KP_MAKER_TILES) return kp_multiply_tiles(cuda, p, NULL) == KP_OK;
  return cublasLtMatmul(cuda->products->handle, plan->operation, &p->alpha, p->b, plan->a, p->a, plan->b,
                        &p->beta, p->c, plan->c, p->c, plan->c, &by->algorithm, cuda->products->workspace,
                        KP_PRODUCTS_WORKSPACE_BYTES, cuda->stream) == CUBLAS_STATUS_SUCCESS;
}

/* Milliseconds of LAUNCHES products, the least of some trials; negative where the candidate fails. */
static float time_of(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                     const kp_product_choice *by, const stopwatch *watch) {
  float least = -1;
  if (!run(cuda, p, plan, by)) return -1;
  for (int trial = 0; trial < TRIALS; trial++) {
    float milliseconds = 0;
    cudaEventRecord(watch->start, cuda->stream);
    for (int i = 0; i < LAUNCHES; i++)
      if (!run(cuda, p, plan, by)) return -1;
    cudaEventRecord(watch->stop, cuda->stream);
    if (cudaEventSynchronize(watch->stop) != cudaSuccess) return -1;
    if (cudaEventElapsedTime(&milliseconds, watch->start, watch->stop) != cudaSuccess) return -1;
    if (least < 0 || milliseconds < least) least = milliseconds;
  }
  return least;
}

static int fastest(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                   const kp_product_choice *candidates, int count) {
  stopwatch watch = {};
  int best = 0;
  float least = -1;
  if (cudaEventCreate(&watch.start) == cudaSuccess && cudaEventCreate(&watch.stop) == cudaSuccess)
    for (int i = 0; i < count; i++) {
      const float time = time_of(cuda, p, plan, &candidates[i], &watch);
      if (time < 0 || (least >= 0 && time >= least)) continue;
      least = time;
      best = i;
    }
  if (watch.start != NULL) cudaEventDestroy(watch.start);
  if (watch.stop != NULL) cudaEventDestroy(watch.stop);
  return best;
}

/* The index of the fastest candidate; 0 where nothing can be measured.  Products that add to C are measured
 * on memory of their own. */
static int measure(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                   const kp_product_choice *candidates, int count) {
  kp_product measured = *p;
  void *own = NULL;
  if (p->beta == 0) return fastest(cuda, p, plan, candidates, count);
  if (cudaMalloc(&own, result_bytes(p)) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  cudaMemsetAsync(own, 0, result_bytes(p), cuda->stream);
  measured.c = own;
  const int best = fastest(cuda, &measured, plan, candidates, count);
  cudaFree(own);
  return best;
}

/* ---- choosing ---- */

/* Whether a choice can be used: one of cuBLASLt's that was read from the file has to be looked at first. */
static bool accepted(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                     kp_product_choice *choice) {
  cublasLtMatmulHeuristicResult_t result = {};
  if (choice->maker == KP_MAKER_TILES) return kp_tiles_fit(p);
  if (choice->checked) return true;
  if (cublasLtMatmulAlgoCheck(cuda->products->handle, plan->operation, plan->a, plan->b, plan->c, plan->c,
                              &choice->algorithm, &result) != CUBLAS_STATUS_SUCCESS)
    return false;
  choice->checked =
      result.state == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= KP_PRODUCTS_WORKSPACE_BYTES;
  return choice->checked;
}

/* cuBLASLt's candidates for the product without its bias that can add one: some are faster than those that it
 * lists with a bias. */
static cublasStatus_t plain_candidates_of(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                                          cublasLtMatmulHeuristicResult_t *found, int *count) {
  const cublasLtEpilogue_t none = CUBLASLT_EPILOGUE_DEFAULT, bias = CUBLASLT_EPILOGUE_BIAS;
  const cublasLtMatmulDescAttributes_t which = CUBLASLT_MATMUL_DESC_EPILOGUE;
  cublasLtMatmulHeuristicResult_t checked = {};
  cublasLtMatmulDescSetAttribute(plan->operation, which, &none, sizeof none);
  const cublasStatus_t status = candidates_of(cuda, p, plan, CANDIDATES, found, count);
  const cublasStatus_t restored = cublasLtMatmulDescSetAttribute(plan->operation, which, &bias, sizeof bias);
  int usable = 0;
  for (int i = 0; i < *count; i++)
    if (cublasLtMatmulAlgoCheck(cuda->products->handle, plan->operation, plan->a, plan->b, plan->c, plan->c,
                                &found[i].algo, &checked) == CUBLAS_STATUS_SUCCESS)
      found[usable++] = found[i];
  *count = usable;
  return status == CUBLAS_STATUS_SUCCESS ? restored : status;
}

/* All candidates for a product; the first is the one to take without measuring. */
static kp_status list_candidates(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                                 kp_product_choice *candidates, int *count, kp_error *error) {
  cublasLtMatmulHeuristicResult_t found[2 * CANDIDATES];
  const kp_product_key key = kp_product_key_of(p);
  int more = 0;
  KP_TRY(kp_cublas_check(candidates_of(cuda, p, plan, cuda->recording ? 1 : (int)CANDIDATES, found, count),
                         error));
  if (p->bias != NULL && *count > 0 && !cuda->recording)
    KP_TRY(kp_cublas_check(plain_candidates_of(cuda, p, plan, found + *count, &more), error));
  *count += more;
  for (int i = 0; i < *count; i++) candidates[i] = {key, KP_MAKER_LIBRARY, found[i].algo, true};
  if (kp_tiles_fit(p)) candidates[(*count)++] = {key, KP_MAKER_TILES, {}, true};
  if (*count == 0) candidates[(*count)++] = {key, KP_MAKER_PLAIN, {}, true};
  return KP_OK;
}

kp_status kp_product_choose(kp_cuda *cuda, const kp_product *p, const kp_product_plan *plan,
                            kp_product_choice *choice, kp_error *error) {
  kp_products *products = cuda->products;
  const kp_product_key key = kp_product_key_of(p);
  kp_product_choice candidates[2 * CANDIDATES + 1], *known = kp_product_choices_find(products, &key);
  int count = 0;
  if (known != NULL && accepted(cuda, p, plan, known)) {
    *choice = *known;
    return KP_OK;
  }
  KP_TRY(list_candidates(cuda, p, plan, candidates, &count, error));
  if (cuda->recording) { /* to be measured another time */
    *choice = candidates[0];
    return KP_OK;
  }
  *choice = candidates[count > 1 ? measure(cuda, p, plan, candidates, count) : 0];
  KP_TRY(kp_product_choices_add(products, choice, error));
  if (choice->maker != KP_MAKER_PLAIN) kp_product_choices_save(products);
  return KP_OK;
}
