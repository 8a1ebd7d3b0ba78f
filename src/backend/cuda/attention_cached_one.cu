/* Attention of one new token a sequence over a cache, in bfloat16 with the dot product and the plain mean:
 * the new key and value are stored, and the cache is read once, 4 D bytes a position and key head.
 *
 * A few lanes share a key: each holds 16 bytes of it and of its value, four keys at a time.  They keep a
 * softmax of their own, so that nothing in the loop waits for another warp; in the end those of a warp, of a
 * block and of a cluster of blocks are joined in this order.  Splits of a head are the blocks of a cluster,
 * which read one another's shared memory.  What the cache holds from earlier passes is read before the kernel
 * in front has ended; the new key and value come from where that kernel leaves them. */
#include <cooperative_groups.h>
#include <float.h>

#include "backend/cuda/attention_cached_one.cuh"
#include "backend/cuda/early.cuh"

namespace groups = cooperative_groups;

enum { THREADS = 256, WARPS = THREADS / 32, OWN = 4, SIZE = 8 };
enum { MOST_SPLITS = 8, MOST_ROWS = 4, BLOCKS_A_PROCESSOR = 2 };

struct one_token {
  const kp_half *q, *k, *v;   /* rows of queries, of new keys and values */
  kp_half *keys, *values, *o; /* (B, H', P, D), (B, H', P, D), (B, H·D) */
  int64_t q_pitch, k_pitch, v_pitch, keys_pitch, values_pitch, o_pitch;
  int64_t capacity;
  int kv_heads, together, size; /* together: query heads of a key head */
  float scale;
  const int32_t *start;
  kp_device_step *step;
  int node;
};

/* A softmax over some keys: the largest score, the sum of weights relative to it, and SIZE channels of the
 * weighted values. */
struct partial {
  float largest = -FLT_MAX, sum = 0, o[SIZE] = {};

  __device__ void shrink_to(float other) {
    const float most = fmaxf(largest, other), by = expf(largest - most);
    largest = most;
    sum *= by;
#pragma unroll
    for (int j = 0; j < SIZE; j++) o[j] *= by;
  }

  /* Of a key and value; what is not a number in a value without weight stays out. */
  __device__ void take(float score, const kp_pack<kp_half> &v) {
    const float weight = expf(score - largest);
    sum += weight;
    if (weight == 0) return;
#pragma unroll
    for (int j = 0; j < SIZE; j++) o[j] += weight * kp_to_float(v.value[j]);
  }

  /* Adds that of the lane `offset` away. */
  __device__ void join_lane(int offset) {
    const float other = __shfl_xor_sync(0xffffffffu, largest, offset);
    shrink_to(other);
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
#pragma unroll
    for (int j = 0; j < SIZE; j++) o[j] += __shfl_xor_sync(0xffffffffu, o[j], offset);
  }
};

template <int LANES>
__device__ static inline float product(const float (&q)[SIZE], const kp_pack<kp_half> &k) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < SIZE; j++) sum += q[j] * kp_to_float(k.value[j]);
#pragma unroll
  for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
}

/* Four keys and values of a group of lanes, from place `first` on; what lies at `end` or behind it is zero.
 */
template <int GROUPS> struct four_keys {
  kp_pack<kp_half> k[OWN], v[OWN];

  __device__ void load(const one_token &a, const kp_half *keys, const kp_half *values, int first, int end,
                       bool inside) {
#pragma unroll
    for (int u = 0; u < OWN; u++) {
      const int at = first + u * GROUPS;
      k[u] = {}, v[u] = {};
      if (!inside || at >= end) continue;
      k[u] = kp_load(keys + at * a.keys_pitch);
      v[u] = kp_load(values + at * a.values_pitch);
    }
  }

  template <int LANES, int ROWS>
  __device__ void attend(const float (&q)[ROWS][SIZE], int first, int end, partial (&part)[ROWS]) const {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float score[OWN], largest = -FLT_MAX;
#pragma unroll
      for (int u = 0; u < OWN; u++) {
        score[u] = product<LANES>(q[r], k[u]);
        if (first + u * GROUPS < end) largest = fmaxf(largest, score[u]);
      }
      part[r].shrink_to(largest);
#pragma unroll
      for (int u = 0; u < OWN; u++)
        if (first + u * GROUPS < end) part[r].take(score[u], v[u]);
    }
  }
};

/* What a warp or a block leaves of ROWS query rows for the others. */
template <int LANES, int ROWS> struct left { float largest[ROWS], sum[ROWS], o[ROWS][LANES * SIZE]; };

