/* Products of experts in bfloat16 by the matrix units: 2 R M K operations, bound by the units.
 *
 * Blocks stay and take tiles of 128 by 128 results, one after the other, of whichever expert; each tile's
 * operands pass through a ring of stages in shared memory, 64 deep, that the copy units fill while the matrix
 * units work.  An operand's stage is 128 rows (or 64 of them twice) of 128 bytes,
 *
 *   depth-major (x, W):   row i, 64 of its depth          one panel of 128 rows
 *   row-major (gyᵀ, ...): depth d, 64 of its rows         two panels of 64 rows
 *
 * in which the 16-byte chunk c of row r stands at c xor (r mod 8): eight rows of one chunk touch all banks.
 */
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

/* An operand of one tile: element (i, d) is at[i · pitch + d], or at[d · pitch + i] where rows are
 * contiguous. Copies stop at `rows` and `depth`, both counted from the tile's origin. */
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

__device__ static inline void add_run(const kp_grouped &g, const tile_work &w, const kp_tile_results &r,
                                      int run, float scale) {
  const int64_t row = w.row + kp_run_row(run), column = w.column + kp_run_column();
  float *c = (float *)g.c + w.expert * g.expert_stride + row * g.c_pitch + column;
  const bool even = g.c_pitch % 2 == 0 && (uintptr_t)g.c % 8 == 0;
  if (row >= g.M) return;
  add_pairs<0, KP_PAIRS / 2>(c, g.K - column, even, r, run, scale);
  add_pairs<KP_PAIRS / 2, KP_PAIRS / 2>(c, g.K - column, even, r, run, scale);
}

/* What is added to o a sum: for each column of the tile o b and o a time weight. */
struct tile_terms {
  float bias[TILE], time_weight[TILE];
};

__device__ static inline void load_terms(const kp_grouped &g, const tile_work &w, float scale, float out,
                                         tile_terms *terms) {
  const int64_t column = w.column + threadIdx.x;
  if (threadIdx.x >= TILE) return;
  const bool inside = column < g.M;
  terms->bias[threadIdx.x] = inside && g.bias.at != NULL ? out * g.bias[w.expert * g.bias_pitch + column] : 0;
  terms->time_weight[threadIdx.x] =
      inside && g.time.at != NULL ? scale * g.time_weight[w.expert * g.time_weight_pitch + column] : 0;
}

/* Where chunk `chunk` of 8 results of a row stands on its way out. */
__device__ static inline int staged_place(int row, int chunk) {
  return row * TILE + ((chunk ^ (row & 7)) << 3);
}

/* A run of y or gx, with zeros behind its last column, to shared memory. */
template <int KIND>
__device__ static inline void stage_run(const kp_grouped &g, const tile_work &w, const kp_tile_results &r,
                                        int run, float scale, const tile_terms *terms, kp_half *staged) {
  const int row = kp_run_row(run), column = kp_run_column();
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g.M : g.K, at = w.row + row;
  const bool timed = KIND == KP_GROUPED_FORWARD && g.time.at != NULL && at < w.rows.count;
  const float time = timed ? g.time[w.rows.first + at] : 0;
#pragma unroll
  for (int i = 0; i < KP_PAIRS; i++) {
    const int here = column + 8 * i;
    const float2 sum = kp_pair(r, run, i);
    float2 y = make_float2(scale * sum.x, scale * sum.y);
    if (KIND == KP_GROUPED_FORWARD) {
      const float2 bias = *(const float2 *)&terms->bias[here];
      const float2 weight = *(const float2 *)&terms->time_weight[here];
      y.x += bias.x + time * weight.x;
      y.y += bias.y + time * weight.y;
    }
    if (w.column + here >= width) y.x = 0;
    if (w.column + here + 1 >= width) y.y = 0;
    *(__nv_bfloat162 *)(staged + staged_place(row, here / 8) + here % 8) = __floats2bfloat162_rn(y.x, y.y);
  }
}

