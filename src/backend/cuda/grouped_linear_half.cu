/* Products of experts in bfloat16 by the matrix units: 2 R M K operations, bound by the units.
 *
 * Blocks stay and take tiles of 128 by 128 results, one after the other, of whichever expert; each tile's
 * operands pass through a ring of stages in shared memory, 64 deep, that the copy units fill while the matrix
 * units work.  An operand's stage is 128 rows (or 64 of them twice) of 128 bytes,
 *
 *   depth-major (x, W):   row i, 64 of its depth          one panel of 128 rows
 *   row-major (gyᵀ, ...): depth d, 64 of its rows         two panels of 64 rows
 *
 * in which the 16-byte chunk c of row r stands at c xor (r mod 8): eight rows of one chunk touch all banks. */
#include "backend/cuda/grouped_linear.cuh"
#include "backend/cuda/grouped_linear_units.cuh"

enum { TILE = KP_TILE, DEPTH = KP_TILE_DEPTH, THREADS = KP_TILE_THREADS, STAGES = 3 };

/* ---- copies to shared memory ---- */

__device__ static inline uint32_t shared_address(const void *at) {
  return (uint32_t)__cvta_generic_to_shared(at);
}

/* 16 bytes, zeros where `inside` is false. */
__device__ static inline void copy_16(uint32_t to, const void *from, bool inside) {
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ static inline void commit_copies() {
  asm volatile("cp.async.commit_group;\n" ::);
}

template <int PENDING> __device__ static inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING));
}

/* An operand of one tile: element (i, d) is at[i · pitch + d], or at[d · pitch + i] where rows are contiguous.
 * Copies stop at `rows` and `depth`, both counted from the tile's origin. */
struct operand {
  const kp_half *at;
  int64_t pitch;
  int rows, depth;
};

template <bool ROWS_CONTIGUOUS>
__device__ static inline void copy_operand(const operand &o, int depth, uint32_t to) {
#pragma unroll
  for (int j = 0; j < TILE * DEPTH / 8 / THREADS; j++) {
    const int i = threadIdx.x + j * THREADS;
    if (ROWS_CONTIGUOUS) {
      const int d = i / 16, chunk = i % 16;
      const bool inside = depth + d < o.depth && chunk * 8 < o.rows;
      const kp_half *from = inside ? o.at + (int64_t)(depth + d) * o.pitch + chunk * 8 : o.at;
      copy_16(to + chunk / 8 * KP_PANEL_BYTES + kp_chunk_place(d, chunk % 8), from, inside);
    } else {
      const int row = i / 8, chunk = i % 8;
      const bool inside = row < o.rows && depth + chunk * 8 < o.depth;
      const kp_half *from = inside ? o.at + (int64_t)row * o.pitch + depth + chunk * 8 : o.at;
      copy_16(to + kp_chunk_place(row, chunk), from, inside);
    }
  }
}

/* ---- tiles ---- */

struct tile_work {
  operand a, b;
  int64_t row, column; /* of the tile in the expert's C */
  int expert;
  kp_expert_rows rows;
};

__device__ static inline int limit(int64_t count) {
  return (int)min(count, (int64_t)0x40000000);
}

/* Chunks of 8 elements are copied whole: with padding, which is zero in one of the operands. */
template <int KIND> __device__ static tile_work work_of(const kp_grouped &g, const int *first, int tile) {
  tile_work w;
  w.expert = kp_expert_of_tile(first, g.experts, tile);
  w.rows = kp_rows_of_expert(g.offsets, w.expert, g.rows);
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g.M : g.K;
  const int across = (int)((width + TILE - 1) / TILE), place = tile - first[w.expert];
  w.row = (int64_t)(place / across) * TILE;
  w.column = (int64_t)(place % across) * TILE;
  const kp_half *a = (const kp_half *)g.a + w.rows.first * g.a_pitch, *b = (const kp_half *)g.b;
  if (KIND != KP_GROUPED_WEIGHT) a += w.row * g.a_pitch, b += w.expert * g.expert_stride;
  if (KIND == KP_GROUPED_FORWARD) {
    w.a = {a, g.a_pitch, limit(w.rows.count - w.row), (int)g.K};
    w.b = {b + w.column * g.b_pitch, g.b_pitch, limit(g.M - w.column), (int)g.K};
  } else if (KIND == KP_GROUPED_INPUT) {
    w.a = {a, g.a_pitch, limit(w.rows.count - w.row), (int)g.M};
    w.b = {b + w.column, g.b_pitch, limit(g.K - w.column), (int)g.M};
  } else {
    w.a = {a + w.row, g.a_pitch, limit(g.M - w.row), limit(w.rows.count)};
    w.b = {b + w.rows.first * g.b_pitch + w.column, g.b_pitch, limit(g.K - w.column), limit(w.rows.count)};
  }
  return w;
}

