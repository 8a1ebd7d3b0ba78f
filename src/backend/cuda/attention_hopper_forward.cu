/* Attention for compute capability 9.0, forward.
 *
 * A block of three warpgroups stays on its processor and takes tile after tile of 128 query rows of a head,
 * whichever is next when it is ready: causal tiles differ in work, and results do not depend on who does one.
 * Two warpgroups of 64 rows each compute; one thread of the third lets the copy engine bring queries, keys,
 * values and rows' numbers some tiles ahead.  While a warpgroup turns scores into weights the matrix unit
 * works for the other one, and on its own earlier tile's P V.
 *
 * 4 B H T² D FLOPs (half of it causal) against 8 B H T D bytes: bound by the matrix unit for the dot product,
 * by the special functions for distances (3 a pair at 16 a cycle and processor). */
#include "backend/cuda/attention_hopper_tile.cuh"

enum { FORWARD_ROWS = 128, FORWARD_KEYS = 128, FORWARD_CONSUMERS = 2, FORWARD_THREADS = 384 };

template <int D> struct forward_shared {
  static constexpr int stages = D == 64 ? 4 : 2;
  kp_half q[2][FORWARD_ROWS * D];
  kp_half k[stages][FORWARD_KEYS * D];
  kp_half v[stages][FORWARD_KEYS * D];
  float numbers[stages][FORWARD_KEYS * KP_ROW_COPIED];
  int tile[2]; /* which tile the queries are of; beyond all at the end */
  uint64_t q_full[2], q_empty[2], k_full[stages], k_empty[stages], v_full[stages], v_empty[stages];
};

