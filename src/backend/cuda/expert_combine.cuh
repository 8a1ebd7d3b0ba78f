/* What combining the results of experts and its backward pass share (ops/expert_combine.c has the formulas).
 *
 * A group of threads, one warp or several, has a token: thread t the chunks t, t + G, … of its row.  |m|² is
 * a small difference of large squares, so sums over a row are in double: of all products where rows are
 * float, of the sums of chunks where they are bfloat16, whose squares are exact in float.  Lane i of each
 * warp keeps what belongs to point i, so that roots and quotients of all points are one instruction. */
#ifndef KAPPA_BACKEND_CUDA_EXPERT_COMBINE_CUH
#define KAPPA_BACKEND_CUDA_EXPERT_COMBINE_CUH

#include "backend/cuda/chunks.cuh"

/* Most chunks of a thread; most threads of a group; most points of a token, one lane each. */
enum { COMBINE_ITEMS = 4, COMBINE_THREADS = 256, COMBINE_POINTS = 16 };

/* What sums of a few elements of T are kept in. */
template <typename T> struct kp_wide { using type = double; };
template <> struct kp_wide<kp_half> { using type = float; };

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

/* The weight of the point that belongs to this lane; 0: there is none. */
__device__ static inline float lane_weight(const kp_combination &m, const kp_token &t) {
  const int lane = threadIdx.x % 32;
  const float weight = __shfl_sync(0xffffffffu, t.weight, (lane - m.shared_count) & 31);
  return lane < m.shared_count ? 1.0f : lane < m.shared_count + m.k ? weight : 0.0f;
}

/* Sums over a group: a barrier a call where a group is several warps, two buffers by turns. */
struct kp_group_sums {
  double (*shared)[2][COMBINE_THREADS / 32]; /* [2] */
  int turn;
  template <int M> __device__ void operator()(double (&x)[M]) {
#pragma unroll
    for (int i = 0; i < M; i++) x[i] = kp_warp_sum(x[i]);
    const int warps = blockDim.x / 32, warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;
    if (warps == 1) return;
#pragma unroll
    for (int i = 0; i < M; i++)
      if (threadIdx.x % 32 == 0) shared[turn][i][warp] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < M; i++) {
      x[i] = 0;
      for (int other = 0; other < warps; other++) x[i] += shared[turn][i][threadIdx.y * warps + other];
    }
    turn = 1 - turn;
  }
  __device__ double operator()(double x) {
    double one[1] = {x};
    (*this)(one);
    return one[0];
  }
};

/* Sums over a group of one number a point: each warp lays its lanes' parts side by side, and lane i adds up
 * those of point i, so that the points of a token take one barrier and few steps. */
template <typename R> struct kp_point_sums {
  R (*part)[33];                                         /* [COMBINE_POINTS], of this warp */
  double (*warps)[COMBINE_THREADS / 32][COMBINE_POINTS]; /* [2] */
  int turn;
  __device__ void put(int point, double x) { part[point][threadIdx.x % 32] = (R)x; }
  __device__ double take(int points) {
    const int lane = threadIdx.x % 32, count = blockDim.x / 32;
    double sum[4] = {};
    __syncwarp();
    if (lane < points) {
#pragma unroll
      for (int i = 0; i < 32; i++) sum[i % 4] += (double)part[lane][i];
    }
    sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    __syncwarp();
    if (count == 1) return sum[0];
    const int warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;
    if (lane < points) warps[turn][warp][lane] = sum[0];
    __syncthreads();
    sum[0] = 0;
    for (int i = 0; lane < points && i < count; i++) sum[0] += warps[turn][threadIdx.y * count + i][lane];
    turn = 1 - turn;
    return sum[0];
  }
};

/* Chunk `item` of this thread, zeros behind the row. */
template <int W, typename T>
__device__ static inline kp_chunk<W> read_item(const kp_combination &m, bool there, const T *row, int item) {
  const int64_t chunk = threadIdx.x + (int64_t)item * blockDim.x;
  kp_chunk<W> y = {};
  if (there && chunk < m.chunks) y = kp_read<W>(row + chunk * W);
  return y;
}

