/* The backward pass of combining experts' results.
 *
 * Bytes: the k rows and the shared ones of a token once, the gradient of the result once, the gradients of
 * them all once; rows are read a second time from the caches.  The gradient of a token is kept in
 * float.  Scratch: the curvature's gradient of each token (N) double; of the fold its steps, (groups, k, C)
 * float for the groups of threads that are under way. */
#include "backend/cuda/column_sums.cuh"
#include "backend/cuda/expert_combine.cuh"

constexpr int FIRST_SHARED = 6, FIRST_SHARED_OUTPUT = 3;
constexpr int COMBINE_BATCH = 4; /* points under way together */
constexpr int64_t FOLD_THREADS = 65536;

struct kp_combination_gradient {
  void *rows, *shared[KP_MAX_SHARED];
  float *weights;      /* NULL: not wanted */
  double *curvature;   /* (N), NULL: not wanted */
  const void *g;       /* NULL: none came to the space */
  const float *g_time; /* NULL: none came to the time */
  float *steps;
};

/* The gradient of a token's sum, that of its time, and what has come together for the curvature. */
template <int I, int W> struct kp_sum_gradient {
  float g[I][W];
  double time, curvature;
};

/* Points first … first + M-1: their gradients from those of the sum, where `along` is the time's over the
 * lift; `dot` gets the thread's parts of <g, y>. */
template <typename T, int W, int M, int I>
__device__ static inline void
points_backward(const kp_combination &m, const kp_combination_gradient &b, const kp_token &t, int first,
                int points, const float (&along)[M], const kp_sum_gradient<I, W> &s, double (&dot)[M]) {
  using R = typename kp_wide<T>::type;
  kp_combined_point<T> p[M];
#pragma unroll
  for (int i = 0; i < M; i++) {
    p[i] = point_of<T>(m, t, first + i < points ? first + i : points - 1);
    dot[i] = 0;
  }
#pragma unroll
  for (int item = 0; item < I; item++) {
    kp_chunk<W> y[M];
#pragma unroll
    for (int i = 0; i < M; i++) y[i] = read_constant<W>(m, t.there && first + i < points, p[i].at, item);
#pragma unroll
    for (int i = 0; i < M; i++) {
      R part = 0;
#pragma unroll
      for (int e = 0; e < W; e++) {
        part += (R)s.g[item][e] * (R)y[i].value[e];
        y[i].value[e] = p[i].weight * fmaf(along[i], y[i].value[e], s.g[item][e]);
      }
      dot[i] += (double)part;
      T *to = (T *)(first + i < m.shared_count ? b.shared[first + i] : b.rows);
      write_item<W>(m, t.there && first + i < points, to + p[i].row * m.pitch, item, y[i]);
    }
  }
}

/* Lane i writes the gradient of point i's weight, dot + time · lift. */
__device__ static inline void write_weight(const kp_combination &m, const kp_combination_gradient &b,
                                           const kp_token &t, bool mine, double gradient) {
  const int lane = threadIdx.x % 32;
  const int choice = __shfl_sync(0xffffffffu, t.choice, (lane - m.shared_count) & 31);
  if (mine && b.weights != NULL && t.there && threadIdx.x < 32)
    b.weights[t.n * m.k + choice] = (float)gradient;
}

/* All points of a weighted sum, the lift of point i in lane i. */
template <typename T, int W, int I>
__device__ static void
sum_backward(const kp_combination &m, const kp_combination_gradient &b, const kp_token &t, double lift,
             kp_point_sums<typename kp_wide<T>::type> *of_points, kp_sum_gradient<I, W> *s) {
  const int points = m.shared_count + m.k, lane = threadIdx.x % 32;
  const double slope = s->time / lift;
  for (int first = 0; first < points; first += COMBINE_BATCH) {
    float along[COMBINE_BATCH];
    double dot[COMBINE_BATCH];
#pragma unroll
    for (int i = 0; i < COMBINE_BATCH; i++)
      along[i] = __shfl_sync(0xffffffffu, (float)slope, (first + i) & 31);
    points_backward<T, W>(m, b, t, first, points, along, *s, dot);
#pragma unroll
    for (int i = 0; i < COMBINE_BATCH; i++)
      if (first + i < points) of_points->put(first + i, dot[i]);
  }
  const double own = of_points->take(points);
  write_weight(m, b, t, lane >= m.shared_count && lane < points, own + s->time * lift);
  s->curvature += kp_warp_sum((double)lane_weight(m, t) * slope) / 2;
}