struct forward_results {
  kp_hopper_matrix o;
  float *logsumexp, *times, *norms;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Key tiles that a tile of queries sees. */
__device__ static inline kp_hopper_span keys_seen(const kp_hopper_problem &p, const kp_hopper_tile &tile) {
  const int end = p.causal ? min(p.length, (tile.block + 1) * FORWARD_ROWS) : p.length;
  return kp_hopper_meets(p, tile.b, 2 * tile.block, 2, 2,
                         kp_hopper_span{0, (end + FORWARD_KEYS - 1) / FORWARD_KEYS});
}

template <int D>
__device__ static void load_tile(kp_half *to, const CUtensorMap *map, uint64_t *full, int column, int row,
                                 int b) {
#pragma unroll
  for (int panel = 0; panel < D / 64; panel++)
    kp_copy_box(to + panel * 128 * 64, map, full, column + panel * 64, row, b);
}

/* Brings a tile of keys with their numbers, and the values; one thread. */
template <int D>
__device__ static inline void load_keys(const kp_hopper_problem &p, forward_shared<D> &shared, int stage,
                                        int parity, const kp_hopper_tile &tile, int n,
                                        const CUtensorMap *k_map, const CUtensorMap *v_map) {
  const int kv = tile.h / (p.heads / p.kv_heads);
  const int numbers = p.k_rows == NULL ? 0 : KP_ROW_COPIED * KP_ROW_BLOCK * 4;
  kp_barrier_wait(&shared.k_empty[stage], parity);
  kp_barrier_expect(&shared.k_full[stage], FORWARD_KEYS * D * 2 + 2 * numbers);
  load_tile<D>(shared.k[stage], k_map, &shared.k_full[stage], p.k_column + kv * D, n * FORWARD_KEYS, tile.b);
  if (numbers != 0)
    for (int i = 0; i < 2; i++)
      kp_copy_bytes(shared.numbers[stage] + i * KP_ROW_COPIED * KP_ROW_BLOCK,
                    p.k_rows + kp_row_block_at(p, tile.b, tile.h, 2 * n + i), numbers, &shared.k_full[stage]);
  kp_barrier_wait(&shared.v_empty[stage], parity);
  kp_barrier_expect(&shared.v_full[stage], FORWARD_KEYS * D * 2);
  load_tile<D>(shared.v[stage], v_map, &shared.v_full[stage], p.v_column + kv * D, n * FORWARD_KEYS, tile.b);
}

/* The copies of all tiles, by one warp; its first thread starts them.  `taken` counts the tiles that blocks
 * took after their first. */
template <int D>
__device__ static void produce(const kp_hopper_problem &p, forward_shared<D> &shared, int *taken,
                               const CUtensorMap *q_map, const CUtensorMap *k_map, const CUtensorMap *v_map) {
  const int blocks = (p.length + FORWARD_ROWS - 1) / FORWARD_ROWS, tiles = blocks * p.batch * p.heads;
  int step = 0, turn = 0, index = blockIdx.x;
  for (; index < tiles; turn++) {
    const kp_hopper_tile tile = kp_hopper_tile_of(p, index, blocks, p.heads, true);
    const kp_hopper_span seen = keys_seen(p, tile);
    int next = 0;
    if (threadIdx.x % 32 == 0) {
      kp_barrier_wait(&shared.q_empty[turn % 2], turn / 2 % 2 ^ 1);
      shared.tile[turn % 2] = index;
      kp_barrier_expect(&shared.q_full[turn % 2], FORWARD_ROWS * D * 2);
      load_tile<D>(shared.q[turn % 2], q_map, &shared.q_full[turn % 2], p.q_column + tile.h * D,
                   tile.block * FORWARD_ROWS, tile.b);
      for (int n = seen.end - 1, i = step; n >= seen.first; n--, i++)
        load_keys<D>(p, shared, i % shared.stages, i / shared.stages % 2 ^ 1, tile, n, k_map, v_map);
      next = (int)gridDim.x + atomicAdd(taken, 1); /* while the last keys are still to be dealt with */
    }
    step += seen.end - seen.first;
    index = __shfl_sync(0xffffffffu, next, 0);
  }
  if (threadIdx.x % 32 != 0) return;
  kp_barrier_wait(&shared.q_empty[turn % 2], turn / 2 % 2 ^ 1);
  shared.tile[turn % 2] = index;
  kp_barrier_arrive(&shared.q_full[turn % 2]);
}

/* Hides keys: x becomes minus infinity from column `limit` of each of a thread's rows on, counted from the
 * thread's first one. */
__device__ static inline void hide_behind(float (&x)[64], const int (&limit)[2]) {
#pragma unroll
  for (int i = 0; i < 64; i++)
    if (i / 4 * 8 + i % 2 >= limit[i / 2 % 2]) x[i] = -INFINITY;
}

/* Hides the keys of other documents. */
__device__ static inline void hide_strangers(float (&x)[64], const int (&document)[2], const float *numbers) {
#pragma unroll
  for (int j = 0; j < 16; j++) {
    const float2 other = kp_columns(numbers, KP_ROW_DOCUMENT, j);
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (document[e / 2] != __float_as_int(e % 2 ? other.y : other.x)) x[4 * j + e] = -INFINITY;
  }
}

/* The running softmax of a thread's two rows; sums are the thread's own share. */
struct running {
  float most[2], sum[2], time[2];
};

/* x becomes the weights, relative to the rows' new maxima; returns what the earlier sums and the mean are to
 * be multiplied by.  With centroids the weights are rounded here, as the matrix unit will see them, so that
 * the mean's time and space belong together. */
template <int SCORE, bool CENTROID>
__device__ static inline void weigh(float (&x)[64], running &state, float factor, const float *numbers,
                                    float (&correction)[2]) {
  /* Distances keep the unit of special functions busy: half of the powers go elsewhere. */
  constexpr bool busy = SCORE == KP_SCORE_DISTANCE || SCORE == KP_SCORE_DISTANCE_SQUARED;
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float most = state.most[r];
#pragma unroll
    for (int j = 0; j < 16; j++) most = fmaxf(most, fmaxf(x[4 * j + 2 * r], x[4 * j + 2 * r + 1]));
    most = kp_quad_max(most);
    shift[r] = most == -INFINITY ? 0.0f : most * factor;
    correction[r] = kp_exp2(fmaf(state.most[r], factor, -shift[r]));
    state.most[r] = most;
    state.sum[r] *= correction[r];
    if (CENTROID) state.time[r] *= correction[r];
  }
#pragma unroll
  for (int j = 0; j < 16; j++) {
    const float2 time = CENTROID ? kp_columns(numbers, KP_ROW_LOGSUMEXP, j) : make_float2(0, 0);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float &low = x[4 * j + 2 * r], &high = x[4 * j + 2 * r + 1];
      low = kp_exp2(fmaf(low, factor, -shift[r]));
      high = fmaf(high, factor, -shift[r]);
      high = busy ? kp_exp2_series(high) : kp_exp2(high);
      if (CENTROID) {
        const uint32_t word = kp_pair(low, high);
        low = kp_pair_low(word);
        high = kp_pair_high(word);
        state.time[r] = fmaf(low, time.x, fmaf(high, time.y, state.time[r]));
      }
      state.sum[r] += low + high;
    }
  }
}

__device__ static inline void pack(const float (&x)[64], uint32_t (&words)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) words[i] = kp_pair(x[2 * i], x[2 * i + 1]);
}

