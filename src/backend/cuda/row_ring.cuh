/* Whole rows in passes: the rows of several tensors wait in shared memory while they are worked on.
 *
 * A team of threads, a warp or a block, takes every so-many-th row.  While it computes one, the next is on
 * its way: each thread copies the chunks that it will use itself, so that nobody waits for anybody, and a
 * pass over a row costs neither device memory nor registers.  The ring has two stages where they fit.  A
 * last pass may write where it has read.
 *
 * What bounds these kernels beside memory is the number of instructions: a bfloat16 takes as many as a float
 * and half the bytes.  So places are pointers that advance, and vectors that all rows share are prepared
 * once, behind the ring.
 *
 *     stage 0: chunk 0 of a thread: tensor 0 | tensor 1 | …   chunk 1: …      (every thread of a team)
 *     stage 1: …
 *     vector: chunk 0: numbers 0-3 of every thread | numbers 4-7 | …  chunk 1: … */
#ifndef KAPPA_BACKEND_CUDA_ROW_RING_CUH
#define KAPPA_BACKEND_CUDA_ROW_RING_CUH

#include "backend/cuda/row_chunks.cuh"

/* Rows of T in chunks of W, at most MOST chunks a thread, TEAM threads a row. */
template <typename T_, int W_, int MOST_, int TEAM_> struct kp_row_kind {
  using T = T_;
  static constexpr int W = W_, MOST = MOST_, TEAM = TEAM_;
  static constexpr int THREADS = TEAM < 128 ? 128 : TEAM, TEAMS = THREADS / TEAM;
  static constexpr int CHUNK = W * sizeof(T);     /* bytes */
  static constexpr int QUAD = W % 4 == 0 ? 4 : 1; /* numbers of a vector that lie together */
  static constexpr int VECTOR =
      TEAM * W * sizeof(float); /* bytes of a vector for one chunk of every thread */
};

struct kp_ring_shape {
  int64_t rows, pitch, C;
  int chunks, steps, stages; /* of a row; chunks of a thread; rows that wait at once */
  int row_bytes;             /* of a stage of a team */
};

/* ---- chunks ---- */

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

/* A chunk as floats: of a pair of bfloat16 each is half a word, shifted. */
template <class K> __device__ static inline void kp_widen(const void *at, float (&value)[K::W]) {
  if constexpr (K::CHUNK == 16) {
    const uint4 words = *(const uint4 *)at;
    const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (K::W == 8) {
        value[2 * i] = __uint_as_float(word[i] << 16);
        value[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
      } else {
        value[i] = __uint_as_float(word[i]);
      }
    }
  } else {
    value[0] = kp_to_float(*(const typename K::T *)at);
  }
}

/* ---- the ring ---- */

