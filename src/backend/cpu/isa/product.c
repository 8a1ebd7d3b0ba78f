#include "backend/cpu/isa/product.h"

#include <cblas.h>

#include "core/assert.h"

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
  cblas_sgemm(CblasRowMajor, product->a_transposed ? CblasTrans : CblasNoTrans,
              product->b_transposed ? CblasTrans : CblasNoTrans, (blasint)rows, (blasint)columns,
              (blasint)product->depth, 1.0f, a, (blasint)a_step, b, (blasint)b_step,
              product->add ? 1.0f : 0.0f, c, (blasint)product->columns);
}