template <int D> __device__ static inline void rescale(float (&o)[D / 2], const float (&correction)[2]) {
#pragma unroll
  for (int i = 0; i < D / 2; i++) o[i] *= correction[i / 2 % 2];
}

/* The rows' output: the mean, or the centroid, and what belongs to it. */
template <int D, bool CENTROID>
__device__ static void finish(const kp_hopper_problem &p, const kp_hopper_head &head,
                              const kp_hopper_tile &tile, const forward_results &to, float (&o)[D / 2],
                              const running &state, int row) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = row + 8 * r;
    const bool inside = t < p.length, first = threadIdx.x % 4 == 0;
    const int64_t at = (int64_t)tile.b * p.length + t;
    const float sum = kp_quad_sum(state.sum[r]);
    float scale = 1.0f / sum;
    if (CENTROID) {
      float square = 0;
#pragma unroll
      for (int j = 0; j < D / 8; j++)
        square += o[4 * j + 2 * r] * o[4 * j + 2 * r] + o[4 * j + 2 * r + 1] * o[4 * j + 2 * r + 1];
      const float space = kp_quad_sum(square) * scale * scale, time = kp_quad_sum(state.time[r]) * scale;
      const float norm = sqrtf(kp_larger(fmaf(time, time, -space), head.c));
      const float centroid = sqrtf(head.c) / norm;
      scale *= centroid;
      if (inside && first) {
        if (to.times != NULL) to.times[at * p.heads + tile.h] = centroid * time;
        if (to.norms != NULL) to.norms[at * p.heads + tile.h] = norm;
      }
    }
    kp_store_row<D>(o, r, scale, kp_hopper_at(to.o, at, tile.h), to.o.size, inside);
    if (inside && first)
      to.logsumexp[((int64_t)tile.b * p.heads + tile.h) * p.length + t] =
          (state.most[r] * head.factor + log2f(sum)) * 0.6931471805599453f + head.constant;
  }
}

template <int SCORE>
__device__ static inline kp_tile_row own_row(const kp_hopper_problem &p, const kp_hopper_head &head,
                                             const kp_hopper_tile &tile, int row, int (&document)[2]) {
  kp_tile_row own = {};
  document[0] = document[1] = 0;
  if (p.q_rows == NULL) return own;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int t = row + 8 * r;
    const float *at = p.q_rows + kp_row_block_at(p, tile.b, tile.h, t / KP_ROW_BLOCK) + t % KP_ROW_BLOCK;
    document[r] = __float_as_int(at[KP_ROW_DOCUMENT * KP_ROW_BLOCK]);
    own.level[r] = at[KP_ROW_LEVEL * KP_ROW_BLOCK];
    own.factor[r] = head.level * at[KP_ROW_FACTOR * KP_ROW_BLOCK];
    own.mirror[r] = 1.0f - 2.0f * (float)head.sign * own.level[r];
  }
  return own;
}