/* ---- results ---- */

/* gW += o a sum for some pairs of a run.  All that is added to is read first: nothing waits for a store. */
template <int FIRST, int COUNT>
__device__ static inline void add_pairs(float *c, int64_t left, bool even, const kp_tile_results &r, int run,
                                        float scale) {
  float2 before[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    const float *from = c + 8 * (FIRST + i);
    const int64_t here = left - 8 * (FIRST + i);
    before[i] = make_float2(0, 0);
    if (here >= 2 && even)
      before[i] = *(const float2 *)from;
    else if (here >= 1)
      before[i] = make_float2(from[0], here >= 2 ? from[1] : 0);
  }
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    float *to = c + 8 * (FIRST + i);
    const int64_t here = left - 8 * (FIRST + i);
    const float2 sum = kp_pair(r, run, FIRST + i);
    const float2 after = make_float2(before[i].x + scale * sum.x, before[i].y + scale * sum.y);
    if (here >= 2 && even) {
      *(float2 *)to = after;
    } else if (here >= 1) {
      to[0] = after.x;
      if (here >= 2) to[1] = after.y;
    }
  }
}

__device__ static inline void add_run(const kp_grouped &g, const tile_work &w, const kp_tile_results &r, int run,
                                      float scale) {
  const int64_t row = w.row + kp_run_row(run), column = w.column + kp_run_column();
  float *c = (float *)g.c + w.expert * g.expert_stride + row * g.c_pitch + column;
  const bool even = g.c_pitch % 2 == 0 && (uintptr_t)g.c % 8 == 0;
  if (row >= g.M) return;
  add_pairs<0, KP_PAIRS / 2>(c, g.K - column, even, r, run, scale);
  add_pairs<KP_PAIRS / 2, KP_PAIRS / 2>(c, g.K - column, even, r, run, scale);
}

/* What is added to o a sum in a column of y. */
__device__ static inline float term_of(const kp_grouped &g, int expert, int64_t column, float time, float out) {
  float term = 0;
  if (g.bias.at != NULL) term = out * g.bias[expert * g.bias_pitch + column];
  if (g.time.at != NULL) term += time * g.time_weight[expert * g.time_weight_pitch + column];
  return term;
}

/* y or gx, and zeros in their padding. */
template <int KIND>
__device__ static inline void write_run(const kp_grouped &g, const tile_work &w, const kp_tile_results &r,
                                        int run, float scale, float out) {
  const int64_t row = w.row + kp_run_row(run), column = w.column + kp_run_column();
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g.M : g.K, at = w.rows.first + row;
  const bool terms = KIND == KP_GROUPED_FORWARD && (g.bias.at != NULL || g.time.at != NULL);
  kp_half *c = (kp_half *)g.c + at * g.c_pitch + column;
  if (row >= w.rows.count) return;
  const float time = KIND == KP_GROUPED_FORWARD && g.time.at != NULL ? scale * g.time[at] : 0;
#pragma unroll
  for (int i = 0; i < KP_PAIRS; i++) {
    const int64_t here = column + 8 * i;
    if (here >= g.c_columns) continue;
    float2 sum = kp_pair(r, run, i);
    sum.x = here < width ? scale * sum.x : 0;
    sum.y = here + 1 < width ? scale * sum.y : 0;
    if (terms && here < width) sum.x += term_of(g, w.expert, here, time, out);
    if (terms && here + 1 < width) sum.y += term_of(g, w.expert, here + 1, time, out);
    if (here + 1 < g.c_columns)
      *(__nv_bfloat162 *)(c + 8 * i) = __floats2bfloat162_rn(sum.x, sum.y);
    else
      c[8 * i] = __float2bfloat16_rn(sum.x);
  }
}