/* Channel d of row r of `count` of them joined in order: largest score, sum of weights, sum of values. */
template <typename Left> __device__ static inline float3 join(const Left *parts, int count, int r, int d) {
  float largest = -FLT_MAX, sum = 0, o = 0;
#pragma unroll
  for (int i = 0; i < MOST_SPLITS; i++)
    if (i < count) largest = fmaxf(largest, parts[i].largest[r]);
#pragma unroll
  for (int i = 0; i < MOST_SPLITS; i++) {
    if (i >= count) break;
    const float by = expf(parts[i].largest[r] - largest);
    sum += by * parts[i].sum[r];
    o += by * parts[i].o[r][d];
  }
  return make_float3(largest, sum, o);
}
static_assert((int)WARPS <= (int)MOST_SPLITS, "warps are joined like splits");

#if __CUDA_ARCH__ >= 900
/* Joins the warps of the block and the blocks of the cluster, whose parts meet in the first block's memory,
 * and writes `together` rows of o. */
template <typename Left>
__device__ static void join_all(const one_token &a, const Left *warps, Left *blocks, kp_half *o) {
  groups::cluster_group cluster = groups::this_cluster();
  const int count = a.together * a.size, splits = (int)gridDim.x;
  __syncthreads();
  if (splits > 1) cluster.barrier_wait(); /* all blocks have begun */
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const int r = i / a.size, d = i - r * a.size;
    const float3 all = join(warps, WARPS, r, d);
    if (splits == 1) {
      o[i] = __float2bfloat16_rn(all.z / all.y);
      continue;
    }
    Left *place = cluster.map_shared_rank(blocks, 0) + blockIdx.x;
    place->o[r][d] = all.z;
    if (d == 0) place->largest[r] = all.x, place->sum[r] = all.y;
  }
  if (splits == 1) return;
  cluster.sync();
  if (blockIdx.x > 0) return;
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const int r = i / a.size, d = i - r * a.size;
    const float3 all = join(blocks, splits, r, d);
    o[i] = __float2bfloat16_rn(all.z / all.y);
  }
}
#endif

template <int LANES, int ROWS>
static __global__ void __launch_bounds__(THREADS, ROWS == 1 ? 2 : 1)
    one_kernel(const __grid_constant__ one_token a) {
#if __CUDA_ARCH__ >= 900
  constexpr int GROUPS = THREADS / LANES;
  __shared__ left<LANES, ROWS> warps[WARPS], blocks[MOST_SPLITS];
  if (gridDim.x > 1) groups::this_cluster().barrier_arrive();
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, warp = threadIdx.x / 32;
  const int b = blockIdx.y / a.kv_heads, kv = blockIdx.y % a.kv_heads, column = lane * SIZE;
  const bool inside = column < a.size;
  const int64_t cache = blockIdx.y * a.capacity;
  kp_half *keys = a.keys + cache * a.keys_pitch + column,
          *values = a.values + cache * a.values_pitch + column;
  /* The old positions of this split. */
  const int start = kp_cached_start(a.start, 1, a.capacity, a.step, a.node), splits = (int)gridDim.x;
  const int share = ((start + splits - 1) / splits + GROUPS - 1) / GROUPS * GROUPS;
  const int begin = (int)blockIdx.x * share, end = min(start, begin + share);
  four_keys<GROUPS> own;
  own.load(a, keys, values, begin + group, end, inside);
  kp_let_next_begin();
  kp_wait_for_previous();
  float q[ROWS][SIZE];
  partial part[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    kp_pack<kp_half> pack = {};
    if (inside && r < a.together)
      pack = kp_load(a.q + b * a.q_pitch + (int64_t)(kv * a.together + r) * a.size + column);
#pragma unroll
    for (int j = 0; j < SIZE; j++) q[r][j] = a.scale * kp_to_float(pack.value[j]);
  }
  /* The new one is the first group's of the first split. */
  if (blockIdx.x == 0 && warp == 0) {
    kp_pack<kp_half> k = {}, v = {};
    if (inside) {
      k = kp_load(a.k + b * a.k_pitch + (int64_t)kv * a.size + column);
      v = kp_load(a.v + b * a.v_pitch + (int64_t)kv * a.size + column);
    }
    if (inside && group == 0) {
      kp_store(keys + start * a.keys_pitch, k);
      kp_store(values + start * a.values_pitch, v);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const float score = product<LANES>(q[r], k);
      if (group != 0) continue;
      part[r].shrink_to(score);
      part[r].take(score, v);
    }
  }
  for (int first = begin; first < end; first += OWN * GROUPS) {
    if (first > begin) own.load(a, keys, values, first + group, end, inside);
    own.template attend<LANES, ROWS>(q, first + group, end, part);
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int offset = LANES; offset < 32; offset *= 2) part[r].join_lane(offset);
    if (threadIdx.x % 32 >= LANES) continue;
#pragma unroll
    for (int j = 0; j < SIZE; j++) warps[warp].o[r][column + j] = part[r].o[j];
    if (lane == 0) warps[warp].largest[r] = part[r].largest, warps[warp].sum[r] = part[r].sum;
  }
  join_all(a, warps, blocks, a.o + b * a.o_pitch + (int64_t)kv * a.together * a.size);
