#include "backend/cpu/isa/product.h"

#ifdef KP_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#else
#include <cblas.h>
#endif

#include "core/assert.h"

/* A product of row-major matrices by the library that the build found; on the calling thread, because it
 * stands in a parallel region. */
static void multiply_tile(const kp_product *p, int64_t rows, int64_t columns, const float *a, int64_t a_step,
                          const float *b, int64_t b_step, float *c) {
  const float beta = p->add ? 1.0f : 0.0f;
#ifdef KP_ONEDNN
  const dnnl_status_t status = dnnl_sgemm(p->a_transposed ? 'T' : 'N', p->b_transposed ? 'T' : 'N', rows,
                                          columns, p->depth, 1.0f, a, a_step, b, b_step, beta, c, p->columns);
  kp_assert(status == dnnl_success, "dnnl_sgemm returned %d", (int)status);
#else
  cblas_sgemm(CblasRowMajor, p->a_transposed ? CblasTrans : CblasNoTrans,
              p->b_transposed ? CblasTrans : CblasNoTrans, (blasint)rows, (blasint)columns, (blasint)p->depth,
              1.0f, a, (blasint)a_step, b, (blasint)b_step, beta, c, (blasint)p->columns);
#endif
}

void KP_ISA_NAME(kp_cpu_product_tile)(const kp_product *product, kp_tile tile) {
  const int64_t rows = tile.rows.last - tile.rows.first, columns = tile.columns.last - tile.columns.first;
  if (rows <= 0 || columns <= 0) return;
  kp_assert(product->rows <= INT32_MAX && product->columns <= INT32_MAX && product->depth <= INT32_MAX,
            "a matrix larger than the BLAS can index");
  const int64_t a_step = product->a_transposed ? product->rows : product->depth;
  const int64_t b_step = product->b_transposed ? product->depth : product->columns;
  const float *a = product->a + tile.rows.first * (product->a_transposed ? 1 : a_step);
  const float *b = product->b + tile.columns.first * (product->b_transposed ? b_step : 1);
  float *c = product->c + tile.rows.first * product->columns + tile.columns.first;
  multiply_tile(product, rows, columns, a, a_step, b, b_step, c);
}
