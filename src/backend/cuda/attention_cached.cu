/* Attention over a cache of keys and values: storing the new ones, and adding up what the blocks leave.
 *
 * A new token reads the cache once, which bounds it: 2 (D + D') bytes a position and key head in bfloat16. */
#include <float.h>

#include "backend/cuda/attention_cached_one.cuh"

enum { THREADS = 128, WARPS = THREADS / 32, SUM_ALIGNMENT = 64, MOST_VALUES = 1024 };

/* ---- scratch ---- */

/* Key heads whose query heads have curvatures of their own are attended one query head at a time: what a key
 * contributes depends on it. */
static int heads_together(const kp_attention_arguments *a, int64_t curvatures) {
  const bool flat = a->score == KP_SCORE_DOT && a->values == KP_VALUES_MEAN;
  return flat || curvatures <= 1 ? a->heads / a->kv_heads : 1;
}

/* Enough blocks to fill a chip, each with work; depends on sizes alone. */
static int splits_of(const kp_attention_arguments *a, int64_t capacity) {
  enum { ROWS = 16 };
  const int64_t group = a->heads / a->kv_heads;
  const int64_t blocks = a->batch * a->kv_heads * ((a->length * group + ROWS - 1) / ROWS);
  int64_t splits = (KP_CACHED_BLOCKS + blocks - 1) / blocks;
  const int64_t most = (capacity + KP_CACHED_LEAST_KEYS - 1) / KP_CACHED_LEAST_KEYS;
  splits = splits > most ? most : splits;
  if (splits > KP_CACHED_MOST_SPLITS) splits = KP_CACHED_MOST_SPLITS;
  return splits < 1 ? 1 : (int)splits;
}

static size_t state_bytes(const kp_attention_arguments *a, int64_t capacity) {
  const size_t count = (size_t)(a->batch * a->length * a->heads) * (size_t)splits_of(a, capacity);
  return (count * sizeof(kp_split_state) + SUM_ALIGNMENT - 1) / SUM_ALIGNMENT * SUM_ALIGNMENT;
}

size_t kp_cached_scratch(const kp_attention_arguments *a, int64_t capacity) {
  const size_t number = kp_sums_are_wide(a->values) ? sizeof(double) : sizeof(float);
  const size_t count = (size_t)(a->batch * a->length * a->heads) * (size_t)splits_of(a, capacity);
  return state_bytes(a, capacity) + count * (size_t)kp_attention_value_size(a) * number;
}

static int64_t count_of(const kp_tensor *tensor) {
  return tensor == NULL ? 0 : kp_tensor_count(tensor);
}

kp_cached_heads kp_cached_heads_of(const kp_call *call, const kp_attention_arguments *a, int64_t capacity,
                                   int scalars, void *scratch) {
  const kp_node *node = call->node;
  kp_cached_heads heads = {};
  heads.batch = a->batch, heads.length = a->length, heads.capacity = capacity;
  heads.heads = a->heads, heads.kv_heads = a->kv_heads;
  heads.size = a->head_size, heads.value_size = kp_attention_value_size(a);
  heads.score = a->score, heads.values = a->values, heads.scale = kp_attention_scale(a);
  heads.kappa = kp_input_numbers(call, scalars), heads.beta = kp_input_numbers(call, scalars + 1);
  heads.kappa_step = count_of(node->input[scalars]) > 1;
  heads.beta_step = count_of(node->input[scalars + 1]) > 1;
  heads.absent_kappa = kp_attention_curvature(a);
  heads.q = call->input[0], heads.q_pitch = kp_pitch(node->input[0]);
  heads.o = call->output[0], heads.o_pitch = kp_pitch(node->output[0]);
  if (node->outputs > 1) heads.time = kp_output_numbers(call, 1);
  heads.splits = splits_of(a, capacity);
  heads.together = heads_together(a, count_of(node->input[scalars]));
  heads.states = (kp_split_state *)scratch;
  heads.sums = (char *)scratch + state_bytes(a, capacity);
  heads.step = kp_cuda_of(call)->step;
  heads.node = node->index;
  return heads;
}

/* ---- adding up ---- */

/* A row's splits: their weights relative to the largest score, and what these sum to. */
struct split_sums {
  double weight, extra;
};

