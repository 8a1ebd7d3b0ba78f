/* Attention for compute capability 9.0, backward: one kernel, launched for each side.
 *
 * A tile owns 128 rows of one side (keys: gk, gv; queries: gq) and walks over blocks of 64 rows of the other,
 * in a fixed order, so that every sum has one order: no atomics.  Scores are recomputed with the owned rows
 * as rows of the tile, so weights and slopes leave the registers only into the matrix unit:
 *
 *   keys:     S = K Qᵀ, D = V gᵀ, gv += P g, gk += S' Q
 *   queries:  S = Q Kᵀ, D = g Vᵀ, gq += S' K
 *
 * A block of threads stays on its processor and takes tile after tile, whichever is next when it is ready;
 * the next one's rows are on their way while the last one's gradients are written.
 *
 * Seven products instead of the five of one kernel that adds gq up in memory, which attention_hopper_joint.cu
 * is for plain dot products.
 *
 * 14 B H T² D FLOPs (half of it causal): bound by the matrix unit and the instructions for a pair (8 for the
 * dot product, 30 for distances). */
#include "backend/cuda/attention_hopper_backward.cuh"
#include "backend/cuda/attention_hopper_finish.cuh"

enum { OWN_ROWS = 128, OTHER_ROWS = 64, BACKWARD_CONSUMERS = 2, BACKWARD_THREADS = 384 };

/* The two matrices of a side: queries and g, or keys and values. */
template <int D> struct backward_shared {
  static constexpr int stages = D == 64 ? 4 : 3, own_stages = D == 64 ? 2 : 1;
  kp_half own[own_stages][2][OWN_ROWS * D];
  kp_half other[stages][2][OTHER_ROWS * D];
  float numbers[stages][OTHER_ROWS * KP_ROW_COPIED];
  float parts[2][2][BACKWARD_CONSUMERS * 4]; /* of tiles in turn: κ, β */
  int tile[own_stages];                      /* which tile the rows are of; beyond all at the end */
  uint64_t own_full[own_stages], own_empty[own_stages], full[stages], empty[stages];
};

struct backward_results {
  kp_hopper_matrix side[2];   /* gq, or gk and gv */
  kp_hopper_matrix source[2]; /* q, or k and v */
  float *parts;               /* of a block: κ, β */
  bool scalars;
};

