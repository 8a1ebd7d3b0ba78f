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

enum {
  TILE = 128,
  DEPTH = 64,
  STAGES = 3,
  THREADS = 256,
  OPERAND_BYTES = TILE * DEPTH * 2,
  STAGE_BYTES = 2 * OPERAND_BYTES,
  PANEL_BYTES = 64 * 128,
};

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

__device__ static inline uint32_t place_of(int row, int chunk) {
  return (uint32_t)(row * 128 + ((chunk ^ (row & 7)) << 4));
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
      copy_16(to + chunk / 8 * PANEL_BYTES + place_of(d, chunk % 8), from, inside);
    } else {
      const int row = i / 8, chunk = i % 8;
      const bool inside = row < o.rows && depth + chunk * 8 < o.depth;
      const kp_half *from = inside ? o.at + (int64_t)row * o.pitch + depth + chunk * 8 : o.at;
      copy_16(to + place_of(row, chunk), from, inside);
    }
  }
}

/* ---- the matrix units ---- */

__device__ static inline void load_fragments(uint32_t *r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ static inline void load_transposed(uint32_t *r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ static inline void multiply_16(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 16 rows from `row` on by 16 of the depth.  Of the four 8 by 8 matrices, bit `low` of their number tells the
 * half of the rows for A and the half of the depth for B. */
template <bool ROWS_CONTIGUOUS, bool IS_A>
__device__ static inline void load_16(uint32_t *r, uint32_t stage, int row, int step) {
  const int lane = threadIdx.x % 32, matrix = lane / 8;
  const int row_half = IS_A ? matrix & 1 : matrix >> 1, depth_half = IS_A ? matrix >> 1 : matrix & 1;
  if (ROWS_CONTIGUOUS) {
    const int chunk = row / 8 + row_half, d = step * 16 + depth_half * 8 + lane % 8;
    load_transposed(r, stage + chunk / 8 * PANEL_BYTES + place_of(d, chunk % 8));
  } else {
    load_fragments(r, stage + place_of(row + row_half * 8 + lane % 8, step * 2 + depth_half));
  }
}

/* A warp's 64 by 32 results. */
struct results {
  float c[4][4][4];
};

template <bool A_ROWS, bool B_ROWS>
__device__ static inline void multiply_stage(results &r, uint32_t stage, int row, int column) {
#pragma unroll
  for (int step = 0; step < DEPTH / 16; step++) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) load_16<A_ROWS, true>(a[i], stage, row + 16 * i, step);
#pragma unroll
    for (int j = 0; j < 2; j++) load_16<B_ROWS, false>(b[j], stage + OPERAND_BYTES, column + 16 * j, step);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) multiply_16(r.c[i][j], a[i], &b[j / 2][j % 2 * 2]);
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

/* Depths include padding, which is zero, where both operands have it. */
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
    w.a = {a, g.a_pitch, limit(w.rows.count - w.row), (int)g.a_pitch};
    w.b = {b + w.column * g.b_pitch, g.b_pitch, limit(g.M - w.column), (int)g.b_pitch};
  } else if (KIND == KP_GROUPED_INPUT) {
    w.a = {a, g.a_pitch, limit(w.rows.count - w.row), (int)g.a_pitch};
    w.b = {b + w.column, g.b_pitch, limit(g.b_pitch - w.column), (int)g.M};
  } else {
    w.a = {a + w.row, g.a_pitch, limit(g.a_pitch - w.row), limit(w.rows.count)};
    w.b = {b + w.rows.first * g.b_pitch + w.column, g.b_pitch, limit(g.b_pitch - w.column),
           limit(w.rows.count)};
  }
  return w;
}

/* Two results side by side.  The padding's are zero: so is that of the weights. */
template <int KIND>
__device__ static inline void write_pair(const kp_grouped &g, const tile_work &w, int64_t row, int64_t column,
                                         float2 sum, float in, float out) {
  const float scale = in * out;
  if (KIND == KP_GROUPED_WEIGHT) {
    if (row >= g.M) return;
    float *c = (float *)g.c + w.expert * g.expert_stride + row * g.c_pitch + column;
    if (column < g.K) c[0] += scale * sum.x;
    if (column + 1 < g.K) c[1] += scale * sum.y;
    return;
  }
  if (row >= w.rows.count || column >= g.c_pitch) return;
  const int64_t at = w.rows.first + row;
  float2 result = make_float2(scale * sum.x, scale * sum.y);
  if (KIND == KP_GROUPED_FORWARD) {
    const float time = g.time.at == NULL ? 0 : g.time[at];
    for (int i = 0; i < 2; i++) {
      float *y = i == 0 ? &result.x : &result.y;
      if (column + i >= g.M) {
        *y = 0;
        continue;
      }
      if (g.time.at != NULL)
        *y += scale * time * g.time_weight[w.expert * g.time_weight_pitch + column + i];
      if (g.bias.at != NULL) *y += out * g.bias[w.expert * g.bias_pitch + column + i];
    }
  }
  *(__nv_bfloat162 *)((kp_half *)g.c + at * g.c_pitch + column) = __floats2bfloat162_rn(result.x, result.y);
}