/* Every warp finds the same.  Splits that saw nothing have no weight. */
static __device__ split_sums weigh_splits(const kp_split_state *states, int splits, double *weights) {
  constexpr int OWN = KP_CACHED_MOST_SPLITS / 32;
  const int lane = threadIdx.x % 32;
  kp_split_state own[OWN];
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < OWN; i++) {
    own[i] = {-FLT_MAX, 0, 0};
    if (lane + 32 * i < splits) own[i] = states[lane + 32 * i];
    largest = fmaxf(largest, own[i].largest);
  }
  largest = kp_warp_max(largest);
  split_sums sums = {0, 0};
#pragma unroll
  for (int i = 0; i < OWN; i++) {
    const double weight = own[i].sum == 0 ? 0 : exp((double)own[i].largest - (double)largest);
    sums.weight += weight * (double)own[i].sum;
    sums.extra += weight * own[i].extra;
    if (threadIdx.x < 32) weights[lane + 32 * i] = weight;
  }
  return {kp_warp_sum(sums.weight), kp_warp_sum(sums.extra)};
}

/* The weighted sum of the splits' values to o: each warp adds every fourth split, then the four are added. */
template <typename Sum>
static __device__ void add_splits(const Sum *sums, int splits, int size, const double *weights,
                                  double (*parts)[32], double *o) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int first = 0; first < size; first += 32) {
    double sum = 0;
    if (first + lane < size)
#pragma unroll 8
      for (int s = warp; s < splits; s += WARPS) {
        const double value = (double)sums[(int64_t)s * size + first + lane];
        sum += weights[s] == 0 ? 0 : weights[s] * value;
      }
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp == 0) o[first + lane] = (parts[0][lane] + parts[1][lane]) + (parts[2][lane] + parts[3][lane]);
    __syncthreads();
  }
}

/* A block for each row and head; the last head's clears the padding behind the row. */
template <typename T, typename Sum>
static __global__ void __launch_bounds__(THREADS) combine_kernel(kp_cached_heads a) {
  __shared__ double weights[KP_CACHED_MOST_SPLITS], parts[WARPS][32], o[MOST_VALUES], shared[32];
  const int64_t number = blockIdx.x, row = number / a.heads;
  const int head = (int)(number - row * a.heads);
  const split_sums sums = weigh_splits(a.states + number * a.splits, a.splits, weights);
  __syncthreads();
  add_splits((const Sum *)a.sums + number * a.splits * a.value_size, a.splits, a.value_size, weights, parts,
             o);
  double square = 0;
  if (a.values != KP_VALUES_MEAN) {
    for (int d = threadIdx.x; d < a.value_size; d += THREADS) square += o[d] * o[d];
    square = kp_block_sum(square, shared);
  }
  const kp_value_mean mean =
      kp_value_mean_of(a.values, square, sums.extra, sums.weight, kp_kappa_of(a, head));
  T *to = (T *)a.o + row * a.o_pitch;
  for (int d = threadIdx.x; d < a.value_size; d += THREADS)
    to[(int64_t)head * a.value_size + d] = kp_from_float<T>((float)(mean.scale * o[d]));
  if (threadIdx.x == 0 && a.time.at != NULL) a.time.set(number, (float)mean.time);
  if (head == a.heads - 1)
    for (int64_t d = (int64_t)a.heads * a.value_size + threadIdx.x; d < a.o_pitch; d += THREADS)
      to[d] = kp_from_float<T>(0);
}

template <typename T> static void combine(const kp_call *call, const kp_cached_heads *a) {
  const int blocks = (int)(a->batch * a->length * a->heads);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (kp_sums_are_wide(a->values))
    combine_kernel<T, double><<<blocks, THREADS, 0, stream>>>(*a);
  else
    combine_kernel<T, float><<<blocks, THREADS, 0, stream>>>(*a);
}

kp_status kp_cached_attend(const kp_call *call, const kp_cached_heads *heads, kp_error *error) {
  if (heads->batch * heads->length == 0) return KP_OK;
  if (heads->value_size > MOST_VALUES)
    return kp_fail(error, KP_ERR_UNSUPPORTED, "values of %d channels are too large for this GPU",
                   heads->value_size);
  KP_TRY(kp_cached_rows_can(call, heads) ? kp_cached_rows(call, heads, error)
                                         : kp_cached_tiles(call, heads, error));
  if (kp_is_half(call))
    combine<kp_half>(call, heads);
  else
    combine<float>(call, heads);
  return kp_launched(call, error);
}