/* The blocks of the other side that a tile meets. */
template <bool KEYS>
__device__ static inline kp_hopper_span walk_of(const kp_hopper_problem &p, const kp_hopper_tile &tile) {
  const int size = OWN_ROWS / OTHER_ROWS, all = (p.length + OTHER_ROWS - 1) / OTHER_ROWS;
  const int first = KEYS && p.causal ? tile.block * size : 0;
  const int end = !KEYS && p.causal ? min(all, (tile.block + 1) * size) : all;
  return kp_hopper_meets(p, tile.b, tile.block * size, size, 1, kp_hopper_span{first, end});
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Tensor maps of a side: the matrix that scores are made of, and g or the values. */
struct backward_maps {
  const CUtensorMap *score, *value;
  int score_column, value_column;
};

template <int D, int ROWS>
__device__ static inline void load_side(kp_half (&to)[2][ROWS * D], const backward_maps &maps, uint64_t *full,
                                        int head, int row, int b) {
#pragma unroll
  for (int panel = 0; panel < D / 64; panel++) {
    kp_copy_box(to[0] + panel * ROWS * 64, maps.score, full, maps.score_column + head * D + panel * 64, row,
                b);
    kp_copy_box(to[1] + panel * ROWS * 64, maps.value, full, maps.value_column + head * D + panel * 64, row,
                b);
  }
}

/* The copies of a tile's walk, by one thread; returns the steps that are behind it. */
template <int D, bool KEYS>
__device__ static int load_walk(const kp_hopper_problem &p, backward_shared<D> &shared,
                                const kp_hopper_tile &tile, const kp_hopper_span &walk,
                                const backward_maps &other, int step) {
  const int group = p.heads / p.kv_heads, numbers = KP_ROW_COPIED * KP_ROW_BLOCK * 4;
  for (int i = 0; i < (KEYS ? group : 1); i++)
    for (int block = walk.first; block < walk.end; block++, step++) {
      const int stage = step % shared.stages;
      const int query_head = KEYS ? tile.h * group + i : tile.h, head = KEYS ? query_head : tile.h / group;
      kp_barrier_wait(&shared.empty[stage], step / shared.stages % 2 ^ 1);
      kp_barrier_expect(&shared.full[stage], 2 * OTHER_ROWS * D * 2 + numbers);
      load_side<D, OTHER_ROWS>(shared.other[stage], other, &shared.full[stage], head, block * OTHER_ROWS,
                               tile.b);
      kp_copy_bytes(shared.numbers[stage],
                    (KEYS ? p.q_rows : p.k_rows) + kp_row_block_at(p, tile.b, query_head, block), numbers,
                    &shared.full[stage]);
    }
  return step;
}

/* Tiles of a launch. */
template <bool KEYS> __device__ static inline int tiles_of(const kp_hopper_problem &p) {
  return (p.length + OWN_ROWS - 1) / OWN_ROWS * p.batch * (KEYS ? p.kv_heads : p.heads);
}

template <bool KEYS> __device__ static inline kp_hopper_tile tile_of(const kp_hopper_problem &p, int index) {
  return kp_hopper_tile_of(p, index, (p.length + OWN_ROWS - 1) / OWN_ROWS, KEYS ? p.kv_heads : p.heads,
                           !KEYS);
}

/* The copies of all tiles, by one warp; its first thread starts them.  `taken` counts the tiles that blocks
 * took after their first. */
template <int D, bool KEYS>
__device__ static void produce(const kp_hopper_problem &p, backward_shared<D> &shared, int *taken,
                               const backward_maps &own, const backward_maps &other) {
  const int tiles = tiles_of<KEYS>(p);
  const bool first = threadIdx.x % 32 == 0;
  int step = 0, index = blockIdx.x;
  for (int turn = 0;; turn++) {
    const int place = turn % shared.own_stages;
    if (first) {
      kp_barrier_wait(&shared.own_empty[place], turn / shared.own_stages % 2 ^ 1);
      shared.tile[place] = index;
    }
    if (index >= tiles) {
      if (first) kp_barrier_arrive(&shared.own_full[place]);
      return;
    }
    const kp_hopper_tile tile = tile_of<KEYS>(p, index);
    const kp_hopper_span walk = walk_of<KEYS>(p, tile);
    if (first) {
      kp_barrier_expect(&shared.own_full[place], 2 * OWN_ROWS * D * 2);
      load_side<D, OWN_ROWS>(shared.own[place], own, &shared.own_full[place], tile.h, tile.block * OWN_ROWS,
                             tile.b);
      step = load_walk<D, KEYS>(p, shared, tile, walk, other, step);
      index = (int)gridDim.x + atomicAdd(taken, 1); /* while the last rows are still to be dealt with */
    }
    index = __shfl_sync(0xffffffffu, index, 0);
  }
}

/* The numbers of rows that are owned, at `at`: KP_ROW_BLOCK numbers an array. */
template <bool CENTROID, bool KEYS>
__device__ static inline void read_rows(const kp_hopper_head &head, kp_slope_rows &rows, int r,
                                        const float *at) {
  rows.row.level[r] = at[KP_ROW_LEVEL * KP_ROW_BLOCK];
  rows.row.factor[r] = head.level * at[KP_ROW_FACTOR * KP_ROW_BLOCK];
  rows.row.mirror[r] = 1.0f - 2.0f * (float)head.sign * rows.row.level[r];
  rows.document[r] = __float_as_int(at[KP_ROW_DOCUMENT * KP_ROW_BLOCK]);
  rows.logsumexp[r] = at[KP_ROW_LOGSUMEXP * KP_ROW_BLOCK];
  rows.product[r] = CENTROID ? 0.0f : at[KP_ROW_PLAIN_PRODUCT * KP_ROW_BLOCK];
  rows.center[r] = 0;
  if (fabsf(head.beta) > 1e-6f && rows.logsumexp[r] < INFINITY)
    rows.center[r] = rows.logsumexp[r] / (head.negated ? -head.factor : head.factor);
  rows.time[r] = at[(KEYS ? KP_ROW_LOGSUMEXP : KP_ROW_RATIO) * KP_ROW_BLOCK];
}

/* Adds the bars of both warpgroups in one order.  A warpgroup is at most a tile ahead of the other here, so
 * two sets of parts are enough. */
__device__ static inline void store_parts(float (&parts)[2][BACKWARD_CONSUMERS * 4], scalar_bars bars,
                                          float *to) {
  const float kappa = kp_warp_sum(bars.kappa), beta = kp_warp_sum(bars.beta);
  if (threadIdx.x % 32 == 0) {
    parts[0][threadIdx.x / 32] = kappa;
    parts[1][threadIdx.x / 32] = beta;
  }
  kp_named_wait(1, BACKWARD_CONSUMERS * 128);
  if (threadIdx.x >= 2) return;
  float sum = 0;
  for (int i = 0; i < BACKWARD_CONSUMERS * 4; i++) sum += parts[threadIdx.x][i];
  to[threadIdx.x] = sum;
}

/* A tile whose rows are at `place`, for one warpgroup; returns the steps that are behind it. */
template <int D, int SCORE, bool CENTROID, bool KEYS>
__device__ static inline int consume(const kp_hopper_problem &p, backward_shared<D> &shared,
                                     const backward_results &to, const kp_hopper_tile &tile, int turn,
                                     int step) {
  const int place = turn % shared.own_stages;
  const kp_hopper_span walk = walk_of<KEYS>(p, tile);
  const int group = kp_uniform(threadIdx.x / 128), lane = threadIdx.x % 32, heads = p.heads / p.kv_heads;
  const int within = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const int first_own = tile.block * OWN_ROWS + group * 64;
  int query_head = KEYS ? tile.h * heads : tile.h;
  kp_hopper_head head = kp_hopper_head_of(p, query_head);
  kp_slope_rows rows = {};
  const float *own_numbers[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = tile.block * OWN_ROWS + within + 8 * r;
    own_numbers[r] = (KEYS ? p.k_rows : p.q_rows) + kp_row_block_at(p, tile.b, query_head, t / KP_ROW_BLOCK) +
                     t % KP_ROW_BLOCK;
    rows.position[r] = t;
    read_rows<CENTROID, KEYS>(head, rows, r, own_numbers[r]);
  }
  const int first_document = __shfl_sync(0xffffffffu, rows.document[0], 0);
  const bool own_document = rows.document[0] == first_document && rows.document[1] == first_document;
  float s[32], d[32], first_sum[D / 2], second_sum[D / 2];
  uint32_t weights[16], slopes[16];
  int held = -1; /* the stage that products under way read */
  for (int i = 0; i < (KEYS ? heads : 1); i++) {
    if (i > 0) head = kp_hopper_head_of(p, query_head + i);
    const kp_slope_head scores = {head.negated ? -head.factor : head.factor, KEYS ? head.slope : 1.0f,
                                  head.level * 1e-12f};
    for (int block = walk.first; block < walk.end; block++, step++) {
      const int stage = step % shared.stages, other = block * OTHER_ROWS;
      kp_barrier_wait(&shared.full[stage], step / shared.stages % 2);
      if (p.causal && (KEYS ? other + OTHER_ROWS - 1 < first_own : other > first_own + 63)) {
        if (lane == 0) kp_barrier_arrive(&shared.empty[stage]); /* all hidden */
        continue;
      }
      kp_wgmma_begin();
      kp_tile_product<D, OWN_ROWS, OTHER_ROWS>(s, shared.own[place][0], group * 64, shared.other[stage][0]);
      kp_tile_product<D, OWN_ROWS, OTHER_ROWS>(d, shared.own[place][1], group * 64, shared.other[stage][1]);
      kp_wgmma_commit();
      kp_wgmma_wait<0>();
      kp_settle(s);
      kp_settle(d);
      if (held >= 0 && lane == 0) kp_barrier_arrive(&shared.empty[held]);
      const bool crosses = KEYS ? first_own + 63 > other : other + 63 > first_own;
      const bool strange =
          p.documents != NULL && !kp_one_document<1>(shared.numbers[stage], first_document, own_document);
      const bool masked = strange || (p.causal && crosses) || (!KEYS && other + OTHER_ROWS > p.length);
      const uint32_t hidden = masked ? kp_hidden<KEYS>(p, rows, other, strange, shared.numbers[stage]) : 0;
      kp_tile_slopes<SCORE, CENTROID, KEYS>(s, d, rows, scores, head.sign, masked, hidden, to.scalars,
                                            shared.numbers[stage], weights, slopes);
      __syncwarp();
      kp_wgmma_begin();
      if (KEYS) kp_tile_accumulate<D, OTHER_ROWS>(second_sum, weights, shared.other[stage][1], held < 0);
      kp_tile_accumulate<D, OTHER_ROWS>(first_sum, slopes, shared.other[stage][0], held < 0);
      kp_wgmma_commit();
      held = stage;
      if (KEYS && D == 128) { /* no registers for two tiles under way */
        kp_wgmma_wait<0>();
        kp_settle(first_sum);
        kp_settle(second_sum);
      }
    }
  }
  kp_wgmma_wait<0>();
  kp_settle(first_sum);
  if (KEYS) kp_settle(second_sum);
  if (lane == 0) {
    kp_barrier_arrive(&shared.own_empty[place]);
    if (held >= 0) kp_barrier_arrive(&shared.empty[held]);
  }
  scalar_bars bars = {0, 0};
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = rows.position[r], column = tile.h * D;
    const bool inside = t < p.length;
    const int64_t row = (int64_t)tile.b * p.length + (inside ? t : p.length - 1);
    const scalar_bars given = finish_row<D, SCORE, KEYS>(p, head, rows, r, first_sum, to.source[0], row,
                                                         column, own_numbers[r], to.scalars);
    const bool counts = (inside || (!KEYS && r == 0)) && lane % 4 == 0;
    if (counts) bars.kappa += given.kappa;
    if (counts) bars.beta += given.beta;
    if (to.side[0].at != NULL)
      kp_store_row<D>(first_sum, r, 1.0f, kp_hopper_at(to.side[0], row, tile.h), to.side[0].size, inside);
    if (KEYS) {
      if (CENTROID) {
        const float sum = kp_quad_sum(rows.time_sum[r]), along = inside ? sum / rows.time[r] : 0.0f;
        combine<D>(second_sum, r, 1.0f, along, to.source[1], row, column);
        if (inside && lane % 4 == 0) bars.kappa += head.c * head.c * along / 2;
      }
      if (to.side[1].at != NULL)
        kp_store_row<D>(second_sum, r, 1.0f, kp_hopper_at(to.side[1], row, tile.h), to.side[1].size, inside);
    }
  }
  const int64_t own_blocks = (p.length + OWN_ROWS - 1) / OWN_ROWS;
  if (to.scalars)
    store_parts(shared.parts[turn % 2], bars,
                to.parts + 2 * (((int64_t)tile.b * (KEYS ? p.kv_heads : p.heads) + tile.h) * own_blocks +
                                tile.block));
  return step;
}

