/* Whole rows in registers: the rows of several tensors are read once and worked on in passes.
 *
 * A team of threads, a warp or a block, takes every so-many-th row: thread t has its chunks t, t + TEAM, …,
 * at most STEPS of them, so that every loop over a row has a length that the compiler knows.  What hides the
 * latency of memory is that a thread asks for all its chunks before it uses one, that the next row is brought
 * to the L2 cache meanwhile, and the number of teams.
 *
 * What bounds these kernels beside memory is the number of instructions: a bfloat16 takes as many as a float
 * and half the bytes.  So chunks stay as they stand in memory until they are used, and vectors that all rows
 * share are prepared once in shared memory:
 *
 *     step 0: numbers 0-3 of every thread's chunk | numbers 4-7 | …  step 1: … */
#ifndef KAPPA_BACKEND_CUDA_ROW_HELD_CUH
#define KAPPA_BACKEND_CUDA_ROW_HELD_CUH

#include <type_traits>

#include "backend/cuda/row_chunks.cuh"

/* Rows of T in chunks of W, at most STEPS chunks a thread, TEAM threads a row. */
template <typename T_, int W_, int STEPS_, int TEAM_> struct kp_row_kind {
  using T = T_;
  static constexpr int W = W_, STEPS = STEPS_, TEAM = TEAM_;
  static constexpr int THREADS = TEAM < 128 ? 128 : TEAM, TEAMS = THREADS / TEAM;
  static constexpr bool VECTOR = W * sizeof(T) == sizeof(uint4);
  static constexpr int QUAD = W % 4 == 0 ? 4 : 1;                   /* numbers that lie together */
  static constexpr size_t BYTES = STEPS * TEAM * W * sizeof(float); /* of a vector in shared memory */
  using raw = std::conditional_t<VECTOR, uint4, T>;                 /* a chunk as it stands in memory */
};

struct kp_row_shape {
  int64_t rows, pitch;
  int C, chunks;
};

/* ---- chunks ---- */

/* A chunk as floats: of a pair of bfloat16 each is half a word, shifted. */
template <class K> __device__ static inline void kp_widen(const typename K::raw &raw, float (&value)[K::W]) {
  if constexpr (K::VECTOR) {
    const unsigned word[4] = {raw.x, raw.y, raw.z, raw.w};
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
    value[0] = kp_to_float(raw);
  }
}

__device__ static inline unsigned kp_pair_of(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(const unsigned *)&pair;
}

template <class K> __device__ static inline typename K::raw kp_narrow(const float (&value)[K::W]) {
  if constexpr (K::VECTOR && K::W == 8)
    return make_uint4(kp_pair_of(value[0], value[1]), kp_pair_of(value[2], value[3]),
                      kp_pair_of(value[4], value[5]), kp_pair_of(value[6], value[7]));
  else if constexpr (K::VECTOR)
    return make_uint4(__float_as_uint(value[0]), __float_as_uint(value[1]), __float_as_uint(value[2]),
                      __float_as_uint(value[3]));
  else
    return kp_from_float<typename K::T>(value[0]);
}

/* ---- a team and its rows ---- */

template <class K> struct kp_row_team {
  kp_row_shape shape;
  int thread;
  int64_t row, stride; /* the team's first row and their distance */

  __device__ explicit kp_row_team(const kp_row_shape &its_shape)
      : shape(its_shape), thread(threadIdx.x % K::TEAM),
        row((int64_t)blockIdx.x * K::TEAMS + threadIdx.x / K::TEAM), stride((int64_t)gridDim.x * K::TEAMS) {}
  /* Whether this thread has a chunk j. */
  __device__ bool has(int j) const { return j * K::TEAM + thread < shape.chunks; }
  /* Writes chunk j of row n, unless `to` is NULL.  Padding gets zeros. */
  __device__ void put(void *to, int64_t n, int j, float (&value)[K::W]) const {
    if (to == NULL || !has(j)) return;
    const int past = (j * K::TEAM + thread + 1) * K::W - shape.C;
    if (K::W > 1 && past > 0) {
#pragma unroll
      for (int e = 0; e < K::W; e++)
        if (e >= K::W - past) value[e] = 0;
    }
    const int64_t at = n * shape.pitch + (j * K::TEAM + thread) * K::W;
    *(typename K::raw *)((typename K::T *)to + at) = kp_narrow<K>(value);
  }
};

/* A thread's chunks of a row of one tensor. */
template <class K> struct kp_held_row {
  typename K::raw chunk[K::STEPS];

  /* An absent tensor is zeros, and so is what is behind the last row. */
  __device__ void fetch(const kp_row_team<K> &team, const void *tensor, int64_t n) {
    const typename K::T *const at = (const typename K::T *)tensor + n * team.shape.pitch + team.thread * K::W;
#pragma unroll
    for (int j = 0; j < K::STEPS; j++) {
      chunk[j] = typename K::raw{};
      if (tensor != NULL && n < team.shape.rows && team.has(j))
        chunk[j] = *(const typename K::raw *)(at + j * (K::TEAM * K::W));
    }
  }
  __device__ void get(int j, float (&value)[K::W]) const {
    kp_widen<K>(chunk[j], value);
  }
  /* Brings row n nearer, so that its fetch will wait for the L2 cache only. */
  __device__ static void expect(const kp_row_team<K> &team, const void *tensor, int64_t n) {
    constexpr int LINE = 128 / (K::W * sizeof(typename K::T)); /* chunks of a line of the cache */
    if (tensor == NULL || n >= team.shape.rows || team.thread % LINE != 0) return;
    const typename K::T *const at = (const typename K::T *)tensor + n * team.shape.pitch + team.thread * K::W;
#pragma unroll
    for (int j = 0; j < K::STEPS; j++)
      if (team.has(j)) asm volatile("prefetch.global.L2 [%0];" ::"l"(at + j * (K::TEAM * K::W)));
  }
};

