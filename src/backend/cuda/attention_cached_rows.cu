/* Attention over a cache for a few query rows, as fast as the cache can be read.
 *
 * Eight to thirty-two lanes share a key: each holds 16 bytes of it and of its value, and four keys at a time,
 * all loaded before the first is used.  A tile is what a block's lanes hold.  Products are added up within
 * the lanes of a key; then a warp takes a query row and makes weights of the tile's scores; then every lane
 * weighs the values that it has held since the beginning.  Sums of values stay in registers, each for the
 * keys of its lanes, until the block's share of the cache is done.
 *
 * With curved scores or values products and sums are in double, since they are differences of large numbers.
 */
#include <float.h>

#include "backend/cuda/attention_cached.cuh"

enum { THREADS = 128, WARPS = THREADS / 32, OWN = 4 };

template <typename T, int LANES, int ROWS, bool CURVED> struct shared_rows {
  static constexpr int SIZE = kp_pack<T>::size, GROUPS = THREADS / LANES, KEYS = OWN * GROUPS;
  using Sum = typename kp_sum_type<CURVED>::type;
  Sum product[ROWS][KEYS];
  kp_score_row query[ROWS], key[KEYS];
  kp_value_row value[KEYS];
  Sum weight[ROWS][KEYS]; /* times the value's scale */
  float shrink[ROWS];
  Sum part[WARPS][LANES * SIZE];
};

/* Where a block stands: query heads `head` on of sequence b, rows t · together + g, keys of [first, last). */
struct block_rows {
  int b, head, first_row, rows, start, first, last;
};

template <int ROWS> static __device__ block_rows block_of(const kp_cached_heads &a, int keys) {
  block_rows s;
  const int units = a.heads / a.together, unit = blockIdx.y;
  s.b = unit / units;
  s.head = unit % units * a.together;
  s.first_row = blockIdx.z * ROWS;
  s.rows = min(ROWS, (int)a.length * a.together - s.first_row);
  s.start = kp_cached_start(a);
  const int end = s.start + (int)a.length;
  const int share = ((end + a.splits - 1) / a.splits + keys - 1) / keys * keys;
  s.first = (int)blockIdx.x * share;
  s.last = min(end, s.first + share);
  return s;
}

__device__ static inline int head_of(const block_rows &s, const kp_cached_heads &a, int row) {
  return s.head + (s.first_row + row) % a.together;
}
__device__ static inline int token_of(const block_rows &s, const kp_cached_heads &a, int row) {
  return (s.first_row + row) / a.together;
}