#endif
}

/* ---- launching ---- */

static one_token one_of(const kp_call *call) {
  const kp_node *node = call->node;
  const kp_attention_arguments *arguments = (const kp_attention_arguments *)node->arguments;
  one_token a = {};
  a.q = (const kp_half *)call->input[0], a.q_pitch = kp_pitch(node->input[0]);
  a.k = (const kp_half *)call->input[6], a.v = (const kp_half *)call->input[7];
  a.size = arguments->head_size;
  a.kv_heads = arguments->kv_heads, a.together = arguments->heads / arguments->kv_heads;
  if (arguments->packed) {
    a.k = a.q + (int64_t)arguments->heads * a.size;
    a.v = a.k + (int64_t)arguments->kv_heads * a.size;
    a.k_pitch = a.v_pitch = a.q_pitch;
  } else {
    a.k_pitch = kp_pitch(node->input[6]), a.v_pitch = kp_pitch(node->input[7]);
  }
  a.keys = (kp_half *)call->input[1], a.keys_pitch = kp_pitch(node->input[1]);
  a.values = (kp_half *)call->input[2], a.values_pitch = kp_pitch(node->input[2]);
  a.capacity = node->input[1]->shape[2];
  a.o = (kp_half *)call->output[0], a.o_pitch = kp_pitch(node->output[0]);
  a.scale = (float)kp_attention_scale(arguments);
  a.start = (const int32_t *)call->input[3];
  a.step = kp_cuda_of(call)->step;
  a.node = node->index;
  return a;
}

bool kp_cached_one_can(const kp_call *call) {
  const kp_node *node = call->node;
  const kp_attention_arguments *arguments = (const kp_attention_arguments *)node->arguments;
  if (!kp_is_half(call) || kp_cuda_of(call)->major < 9 || arguments->length != 1 || arguments->batch == 0)
    return false;
  if (arguments->score != KP_SCORE_DOT || arguments->values != KP_VALUES_MEAN || call->input[5] != NULL ||
      call->output[1] != NULL)
    return false;
  const one_token a = one_of(call);
  const int64_t sizes[] = {a.size, a.q_pitch, a.k_pitch, a.v_pitch, a.keys_pitch, a.values_pitch};
  for (int i = 0; i < 6; i++)
    if (sizes[i] % SIZE != 0) return false;
  return kp_attention_value_size(arguments) == a.size && a.together <= MOST_ROWS &&
         a.size <= (a.together == 1 ? 32 : 16) * SIZE && a.o_pitch == (int64_t)arguments->heads * a.size;
}

template <int LANES, int ROWS>
static kp_status launch(const kp_call *call, const one_token &a, bool early, kp_error *error) {
  const kp_attention_arguments *arguments = (const kp_attention_arguments *)call->node->arguments;
  const int64_t heads = arguments->batch * a.kv_heads;
  kp_early_launch l = {};
  l.cluster = 1;
  while (l.cluster < MOST_SPLITS &&
         2 * l.cluster * heads <= BLOCKS_A_PROCESSOR * kp_cuda_of(call)->processors)
    l.cluster *= 2;
  l.grid = dim3(l.cluster, (unsigned)heads);
  l.block = dim3(THREADS);
  l.early = early;
  return kp_launch_early(kp_cuda_of(call), call->node->row->name, l, one_kernel<LANES, ROWS>, error, a);
}

template <int LANES>
static kp_status choose(const kp_call *call, const one_token &a, bool early, kp_error *error) {
  return a.together == 1 ? launch<LANES, 1>(call, a, early, error)
                         : launch<LANES, MOST_ROWS>(call, a, early, error);
}

kp_status kp_cached_one(const kp_call *call, bool early, kp_error *error) {
  const one_token a = one_of(call);
  if (a.size <= 8 * SIZE) return choose<8>(call, a, early, error);
  if (a.size <= 16 * SIZE) return choose<16>(call, a, early, error);
  return launch<32, 1>(call, a, early, error);
}
