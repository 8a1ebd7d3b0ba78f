/* What the attention kernels for compute capability 9.0 share: the problem, the numbers kept for each row,
 * and what a head's κ and β make of a score.
 *
 * A tile has 64 or 128 channels.  Where heads of queries or values have another number, all are first copied
 * with zeros behind their channels: the copy engine reads only what starts at a multiple of 16 bytes, and
 * zeros change no product.
 *
 * Rows of a head are dealt with in blocks of 64.  For each block, query head and side (queries, keys) a small
 * kernel writes arrays of 64 numbers that the main kernels read beside the tiles (kp_row_number).  Rows
 * behind the end of a sequence have 0 there, and an infinite logsumexp.
 *
 * With g = <q, k> of the raw rows, s the scale and times t̂ = t / s, the exponent of 2 in a weight is
 * factor · x - logsumexp:
 *   dot      x = g
 *   Lorentz  x = g - t̂_i t̂_j
 *   distance x = -L (κ > 0: π/4 - L), distance squared x = -L², where √k̂ d = 2 unit L for k̂ = |κ| (1 where κ
 * is nearly 0), and L comes from z = k̂ w = Â_i + (1 - 2σÂ_i) Â_j - k̂ E_i E_j g;  σ = sign κ, Â = k̂ α, E = √2
 * s c S (geometry/geodesic_score.h; c² = 1 - κα): κ < 0: 2a = acosh(1 + 2z), L its logarithm to base 2;  κ >
 * 0: a = asin √z;  0: a = √z dL/dz is r/√k̂ · 2·½ with r = 1/√(z(1 - σz)): the root that L needs anyway. */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_CUH

#include <cuda.h>

#include "backend/cuda/attention_hopper.h"

enum { KP_ROW_BLOCK = 64 };

/* The arrays of a block; those before KP_ROW_COPIED are what the other side's rows need. */
enum kp_row_number {
  KP_ROW_LEVEL,     /* Â, or t̂ */
  KP_ROW_FACTOR,    /* E, or 1/t̂ */
  KP_ROW_LOGSUMEXP, /* of a query, to base 2; of a key: its value's time */
  KP_ROW_PRODUCT,   /* of a query: <g, o>, times the head's slope */
  KP_ROW_DOCUMENT,  /* an integer */
  KP_ROW_RATIO,     /* (1 - 2σÂ) / E; centroids, of a query: the gradient of its mean's time */
  KP_ROW_COPIED,
  KP_ROW_LEVEL_SLOPE = KP_ROW_COPIED, /* k̂ dα/d|u|² by the raw row */
  KP_ROW_FACTOR_SLOPE,                /* k̂ dE/d|u|² */
  KP_ROW_LEVEL_KAPPA,                 /* k̂ dα/dκ */
  KP_ROW_FACTOR_KAPPA,                /* k̂ dE/dκ */
  KP_ROW_PLAIN_PRODUCT,               /* <g, o> */
  KP_ROW_ALL
};

/* Everything but the tensor maps; the same for all blocks of a launch. */
struct kp_hopper_problem {
  int batch, length, heads, kv_heads; /* B, T, H, H' */
  int size;                           /* channels of a tile: 64 or 128 */
  int q_column, k_column, v_column;   /* where heads start in the rows that tiles are copied from */
  int row_blocks;                     /* blocks of KP_ROW_BLOCK rows of a sequence */
  int row_numbers;                    /* arrays of a block in memory */
  int section;                        /* heads whose tiles are dealt with side by side */
  kp_score score;
  bool causal, centroid;
  float scale, default_curvature;
  kp_numbers curvature, temperature; /* `at` may be NULL */
  bool one_curvature, one_temperature;
  const int32_t *documents; /* (B, T) or NULL */
  int2 *ranges;             /* (B, row_blocks): the smallest and largest document of a block; NULL without */
  float *q_rows, *k_rows;   /* blocks of numbers; NULL: no kernel reads them */
};