template <int D> __device__ static void create_barriers(backward_shared<D> &shared) {
  for (int i = 0; i < shared.own_stages; i++) {
    kp_barrier_create(&shared.own_full[i], 1);
    kp_barrier_create(&shared.own_empty[i], BACKWARD_CONSUMERS * 4);
  }
  for (int i = 0; i < shared.stages; i++) {
    kp_barrier_create(&shared.full[i], 1);
    kp_barrier_create(&shared.empty[i], BACKWARD_CONSUMERS * 4);
  }
  kp_barrier_publish();
}

#endif

template <int D, int SCORE, bool CENTROID, bool KEYS>
__global__ static void __launch_bounds__(BACKWARD_THREADS, 1)
    backward_kernel(const kp_hopper_problem p, const __grid_constant__ CUtensorMap own_score,
                    const __grid_constant__ CUtensorMap own_value,
                    const __grid_constant__ CUtensorMap other_score,
                    const __grid_constant__ CUtensorMap other_value, const int4 columns,
                    const backward_results to, int *taken) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  backward_shared<D> &shared = *(backward_shared<D> *)memory;
  if (threadIdx.x == 0) create_barriers(shared);
  __syncthreads();
  if (threadIdx.x / 128 == BACKWARD_CONSUMERS) {
    kp_registers_lower<40>();
    const backward_maps own = {&own_score, &own_value, columns.x, columns.y};
    const backward_maps other = {&other_score, &other_value, columns.z, columns.w};
    if (threadIdx.x % 128 < 32) produce<D, KEYS>(p, shared, taken, own, other);
  } else {
    kp_registers_raise<232>();
    int step = 0;
    for (int turn = 0;; turn++) {
      const int place = turn % shared.own_stages;
      kp_barrier_wait(&shared.own_full[place], turn / shared.own_stages % 2);
      const int index = kp_uniform(shared.tile[place]);
      if (index >= tiles_of<KEYS>(p)) break;
      step = consume<D, SCORE, CENTROID, KEYS>(p, shared, to, tile_of<KEYS>(p, index), turn, step);
    }
  }
