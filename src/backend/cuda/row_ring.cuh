/* Whole rows in passes: the rows of several tensors wait in shared memory while they are worked on.
 *
 * A team of threads, a warp or a block, takes every so-many-th row.  While it computes one, the next is on
 * its way: each thread copies the chunks that it will use itself, so that nobody waits for anybody, and a
 * pass over a row costs neither device memory nor registers.  The ring has two stages where they fit.  A
 * last pass may write where it has read. */
#ifndef KAPPA_BACKEND_CUDA_ROW_RING_CUH
#define KAPPA_BACKEND_CUDA_ROW_RING_CUH

#include "backend/cuda/row_chunks.cuh"

/* Rows of T in chunks of W, at most MOST chunks a thread, TEAM threads a row. */
template <typename T_, int W_, int MOST_, int TEAM_> struct kp_row_kind {
  using T = T_;
  static constexpr int W = W_, MOST = MOST_, TEAM = TEAM_;
  static constexpr int THREADS = TEAM < 128 ? 128 : TEAM, TEAMS = THREADS / TEAM;
};

struct kp_ring_shape {
  int64_t rows, pitch, C;
  int chunks, steps, stages; /* of a row; chunks of a thread; rows that wait at once */
};

/* ---- the ring ---- */

template <int BYTES> __device__ static inline void kp_copy_ahead(void *shared, const void *global) {
  if constexpr (BYTES == 16)
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
        "l"(global)
        : "memory");
  else if constexpr (BYTES == 4)
    *(float *)shared = *(const float *)global;
  else
    *(kp_half *)shared = *(const kp_half *)global;
}

template <class K, int TENSORS> struct kp_ring {
  using T = typename K::T;
  static constexpr int BYTES = K::W * sizeof(T);
  kp_ring_shape shape;
  const T *tensor[TENSORS]; /* NULL: rows of zeros */
  unsigned char *mine;      /* this thread's first chunk */
  int thread;
  int64_t row, stride; /* the team's first row and their distance */

  __device__ kp_ring(const kp_ring_shape &its_shape, unsigned char *shared)
      : shape(its_shape), thread(threadIdx.x % K::TEAM),
        row((int64_t)blockIdx.x * K::TEAMS + threadIdx.x / K::TEAM), stride((int64_t)gridDim.x * K::TEAMS) {
    const int team_bytes = shape.stages * TENSORS * shape.steps * K::TEAM * BYTES;
    mine = shared + threadIdx.x / K::TEAM * team_bytes + thread * BYTES;
  }
  __device__ unsigned char *slot(int stage, int t, int j) const {
    return mine + ((stage * TENSORS + t) * shape.steps + j) * (K::TEAM * BYTES);
  }
  /* Starts the copies of row n, if there is one. */
  __device__ void fetch(int64_t n, int stage) const {
    if (n < shape.rows)
      for (int t = 0; t < TENSORS; t++)
        if (tensor[t] != NULL)
          for (int j = 0, chunk = thread; chunk < shape.chunks; j++, chunk += K::TEAM)
            kp_copy_ahead<BYTES>(slot(stage, t, j), tensor[t] + n * shape.pitch + (int64_t)chunk * K::W);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  /* Row n of stage n is there; the next one is on its way. */
  __device__ void advance(int64_t n, int stage) const {
    if (shape.stages == 2) {
      fetch(n + stride, 1 - stage);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      if (n != row) fetch(n, 0);
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
  }
  /* A thread's chunk j of tensor t. */
  __device__ void get(int stage, int t, int j, float (&value)[K::W]) const {
    if (tensor[t] == NULL) {
#pragma unroll
      for (int e = 0; e < K::W; e++) value[e] = 0;
      return;
    }
    const kp_row_chunk<T, K::W> chunk = kp_load_chunk<T, K::W>((const T *)slot(stage, t, j));
#pragma unroll
    for (int e = 0; e < K::W; e++) value[e] = kp_to_float(chunk.value[e]);
  }
  /* Writes a thread's chunk j of row n of a tensor, or of none. */
  __device__ void put(T *to, int64_t n, int chunk, const float (&value)[K::W]) const {
    if (to != NULL) kp_put_chunk<T, K::W>(to + n * shape.pitch, (int64_t)chunk * K::W, shape.C, value);
  }
};

/* ---- sums over a team; all its threads take part, all get the results ---- */

/* COUNT sums at once, a power of two: each step halves the numbers that a thread still has, so that 8 sums
 * take 9 exchanges and not 40; then all are handed to all. */
template <typename R, int COUNT> __device__ static inline void kp_warp_sums(R (&sum)[COUNT]) {
  const int lane = threadIdx.x % 32;
  int offset = 16;
#pragma unroll
  for (int half = COUNT / 2; half >= 1; half /= 2, offset /= 2) {
    const bool upper = (lane & offset) != 0;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const R send = upper ? sum[i] : sum[i + half];
      sum[i] = (upper ? sum[i + half] : sum[i]) + __shfl_xor_sync(0xffffffffu, send, offset);
    }
  }
#pragma unroll
  for (; offset > 0; offset /= 2) sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], offset);
  const R mine = sum[0];
#pragma unroll
  for (int i = 0; i < COUNT; i++) sum[i] = __shfl_sync(0xffffffffu, mine, i * (32 / COUNT));
}

