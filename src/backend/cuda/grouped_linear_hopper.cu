/* Products of experts on Hopper: 2 R M K operations, bound by the matrix units at best.  A tile of 128 by 200
 * results and a depth of 64 brings 41 or 48 KB through the cache for 3.3 million operations, 70 to 80 a byte:
 * at 400 TFLOP/s that is all that the cache gives.
 *
 * Blocks stay and take tiles one after the other.  The copy engine fills a ring of stages in shared memory
 * and runs ahead into the next tile while the results of the last one are written.  gW has few tiles: their
 * depth is shared out to several blocks, which add to gW one after the other, the first part first. */
#include "backend/cuda/grouped_linear_hopper.cuh"

#include "backend/cuda/attention_hopper.cuh"

template <int KIND> struct wide_layout {
  static constexpr bool A_ROWS = KIND == KP_GROUPED_WEIGHT, B_ROWS = KIND != KP_GROUPED_FORWARD;
  static constexpr int B_PANELS = (KP_WIDE_COLUMNS + 63) / 64;
  static constexpr int B_BYTES = B_ROWS ? B_PANELS * KP_WIDE_PANEL : KP_WIDE_COLUMNS * 128;
  static constexpr int STAGE = KP_WIDE_A + B_BYTES, STAGES = KIND == KP_GROUPED_INPUT ? 3 : 4;
};

/* Shared memory, but for the numbers of tiles behind it. */
template <int KIND> struct alignas(1024) wide_shared {
  char stage[wide_layout<KIND>::STAGES][wide_layout<KIND>::STAGE];
  kp_half results[KIND == KP_GROUPED_WEIGHT ? 8 : KP_WIDE_ROWS * KP_WIDE_COLUMNS];
  float bias[2][KP_WIDE_COLUMNS], time_weight[2][KP_WIDE_COLUMNS]; /* of each group of warps */
  uint64_t full[wide_layout<KIND>::STAGES], empty[wide_layout<KIND>::STAGES];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

enum { GROUP_THREADS = 128, BARRIER_OF_GROUP = 1, BARRIER_OF_CONSUMERS = 3 };

/* ---- the copying warp ---- */

template <int KIND>
__device__ static inline void copy_stage(const kp_wide_tile &t, int step, char *stage, uint64_t *barrier,
                                         const CUtensorMap *a, const CUtensorMap *b) {
  typedef wide_layout<KIND> L;
  const int depth = step * KP_WIDE_DEPTH, first = (int)t.rows.first;
  char *to_b = stage + KP_WIDE_A;
  kp_barrier_expect(barrier, L::STAGE);
  if (KIND == KP_GROUPED_WEIGHT)
    for (int i = 0; i < 2; i++)
      kp_copy_box(stage + i * KP_WIDE_PANEL, a, barrier, t.row + 64 * i, first + depth, 0);
  else
    kp_copy_box(stage, a, barrier, depth, first + t.row, 0);
  if (KIND == KP_GROUPED_FORWARD) kp_copy_box(to_b, b, barrier, depth, t.column, t.expert);
  for (int i = 0; i < L::B_PANELS && KIND == KP_GROUPED_INPUT; i++)
    kp_copy_box(to_b + i * KP_WIDE_PANEL, b, barrier, t.column + 64 * i, depth, t.expert);
  for (int i = 0; i < L::B_PANELS && KIND == KP_GROUPED_WEIGHT; i++)
    kp_copy_box(to_b + i * KP_WIDE_PANEL, b, barrier, t.column + 64 * i, first + depth, 0);
}

template <int KIND>
__device__ static inline void copy_tiles(const kp_grouped &g, wide_shared<KIND> &s, const int *firsts,
                                         const CUtensorMap *a, const CUtensorMap *b) {
  constexpr int STAGES = wide_layout<KIND>::STAGES;
  const int units = firsts[g.experts] * g.splits;
  int fill = 0;
  for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const kp_wide_tile t = kp_wide_tile_of<KIND>(g, firsts, unit);
    for (int step = t.first; step < t.end; step++, fill++) {
      const int slot = fill % STAGES;
      kp_barrier_wait(&s.empty[slot], (fill / STAGES & 1) ^ 1);
      copy_stage<KIND>(t, step, s.stage[slot], &s.full[slot], a, b);
    }
  }
}

