/* Rows in registers: what the operators on whole rows of points share.
 *
 * A row is read in chunks of W numbers, 16 bytes where rows are padded to them and single numbers where they
 * are too short for that.  A team of threads shares a row: a warp that holds it in registers (`CHUNKS` chunks
 * a thread), or, with CHUNKS 0, a whole block that reads it again from the cache for every pass.  A last
 * pass may write where it reads: each chunk has one thread. */
#ifndef KAPPA_BACKEND_CUDA_ROW_CHUNKS_CUH
#define KAPPA_BACKEND_CUDA_ROW_CHUNKS_CUH

#include "backend/cuda/kernel.cuh"

/* W numbers of T that move at once. */
template <typename T, int W> struct alignas(W * sizeof(T)) kp_chunk { T value[W]; };

/* ---- teams ---- */

enum { KP_ROW_THREADS = 128 }; /* of a block; without registers also of a team */

/* The place of a thread in its team, and of the team among all. */
template <int CHUNKS> struct kp_team {
  static constexpr int size = CHUNKS > 0 ? 32 : KP_ROW_THREADS;
  static constexpr int per_block = KP_ROW_THREADS / size;
  int thread;
  int64_t index, count;
  __device__ kp_team()
      : thread(threadIdx.x % size), index((int64_t)blockIdx.x * per_block + threadIdx.x / size),
        count((int64_t)gridDim.x * per_block) {}
};

/* K sums at once, K a power of two: each step halves the numbers that a thread still has, so that 8 sums
 * take 9 exchanges and not 40; then all are handed to all. */
template <int K> __device__ static inline void kp_warp_sums(double (&sum)[K]) {
  const int lane = threadIdx.x % 32;
  int offset = 16;
#pragma unroll
  for (int half = K / 2; half >= 1; half /= 2, offset /= 2) {
    const bool upper = (lane & offset) != 0;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const double send = upper ? sum[i] : sum[i + half];
      sum[i] = (upper ? sum[i + half] : sum[i]) + __shfl_xor_sync(0xffffffffu, send, offset);
    }
  }
  for (; offset > 0; offset /= 2) sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], offset);
  const double mine = sum[0];
#pragma unroll
  for (int i = 0; i < K; i++) sum[i] = __shfl_sync(0xffffffffu, mine, i * (32 / K));
}

/* The same over a team. */
template <int CHUNKS, int K> __device__ static inline void kp_team_sums(double (&sum)[K]) {
  kp_warp_sums(sum);
  if constexpr (CHUNKS == 0) {
    __shared__ double shared[KP_ROW_THREADS / 32][K];
    __syncthreads(); /* of the last use */
    if (threadIdx.x % 32 == 0)
      for (int i = 0; i < K; i++) shared[threadIdx.x / 32][i] = sum[i];
    __syncthreads();
    for (int i = 0; i < K; i++) {
      sum[i] = 0;
      for (int warp = 0; warp < KP_ROW_THREADS / 32; warp++) sum[i] += shared[warp][i];
    }
  }
}

/* ---- rows ---- */

/* Where the chunks of a row of C numbers are: thread t of a team has every size-th. */
template <int W, int CHUNKS> struct kp_row_shape {
  int64_t C;  /* numbers */
  int chunks; /* that the row has, padding included */
  __device__ int steps() const {
    return CHUNKS > 0 ? CHUNKS : (chunks + KP_ROW_THREADS - 1) / KP_ROW_THREADS;
  }
  /* The chunk of a thread's step, and whether there is one. */
  __device__ int chunk(int step, int thread) const { return step * kp_team<CHUNKS>::size + thread; }
};

/* A row of a tensor, or of zeros where there is none. */
template <typename T, int W, int CHUNKS> struct kp_row {
  kp_chunk<T, W> held[CHUNKS > 0 ? CHUNKS : 1];
  const T *at;
  kp_row_shape<W, CHUNKS> shape;
  int thread;

  __device__ kp_row(const T *row, kp_row_shape<W, CHUNKS> its_shape, int its_thread)
      : at(row), shape(its_shape), thread(its_thread) {
#pragma unroll
    for (int j = 0; j < CHUNKS; j++) held[j] = read(j);
  }
  __device__ kp_chunk<T, W> read(int step) const {
    const int chunk = shape.chunk(step, thread);
    kp_chunk<T, W> zeros;
#pragma unroll
    for (int e = 0; e < W; e++) zeros.value[e] = T(0.0f);
    return at == NULL || chunk >= shape.chunks ? zeros : *(const kp_chunk<T, W> *)(at + (int64_t)chunk * W);
  }
  /* Between passes: what is kept is as narrow as it came.  Without this the compiler keeps the numbers of the
   * first pass as floats, twice the registers in bfloat16. */
  __device__ void keep() {
#pragma unroll
    for (int j = 0; j < CHUNKS; j++)
      if constexpr (CHUNKS > 0 && sizeof(held[0]) == 16) {
        uint4 &words = *(uint4 *)&held[j];
        asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
      }
  }
  __device__ void get(int step, float (&value)[W]) const {
    const kp_chunk<T, W> chunk = CHUNKS > 0 ? held[CHUNKS > 0 ? step : 0] : read(step);
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = kp_to_float(chunk.value[e]);
  }
};

