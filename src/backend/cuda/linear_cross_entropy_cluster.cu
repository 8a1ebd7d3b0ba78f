/* A row of logits is spread over the shared memory of a cluster of eight blocks: 101 KB of it at V = 50304,
 * 257 KB at V = 128256.  Every block has the same columns of all of its cluster's rows, so that what belongs
 * to the columns, and the sums over rows, stay in registers; and every thread has the same few packs, which
 * it copies to shared memory, reads and overwrites alone.  Once a row the warps tell all blocks of the
 * cluster what they know of its logsumexp; meanwhile the next row's exponentials are summed up.
 *
 * 2 bytes read and 2 written a logit bound it: 0.8 ms for 16384 rows of 50304 at 4.2 TB/s.  Beside that stand
 * some thirteen instructions a logit, twenty with a time or a scale.
 *
 * A logit is factor · raw, where `raw` is the product with its time or its scale and the factor is positive:
 * largest numbers are looked for among raw ones. */
#include "backend/cuda/linear_cross_entropy_cluster.cuh"

#include "backend/cuda/cluster.cuh"

enum { CLUSTER = 8, STAGES = 3, SIZE = 8 /* of a pack */, MOST_PACKS = 2048 /* of a block */ };

enum cluster_head { PLAIN, TIMED, SCALED };

/* Packs of a thread: few where it holds two numbers for each of their columns. */
template <cluster_head HEAD> struct cluster_shape {
  static constexpr int PACKS = HEAD == PLAIN ? 8 : 4, THREADS = MOST_PACKS / PACKS;
  static constexpr int PARTS = CLUSTER * THREADS / 32; /* of a row, one a warp */
  static constexpr int BLOCKS = HEAD == PLAIN ? 3 : 1; /* of a processor, at the most threads */
};

