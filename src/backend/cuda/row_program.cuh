/* Row programs as operators of their own, forward and backward: a tile of R rows in registers, its Gram
 * matrices summed, the scalar programs side by side, then one combination (seam_rows.cuh).
 *
 * Forward reads up to 3C elements a row and writes C; backward reads up to 4C and writes up to 3C.  Both take
 * 10 to 30 operations an element, so memory bounds them. */
#ifndef KAPPA_BACKEND_CUDA_ROW_PROGRAM_CUH
#define KAPPA_BACKEND_CUDA_ROW_PROGRAM_CUH

#include "backend/cuda/row_program_scalars.cuh"
#include "backend/cuda/seam.cuh"
#include "backend/cuda/seam_sums.cuh"

struct kp_row_call {
  int64_t rows;
  int C, pitch, program, width, width_pitch; /* width: columns of the output */
  double parameter;
  bool difference, scalar;
  const void *v[3], *g;
  void *out[3];
  kp_curvatures kappa;
  kp_groups groups;
  kp_real *bars; /* (N, G), or NULL */
};

static inline kp_row_call kp_row_call_of(const kp_call *call, const kp_tensor *output) {
  const kp_row_program_arguments *arguments = (const kp_row_program_arguments *)call->node->arguments;
  const kp_row_program *program = &kp_row_programs[arguments->program];
  kp_row_call r = {};
  r.rows = kp_tensor_rows(call->node->input[0]);
  r.C = (int)kp_tensor_columns(call->node->input[0]), r.pitch = (int)kp_pitch(call->node->input[0]);
  r.width = (int)kp_tensor_columns(output), r.width_pitch = (int)kp_pitch(output);
  r.program = arguments->program, r.parameter = arguments->parameter;
  r.difference = program->difference != 0, r.scalar = program->scalar != 0;
  for (int i = 0; i < program->inputs; i++) r.v[i] = call->input[i];
  r.kappa = kp_curvatures_of(call, 3, r.rows);
  return r;
}

/* Numbers of a tile: M inputs have M (M + 1) / 2 inner products. */
template <int M> struct kp_row_counts {
  static constexpr int gram = M * (M + 1) / 2, backward = gram + M, factors = M * (M + 1);
};

template <typename T, int V, int P, int R, int M> struct kp_row_tile {
  using S = typename kp_sum_of<T>::type;
  using vector = kp_vector<T, V>;
  const kp_row_call &call;
  int64_t first;
  int at[P], group[P];
  bool there[P];
  S *factors, *chunks;
  vector v[M][R][P], g[R][P];

  __device__ kp_row_tile(const kp_row_call &row_call, S *shared, int numbers) : call(row_call) {
    factors = shared;
    chunks = shared + numbers * R * call.groups.count;
#pragma unroll 1
    for (int p = 0; p < P; p++) {
      at[p] = (p * (int)blockDim.x + (int)threadIdx.x) * V;
      there[p] = at[p] < call.pitch;
      group[p] = (at[p] < call.C ? at[p] : 0) / call.groups.size;
    }
  }
  __device__ bool has(int i) const {
    return first + i < call.rows;
  }
  __device__ void load() {
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const int64_t from = (first + i) * call.pitch + at[p];
        const bool inside = there[p] && has(i);
#pragma unroll
        for (int m = 0; m < M; m++)
          v[m][i][p] = kp_load_vector<T, V>(call.v[m], from, inside && call.v[m] != NULL);
        g[i][p] = kp_load_vector<T, V>(call.g, from, inside && call.g != NULL && !call.scalar);
      }
  }
  /* The basis vectors of row i. */
  __device__ void basis(int i, int p, int k, S b[M]) const {
#pragma unroll
    for (int m = 0; m < M; m++) b[m] = v[m][i][p][k];
    if (M == 2 && call.difference) b[M - 1] -= b[0];
  }
  template <bool BACKWARD> __device__ void sums() {
    constexpr int Q = BACKWARD ? kp_row_counts<M>::backward : kp_row_counts<M>::gram;
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int i = 0; i < R; i++) {
        S part[Q] = {};
#pragma unroll
        for (int k = 0; k < V; k++) {
          S b[M];
          basis(i, p, k, b);
          int entry = 0;
#pragma unroll
          for (int m = 0; m < M; m++) {
#pragma unroll
            for (int j = m; j < M; j++) part[entry++] += b[m] * b[j];
            if (BACKWARD) part[Q - M + m] += (S)g[i][p][k] * b[m];
          }
        }
        kp_chunk_sums<Q, R>(part, call.groups, p, i, chunks);
      }
    }
    __syncthreads();
  }
  __device__ int first_task() const {
    return (int)(threadIdx.x + (blockIdx.x + first / R) * 32) % (int)blockDim.x;
  }
  __device__ void store(void *rows, int i, int p, const float value[V]) const {
    if (there[p]) *(vector *)((T *)rows + (first + i) * call.pitch + at[p]) = kp_to_vector<T, V>(value);
  }
};