/* The same of memory that the kernel does not write: such reads may pass the writes before them. */
template <int W, typename T>
__device__ static inline kp_chunk<W> read_constant(const kp_combination &m, bool there, const T *row,
                                                   int item) {
  const int64_t chunk = threadIdx.x + (int64_t)item * blockDim.x;
  kp_chunk<W> y = {};
  if (!there || chunk >= m.chunks) return y;
  if constexpr (W == 1) return kp_read<W>(row + chunk);
  constexpr int size = kp_pack<T>::size;
#pragma unroll
  for (int part = 0; part < W / size; part++) {
    const int4 bits = __ldg((const int4 *)(row + chunk * W + part * size));
    const kp_pack<T> &pack = (const kp_pack<T> &)bits;
#pragma unroll
    for (int i = 0; i < size; i++) y.value[part * size + i] = kp_to_float(pack.value[i]);
  }
  return y;
}

template <int W, typename T>
__device__ static inline void write_item(const kp_combination &m, bool there, T *row, int item,
                                         const kp_chunk<W> &y) {
  const int64_t chunk = threadIdx.x + (int64_t)item * blockDim.x;
  if (there && chunk < m.chunks) kp_write<W>(row + chunk * W, y);
}

__device__ static inline double curvature_of(const kp_combination &m) {
  return m.c.at == NULL ? 1 : (double)m.c[0];
}

/* √c/N(a), N floored: q = a0² - |a|². */
__device__ static inline double norm_factor(const kp_combination &m, double c, double q) {
  const double size = fabs(q);
  return sqrt(c / (size > m.floor ? size : m.floor));
}

/* In what follows a thread has I chunks.  a += w y for points first … first + M-1 as far as there are so
 * many; `square` gets the thread's parts of their |y|². */
template <typename T, int W, int M, int I, typename R>
__device__ static inline void add_points(const kp_combination &m, const kp_token &t, int first, int points,
                                         R (&a)[I][W], double (&square)[M]) {
  kp_combined_point<T> p[M];
#pragma unroll
  for (int b = 0; b < M; b++) {
    p[b] = point_of<T>(m, t, first + b < points ? first + b : points - 1);
    if (first + b >= points) p[b].weight = 0;
    square[b] = 0;
  }
#pragma unroll
  for (int item = 0; item < I; item++)
#pragma unroll
    for (int b = 0; b < M; b++) {
      const kp_chunk<W> y = read_constant<W>(m, t.there && first + b < points, p[b].at, item);
      R part = 0;
#pragma unroll
      for (int i = 0; i < W; i++) {
        const R value = y.value[i];
        part += value * value;
        a[item][i] += (R)p[b].weight * value;
      }
      square[b] += (double)part;
    }
}

/* The thread's part of <a, b>, summed by chunks in R. */
template <typename R, int W, int I, typename A, typename B>
__device__ static inline double dot_of(const A (&a)[I][W], const B (&b)[I][W]) {
  double dot = 0;
#pragma unroll
  for (int item = 0; item < I; item++) {
    R part = 0;
#pragma unroll
    for (int i = 0; i < W; i++) part += (R)a[item][i] * (R)b[item][i];
    dot += (double)part;
  }
  return dot;
}

/* a = Σ w y of all points, M at a time; returns its time and |a|², and lane i the lift of point i. */
template <typename T, int W, int M, int I, typename R>
__device__ static inline double sum_points(const kp_combination &m, const kp_token &t, double c,
                                           kp_point_sums<R> *of_points, kp_group_sums *sum, R (&a)[I][W],
                                           double *norm, double *lift) {
  const int points = m.shared_count + m.k;
  for (int i = 0; i < points; i += M) {
    double square[M];
    add_points<T, W>(m, t, i, points, a, square);
#pragma unroll
    for (int b = 0; b < M; b++)
      if (i + b < points) of_points->put(i + b, square[b]);
  }
  *norm = (*sum)(dot_of<R, W>(a, a));
  *lift = sqrt(of_points->take(points) + c);
  return kp_warp_sum((double)lane_weight(m, t) * *lift);
}

/* How many threads a token of so many chunks gets, and the blocks' shape. */
static inline dim3 kp_combine_block(int64_t chunks) {
  int x = 32;
  while (x < COMBINE_THREADS && (int64_t)x * COMBINE_ITEMS < chunks) x *= 2;
  return dim3((unsigned)x, (unsigned)(COMBINE_THREADS / x));
}

/* Calls launch(an integral constant): the chunks that a thread of such a block has. */
template <typename F> static inline void kp_by_items(int64_t chunks, dim3 block, F launch) {
  if (chunks <= 2 * (int64_t)block.x)
    launch(std::integral_constant<int, 2>());
  else
    launch(std::integral_constant<int, COMBINE_ITEMS>());
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
  const int most = COMBINE_THREADS * COMBINE_ITEMS * (wide ? KP_CHUNK : 1);
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
