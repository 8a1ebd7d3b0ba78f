/* The passes over a chunk of products of the loss head: forward to the losses of its rows, backward from the
 * products to their gradients. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_CROSS_ENTROPY_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_CROSS_ENTROPY_CUH

#include "backend/cuda/linear_cross_entropy_cluster.cuh"

/* ---- forward ---- */

enum { LOSS_THREADS = 256, LOSS_ROWS = 4 };

/* Eight or four numbers of a vector from column v on, `absent` behind its end or where there is none. */
template <int SIZE>
__device__ static inline void load_numbers(const kp_numbers &numbers, int64_t v, int64_t columns,
                                           float absent, float (&to)[SIZE]) {
  const float *at = (const float *)numbers.at + v;
  if (numbers.at == NULL) {
#pragma unroll
    for (int j = 0; j < SIZE; j++) to[j] = absent;
  } else if (!numbers.half && v + SIZE <= columns && (uintptr_t)at % sizeof(float4) == 0) {
#pragma unroll
    for (int j = 0; j < SIZE; j += 4) {
      const float4 four = *(const float4 *)(at + j);
      to[j] = four.x, to[j + 1] = four.y, to[j + 2] = four.z, to[j + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int j = 0; j < SIZE; j++) to[j] = v + j < columns ? numbers[v + j] : absent;
  }
}

/* With a time or a scale: a block takes four rows, so that what belongs to the columns is read once for them;
 * they come from the cache at twice to four times the bytes of a row. */
template <typename T>
static __global__ void __launch_bounds__(LOSS_THREADS, 3)
    scaled_loss_kernel(const T *products, kp_loss_rows r, kp_scaled_head head) {
  constexpr int SIZE = kp_pack<T>::size;
  __shared__ kp_exponentials parts[LOSS_ROWS][LOSS_THREADS / 32];
  const int64_t first = (int64_t)blockIdx.x * LOSS_ROWS, packs = r.pitch / SIZE;
  const int count = r.rows - first < LOSS_ROWS ? (int)(r.rows - first) : LOSS_ROWS;
  kp_exponentials e[LOSS_ROWS];
  float time[LOSS_ROWS];
#pragma unroll
  for (int k = 0; k < LOSS_ROWS; k++) {
    e[k] = {-FLT_MAX, 0};
    time[k] = k < count ? head.time_of(r.first + first + k) : 0;
  }
  for (int64_t i = threadIdx.x; i < packs; i += LOSS_THREADS) {
    kp_pack<T> pack[LOSS_ROWS];
    float scale[SIZE], weight[SIZE];
#pragma unroll
    for (int k = 0; k < LOSS_ROWS; k++)
      if (k < count) pack[k] = kp_load(products + (first + k) * r.pitch + i * SIZE);
    load_numbers(head.scale, i * SIZE, r.columns, 1, scale);
    load_numbers(head.time.at == NULL ? kp_numbers{NULL, false} : head.time_weight, i * SIZE, r.columns, 0,
                 weight);
#pragma unroll
    for (int k = 0; k < LOSS_ROWS; k++) {
      float x[SIZE];
#pragma unroll
      for (int j = 0; j < SIZE; j++)
        x[j] = i * SIZE + j < r.columns
                   ? head.factor * scale[j] * (kp_to_float(pack[k].value[j]) + time[k] * weight[j])
                   : -INFINITY;
      if (k < count) kp_take_exponentials<T>(&e[k], x);
    }
  }
#pragma unroll
  for (int k = 0; k < LOSS_ROWS; k++) {
    const kp_exponentials all = kp_warp_exponentials(e[k]);
    if (threadIdx.x % 32 == 0) parts[k][threadIdx.x / 32] = all;
  }
  __syncthreads();
  if (threadIdx.x >= count) return;
  const int64_t n = first + threadIdx.x;
  kp_exponentials all = parts[threadIdx.x][0];
  for (int w = 1; w < LOSS_THREADS / 32; w++) all = kp_merge_exponentials(all, parts[threadIdx.x][w]);
  kp_leave_loss(r, n, all, head, products + n * r.pitch);
}

/* ---- backward: from products to their gradients ---- */

enum { GROUP_ROWS = 64, STRIP_THREADS = 256 };

/* What a block knows of its rows, and each warp's part of their gradients of time. */
struct group_rows {
  float logsumexp[GROUP_ROWS], time[GROUP_ROWS];
  int target[GROUP_ROWS]; /* -1: ignored */
  float by_time[GROUP_ROWS][STRIP_THREADS / 32];
};

static __device__ void read_group(group_rows *g, const kp_loss_rows &r, const kp_scaled_head &head,
                                  const float *logsumexp) {
  const int i = threadIdx.x;
  const int64_t n = (int64_t)blockIdx.y * GROUP_ROWS + i;
  if (i < GROUP_ROWS && n < r.rows) {
    g->logsumexp[i] = logsumexp[r.first + n];
    g->target[i] = (int)kp_target_of(r, n, false);
    g->time[i] = head.time_of(r.first + n);
  }
  __syncthreads();
}

/* A block's sums over its rows, and over its columns. */
template <int SIZE>
static __device__ void leave_sums(const group_rows *group, const kp_loss_rows &r, const gradient_parts &to,
                                  int64_t v, int count, const float (&by_scale)[SIZE],
                                  const float (&by_weight)[SIZE]) {
#pragma unroll
  for (int j = 0; j < SIZE; j++)
    if (v + j < r.columns) {
      to.by_scale[blockIdx.y * r.pitch + v + j] = by_scale[j];
      to.by_weight[blockIdx.y * r.pitch + v + j] = by_weight[j];
    }
  __syncthreads();
  if (threadIdx.x >= count) return;
  float sum = 0;
  for (int w = 0; w < STRIP_THREADS / 32; w++) sum += group->by_time[threadIdx.x][w];
  const int64_t n = (int64_t)blockIdx.y * GROUP_ROWS + threadIdx.x;
  to.by_time[n * gridDim.x + blockIdx.x] = sum;
}

/* One pass over the chunk, in place: each block a strip of columns of a group of rows.  A thread keeps what
 * belongs to its columns in registers, and reads four rows before it overwrites them.  2 bytes read and 2
 * written a logit bound it. */
template <typename T, bool SCALED>
static __global__ void __launch_bounds__(STRIP_THREADS)
    gradient_kernel(T *products, kp_loss_rows r, kp_scaled_head head, gradient_parts to) {
  constexpr int SIZE = kp_pack<T>::size, ROWS = 4;
  __shared__ group_rows group;
  const int64_t v = ((int64_t)blockIdx.x * STRIP_THREADS + threadIdx.x) * SIZE;
  const int64_t first = (int64_t)blockIdx.y * GROUP_ROWS;
  const int count = r.rows - first < GROUP_ROWS ? (int)(r.rows - first) : GROUP_ROWS;
  const float share = *to.share;
  float scale[SIZE], weight[SIZE], by_scale[SIZE], by_weight[SIZE];
  read_group(&group, r, head, to.logsumexp);
#pragma unroll
  for (int j = 0; j < SIZE; j++) {
    scale[j] = SCALED && v + j < r.columns ? head.scale_of(v + j) : 1;
    weight[j] = SCALED && v + j < r.columns ? head.weight_of(v + j) : 0;
    by_scale[j] = by_weight[j] = 0;
  }
  for (int i = 0; i < count; i += ROWS) {
    kp_pack<T> pack[ROWS];
#pragma unroll
    for (int k = 0; k < ROWS; k++)
      if (i + k < count && v < r.pitch) pack[k] = kp_load(products + (first + i + k) * r.pitch + v);
#pragma unroll
    for (int k = 0; k < ROWS; k++) {
      if (i + k >= count) break;
      const int target = group.target[i + k];
      const float logsumexp = group.logsumexp[i + k], time = SCALED ? group.time[i + k] : 0;
      float by_time = 0;
#pragma unroll
      for (int j = 0; j < SIZE; j++) {
        float product = kp_to_float(pack[k].value[j]);
        if (SCALED) product += time * weight[j];
        const float p = kp_row_exp<T>(scale[j] * product - logsumexp);
        float g = share * (p - (v + j == target ? 1.0f : 0.0f));
        if (target < 0 || v + j >= r.columns) g = 0;
        if (SCALED) {
          if (g != 0) by_scale[j] += g * head.factor * product;
          g *= scale[j];
          by_weight[j] += g * time;
          by_time += g * weight[j];
        }
        pack[k].value[j] = kp_from_float<T>(g);
      }
      if (v < r.pitch) kp_store(products + (first + i + k) * r.pitch + v, pack[k]);
      if (!SCALED) continue;
      by_time = kp_warp_sum(by_time);
      if (threadIdx.x % 32 == 0) group.by_time[i + k][threadIdx.x / 32] = by_time;
    }
  }
  if constexpr (SCALED)
    if (to.by_time != NULL) leave_sums<SIZE>(&group, r, to, v, count, by_scale, by_weight);
}

/* Adds the groups' sums of each column. */
static __global__ void add_groups_kernel(kp_results g, const float *parts, int64_t groups, int64_t pitch,
                                         int64_t columns) {
  const int64_t v = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (v >= columns) return;
  float sum = 0;
  for (int64_t i = 0; i < groups; i++) sum += parts[i * pitch + v];
  g.add(v, sum);
}

/* A warp adds a row's parts. */
static __global__ void sum_strips_kernel(kp_results g, const float *parts, int64_t first, int64_t rows,
                                         int64_t strips) {
  const int64_t n = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (n >= rows) return;
  float sum = 0;
  for (int64_t i = threadIdx.x % 32; i < strips; i += 32) sum += parts[n * strips + i];
  sum = kp_warp_sum(sum);
  if (threadIdx.x % 32 == 0) g.set(first + n, sum);
}

#endif
