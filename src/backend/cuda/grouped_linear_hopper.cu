/* Products of experts on Hopper: 2 R M K operations, bound by the matrix units at best.  A tile of 128 by 200
 * results and a depth of 64 brings 16 KB of A and half of 26 to 32 KB of B through the cache for 3.3 million
 * operations, 100 to 110 a byte: at 600 TFLOP/s that is all that the cache gives.
 *
 * Blocks stay and take tiles one after the other.  The copy engine fills a ring of stages in shared memory
 * and runs ahead into the next tile while the results of the last one are written.  gW has few tiles: their
 * depth is shared out to several blocks, which add to gW one after the other, the first part first. */
#include "backend/cuda/grouped_linear_hopper.cuh"

template <int KIND> struct wide_layout {
  static constexpr bool A_ROWS = KIND == KP_GROUPED_WEIGHT, B_ROWS = KIND != KP_GROUPED_FORWARD;
  /* What each of the two blocks brings of B: panels, or rows in whole groups of 8. */
  static constexpr int PANELS = (KP_WIDE_COLUMNS + 127) / 128, ROWS = (KP_WIDE_COLUMNS + 15) / 16 * 8;
  static constexpr int SHARE = B_ROWS ? PANELS * KP_WIDE_PANEL : ROWS * 128;
  static constexpr int B_BYTES = KP_WIDE_BLOCKS * SHARE;
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
__device__ static inline void copy_stage(const kp_wide_tile &t, int step, int block, char *stage,
                                         uint64_t *barrier, const CUtensorMap *a, const CUtensorMap *b) {
  typedef wide_layout<KIND> L;
  const int depth = step * KP_WIDE_DEPTH, first = (int)t.rows.first;
  char *to_b = stage + KP_WIDE_A + block * L::SHARE;
  kp_barrier_expect(barrier, L::STAGE);
  if (KIND == KP_GROUPED_WEIGHT)
    for (int i = 0; i < 2; i++)
      kp_copy_box(stage + i * KP_WIDE_PANEL, a, barrier, t.row + 64 * i, first + depth, 0);
  else
    kp_copy_box(stage, a, barrier, depth, first + t.row, 0);
  if (KIND == KP_GROUPED_FORWARD)
    kp_copy_box_to_all(to_b, b, barrier, depth, t.column + block * L::ROWS, t.expert);
  for (int i = 0; i < L::PANELS && KIND != KP_GROUPED_FORWARD; i++)
    kp_copy_box_to_all(to_b + i * KP_WIDE_PANEL, b, barrier, t.column + 64 * (block * L::PANELS + i),
                       KIND == KP_GROUPED_WEIGHT ? first + depth : depth,
                       KIND == KP_GROUPED_WEIGHT ? 0 : t.expert);
}

template <int KIND>
__device__ static inline void copy_tiles(const kp_grouped &g, wide_shared<KIND> &s, const int *firsts,
                                         const CUtensorMap *a, const CUtensorMap *b) {
  constexpr int STAGES = wide_layout<KIND>::STAGES;
  const int units = firsts[g.experts] * g.splits, block = blockIdx.x % KP_WIDE_BLOCKS;
  int fill = 0;
  for (int unit = blockIdx.x / KP_WIDE_BLOCKS; unit < units; unit += gridDim.x / KP_WIDE_BLOCKS) {
    const kp_wide_tile t = kp_wide_tile_of<KIND>(g, firsts, unit, block);
    for (int step = t.first; step < t.end; step++, fill++) {
      const int slot = fill % STAGES;
      kp_barrier_wait(&s.empty[slot], (fill / STAGES & 1) ^ 1);
      copy_stage<KIND>(t, step, block, s.stage[slot], &s.full[slot], a, b);
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
__device__ static inline void multiply_stage(float (&c)[KP_WIDE_SUMS], const char *stage, bool fresh) {
  typedef wide_layout<KIND> L;
  const char *a = stage + threadIdx.x / GROUP_THREADS * KP_WIDE_PANEL, *b = stage + KP_WIDE_A;
  kp_wgmma_begin();
#pragma unroll
  for (int step = 0; step < KP_WIDE_DEPTH / 16; step++)
    kp_multiply_wide<L::A_ROWS, L::B_ROWS>(c, kp_describe(a + step * (L::A_ROWS ? 2048 : 32), KP_WIDE_PANEL),
                                           kp_describe(b + step * (L::B_ROWS ? 2048 : 32), KP_WIDE_PANEL),
                                           step > 0 || !fresh);
  kp_wgmma_commit();
}

/* A stage is free when all warps of both blocks have said so: either's B goes to both.  Called by one lane of
 * a warp. */
__device__ static inline void release(uint64_t *empty) {
#pragma unroll
  for (int block = 0; block < KP_WIDE_BLOCKS; block++) kp_barrier_arrive_at(empty, block);
}

/* All steps of a tile; `use` counts stages. */
template <int KIND>
__device__ static inline void multiply_tile(const kp_wide_tile &t, wide_shared<KIND> &s, int *use,
                                            float (&c)[KP_WIDE_SUMS]) {
  constexpr int STAGES = wide_layout<KIND>::STAGES;
  const bool speaks = threadIdx.x % 32 == 0;
  for (int i = 0; i < KP_WIDE_SUMS && t.first == t.end; i++) c[i] = 0;
  for (int step = t.first; step < t.end; step++, ++*use) {
    const int slot = *use % STAGES, rows = t.depth - step * KP_WIDE_DEPTH;
    kp_barrier_wait(&s.full[slot], *use / STAGES & 1);
    if (KIND == KP_GROUPED_WEIGHT && rows < KP_WIDE_DEPTH)
      clear_tail(s.stage[slot], rows, wide_layout<KIND>::STAGE / KP_WIDE_PANEL);
    multiply_stage<KIND>(c, s.stage[slot], step == t.first);
    kp_wgmma_wait<1>();
    if (speaks && step > t.first) release(&s.empty[(*use - 1) % STAGES]);
  }
  kp_wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < KP_WIDE_SUMS; i++) asm volatile("" : "+f"(c[i])::"memory");
  if (speaks && t.end > t.first) release(&s.empty[(*use - 1) % STAGES]);
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

/* A group's rows to shared memory.  What stands behind the last column is zero, as B and the terms are there.
 * Rows are 400 bytes apart, so that the eight rows that a warp writes at once fall into different banks. */
template <int KIND>
__device__ static inline void stage_results(const kp_grouped &g, const kp_wide_tile &t,
                                            const float (&c)[KP_WIDE_SUMS], float scale, const float *bias,
                                            const float *time_weight, kp_half *results) {
  const int thread = threadIdx.x % GROUP_THREADS, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  kp_half *to = results + row * KP_WIDE_COLUMNS + lane % 4 * 2;
  float time[2];
#pragma unroll
  for (int run = 0; run < 2; run++) {
    const int64_t at = t.row + threadIdx.x / GROUP_THREADS * 64 + row + 8 * run;
    const bool timed = KIND == KP_GROUPED_FORWARD && g.time.at != NULL && at < t.rows.count;
    time[run] = timed ? g.time[t.rows.first + at] : 0;
  }
#pragma unroll
  for (int j = 0; j < KP_WIDE_COLUMNS / 8; j++) {
    float2 b = make_float2(0, 0), w = b;
    if (KIND == KP_GROUPED_FORWARD) {
      b = *(const float2 *)&bias[8 * j + lane % 4 * 2];
      w = *(const float2 *)&time_weight[8 * j + lane % 4 * 2];
    }
#pragma unroll
    for (int run = 0; run < 2; run++) {
      const float x = scale * c[4 * j + 2 * run] + (b.x + time[run] * w.x);
      const float y = scale * c[4 * j + 2 * run + 1] + (b.y + time[run] * w.y);
      *(__nv_bfloat162 *)&to[run * 8 * KP_WIDE_COLUMNS + 8 * j] = __floats2bfloat162_rn(x, y);
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

/* Whose turn it is among the parts of the depth of these rows of a tile. */
__device__ static inline volatile int *turn_of(const kp_grouped &g, const kp_wide_tile &t, int group) {
  return g.turns + (t.tile * KP_WIDE_BLOCKS + blockIdx.x % KP_WIDE_BLOCKS) * 2 + group;
}

/* Waits until the parts of the depth before this one are added. */
__device__ static inline void take_turn(const kp_grouped &g, const kp_wide_tile &t, int group) {
  if (g.splits == 1) return;
  if (threadIdx.x % GROUP_THREADS == 0) {
    const volatile int *turn = turn_of(g, t, group);
    for (int polls = 0; polls < 4000000 && *turn != t.split;) polls++;
    __threadfence();
  }
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
}

__device__ static inline void give_turn(const kp_grouped &g, const kp_wide_tile &t, int group) {
  if (g.splits == 1) return;
  __threadfence();
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
  if (threadIdx.x % GROUP_THREADS == 0) *turn_of(g, t, group) = t.split + 1;
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
  /* The last tile's results are read, and the terms of this one are there. */
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
  stage_results<KIND>(g, t, c, scale, s.bias[group], s.time_weight[group], results);
  kp_named_wait(BARRIER_OF_GROUP + group, GROUP_THREADS);
  write_results(g, t, results);
}

template <int KIND>
__device__ static inline void multiply_tiles(const kp_grouped &g, wide_shared<KIND> &s, const int *firsts) {
  const int units = firsts[g.experts] * g.splits, group = threadIdx.x / GROUP_THREADS;
  float c[KP_WIDE_SUMS] = {};
  int use = 0;
  for (int unit = blockIdx.x / KP_WIDE_BLOCKS; unit < units; unit += gridDim.x / KP_WIDE_BLOCKS) {
    const kp_wide_tile t = kp_wide_tile_of<KIND>(g, firsts, unit, blockIdx.x % KP_WIDE_BLOCKS);
    const float out = kp_scale_of(g.out, t.expert), scale = g.factor * kp_scale_of(g.in, t.expert) * out;
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
      kp_barrier_create(&s.empty[i], KP_WIDE_BLOCKS * KP_WIDE_CONSUMERS / 32);
    }
    kp_barrier_publish();
  }
  kp_number_tiles(g, KP_WIDE_BLOCKS * KP_WIDE_ROWS, KP_WIDE_COLUMNS, firsts);
  kp_cluster_wait(); /* the other block's barriers are there */
  if (threadIdx.x < KP_WIDE_CONSUMERS)
    multiply_tiles<KIND>(g, s, firsts);
  else if (threadIdx.x == KP_WIDE_CONSUMERS)
    copy_tiles<KIND>(g, s, firsts, &a_map, &b_map);
  __syncwarp();
  kp_cluster_wait(); /* nobody arrives at the barriers of a block that has gone */
#endif
}

/* ---- host ---- */

static int64_t parts(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

static int64_t weight_tiles(int64_t experts, int64_t M, int64_t K) {
  return experts * parts(M, KP_WIDE_BLOCKS * KP_WIDE_ROWS) * parts(K, KP_WIDE_COLUMNS);
}

int64_t kp_grouped_turns(int64_t experts, int64_t M, int64_t K) {
  return 2 * KP_WIDE_BLOCKS * weight_tiles(experts, M, K);
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
    const double time =
        (double)parts(tiles * s, cuda->processors / KP_WIDE_BLOCKS) * (steps / s + TURN) + TURN * (s - 1);
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

/* The driver's function for tensor maps, without linking the driver. */
typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* `count` matrices of `rows` by `columns`, one behind the other, to be copied in boxes of `box` rows by 64
 * columns.  What a box has outside of its matrix is zero. */
static kp_status map_of(CUtensorMap *map, const void *at, int64_t columns, int64_t pitch, int64_t rows,
                        int64_t count, int box, kp_error *error) {
  const cuuint64_t shape[3] = {(cuuint64_t)columns, (cuuint64_t)rows, (cuuint64_t)count};
  const cuuint64_t strides[2] = {(cuuint64_t)pitch * 2, (cuuint64_t)(pitch * rows) * 2};
  const cuuint32_t boxes[3] = {64, (cuuint32_t)box, 1}, step[3] = {1, 1, 1};
  cudaDriverEntryPointQueryResult found;
  void *encode = NULL;
  KP_TRY(kp_cuda_check(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found),
      "the driver's tensor maps", error));
  if (encode != NULL &&
      ((encode_function)encode)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)at, shape, strides, boxes,
                                step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS)
    return KP_OK;
  return kp_fail(error, KP_ERR_IO, "the driver makes no tensor map of %lld rows of %lld", (long long)rows,
                 (long long)columns);
}

template <int KIND> static kp_status maps_of(const kp_grouped *g, CUtensorMap maps[2], kp_error *error) {
  const bool forward = KIND == KP_GROUPED_FORWARD, weight = KIND == KP_GROUPED_WEIGHT;
  KP_TRY(map_of(&maps[0], g->a, forward ? g->K : g->M, g->a_pitch, g->rows, 1, weight ? 64 : KP_WIDE_ROWS,
                error));
  return map_of(&maps[1], g->b, g->K, g->b_pitch, weight ? g->rows : g->M, weight ? 1 : g->experts,
                forward ? wide_layout<KIND>::ROWS : 64, error);
}

static kp_status clear_turns(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  const size_t bytes = (size_t)kp_grouped_turns(g->experts, g->M, g->K) * sizeof(int);
  if (g->splits == 1) return KP_OK;
  return kp_cuda_check(cudaMemsetAsync(g->turns, 0, bytes, cuda->stream), "the turns of experts", error);
}

/* Turns are taken in order only if all clusters of a launch are there at once. */
template <int KIND>
static kp_status launch_clusters(const kp_cuda *cuda, const kp_grouped *g, int64_t units,
                                 const CUtensorMap maps[2], kp_error *error) {
  const int bytes = (int)(sizeof(wide_shared<KIND>) + kp_tile_numbers_bytes(g->experts));
  int most = 0;
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {KP_WIDE_BLOCKS, 1, 1};
  cudaLaunchConfig_t how = {};
  how.gridDim = dim3(KP_WIDE_BLOCKS);
  how.blockDim = dim3(KP_WIDE_THREADS);
  how.dynamicSmemBytes = (size_t)bytes;
  how.stream = cuda->stream;
  how.attrs = &cluster;
  how.numAttrs = 1;
  KP_TRY(kp_cuda_check(
      cudaFuncSetAttribute(wide_kernel<KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "shared memory for experts", error));
  KP_TRY(kp_cuda_check(cudaOccupancyMaxActiveClusters(&most, wide_kernel<KIND>, &how), "clusters of blocks",
                       error));
  how.gridDim = dim3(KP_WIDE_BLOCKS * (unsigned)kp_blocks(units, 1, most < 1 ? 1 : most));
  return kp_cuda_check(cudaLaunchKernelEx(&how, wide_kernel<KIND>, *g, maps[0], maps[1]),
                       "a product of experts", error);
}

template <int KIND> static kp_status launch(const kp_cuda *cuda, const kp_grouped *given, kp_error *error) {
  const int64_t across = parts(KIND == KP_GROUPED_FORWARD ? given->M : given->K, KP_WIDE_COLUMNS);
  kp_grouped g = *given;
  CUtensorMap maps[2];
  int64_t units = (g.experts + g.rows / (KP_WIDE_BLOCKS * KP_WIDE_ROWS)) * across;
  g.splits = splits_of(cuda, &g);
  if (KIND == KP_GROUPED_WEIGHT) units = weight_tiles(g.experts, g.M, g.K) * g.splits;
  KP_TRY(maps_of<KIND>(&g, maps, error));
  KP_TRY(clear_turns(cuda, &g, error));
  return launch_clusters<KIND>(cuda, &g, units, maps, error);
}

kp_status kp_grouped_hopper(const kp_cuda *cuda, const kp_grouped *g, kp_error *error) {
  if (g->kind == KP_GROUPED_FORWARD) return launch<KP_GROUPED_FORWARD>(cuda, g, error);
  if (g->kind == KP_GROUPED_INPUT) return launch<KP_GROUPED_INPUT>(cuda, g, error);
  return launch<KP_GROUPED_WEIGHT>(cuda, g, error);
}
