/* A row of logits is spread over the shared memory of a cluster of eight blocks: 101 KB of it at V = 50304,
 * 257 KB at V = 128256.  Every block has the same columns of all of its cluster's rows, so that what belongs
 * to the columns, and the sums over rows, stay in registers; and every thread has the same few packs, which
 * it copies to shared memory, reads and overwrites alone.  Blocks meet once a row, for the logsumexp, and the
 * next row's exponentials are summed up while they wait for each other.
 *
 * 2 bytes read and 2 written a logit bound it: 0.8 ms for 16384 rows of 50304 at 4.2 TB/s.  Beside that stand
 * some ten instructions a logit, fifteen with a time or a scale, 40 to 60 % of what can be issued meanwhile.
 *
 * A logit is factor · raw, where `raw` is the product with its time or its scale and the factor is positive:
 * largest numbers are looked for among raw ones. */
#include "backend/cuda/linear_cross_entropy_cluster.cuh"

enum { CLUSTER = 8, PACKS = 4, STAGES = 3, SIZE = 8 /* of a pack */, MOST_THREADS = 512 };
enum { PARTS = CLUSTER * MOST_THREADS / 32 };

enum cluster_head { PLAIN, TIMED, SCALED };

struct cluster_job {
  kp_half *products;
  kp_loss_rows r;
  gradient_parts to;
  kp_numbers time, term; /* by row; by column: the time weight or the scale */
  float factor;
  int slice; /* packs of a block */
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

static constexpr float LOG2_E = 1.44269504f;

/* ---- between blocks ---- */

__device__ static inline int rank_in_cluster() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/* All threads of the cluster; what they wrote to shared memory before they arrive is seen after the wait. */
__device__ static inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

__device__ static inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/* Writes to what `at` is in block `rank`. */
__device__ static inline void store_there(float2 *at, int rank, float2 value) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"((uint32_t)__cvta_generic_to_shared(at)), "r"(rank));
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(there), "f"(value.x), "f"(value.y)
               : "memory");
}

/* ---- numbers ---- */