/* ---- products ---- */

/* The last rows of an expert may share a stage with the next one's: these count as zeros. */
__device__ static inline void clear_tail(char *stage, int rows, int panels) {
  const int pieces = (KP_WIDE_DEPTH - rows) * 8;
  for (int i = threadIdx.x; i < panels * pieces; i += KP_WIDE_CONSUMERS)
    *(uint4 *)(stage + i / pieces * KP_WIDE_PANEL + rows * 128 + i % pieces * 16) = make_uint4(0, 0, 0, 0);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  kp_named_wait(BARRIER_OF_CONSUMERS, KP_WIDE_CONSUMERS);
}

template <int KIND>
__device__ static inline void multiply_stage(float (&c)[KP_WIDE_SUMS], const char *stage) {
  typedef wide_layout<KIND> L;
  const char *a = stage + threadIdx.x / GROUP_THREADS * KP_WIDE_PANEL, *b = stage + KP_WIDE_A;
  kp_wgmma_begin();
#pragma unroll
  for (int step = 0; step < KP_WIDE_DEPTH / 16; step++)
    kp_multiply_wide<L::A_ROWS, L::B_ROWS>(c, kp_describe(a + step * (L::A_ROWS ? 2048 : 32), KP_WIDE_PANEL),
                                           kp_describe(b + step * (L::B_ROWS ? 2048 : 32), KP_WIDE_PANEL));
  kp_wgmma_commit();
}

/* All steps of a tile; `use` counts stages. */
template <int KIND>
__device__ static inline void multiply_tile(const kp_wide_tile &t, wide_shared<KIND> &s, int *use,
                                            float (&c)[KP_WIDE_SUMS]) {
  constexpr int STAGES = wide_layout<KIND>::STAGES;
  const bool speaks = threadIdx.x % 32 == 0;
  for (int step = t.first; step < t.end; step++, ++*use) {
    const int slot = *use % STAGES, rows = t.depth - step * KP_WIDE_DEPTH;
    kp_barrier_wait(&s.full[slot], *use / STAGES & 1);
    if (KIND == KP_GROUPED_WEIGHT && rows < KP_WIDE_DEPTH)
      clear_tail(s.stage[slot], rows, 2 + wide_layout<KIND>::B_PANELS);
    multiply_stage<KIND>(c, s.stage[slot]);
    kp_wgmma_wait<1>();
    if (speaks && step > t.first) kp_barrier_arrive(&s.empty[(*use - 1) % STAGES]);
  }
  kp_wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < KP_WIDE_SUMS; i++) asm volatile("" : "+f"(c[i])::"memory");
  if (speaks && t.end > t.first) kp_barrier_arrive(&s.empty[(*use - 1) % STAGES]);
}

/* ---- rows of y and of gx ---- */

/* What is added to o a sum: for each column of the tile o b and o a time weight. */
__device__ static inline void load_terms(const kp_grouped &g, const kp_wide_tile &t, float scale, float out,
                                         float *bias, float *time_weight) {
  for (int i = threadIdx.x % GROUP_THREADS; i < KP_WIDE_COLUMNS; i += GROUP_THREADS) {
    const int64_t column = t.column + i;
    const bool inside = column < g.M;
    bias[i] = inside && g.bias.at != NULL ? out * g.bias[t.expert * g.bias_pitch + column] : 0;
    time_weight[i] =
        inside && g.time.at != NULL ? scale * g.time_weight[t.expert * g.time_weight_pitch + column] : 0;
  }
}

/* A group's rows to shared memory, with zeros behind the last column.  Rows are 400 bytes apart, so that the
 * eight rows that a warp writes at once fall into different banks. */
