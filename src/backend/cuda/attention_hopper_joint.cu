/* Attention for compute capability 9.0, backward, of dot products with heads of 64 channels: both sides at
 * once.
 *
 * A tile owns 128 keys of a head and walks over blocks of 64 queries, from the last one to the first:
 *
 *   S = K Qᵀ, D = V gᵀ, gv += P g, gk += S' Q, and gq += S'ᵀ K
 *
 * gq is a sum over tiles.  The copy engine adds each tile's part, in float, to a block of sums in memory, and
 * always in the order of tiles: tile n waits until the n tiles before it have added theirs.  The last tile
 * that a block meets reads the sum and writes gq.  Tiles are taken in that order, so that the one which is
 * waited for is under way, and since all walk in one direction, ahead.
 *
 * Four warpgroups: two compute scores of 64 keys each and hand S' over in shared memory; the third multiplies
 * it by K; of the fourth one thread brings tiles, and two add parts in turn.
 *
 * 10 B H T² D FLOPs (half of it causal), and 2 B H T² bytes of sums through the second-level cache (half of
 * it causal): bound by the matrix unit and 8 instructions a pair. */
#include "backend/cuda/attention_hopper_backward.cuh"
#include "backend/cuda/attention_hopper_slopes.cuh"

enum { CHANNELS = 64, KEYS = 128, QUERIES = 64, STAGES = 4, CONSUMERS = 2, JOINT_THREADS = 512 };

/* Floats of a part of gq: of thread t of the warpgroup the elements 4j … 4j+3 at (128 j + t) · 4. */
enum { PART = QUERIES * CHANNELS };

struct joint_shared {
  kp_half own[2][2][KEYS * CHANNELS];           /* keys and values */
  kp_half other[STAGES][2][QUERIES * CHANNELS]; /* queries and g */
  kp_half slopes[2][KEYS * QUERIES];
  float parts[2][PART];
  float numbers[STAGES][QUERIES * KP_ROW_COPIED];
  int tile[2]; /* which tile the keys are of; beyond all at the end */
  uint64_t own_full[2], own_empty[2], full[STAGES], empty[STAGES];
  uint64_t slopes_full[2], slopes_empty[2], parts_full[2], parts_empty[2];
};

struct joint_results {
  kp_hopper_matrix gq, gk, gv;
  float *sums;
  int *added, *taken;
};

