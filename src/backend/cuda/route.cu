/* The gate of a mixture of experts: scores, choice and weights of each token, and the rows sorted by expert.
 *
 * A warp has a token; lane l holds the experts l, l + 32, …  The choice is made of keys: whole numbers in the
 * order of the scores, so that one instruction finds the largest of a warp.  Bytes: logits once, scores once,
 * and little more; choosing k of E takes some k (E/32 + 10) instructions of a warp, which bounds it for more
 * than a few choices. */
#include "backend/cuda/chunks.cuh"
#include "backend/cuda/sort.cuh"

enum { ROUTE_WARPS = 8, ROUTE_TOKENS = 32 /* of a block: a tile of the sort */, MOST_EXPERTS = 1024 };

struct kp_router {
  const void *logits;
  const int32_t *documents;
  int64_t N, logits_pitch;
  int E, k;
  int groups, limited;
  kp_gate_score score;
  bool renormalise;
  float scale;
  int32_t *indices;
  float *weights, *scores;
  int32_t *counts, *tile_counts; /* of all tokens but padding; (E, tiles) of all */
  int tiles;
};

/* A number in the order of x, and of all that is not a number above it. */
__device__ static inline unsigned key_of(float x) {
  if (x != x) return 0xffffffffu;
  const unsigned bits = __float_as_uint(x + 0.0f); /* one zero */
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ static inline float score_of_key(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* What no expert has: even the key of minus infinity is larger. */
enum { NO_KEY = 0 };

/* p from l, in place; a lane without an expert holds minus infinity and gets zero. */
template <int ITEMS> __device__ static inline void score_row(kp_gate_score score, float (&x)[ITEMS]) {
  if (score == KP_GATE_SIGMOID) {
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
      const float e = expf(-fabsf(x[i])), larger = 1.0f / (1.0f + e);
      x[i] = x[i] >= 0 ? larger : e * larger;
    }
    return;
  }
  float largest = x[0], sum = 0;
#pragma unroll
  for (int i = 1; i < ITEMS; i++) largest = x[i] > largest || x[i] != x[i] ? x[i] : largest;
  largest = kp_warp_max(largest);
#pragma unroll
  for (int i = 0; i < ITEMS; i++) sum += x[i] = expf(x[i] - largest);
  sum = kp_warp_sum(sum);
#pragma unroll
  for (int i = 0; i < ITEMS; i++) x[i] /= sum;
}

template <int ITEMS> __device__ static inline unsigned largest_of(const unsigned (&key)[ITEMS], int *expert) {
  unsigned largest = key[0];
  int item = 0;
#pragma unroll
  for (int i = 1; i < ITEMS; i++)
    if (key[i] > largest) {
      largest = key[i];
      item = i;
    }
  const unsigned all = __reduce_max_sync(0xffffffffu, largest);
  const unsigned mine = largest == all ? (unsigned)(item * 32 + threadIdx.x % 32) : 0xffffffffu;
  *expert = (int)__reduce_min_sync(0xffffffffu, mine);
  return all;
}

template <int ITEMS> __device__ static inline void forget(unsigned (&key)[ITEMS], int expert) {
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (i * 32 + (int)(threadIdx.x % 32) == expert) key[i] = NO_KEY;
}

/* The sum of the two largest scores of experts [first, last), or the only one. */
template <int ITEMS>
__device__ static inline float group_score(const unsigned (&key)[ITEMS], int first, int last) {
  unsigned best = NO_KEY, second = NO_KEY;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (i * 32 >= last || i * 32 + 32 <= first) continue; /* the same for all lanes */
    const int e = i * 32 + threadIdx.x % 32;
    const unsigned own = e >= first && e < last ? key[i] : (unsigned)NO_KEY;
    second = max(second, min(best, own));
    best = max(best, own);
  }
  const unsigned largest = __reduce_max_sync(0xffffffffu, best);
  if (last - first == 1) return score_of_key(largest);
  const unsigned holders = __ballot_sync(0xffffffffu, best == largest);
  const unsigned other = __reduce_max_sync(0xffffffffu, best == largest ? second : best);
  return score_of_key(largest) + score_of_key(__popc(holders) > 1 ? largest : other);
}