template <class K, int TENSORS> struct kp_ring {
  using T = typename K::T;
  static constexpr int SLOT = K::TEAM * K::CHUNK; /* bytes of one tensor's chunks of a team */
  static constexpr int STEP = TENSORS * SLOT;
  kp_ring_shape shape;
  const T *tensor[TENSORS]; /* NULL: rows of zeros */
  unsigned char *mine;      /* this thread's first chunk */
  int thread, left;         /* left: chunks of this thread */
  int64_t row, stride;      /* the team's first row and their distance */

  __device__ kp_ring(const kp_ring_shape &its_shape, unsigned char *shared)
      : shape(its_shape), thread(threadIdx.x % K::TEAM),
        row((int64_t)blockIdx.x * K::TEAMS + threadIdx.x / K::TEAM), stride((int64_t)gridDim.x * K::TEAMS) {
    left = (shape.chunks - thread + K::TEAM - 1) / K::TEAM;
    mine = shared + threadIdx.x / K::TEAM * (shape.stages * shape.row_bytes) + thread * K::CHUNK;
  }
  /* The chunks of an absent tensor are zeros; all threads call this before the first row. */
  __device__ void clear_absent() const {
    for (int stage = 0; stage < shape.stages; stage++)
#pragma unroll
      for (int t = 0; t < TENSORS; t++)
        for (int j = 0; j < left && tensor[t] == NULL; j++) {
          T *const at = (T *)(mine + stage * shape.row_bytes + j * STEP + t * SLOT);
          for (int e = 0; e < K::W; e++) at[e] = T(0.0f);
        }
  }
  /* Starts the copies of row n, if there is one. */
  __device__ void fetch(int64_t n, int stage) const {
    if (n < shape.rows) {
      const int64_t offset = n * shape.pitch + thread * K::W;
      unsigned char *const to = mine + stage * shape.row_bytes;
#pragma unroll
      for (int t = 0; t < TENSORS; t++) {
        if (tensor[t] == NULL) continue;
        const T *const from = tensor[t] + offset;
#pragma unroll
        for (int j = 0; j < K::MOST; j++)
          if (j < left) kp_copy_ahead<K::CHUNK>(to + j * STEP + t * SLOT, from + j * (K::TEAM * K::W));
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  /* Row n is there, and the next one on its way; gives the place of the thread's first chunk. */
  __device__ const unsigned char *advance(int64_t n, int stage) const {
    if (shape.stages == 2) {
      fetch(n + stride, 1 - stage);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      if (n != row) fetch(n, 0);
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    return mine + stage * shape.row_bytes;
  }
  /* The chunk of tensor t at a place; a thread's next chunk is STEP further. */
  __device__ static void get(const unsigned char *place, int t, float (&value)[K::W]) {
    kp_widen<K>(place + t * SLOT, value);
  }
  /* This thread's first chunk of row n of a tensor, or of none. */
  __device__ T *out(void *to, int64_t n) const {
    return to == NULL ? NULL : (T *)to + n * shape.pitch + thread * K::W;
  }
  /* Writes a thread's chunk j where `out` says.  Padding gets zeros. */
  __device__ void put(T *out, int j, const float (&value)[K::W]) const {
    if (out == NULL) return;
    kp_row_chunk<T, K::W> chunk;
#pragma unroll
    for (int e = 0; e < K::W; e++) chunk.value[e] = kp_from_float<T>(value[e]);
    const int past = (j * K::TEAM + thread + 1) * K::W - (int)shape.C;
    if (K::W > 1 && past > 0) {
#pragma unroll
      for (int e = 0; e < K::W; e++)
        if (e >= K::W - past) chunk.value[e] = T(0.0f);
    }
    kp_store_chunk(out + j * (K::TEAM * K::W), chunk);
  }
};

/* ---- a vector that all rows share, behind the ring ---- */

template <class K> struct kp_ring_vector {
  const unsigned char *mine; /* this thread's first numbers */

  /* All threads of the block call this: prepares change(number) of every column. */
  template <class Change>
  __device__ kp_ring_vector(const kp_ring_shape &shape, unsigned char *memory, const kp_vector &vector,
                            const Change &change) {
    float *const to = (float *)memory;
    for (int i = threadIdx.x; i < shape.chunks * K::W; i += K::THREADS) {
      const int chunk = i / K::W, e = i % K::W, j = chunk / K::TEAM, thread = chunk % K::TEAM;
      const float x = i >= shape.C ? 0 : vector.at == NULL ? vector.absent : vector.at[i];
      to[(j * K::W + e / K::QUAD * K::QUAD) * K::TEAM + thread * K::QUAD + e % K::QUAD] = change(x);
    }
    mine = memory + threadIdx.x % K::TEAM * (K::QUAD * sizeof(float));
    __syncthreads();
  }
  __device__ void get(int j, float (&value)[K::W]) const {
    const unsigned char *const at = mine + j * K::VECTOR;
    if constexpr (K::QUAD == 4) {
#pragma unroll
      for (int q = 0; q < K::W / 4; q++) {
        const float4 four = *(const float4 *)(at + q * (K::TEAM * 4 * sizeof(float)));
        value[4 * q] = four.x, value[4 * q + 1] = four.y, value[4 * q + 2] = four.z,
                  value[4 * q + 3] = four.w;
      }
    } else {
      value[0] = *(const float *)at;
    }
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

/* Fills in the stages of a ring; the block's shared memory, or 0 where not even one row fits. */
template <class K, int TENSORS>
static inline size_t kp_ring_bytes(const kp_call *call, kp_ring_shape *shape) {
  const int most = (int)kp_cuda_of(call)->shared_bytes - 2048; /* beside what kernels declare */
  if (shape->steps > K::MOST) return 0;
  shape->row_bytes = shape->steps * TENSORS * K::TEAM * K::CHUNK;
  const int stage = K::TEAMS * shape->row_bytes, vector = shape->steps * K::VECTOR;
  shape->stages = 3 * (2 * stage + vector) <= most ? 2 : 1; /* blocks beside each other hide as much */
  return stage + vector > most ? 0 : (size_t)(shape->stages * stage + vector);
}

/* Where the vector stands behind the ring. */
template <class K>
__device__ static inline unsigned char *kp_behind(const kp_ring_shape &shape, unsigned char *ring) {
  return ring + shape.stages * K::TEAMS * shape.row_bytes;
}

/* Calls Kernel<kind>::run(shape, …) of the narrowest kind that holds a row. */
template <template <class> class Kernel, typename... Arguments>
static inline kp_status kp_with_ring(const kp_call *call, const kp_row_plan &plan, kp_error *error,
                                     const Arguments &...arguments) {
  const auto run = [&](auto kind) -> kp_status {
    using K = decltype(kind);
    kp_ring_shape shape = {plan.rows, plan.pitch, plan.C, plan.chunks, (plan.chunks + K::TEAM - 1) / K::TEAM,
                           0,         0};
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