struct joint_maps {
  const CUtensorMap *q, *g, *k, *v;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ static inline int tiles_of(const kp_hopper_problem &p) {
  return (p.length + KEYS - 1) / KEYS * p.batch * p.kv_heads;
}

__device__ static inline kp_hopper_tile tile_of(const kp_hopper_problem &p, int index) {
  return kp_hopper_tile_of(p, index, (p.length + KEYS - 1) / KEYS, p.kv_heads, false);
}

/* The blocks of queries that a tile meets. */
__device__ static inline kp_hopper_span walk_of(const kp_hopper_problem &p, const kp_hopper_tile &tile) {
  return kp_hopper_span{p.causal ? tile.block * (KEYS / QUERIES) : 0, (p.length + QUERIES - 1) / QUERIES};
}

/* The last tile that a block of queries meets. */
__device__ static inline int last_tile(const kp_hopper_problem &p, int block) {
  return p.causal ? block / (KEYS / QUERIES) : (p.length + KEYS - 1) / KEYS - 1;
}

/* A block of queries among the sums. */
__device__ static inline int64_t sum_at(const kp_hopper_problem &p, int b, int h, int block) {
  return ((int64_t)b * p.heads + h) * p.row_blocks + block;
}

/* A role's next tile: false behind the last one.  WARPS: whole ones call it. */
template <bool WARPS>
__device__ static inline bool next_tile(const kp_hopper_problem &p, joint_shared &shared, int turn,
                                        kp_hopper_tile *tile) {
  kp_barrier_wait(&shared.own_full[turn % 2], turn / 2 % 2);
  int index = shared.tile[turn % 2];
  if (WARPS) index = kp_uniform(index);
  if (index >= tiles_of(p)) return false;
  *tile = tile_of(p, index);
  return true;
}

/* ---- bringing tiles; by one thread ---- */

/* Queries, g and their numbers, block by block; returns the steps that are behind the tile. */
__device__ static int load_walk(const kp_hopper_problem &p, joint_shared &shared, const kp_hopper_tile &tile,
                                const joint_maps &maps, int step) {
  const int group = p.heads / p.kv_heads, numbers = KP_ROW_COPIED * KP_ROW_BLOCK * 4;
  const kp_hopper_span walk = walk_of(p, tile);
  for (int h = tile.h * group; h < (tile.h + 1) * group; h++)
    for (int block = walk.end - 1; block >= walk.first; block--, step++) {
      const int stage = step % STAGES, row = block * QUERIES;
      uint64_t *full = &shared.full[stage];
      kp_barrier_wait(&shared.empty[stage], step / STAGES % 2 ^ 1);
      kp_barrier_expect(full, 2 * QUERIES * CHANNELS * 2 + numbers);
      kp_copy_box(shared.other[stage][0], maps.q, full, p.q_column + h * CHANNELS, row, tile.b);
      kp_copy_box(shared.other[stage][1], maps.g, full, h * CHANNELS, row, tile.b);
      kp_copy_bytes(shared.numbers[stage], p.q_rows + kp_row_block_at(p, tile.b, h, block), numbers, full);
    }
  return step;
}

/* `taken` counts the tiles that blocks of threads took after their first. */
__device__ static void produce(const kp_hopper_problem &p, joint_shared &shared, int *taken,
                               const joint_maps &maps) {
  int step = 0, index = blockIdx.x;
  for (int turn = 0;; turn++) {
    uint64_t *full = &shared.own_full[turn % 2];
    kp_barrier_wait(&shared.own_empty[turn % 2], turn / 2 % 2 ^ 1);
    shared.tile[turn % 2] = index;
    if (index >= tiles_of(p)) {
      kp_barrier_arrive(full);
      return;
    }
    const kp_hopper_tile tile = tile_of(p, index);
    const int row = tile.block * KEYS, column = tile.h * CHANNELS;
    kp_barrier_expect(full, 2 * KEYS * CHANNELS * 2);
    kp_copy_box(shared.own[turn % 2][0], maps.k, full, p.k_column + column, row, tile.b);
    kp_copy_box(shared.own[turn % 2][1], maps.v, full, p.v_column + column, row, tile.b);
    step = load_walk(p, shared, tile, maps, step);
    index = (int)gridDim.x + atomicAdd(taken, 1); /* while the last rows are still to be dealt with */
  }
}

/* ---- scores ---- */

/* A warpgroup's slopes of a step, 64 keys by 64 queries, to the one that multiplies them. */
__device__ static inline void hand_slopes(joint_shared &shared, const uint32_t (&words)[16], int step) {
  const int lane = threadIdx.x % 32, matrix = lane / 8, within = lane % 8, buffer = step % 2;
  kp_half *to = shared.slopes[buffer] + (threadIdx.x / 32 * 16 + matrix % 2 * 8 + within) * QUERIES;
  kp_barrier_wait(&shared.slopes_empty[buffer], step / 2 % 2 ^ 1);
#pragma unroll
  for (int j = 0; j < 8; j += 2)
    kp_store_matrices(to + ((j + matrix / 2) ^ within) * 8, words[2 * j], words[2 * j + 1], words[2 * j + 2],
                      words[2 * j + 3]);
  kp_fence_async();
  __syncwarp();
  if (lane == 0) kp_barrier_arrive(&shared.slopes_full[buffer]);
}

/* Rows of gk and gv. */
__device__ static inline void store_keys(const kp_hopper_problem &p, const joint_results &to,
                                         const kp_hopper_tile &tile, const int (&position)[2],
                                         const float (&k_sum)[32], const float (&v_sum)[32]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const bool inside = position[r] < p.length;
    const int64_t row = (int64_t)tile.b * p.length + (inside ? position[r] : p.length - 1);
    if (to.gk.at != NULL)
      kp_store_row<CHANNELS>(k_sum, r, 1.0f, kp_hopper_at(to.gk, row, tile.h), to.gk.size, inside);
    if (to.gv.at != NULL)
      kp_store_row<CHANNELS>(v_sum, r, 1.0f, kp_hopper_at(to.gv, row, tile.h), to.gv.size, inside);
  }
}

