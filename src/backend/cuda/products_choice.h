/* Which of cuBLASLt's algorithms computes a product: measured once, remembered in memory and in a file.
 *
 * The file is ${XDG_CACHE_HOME:-~/.cache}/kappa/products-GPU-VERSION.txt: a line a shape, the numbers of its
 * key, who computes it, and then the algorithm's 64 bytes in hexadecimal.  Lines that cannot be read are
 * skipped, and algorithms that cuBLASLt no longer accepts are measured anew. */
#ifndef KAPPA_BACKEND_CUDA_PRODUCTS_CHOICE_H
#define KAPPA_BACKEND_CUDA_PRODUCTS_CHOICE_H

#include <cublasLt.h>

#include "backend/cuda/products.h"

/* Everything that algorithms depend on. */
struct kp_product_key {
  int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
  int64_t flags; /* transpositions, types, bias, accumulation, alignment */
};

/* Who computes a product: cuBLASLt; the kernel of this folder, for widths that cuBLASLt is slow at; or, where
 * neither can, the plain one. */
enum kp_product_maker { KP_MAKER_LIBRARY, KP_MAKER_TILES, KP_MAKER_PLAIN };

struct kp_product_choice {
  kp_product_key key;
  int64_t maker;
  cublasLtMatmulAlgo_t algorithm; /* of the library */
  bool checked;                   /* whether this process knows that the library takes it */
};

struct kp_products {
  cublasLtHandle_t handle;
  void *workspace; /* WORKSPACE_BYTES, then BIAS_BYTES for a bias in the result's type */
  kp_product_choice *choices;
  int count, capacity;
  char path[1024]; /* of the file; "" where there is no place for one */
};

enum { KP_PRODUCTS_WORKSPACE_BYTES = 32 << 20, KP_PRODUCTS_BIAS_BYTES = 1 << 20 };

/* cuBLASLt's words for a product: it computes columns first, so its A is our B. */
struct kp_product_plan {
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, c;
};

kp_product_key kp_product_key_of(const kp_product *product);

/* The choice for a product; measures it or asks cuBLASLt's heuristic when there is none yet. */
kp_status kp_product_choose(kp_cuda *cuda, const kp_product *product, const kp_product_plan *plan,
                            kp_product_choice *choice, kp_error *error);

kp_status kp_cublas_check(cublasStatus_t result, kp_error *error);

/* Where the file is, and what it holds. */
void kp_product_choices_load(kp_products *products, const kp_cuda *cuda);
void kp_product_choices_save(const kp_products *products);
/* Remembers a choice, in the place of an older one of the same key. */
kp_status kp_product_choices_add(kp_products *products, const kp_product_choice *choice, kp_error *error);
kp_product_choice *kp_product_choices_find(kp_products *products, const kp_product_key *key);

/* Products in bfloat16 as those of one expert (grouped_linear.cuh): three of the four orders, unbatched. */
bool kp_tiles_fit(const kp_product *product);
kp_status kp_multiply_tiles(kp_cuda *cuda, const kp_product *product, kp_error *error);

/* Any product, for shapes that cuBLASLt does not take. */
kp_status kp_multiply_plain(kp_cuda *cuda, const kp_product *product, kp_error *error);

#endif