#endif
}

/* Adds the blocks' parts of a head, or of all heads, to the gradients of κ and β, in one order. */
__global__ static void __launch_bounds__(256)
    scalars_kernel(const kp_hopper_problem p, const float *q_parts, const float *k_parts, int blocks,
                   const float *mean_parts, kp_results kappa, kp_results beta, bool one_kappa,
                   bool one_beta) {
  __shared__ double shared[2][32];
  double kappa_sum = 0, beta_sum = 0;
  const int h = blockIdx.x, kv = p.kv_heads;
  for (int turn = 0; turn < 2; turn++) {
    /* A gradient of one number takes all heads' parts, in block 0. */
    const bool one = turn == 0 ? one_kappa : one_beta;
    if (one && h > 0) continue;
    double &sum = turn == 0 ? kappa_sum : beta_sum;
    for (int head = one ? 0 : h; head < (one ? p.heads : h + 1); head++)
      for (int i = threadIdx.x; i < p.batch * blocks; i += 256) {
        const int b = i / blocks, block = i % blocks;
        sum += (double)q_parts[2 * (((int64_t)b * p.heads + head) * blocks + block) + turn];
        if (turn == 0 && kv == p.heads)
          sum += (double)k_parts[2 * (((int64_t)b * kv + head) * blocks + block)];
        if (turn == 0 && mean_parts != NULL)
          for (int half = 0; half < 2; half++)
            sum += (double)mean_parts[((int64_t)b * p.heads + head) * p.row_blocks + 2 * block + half];
      }
  }
  kappa_sum = kp_block_sum(kappa_sum, shared[0]);
  beta_sum = kp_block_sum(beta_sum, shared[1]);
  if (threadIdx.x != 0) return;
  if (kappa.at != NULL && !(one_kappa && h > 0)) kappa.add(h, (float)kappa_sum);
  if (beta.at != NULL && !(one_beta && h > 0)) beta.add(h, (float)beta_sum);
}