/* Writes a thread's chunk of a step; padding gets zeros.  `row` may be NULL. */
template <typename T, int W, int CHUNKS>
__device__ static inline void kp_put(T *row, const kp_row_shape<W, CHUNKS> &shape, int step, int thread,
                                     const float (&value)[W]) {
  const int chunk = shape.chunk(step, thread);
  if (row == NULL || chunk >= shape.chunks) return;
  const int64_t first = (int64_t)chunk * W;
  kp_chunk<T, W> out;
#pragma unroll
  for (int e = 0; e < W; e++) out.value[e] = kp_from_float<T>(value[e]);
  if (W > 1 && first + W > shape.C) {
#pragma unroll
    for (int e = 0; e < W; e++)
      if (first + e >= shape.C) out.value[e] = T(0.0f);
  }
  *(kp_chunk<T, W> *)(row + first) = out;
}

/* ---- vectors of C floats that all rows share ---- */

struct kp_vector {
  const float *at; /* NULL: `absent` everywhere */
  float absent;
  bool aligned; /* to 16 bytes */
};

static inline kp_vector kp_vector_of(const void *at, float absent) {
  return kp_vector{(const float *)at, absent, (uintptr_t)at % 16 == 0};
}

/* The same vector, to be read again: not kept in registers since the last pass. */
__device__ static inline kp_vector kp_again(kp_vector vector) {
  asm volatile("" : "+l"(vector.at));
  return vector;
}

/* Elements first … first+W-1, zeros beyond C. */
template <int W>
__device__ static inline void kp_get_columns(const kp_vector &vector, int64_t first, int64_t C,
                                             float (&value)[W]) {
  if (vector.at == NULL) {
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = vector.absent;
  } else if (W % 4 == 0 && vector.aligned && first + W <= C) {
#pragma unroll
    for (int e = 0; e < W; e += 4) {
      const float4 four = __ldg((const float4 *)(vector.at + first + e));
      value[e] = four.x, value[e + 1 < W ? e + 1 : e] = four.y, value[e + 2 < W ? e + 2 : e] = four.z,
      value[e + 3 < W ? e + 3 : e] = four.w;
    }
  } else {
#pragma unroll
    for (int e = 0; e < W; e++) value[e] = first + e < C ? __ldg(vector.at + first + e) : 0;
  }
}

/* ---- sums over the rows of a block ---- */

/* What a thread has summed of its columns over its team's rows: in registers, or, without them, in its own
 * elements of the block's part. */
template <int W, int CHUNKS> struct kp_column_accumulator {
  float held[CHUNKS > 0 ? CHUNKS : 1][W];
  float *part; /* of the block; NULL: not wanted */
  kp_row_shape<W, CHUNKS> shape;

  __device__ kp_column_accumulator(float *its_part, kp_row_shape<W, CHUNKS> its_shape)
      : part(its_part), shape(its_shape) {
    for (int j = 0; j < (CHUNKS > 0 ? CHUNKS : 1); j++)
      for (int e = 0; e < W; e++) held[j][e] = 0;
    if constexpr (CHUNKS == 0) {
      if (part == NULL) return;
      for (int64_t i = (int64_t)threadIdx.x * W; i < shape.C; i += KP_ROW_THREADS * W)
        for (int e = 0; e < W && i + e < shape.C; e++) part[i + e] = 0;
    }
  }
  __device__ void add(int step, int thread, const float (&value)[W]) {
    if constexpr (CHUNKS > 0) {
#pragma unroll
      for (int e = 0; e < W; e++) held[step][e] += value[e];
    } else if (part != NULL) {
      const int64_t first = (int64_t)shape.chunk(step, thread) * W;
      for (int e = 0; e < W && first + e < shape.C; e++) part[first + e] += value[e];
    }
  }
  /* All threads of the block call this once, at the end: the teams' sums, one after the other, to the part.
   */
  __device__ void finish() {
    if constexpr (CHUNKS > 0) {
      __shared__ float total[CHUNKS * 32 * W];
      if (part == NULL) return;
      for (int warp = 0; warp < KP_ROW_THREADS / 32; warp++) {
        if (threadIdx.x / 32 == warp)
#pragma unroll
          for (int j = 0; j < CHUNKS; j++)
#pragma unroll
            for (int e = 0; e < W; e++) {
              float *at = &total[(j * W + e) * 32 + threadIdx.x % 32];
              *at = (warp == 0 ? 0 : *at) + held[j][e];
            }
        __syncthreads();
      }
      for (int64_t i = threadIdx.x; i < shape.C; i += KP_ROW_THREADS) {
        const int chunk = (int)(i / W), e = (int)(i % W);
        part[i] = total[(chunk / 32 * W + e) * 32 + chunk % 32];
      }
    }
  }
};