/* Keeps the keys of the groups whose two largest scores have the largest sums; lane g holds group g. */
template <int ITEMS> __device__ static inline void limit_groups(const kp_router &g, unsigned (&key)[ITEMS]) {
  const int lane = threadIdx.x % 32, size = g.E / g.groups;
  unsigned own = NO_KEY;
  for (int group = 0; group < g.groups; group++) {
    const float sum = group_score(key, group * size, (group + 1) * size);
    if (lane == group) own = key_of(sum);
  }
  int ahead = 0;
  for (int group = 0; group < g.groups; group++) {
    const unsigned other = __shfl_sync(0xffffffffu, own, group);
    ahead += other > own || (group < lane && other == own);
  }
  const unsigned reach = __ballot_sync(0xffffffffu, lane < g.groups && ahead < g.limited);
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (!(reach >> ((i * 32 + lane) / size % 32) & 1)) key[i] = NO_KEY;
}

/* The weight of choice `lane` of k, from its logit and score.  Renormalised weights are a softmax of log p
 * over the chosen: no sum can vanish. */
__device__ static inline float weigh(const kp_router &g, float logit, float p, bool there) {
  if (!g.renormalise) return g.scale * p;
  float x = g.score == KP_GATE_SOFTMAX ? logit : fminf(logit, 0.0f) - log1pf(expf(-fabsf(logit)));
  if (logit != logit) x = logit;
  const float largest = kp_warp_max(there ? x : -INFINITY);
  const float e = there ? expf(x - largest) : 0;
  return g.scale * (e / kp_warp_sum(e));
}

/* One token: lane j gets its choice j. */
template <typename T, int ITEMS>
__device__ static inline int route_token(const kp_router &g, const kp_numbers &bias, int64_t n) {
  const int lane = threadIdx.x % 32;
  const T *logits = (const T *)g.logits + n * g.logits_pitch;
  float x[ITEMS];
  unsigned key[ITEMS];
#pragma unroll
  for (int i = 0; i < ITEMS; i++) x[i] = i * 32 + lane < g.E ? kp_to_float(logits[i * 32 + lane]) : -INFINITY;
  score_row(g.score, x);
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int e = i * 32 + lane;
    key[i] = NO_KEY;
    if (e >= g.E) continue;
    g.scores[n * g.E + e] = x[i];
    key[i] = key_of(bias.at == NULL ? x[i] : x[i] + bias[e]);
  }
  if (g.groups > 1) limit_groups(g, key);
  int own = 0;
  for (int j = 0; j < g.k; j++) {
    int expert;
    largest_of(key, &expert);
    forget(key, expert);
    if (lane == j) own = expert;
  }
  /* Lane j fetches the score of its choice from the lane and item that hold it. */
  float p = 0;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const float candidate = __shfl_sync(0xffffffffu, x[i], own % 32);
    if (own / 32 == i) p = candidate;
  }
  const bool there = lane < g.k;
  const float weight = weigh(g, there ? kp_to_float(logits[own]) : 0.0f, p, there);
  if (there) {
    g.indices[n * g.k + lane] = own;
    g.weights[n * g.k + lane] = weight;
  }
  return own;
}

