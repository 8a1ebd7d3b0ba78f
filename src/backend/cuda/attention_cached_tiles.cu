/* Attention over a cache by tiles: 16 query rows and 32 keys at a time, of any sizes, scores and values.
 *
 * A warp owns four query rows: its lanes are the keys of a tile while it scores them, and channels of the
 * values while it weighs them.  Distances and curved means are summed in double, since both are differences
 * of large numbers. */
#include <float.h>

#include "backend/cuda/attention_cached.cuh"

enum { WARPS = 4, OWN = 4, ROWS = WARPS * OWN, KEYS = 32, THREADS = 32 * WARPS };

/* A block's part of the problem, and its shared memory. */
template <typename Sum> struct tile {
  int b, head, first_row, rows; /* of query heads `head` on; rows t · together + g */
  float *q;                     /* (warps, D, 4) */
  float *k;                     /* (32, D + 1) */
  float *v;                     /* (32, D') */
  float *weights;               /* (warps, 32, 4) */
  Sum *o;                       /* (warps, D', 4) */
  kp_score_row *query, *key;    /* (16), (32) */
  kp_value_row *value;          /* (32) */
};

static size_t tile_bytes(const kp_cached_heads *a, size_t sum) {
  const size_t D = (size_t)a->size, V = (size_t)a->value_size;
  const size_t doubles = ROWS * V * sum + (ROWS + KEYS) * sizeof(kp_score_row) + KEYS * sizeof(kp_value_row);
  return doubles + (ROWS * D + KEYS * (D + 1) + KEYS * V + ROWS * KEYS + 4) * sizeof(float);
}

template <typename Sum> static __device__ tile<Sum> tile_of(const kp_cached_heads &a, char *memory) {
  tile<Sum> s;
  const int units = a.heads / a.together, all = (int)a.length * a.together;
  s.b = blockIdx.z / units;
  s.head = blockIdx.z % units * a.together;
  s.first_row = blockIdx.y * ROWS;
  s.rows = min(ROWS, all - s.first_row);
  s.q = (float *)memory;
  s.weights = s.q + ROWS * a.size;
  s.o = (Sum *)(s.weights + ROWS * KEYS);
  s.query = (kp_score_row *)(s.o + ROWS * a.value_size);
  s.key = s.query + ROWS;
  s.value = (kp_value_row *)(s.key + KEYS);
  s.v = (float *)(s.value + KEYS);
  s.k = s.v + KEYS * a.value_size;
  return s;
}

/* Row i of the tile: its head, and its row of q. */
template <typename Sum>
__device__ static inline int head_of(const tile<Sum> &s, const kp_cached_heads &a, int i) {
  return s.head + (s.first_row + i) % a.together;
}
template <typename Sum>
__device__ static inline int token_of(const tile<Sum> &s, const kp_cached_heads &a, int i) {
  return (s.first_row + i) / a.together;
}

/* |row|² of each of `count` rows of shared memory, by 4 threads a row: `take` gets row and square. */
template <typename Take>
__device__ static inline void square_rows(const float *rows, int pitch, int step, int size, int count,
                                          Take take) {
  const int part = threadIdx.x % 4, i = threadIdx.x / 4;
  double square = 0;
  if (i < count)
    for (int d = part; d < size; d += 4) {
      const double x = (double)rows[i * pitch + d * step];
      square += x * x;
    }
  square += __shfl_xor_sync(0xffffffffu, square, 1);
  square += __shfl_xor_sync(0xffffffffu, square, 2);
  if (part == 0 && i < count) take(i, square);
}

template <typename T, bool GEODESIC, typename Sum>
__device__ static void load_queries(const tile<Sum> &s, const kp_cached_heads &a) {
  for (int i = threadIdx.x / 32; i < ROWS; i += WARPS)
    for (int d = threadIdx.x % 32; d < a.size; d += 32) {
      float x = 0;
      if (i < s.rows) {
        const int64_t row = s.b * a.length + token_of(s, a, i);
        x = kp_to_float(((const T *)a.q)[row * a.q_pitch + (int64_t)head_of(s, a, i) * a.size + d]);
      }
      s.q[((i / OWN) * a.size + d) * OWN + i % OWN] = x;
    }
  for (int d = threadIdx.x; d < ROWS * a.value_size; d += THREADS) s.o[d] = 0;
  __syncthreads();
  if (a.score == KP_SCORE_DOT) return;
  const int part = threadIdx.x % 4, i = threadIdx.x / 4;
  double square = 0;
  for (int d = part; i < ROWS && d < a.size; d += 4) {
    const double x = (double)s.q[((i / OWN) * a.size + d) * OWN + i % OWN];
    square += x * x;
  }
  square += __shfl_xor_sync(0xffffffffu, square, 1);
  square += __shfl_xor_sync(0xffffffffu, square, 2);
  if (part == 0 && i < s.rows)
    s.query[i] =
        kp_score_row_of<GEODESIC>(a.score, a.scale * a.scale * square, kp_kappa_of(a, head_of(s, a, i)));
}

