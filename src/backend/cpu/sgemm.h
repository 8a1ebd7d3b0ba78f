/* The matrix product of a library: OpenBLAS's, or on AMD's processors oneDNN's where the build found it.
 *
 * On a Zen 4 oneDNN is 10 % faster at the shapes of a training step; on an Intel processor its plain
 * row-major product falls to half of OpenBLAS's speed at some strides of the backward pass
 * (docs/dependencies.md). The choice hangs on the processor alone, so a machine gives the same bits in every
 * run.
 *
 * c (rows, columns) = alpha · op(a) op(b) + beta · c, row-major, on the calling thread when it stands in a
 * parallel region.  op transposes where asked; the steps are those of the stored rows.
 *
 * A product with its own transpose costs half as much: kp_ssyrk, which is OpenBLAS's everywhere. */
#ifndef KAPPA_BACKEND_CPU_SGEMM_H
#define KAPPA_BACKEND_CPU_SGEMM_H

#include <stdbool.h>
#include <stdint.h>

#include <cblas.h>
#if defined(KP_ONEDNN) && defined(__x86_64__)
#include <oneapi/dnnl/dnnl.h>
#endif

#include "core/assert.h"

static inline void kp_sgemm(bool a_transposed, bool b_transposed, int64_t rows, int64_t columns,
                            int64_t depth, float alpha, const float *a, int64_t a_step, const float *b,
                            int64_t b_step, float beta, float *c, int64_t c_step) {
#if defined(KP_ONEDNN) && defined(__x86_64__)
  if (__builtin_cpu_is("amd")) {
    const dnnl_status_t status = dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', rows, columns,
                                            depth, alpha, a, a_step, b, b_step, beta, c, c_step);
    kp_assert(status == dnnl_success, "dnnl_sgemm returned %d", (int)status);
    return;
  }
#endif
  kp_assert(rows <= INT32_MAX && columns <= INT32_MAX && depth <= INT32_MAX,
            "a matrix larger than the BLAS can index");
  cblas_sgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
              b_transposed ? CblasTrans : CblasNoTrans, (blasint)rows, (blasint)columns, (blasint)depth,
              alpha, a, (blasint)a_step, b, (blasint)b_step, beta, c, (blasint)c_step);
}

/* The lower triangle of c (side, side) = alpha · op(a) op(a)ᵀ + beta · c; what stands above the diagonal is
 * neither read nor written.  a is (side, depth), or (depth, side) where `a_transposed`. */
static inline void kp_ssyrk(bool a_transposed, int64_t side, int64_t depth, float alpha, const float *a,
                            int64_t a_step, float beta, float *c, int64_t c_step) {
  kp_assert(side <= INT32_MAX && depth <= INT32_MAX, "a matrix larger than the BLAS can index");
  cblas_ssyrk(CblasRowMajor, CblasLower, a_transposed ? CblasTrans : CblasNoTrans, (blasint)side,
              (blasint)depth, alpha, a, (blasint)a_step, beta, c, (blasint)c_step);
}

#endif