/* A tile for one of the warpgroups; returns the steps that are behind it. */
__device__ static inline int consume(const kp_hopper_problem &p, joint_shared &shared,
                                     const joint_results &to, const kp_hopper_tile &tile, int turn,
                                     int step) {
  const int place = turn % 2, group = kp_uniform(threadIdx.x / 128), lane = threadIdx.x % 32;
  const int heads = p.heads / p.kv_heads, first_own = tile.block * KEYS + group * 64;
  const kp_hopper_span walk = walk_of(p, tile);
  kp_slope_rows rows = {};
  rows.position[0] = first_own + threadIdx.x % 128 / 32 * 16 + lane / 4;
  rows.position[1] = rows.position[0] + 8;
  float s[32], d[32], k_sum[32], v_sum[32];
  uint32_t weights[16], slopes[16];
  int held = -1; /* the stage that products under way read */
  for (int h = tile.h * heads; h < (tile.h + 1) * heads; h++) {
    const kp_hopper_head head = kp_hopper_head_of(p, h);
    const kp_slope_head scores = {head.negated ? -head.factor : head.factor, head.slope, 0};
    for (int block = walk.end - 1; block >= walk.first; block--, step++) {
      const int stage = step % STAGES, other = block * QUERIES;
      kp_barrier_wait(&shared.full[stage], step / STAGES % 2);
      if (p.causal && other + QUERIES - 1 < first_own) { /* all hidden */
        if (lane == 0) kp_barrier_arrive(&shared.empty[stage]);
        const uint32_t none[16] = {};
        hand_slopes(shared, none, step);
        continue;
      }
      kp_wgmma_begin();
      kp_tile_product<CHANNELS, KEYS, QUERIES>(s, shared.own[place][0], group * 64, shared.other[stage][0]);
      kp_tile_product<CHANNELS, KEYS, QUERIES>(d, shared.own[place][1], group * 64, shared.other[stage][1]);
      kp_wgmma_commit();
      kp_wgmma_wait<0>();
      kp_settle(s);
      kp_settle(d);
      if (held >= 0 && lane == 0) kp_barrier_arrive(&shared.empty[held]);
      const bool masked = p.causal && first_own + 63 > other;
      const uint32_t pairs = masked ? kp_hidden<true>(p, rows, other, false, shared.numbers[stage]) : 0;
      kp_tile_slopes<KP_SCORE_DOT, false, true>(s, d, rows, scores, 0, masked, pairs, false,
                                                shared.numbers[stage], weights, slopes);
      __syncwarp();
      kp_wgmma_begin();
      kp_tile_accumulate<CHANNELS, QUERIES>(v_sum, weights, shared.other[stage][1], held < 0);
      kp_tile_accumulate<CHANNELS, QUERIES>(k_sum, slopes, shared.other[stage][0], held < 0);
      kp_wgmma_commit();
      held = stage;
      hand_slopes(shared, slopes, step);
    }
  }
  kp_wgmma_wait<0>();
  kp_settle(k_sum);
  kp_settle(v_sum);
  if (lane == 0) {
    kp_barrier_arrive(&shared.own_empty[place]);
    if (held >= 0) kp_barrier_arrive(&shared.empty[held]);
  }
  store_keys(p, to, tile, rows.position, k_sum, v_sum);
  return step;
}

/* ---- gradients of queries ---- */

/* Waits until so many tiles have added their parts; no trap, as in kp_barrier_wait. */
__device__ static inline void wait_added(const int *added, int tiles) {
  for (int polls = 0; polls < 4000000 && kp_read_signal(added) < tiles;) polls++;
}

/* S'ᵀ K of a step. */
__device__ static inline void multiply(float (&d)[32], const kp_half *slopes, const kp_half *keys) {
  const uint64_t of_slopes = kp_describe(slopes, 0), of_keys = kp_describe(keys, 0);
  kp_wgmma_begin();
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++)
    kp_wgmma<true, true>(d, kp_describe_from(of_slopes, i * 16 * 128),
                         kp_describe_from(of_keys, i * 16 * 128), i > 0);
  kp_wgmma_commit();
  kp_wgmma_wait<0>();
  kp_settle(d);
}

