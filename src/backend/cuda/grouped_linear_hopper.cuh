/* Products of experts in bfloat16 on Hopper: the units of compute capability 9.0a on tiles of 128 by 200
 * results, and what a tile is.
 *
 * 200 columns because the widths of hyperbolic models are one more than multiples of 4 or 64: 392 are two
 * tiles, and so are 384; 1560 are eight.  Two groups of four warps have 64 rows each; one more warp asks the
 * copy engine for the operands, 64 deep a stage.
 *
 *   depth-major operand (x, W forward)   rows of 64 of the depth, 128 bytes each
 *   row-major operand (gy^T, x, W)       panels of 64 rows, in each a row of 128 bytes for each of the depth
 *
 * both as the copy engine's 128-byte swizzle leaves them. */
#ifndef KAPPA_BACKEND_CUDA_GROUPED_LINEAR_HOPPER_CUH
#define KAPPA_BACKEND_CUDA_GROUPED_LINEAR_HOPPER_CUH

#include "backend/cuda/attention_hopper_ptx.cuh"
#include "backend/cuda/grouped_linear.cuh"

enum {
  KP_WIDE_ROWS = 128,
  KP_WIDE_COLUMNS = 200,
  KP_WIDE_DEPTH = 64,
  KP_WIDE_PANEL = 64 * 128,           /* bytes of 64 rows of 128 */
  KP_WIDE_A = 2 * KP_WIDE_PANEL,      /* bytes of a stage's A */
  KP_WIDE_SUMS = KP_WIDE_COLUMNS / 2, /* of a thread */
  KP_WIDE_CONSUMERS = 256,
  KP_WIDE_THREADS = KP_WIDE_CONSUMERS + 32,
};

/* What a tile, or a split of its depth, consists of. */
struct kp_wide_tile {
  int tile, split;
  int expert, row, column; /* of the tile in the expert's C */
  int first, end;          /* steps of the depth */
  int depth;               /* of the product: what stands behind it counts as zero */
  kp_expert_rows rows;
};

template <int KIND>
__device__ static inline kp_wide_tile kp_wide_tile_of(const kp_grouped &g, const int *firsts, int unit) {
  const int tiles = firsts[g.experts];
  const int width = (int)(KIND == KP_GROUPED_FORWARD ? g.M : g.K);
  const int across = (width + KP_WIDE_COLUMNS - 1) / KP_WIDE_COLUMNS;
  kp_wide_tile t;
  t.split = unit / tiles, t.tile = unit % tiles;
  t.expert = kp_expert_of_tile(firsts, g.experts, t.tile);
  t.rows = kp_rows_of_expert(g.offsets, t.expert, g.rows);
  const int place = t.tile - firsts[t.expert];
  t.row = place / across * KP_WIDE_ROWS;
  t.column = place % across * KP_WIDE_COLUMNS;
  t.depth = (int)(KIND == KP_GROUPED_FORWARD ? g.K : KIND == KP_GROUPED_INPUT ? g.M : t.rows.count);
  const int64_t steps = (t.depth + KP_WIDE_DEPTH - 1) / KP_WIDE_DEPTH;
  t.first = (int)(steps * t.split / g.splits);
  t.end = (int)(steps * (t.split + 1) / g.splits);
  return t;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* c (64 rows, 200 columns) += A B, 16 deep; *_ROWS: the operand is row-major.  Thread t of a group holds
 * the rows 16 (t/32) + t%32/4 (+ 8: elements 4j+2, 4j+3) and the columns 8j + 2 (t%4) (+ 1). */
template <bool A_ROWS, bool B_ROWS>
__device__ static inline void kp_multiply_wide(float (&c)[KP_WIDE_SUMS], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n200k16.f32.bf16.bf16 {"
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
               "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
               "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
               "%96, %97, %98, %99"
               "}, %100, %101, 1, 1, 1, %102, %103;"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
                 "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
                 "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]),
                 "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
                 "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]),
                 "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
                 "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]), "+f"(c[48]),
                 "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
                 "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]),
                 "+f"(c[63]), "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67]), "+f"(c[68]), "+f"(c[69]),
                 "+f"(c[70]), "+f"(c[71]), "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75]), "+f"(c[76]),
                 "+f"(c[77]), "+f"(c[78]), "+f"(c[79]), "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83]),
                 "+f"(c[84]), "+f"(c[85]), "+f"(c[86]), "+f"(c[87]), "+f"(c[88]), "+f"(c[89]), "+f"(c[90]),
                 "+f"(c[91]), "+f"(c[92]), "+f"(c[93]), "+f"(c[94]), "+f"(c[95]), "+f"(c[96]), "+f"(c[97]),
                 "+f"(c[98]), "+f"(c[99])
               : "l"(a), "l"(b), "n"(A_ROWS), "n"(B_ROWS));
}

#endif
#endif