struct cluster_job {
  kp_half *products;
  kp_loss_rows r;
  gradient_parts to;
  kp_numbers time, term; /* by row; by column: the time weight or the scale */
  float factor;
  int slice; /* packs of a block */
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

static constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

/* ---- numbers ---- */

__device__ static inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ static inline float log2_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* The larger number; what is not a number shows in the sum of exponentials. */
__device__ static inline float warp_largest(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

__device__ static inline float low_of(uint32_t pair) {
  return __uint_as_float(pair << 16);
}

__device__ static inline float high_of(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

/* A pair of bfloat16 is two halves of a word: each becomes a float by a shift or a mask. */
__device__ static inline void widen(const uint4 &pack, float (&z)[SIZE]) {
  const uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    z[2 * i] = low_of(word[i]);
    z[2 * i + 1] = high_of(word[i]);
  }
}

__device__ static inline uint32_t pair_of(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *(const uint32_t *)&pair;
}

__device__ static inline uint4 narrow(const float (&g)[SIZE]) {
  return make_uint4(pair_of(g[0], g[1]), pair_of(g[2], g[3]), pair_of(g[4], g[5]), pair_of(g[6], g[7]));
}

/* By halves, without widening. */
__device__ static inline uint32_t larger_pair(uint32_t a, uint32_t b) {
  uint32_t larger;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  return larger;
}

template <cluster_head HEAD> __device__ static inline float raw_of(float z, float term, float time) {
  if constexpr (HEAD == TIMED) return fmaf(time, term, z);
  if constexpr (HEAD == SCALED) return z * term;
  return z;
}

/* ---- a thread's part of the rows ---- */

/* A row that a cluster has in hand. */
struct row_in_hand {
  float time;
  int target; /* as it stands in memory */
};

template <cluster_head HEAD> struct cluster_thread {
  static constexpr int PACKS = cluster_shape<HEAD>::PACKS, TERMS = HEAD == PLAIN ? 1 : PACKS * SIZE;
  const cluster_job &job;
  int packs;               /* of this block, from this thread's first on */
  int column;              /* of this thread's first pack */
  int step;                /* columns from one of its packs to the next */
  int row, clusters, left; /* the row in hand, the distance of rows, and how many there are from it on */
  kp_half *here, *coming; /* this thread's first pack in the row in hand, and in the next one to be fetched */
  uint32_t ring, stage_bytes; /* its place in the first stage; from one stage to the next */
  float unit;                 /* of raw numbers in exponents of 2 */
  float term[TERMS], sum[TERMS];

  __device__ cluster_thread(const cluster_job &its_job, const uint4 *shared, int rank)
      : job(its_job), step((int)blockDim.x * SIZE), row(blockIdx.x / CLUSTER), clusters(gridDim.x / CLUSTER),
        ring(kp_shared_at(shared + threadIdx.x)), stage_bytes((uint32_t)(job.slice * sizeof(uint4))),
        unit(job.factor * LOG2_E) {
    const int first = rank * job.slice, all = (int)(job.r.pitch / SIZE) - first;
    packs = (all < job.slice ? all : job.slice) - (int)threadIdx.x;
    column = (first + (int)threadIdx.x) * SIZE;
    left = ((int)job.r.rows - row + clusters - 1) / clusters;
    here = coming = job.products + row * job.r.pitch + column;
    if constexpr (HEAD != PLAIN)
#pragma unroll
      for (int i = 0; i < TERMS; i++) {
        const int v = column + i / SIZE * step + i % SIZE;
        term[i] = v < job.r.columns ? job.term[v] : HEAD == SCALED ? 1.0f : 0.0f;
        sum[i] = 0;
      }
  }

  __device__ bool has(int k) const {
    return k * (int)blockDim.x < packs;
  }
  __device__ uint32_t slot(int stage, int k) const {
    return ring + stage * stage_bytes + k * blockDim.x * (uint32_t)sizeof(uint4);
  }
  __device__ float term_of(int i) const {
    return HEAD == PLAIN ? 0 : term[HEAD == PLAIN ? 0 : i];
  }

  /* What is known of the row that is `ahead` of the one in hand. */
  __device__ row_in_hand look(int ahead) const {
    row_in_hand it = {0, 0};
    if (ahead >= left) return it;
    const int64_t n = job.r.first + row + ahead * clusters;
    if (HEAD == TIMED) it.time = job.time[n];
    it.target = job.r.targets[n];
    return it;
  }

  /* Starts the copy of the next row, if there is one: that which is `ahead` of the one in hand. */
  __device__ void fetch(int ahead, int stage) {
    if (ahead < left) {
#pragma unroll
      for (int k = 0; k < PACKS; k++)
        if (has(k))
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(slot(stage, k)),
                       "l"(coming + k * step)
                       : "memory");
    }
    coming += clusters * job.r.pitch;
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  __device__ void advance() {
    row += clusters;
    left--;
    here += clusters * job.r.pitch;
  }

  /* What stands behind the last column counts for nothing: it becomes -∞. */
  __device__ void close_row(int stage) const {
    if (job.r.columns == job.r.pitch) return;
#pragma unroll 1
    for (int k = 0; k < PACKS; k++) {
      const int v = column + k * step;
      if (!has(k) || v + SIZE <= job.r.columns) continue;
      for (int j = (int)job.r.columns - v; j < SIZE; j++)
        asm volatile("st.shared.b16 [%0], %1;" ::"r"(slot(stage, k) + 2 * j), "h"((unsigned short)0xff80)
                     : "memory");
    }
  }

  /* This thread's largest raw number. */
  __device__ float largest_of(const uint4 (&pack)[PACKS], float time) const {
    if constexpr (HEAD == PLAIN) {
      uint32_t pair = 0xff7fff7fu; /* the least numbers */
#pragma unroll
      for (int k = 0; k < PACKS; k++)
        if (has(k))
          pair = larger_pair(
              pair, larger_pair(larger_pair(pack[k].x, pack[k].y), larger_pair(pack[k].z, pack[k].w)));
      return fmaxf(low_of(pair), high_of(pair));
    } else {
      float largest = -FLT_MAX;
#pragma unroll
      for (int k = 0; k < PACKS; k++)
        if (has(k)) {
          float z[SIZE];
          widen(pack[k], z);
#pragma unroll
          for (int j = 0; j < SIZE; j++)
            largest = fmaxf(largest, raw_of<HEAD>(z[j], term_of(k * SIZE + j), time));
        }
      return largest;
    }
  }

  /* The warp's largest raw number, and its sum of exponentials. */
  __device__ float2 part_of(int stage, float time) const {
    uint4 pack[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) pack[k] = kp_load_shared(slot(stage, k));
    const float largest = warp_largest(largest_of(pack, time)), from = largest * unit;
    float total = 0;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) {
        float z[SIZE];
        widen(pack[k], z);
#pragma unroll
        for (int j = 0; j < SIZE; j++)
          total += exp2_of(fmaf(raw_of<HEAD>(z[j], term_of(k * SIZE + j), time), unit, -from));
      }
    return make_float2(largest, kp_warp_sum(total));
  }

  /* Logsumexp of a row from the parts of all warps of the cluster. */
  __device__ float merge(const float2 *parts, int count) const {
    constexpr int MOST = cluster_shape<HEAD>::PARTS / 32;
    const int lane = threadIdx.x % 32;
    float2 part[MOST];
    float largest = -FLT_MAX, total = 0;
#pragma unroll
    for (int q = 0; q < MOST; q++)
      if (32 * q < count) {
        part[q] = lane + 32 * q < count ? parts[lane + 32 * q] : make_float2(-FLT_MAX, 0);
        largest = fmaxf(largest, part[q].x);
      }
    largest = warp_largest(largest);
#pragma unroll
    for (int q = 0; q < MOST; q++)
      if (32 * q < count) total += part[q].y * exp2_of((part[q].x - largest) * unit);
    return job.factor * largest + LN_2 * log2_of(kp_warp_sum(total));
  }

  /* The gradient of the row in hand but for its target, in the place of the products; gives this thread's
   * part of that of its time.  `share` is that of a row, times the factor. */
  __device__ float differentiate(int stage, float time, float logsumexp, float share) {
    const float from = logsumexp * LOG2_E;
    float by_time = 0;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) {
        float z[SIZE], g[SIZE];
        widen(kp_load_shared(slot(stage, k)), z);
#pragma unroll
        for (int j = 0; j < SIZE; j++) {
          const float own = term_of(k * SIZE + j);
          g[j] = share * exp2_of(fmaf(raw_of<HEAD>(z[j], own, time), unit, -from));
          if constexpr (HEAD == TIMED) {
            sum[k * SIZE + j] = fmaf(g[j], time, sum[k * SIZE + j]);
            by_time = fmaf(g[j], own, by_time);
          }
          if constexpr (HEAD == SCALED) {
            sum[k * SIZE + j] = fmaf(g[j], z[j], sum[k * SIZE + j]);
            g[j] *= own;
          }
        }
        kp_store_global(here + k * step, narrow(g));
      }
    return by_time;
  }