/* ---- forward ---- */

template <typename T>
__device__ static inline void kp_row_scalar_result(const kp_row_call &call, int64_t n, int group,
                                                   float value) {
  T *row = (T *)call.out[0] + n * call.width_pitch;
  row[group] = kp_from_float<T>(value);
  if (group == 0)
    for (int pad = call.width; pad < call.width_pitch; pad++) row[pad] = kp_from_float<T>(0.0f);
}

template <typename T, int V, int P, int R, int M, int THREADS>
__global__ void __launch_bounds__(THREADS) kp_row_forward_kernel(const kp_row_call call) {
  extern __shared__ __align__(16) unsigned char shared[];
  using tile_type = kp_row_tile<T, V, P, R, M>;
  using S = typename tile_type::S;
  constexpr int Q = kp_row_counts<M>::gram;
  tile_type tile(call, (S *)shared, M);
  const int groups = call.groups.count;
  for (tile.first = (int64_t)blockIdx.x * R; tile.first < call.rows; tile.first += (int64_t)gridDim.x * R) {
    tile.load();
    tile.template sums<false>();
    for (int e = tile.first_task(); e < R * groups; e += blockDim.x) {
      const int i = e / groups, group = e - i * groups;
      if (!tile.has(i)) continue;
      kp_real gram[6] = {}, coefficients[3];
      for (int q = 0; q < Q; q++)
        gram[q] = (kp_real)kp_group_sum<Q * R>(tile.chunks, call.groups, group, Q * i + q);
      kp_program_forward(call.program, gram, (kp_real)call.kappa.at(tile.first + i, group),
                         (kp_real)call.parameter, coefficients);
      if (call.scalar) kp_row_scalar_result<T>(call, tile.first + i, group, (float)coefficients[0]);
      for (int m = 0; m < M; m++) tile.factors[M * e + m] = (S)coefficients[m];
    }
    __syncthreads();
    if (call.scalar) continue;
#pragma unroll
    for (int i = 0; i < R; i++) {
      if (!tile.has(i)) continue;
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const S *f = tile.factors + M * (i * groups + tile.group[p]);
        float out[V];
#pragma unroll
        for (int k = 0; k < V; k++) {
          S b[M], sum = 0;
          tile.basis(i, p, k, b);
#pragma unroll
          for (int m = 0; m < M; m++)
            if (m == 0 || call.v[m] != NULL) sum += f[m] * b[m];
          out[k] = (float)sum;
        }
        tile.store(call.out[0], i, p, out);
      }
    }
  }
}

/* ---- backward ---- */