/* `count` rows of the cache from position `first` on; the rest of the tile is zero. */
template <typename T>
__device__ static void load_rows(float *to, int to_pitch, const T *from, int64_t pitch, int size, int count) {
  for (int j = threadIdx.x / 32; j < KEYS; j += WARPS)
    for (int d = threadIdx.x % 32; d < size; d += 32)
      to[j * to_pitch + d] = j < count ? kp_to_float(from[j * pitch + d]) : 0;
}

template <typename T, bool GEODESIC, bool WIDE, typename Sum>
__device__ static void load_keys(const tile<Sum> &s, const kp_cached_heads &a, int first, int count) {
  const int kv = s.head / (a.heads / a.kv_heads);
  const int64_t row = (s.b * (int64_t)a.kv_heads + kv) * a.capacity + first;
  __syncthreads();
  load_rows(s.k, a.size + 1, (const T *)a.k + row * a.k_pitch, a.k_pitch, a.size, count);
  load_rows(s.v, a.value_size, (const T *)a.v + row * a.v_pitch, a.v_pitch, a.value_size, count);
  __syncthreads();
  if (a.score == KP_SCORE_DOT && !WIDE) return;
  const double kappa = kp_kappa_of(a, s.head), scale = a.scale * a.scale;
  if (a.score != KP_SCORE_DOT)
    square_rows(s.k, a.size + 1, 1, a.size, KEYS, [&](int j, double square) {
      s.key[j] = kp_score_row_of<GEODESIC>(a.score, scale * square, kappa);
    });
  if (WIDE)
    square_rows(s.v, a.value_size, 1, a.value_size, KEYS,
                [&](int j, double square) { s.value[j] = kp_value_row_of(a.values, square, kappa); });
  __syncthreads();
}

/* The running softmax of a warp's four rows; the same in all lanes but for `extra`, a lane's own part. */
struct row_states {
  float largest[OWN], sum[OWN];
  double extra[OWN];
};

/* Scores of the warp's rows and its lane's key become weights, and sums so far shrink accordingly.  Returns
 * by what. */
template <bool GEODESIC, typename Sum>
__device__ static float4 weigh(const tile<Sum> &s, const kp_cached_heads &a, int start, int first, int count,
                               row_states *state) {
  using Product = typename kp_sum_type<GEODESIC>::type;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float4 *q = (const float4 *)s.q + warp * a.size;
  const float *k = s.k + lane * (a.size + 1);
  Product product[OWN] = {};
#pragma unroll 8
  for (int d = 0; d < a.size; d++) {
    const float4 qs = q[d];
    const Product x = (Product)k[d];
    product[0] += (Product)qs.x * x, product[1] += (Product)qs.y * x;
    product[2] += (Product)qs.z * x, product[3] += (Product)qs.w * x;
  }
  float weights[OWN], shrink[OWN];
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    const int i = warp * OWN + r;
    weights[r] = 0, shrink[r] = 1;
    if (i >= s.rows) continue;
    const int head = head_of(s, a, i), last = start + token_of(s, a, i);
    const bool seen = lane < count && first + lane <= last;
    float score = -FLT_MAX;
    if (seen)
      score = (float)(kp_beta_of(a, head) *
                      kp_score_of<GEODESIC>(a, s.query[i], s.key[lane], (double)product[r],
                                            a.score == KP_SCORE_DOT ? 0 : kp_kappa_of(a, head)));
    const float largest = fmaxf(state->largest[r], kp_warp_max(score));
    shrink[r] = expf(state->largest[r] - largest);
    weights[r] = seen ? expf(score - largest) : 0;
    state->largest[r] = largest;
    state->sum[r] = state->sum[r] * shrink[r] + kp_warp_sum(weights[r]);
    if (a.values == KP_VALUES_MEAN) continue;
    state->extra[r] *= (double)shrink[r];
    if (weights[r] != 0) state->extra[r] += (double)weights[r] * s.value[lane].extra;
  }
  ((float4 *)s.weights)[warp * KEYS + lane] = make_float4(weights[0], weights[1], weights[2], weights[3]);
  __syncwarp();
  return make_float4(shrink[0], shrink[1], shrink[2], shrink[3]);
}

/* Four rows' sums of one channel over a tile, added to `o`.  With CAREFUL what is not a number in a value
 * that has no weight stays out. */
template <bool CAREFUL, typename Sum>
__device__ static inline void sum_channel(const tile<Sum> &s, const kp_cached_heads &a, const float4 *weights,
                                          int d, int count, Sum (&o)[OWN]) {
#pragma unroll 8
  for (int j = 0; j < count; j++) {
    const float4 four = weights[j];
    const float p[OWN] = {four.x, four.y, four.z, four.w};
    Sum value = (Sum)s.v[j * a.value_size + d];
    if (sizeof(Sum) > sizeof(float)) value *= (Sum)s.value[j].scale;
#pragma unroll
    for (int r = 0; r < OWN; r++)
      if (!CAREFUL || p[r] != 0) o[r] += (Sum)p[r] * value;
  }
}