  /* A row that is ignored. */
  __device__ void clear() const {
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) kp_store_global(here + k * step, make_uint4(0, 0, 0, 0));
  }

  /* By the thread that has the target: the loss, and the target's own gradient. */
  __device__ void settle(int stage, int target, float time, float logsumexp, float share, float *by_time) {
    const int distance = target - column;
    int k = -1;
#pragma unroll
    for (int other = 0; other < PACKS; other++)
      if (has(other) && (unsigned)(distance - other * step) < SIZE) k = other;
    if (k < 0) return;
    uint32_t bits;
    asm volatile("{.reg .b16 half; ld.shared.b16 half, [%1]; mov.b32 %0, {0, half};}"
                 : "=r"(bits)
                 : "r"(slot(stage, k) + 2 * (distance - k * step)));
    const float z = __uint_as_float(bits), own = HEAD == PLAIN ? 0 : job.term[target];
    const float logit = job.factor * raw_of<HEAD>(z, own, time);
    const float p = exp2_of((logit - logsumexp) * LOG2_E);
    job.r.loss[job.r.first + row] = logsumexp - logit;
    here[distance] = __float2bfloat16_rn(share * (p - 1) * (HEAD == SCALED ? own : 1.0f));
    if constexpr (HEAD != PLAIN) {
#pragma unroll
      for (int e = 0; e < TERMS; e++)
        if (e / SIZE * step + e % SIZE == distance) sum[e] -= share * (HEAD == TIMED ? time : z);
      *by_time -= share * own;
    }
  }

  /* All of the row in hand behind its logsumexp.  `part` is this warp's number in the cluster. */
  __device__ void finish(int stage, const row_in_hand &it, float logsumexp, float share, int part) {
    const bool speaks = part == 0 && threadIdx.x == 0;
    const int target = (int)kp_target_of(job.r, it.target, row, speaks);
    float by_time = 0;
    if (speaks) job.r.logsumexp[job.r.first + row] = logsumexp;
    if (target < 0) {
      clear();
      if (speaks) job.r.loss[job.r.first + row] = 0;
    } else {
      by_time = differentiate(stage, it.time, logsumexp, share);
      settle(stage, target, it.time, logsumexp, share, &by_time);
    }
    if constexpr (HEAD == TIMED) {
      by_time = kp_warp_sum(by_time);
      if (threadIdx.x % 32 == 0 && job.to.by_time != NULL)
        job.to.by_time[row * job.to.strips + part] = by_time;
    }
  }

  /* The sums over all rows of `cluster`. */
  __device__ void leave_sums(int cluster) const {
    float *const to = HEAD == TIMED ? job.to.by_weight : job.to.by_scale;
    if constexpr (HEAD != PLAIN)
#pragma unroll
      for (int e = 0; e < TERMS; e++) {
        const int v = column + e / SIZE * step + e % SIZE;
        if (to != NULL && has(e / SIZE) && v < job.r.columns) to[cluster * job.r.pitch + v] = sum[e];
      }
  }
};

