/* What the two losses over a vocabulary share: the logarithm of a row's sum of exponentials in one pass, the
 * mean over the targets that count, and their number.
 *
 * A `head` turns what stands in memory into logits: kp_plain_head for logits themselves, kp_scaled_head for
 * products that still lack their time and scale. */
#ifndef KAPPA_BACKEND_CUDA_CROSS_ENTROPY_CUH
#define KAPPA_BACKEND_CUDA_CROSS_ENTROPY_CUH

#include <float.h>

#include "backend/cuda/kernel.cuh"

/* exp for bfloat16 rows needs no more than what the special function unit gives. */
template <typename T> __device__ static inline float kp_row_exp(float x);
template <> __device__ inline float kp_row_exp<float>(float x) {
  return expf(x);
}
template <> __device__ inline float kp_row_exp<kp_half>(float x) {
  return __expf(x);
}

struct kp_plain_head {
  /* Of row n, for all of its columns. */
  __device__ float time_of(int64_t n) const {
    (void)n;
    return 0;
  }
  __device__ float logit(float product, float time, int64_t v) const {
    (void)time, (void)v;
    return product;
  }
};

/* logit = factor · scale ⊙ (product + time · time weight); what is absent is 1, 0. */
struct kp_scaled_head {
  kp_numbers time, time_weight, scale;
  float factor;
  __device__ float time_of(int64_t n) const { return time.at == NULL ? 0 : time[n]; }
  __device__ float scale_of(int64_t v) const { return scale.at == NULL ? factor : factor * scale[v]; }
  __device__ float weight_of(int64_t v) const { return time.at == NULL ? 0 : time_weight[v]; }
  __device__ float logit(float product, float at, int64_t v) const {
    return scale_of(v) * (product + at * weight_of(v));
  }
};

/* ---- Σ exp in one pass ---- */

/* sum = Σ exp(x - largest).  A NaN among x makes the sum one. */
struct kp_exponentials {
  float largest, sum;
};

template <typename T, int COUNT>
__device__ static inline void kp_take_exponentials(kp_exponentials *e, const float (&x)[COUNT]) {
  float largest = e->largest;
#pragma unroll
  for (int i = 0; i < COUNT; i++) largest = fmaxf(largest, x[i]);
  float sum = e->sum * kp_row_exp<T>(e->largest - largest);
#pragma unroll
  for (int i = 0; i < COUNT; i++) sum += kp_row_exp<T>(x[i] - largest);
  *e = {largest, sum};
}

__device__ static inline kp_exponentials kp_merge_exponentials(kp_exponentials a, kp_exponentials b) {
  const float largest = fmaxf(a.largest, b.largest);
  return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
}

__device__ static inline kp_exponentials kp_warp_exponentials(kp_exponentials e) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const kp_exponentials other = {__shfl_xor_sync(0xffffffffu, e.largest, offset),
                                   __shfl_xor_sync(0xffffffffu, e.sum, offset)};
    e = kp_merge_exponentials(e, other);
  }
  return e;
}

/* Rows of logits and what is made of them. */
struct kp_loss_rows {
  int64_t rows, columns, pitch;
  int64_t first; /* of the first row, in the tensors below */
  const int32_t *targets;
  float *logsumexp, *loss; /* by row */
  int32_t ignore;
  kp_device_step *step;
  int node;
};

/* The target of row n, or -1 where it is ignored; one out of range is reported and read as 0. */
__device__ static inline int64_t kp_target_of(const kp_loss_rows &r, int32_t target, int64_t n, bool report) {
  if (target == r.ignore) return -1;
  if (target >= 0 && target < r.columns) return target;
  if (report) kp_report(r.step, KP_FAULT_TARGET, r.node, r.first + n, target, r.columns);
  return 0;
}

__device__ static inline int64_t kp_target_of(const kp_loss_rows &r, int64_t n, bool report) {
  return kp_target_of(r, r.targets[r.first + n], n, report);
}

/* What one of THREADS threads sees of row n: whole packs, four at a time so that their loads overlap, then
 * what is left of the row. */