template <int KIND>
__device__ static inline void write_tile(const kp_grouped &g, const tile_work &w, const results &r, int row,
                                         int column) {
  const int lane = threadIdx.x % 32;
  const float in = kp_scale_of(g.in, w.expert), out = kp_scale_of(g.out, w.expert);
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        write_pair<KIND>(g, w, w.row + row + 16 * i + 8 * half + lane / 4,
                         w.column + column + 8 * j + lane % 4 * 2,
                         make_float2(r.c[i][j][2 * half], r.c[i][j][2 * half + 1]), in, out);
}

template <int KIND> static __global__ void __launch_bounds__(THREADS, 2) grouped_kernel(kp_grouped g) {
  constexpr bool A_ROWS = KIND == KP_GROUPED_WEIGHT, B_ROWS = KIND != KP_GROUPED_FORWARD;
  extern __shared__ __align__(1024) char memory[];
  int *first = (int *)(memory + STAGES * STAGE_BYTES);
  const uint32_t ring = shared_address(memory);
  const int warp = threadIdx.x / 32, row = warp % 2 * 64, column = warp / 2 * 32;
  kp_number_tiles(g, TILE, TILE, first);
  for (int tile = blockIdx.x; tile < first[g.experts]; tile += gridDim.x) {
    const tile_work w = work_of<KIND>(g, first, tile);
    const int depth = min(w.a.depth, w.b.depth) > 0 ? max(w.a.depth, w.b.depth) : 0;
    const int steps = (depth + DEPTH - 1) / DEPTH;
    results r = {};
    __syncthreads(); /* the last tile's stages are read */
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
      if (s < steps) {
        copy_operand<A_ROWS>(w.a, s * DEPTH, ring + s * STAGE_BYTES);
        copy_operand<B_ROWS>(w.b, s * DEPTH, ring + s * STAGE_BYTES + OPERAND_BYTES);
      }
      commit_copies();
    }
    for (int s = 0; s < steps; s++) {
      wait_copies<STAGES - 2>();
      __syncthreads();
      const int next = s + STAGES - 1;
      if (next < steps) {
        const uint32_t to = ring + next % STAGES * STAGE_BYTES;
        copy_operand<A_ROWS>(w.a, next * DEPTH, to);
        copy_operand<B_ROWS>(w.b, next * DEPTH, to + OPERAND_BYTES);
      }
      commit_copies();
      multiply_stage<A_ROWS, B_ROWS>(r, ring + s % STAGES * STAGE_BYTES, row, column);
    }
    write_tile<KIND>(g, w, r, row, column);
  }
}

bool kp_grouped_half_fits(const kp_grouped *g) {
  const bool weight = g->kind == KP_GROUPED_WEIGHT;
  return g->a_pitch % 8 == 0 && g->b_pitch % 8 == 0 && (weight || g->c_pitch % 8 == 0) &&
         ((uintptr_t)g->a | (uintptr_t)g->b) % 16 == 0;
}

template <int KIND> static kp_status launch(const kp_call *call, const kp_grouped *g, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const int bytes = STAGES * STAGE_BYTES + (int)kp_tile_numbers_bytes(g->experts);
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(grouped_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "shared memory for experts", error));
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g->M : g->K;
  const int64_t down = KIND == KP_GROUPED_WEIGHT ? g->experts * ((g->M + TILE - 1) / TILE)
                                                 : g->experts + g->rows / TILE;
  const int blocks = kp_blocks(down * ((width + TILE - 1) / TILE), 1, 2 * cuda->processors);
  grouped_kernel<KIND><<<blocks, THREADS, bytes, cuda->stream>>>(*g);
  return kp_launched(call, error);
}

kp_status kp_grouped_half(const kp_call *call, const kp_grouped *g, kp_error *error) {
  if (g->kind == KP_GROUPED_FORWARD) return launch<KP_GROUPED_FORWARD>(call, g, error);
  if (g->kind == KP_GROUPED_INPUT) return launch<KP_GROUPED_INPUT>(call, g, error);
  return launch<KP_GROUPED_WEIGHT>(call, g, error);
}