template <typename T, int ITEMS>
static __global__ void __launch_bounds__(ROUTE_WARPS * 32)
    route_tokens(const __grid_constant__ kp_router g, const kp_numbers bias) {
  extern __shared__ int32_t chosen[]; /* of all, and of those that are no padding */
  int32_t *counted = chosen + g.E;
  for (int i = threadIdx.x; i < 2 * g.E; i += blockDim.x) chosen[i] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = (int64_t)blockIdx.x * ROUTE_TOKENS;
#pragma unroll 2
  for (int i = warp; i < ROUTE_TOKENS; i += ROUTE_WARPS) {
    const int64_t n = first + i;
    if (n >= g.N) break;
    const int expert = route_token<T, ITEMS>(g, bias, n);
    if (lane >= g.k) continue;
    atomicAdd(&chosen[expert], 1);
    if (g.documents != NULL && g.documents[n] >= 0) atomicAdd(&counted[expert], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < g.E; e += blockDim.x) {
    g.tile_counts[(int64_t)e * g.tiles + blockIdx.x] = chosen[e];
    const int count = g.documents == NULL ? chosen[e] : counted[e];
    if (count > 0) atomicAdd(&g.counts[e], count);
  }
}

static size_t aligned(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

static size_t tile_count_bytes(int64_t N, int64_t E) {
  return aligned((size_t)(kp_blocks(N, ROUTE_TOKENS) * E) * sizeof(int32_t));
}

extern "C" size_t kp_cuda_scratch_route(const kp_node *node, int threads) {
  (void)threads;
  const int64_t N = kp_tensor_rows(node->input[0]), E = kp_tensor_columns(node->input[0]);
  return tile_count_bytes(N, E) + aligned((size_t)E * sizeof(int32_t));
}

static kp_router gate_of(const kp_call *call) {
  const kp_route_arguments *a = (const kp_route_arguments *)call->node->arguments;
  kp_router g = {};
  g.logits = call->input[0];
  g.documents = call->node->inputs > 2 ? (const int32_t *)call->input[2] : NULL;
  g.N = kp_tensor_rows(call->node->input[0]);
  g.logits_pitch = kp_pitch(call->node->input[0]);
  g.E = a->experts, g.k = a->choices;
  g.groups = a->groups < 1 ? 1 : a->groups, g.limited = a->limited_groups;
  g.score = a->score;
  g.renormalise = a->renormalise;
  g.scale = (float)a->scale;
  g.indices = (int32_t *)call->output[0];
  g.weights = (float *)call->output[1];
  g.scores = (float *)call->output[2];
  g.counts = (int32_t *)call->output[3];
  g.tile_counts = (int32_t *)call->scratch;
  g.tiles = kp_blocks(g.N, ROUTE_TOKENS);
  return g;
}

static kp_status sort_rows(const kp_call *call, const kp_router &g, kp_error *error) {
  kp_sort sort = {};
  sort.count = g.N * g.k;
  sort.tile = ROUTE_TOKENS * g.k;
  sort.tiles = g.tiles;
  sort.bins = g.E;
  sort.mask = 0xffffffffu;
  sort.keys = g.indices;
  sort.choices = g.k;
  sort.counts = g.tile_counts;
  sort.totals = (int32_t *)((char *)call->scratch + tile_count_bytes(g.N, g.E));
  sort.sorted_rows = (int32_t *)call->output[4];
  sort.offsets = (int32_t *)call->output[5];
  sort.slot = (int32_t *)call->output[6];
  return kp_sort_finish(call, &sort, error);
}

template <typename T> static void launch_route(const kp_call *call, const kp_router &g) {
  const kp_numbers bias =
      call->node->inputs > 1 && call->input[1] != NULL ? kp_input_numbers(call, 1) : kp_numbers{};
  const size_t shared = 2 * (size_t)g.E * sizeof(int32_t);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (g.E <= 64)
    route_tokens<T, 2><<<g.tiles, ROUTE_WARPS * 32, shared, stream>>>(g, bias);
  else if (g.E <= 256)
    route_tokens<T, 8><<<g.tiles, ROUTE_WARPS * 32, shared, stream>>>(g, bias);
  else
    route_tokens<T, MOST_EXPERTS / 32><<<g.tiles, ROUTE_WARPS * 32, shared, stream>>>(g, bias);
}

extern "C" kp_status kp_cuda_route(const kp_call *call, kp_error *error) {
  const kp_router g = gate_of(call);
  if (g.E > MOST_EXPERTS || g.k > 32 || g.groups > 32)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "the cuda backend routes to at most %d experts in 32 groups with 32 choices, not %d in %d "
                   "with %d",
                   MOST_EXPERTS, g.E, g.groups, g.k);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  KP_TRY(kp_cuda_check(cudaMemsetAsync(g.counts, 0, (size_t)g.E * sizeof(int32_t), stream), "route", error));
  if (kp_tensor_is_half(call, call->node->input[0]))
    launch_route<kp_half>(call, g);
  else
    launch_route<float>(call, g);
  KP_TRY(kp_launched(call, error));
  return sort_rows(call, g, error);
}

/* ---- backward ---- */

struct kp_gate_gradient {
  const float *scores, *weights, *g_weights, *g_scores; /* the last two may be NULL */
  const int32_t *indices;
  int64_t N, pitch; /* of the result */
  int E, k;
  kp_gate_score score;
  bool renormalise;
  float scale;
};

/* Without renormalisation g p gains scale · g w, and goes through softmax or sigmoid; with it, the weights
 * are scale times a softmax over the chosen of l or log sigmoid(l).  A warp has a token.  Bytes: scores and
 * their gradient once, the result once. */
template <typename T, int ITEMS>
static __global__ void __launch_bounds__(ROUTE_WARPS * 32)
    route_backward(T *out, const __grid_constant__ kp_gate_gradient b) {
  const int lane = threadIdx.x % 32;
  const int64_t n = (int64_t)blockIdx.x * ROUTE_WARPS + threadIdx.x / 32;
  if (n >= b.N) return;
  float p[ITEMS], g[ITEMS], mean = 0;
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int e = i * 32 + lane;
    p[i] = e < b.E ? b.scores[n * b.E + e] : 0;
    g[i] = e < b.E && b.g_scores != NULL ? b.g_scores[n * b.E + e] : 0;
  }
  const bool there = lane < b.k && b.g_weights != NULL;
  const float gw = there ? b.g_weights[n * b.k + lane] : 0, w = there ? b.weights[n * b.k + lane] : 0;
  const int chosen = there ? b.indices[n * b.k + lane] : -1;
  for (int j = 0; j < b.k && !b.renormalise; j++) {
    const int e = __shfl_sync(0xffffffffu, chosen, j);
    const float drawn = __shfl_sync(0xffffffffu, b.scale * gw, j);
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
      if (e == i * 32 + lane) g[i] += drawn;
  }
#pragma unroll
  for (int i = 0; i < ITEMS; i++) mean += p[i] * g[i];
  mean = kp_warp_sum(mean);
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    g[i] = b.score == KP_GATE_SOFTMAX ? p[i] * (g[i] - mean) : p[i] * (1 - p[i]) * g[i];
  const float drawn = kp_warp_sum(w * gw / b.scale);
  for (int j = 0; j < b.k && b.renormalise; j++) {
    const int e = __shfl_sync(0xffffffffu, chosen, j);
    const float own = __shfl_sync(0xffffffffu, w * (gw - drawn), j);
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
      if (e == i * 32 + lane) g[i] += own * (b.score == KP_GATE_SOFTMAX ? 1 : 1 - p[i]);
  }
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    const int e = i * 32 + lane;
    if (e < b.pitch) out[n * b.pitch + e] = kp_from_float<T>(e < b.E ? g[i] : 0.0f);
  }
}