/* Adds the sum of earlier tiles, and writes the rows. */
__device__ static inline void finish_queries(const kp_hopper_problem &p, const joint_results &to,
                                             float (&d)[32], const kp_hopper_tile &tile, int h, int block) {
  const int thread = threadIdx.x % 128;
  if (tile.block > 0) {
    const int64_t at = sum_at(p, tile.b, h, block);
    wait_added(to.added + at, tile.block);
    const float4 *sums = (const float4 *)(to.sums + at * PART) + thread;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float4 sum = __ldcg(sums + 128 * j);
      d[4 * j] += sum.x, d[4 * j + 1] += sum.y, d[4 * j + 2] += sum.z, d[4 * j + 3] += sum.w;
    }
  }
  if (to.gq.at == NULL) return;
  __syncwarp();
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = block * QUERIES + thread / 32 * 16 + thread % 32 / 4 + 8 * r;
    const bool inside = t < p.length;
    const int64_t row = (int64_t)tile.b * p.length + (inside ? t : p.length - 1);
    kp_store_row<CHANNELS>(d, r, 1.0f, kp_hopper_at(to.gq, row, h), to.gq.size, inside);
  }
}

/* A part to the threads that add. */
__device__ static inline void hand_over(joint_shared &shared, const float (&d)[32], int part) {
  const int place = part % 2;
  float4 *to = (float4 *)shared.parts[place] + threadIdx.x % 128;
  kp_barrier_wait(&shared.parts_empty[place], part / 2 % 2 ^ 1);
#pragma unroll
  for (int j = 0; j < 8; j++) to[128 * j] = make_float4(d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]);
  kp_fence_async();
  __syncwarp();
  if (threadIdx.x % 32 == 0) kp_barrier_arrive(&shared.parts_full[place]);
}

/* The third warpgroup. */
__device__ static void multiply_tiles(const kp_hopper_problem &p, joint_shared &shared,
                                      const joint_results &to) {
  const int lane = threadIdx.x % 32, group = p.heads / p.kv_heads;
  kp_hopper_tile tile;
  int step = 0, part = 0;
  for (int turn = 0; next_tile<true>(p, shared, turn, &tile); turn++) {
    const kp_hopper_span walk = walk_of(p, tile);
    for (int h = tile.h * group; h < (tile.h + 1) * group; h++)
      for (int block = walk.end - 1; block >= walk.first; block--, step++) {
        const int buffer = step % 2;
        float d[32];
        kp_barrier_wait(&shared.slopes_full[buffer], step / 2 % 2);
        multiply(d, shared.slopes[buffer], shared.own[turn % 2][0]);
        if (lane == 0) kp_barrier_arrive(&shared.slopes_empty[buffer]);
        if (tile.block == last_tile(p, block))
          finish_queries(p, to, d, tile, h, block);
        else
          hand_over(shared, d, part++);
      }
    if (lane == 0) kp_barrier_arrive(&shared.own_empty[turn % 2]);
  }
}

/* A part at `place` to memory. */
__device__ static inline void add_part(joint_shared &shared, float *sum, int *added, int place, int tile) {
  if (tile == 0) {
    kp_store_bytes(sum, shared.parts[place], PART * 4);
  } else {
    wait_added(added, tile);
    kp_fence_async();
    kp_add_floats(sum, shared.parts[place], PART);
  }
  kp_finish_copies();
  kp_fence_async();
  kp_write_signal(added, tile + 1);
}

/* Every other part, when it is its turn; one thread. */
__device__ static void add_parts(const kp_hopper_problem &p, joint_shared &shared, const joint_results &to,
                                 int place) {
  const int group = p.heads / p.kv_heads;
  kp_hopper_tile tile;
  int part = 0;
  for (int turn = 0; next_tile<false>(p, shared, turn, &tile); turn++) {
    kp_barrier_arrive(&shared.own_empty[turn % 2]);
    const kp_hopper_span walk = walk_of(p, tile);
    for (int h = tile.h * group; h < (tile.h + 1) * group; h++)
      for (int block = walk.end - 1; block >= walk.first; block--) {
        if (tile.block == last_tile(p, block)) continue;
        const int own = part++;
        if (own % 2 != place) continue;
        const int64_t at = sum_at(p, tile.b, h, block);
        kp_barrier_wait(&shared.parts_full[place], own / 2 % 2);
        add_part(shared, to.sums + at * PART, to.added + at, place, tile.block);
        kp_barrier_arrive(&shared.parts_empty[place]);
      }
  }
}