/* ---- host ---- */

static const kp_attention_arguments *arguments_of(const kp_node *node) {
  return (const kp_attention_arguments *)node->arguments;
}

extern "C" bool kp_hopper_attention_backward_fits(const kp_call *call) {
  const kp_attention_arguments *a = arguments_of(call->node);
  const bool groups = a->heads == a->kv_heads || a->score == KP_SCORE_DOT;
  const bool given = call->input[9] != NULL || a->values == KP_VALUES_LORENTZ;
  return kp_hopper_attention_fits(call) && groups && given;
}

/* Scratch memory: counts of tiles taken, rows' numbers, the blocks' parts of κ and β, g or the gradient of
 * centroids, copies. */
enum { COUNT_FLOATS = KP_ROW_BLOCK };

struct backward_scratch {
  size_t rows, parts, mean_parts, bar; /* floats of each */
  size_t copies, sums;                 /* elements; bytes */
};

static backward_scratch scratch_of(const kp_node *node) {
  const kp_attention_arguments *a = arguments_of(node);
  const size_t blocks = (size_t)((a->length + 127) / 128), heads = (size_t)(a->batch * a->heads);
  const bool centroid = a->values == KP_VALUES_LORENTZ;
  const size_t row = heads * (size_t)(a->length * kp_hopper_size(a)) / 2;
  return backward_scratch{kp_hopper_rows_size(a, KP_ROW_ALL),
                          (heads * blocks * 2 + 31) / 32 * 32,
                          centroid ? (heads * blocks * 2 + 31) / 32 * 32 : 0,
                          centroid || kp_hopper_pads(a) ? row : 0,
                          kp_hopper_copy_size(a, a->heads + 2 * a->kv_heads),
                          kp_hopper_joint_fits(node) ? kp_hopper_joint_size(a) : 0};
}