/* Through out = factor · a, factor = S √c/N(a): the gradient of out becomes a's, and that of the time, which
 * was the lifted point's, becomes a0's.  norm = |a|². */
template <typename R, int W, int I>
__device__ static void scaled_backward(const kp_combination &m, double c, double S, const float (&a)[I][W],
                                       double a0, double norm, kp_group_sums *sum, kp_sum_gradient<I, W> *s) {
  const double q = a0 * a0 - norm, factor = S * norm_factor(m, c, q);
  const double time = sqrt(factor * factor * norm + c), along = s->time * factor / time;
  const double gfactor = (*sum)(dot_of<R, W>(s->g, a)) + along * norm;
  const double gq = fabs(q) > m.floor ? -gfactor * factor / (2 * q) : 0;
  const float keep = (float)factor, turn = (float)(factor * along - 2 * gq);
#pragma unroll
  for (int item = 0; item < I; item++)
#pragma unroll
    for (int e = 0; e < W; e++) s->g[item][e] = fmaf(turn, a[item][e], keep * s->g[item][e]);
  s->curvature += s->time / (2 * time) + gfactor * factor / (2 * c);
  s->time = 2 * a0 * gq;
}

template <typename R, int W, int I>
__device__ static inline void narrow(const R (&a)[I][W], float (&to)[I][W]) {
#pragma unroll
  for (int item = 0; item < I; item++)
#pragma unroll
    for (int e = 0; e < W; e++) to[item][e] = (float)a[item][e];
}

template <typename T, int W, int I>
__device__ static void centroid_backward(const kp_combination &m, const kp_combination_gradient &b,
                                         const kp_token &t, double c,
                                         kp_point_sums<typename kp_wide<T>::type> *of_points,
                                         kp_group_sums *sum, kp_sum_gradient<I, W> *s) {
  using R = typename kp_wide<T>::type;
  float a[I][W];
  double a0, norm, lift;
  {
    R wide[I][W] = {};
    a0 = sum_points<T, W, COMBINE_BATCH>(m, t, c, of_points, sum, wide, &norm, &lift);
    narrow(wide, a);
  }
  scaled_backward<R>(m, c, 1, a, a0, norm, sum, s);
  sum_backward<T, W>(m, b, t, lift, of_points, s);
}