/* All tiles of queries of a block, for one warpgroup. */
template <int D, int SCORE, bool CENTROID>
__device__ static void consume(const kp_hopper_problem &p, forward_shared<D> &shared,
                               const forward_results &to, int group) {
  const int blocks = (p.length + FORWARD_ROWS - 1) / FORWARD_ROWS, tiles = blocks * p.batch * p.heads;
  const int lane = threadIdx.x % 32, within = group * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  int step = 0;
  for (int turn = 0;; turn++) {
    kp_barrier_wait(&shared.q_full[turn % 2], turn / 2 % 2);
    const int index = kp_uniform(shared.tile[turn % 2]);
    if (index >= tiles) return;
    const kp_hopper_tile tile = kp_hopper_tile_of(p, index, blocks, p.heads, true);
    const kp_hopper_head head = kp_hopper_head_of(p, tile.h);
    const int row = tile.block * FORWARD_ROWS + within, first_row = tile.block * FORWARD_ROWS + group * 64;
    const kp_hopper_span seen = keys_seen(p, tile);
    const int column = lane % 4 * 2;
    int document[2];
    const kp_tile_row own = own_row<SCORE>(p, head, tile, row, document);
    const int first_document = __shfl_sync(0xffffffffu, document[0], 0);
    const bool own_document = document[0] == first_document && document[1] == first_document;
    running state = {{-INFINITY, -INFINITY}, {0, 0}, {0, 0}};
    float o[D / 2], s[64], correction[2];
    uint32_t words[32];
#pragma unroll
    for (int i = 0; i < D / 2; i++) o[i] = 0;
    for (int n = seen.end - 1; n >= seen.first; n--, step++) {
      const int stage = step % shared.stages, parity = step / shared.stages % 2;
      const int earlier = (step + shared.stages - 1) % shared.stages;
      const bool started = n != seen.end - 1;
      kp_barrier_wait(&shared.k_full[stage], parity);
      kp_wgmma_begin();
      kp_tile_product<D, FORWARD_ROWS, FORWARD_KEYS>(s, shared.q[turn % 2], group * 64, shared.k[stage]);
      kp_wgmma_commit();
      if (started) {
        kp_barrier_wait(&shared.v_full[earlier], (step - 1) / shared.stages % 2);
        kp_tile_accumulate<D, FORWARD_KEYS>(o, words, shared.v[earlier], false);
        kp_wgmma_commit();
        kp_wgmma_wait<1>();
      } else {
        kp_wgmma_wait<0>();
      }
      kp_settle(s);
      const int key = n * FORWARD_KEYS;
      kp_scores<SCORE, FORWARD_KEYS>(s, head, own, shared.numbers[stage]);
      if (p.documents != NULL && !kp_one_document<2>(shared.numbers[stage], first_document, own_document))
        hide_strangers(s, document, shared.numbers[stage]);
      if (key + FORWARD_KEYS > p.length || (p.causal && key + FORWARD_KEYS - 1 > first_row)) {
        const int limit[2] = {(p.causal ? min(p.length, row + 1) : p.length) - key - column,
                              (p.causal ? min(p.length, row + 9) : p.length) - key - column};
        hide_behind(s, limit);
      }
      weigh<SCORE, CENTROID>(s, state, head.factor, shared.numbers[stage], correction);
      __syncwarp();
      if (lane == 0) kp_barrier_arrive(&shared.k_empty[stage]);
      if (started) {
        kp_wgmma_wait<0>();
        kp_settle(o);
        if (lane == 0) kp_barrier_arrive(&shared.v_empty[earlier]);
        rescale<D>(o, correction);
      }
      pack(s, words);
    }
    if (lane == 0) kp_barrier_arrive(&shared.q_empty[turn % 2]);
    const int last = (step + shared.stages - 1) % shared.stages;
    kp_barrier_wait(&shared.v_full[last], (step - 1) / shared.stages % 2);
    kp_wgmma_begin();
    kp_tile_accumulate<D, FORWARD_KEYS>(o, words, shared.v[last], false);
    kp_wgmma_commit();
    kp_wgmma_wait<0>();
    kp_settle(o);
    if (lane == 0) kp_barrier_arrive(&shared.v_empty[last]);
    finish<D, CENTROID>(p, head, tile, to, o, state, row);
  }
}

template <int D> __device__ static void create_barriers(forward_shared<D> &shared) {
  const int warps = FORWARD_CONSUMERS * 4;
  for (int i = 0; i < 2; i++) {
    kp_barrier_create(&shared.q_full[i], 1);
    kp_barrier_create(&shared.q_empty[i], warps);
  }
  for (int i = 0; i < shared.stages; i++) {
    kp_barrier_create(&shared.k_full[i], 1);
    kp_barrier_create(&shared.v_full[i], 1);
    kp_barrier_create(&shared.k_empty[i], warps);
    kp_barrier_create(&shared.v_empty[i], warps);
  }
  kp_barrier_publish();
}

#endif

template <int D, int SCORE, bool CENTROID>
__global__ static void __launch_bounds__(FORWARD_THREADS, 1)
    forward_kernel(const kp_hopper_problem p, const __grid_constant__ CUtensorMap q_map,
                   const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map,
                   const forward_results to, int *taken) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  forward_shared<D> &shared = *(forward_shared<D> *)memory;
  if (threadIdx.x == 0) create_barriers(shared);
  __syncthreads();
  const int group = kp_uniform(threadIdx.x / 128);
  if (group == FORWARD_CONSUMERS) {
    kp_registers_lower<40>();
    if (threadIdx.x % 128 < 32) produce<D>(p, shared, taken, &q_map, &k_map, &v_map);
  } else {
    kp_registers_raise<232>();
    consume<D, SCORE, CENTROID>(p, shared, to, group);
  }
#endif
}

/* ---- host ---- */

static const kp_attention_arguments *arguments_of(const kp_node *node) {
  return (const kp_attention_arguments *)node->arguments;
}

extern "C" bool kp_hopper_attention_fits(const kp_call *call) {
  const kp_attention_arguments *a = arguments_of(call->node);
  const bool values =
      a->values == KP_VALUES_MEAN || (a->values == KP_VALUES_LORENTZ && a->score == KP_SCORE_LORENTZ);
  return kp_cuda_of(call)->major == 9 && kp_is_half(call) && kp_hopper_size(a) > 0 && values &&
         a->length > 0 && a->batch > 0 && a->length < 1 << 24 && a->batch * a->heads < 65536;
}