__device__ static inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* The larger number; what is not a number shows in the sum of exponentials. */
__device__ static inline float warp_largest(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

/* A pair of bfloat16 is two halves of a word: each becomes a float by a shift or a mask. */
__device__ static inline void widen(const uint4 &pack, float (&z)[SIZE]) {
  const uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    z[2 * i] = __uint_as_float(word[i] << 16);
    z[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
  }
}

__device__ static inline uint4 narrow(const float (&g)[SIZE]) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(g[2 * i], g[2 * i + 1]);
    word[i] = *(const uint32_t *)&pair;
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
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
  static constexpr int TERMS = HEAD == PLAIN ? 1 : PACKS * SIZE;
  const cluster_job &job;
  uint4 *ring;    /* this thread's first pack of the first stage */
  int packs;      /* of this block, from this thread's first on */
  int64_t column; /* of this thread's first pack */
  int step;       /* columns from one of its packs to the next */
  int steps;      /* rows of this cluster */
  int64_t cluster, clusters;
  float term[TERMS], sum[TERMS];

  __device__ cluster_thread(const cluster_job &its_job, uint4 *shared, int rank)
      : job(its_job), ring(shared + threadIdx.x), step((int)blockDim.x * SIZE), cluster(blockIdx.x / CLUSTER),
        clusters(gridDim.x / CLUSTER) {
    const int64_t first = (int64_t)rank * job.slice, all = job.r.pitch / SIZE - first;
    packs = (int)(all < job.slice ? all : job.slice) - (int)threadIdx.x;
    column = (first + threadIdx.x) * SIZE;
    steps = (int)((job.r.rows - cluster + clusters - 1) / clusters);
    if constexpr (HEAD != PLAIN)
#pragma unroll
      for (int i = 0; i < TERMS; i++) {
        const int64_t v = column + i / SIZE * step + i % SIZE;
        term[i] = v < job.r.columns ? job.term[v] : HEAD == SCALED ? 1.0f : 0.0f;
        sum[i] = 0;
      }
  }

  __device__ int64_t row(int i) const {
    return cluster + i * clusters;
  }
  __device__ bool has(int k) const {
    return k * (int)blockDim.x < packs;
  }
  __device__ uint4 *slot(int stage, int k) const {
    return ring + stage * job.slice + k * blockDim.x;
  }
  __device__ float term_of(int i) const {
    return HEAD == PLAIN ? 0 : term[HEAD == PLAIN ? 0 : i];
  }

  __device__ row_in_hand look(int i) const {
    row_in_hand it = {0, 0};
    if (i >= steps) return it;
    if (HEAD == TIMED) it.time = job.time[job.r.first + row(i)];
    it.target = job.r.targets[job.r.first + row(i)];
    return it;
  }

  /* Starts the copy of row i, if there is one. */
  __device__ void fetch(int i, int stage) const {
    if (i < steps) {
      const kp_half *from = job.products + row(i) * job.r.pitch + column;
#pragma unroll
      for (int k = 0; k < PACKS; k++)
        if (has(k))
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                           (uint32_t)__cvta_generic_to_shared(slot(stage, k))),
                       "l"(from + k * step)
                       : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  /* What stands behind the last column counts for nothing. */
  __device__ void close_row(int stage) const {
    if (job.r.columns == job.r.pitch) return;
#pragma unroll 1
    for (int k = 0; k < PACKS; k++) {
      const int64_t v = column + k * step;
      if (!has(k) || v + SIZE <= job.r.columns) continue;
      for (int64_t j = job.r.columns - v; j < SIZE; j++)
        ((kp_half *)slot(stage, k))[j] = __ushort_as_bfloat16(0xff80); /* -∞ */
    }
  }

  /* The warp's largest raw number, and its sum of exponentials. */
  __device__ float2 part_of(int stage, float time) const {
    uint4 pack[PACKS];
    float largest = -FLT_MAX;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) {
        float z[SIZE];
        pack[k] = *slot(stage, k);
        widen(pack[k], z);
#pragma unroll
        for (int j = 0; j < SIZE; j++)
          largest = fmaxf(largest, raw_of<HEAD>(z[j], term_of(k * SIZE + j), time));
      }
    largest = warp_largest(largest);
    const float unit = job.factor * LOG2_E, from = largest * unit;
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
    constexpr int MOST = PARTS / 32;
    const int lane = threadIdx.x % 32;
    float2 part[MOST];
    float largest = -FLT_MAX, total = 0;
#pragma unroll
    for (int q = 0; q < MOST; q++) {
      part[q] = lane + 32 * q < count ? parts[lane + 32 * q] : make_float2(-FLT_MAX, 0);
      largest = fmaxf(largest, part[q].x);
    }
    largest = warp_largest(largest);
#pragma unroll
    for (int q = 0; q < MOST; q++) total += part[q].y * exp2_of((part[q].x - largest) * job.factor * LOG2_E);
    return job.factor * largest + logf(kp_warp_sum(total));
  }

  /* The gradient of row i but for its target, in the place of the products; gives the part of that of its
   * time.  `share` is that of the row, times the factor. */
  __device__ float differentiate(int i, int stage, float time, float logsumexp, float share) {
    const float unit = job.factor * LOG2_E, from = logsumexp * LOG2_E;
    kp_half *to = job.products + row(i) * job.r.pitch + column;
    float by_time = 0;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) {
        float z[SIZE], g[SIZE];
        widen(*slot(stage, k), z);
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
        *(uint4 *)(to + k * step) = narrow(g);
      }
    return by_time;
  }

  /* A row that is ignored. */
  __device__ void clear(int i) const {
    kp_half *to = job.products + row(i) * job.r.pitch + column;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
      if (has(k)) *(uint4 *)(to + k * step) = make_uint4(0, 0, 0, 0);
  }

  /* By the thread that has the target: the loss, and the target's own gradient. */
  __device__ void settle(int i, int stage, int64_t target, float time, float logsumexp, float share,
                         float *by_time) {
    const int distance = (int)(target - column);
    int k = -1, j = 0;
#pragma unroll
    for (int other = 0; other < PACKS; other++)
      if (has(other) && (unsigned)(distance - other * step) < SIZE) {
        k = other;
        j = distance - other * step;
      }
    if (k < 0) return;
    const float z = __bfloat162float(((const kp_half *)slot(stage, k))[j]);
    const float own = HEAD == PLAIN ? 0 : job.term[target];
    const float logit = job.factor * raw_of<HEAD>(z, own, time);
    const float p = exp2_of((logit - logsumexp) * LOG2_E);
    job.r.loss[job.r.first + row(i)] = logsumexp - logit;
    job.products[row(i) * job.r.pitch + target] =
        __float2bfloat16_rn(share * (p - 1) * (HEAD == SCALED ? own : 1.0f));
    if constexpr (HEAD != PLAIN) {
#pragma unroll
      for (int e = 0; e < TERMS; e++)
        if (e / SIZE * step + e % SIZE == distance) sum[e] -= share * (HEAD == TIMED ? time : z);
      *by_time -= share * own;
    }
  }

  /* All of row i behind its logsumexp. */
  __device__ void finish(int i, int stage, const row_in_hand &it, float logsumexp, float share, int part) {
    const int64_t n = row(i), target = kp_target_of(job.r, n, part == 0 && threadIdx.x == 0);
    float by_time = 0;
    if (part == 0 && threadIdx.x == 0) job.r.logsumexp[job.r.first + n] = logsumexp;
    if (target < 0) {
      clear(i);
      if (part == 0 && threadIdx.x == 0) job.r.loss[job.r.first + n] = 0;
    } else {
      by_time = differentiate(i, stage, it.time, logsumexp, share);
      settle(i, stage, target, it.time, logsumexp, share, &by_time);
    }
    if constexpr (HEAD == TIMED) {
      by_time = kp_warp_sum(by_time);
      if (threadIdx.x % 32 == 0 && job.to.by_time != NULL) job.to.by_time[n * job.to.strips + part] = by_time;
    }
  }

  __device__ void leave_sums() const {
    float *const to = HEAD == TIMED ? job.to.by_weight : job.to.by_scale;
    if constexpr (HEAD != PLAIN)
#pragma unroll
      for (int e = 0; e < TERMS; e++) {
        const int64_t v = column + e / SIZE * step + e % SIZE;
        if (to != NULL && has(e / SIZE) && v < job.r.columns) to[cluster * job.r.pitch + v] = sum[e];
      }
  }
};