template <int KIND>
__device__ static inline void write_tile(const kp_grouped &g, const tile_work &w, const kp_tile_results &r) {
  const float in = g.factor * kp_scale_of(g.in, w.expert), out = kp_scale_of(g.out, w.expert);
#pragma unroll
  for (int run = 0; run < KP_RUNS; run++)
    if (KIND == KP_GROUPED_WEIGHT)
      add_run(g, w, r, run, in * out);
    else
      write_run<KIND>(g, w, r, run, in * out, out);
}

/* ---- the pipeline ---- */

template <bool A_ROWS, bool B_ROWS>
__device__ static inline void copy_stage(const tile_work &w, int step, uint32_t ring) {
  const uint32_t to = ring + step % STAGES * KP_STAGE_BYTES;
  copy_operand<A_ROWS>(w.a, step * DEPTH, to);
  copy_operand<B_ROWS>(w.b, step * DEPTH, to + KP_OPERAND_BYTES);
}

/* Stage s is multiplied while stage s+1 is on its way and stage s+2 is asked for, in the place of s-1. */
template <int KIND> static __global__ void __launch_bounds__(THREADS, 2) grouped_kernel(kp_grouped g) {
  constexpr bool A_ROWS = KIND == KP_GROUPED_WEIGHT, B_ROWS = KIND != KP_GROUPED_FORWARD;
  extern __shared__ __align__(1024) char memory[];
  int *first = (int *)(memory + STAGES * KP_STAGE_BYTES);
  const uint32_t ring = shared_address(memory);
  kp_number_tiles(g, TILE, TILE, first);
  for (int tile = blockIdx.x; tile < first[g.experts]; tile += gridDim.x) {
    const tile_work w = work_of<KIND>(g, first, tile);
    const int steps = (w.a.depth + DEPTH - 1) / DEPTH;
    kp_tile_results r = {};
    __syncthreads(); /* the last tile's stages are read */
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
      if (s < steps) copy_stage<A_ROWS, B_ROWS>(w, s, ring);
      commit_copies();
    }
    for (int s = 0; s < steps; s++) {
      wait_copies<STAGES - 2>();
      kp_show_units();
      __syncthreads();
      kp_multiply_stage<A_ROWS, B_ROWS>(r, ring + s % STAGES * KP_STAGE_BYTES);
      if (s + STAGES - 1 < steps) copy_stage<A_ROWS, B_ROWS>(w, s + STAGES - 1, ring);
      commit_copies();
      kp_finish_stage(r);
    }
    write_tile<KIND>(g, w, r);
  }
}

bool kp_grouped_half_fits(const kp_grouped *g) {
  const bool weight = g->kind == KP_GROUPED_WEIGHT;
  return g->a_pitch % 8 == 0 && g->b_pitch % 8 == 0 && (weight || g->c_pitch % 8 == 0) &&
         ((uintptr_t)g->a | (uintptr_t)g->b) % 16 == 0 && (uintptr_t)g->c % 4 == 0;
}

template <int KIND> static kp_status launch(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  const int bytes = STAGES * KP_STAGE_BYTES + (int)kp_tile_numbers_bytes(g->experts);
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(grouped_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "shared memory for experts", error));
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g->M : g->K;
  const int64_t down = KIND == KP_GROUPED_WEIGHT ? g->experts * ((g->M + TILE - 1) / TILE)
                                                 : g->experts + g->rows / TILE;
  const int blocks = kp_blocks(down * ((width + TILE - 1) / TILE), 1, 2 * cuda->processors);
  grouped_kernel<KIND><<<blocks, THREADS, bytes, cuda->stream>>>(*g);
  return kp_cuda_check(cudaGetLastError(), "a product of experts", error);
}

kp_status kp_grouped_half(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  if (g->kind == KP_GROUPED_FORWARD) return launch<KP_GROUPED_FORWARD>(cuda, g, error);
  if (g->kind == KP_GROUPED_INPUT) return launch<KP_GROUPED_INPUT>(cuda, g, error);
  return launch<KP_GROUPED_WEIGHT>(cuda, g, error);
}