/* ---- storing ---- */

/* Where the new rows of keys or values stand: head h of row n at n · pitch + h · size. */
struct new_rows {
  const void *rows;
  void *cache;
  int64_t pitch, cache_pitch;
  int size;
};

struct new_shape {
  int64_t batch, length, capacity;
  int kv_heads;
  const int32_t *start;
  kp_device_step *step;
  int node;
};

template <typename T> static __global__ void store_kernel(new_rows k, new_rows v, new_shape s) {
  const new_rows &own = blockIdx.y == 0 ? k : v;
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, width = (int64_t)s.kv_heads * own.size;
  const int64_t n = i / width, column = i - n * width, h = column / own.size, b = n / s.length;
  if (n >= s.batch * s.length) return;
  const int64_t place = kp_cached_start(s.start, s.length, s.capacity, s.step, s.node) + n - b * s.length;
  if (place >= s.capacity) return;
  ((T *)own.cache)[((b * s.kv_heads + h) * s.capacity + place) * own.cache_pitch + column - h * own.size] =
      ((const T *)own.rows)[n * own.pitch + column];
}

/* Element `column` of a tensor of real numbers. */
static const void *column_of(const kp_call *call, const void *tensor, int64_t column) {
  return (const char *)tensor + column * (kp_is_half(call) ? sizeof(kp_half) : sizeof(float));
}

static void store_new_rows(const kp_call *call, const kp_attention_arguments *a) {
  const kp_node *node = call->node;
  const int value_size = kp_attention_value_size(a);
  new_rows k = {call->input[6], call->input[1], 0, kp_pitch(node->input[1]), a->head_size};
  new_rows v = {call->input[7], call->input[2], 0, kp_pitch(node->input[2]), value_size};
  if (a->packed) {
    k.rows = column_of(call, call->input[0], (int64_t)a->heads * a->head_size);
    v.rows = column_of(call, call->input[0], (int64_t)(a->heads + a->kv_heads) * a->head_size);
    k.pitch = v.pitch = kp_pitch(node->input[0]);
  } else {
    k.pitch = kp_pitch(node->input[6]), v.pitch = kp_pitch(node->input[7]);
  }
  const new_shape s = {a->batch,
                       a->length,
                       node->input[1]->shape[2],
                       a->kv_heads,
                       (const int32_t *)call->input[3],
                       kp_cuda_of(call)->step,
                       node->index};
  const int size = a->head_size > value_size ? a->head_size : value_size;
  const dim3 grid((unsigned)kp_blocks(a->batch * a->length * a->kv_heads * size, THREADS), 2);
  if (kp_is_half(call))
    store_kernel<kp_half><<<grid, THREADS, 0, kp_cuda_of(call)->stream>>>(k, v, s);
  else
    store_kernel<float><<<grid, THREADS, 0, kp_cuda_of(call)->stream>>>(k, v, s);
}

extern "C" size_t kp_cuda_scratch_attention_cached(const kp_node *node, int threads) {
  (void)threads;
  return kp_cached_scratch((const kp_attention_arguments *)node->arguments, node->input[1]->shape[2]);
}

extern "C" kp_status kp_cuda_attention_cached(const kp_call *call, kp_error *error) {
  const kp_attention_arguments *a = (const kp_attention_arguments *)call->node->arguments;
  const kp_node *node = call->node;
  if (a->batch * a->length == 0) return KP_OK;
  if (kp_cached_one_can(call)) return kp_cached_one(call, false, error);
  store_new_rows(call, a);
  kp_cached_heads heads = kp_cached_heads_of(call, a, node->input[1]->shape[2], 4, call->scratch);
  heads.k = call->input[1], heads.k_pitch = kp_pitch(node->input[1]);
  heads.v = call->input[2], heads.v_pitch = kp_pitch(node->input[2]);
  heads.start = (const int32_t *)call->input[3];
  return kp_cached_attend(call, &heads, error);
}
