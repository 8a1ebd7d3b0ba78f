/* What combining the results of experts and its backward pass share (ops/expert_combine.c has the formulas).
 *
 * A group of threads, one warp or several, has a token: thread t the chunks t, t + G, … of its row.  Weighted
 * sums and all scalars are in double: |m|² is a small difference of large squares. */
#ifndef KAPPA_BACKEND_CUDA_EXPERT_COMBINE_CUH
#define KAPPA_BACKEND_CUDA_EXPERT_COMBINE_CUH

#include "backend/cuda/chunks.cuh"

/* Chunks of a thread; most threads of a group and of a block; most points of a token, one lane each. */
enum { COMBINE_ITEMS = 4, COMBINE_GROUP = 512, COMBINE_THREADS = 256, COMBINE_POINTS = 32 };

struct kp_combination {
  const void *rows, *shared[KP_MAX_SHARED];
  const int32_t *slot;
  const float *weights;
  kp_numbers c; /* absent: 1 */
  int64_t N, pitch, chunks;
  int k, shared_count;
  double scale, floor;
};

/* A token and its choices in the order of the sorted rows: lane i has choice `choice` in place i. */
struct kp_token {
  int64_t n;
  bool there; /* not behind the last token */
  int choice, slot;
  float weight;
};

/* Point i of a token. */
template <typename T> struct kp_combined_point {
  const T *at;
  int64_t row; /* of the sorted rows or of the shared tensor */
  float weight;
};

__device__ static inline kp_token token_of(const kp_combination &m, int64_t n) {
  const int lane = threadIdx.x % 32;
  kp_token t = {n, n < m.N, 0, 0, 0};
  const bool mine = t.there && lane < m.k;
  const int slot = mine ? m.slot[n * m.k + lane] : 0x7fffffff;
  const float weight = mine ? m.weights[n * m.k + lane] : 0;
  int rank = 0;
  for (int j = 0; j < m.k; j++) {
    const int other = __shfl_sync(0xffffffffu, slot, j);
    rank += other < slot || (other == slot && j < lane);
  }
  for (int j = 0; j < m.k; j++) {
    const int place = __shfl_sync(0xffffffffu, rank, j);
    const int own_slot = __shfl_sync(0xffffffffu, slot, j);
    const float own_weight = __shfl_sync(0xffffffffu, weight, j);
    if (place == lane) t.choice = j, t.slot = own_slot, t.weight = own_weight;
  }
  return t;
}

template <typename T>
__device__ static inline kp_combined_point<T> point_of(const kp_combination &m, const kp_token &t, int i) {
  if (i < m.shared_count) return kp_combined_point<T>{(const T *)m.shared[i] + t.n * m.pitch, t.n, 1.0f};
  const int64_t row = __shfl_sync(0xffffffffu, t.slot, i - m.shared_count);
  const float weight = __shfl_sync(0xffffffffu, t.weight, i - m.shared_count);
  return kp_combined_point<T>{(const T *)m.rows + row * m.pitch, row, weight};
}

/* Sums over a group: a barrier a sum where a group is several warps, two buffers by turns. */
struct kp_group_sums {
  double (*shared)[COMBINE_GROUP / 32]; /* [2] */
  int turn;
  __device__ double operator()(double x) {
    x = kp_warp_sum(x);
    const int warps = blockDim.x / 32, warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;
    if (warps == 1) return x;
    if (threadIdx.x % 32 == 0) shared[turn][warp] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < warps; i++) x += shared[turn][threadIdx.y * warps + i];
    turn = 1 - turn;
    return x;
  }
};

/* Calls use(item, first column) for the chunks of this thread. */
template <int W, typename F>
__device__ static inline void each_item(const kp_combination &m, const kp_token &t, F use) {
#pragma unroll
  for (int item = 0; item < COMBINE_ITEMS; item++) {
    const int64_t chunk = threadIdx.x + (int64_t)item * blockDim.x;
    if (t.there && chunk < m.chunks) use(item, chunk * W);
  }
}