/* The sum over the teams of a block of a number that all threads of a team share; thread 0 has it. */
template <int CHUNKS> __device__ static inline double kp_sum_of_teams(double x) {
  if constexpr (CHUNKS > 0) {
    __shared__ double shared[KP_ROW_THREADS / 32];
    __syncthreads(); /* of the last use */
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int warp = 0; warp < KP_ROW_THREADS / 32; warp++) x += shared[warp];
  }
  return x;
}

/* ---- choosing ---- */

/* What the host knows of rows: their chunks, and whether these can be 16 bytes wide. */
struct kp_row_plan {
  int64_t rows, C, pitch;
  bool half, wide; /* bfloat16; chunks of 16 bytes */
  int chunks;
};

static inline kp_row_plan kp_row_plan_of(const kp_call *call, const kp_tensor *tensor) {
  kp_row_plan plan;
  plan.rows = kp_tensor_rows(tensor);
  plan.C = kp_tensor_columns(tensor);
  plan.pitch = kp_pitch(tensor);
  plan.half = kp_tensor_is_half(call, tensor);
  const int size = plan.half ? 8 : 4;
  plan.wide = plan.pitch % size == 0;
  plan.chunks = (int)(plan.wide ? plan.pitch / size : plan.C);
  return plan;
}

/* Whether a tensor's rows stand in memory as the plan's do; an absent one's do. */
static inline bool kp_row_fits(const kp_call *call, const kp_row_plan &plan, const kp_tensor *tensor) {
  return tensor == NULL || (kp_pitch(tensor) == plan.pitch && kp_tensor_is_half(call, tensor) == plan.half);
}

static inline kp_status kp_row_misfit(const kp_call *call, kp_error *error) {
  return kp_fail(error, KP_ERR_UNSUPPORTED, "%s: its tensors differ in type or layout",
                 call->node->row->name);
}

/* Calls what<T, W, CHUNKS>(arguments …) of the narrowest width that holds a row; `what` is a template of a
 * function object. */
template <template <typename, int, int> class What, typename... Arguments>
static inline kp_status kp_with_rows(const kp_row_plan &plan, Arguments &&...arguments) {
  if (plan.half) {
    if (!plan.wide) return What<kp_half, 1, 0>::run(plan, arguments...);
    if (plan.chunks <= 64) return What<kp_half, 8, 2>::run(plan, arguments...);
    if (plan.chunks <= 128) return What<kp_half, 8, 4>::run(plan, arguments...);
    return What<kp_half, 8, 0>::run(plan, arguments...);
  }
  if (!plan.wide) return What<float, 1, 0>::run(plan, arguments...);
  if (plan.chunks <= 128) return What<float, 4, 4>::run(plan, arguments...);
  if (plan.chunks <= 256) return What<float, 4, 8>::run(plan, arguments...);
  return What<float, 4, 0>::run(plan, arguments...);
}

/* Blocks of a kernel whose teams take one row after the other: as many as run at once, and not more than
 * `most`. */
static inline int kp_resident_blocks(const kp_call *call, const void *kernel, int threads, int64_t wanted,
                                     int64_t most) {
  int per_processor = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, threads, 0);
  int64_t blocks = (int64_t)(per_processor < 1 ? 1 : per_processor) * kp_cuda_of(call)->processors;
  blocks = blocks > most ? most : blocks;
  return (int)(wanted < 1 ? 1 : wanted < blocks ? wanted : blocks);
}

#endif
