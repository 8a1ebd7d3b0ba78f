#include "backend/cpu/isa/product.h"

#include "backend/cpu/sgemm.h"

void KP_ISA_NAME(kp_cpu_product_tile)(const kp_product *product, kp_tile tile) {
  const int64_t rows = tile.rows.last - tile.rows.first, columns = tile.columns.last - tile.columns.first;
  if (rows <= 0 || columns <= 0) return;
  const int64_t a_step = product->a_transposed ? product->rows : product->depth;
  const int64_t b_step = product->b_transposed ? product->depth : product->columns;
  const float *a = product->a + tile.rows.first * (product->a_transposed ? 1 : a_step);
  const float *b = product->b + tile.columns.first * (product->b_transposed ? b_step : 1);
  float *c = product->c + tile.rows.first * product->columns + tile.columns.first;
  kp_sgemm(product->a_transposed, product->b_transposed, rows, columns, product->depth, 1.0f, a, a_step, b,
           b_step, product->add ? 1.0f : 0.0f, c, product->columns);
}