template <int PENDING> __device__ static inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Leaves a warp's part of a row with all blocks of the cluster. */
__device__ static inline void send(float2 *parts, int part, float2 value) {
  const int lane = threadIdx.x % 32;
  if (lane < CLUSTER) store_there(parts + part, lane, value);
}

template <cluster_head HEAD> __device__ static inline void walk(cluster_thread<HEAD> &own, int rank) {
  __shared__ float2 parts[2][PARTS]; /* of this row and of the next */
  const int warps = blockDim.x / 32, part = rank * warps + threadIdx.x / 32;
  const float share = *own.job.to.share * own.job.factor;
  row_in_hand now = own.look(0), next = own.look(1);
  int stage = 0;
  for (int s = 0; s < STAGES; s++) own.fetch(s, s);
  cluster_arrive(); /* nobody writes into a block that has not begun */
  cluster_wait();
  wait_for_copies<STAGES - 1>();
  own.close_row(0);
  send(parts[0], part, own.part_of(0, now.time));
  cluster_arrive();
  for (int i = 0; i < own.steps; i++) {
    const bool more = i + 1 < own.steps;
    const int ahead = stage + 1 == STAGES ? 0 : stage + 1;
    const row_in_hand after = own.look(i + 2);
    float2 value = make_float2(0, 0);
    wait_for_copies<STAGES - 2>();
    if (more) {
      own.close_row(ahead);
      value = own.part_of(ahead, next.time);
    }
    cluster_wait();
    const float logsumexp = own.merge(parts[i % 2], CLUSTER * warps);
    if (more) {
      send(parts[(i + 1) % 2], part, value);
      cluster_arrive();
    }
    own.finish(i, stage, now, logsumexp, share, part);
    own.fetch(i + STAGES, stage);
    stage = ahead, now = next, next = after;
  }
  own.leave_sums();
}
#endif

/* Two large blocks a processor where registers hold nothing of the columns; more small ones. */
template <cluster_head HEAD>
static __global__ void __launch_bounds__(MOST_THREADS, HEAD == PLAIN ? 2 : 1)
    cluster_loss_kernel(const __grid_constant__ cluster_job job) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ uint4 ring[];
  const int rank = rank_in_cluster();
  cluster_thread<HEAD> own(job, ring, rank);
  walk(own, rank);
#endif
}

/* ---- launching ---- */

static int64_t slice_of(int64_t pitch) {
  return (pitch / SIZE + CLUSTER - 1) / CLUSTER;
}

bool kp_cluster_loss_fits(const kp_call *call, const kp_loss_rows *rows, const kp_scaled_head *head) {
  enum { SMALL = 4096 };
  return kp_is_half(call) && kp_cuda_of(call)->major == 9 && rows->columns >= SMALL &&
         slice_of(rows->pitch) <= PACKS * MOST_THREADS && (head->time.at == NULL || head->scale.at == NULL) &&
         head->factor > 0;
}

/* All clusters that run at once, and each with some rows; it takes every so-many-th. */
template <cluster_head HEAD>
static kp_status launch(const kp_call *call, const cluster_job &job, gradient_parts *to, kp_error *error) {
  enum { LEAST_ROWS = 4 };
  const int64_t even = (job.r.rows + LEAST_ROWS - 1) / LEAST_ROWS;
  const int64_t most = HEAD == PLAIN || to->groups > even ? even : to->groups;
  const size_t bytes = (size_t)(STAGES * job.slice) * sizeof(uint4);
  const int threads = (job.slice + PACKS * 32 - 1) / (PACKS * 32) * 32;
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