template <int LANES, typename Sum> __device__ static inline Sum lanes_sum(Sum x) {
#pragma unroll
  for (int offset = LANES / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/* A lane's pack of OWN rows of a tile; what lies outside is zero. */
template <typename T> struct own_rows { kp_pack<T> pack[OWN]; };

template <typename T, int GROUPS>
__device__ static inline own_rows<T> load_own(const T *rows, int64_t pitch, bool inside, int key, int count) {
  own_rows<T> own;
#pragma unroll
  for (int u = 0; u < OWN; u++) {
    own.pack[u] = {};
    if (inside && key + u * GROUPS < count) own.pack[u] = kp_load(rows + (key + u * GROUPS) * pitch);
  }
  return own;
}

/* Σ x² of each own row, over its lanes. */
template <int LANES, typename T>
__device__ static inline void squares_of(const own_rows<T> &own, double (&square)[OWN]) {
#pragma unroll
  for (int u = 0; u < OWN; u++) {
    double sum = 0;
#pragma unroll
    for (int j = 0; j < kp_pack<T>::size; j++) {
      const double x = (double)kp_to_float(own.pack[u].value[j]);
      sum += x * x;
    }
    square[u] = lanes_sum<LANES>(sum);
  }
}

template <typename N> __device__ static inline N pick(const N (&numbers)[OWN], int i) {
  N number = numbers[0];
#pragma unroll
  for (int u = 1; u < OWN; u++)
    if (i == u) number = numbers[u];
  return number;
}

/* Products of the tile's keys, and what keys and values contribute; lane u of a key's lanes writes key u. */
template <typename T, int LANES, int ROWS, bool CURVED>
__device__ static void score_tile(shared_rows<T, LANES, ROWS, CURVED> *s, const kp_cached_heads &a,
                                  double kappa, const float (&q)[ROWS][kp_pack<T>::size],
                                  const own_rows<T> &k, const own_rows<T> &v) {
  using Shared = shared_rows<T, LANES, ROWS, CURVED>;
  using Sum = typename Shared::Sum;
  const int lane = threadIdx.x % LANES, key = threadIdx.x / LANES + lane * Shared::GROUPS;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    Sum product[OWN];
#pragma unroll
    for (int u = 0; u < OWN; u++) {
      Sum sum = 0;
#pragma unroll
      for (int j = 0; j < Shared::SIZE; j++) sum += (Sum)q[r][j] * (Sum)kp_to_float(k.pack[u].value[j]);
      product[u] = lanes_sum<LANES>(sum);
    }
    if (lane < OWN) s->product[r][key] = pick(product, lane);
  }
  double square[OWN];
  if (a.score != KP_SCORE_DOT) {
    squares_of<LANES>(k, square);
    if (lane < OWN)
      s->key[key] = kp_score_row_of<CURVED>(a.score, a.scale * a.scale * pick(square, lane), kappa);
  }
  if (CURVED && a.values != KP_VALUES_MEAN) {
    squares_of<LANES>(v, square);
    if (lane < OWN) s->value[key] = kp_value_row_of(a.values, pick(square, lane), kappa);
  }
}

/* The running softmax of a warp's query row; `extra` is a lane's own part. */
struct row_state {
  float largest, sum;
  double extra;
};

/* One warp: scores of its row become weights. */
template <typename T, int LANES, int ROWS, bool CURVED>
__device__ static void weigh_tile(shared_rows<T, LANES, ROWS, CURVED> *s, const kp_cached_heads &a,
                                  const block_rows &block, double kappa, double beta, int first, int count,
                                  row_state *state) {
  using Shared = shared_rows<T, LANES, ROWS, CURVED>;
  using Sum = typename Shared::Sum;
  constexpr int STEPS = (Shared::KEYS + 31) / 32;
  const int row = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int seen = min(count, block.start + token_of(block, a, row) + 1 - first);
  const bool geodesic = CURVED && (a.score == KP_SCORE_DISTANCE || a.score == KP_SCORE_DISTANCE_SQUARED);
  float score[STEPS], largest = state->largest, sum = 0;
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    const int key = lane + 32 * i;
    score[i] = -FLT_MAX;
    if (key >= seen) continue;
    const double product = (double)s->product[row][key];
    score[i] = (float)(beta * (geodesic ? kp_score_of<CURVED>(a, s->query[row], s->key[key], product, kappa)
                                        : kp_score_of<false>(a, s->query[row], s->key[key], product, kappa)));
    largest = fmaxf(largest, score[i]);
  }
  largest = kp_warp_max(largest);
  const float shrink = expf(state->largest - largest);
  state->extra *= (double)shrink;
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    const int key = lane + 32 * i;
    if (key >= Shared::KEYS) break;
    const float weight = key < seen ? expf(score[i] - largest) : 0;
    sum += weight;
    Sum scaled = (Sum)weight;
    if (CURVED && a.values != KP_VALUES_MEAN && weight != 0) {
      state->extra += (double)weight * s->value[key].extra;
      scaled = (Sum)((double)weight * s->value[key].scale);
    }
    s->weight[row][key] = scaled;
  }
  state->sum = state->sum * shrink + kp_warp_sum(sum);
  state->largest = largest;
  if (lane == 0) s->shrink[row] = shrink;
}

