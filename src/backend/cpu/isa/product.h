/* Matrix products on all threads.
 *
 * The library (oneDNN or OpenBLAS) runs single-threaded inside a parallel region, and the output is cut into
 * one tile a thread: that is up to twice as fast at small sizes as the library's own threads, as fast at
 * large ones, and the same bits from run to run. */
#ifndef KAPPA_BACKEND_CPU_PRODUCT_H
#define KAPPA_BACKEND_CPU_PRODUCT_H

#include <stdbool.h>

#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"

/* c (rows, columns) = or += a (rows, depth) · b (depth, columns), where a and b may be stored transposed. */
typedef struct kp_product {
  int64_t rows, columns, depth;
  const float *a, *b;
  float *c;
  bool a_transposed; /* a is stored as (depth, rows) */
  bool b_transposed; /* b is stored as (columns, depth) */
  bool add;          /* += instead of = */
} kp_product;

/* The tile of c that one thread computes. */
typedef struct kp_tile {
  kp_range rows, columns;
} kp_tile;

/* How c is cut: row_parts · column_parts tiles. */
typedef struct kp_grid {
  int row_parts, column_parts;
} kp_grid;

/* Threads for a product of this size: below it a second thread costs more than it brings. */
static inline int kp_product_threads(int64_t rows, int64_t columns, int64_t depth, int threads) {
  return rows * columns * depth <= 262144 ? 1 : threads;
}

/* The grid of `threads` tiles with the least to pack: each thread copies rows/row_parts rows of a and
 * columns/column_parts columns of b. */
static inline kp_grid kp_grid_choose(int64_t rows, int64_t columns, int threads) {
  kp_grid best = {threads, 1};
  int64_t best_edge = INT64_MAX;
  for (int parts = 1; parts <= threads; parts++) {
    if (threads % parts != 0) continue;
    const int64_t edge = (rows + parts - 1) / parts + columns / (threads / parts);
    if (edge >= best_edge) continue;
    best_edge = edge;
    best = (kp_grid){parts, threads / parts};
  }
  return best;
}

static inline kp_tile kp_grid_tile(kp_grid grid, int64_t rows, int64_t columns, int part) {
  return (kp_tile){kp_split(rows, 16, part / grid.column_parts, grid.row_parts),
                   kp_split(columns, 16, part % grid.column_parts, grid.column_parts)};
}

/* One tile of `product`, on the calling thread; call it inside a parallel region. */
void KP_ISA_NAME(kp_cpu_product_tile)(const kp_product *product, kp_tile tile);

#endif