/* Block `block` of head h of sequence b. */
__host__ __device__ static inline int64_t kp_row_block_at(const kp_hopper_problem &p, int b, int h,
                                                          int block) {
  return (((int64_t)b * p.heads + h) * p.row_blocks + block) * p.row_numbers * KP_ROW_BLOCK;
}

/* What κ and β make of a head's scores. */
struct kp_hopper_head {
  int sign; /* of κ; 0 where it is too small to tell */
  float kappa, beta;
  float level;    /* k̂ */
  float unit;     /* a = unit L */
  float factor;   /* of x: never 0, so that a hidden key's minus infinity stays one */
  bool negated;   /* x has the other sign: β is negative */
  float constant; /* what every score has besides: natural units */
  float slope;    /* what a score's gradient is multiplied by */
  float c;        /* -1/κ */
};

__device__ static inline kp_hopper_head kp_hopper_head_of(const kp_hopper_problem &p, int h) {
  kp_hopper_head head;
  const float kappa = p.curvature.at == NULL ? p.default_curvature : p.curvature[p.one_curvature ? 0 : h];
  const float beta = p.temperature.at == NULL ? 1.0f : p.temperature[p.one_temperature ? 0 : h];
  const float base = 1.4426950408889634f;
  /* Below this the flat formula is off by less than closed ones are by rounding. */
  head.sign = fabsf(kappa) < 1e-7f ? 0 : kappa > 0 ? 1 : -1;
  head.kappa = kappa;
  head.beta = beta;
  head.level = head.sign == 0 ? 1.0f : fabsf(kappa);
  head.unit = head.sign < 0 ? 0.34657359027997264f : 1.0f;
  head.constant = 0;
  head.c = -1.0f / kappa;
  float factor;
  if (p.score == KP_SCORE_DOT) {
    factor = beta * p.scale;
    head.slope = factor;
  } else if (p.score == KP_SCORE_LORENTZ) {
    factor = 2 * beta * p.scale * p.scale;
    head.slope = factor;
    head.constant = 2 * beta * head.c;
  } else if (p.score == KP_SCORE_DISTANCE) {
    factor = 2 * beta * head.unit * rsqrtf(head.level);
    head.slope = -beta * rsqrtf(head.level);
    if (head.sign > 0) head.constant = -factor * 0.785398163f;
  } else {
    factor = 4 * beta * head.unit * head.unit / head.level;
    head.slope = -4 * beta * head.unit / head.level;
  }
  head.negated = factor < 0;
  head.factor = fabsf(factor) * base;
  if (head.factor < 1e-30f) head.factor = 1e-30f;
  return head;
}

/* Tile `index` of a launch over `blocks` tiles of each of B·heads heads: section by section, so that a
 * section's rows stay in the cache, and in it from the tile with most work to that with least. */
struct kp_hopper_tile {
  int block, b, h;
};

__device__ static inline kp_hopper_tile kp_hopper_tile_of(const kp_hopper_problem &p, int index, int blocks,
                                                          int heads, bool last_first) {
  const int all = p.batch * heads, section = index / (p.section * blocks);
  const int rest = index - section * p.section * blocks;
  const int here = min(p.section, all - section * p.section);
  const int block = rest / here, head = section * p.section + rest % here;
  return kp_hopper_tile{last_first ? blocks - 1 - block : block, head / heads, head % heads};
}

/* Steps first … end - 1. */
struct kp_hopper_span {
  int first, end;
};

/* A span of groups of `size` blocks, without those at its ends that share no document with the blocks own …
 * own+own_size-1 of sequence b, as far as ranges tell; all lanes of a warp call it, and a block always meets
 * itself. */