template <int KIND>
__device__ static inline void stage_results(const kp_grouped &g, const kp_wide_tile &t,
                                            const float (&c)[KP_WIDE_SUMS], float scale, const float *bias,
                                            const float *time_weight, kp_half *results) {
  const int thread = threadIdx.x % GROUP_THREADS, lane = thread % 32;
  const int64_t width = KIND == KP_GROUPED_FORWARD ? g.M : g.K;
  const int left = (int)min(width - t.column, (int64_t)KP_WIDE_COLUMNS);
#pragma unroll
  for (int run = 0; run < 2; run++) {
    const int row = thread / 32 * 16 + lane / 4 + 8 * run;
    const int64_t at = t.row + threadIdx.x / GROUP_THREADS * 64 + row;
    const bool timed = KIND == KP_GROUPED_FORWARD && g.time.at != NULL && at < t.rows.count;
    const float time = timed ? g.time[t.rows.first + at] : 0;
#pragma unroll
    for (int j = 0; j < KP_WIDE_COLUMNS / 8; j++) {
      const int here = 8 * j + lane % 4 * 2;
      float2 y = make_float2(scale * c[4 * j + 2 * run], scale * c[4 * j + 2 * run + 1]);
      if (KIND == KP_GROUPED_FORWARD) {
        const float2 b = *(const float2 *)&bias[here], w = *(const float2 *)&time_weight[here];
        y.x += b.x + time * w.x;
        y.y += b.y + time * w.y;
      }
      if (here >= left) y.x = 0;
      if (here + 1 >= left) y.y = 0;
      *(__nv_bfloat162 *)&results[row * KP_WIDE_COLUMNS + here] = __floats2bfloat162_rn(y.x, y.y);
    }
  }
}

/* A group's rows leave shared memory 16 bytes a thread. */
__device__ static inline void write_results(const kp_grouped &g, const kp_wide_tile &t,
                                            const kp_half *results) {
  constexpr int CHUNKS = KP_WIDE_COLUMNS / 8;
  const int64_t first = t.row + threadIdx.x / GROUP_THREADS * 64;
  for (int i = threadIdx.x % GROUP_THREADS; i < 64 * CHUNKS; i += GROUP_THREADS) {
    const int64_t row = first + i / CHUNKS, column = t.column + i % CHUNKS * 8;
    const int64_t left = g.c_columns - column;
    if (row >= t.rows.count || left <= 0) continue;
    const kp_half *from = results + i * 8;
    kp_half *to = (kp_half *)g.c + (t.rows.first + row) * g.c_pitch + column;
    if (left >= 8)
      *(uint4 *)to = *(const uint4 *)from;
    else
      for (int k = 0; k < left; k++) to[k] = from[k];
  }
}

/* ---- gW ---- */

/* Waits until the parts of the depth before this one are added. */
__device__ static inline void take_turn(const kp_grouped &g, const kp_wide_tile &t, int group) {
  if (g.splits == 1) return;
  if (threadIdx.x % GROUP_THREADS == 0) {
    const volatile int *turn = g.turns + 2 * t.tile + group;
    while (*turn != t.split) {
    }
    __threadfence();
  }
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
}

__device__ static inline void give_turn(const kp_grouped &g, const kp_wide_tile &t, int group) {
  if (g.splits == 1) return;
  __threadfence();
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
  if (threadIdx.x % GROUP_THREADS == 0) *(volatile int *)(g.turns + 2 * t.tile + group) = t.split + 1;
}

/* gW += o a sum for five pairs of a row.  All that is added to is read first, past the nearest cache, which
 * may hold what stood there before another block's turn. */
template <int FIRST>
__device__ static inline void add_pairs(float *c, int64_t left, bool even, const float (&sum)[KP_WIDE_SUMS],
                                        int run, float scale) {
  float2 before[5];
#pragma unroll
  for (int i = 0; i < 5; i++) {
    const float *from = c + 8 * (FIRST + i);
    const int64_t here = left - 8 * (FIRST + i);
    before[i] = make_float2(0, 0);
    if (here >= 2 && even)
      before[i] = __ldcg((const float2 *)from);
    else if (here >= 1)
      before[i] = make_float2(__ldcg(from), here >= 2 ? __ldcg(from + 1) : 0);
  }
#pragma unroll
  for (int i = 0; i < 5; i++) {
    float *to = c + 8 * (FIRST + i);
    const int64_t here = left - 8 * (FIRST + i);
    const float2 after = make_float2(before[i].x + scale * sum[4 * (FIRST + i) + 2 * run],
                                     before[i].y + scale * sum[4 * (FIRST + i) + 2 * run + 1]);
    if (here >= 2 && even) {
      *(float2 *)to = after;
    } else if (here >= 1) {
      to[0] = after.x;
      if (here >= 2) to[1] = after.y;
    }
  }
}