template <typename T, int LANES, int ROWS, bool CURVED>
__device__ static void add_tile(const shared_rows<T, LANES, ROWS, CURVED> *s, const own_rows<T> &v,
                                typename kp_sum_type<CURVED>::type (&o)[ROWS][kp_pack<T>::size]) {
  using Shared = shared_rows<T, LANES, ROWS, CURVED>;
  using Sum = typename Shared::Sum;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const Sum shrink = (Sum)s->shrink[r];
#pragma unroll
    for (int j = 0; j < Shared::SIZE; j++) o[r][j] *= shrink;
#pragma unroll
    for (int u = 0; u < OWN; u++) {
      const Sum weight = s->weight[r][threadIdx.x / LANES + u * Shared::GROUPS];
      if (weight == 0) continue; /* what is not a number in a value without weight stays out */
#pragma unroll
      for (int j = 0; j < Shared::SIZE; j++) o[r][j] += weight * (Sum)kp_to_float(v.pack[u].value[j]);
    }
  }
}

/* Adds the parts of all lanes that hold the same channels, and leaves the row. */
template <typename T, int LANES, int ROWS, bool CURVED>
__device__ static void leave_row(shared_rows<T, LANES, ROWS, CURVED> *s, const kp_cached_heads &a, int64_t at,
                                 typename kp_sum_type<CURVED>::type (&o)[kp_pack<T>::size]) {
  using Shared = shared_rows<T, LANES, ROWS, CURVED>;
  using Sum = typename Shared::Sum;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int j = 0; j < Shared::SIZE; j++) {
#pragma unroll
    for (int offset = LANES; offset < 32; offset *= 2) o[j] += __shfl_xor_sync(0xffffffffu, o[j], offset);
    if (lane < LANES) s->part[warp][lane * Shared::SIZE + j] = o[j];
  }
  __syncthreads();
  for (int d = threadIdx.x; d < a.value_size; d += THREADS) {
    const Sum sum = (s->part[0][d] + s->part[1][d]) + (s->part[2][d] + s->part[3][d]);
    if (kp_sums_are_wide(a.values))
      ((double *)a.sums)[at * a.value_size + d] = (double)sum;
    else
      ((float *)a.sums)[at * a.value_size + d] = (float)sum;
  }
  __syncthreads();
}

template <typename T, int LANES, int ROWS, bool CURVED>
static __global__ void __launch_bounds__(THREADS, CURVED      ? 3
                                                  : ROWS == 1 ? 5
                                                              : 4) rows_kernel(kp_cached_heads a) {
  using Shared = shared_rows<T, LANES, ROWS, CURVED>;
  constexpr int SIZE = Shared::SIZE;
  __shared__ Shared s;
  const block_rows block = block_of<ROWS>(a, Shared::KEYS);
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, warp = threadIdx.x / 32;
  const int64_t cache = (block.b * (int64_t)a.kv_heads + block.head / (a.heads / a.kv_heads)) * a.capacity;
  const T *k = (const T *)a.k + cache * a.k_pitch + lane * SIZE;
  const T *v = (const T *)a.v + cache * a.v_pitch + lane * SIZE;
  const bool key_inside = lane * SIZE < a.size, value_inside = lane * SIZE < a.value_size;
  const bool flat = a.score == KP_SCORE_DOT && a.values == KP_VALUES_MEAN;
  const double kappa = flat ? 0 : kp_kappa_of(a, block.head);
  float q[ROWS][SIZE];
  typename Shared::Sum o[ROWS][SIZE] = {};
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    kp_pack<T> pack = {};
    if (r < block.rows && key_inside)
      pack = kp_load((const T *)a.q + (block.b * a.length + token_of(block, a, r)) * a.q_pitch +
                     (int64_t)head_of(block, a, r) * a.size + lane * SIZE);
    double square = 0;
#pragma unroll
    for (int j = 0; j < SIZE; j++) {
      q[r][j] = kp_to_float(pack.value[j]);
      square += (double)q[r][j] * (double)q[r][j];
    }
    if (a.score == KP_SCORE_DOT) continue;
    square = lanes_sum<LANES>(square);
    if (threadIdx.x == 0) s.query[r] = kp_score_row_of<CURVED>(a.score, a.scale * a.scale * square, kappa);
  }
  row_state state = {-FLT_MAX, 0, 0};
  const bool weighs = warp < block.rows;
  const double beta = weighs ? kp_beta_of(a, head_of(block, a, warp)) : 1;
  for (int first = block.first; first < block.last; first += Shared::KEYS) {
    const int count = min(Shared::KEYS, block.last - first);
    const own_rows<T> own_k =
        load_own<T, Shared::GROUPS>(k + first * a.k_pitch, a.k_pitch, key_inside, group, count);
    const own_rows<T> own_v =
        load_own<T, Shared::GROUPS>(v + first * a.v_pitch, a.v_pitch, value_inside, group, count);
    score_tile<T, LANES, ROWS, CURVED>(&s, a, kappa, q, own_k, own_v);
    __syncthreads();
    if (weighs) weigh_tile<T, LANES, ROWS, CURVED>(&s, a, block, kappa, beta, first, count, &state);
    __syncthreads();
    add_tile<T, LANES, ROWS, CURVED>(&s, own_v, o);
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (r >= block.rows) break;
    const int64_t row = block.b * a.length + token_of(block, a, r);
    const int64_t at = (row * a.heads + head_of(block, a, r)) * a.splits + blockIdx.x;
    leave_row<T, LANES, ROWS, CURVED>(&s, a, at, o[r]);
    if (warp != r) continue;
    const double extra = kp_warp_sum(state.extra);
    if (threadIdx.x % 32 == 0) a.states[at] = {state.largest, state.sum, extra};
  }
}