__device__ static inline kp_hopper_span kp_hopper_meets(const kp_hopper_problem &p, int b, int own,
                                                        int own_size, int size, kp_hopper_span all) {
  if (p.ranges == NULL) return all;
  const int2 *ranges = p.ranges + (int64_t)b * p.row_blocks;
  int low = ranges[own].x, high = ranges[own].y;
  for (int i = 1; i < own_size; i++) low = min(low, ranges[own + i].x), high = max(high, ranges[own + i].y);
  kp_hopper_span meets = {all.end, all.first};
  for (int base = all.first; base < all.end; base += 32) {
    const int n = base + (int)(threadIdx.x % 32);
    bool met = false;
    for (int i = 0; n < all.end && i < size; i++)
      met = met || (ranges[n * size + i].x <= high && ranges[n * size + i].y >= low);
    const unsigned found = __ballot_sync(0xffffffffu, met);
    if (found == 0) continue;
    meets.first = min(meets.first, base + __ffs((int)found) - 1);
    meets.end = base + 32 - __clz((int)found);
  }
  return meets;
}

/* ---- host ---- */

/* The problem of a call; at `memory` the ranges of documents, then `numbers` arrays a block, the queries'
 * first. */
kp_hopper_problem kp_hopper_problem_of(const kp_call *call, int numbers, float *memory);
/* Floats of the ranges and of both sides' blocks. */
size_t kp_hopper_rows_size(const kp_attention_arguments *a, int numbers);

/* A matrix (B, T, pitch), to be copied in boxes of `rows` rows of 64 columns. */
struct kp_hopper_box {
  const void *matrix;
  int64_t pitch;
  int rows;
};

kp_status kp_hopper_maps(CUtensorMap *maps, const kp_hopper_box *boxes, int count, int64_t batch,
                         int64_t length, kp_error *error);

/* A matrix as kernels index it: head h of a row starts at column + h · size. */
struct kp_hopper_matrix {
  kp_half *at; /* NULL: not wanted */
  int64_t pitch;
  int column, size; /* size: channels of a head */
};

__host__ __device__ static inline kp_half *kp_hopper_at(const kp_hopper_matrix &m, int64_t row, int head) {
  return m.at + row * m.pitch + m.column + (int64_t)head * m.size;
}

/* What the rows' kernel reads and writes. */
struct kp_hopper_rows {
  kp_hopper_matrix q, k, v;
  /* backward only */
  kp_hopper_matrix o, g;        /* g NULL: zero */
  const float *logsumexp;       /* NULL: forward */
  const float *norms, *g_times; /* g_times may be NULL */
  kp_half *bar;                 /* centroids: the gradient of the mean's space (N, H·D) */
  float *kappa_parts;           /* centroids: a number a block and head, what means give to κ */
  int *counts;                  /* two numbers to be set to 0 */
  int *added;                   /* a number a block and head to be set to 0; NULL: none */
  /* q, k, v and g with heads of a tile's channels; NULL: not wanted */
  kp_half *q_copy, *k_copy, *v_copy, *g_copy;
};

/* Channels of a tile that holds a call's heads; 0: they are left to other kernels. */
int kp_hopper_size(const kp_attention_arguments *a);
/* Whether heads have to be copied. */
bool kp_hopper_pads(const kp_attention_arguments *a);
/* Elements of a copy of so many heads. */
size_t kp_hopper_copy_size(const kp_attention_arguments *a, int heads);

/* q, k or v (i = 0, 1, 2) of a call, or their gradients, which lie alike. */
kp_hopper_matrix kp_hopper_side(const kp_attention_arguments *a, int i, void *const *at,
                                kp_tensor *const *tensors);

/* Copies q, k and v, from `memory` on, in the rows' kernel if heads have to be; and lets the matrices be the
 * copies.  Returns what is behind them. */
kp_half *kp_hopper_copy(const kp_attention_arguments *a, kp_half *memory, kp_hopper_rows *rows,
                        kp_hopper_matrix *q, kp_hopper_matrix *k, kp_hopper_matrix *v);

/* Writes every row's numbers. */
void kp_hopper_rows_run(const kp_hopper_problem &p, const kp_hopper_rows &rows, cudaStream_t stream);

#endif