__device__ static void create_barriers(joint_shared &shared) {
  for (int i = 0; i < 2; i++) {
    kp_barrier_create(&shared.own_full[i], 1);
    kp_barrier_create(&shared.own_empty[i], CONSUMERS * 4 + 4 + 2);
    kp_barrier_create(&shared.slopes_full[i], CONSUMERS * 4);
    kp_barrier_create(&shared.slopes_empty[i], 4);
    kp_barrier_create(&shared.parts_full[i], 4);
    kp_barrier_create(&shared.parts_empty[i], 1);
  }
  for (int i = 0; i < STAGES; i++) {
    kp_barrier_create(&shared.full[i], 1);
    kp_barrier_create(&shared.empty[i], CONSUMERS * 4);
  }
  kp_barrier_publish();
}

#endif

__global__ static void __launch_bounds__(JOINT_THREADS, 1)
    joint_kernel(const kp_hopper_problem p, const __grid_constant__ CUtensorMap q_map,
                 const __grid_constant__ CUtensorMap g_map, const __grid_constant__ CUtensorMap k_map,
                 const __grid_constant__ CUtensorMap v_map, const joint_results to) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  joint_shared &shared = *(joint_shared *)memory;
  if (threadIdx.x == 0) create_barriers(shared);
  __syncthreads();
  const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
  if (group == CONSUMERS + 1) {
    kp_registers_lower<40>();
    const joint_maps maps = {&q_map, &g_map, &k_map, &v_map};
    if (thread == 0) produce(p, shared, to.taken, maps);
    if (thread == 32 || thread == 64) add_parts(p, shared, to, thread / 32 - 1);
  } else if (group == CONSUMERS) {
    kp_registers_lower<88>();
    multiply_tiles(p, shared, to);
  } else {
    kp_registers_raise<192>();
    kp_hopper_tile tile;
    int step = 0;
    for (int turn = 0; next_tile<true>(p, shared, turn, &tile); turn++)
      step = consume(p, shared, to, tile, turn, step);
  }
#endif
}

/* ---- host ---- */

bool kp_hopper_joint_fits(const kp_node *node) {
  const kp_attention_arguments *a = (const kp_attention_arguments *)node->arguments;
  return kp_hopper_size(a) == CHANNELS && a->score == KP_SCORE_DOT && a->values == KP_VALUES_MEAN &&
         node->input[5] == NULL && node->output[3] == NULL && node->output[4] == NULL;
}

size_t kp_hopper_joint_size(const kp_attention_arguments *a) {
  const int64_t blocks = a->batch * a->heads * ((a->length + KEYS - 1) / KEYS * (KEYS / QUERIES));
  return (size_t)blocks * (PART * sizeof(float) + sizeof(int));
}

void kp_hopper_joint_place(kp_hopper_backward_plan *plan, void *memory, kp_hopper_rows *rows) {
  kp_hopper_problem &p = plan->p;
  p.k_rows = NULL; /* nobody reads keys' numbers */
  plan->sums = (float *)memory;
  plan->added = (int *)(plan->sums + (int64_t)p.batch * p.heads * p.row_blocks * PART);
  rows->added = plan->added;
}

kp_status kp_hopper_joint(const kp_call *call, const kp_hopper_backward_plan &plan, kp_error *error) {
  const kp_hopper_problem &p = plan.p;
  const kp_cuda *cuda = kp_cuda_of(call);
  const int bytes = (int)sizeof(joint_shared);
  const kp_hopper_box boxes[4] = {{plan.q.at, plan.q.pitch, QUERIES},
                                  {plan.g.at, plan.g.pitch, QUERIES},
                                  {plan.k.at, plan.k.pitch, KEYS},
                                  {plan.v.at, plan.v.pitch, KEYS}};
  CUtensorMap maps[4];
  KP_TRY(kp_hopper_maps(maps, boxes, 4, p.batch, p.length, error));
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(joint_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "attention backward", error));
  const int tiles = (p.length + KEYS - 1) / KEYS * p.batch * p.kv_heads;
  const joint_results to = {plan.gq, plan.gk, plan.gv, plan.sums, plan.added, plan.taken};
  joint_kernel<<<kp_blocks(tiles, 1, cuda->processors), JOINT_THREADS, bytes, cuda->stream>>>(
      p, maps[0], maps[1], maps[2], maps[3], to);
  return kp_launched(call, error);
}