/* Gradients of the inputs as combinations of g and the basis: row m of `factors` is that of v_m. */
template <int M, typename S>
__device__ static inline void kp_row_factors(const kp_row_call &call, const kp_real *coefficients,
                                             const kp_real *gram_bar, S *factors) {
  S all[M][M + 1] = {};
  int entry = 0;
#pragma unroll
  for (int i = 0; i < M; i++) {
    if (!call.scalar) all[i][0] = (S)coefficients[i];
#pragma unroll
    for (int j = i; j < M; j++, entry++) { /* for i = j both add: d<b,b> = 2<b,db> */
      all[i][1 + j] += (S)gram_bar[entry];
      all[j][1 + i] += (S)gram_bar[entry];
    }
  }
  if (M == 2 && call.difference)
    for (int j = 0; j <= M; j++) all[0][j] -= all[M - 1][j];
  for (int i = 0; i < M; i++)
    for (int j = 0; j <= M; j++) factors[i * (M + 1) + j] = all[i][j];
}

/* The program of one row and group. */
template <int Q, int R, int M, typename T, typename S>
__device__ static inline void kp_row_backward_program(const kp_row_call &call, const S *chunks, int64_t n,
                                                      int i, int group, S *factors) {
  kp_real sum[Q], gram[6] = {}, coefficients[3] = {}, bar[3] = {}, gram_bar[6], kappa_bar;
  for (int q = 0; q < Q; q++) sum[q] = (kp_real)kp_group_sum<Q * R>(chunks, call.groups, group, Q * i + q);
  for (int q = 0; q < Q - M; q++) gram[q] = sum[q];
  for (int m = 0; m < M; m++) bar[m] = sum[Q - M + m];
  if (call.scalar) bar[0] = (kp_real)kp_to_float(((const T *)call.g)[n * call.width_pitch + group]);
  const kp_real kappa = (kp_real)call.kappa.at(n, group), p = (kp_real)call.parameter;
  auto bars = [bar](const kp_real *, kp_real *to) {
    for (int m = 0; m < 3; m++) to[m] = bar[m];
  };
  kp_program_both(call.program, gram, kappa, p, bars, coefficients, gram_bar, &kappa_bar);
  if (call.bars != NULL) call.bars[n * call.groups.count + group] = kappa_bar;
  kp_row_factors<M>(call, coefficients, gram_bar, factors);
}

template <typename T, int V, int P, int R, int M, int THREADS>
__global__ void __launch_bounds__(THREADS) kp_row_backward_kernel(const kp_row_call call) {
  extern __shared__ __align__(16) unsigned char shared[];
  using tile_type = kp_row_tile<T, V, P, R, M>;
  using S = typename tile_type::S;
  constexpr int Q = kp_row_counts<M>::backward, F = kp_row_counts<M>::factors;
  tile_type tile(call, (S *)shared, F);
  const int groups = call.groups.count;
  for (tile.first = (int64_t)blockIdx.x * R; tile.first < call.rows; tile.first += (int64_t)gridDim.x * R) {
    tile.load();
    tile.template sums<true>();
    for (int e = tile.first_task(); e < R * groups; e += blockDim.x) {
      const int i = e / groups, group = e - i * groups;
      if (tile.has(i))
        kp_row_backward_program<Q, R, M, T>(call, tile.chunks, tile.first + i, i, group,
                                            tile.factors + F * e);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < R; i++) {
      if (!tile.has(i)) continue;
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const S *f = tile.factors + F * (i * groups + tile.group[p]);
#pragma unroll
        for (int m = 0; m < M; m++) {
          if (call.out[m] == NULL) continue;
          float out[V];
#pragma unroll
          for (int k = 0; k < V; k++) {
            S b[M], sum = f[m * (M + 1)] * (S)tile.g[i][p][k];
            tile.basis(i, p, k, b);
#pragma unroll
            for (int j = 0; j < M; j++) sum += f[m * (M + 1) + 1 + j] * b[j];
            out[k] = (float)sum;
          }
          tile.store(call.out[m], i, p, out);
        }
      }
    }
  }
}

/* ---- launching ---- */

template <typename S, int R>
static inline size_t kp_row_bytes(const kp_groups &groups, int threads, int packs, int sums, int numbers) {
  return ((size_t)kp_chunk_count(groups, threads, packs) * sums + (size_t)groups.count * numbers) * R *
         sizeof(S);
}