/* The tile leaves shared memory by whole rows. */
__device__ static inline void write_staged(const kp_grouped &g, const tile_work &w, const kp_half *staged) {
  const bool whole = (uintptr_t)g.c % 16 == 0; /* rows start at multiples of 16 bytes then */
#pragma unroll
  for (int j = 0; j < TILE * TILE / 8 / THREADS; j++) {
    const int i = threadIdx.x + j * THREADS, row = i / (TILE / 8), chunk = i % (TILE / 8);
    const int64_t left = g.c_columns - w.column - chunk * 8;
    if (w.row + row >= w.rows.count || left <= 0) continue;
    const kp_half *from = staged + staged_place(row, chunk);
    kp_half *to = (kp_half *)g.c + (w.rows.first + w.row + row) * g.c_pitch + w.column + chunk * 8;
    if (whole && left >= 8)
      *(uint4 *)to = *(const uint4 *)from;
    else
      for (int k = 0; k < 8 && k < left; k++) to[k] = from[k];
  }
}

/* ---- tiles' ends ---- */

/* `staged` is memory of stages that are read no more, once all threads are here. */
template <int KIND>
__device__ static inline void write_tile(const kp_grouped &g, const tile_work &w, const kp_tile_results &r,
                                         float scale, const tile_terms *terms, kp_half *staged) {
  if (KIND == KP_GROUPED_WEIGHT) {
#pragma unroll
    for (int run = 0; run < KP_RUNS; run++) add_run(g, w, r, run, scale);
    return;
  }
  __syncthreads();
#pragma unroll
  for (int run = 0; run < KP_RUNS; run++) stage_run<KIND>(g, w, r, run, scale, terms, staged);
  __syncthreads();
  write_staged(g, w, staged);
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
  tile_terms *terms = (tile_terms *)(memory + STAGES * KP_STAGE_BYTES);
  int *first = (int *)(terms + 1);
  const uint32_t ring = shared_address(memory);
  kp_number_tiles(g, TILE, TILE, first);
  for (int tile = blockIdx.x; tile < first[g.experts]; tile += gridDim.x) {
    const tile_work w = work_of<KIND>(g, first, tile);
    const int steps = (w.a.depth + DEPTH - 1) / DEPTH;
    const float out = kp_scale_of(g.out, w.expert), scale = g.factor * kp_scale_of(g.in, w.expert) * out;
    kp_tile_results r = {};
    __syncthreads(); /* the last tile's memory is read */
    if (KIND == KP_GROUPED_FORWARD) load_terms(g, w, scale, out, terms);
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
    write_tile<KIND>(g, w, r, scale, terms, (kp_half *)memory);
  }
}

bool kp_grouped_half_fits(const kp_grouped *g) {
  const bool weight = g->kind == KP_GROUPED_WEIGHT;
  return g->a_pitch % 8 == 0 && g->b_pitch % 8 == 0 && (weight || g->c_pitch % 8 == 0) &&
         ((uintptr_t)g->a | (uintptr_t)g->b) % 16 == 0 && (uintptr_t)g->c % 4 == 0;
}

template <int KIND> static kp_status launch(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  const int bytes = STAGES * KP_STAGE_BYTES + (int)(sizeof(tile_terms) + kp_tile_numbers_bytes(g->experts));
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(grouped_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "shared memory for experts", error));
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g->M : g->K;
  const int64_t down =
      KIND == KP_GROUPED_WEIGHT ? g->experts * ((g->M + TILE - 1) / TILE) : g->experts + g->rows / TILE;
  const int blocks = kp_blocks(down * ((width + TILE - 1) / TILE), 1, 2 * cuda->processors);
  grouped_kernel<KIND><<<blocks, THREADS, bytes, cuda->stream>>>(*g);
  return kp_cuda_check(cudaGetLastError(), "a product of experts", error);
}

kp_status kp_grouped_half(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  if (kp_grouped_hopper_fits(cuda, g)) return kp_grouped_hopper(cuda, g, error);
  if (g->kind == KP_GROUPED_FORWARD) return launch<KP_GROUPED_FORWARD>(cuda, g, error);
  if (g->kind == KP_GROUPED_INPUT) return launch<KP_GROUPED_INPUT>(cuda, g, error);
  return launch<KP_GROUPED_WEIGHT>(cuda, g, error);
}