/* Each thread reads from `steps` what it wrote itself. */
template <typename T, int W, int I>
__device__ static void fold_backward(const kp_combination &m, const kp_combination_gradient &b,
                                     const kp_token &t, double c, float *steps, kp_group_sums *sum,
                                     kp_sum_gradient<I, W> *s) {
  using R = typename kp_wide<T>::type;
  double a0 = 0, norm = 0, lift = 1; /* lane i keeps those of step i */
  const int lane = threadIdx.x % 32;
  {
    R wide[I][W] = {};
    double time = sqrt(c), factor = 0;
    for (int i = 0; i < m.k; i++) {
      double square[1], both[2];
#pragma unroll
      for (int item = 0; item < I; item++)
#pragma unroll
        for (int e = 0; e < W; e++) wide[item][e] *= (R)factor;
      add_points<T, W>(m, t, i, m.k, wide, square);
      both[0] = square[0];
      both[1] = dot_of<R, W>(wide, wide);
      (*sum)(both);
      const double own = sqrt(both[0] + c);
      time += (double)__shfl_sync(0xffffffffu, t.weight, i) * own;
      if (lane == i) a0 = time, norm = both[1], lift = own;
      factor = m.scale * norm_factor(m, c, time * time - both[1]);
      time = sqrt(factor * factor * both[1] + c);
#pragma unroll
      for (int item = 0; item < I; item++) {
        kp_chunk<W> step;
#pragma unroll
        for (int e = 0; e < W; e++) step.value[e] = (float)wide[item][e];
        write_item<W>(m, t.there, steps + i * m.pitch, item, step);
      }
    }
  }
  for (int i = m.k - 1; i >= 0; i--) {
    float a[I][W];
#pragma unroll
    for (int item = 0; item < I; item++) {
      const kp_chunk<W> step = read_item<W>(m, t.there, steps + i * m.pitch, item);
#pragma unroll
      for (int e = 0; e < W; e++) a[item][e] = step.value[e];
    }
    const double own = __shfl_sync(0xffffffffu, lift, i);
    scaled_backward<R>(m, c, m.scale, a, __shfl_sync(0xffffffffu, a0, i), __shfl_sync(0xffffffffu, norm, i),
                       sum, s);
    const float along[1] = {(float)(s->time / own)};
    double dot[1];
    points_backward<T, W>(m, b, t, i, m.k, along, *s, dot);
    (*sum)(dot);
    write_weight(m, b, t, lane == i, dot[0] + s->time * own);
    s->curvature += (double)__shfl_sync(0xffffffffu, t.weight, i) * s->time / (2 * own);
  }
  s->curvature += s->time / (2 * sqrt(c));
}

template <typename T, int W, kp_combine_kind KIND, int I>
static __global__ void __launch_bounds__(COMBINE_THREADS, sizeof(T) == 2 ? 2 : 1)
    combine_backward(const __grid_constant__ kp_combination m,
                     const __grid_constant__ kp_combination_gradient b) {
  using R = typename kp_wide<T>::type;
  __shared__ double shared[2][2][COMBINE_THREADS / 32], warps[2][COMBINE_THREADS / 32][COMBINE_POINTS];
  __shared__ R part[COMBINE_THREADS / 32][COMBINE_POINTS][33];
  kp_group_sums sum = {shared, 0};
  kp_point_sums<R> of_points = {part[(threadIdx.y * blockDim.x + threadIdx.x) / 32], warps, 0};
  const double c = curvature_of(m);
  const int64_t group = (int64_t)blockIdx.x * blockDim.y + threadIdx.y,
                step = (int64_t)gridDim.x * blockDim.y;
  for (int64_t first = (int64_t)blockIdx.x * blockDim.y; first < m.N; first += step) {
    const kp_token t = token_of(m, first + threadIdx.y);
    kp_sum_gradient<I, W> s = {};
    if (b.g_time != NULL && t.there) s.time = (double)b.g_time[t.n];
#pragma unroll
    for (int item = 0; item < I; item++) {
      const kp_chunk<W> g = read_item<W>(m, t.there && b.g != NULL, (const T *)b.g + t.n * m.pitch, item);
#pragma unroll
      for (int e = 0; e < W; e++) s.g[item][e] = g.value[e];
    }
    if constexpr (KIND == KP_COMBINE_FOLD)
      fold_backward<T, W>(m, b, t, c, b.steps + group * m.k * m.pitch, &sum, &s);
    else if constexpr (KIND == KP_COMBINE_CENTROID)
      centroid_backward<T, W>(m, b, t, c, &of_points, &sum, &s);
    else
      sum_backward<T, W>(m, b, t, 1, &of_points, &s);
    if (b.curvature != NULL && threadIdx.x == 0 && t.there) b.curvature[t.n] = s.curvature;
  }
}

/* ---- launching ---- */