/* What a block hears of a row, of this one and of the next: a pair a warp of the cluster. */
template <cluster_head HEAD> struct heard { float2 parts[2][cluster_shape<HEAD>::PARTS]; };

/* Leaves a warp's part of a row with all blocks of the cluster. */
__device__ static inline void send(const float2 *at, float2 value) {
  const int lane = threadIdx.x % 32;
  if (lane < CLUSTER) kp_store_there(kp_shared_at(at), lane, value);
  __syncwarp();
}

/* The parts of the next row are written where those of the last one were: everybody has read these before he
 * arrives for this row. */
template <cluster_head HEAD>
__device__ static inline void walk(cluster_thread<HEAD> &own, heard<HEAD> *all, int rank) {
  const int warps = blockDim.x / 32, part = rank * warps + threadIdx.x / 32, steps = own.left;
  const float share = *own.job.to.share * own.job.factor;
  row_in_hand now = own.look(0), next = own.look(1);
  int stage = 0;
  for (int s = 0; s < STAGES; s++) own.fetch(s, s);
  kp_cluster_arrive(); /* nobody writes into a block that has not begun */
  kp_cluster_wait();
  kp_wait_for_copies<STAGES - 1>();
  own.close_row(0);
  send(&all->parts[0][part], own.part_of(0, now.time));
  kp_cluster_arrive();
  for (int i = 0; i < steps; i++) {
    const bool more = i + 1 < steps;
    const int ahead = stage + 1 == STAGES ? 0 : stage + 1;
    const row_in_hand after = own.look(2);
    float2 value = make_float2(0, 0);
    kp_wait_for_copies<STAGES - 2>();
    if (more) {
      own.close_row(ahead);
      value = own.part_of(ahead, next.time);
    }
    kp_cluster_wait();
    const float logsumexp = own.merge(all->parts[i % 2], CLUSTER * warps);
    if (more) {
      send(&all->parts[(i + 1) % 2][part], value);
      kp_cluster_arrive();
    }
    own.finish(stage, now, logsumexp, share, part);
    own.fetch(STAGES, stage);
    own.advance();
    stage = ahead, now = next, next = after;
  }
  own.leave_sums(blockIdx.x / CLUSTER);
}
#endif