__device__ static inline void add_results(const kp_grouped &g, const kp_wide_tile &t,
                                          const float (&sum)[KP_WIDE_SUMS], float scale) {
  const int thread = threadIdx.x % GROUP_THREADS, lane = thread % 32;
  const bool even = g.c_pitch % 2 == 0 && g.expert_stride % 2 == 0 && (uintptr_t)g.c % 8 == 0;
#pragma unroll
  for (int run = 0; run < 2; run++) {
    const int64_t row = t.row + threadIdx.x / GROUP_THREADS * 64 + thread / 32 * 16 + lane / 4 + 8 * run;
    const int64_t column = t.column + lane % 4 * 2, left = g.K - column;
    float *c = (float *)g.c + t.expert * g.expert_stride + row * g.c_pitch + column;
    if (row >= g.M) continue;
    add_pairs<0>(c, left, even, sum, run, scale);
    add_pairs<5>(c, left, even, sum, run, scale);
    add_pairs<10>(c, left, even, sum, run, scale);
    add_pairs<15>(c, left, even, sum, run, scale);
    add_pairs<20>(c, left, even, sum, run, scale);
  }
}

/* ---- the multiplying warps ---- */

template <int KIND>
__device__ static inline void write_tile(const kp_grouped &g, const kp_wide_tile &t, wide_shared<KIND> &s,
                                         const float (&c)[KP_WIDE_SUMS], float scale, int group) {
  if (KIND == KP_GROUPED_WEIGHT) {
    take_turn(g, t, group);
    add_results(g, t, c, scale);
    give_turn(g, t, group);
    return;
  }
  kp_half *results = s.results + group * 64 * KP_WIDE_COLUMNS;
  kp_named_wait(BARRIER_OF_GROUP + group,
                GROUP_THREADS); /* the last tile's results are read, terms are there */
  stage_results<KIND>(g, t, c, scale, s.bias[group], s.time_weight[group], results);
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
  write_results(g, t, results);
}

template <int KIND>
__device__ static inline void multiply_tiles(const kp_grouped &g, wide_shared<KIND> &s, const int *firsts) {
  const int units = firsts[g.experts] * g.splits, group = threadIdx.x / GROUP_THREADS;
  int use = 0;
  for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const kp_wide_tile t = kp_wide_tile_of<KIND>(g, firsts, unit);
    const float out = kp_scale_of(g.out, t.expert), scale = g.factor * kp_scale_of(g.in, t.expert) * out;
    float c[KP_WIDE_SUMS] = {};
    if (KIND == KP_GROUPED_FORWARD) load_terms(g, t, scale, out, s.bias[group], s.time_weight[group]);
    multiply_tile<KIND>(t, s, &use, c);
    write_tile<KIND>(g, t, s, c, scale, group);
  }
}

#endif

template <int KIND>
static __global__ void __launch_bounds__(KP_WIDE_THREADS, 1)
    wide_kernel(const kp_grouped g, const __grid_constant__ CUtensorMap a_map,
                const __grid_constant__ CUtensorMap b_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char memory[];
  wide_shared<KIND> &s = *(wide_shared<KIND> *)memory;
  int *firsts = (int *)(memory + sizeof(wide_shared<KIND>));
  if (threadIdx.x == 0) {
    for (int i = 0; i < wide_layout<KIND>::STAGES; i++) {
      kp_barrier_create(&s.full[i], 1);
      kp_barrier_create(&s.empty[i], KP_WIDE_CONSUMERS / 32);
    }
    kp_barrier_publish();
  }
  kp_number_tiles(g, KP_WIDE_ROWS, KP_WIDE_COLUMNS, firsts);
  if (threadIdx.x < KP_WIDE_CONSUMERS)
    multiply_tiles<KIND>(g, s, firsts);
  else if (threadIdx.x == KP_WIDE_CONSUMERS)
    copy_tiles<KIND>(g, s, firsts, &a_map, &b_map);
#endif
}