template <typename T, int LANES, int ROWS, bool CURVED>
static kp_status launch(const kp_call *call, const kp_cached_heads *a, kp_error *error) {
  const dim3 grid((unsigned)a->splits, (unsigned)(a->batch * (a->heads / a->together)),
                  (unsigned)((a->length * a->together + ROWS - 1) / ROWS));
  rows_kernel<T, LANES, ROWS, CURVED><<<grid, THREADS, 0, kp_cuda_of(call)->stream>>>(*a);
  return kp_launched(call, error);
}

template <typename T, int LANES>
static kp_status choose(const kp_call *call, const kp_cached_heads *a, kp_error *error) {
  const bool geodesic = a->score == KP_SCORE_DISTANCE || a->score == KP_SCORE_DISTANCE_SQUARED;
  const bool curved = geodesic || kp_sums_are_wide(a->values), one = a->length * a->together == 1;
  if (curved)
    return one ? launch<T, LANES, 1, true>(call, a, error) : launch<T, LANES, WARPS, true>(call, a, error);
  return one ? launch<T, LANES, 1, false>(call, a, error) : launch<T, LANES, WARPS, false>(call, a, error);
}

template <typename T>
static kp_status choose_lanes(const kp_call *call, const kp_cached_heads *a, kp_error *error) {
  const int packs = (a->size > a->value_size ? a->size : a->value_size) / kp_pack<T>::size;
  if (packs <= 8) return choose<T, 8>(call, a, error);
  if (packs <= 16) return choose<T, 16>(call, a, error);
  return choose<T, 32>(call, a, error);
}

/* Whether rows of queries, keys and values are whole packs, and not too many for 32 lanes. */
bool kp_cached_rows_can(const kp_call *call, const kp_cached_heads *a) {
  const int size = kp_is_half(call) ? 8 : 4;
  const int64_t sizes[] = {a->size, a->value_size, a->q_pitch, a->k_pitch, a->v_pitch};
  for (int i = 0; i < 5; i++)
    if (sizes[i] % size != 0) return false;
  return a->size <= 32 * size && a->value_size <= 32 * size && a->length * a->together <= 16;
}

kp_status kp_cached_rows(const kp_call *call, const kp_cached_heads *heads, kp_error *error) {
  return kp_is_half(call) ? choose_lanes<kp_half>(call, heads, error)
                          : choose_lanes<float>(call, heads, error);
}