__device__ static inline double curvature_of(const kp_combination &m) {
  return m.c.at == NULL ? 1 : (double)m.c[0];
}

/* √c/N(a), N floored: q = a0² - |a|². */
__device__ static inline double norm_factor(const kp_combination &m, double c, double q) {
  const double size = fabs(q);
  return sqrt(c / (size > m.floor ? size : m.floor));
}

/* a = keep · a + w y for the thread's chunks; returns its part of |y|². */
template <typename T, int W>
__device__ static inline double add_point(const kp_combination &m, const kp_token &t,
                                          const kp_combined_point<T> &p, double keep,
                                          double (&a)[COMBINE_ITEMS][W]) {
  const double w = p.weight;
  double square = 0;
  each_item<W>(m, t, [&](int item, int64_t column) {
    const kp_chunk<W> y = kp_read<W>(p.at + column);
#pragma unroll
    for (int i = 0; i < W; i++) {
      const double value = y.value[i];
      square = fma(value, value, square);
      a[item][i] = fma(w, value, keep * a[item][i]);
    }
  });
  return square;
}

/* The thread's part of |a|². */
template <int W, typename R> __device__ static inline double square_of(const R (&a)[COMBINE_ITEMS][W]) {
  double square = 0;
#pragma unroll
  for (int item = 0; item < COMBINE_ITEMS; item++)
#pragma unroll
    for (int i = 0; i < W; i++) square = fma((double)a[item][i], (double)a[item][i], square);
  return square;
}

/* How many threads a token of so many chunks gets, and the blocks' shape. */
static inline dim3 kp_combine_block(int64_t chunks) {
  int x = 32;
  while (x < COMBINE_GROUP && (int64_t)x * COMBINE_ITEMS < chunks) x *= 2;
  return dim3((unsigned)x, (unsigned)(x < COMBINE_THREADS ? COMBINE_THREADS / x : 1));
}

/* The first shared tensor among the inputs is number `first_shared`; `wide` rows are made of whole chunks. */
static inline kp_status kp_combination_of(const kp_call *call, int first_shared, bool wide, kp_combination *m,
                                          kp_error *error) {
  const kp_node *node = call->node;
  const kp_combine_arguments *a = (const kp_combine_arguments *)node->arguments;
  *m = kp_combination{};
  m->rows = call->input[0];
  m->slot = (const int32_t *)call->input[1];
  m->weights = (const float *)call->input[2];
  m->c = call->input[3] == NULL ? kp_numbers{} : kp_input_numbers(call, 3);
  m->N = kp_tensor_rows(node->input[1]);
  m->pitch = kp_pitch(node->input[0]);
  m->k = (int)kp_tensor_columns(node->input[1]);
  m->shared_count = node->inputs - first_shared;
  for (int i = 0; i < m->shared_count; i++) m->shared[i] = call->input[first_shared + i];
  m->scale = a->scale;
  m->floor = a->floor;
  const int most = COMBINE_GROUP * COMBINE_ITEMS * (wide ? KP_CHUNK : 1);
  if (m->k + m->shared_count > COMBINE_POINTS || m->pitch > most)
    return kp_fail(error, KP_ERR_UNSUPPORTED,
                   "the cuda backend combines at most %d points of %d channels, not %d of %lld",
                   COMBINE_POINTS, most, m->k + m->shared_count, (long long)m->pitch);
  return KP_OK;
}

/* Whether the rows and the shared tensors from input `first_shared` on are made of whole chunks. */
static inline bool kp_combination_is_wide(const kp_call *call, int first_shared) {
  bool wide = kp_input_is_wide(call, 0);
  for (int i = first_shared; i < call->node->inputs; i++) wide = wide && kp_input_is_wide(call, i);
  return wide;
}

#endif