/* Care is taken only where its lack shows. */
template <typename Sum>
__device__ static void add_values(const tile<Sum> &s, const kp_cached_heads &a, int count, float4 shrink) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float4 *weights = (const float4 *)s.weights + warp * KEYS;
  const Sum by[OWN] = {(Sum)shrink.x, (Sum)shrink.y, (Sum)shrink.z, (Sum)shrink.w};
  for (int d = lane; d < a.value_size; d += 32) {
    Sum *o = s.o + (warp * a.value_size + d) * OWN, sum[OWN], all = 0;
#pragma unroll
    for (int r = 0; r < OWN; r++) sum[r] = o[r] * by[r];
    sum_channel<false>(s, a, weights, d, count, sum);
#pragma unroll
    for (int r = 0; r < OWN; r++) all += sum[r];
    if (!(all - all == 0)) {
#pragma unroll
      for (int r = 0; r < OWN; r++) sum[r] = o[r] * by[r];
      sum_channel<true>(s, a, weights, d, count, sum);
    }
#pragma unroll
    for (int r = 0; r < OWN; r++) o[r] = sum[r];
  }
  __syncwarp();
}

template <typename Sum>
__device__ static void leave(const tile<Sum> &s, const kp_cached_heads &a, const row_states &state) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    const int i = warp * OWN + r;
    if (i >= s.rows) break;
    const int64_t number = (s.b * a.length + token_of(s, a, i)) * a.heads + head_of(s, a, i);
    const int64_t at = number * a.splits + blockIdx.x;
    const double extra = a.values == KP_VALUES_MEAN ? 0 : kp_warp_sum(state.extra[r]);
    if (lane == 0) a.states[at] = {state.largest[r], state.sum[r], extra};
    for (int d = lane; d < a.value_size; d += 32)
      ((Sum *)a.sums)[at * a.value_size + d] = s.o[(warp * a.value_size + d) * OWN + r];
  }
}

template <typename T, bool GEODESIC, bool WIDE>
static __global__ void __launch_bounds__(THREADS) tiles_kernel(kp_cached_heads a) {
  using Sum = typename kp_sum_type<WIDE>::type;
  extern __shared__ double2 memory[];
  const tile<Sum> s = tile_of<Sum>(a, (char *)memory);
  const int start = kp_cached_start(a), end = start + (int)a.length;
  const int share = ((end + a.splits - 1) / a.splits + KEYS - 1) / KEYS * KEYS;
  const int last = min(end, ((int)blockIdx.x + 1) * share);
  row_states state;
#pragma unroll
  for (int r = 0; r < OWN; r++) state.largest[r] = -FLT_MAX, state.sum[r] = 0, state.extra[r] = 0;
  load_queries<T, GEODESIC>(s, a);
  for (int first = blockIdx.x * share; first < last; first += KEYS) {
    const int count = min(KEYS, last - first);
    load_keys<T, GEODESIC, WIDE>(s, a, first, count);
    add_values(s, a, count, weigh<GEODESIC>(s, a, start, first, count, &state));
  }
  leave(s, a, state);
}

template <typename T, bool GEODESIC, bool WIDE>
static kp_status launch(const kp_call *call, const kp_cached_heads *a, kp_error *error) {
  const size_t bytes = tile_bytes(a, sizeof(typename kp_sum_type<WIDE>::type));
  const kp_cuda *cuda = kp_cuda_of(call);
  if (bytes > cuda->shared_bytes)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "heads of %d and %d channels are too large for this GPU",
                   a->size, a->value_size);
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(tiles_kernel<T, GEODESIC, WIDE>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "attention over a cache", error));
  const dim3 grid((unsigned)a->splits, (unsigned)((a->length * a->together + ROWS - 1) / ROWS),
                  (unsigned)(a->batch * (a->heads / a->together)));
  tiles_kernel<T, GEODESIC, WIDE><<<grid, THREADS, bytes, cuda->stream>>>(*a);
  return kp_launched(call, error);
}

template <typename T>
static kp_status choose(const kp_call *call, const kp_cached_heads *a, kp_error *error) {
  const bool geodesic = a->score == KP_SCORE_DISTANCE || a->score == KP_SCORE_DISTANCE_SQUARED;
  const bool wide = kp_sums_are_wide(a->values);
  if (geodesic) return wide ? launch<T, true, true>(call, a, error) : launch<T, true, false>(call, a, error);
  return wide ? launch<T, false, true>(call, a, error) : launch<T, false, false>(call, a, error);
}

kp_status kp_cached_tiles(const kp_call *call, const kp_cached_heads *heads, kp_error *error) {
  return kp_is_half(call) ? choose<kp_half>(call, heads, error) : choose<float>(call, heads, error);
}