template <typename T> static void launch_backward(const kp_call *call, const kp_gate_gradient &b) {
  const int blocks = kp_blocks(b.N, ROUTE_WARPS);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  T *out = (T *)call->output[0];
  if (b.pitch <= 64)
    route_backward<T, 2><<<blocks, ROUTE_WARPS * 32, 0, stream>>>(out, b);
  else if (b.pitch <= 256)
    route_backward<T, 8><<<blocks, ROUTE_WARPS * 32, 0, stream>>>(out, b);
  else
    route_backward<T, MOST_EXPERTS / 32><<<blocks, ROUTE_WARPS * 32, 0, stream>>>(out, b);
}

extern "C" kp_status kp_cuda_route_backward(const kp_call *call, kp_error *error) {
  const kp_route_arguments *a = (const kp_route_arguments *)call->node->arguments;
  kp_gate_gradient b = {};
  b.scores = (const float *)call->input[0];
  b.indices = (const int32_t *)call->input[1];
  b.weights = (const float *)call->input[2];
  b.g_weights = (const float *)call->input[3];
  b.g_scores = (const float *)call->input[4];
  b.N = kp_tensor_rows(call->node->input[0]);
  b.pitch = kp_pitch(call->node->output[0]);
  b.E = a->experts, b.k = a->choices;
  b.score = a->score;
  b.renormalise = a->renormalise;
  b.scale = (float)a->scale;
  if (b.N == 0) return KP_OK;
  if (b.pitch > MOST_EXPERTS || b.k > 32)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "the cuda backend routes to at most %d experts", MOST_EXPERTS);
  if (kp_tensor_is_half(call, call->node->output[0]))
    launch_backward<kp_half>(call, b);
  else
    launch_backward<float>(call, b);
  return kp_launched(call, error);
}