extern "C" size_t kp_hopper_attention_backward_scratch(const kp_node *node) {
  if (kp_hopper_size(arguments_of(node)) == 0) return 0;
  const backward_scratch sizes = scratch_of(node);
  return (COUNT_FLOATS + sizes.rows + 2 * sizes.parts + sizes.mean_parts + sizes.bar) * 4 + sizes.copies * 2 +
         sizes.sums;
}

template <int D, int SCORE, bool CENTROID, bool KEYS>
static kp_status launch(const kp_call *call, const kp_hopper_backward_plan &plan, kp_error *error) {
  const kp_hopper_problem &p = plan.p;
  const kp_cuda *cuda = kp_cuda_of(call);
  const int bytes = (int)sizeof(backward_shared<D>), q_rows = KEYS ? OTHER_ROWS : OWN_ROWS;
  const int k_rows = KEYS ? OWN_ROWS : OTHER_ROWS;
  const kp_hopper_box boxes[4] = {{plan.q.at, plan.q.pitch, q_rows},
                                  {plan.g.at, plan.g.pitch, q_rows},
                                  {plan.k.at, plan.k.pitch, k_rows},
                                  {plan.v.at, plan.v.pitch, k_rows}};
  CUtensorMap maps[4];
  KP_TRY(kp_hopper_maps(maps, boxes, 4, p.batch, p.length, error));
  const CUtensorMap &q = maps[0], &g = maps[1], &k = maps[2], &v = maps[3];
  backward_results to = {};
  to.parts = KEYS ? plan.k_parts : plan.q_parts;
  to.scalars = plan.scalars;
  to.side[0] = KEYS ? plan.gk : plan.gq;
  to.side[1] = KEYS ? plan.gv : kp_hopper_matrix{};
  to.source[0] = KEYS ? plan.k : plan.q;
  to.source[1] = plan.v;
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(backward_kernel<D, SCORE, CENTROID, KEYS>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "attention backward", error));
  const int tiles = (p.length + OWN_ROWS - 1) / OWN_ROWS * p.batch * (KEYS ? p.kv_heads : p.heads);
  const int blocks = kp_blocks(tiles, 1, cuda->processors);
  if (KEYS)
    backward_kernel<D, SCORE, CENTROID, true><<<blocks, BACKWARD_THREADS, bytes, cuda->stream>>>(
        p, k, v, q, g, make_int4(p.k_column, p.v_column, p.q_column, 0), to, plan.taken);
  else
    backward_kernel<D, SCORE, CENTROID, false><<<blocks, BACKWARD_THREADS, bytes, cuda->stream>>>(
        p, q, g, k, v, make_int4(p.q_column, 0, p.k_column, p.v_column), to, plan.taken + 1);
  return kp_launched(call, error);
}

template <int D, int SCORE, bool CENTROID>
static kp_status launch_sides(const kp_call *call, const kp_hopper_backward_plan &plan, kp_error *error) {
  if (plan.gk.at != NULL || plan.gv.at != NULL || plan.scalars)
    KP_TRY((launch<D, SCORE, CENTROID, true>(call, plan, error)));
  if (plan.gq.at != NULL || plan.scalars) KP_TRY((launch<D, SCORE, CENTROID, false>(call, plan, error)));
  return KP_OK;
}