/* Scratch memory begins with the count of tiles taken. */
enum { COUNT_FLOATS = KP_ROW_BLOCK };

/* Whether rows' numbers or copies are read at all. */
static bool needs_rows(const kp_attention_arguments *a, const void *documents) {
  return a->score != KP_SCORE_DOT || documents != NULL || kp_hopper_pads(a);
}

extern "C" size_t kp_hopper_attention_scratch(const kp_node *node) {
  const kp_attention_arguments *a = arguments_of(node);
  const size_t count = COUNT_FLOATS * 4;
  if (kp_hopper_size(a) == 0 || !needs_rows(a, node->input[5])) return count;
  return count + kp_hopper_rows_size(a, KP_ROW_COPIED) * 4 +
         kp_hopper_copy_size(a, a->heads + 2 * a->kv_heads) * 2;
}

template <int D, int SCORE, bool CENTROID>
static kp_status launch(const kp_call *call, const kp_hopper_problem &p, const CUtensorMap (&maps)[3],
                        const forward_results &to, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const int bytes = (int)sizeof(forward_shared<D>);
  const int tiles = (p.length + FORWARD_ROWS - 1) / FORWARD_ROWS * p.batch * p.heads;
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(forward_kernel<D, SCORE, CENTROID>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "attention", error));
  forward_kernel<D, SCORE, CENTROID>
      <<<kp_blocks(tiles, 1, cuda->processors), FORWARD_THREADS, bytes, cuda->stream>>>(
          p, maps[0], maps[1], maps[2], to, (int *)call->scratch);
  return kp_launched(call, error);
}

template <int D>
static kp_status launch_score(const kp_call *call, const kp_hopper_problem &p, const CUtensorMap (&maps)[3],
                              const forward_results &to, kp_error *error) {
  if (p.centroid) return launch<D, KP_SCORE_LORENTZ, true>(call, p, maps, to, error);
  switch (p.score) {
  case KP_SCORE_DOT: return launch<D, KP_SCORE_DOT, false>(call, p, maps, to, error);
  case KP_SCORE_LORENTZ: return launch<D, KP_SCORE_LORENTZ, false>(call, p, maps, to, error);
  case KP_SCORE_DISTANCE: return launch<D, KP_SCORE_DISTANCE, false>(call, p, maps, to, error);
  default: return launch<D, KP_SCORE_DISTANCE_SQUARED, false>(call, p, maps, to, error);
  }
}

extern "C" kp_status kp_hopper_attention(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = arguments_of(node);
  const bool rows = needs_rows(a, call->input[5]);
  float *memory = (float *)call->scratch + COUNT_FLOATS;
  const kp_hopper_problem p = kp_hopper_problem_of(call, KP_ROW_COPIED, rows ? memory : NULL);
  KP_TRY(kp_cuda_check(cudaMemsetAsync(call->scratch, 0, sizeof(int), kp_cuda_of(call)->stream), "attention",
                       error));
  kp_hopper_matrix sides[3];
  for (int i = 0; i < 3; i++) sides[i] = kp_hopper_side(a, i, call->input, node->input);
  if (rows) {
    kp_hopper_rows inputs = {};
    if (p.score != KP_SCORE_DOT) inputs.q = sides[0];
    if (p.score != KP_SCORE_DOT) inputs.k = sides[1];
    if (p.centroid) inputs.v = sides[2];
    kp_hopper_copy(a, (kp_half *)(memory + kp_hopper_rows_size(a, KP_ROW_COPIED)), &inputs, &sides[0],
                   &sides[1], &sides[2]);
    kp_hopper_rows_run(p, inputs, kp_cuda_of(call)->stream);
  }
  const kp_hopper_box boxes[3] = {{sides[0].at, sides[0].pitch, FORWARD_ROWS},
                                  {sides[1].at, sides[1].pitch, FORWARD_KEYS},
                                  {sides[2].at, sides[2].pitch, FORWARD_KEYS}};
  CUtensorMap maps[3];
  KP_TRY(kp_hopper_maps(maps, boxes, 3, a->batch, a->length, error));
  const forward_results to = {
      {(kp_half *)call->output[0], kp_pitch(node->output[0]), 0, kp_attention_value_size(a)},
      (float *)call->output[1],
      (float *)call->output[2],
      (float *)call->output[3]};
  return p.size == 64 ? launch_score<64>(call, p, maps, to, error)
                      : launch_score<128>(call, p, maps, to, error);
}