template <cluster_head HEAD>
static __global__ void __launch_bounds__(cluster_shape<HEAD>::THREADS, cluster_shape<HEAD>::BLOCKS)
    cluster_loss_kernel(const __grid_constant__ cluster_job job) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ uint4 ring[];
  __shared__ heard<HEAD> all;
  const int rank = kp_cluster_rank();
  cluster_thread<HEAD> own(job, ring, rank);
  walk(own, &all, rank);
#endif
}

/* ---- launching ---- */

static int64_t slice_of(int64_t pitch) {
  return (pitch / SIZE + CLUSTER - 1) / CLUSTER;
}

bool kp_cluster_loss_fits(const kp_call *call, const kp_loss_rows *rows, const kp_scaled_head *head) {
  enum { SMALL = 4096 };
  return kp_is_half(call) && kp_cuda_of(call)->major == 9 && rows->columns >= SMALL &&
         slice_of(rows->pitch) <= MOST_PACKS && (head->time.at == NULL || head->scale.at == NULL) &&
         head->factor > 0;
}

/* All clusters that run at once, and each with some rows; it takes every so-many-th. */
template <cluster_head HEAD>
static kp_status launch(const kp_call *call, const cluster_job &job, gradient_parts *to, kp_error *error) {
  enum { LEAST_ROWS = 4 };
  const int64_t even = (job.r.rows + LEAST_ROWS - 1) / LEAST_ROWS;
  const int64_t most = HEAD == PLAIN || to->groups > even ? even : to->groups;
  const size_t bytes = (size_t)(STAGES * job.slice) * sizeof(uint4);
  const int unit = 32 * cluster_shape<HEAD>::PACKS, threads = (job.slice + unit - 1) / unit * 32;
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t config = {};
  int clusters = 0;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = CLUSTER;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.gridDim = CLUSTER;
  config.blockDim = (unsigned)threads;
  config.dynamicSmemBytes = bytes;
  config.stream = kp_cuda_of(call)->stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(cluster_loss_kernel<HEAD>,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "the loss head", error));
  KP_TRY(kp_cuda_check(cudaOccupancyMaxActiveClusters(&clusters, cluster_loss_kernel<HEAD>, &config),
                       "the loss head", error));
  if (clusters > most) clusters = (int)most;
  if (clusters < 1) clusters = 1;
  config.gridDim = (unsigned)(clusters * CLUSTER);
  to->groups = clusters;
  to->strips = CLUSTER * threads / 32;
  cluster_job placed = job;
  placed.to = *to;
  return kp_cuda_check(cudaLaunchKernelEx(&config, cluster_loss_kernel<HEAD>, placed), "the loss head",
                       error);
}

kp_status kp_cluster_loss(const kp_call *call, kp_half *products, const kp_loss_rows *rows,
                          const kp_scaled_head *head, gradient_parts *to, kp_error *error) {
  cluster_job job = {};
  job.products = products;
  job.r = *rows;
  job.time = head->time;
  job.term = head->time.at != NULL ? head->time_weight : head->scale;
  job.factor = head->factor;
  job.slice = (int)slice_of(rows->pitch);
  if (head->time.at != NULL) return launch<TIMED>(call, job, to, error);
  if (head->scale.at != NULL) return launch<SCALED>(call, job, to, error);
  return launch<PLAIN>(call, job, to, error);
}