/* ---- a vector that all rows share ---- */

template <class K> struct kp_shared_vector {
  const float *mine; /* this thread's first numbers */

  /* All threads of the block call this: prepares change(number) of every column. */
  template <class Change>
  __device__ kp_shared_vector(const kp_row_shape &shape, float *memory, const kp_vector &vector,
                              const Change &change)
      : mine(memory + threadIdx.x % K::TEAM * K::QUAD) {
    for (int i = threadIdx.x; i < K::STEPS * K::TEAM * K::W; i += K::THREADS) {
      const int chunk = i / K::W, e = i % K::W, j = chunk / K::TEAM, thread = chunk % K::TEAM;
      const float x = i >= shape.C ? 0 : vector.at == NULL ? vector.absent : vector.at[i];
      memory[(j * K::W + e / K::QUAD * K::QUAD) * K::TEAM + thread * K::QUAD + e % K::QUAD] = change(x);
    }
    __syncthreads();
  }
  __device__ void get(int j, float (&value)[K::W]) const {
    const float *const at = mine + j * (K::TEAM * K::W);
    if constexpr (K::QUAD == 4) {
#pragma unroll
      for (int q = 0; q < K::W / 4; q++) {
        const float4 four = *(const float4 *)(at + q * (K::TEAM * 4));
        value[4 * q] = four.x, value[4 * q + 1] = four.y, value[4 * q + 2] = four.z,
                  value[4 * q + 3] = four.w;
      }
    } else {
      value[0] = *at;
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
  float held[K::STEPS][K::W];

  __device__ kp_row_accumulator() {
#pragma unroll
    for (int j = 0; j < K::STEPS; j++)
#pragma unroll
      for (int e = 0; e < K::W; e++) held[j][e] = 0;
  }
  /* All threads of the block call this at the end: the teams' sums, one after the other and times factor(i)
   * for column i, to the block's part.  `total` has room for a row of floats. */
  template <class Factor>
  __device__ void finish(const kp_row_shape &shape, float *total, float *part, const Factor &factor) const {
    constexpr int CHUNKS = K::STEPS * K::TEAM;
    for (int team = 0; team < K::TEAMS; team++) {
      __syncthreads();
      if ((int)threadIdx.x / K::TEAM != team) continue;
#pragma unroll
      for (int j = 0; j < K::STEPS; j++)
#pragma unroll
        for (int e = 0; e < K::W; e++) {
          float *const at = total + e * CHUNKS + j * K::TEAM + (int)threadIdx.x % K::TEAM;
          *at = (team == 0 ? 0 : *at) + held[j][e];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < shape.C; i += K::THREADS)
      part[i] = factor(i) * total[i % K::W * CHUNKS + i / K::W];
  }
};

/* ---- launching ---- */

/* Calls Kernel<kind>::run(shape, …) of the narrowest kind that holds a row. */
template <template <class> class Kernel, typename... Arguments>
static inline kp_status kp_with_row_kind(const kp_call *call, const kp_row_plan &plan, kp_error *error,
                                         const Arguments &...arguments) {
  const kp_row_shape shape = {plan.rows, plan.pitch, (int)plan.C, plan.chunks};
  const auto run = [&](auto kind) -> kp_status {
    using K = decltype(kind);
    if (plan.chunks > K::STEPS * K::TEAM)
      return kp_fail(error, KP_ERR_UNSUPPORTED, "%s: rows of %lld channels are too wide for this GPU",
                     call->node->row->name, (long long)plan.C);
    return Kernel<K>::run(call, shape, error, arguments...);
  };
  const int steps = (plan.chunks + 31) / 32;
  if (plan.half && !plan.wide) return run(kp_row_kind<kp_half, 1, 1, 32>());
  if (!plan.wide) return run(kp_row_kind<float, 1, 1, 32>());
  if (!plan.half && steps <= 4) return run(kp_row_kind<float, 4, 4, 32>());
  if (!plan.half) return run(kp_row_kind<float, 4, 8, 256>());
  switch (steps) {
  case 0:
  case 1: return run(kp_row_kind<kp_half, 8, 1, 32>());
  case 2: return run(kp_row_kind<kp_half, 8, 2, 32>());
  case 3: return run(kp_row_kind<kp_half, 8, 3, 32>());
  case 4: return run(kp_row_kind<kp_half, 8, 4, 32>());
  default: return run(kp_row_kind<kp_half, 8, 4, 256>());
  }
}

/* Blocks of a kernel with one vector of a row in shared memory: at most those that run at once, and no more
 * than give every team as many rows as the busiest has. */
template <class K>
static inline int kp_row_blocks(const kp_call *call, const void *kernel, const kp_row_shape &shape,
                                int64_t most) {
  const int64_t wanted = (shape.rows + K::TEAMS - 1) / K::TEAMS;
  const int64_t blocks = kp_resident_blocks(call, kernel, K::THREADS, K::BYTES, wanted, most);
  const int64_t turns = (wanted + blocks - 1) / blocks;
  return turns < 1 ? 1 : (int)((wanted + turns - 1) / turns);
}

#endif