template <class K, typename R, int COUNT> __device__ static inline void kp_team_sums(R (&sum)[COUNT]) {
  kp_warp_sums(sum);
  if constexpr (K::TEAM > 32) {
    constexpr int WARPS = K::TEAM / 32;
    __shared__ R shared[WARPS][COUNT];
    __syncthreads(); /* of the last use */
    if (threadIdx.x % 32 == 0)
      for (int i = 0; i < COUNT; i++) shared[threadIdx.x / 32][i] = sum[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      sum[i] = 0;
      for (int warp = 0; warp < WARPS; warp++) sum[i] += shared[warp][i];
    }
  }
}

/* The sum over the teams of a block of a number that all threads of a team share; thread 0 has it. */
template <class K> __device__ static inline float kp_sum_of_teams(float x) {
  if constexpr (K::TEAMS > 1) {
    __shared__ float shared[K::TEAMS];
    __syncthreads(); /* of the last use */
    if (threadIdx.x % K::TEAM == 0) shared[threadIdx.x / K::TEAM] = x;
    __syncthreads();
    x = 0;
    for (int team = 0; team < K::TEAMS; team++) x += shared[team];
  }
  return x;
}

/* √x to more digits than float has, for differences of squares, without a double root's latency. */
__device__ static inline double kp_fine_sqrt(double x) {
  if (!(x > 1e-30 && x < 1e30)) return sqrt(x);
  const float root = sqrtf((float)x);
  return (double)root + (x - (double)root * (double)root) * (double)(0.5f / root);
}

/* ---- sums over the rows of a block ---- */

/* What a thread has summed of its columns over its team's rows. */
template <class K> struct kp_row_accumulator {
  float held[K::MOST][K::W];

  __device__ kp_row_accumulator() {
#pragma unroll
    for (int j = 0; j < K::MOST; j++)
#pragma unroll
      for (int e = 0; e < K::W; e++) held[j][e] = 0;
  }
  __device__ void add(int j, const float (&value)[K::W]) {
#pragma unroll
    for (int e = 0; e < K::W; e++) held[j][e] += value[e];
  }
  /* All threads of the block call this at the end: the teams' sums, one after the other and times factor(i)
   * for column i, to the block's part.  The ring is not needed any more and has room for a row of floats. */
  template <class Factor>
  __device__ void finish(const kp_ring_shape &shape, unsigned char *ring, float *part,
                         const Factor &factor) const {
    float *const total = (float *)ring;
    asm volatile("cp.async.wait_all;" ::: "memory");
    for (int team = 0; team < K::TEAMS; team++) {
      __syncthreads();
      if ((int)threadIdx.x / K::TEAM != team) continue;
#pragma unroll
      for (int j = 0; j < K::MOST; j++) {
        const int chunk = j * K::TEAM + (int)threadIdx.x % K::TEAM;
        if (chunk >= shape.chunks) break;
#pragma unroll
        for (int e = 0; e < K::W; e++) {
          float *const at = total + e * shape.chunks + chunk;
          *at = (team == 0 ? 0 : *at) + held[j][e];
        }
      }
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < shape.C; i += K::THREADS)
      part[i] = factor(i) * total[(int)(i % K::W) * shape.chunks + (int)(i / K::W)];
  }
};

/* ---- launching ---- */

/* The stages of a ring and the block's shared memory; 0 where not even one row fits. */
template <class K, int TENSORS>
static inline size_t kp_ring_bytes(const kp_call *call, kp_ring_shape *shape) {
  const size_t row =
      (size_t)TENSORS * (size_t)shape->steps * (size_t)(K::THREADS * K::W) * sizeof(typename K::T);
  const size_t most = kp_cuda_of(call)->shared_bytes - 2048; /* beside what kernels declare */
  if (shape->steps > K::MOST || row > most) return 0;
  shape->stages = 2 * row <= most ? 2 : 1;
  return (size_t)shape->stages * row;
}

/* Calls Kernel<kind>::run(shape, …) of the narrowest kind that holds a row. */
template <template <class> class Kernel, typename... Arguments>
static inline kp_status kp_with_ring(const kp_call *call, const kp_row_plan &plan, kp_error *error,
                                     const Arguments &...arguments) {
  const auto run = [&](auto kind) -> kp_status {
    using K = decltype(kind);
    kp_ring_shape shape = {plan.rows, plan.pitch, plan.C, plan.chunks, (plan.chunks + K::TEAM - 1) / K::TEAM,
                           0};
    const size_t bytes = kp_ring_bytes<K, Kernel<K>::TENSORS>(call, &shape);
    if (bytes == 0)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "%s: rows of %lld channels are too wide for this GPU",
                     call->node->row->name, (long long)plan.C);
    return Kernel<K>::run(call, shape, bytes, error, arguments...);
  };
  const bool narrow = plan.chunks <= (plan.half ? 128 : 256);
  if (plan.half && !plan.wide) return run(kp_row_kind<kp_half, 1, 8, 32>());
  if (plan.half)
    return narrow ? run(kp_row_kind<kp_half, 8, 4, 32>()) : run(kp_row_kind<kp_half, 8, 4, 256>());
  if (!plan.wide) return run(kp_row_kind<float, 1, 8, 32>());
  return narrow ? run(kp_row_kind<float, 4, 8, 32>()) : run(kp_row_kind<float, 4, 8, 256>());
}

/* Allows a kernel so much shared memory, and gives the blocks of it that run at once. */
template <class K>
static inline int kp_ring_blocks(const kp_call *call, const void *kernel, const kp_ring_shape &shape,
                                 size_t bytes, int64_t most) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
  return kp_resident_blocks(call, kernel, K::THREADS, bytes, (shape.rows + K::TEAMS - 1) / K::TEAMS, most);
}

#endif