template <int D>
static kp_status launch_score(const kp_call *call, const kp_hopper_backward_plan &plan, kp_error *error) {
  if (plan.p.centroid) return launch_sides<D, KP_SCORE_LORENTZ, true>(call, plan, error);
  switch (plan.p.score) {
  case KP_SCORE_DOT: return launch_sides<D, KP_SCORE_DOT, false>(call, plan, error);
  case KP_SCORE_LORENTZ: return launch_sides<D, KP_SCORE_LORENTZ, false>(call, plan, error);
  case KP_SCORE_DISTANCE: return launch_sides<D, KP_SCORE_DISTANCE, false>(call, plan, error);
  default: return launch_sides<D, KP_SCORE_DISTANCE_SQUARED, false>(call, plan, error);
  }
}

/* o or its gradient. */
static kp_hopper_matrix mean_matrix(const kp_call *call, int i) {
  const kp_tensor *tensor = call->node->input[i];
  return kp_hopper_matrix{(kp_half *)call->input[i], tensor == NULL ? 0 : kp_pitch(tensor), 0,
                          kp_attention_value_size(arguments_of(call->node))};
}

extern "C" kp_status kp_hopper_attention_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = arguments_of(node);
  const backward_scratch sizes = scratch_of(node);
  float *memory = (float *)call->scratch + COUNT_FLOATS;
  kp_hopper_backward_plan plan = {};
  plan.taken = (int *)call->scratch;
  plan.p = kp_hopper_problem_of(call, KP_ROW_ALL, memory);
  const kp_hopper_problem &p = plan.p;
  plan.q = kp_hopper_side(a, 0, call->input, node->input);
  plan.k = kp_hopper_side(a, 1, call->input, node->input);
  plan.v = kp_hopper_side(a, 2, call->input, node->input);
  plan.g = mean_matrix(call, 9);
  plan.gq = kp_hopper_side(a, 0, call->output, node->output);
  plan.gk = kp_hopper_side(a, 1, call->output, node->output);
  plan.gv = kp_hopper_side(a, 2, call->output, node->output);
  plan.scalars = call->output[3] != NULL || call->output[4] != NULL;
  plan.q_parts = memory + sizes.rows;
  plan.k_parts = plan.q_parts + sizes.parts;
  float *mean_parts = plan.k_parts + sizes.parts;
  kp_hopper_rows rows = {};
  rows.counts = plan.taken;
  if (p.score != KP_SCORE_DOT) rows.q = plan.q;
  if (p.score != KP_SCORE_DOT) rows.k = plan.k;
  if (p.centroid) rows.v = plan.v;
  rows.o = mean_matrix(call, 6);
  rows.g = plan.g;
  rows.logsumexp = (const float *)call->input[7];
  rows.norms = (const float *)call->input[8];
  rows.g_times = (const float *)call->input[10];
  rows.bar = (kp_half *)(mean_parts + sizes.mean_parts);
  rows.kappa_parts = mean_parts;
  void *sums = kp_hopper_copy(a, rows.bar + 2 * sizes.bar, &rows, &plan.q, &plan.k, &plan.v);
  if (sizes.sums > 0) kp_hopper_joint_place(&plan, sums, &rows);
  if (kp_hopper_pads(a) && !p.centroid) rows.g_copy = rows.bar;
  kp_hopper_rows_run(p, rows, kp_cuda_of(call)->stream);
  if (sizes.bar > 0) plan.g = kp_hopper_matrix{rows.bar, (int64_t)p.heads * p.size, 0, p.size};
  if (sizes.sums > 0) return kp_hopper_joint(call, plan, error);
  KP_TRY(p.size == 64 ? launch_score<64>(call, plan, error) : launch_score<128>(call, plan, error));
  if (!plan.scalars) return kp_launched(call, error);
  scalars_kernel<<<p.heads, 256, 0, kp_cuda_of(call)->stream>>>(
      p, plan.q_parts, plan.k_parts, (p.length + OWN_ROWS - 1) / OWN_ROWS, p.centroid ? mean_parts : NULL,
      kp_output_numbers(call, 3), kp_output_numbers(call, 4), p.one_curvature, p.one_temperature);
  return kp_launched(call, error);
}