template <typename T, int THREADS, typename Head>
__device__ static inline kp_exponentials kp_row_part(const T *row, const kp_loss_rows &r, const Head &head,
                                                     float time, int lane) {
  constexpr int SIZE = kp_pack<T>::size, PACKS = 4;
  const int64_t packs = r.pitch % SIZE == 0 ? r.columns / SIZE : 0;
  kp_exponentials e = {-FLT_MAX, 0};
  int64_t i = lane;
  for (; i + (PACKS - 1) * THREADS < packs; i += PACKS * THREADS) {
    kp_pack<T> pack[PACKS];
    float x[PACKS * SIZE];
#pragma unroll
    for (int k = 0; k < PACKS; k++) pack[k] = kp_load(row + (i + k * THREADS) * SIZE);
#pragma unroll
    for (int j = 0; j < PACKS * SIZE; j++)
      x[j] = head.logit(kp_to_float(pack[j / SIZE].value[j % SIZE]), time,
                        (i + j / SIZE * THREADS) * SIZE + j % SIZE);
    kp_take_exponentials<T>(&e, x);
  }
  for (; i < packs; i += THREADS) {
    const kp_pack<T> pack = kp_load(row + i * SIZE);
    float x[SIZE];
#pragma unroll
    for (int j = 0; j < SIZE; j++) x[j] = head.logit(kp_to_float(pack.value[j]), time, i * SIZE + j);
    kp_take_exponentials<T>(&e, x);
  }
  for (int64_t v = packs * SIZE + lane; v < r.columns; v += THREADS) {
    const float x[1] = {head.logit(kp_to_float(row[v]), time, v)};
    kp_take_exponentials<T>(&e, x);
  }
  return e;
}

/* What is known of row n at last. */
template <typename T, typename Head>
__device__ static inline void kp_leave_loss(const kp_loss_rows &r, int64_t n, kp_exponentials e,
                                            const Head &head, const T *row) {
  const float logsumexp = e.largest + logf(e.sum);
  const int64_t target = kp_target_of(r, n, true);
  r.logsumexp[r.first + n] = logsumexp;
  r.loss[r.first + n] =
      target < 0 ? 0 : logsumexp - head.logit(kp_to_float(row[target]), head.time_of(r.first + n), target);
}

/* Logsumexp and loss of each row.  Reads each number once: bytes bound it, at about four operations and one
 * exponential a number.  THREADS threads a row; blocks are of at least 128. */
template <typename T, int THREADS, typename Head>
static __global__ void kp_row_loss_kernel(const T *logits, kp_loss_rows r, Head head) {
  __shared__ kp_exponentials parts[32];
  const int lane = threadIdx.x % THREADS;
  const int64_t n = (int64_t)blockIdx.x * (blockDim.x / THREADS) + threadIdx.x / THREADS;
  if (n >= r.rows) return; /* whole warps; and whole blocks where rows take more than a warp */
  const T *row = logits + n * r.pitch;
  const float time = head.time_of(r.first + n);
  kp_exponentials e = kp_warp_exponentials(kp_row_part<T, THREADS>(row, r, head, time, lane));
  if constexpr (THREADS > 32) {
    if (lane % 32 == 0) parts[lane / 32] = e;
    __syncthreads();
    e = parts[0];
    for (int w = 1; w < THREADS / 32 && lane == 0; w++) e = kp_merge_exponentials(e, parts[w]);
  }
  if (lane == 0) kp_leave_loss(r, n, e, head, row);
}

/* Short rows take a warp, long ones a block. */
template <typename T, typename Head>
static void kp_row_losses(cudaStream_t stream, const void *logits, const kp_loss_rows &r, const Head &head) {
  constexpr int BLOCK = 256, SMALL_BLOCK = 128, SHORT_ROW = 4096;
  if (r.rows == 0) return;
  if (r.columns <= SHORT_ROW)
    kp_row_loss_kernel<T, 32, Head>
        <<<kp_blocks(r.rows, SMALL_BLOCK / 32), SMALL_BLOCK, 0, stream>>>((const T *)logits, r, head);
  else
    kp_row_loss_kernel<T, BLOCK, Head><<<(int)r.rows, BLOCK, 0, stream>>>((const T *)logits, r, head);
}

/* ---- over all rows; one block of 1024 ---- */

enum { KP_MEAN_THREADS = 1024 };

/* The mean loss of the rows that count.  4 + 4 bytes a row. */
static __global__ void kp_mean_loss_kernel(float *mean, const float *loss, const int32_t *targets,
                                           int64_t rows, int32_t ignore) {
  __shared__ double shared[2][32];
  double sum = 0, count = 0;
#pragma unroll 8
  for (int64_t n = threadIdx.x; n < rows; n += KP_MEAN_THREADS) {
    sum += (double)loss[n];
    count += targets[n] != ignore;
  }
  sum = kp_block_sum(sum, shared[0]);
  count = kp_block_sum(count, shared[1]);
  if (threadIdx.x == 0) *mean = count == 0 ? 0 : (float)(sum / count);
}

/* share = g / rows that count: what each of them gets of the loss's gradient. */
static __global__ void kp_share_kernel(float *share, kp_numbers g, const int32_t *targets, int64_t rows,
                                       int32_t ignore) {
  __shared__ double shared[32];
  double count = 0;
#pragma unroll 8
  for (int64_t n = threadIdx.x; n < rows; n += KP_MEAN_THREADS) count += targets[n] != ignore;
  count = kp_block_sum(count, shared);
  if (threadIdx.x == 0) *share = count == 0 ? 0 : (float)((double)g[0] / count);
}

#endif