static size_t curvature_bytes(const kp_node *node) {
  return ((size_t)kp_tensor_rows(node->input[1]) * sizeof(double) + 63) / 64 * 64;
}

/* Blocks of the fold, so that the steps of the tokens under way have a bound. */
static int fold_blocks(int64_t N, dim3 block) {
  return kp_blocks(N, block.y, FOLD_THREADS / (block.x * block.y));
}

extern "C" size_t kp_cuda_scratch_expert_combine_backward(const kp_node *node, int threads) {
  (void)threads;
  const kp_combine_arguments *a = (const kp_combine_arguments *)node->arguments;
  const int64_t pitch = kp_pitch(node->input[0]), N = kp_tensor_rows(node->input[1]);
  const size_t bytes = curvature_bytes(node);
  if (a->kind != KP_COMBINE_FOLD) return bytes;
  /* Rows that are not made of whole chunks have more of them, and so fewer groups. */
  const dim3 block = kp_combine_block((pitch + KP_CHUNK - 1) / KP_CHUNK);
  const size_t groups = (size_t)fold_blocks(N, block) * block.y;
  return bytes + groups * (size_t)kp_tensor_columns(node->input[1]) * (size_t)pitch * sizeof(float);
}

template <typename T, int W>
static void launch(const kp_call *call, kp_combination m, const kp_combination_gradient &b,
                   kp_combine_kind kind) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  m.chunks = m.pitch / W;
  const dim3 block = kp_combine_block(m.chunks);
  const int blocks = kp_blocks(m.N, block.y);
  kp_by_items(m.chunks, block, [&](auto items) {
    constexpr int I = decltype(items)::value;
    if (kind == KP_COMBINE_FOLD)
      combine_backward<T, W, KP_COMBINE_FOLD, I><<<fold_blocks(m.N, block), block, 0, stream>>>(m, b);
    else if (kind == KP_COMBINE_CENTROID)
      combine_backward<T, W, KP_COMBINE_CENTROID, I><<<blocks, block, 0, stream>>>(m, b);
    else
      combine_backward<T, W, KP_COMBINE_FLAT, I><<<blocks, block, 0, stream>>>(m, b);
  });
}

extern "C" kp_status kp_cuda_expert_combine_backward(const kp_call *call, kp_error *error) {
  const kp_node *node = call->node;
  const kp_combine_arguments *a = (const kp_combine_arguments *)node->arguments;
  bool wide =
      kp_combination_is_wide(call, FIRST_SHARED) && kp_input_is_wide(call, 4) && kp_output_is_wide(call, 0);
  for (int i = FIRST_SHARED_OUTPUT; i < node->outputs; i++) wide = wide && kp_output_is_wide(call, i);
  kp_combination m;
  KP_TRY(kp_combination_of(call, FIRST_SHARED, wide, &m, error));
  if (m.N == 0) return KP_OK;
  const bool curved = node->output[2] != NULL && a->kind != KP_COMBINE_FLAT;
  kp_combination_gradient b = {};
  b.rows = call->output[0];
  b.weights = (float *)call->output[1];
  b.curvature = curved ? (double *)call->scratch : NULL;
  b.g = call->input[4];
  b.g_time = a->kind == KP_COMBINE_FLAT ? NULL : (const float *)call->input[5];
  b.steps = (float *)((char *)call->scratch + curvature_bytes(node));
  for (int i = 0; i < m.shared_count; i++) b.shared[i] = call->output[FIRST_SHARED_OUTPUT + i];
  kp_by_chunk(kp_tensor_is_half(call, node->input[0]), wide, [&](auto real, auto width) {
    launch<decltype(real), decltype(width)::value>(call, m, b, a->kind);
  });
  if (curved)
    kp_add_numbers<<<1, 1024, 0, kp_cuda_of(call)->stream>>>(b.curvature, m.N, 1.0,
                                                             kp_output_numbers(call, 2));
  return kp_launched(call, error);
}