/* ---- host ---- */

static int64_t parts(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

static int64_t weight_tiles(int64_t experts, int64_t M, int64_t K) {
  return experts * parts(M, KP_WIDE_ROWS) * parts(K, KP_WIDE_COLUMNS);
}

int64_t kp_grouped_turns(int64_t experts, int64_t M, int64_t K) {
  return 2 * weight_tiles(experts, M, K);
}

/* As many parts of the depth as take least time, in steps of the depth: blocks take tiles in waves, and the
 * parts of a tile are added one after the other. */
static int splits_of(const kp_cuda *cuda, const kp_grouped *g) {
  enum { MOST = 8, TURN = 4 };
  const int64_t tiles = weight_tiles(g->experts, g->M, g->K), rows = parts(g->rows, g->experts);
  const double steps = (double)parts(rows, KP_WIDE_DEPTH);
  int best = 1;
  double least = 0;
  if (g->kind != KP_GROUPED_WEIGHT || g->turns == NULL) return 1;
  for (int s = 1; s <= MOST; s++) {
    const double time = (double)parts(tiles * s, cuda->processors) * (steps / s + TURN) + TURN * (s - 1);
    if (s > 1 && time >= least) continue;
    best = s;
    least = time;
  }
  return best;
}

bool kp_grouped_hopper_fits(const kp_cuda *cuda, const kp_grouped *g) {
  const int64_t most = (int64_t)1 << 30;
  return cuda->major == 9 && g->rows > 0 && g->M > 0 && g->K > 0 && g->rows < most && g->M < most &&
         g->K < most && (g->kind == KP_GROUPED_WEIGHT || (uintptr_t)g->c % 16 == 0);
}

template <int KIND> static kp_status maps_of(const kp_grouped *g, CUtensorMap maps[2], kp_error *error) {
  const bool forward = KIND == KP_GROUPED_FORWARD, weight = KIND == KP_GROUPED_WEIGHT;
  const kp_hopper_box a = {g->a, g->a_pitch, weight ? 64 : (int)KP_WIDE_ROWS};
  const kp_hopper_box b = {g->b, g->b_pitch, forward ? (int)KP_WIDE_COLUMNS : 64};
  KP_TRY(kp_hopper_maps(maps, &a, 1, 1, g->rows, error));
  return kp_hopper_maps(maps + 1, &b, 1, weight ? 1 : g->experts, weight ? g->rows : g->M, error);
}

template <int KIND> static kp_status launch(const kp_cuda *cuda, const kp_grouped *given, kp_error *error) {
  const int bytes = (int)(sizeof(wide_shared<KIND>) + kp_tile_numbers_bytes(given->experts));
  const int64_t across = parts(KIND == KP_GROUPED_FORWARD ? given->M : given->K, KP_WIDE_COLUMNS);
  kp_grouped g = *given;
  CUtensorMap maps[2];
  int64_t units = (g.experts + g.rows / KP_WIDE_ROWS) * across;
  g.splits = splits_of(cuda, &g);
  if (KIND == KP_GROUPED_WEIGHT) units = weight_tiles(g.experts, g.M, g.K) * g.splits;
  KP_TRY(maps_of<KIND>(&g, maps, error));
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(wide_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "shared memory for experts", error));
  if (g.splits > 1)
    KP_TRY(
        kp_cuda_check(cudaMemsetAsync(g.turns, 0, (size_t)kp_grouped_turns(g.experts, g.M, g.K) * sizeof(int),
                                      cuda->stream),
                      "the turns of experts", error));
  wide_kernel<KIND>
      <<<kp_blocks(units, 1, cuda->processors), KP_WIDE_THREADS, bytes, cuda->stream>>>(g, maps[0], maps[1]);
  return kp_cuda_check(cudaGetLastError(), "a product of experts", error);
}

kp_status kp_grouped_hopper(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  if (g->kind == KP_GROUPED_FORWARD) return launch<KP_GROUPED_FORWARD>(cuda, g, error);
  if (g->kind == KP_GROUPED_INPUT) return launch<KP_GROUPED_INPUT>(cuda, g, error);
  return launch<KP_GROUPED_WEIGHT>(cuda, g, error);
}