template <typename T, int V, int P, int R, int M, int THREADS, bool BACKWARD>
static kp_status kp_row_launch(const kp_call *kernel_call, kp_row_call call, int threads, kp_error *error) {
  using S = typename kp_sum_of<T>::type;
  using counts = kp_row_counts<M>;
  const kp_cuda *cuda = kp_cuda_of(kernel_call);
  call.groups = kp_groups_of(call.kappa.groups, call.C, V, threads, P);
  const size_t bytes = kp_row_bytes<S, R>(call.groups, threads, P, BACKWARD ? counts::backward : counts::gram,
                                          BACKWARD ? counts::factors : M);
  void (*kernel)(const kp_row_call);
  if constexpr (BACKWARD)
    kernel = kp_row_backward_kernel<T, V, P, R, M, THREADS>;
  else
    kernel = kp_row_forward_kernel<T, V, P, R, M, THREADS>;
  if (bytes > 48 * 1024)
    KP_TRY(
        kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                      "row_program", error));
  const int blocks = kp_blocks(call.rows, R, 32 * (int64_t)cuda->processors);
  kernel<<<blocks, threads, bytes, cuda->stream>>>(call);
  return kp_launched(kernel_call, error);
}

/* By width: whole vectors of 16 bytes where rows and groups are made of them. */
template <typename T, int R, int M, bool BACKWARD>
static kp_status kp_row_by_width(const kp_call *kernel_call, const kp_row_call &call, kp_error *error) {
  constexpr int V = 16 / sizeof(T), P = 8, MOST = 256, MOST_SINGLE = 512;
  const int threads = (call.pitch + 32 * V - 1) / (32 * V) * 32;
  const int singles = (call.pitch + 32 * P - 1) / (32 * P) * 32;
  if (kp_rows_of_vectors(call.pitch, call.C, call.kappa.groups, V) && threads <= MOST)
    return kp_row_launch<T, V, 1, R, M, MOST, BACKWARD>(kernel_call, call, threads, error);
  if (singles <= MOST_SINGLE)
    return kp_row_launch<T, 1, P, 1, M, MOST_SINGLE, BACKWARD>(kernel_call, call, singles, error);
  return kp_fail(error, KP_ERR_UNSUPPORTED, "row_program: rows of %d channels are too long", call.C);
}

template <typename T, int R> static kp_status kp_row_forward(const kp_call *kernel_call, kp_error *error) {
  kp_row_call call = kp_row_call_of(kernel_call, kernel_call->node->output[0]);
  call.out[0] = kernel_call->output[0];
  if (call.v[2] != NULL) return kp_row_by_width<T, R, 3, false>(kernel_call, call, error);
  return kp_row_by_width<T, R, 2, false>(kernel_call, call, error);
}

template <typename T, int R> static kp_status kp_row_backward(const kp_call *kernel_call, kp_error *error) {
  kp_row_call call = kp_row_call_of(kernel_call, kernel_call->node->input[4]);
  call.g = kernel_call->input[4];
  for (int i = 0; i < 3; i++) call.out[i] = call.v[i] == NULL ? NULL : kernel_call->output[i];
  if (kernel_call->output[3] != NULL) call.bars = (kp_real *)kernel_call->scratch;
  if (call.v[2] != NULL)
    KP_TRY((kp_row_by_width<T, R, 3, true>(kernel_call, call, error)));
  else
    KP_TRY((kp_row_by_width<T, R, 2, true>(kernel_call, call, error)));
  kp_add_curvatures(kp_cuda_of(kernel_call)->stream,
                    kp_curvature_bars_of<kp_real>(kernel_call, 3, call.kappa, call.bars));
  return kp_launched(kernel_call, error);
}

kp_status kp_row_forward_half(const kp_call *call, kp_error *error);
kp_status kp_row_backward_half(const kp_call *call, kp_error *error);

#endif
