/* Head and loss in one: of the logits of a batch only those of a chunk of rows exist, in scratch memory.
 *
 * Forward, a chunk: a matrix product, and one pass over the logits for their logsumexp.
 * Backward, a chunk: the product again; one pass that turns it in place into its own gradient; and the
 * products of that with the matrix and with x.  6NVC operations bound it; the passes move 3 · 2 bytes a logit
 * in bfloat16 and the products about as many again, a quarter of the time at C = 768.
 *
 * Chunks span the vocabulary, whatever the arguments say, and are as large as LOGIT_BYTES allows: about 5000
 * rows at V = 50304 in bfloat16.  The gradient of the matrix is read and written once a chunk, which wants
 * few of them. */
#include "backend/cuda/cross_entropy.cuh"
#include "backend/cuda/products.h"

enum { GROUP_ROWS = 64, STRIP_THREADS = 256, ROW_UNIT = 128, PART_ALIGNMENT = 64 };
static const int64_t LOGIT_BYTES = (int64_t)512 << 20;

/* A node's chunks for logits of `size` bytes, and where scratch memory has what. */
struct chunk_plan {
  int64_t rows, vocabulary, pitch; /* of a chunk's logits */
  int64_t groups, strips;          /* of rows and columns, of the pass backward */
  size_t loss, logits, by_column, by_row, bytes;
};

static size_t place(size_t *used, size_t bytes) {
  const size_t at = *used;
  *used += (bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT;
  return at;
}

/* Even chunks of whole tiles of a matrix product. */
static int64_t chunk_rows(const kp_node *node, int64_t pitch, int size) {
  const kp_linear_cross_entropy_arguments *a = (const kp_linear_cross_entropy_arguments *)node->arguments;
  const int64_t rows = kp_tensor_rows(node->input[0]);
  int64_t most = LOGIT_BYTES / (pitch * size) / ROW_UNIT * ROW_UNIT;
  if (most < ROW_UNIT) most = ROW_UNIT;
  if (a->chunk_rows > 0) return a->chunk_rows < rows ? a->chunk_rows : rows;
  if (rows <= most) return rows;
  const int64_t chunks = (rows + most - 1) / most, even = (rows + chunks - 1) / chunks;
  return (even + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
}

/* Forward one number a row; backward the sums of groups of rows for the time weight and the scale, and of
 * strips of columns for the time. */
static chunk_plan plan_of(const kp_node *node, bool backward, int size) {
  chunk_plan p = {};
  size_t used = 0;
  p.vocabulary = node->input[1]->shape[0];
  p.pitch = (p.vocabulary + KP_CUDA_ROW_MULTIPLE - 1) / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
  p.rows = chunk_rows(node, p.pitch, size);
  p.groups = (p.rows + GROUP_ROWS - 1) / GROUP_ROWS;
  p.strips = (p.pitch * size + STRIP_THREADS * 16 - 1) / (STRIP_THREADS * 16);
  p.loss = place(&used, backward ? sizeof(float) : (size_t)kp_tensor_rows(node->input[0]) * sizeof(float));
  p.logits = place(&used, (size_t)(p.rows * p.pitch * size));
  if (backward && (node->input[3] != NULL || node->input[5] != NULL)) {
    p.by_column = place(&used, (size_t)(2 * p.groups * p.pitch) * sizeof(float));
    p.by_row = place(&used, (size_t)(p.rows * p.strips) * sizeof(float));
  }
  p.bytes = used;
  return p;
}

static size_t scratch_of(const kp_node *node, bool backward) {
  const size_t wide = plan_of(node, backward, sizeof(float)).bytes;
  const size_t half = plan_of(node, backward, sizeof(kp_half)).bytes;
  return wide > half ? wide : half;
}

extern "C" size_t kp_cuda_scratch_linear_cross_entropy(const kp_node *node, int threads) {
  (void)threads;
  return scratch_of(node, false);
}

extern "C" size_t kp_cuda_scratch_linear_cross_entropy_backward(const kp_node *node, int threads) {
  (void)threads;
  return scratch_of(node, true);
}

/* ---- what both passes need ---- */

static int real_size(const kp_call *call) {
  return kp_is_half(call) ? sizeof(kp_half) : sizeof(float);
}

static cudaDataType_t real_type(const kp_call *call) {
  return kp_is_half(call) ? CUDA_R_16BF : CUDA_R_32F;
}

static kp_scaled_head head_of(const kp_call *call) {
  const kp_linear_cross_entropy_arguments *a =
      (const kp_linear_cross_entropy_arguments *)call->node->arguments;
  return {kp_input_numbers(call, 3), kp_input_numbers(call, 4), kp_input_numbers(call, 5),
          a->factor == 0 ? 1.0f : (float)a->factor};
}

static bool is_plain(const kp_scaled_head &head) {
  return head.time.at == NULL && head.scale.at == NULL && head.factor == 1;
}

/* Rows `first` on, of a chunk. */
static kp_loss_rows rows_of(const kp_call *call, const chunk_plan &p, int64_t first) {
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  kp_loss_rows r = {};
  r.rows = rows - first < p.rows ? rows - first : p.rows;
  r.columns = p.vocabulary;
  r.pitch = p.pitch;
  r.first = first;
  r.targets = (const int32_t *)call->input[2];
  r.ignore = ((const kp_linear_cross_entropy_arguments *)call->node->arguments)->ignore;
  r.step = kp_cuda_of(call)->step;
  r.node = call->node->index;
  return r;
}

static char *scratch_at(const kp_call *call, size_t place) {
  return (char *)call->scratch + place;
}

/* Row `first` of input or output `at`, whose tensor is `tensor`. */
static void *row_at(const kp_call *call, const kp_tensor *tensor, void *at, int64_t first) {
  return (char *)at + first * kp_pitch(tensor) * real_size(call);
}

/* Entries of the vocabulary that a product takes at once.  One that is no multiple of 8 makes products
 * several times slower, so that what is left of it, up to 7 entries, gets products of its own. */
struct entry_range {
  int64_t first, count;
};

static int ranges_of(int64_t vocabulary, entry_range ranges[2]) {
  enum { SMALL = 1024 };
  const int64_t whole = vocabulary / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
  ranges[0] = {0, vocabulary};
  if (vocabulary < SMALL || whole == vocabulary) return 1;
  ranges[0].count = whole;
  ranges[1] = {whole, vocabulary - whole};
  return 2;
}

/* Column `v` of the chunk's logits. */
static char *logits_at(const kp_call *call, const chunk_plan &p, int64_t v) {
  return scratch_at(call, p.logits) + v * real_size(call);
}

/* The chunk's products x Wᵀ.  The padding of both is zero: products over it are aligned and add nothing. */
static kp_status multiply_chunk(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                kp_error *error) {
  const kp_tensor *x = call->node->input[0], *weight = call->node->input[1];
  entry_range range[2];
  const int ranges = ranges_of(p.vocabulary, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = r.rows, product.n = range[i].count;
    product.k = kp_pitch(x) == kp_pitch(weight) ? kp_pitch(x) : kp_tensor_columns(x);
    product.a = row_at(call, x, call->input[0], r.first), product.lda = kp_pitch(x);
    product.b = row_at(call, weight, call->input[1], range[i].first), product.ldb = kp_pitch(weight);
    product.b_transposed = true;
    product.c = logits_at(call, p, range[i].first), product.ldc = p.pitch;
    product.type = product.result = real_type(call);
    product.alpha = 1;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

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

template <typename T>
static void losses_of_chunk(cudaStream_t stream, const void *logits, const kp_loss_rows &r,
                            const kp_scaled_head &head) {
  if (is_plain(head))
    kp_row_losses<T>(stream, logits, r, kp_plain_head{});
  else
    scaled_loss_kernel<T>
        <<<kp_blocks(r.rows, LOSS_ROWS), LOSS_THREADS, 0, stream>>>((const T *)logits, r, head);
}

extern "C" kp_status kp_cuda_linear_cross_entropy(const kp_call *call, kp_error *error) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const chunk_plan p = plan_of(call->node, false, real_size(call));
  const kp_scaled_head head = head_of(call);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  float *loss = (float *)scratch_at(call, p.loss);
  for (int64_t first = 0; first < rows; first += p.rows) {
    kp_loss_rows r = rows_of(call, p, first);
    r.loss = loss;
    r.logsumexp = (float *)call->output[1];
    KP_TRY(multiply_chunk(call, p, r, error));
    if (kp_is_half(call))
      losses_of_chunk<kp_half>(stream, scratch_at(call, p.logits), r, head);
    else
      losses_of_chunk<float>(stream, scratch_at(call, p.logits), r, head);
  }
  const kp_loss_rows all = rows_of(call, p, 0);
  kp_mean_loss_kernel<<<1, KP_MEAN_THREADS, 0, stream>>>((float *)call->output[0], loss, all.targets, rows,
                                                         all.ignore);
  return kp_launched(call, error);
}

/* ---- backward: from products to their gradients ---- */

struct gradient_parts {
  const float *logsumexp, *share;
  float *by_weight, *by_scale; /* (groups, pitch): sums over a group's rows */
  float *by_time;              /* (rows, strips) */
};

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

static __global__ void sum_strips_kernel(kp_results g, const float *parts, int64_t first, int64_t rows,
                                         int64_t strips) {
  const int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= rows) return;
  float sum = 0;
  for (int64_t i = 0; i < strips; i++) sum += parts[n * strips + i];
  g.set(first + n, sum);
}

template <typename T>
static void gradients_of_chunk(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                               const kp_scaled_head &head, const gradient_parts &to) {
  const dim3 grid((unsigned)p.strips, (unsigned)((r.rows + GROUP_ROWS - 1) / GROUP_ROWS));
  cudaStream_t stream = kp_cuda_of(call)->stream;
  T *products = (T *)scratch_at(call, p.logits);
  if (is_plain(head))
    gradient_kernel<T, false><<<grid, STRIP_THREADS, 0, stream>>>(products, r, head, to);
  else
    gradient_kernel<T, true><<<grid, STRIP_THREADS, 0, stream>>>(products, r, head, to);
}

/* The small gradients: of time, its weight and the scale. */
static void add_small_gradients(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                const gradient_parts &to) {
  const int64_t groups = (r.rows + GROUP_ROWS - 1) / GROUP_ROWS;
  const int blocks = kp_blocks(p.vocabulary, STRIP_THREADS);
  cudaStream_t stream = kp_cuda_of(call)->stream;
  if (call->output[1] != NULL)
    sum_strips_kernel<<<kp_blocks(r.rows, STRIP_THREADS), STRIP_THREADS, 0, stream>>>(
        kp_output_numbers(call, 1), to.by_time, r.first, r.rows, p.strips);
  if (call->output[3] != NULL)
    add_groups_kernel<<<blocks, STRIP_THREADS, 0, stream>>>(kp_output_numbers(call, 3), to.by_weight, groups,
                                                            p.pitch, p.vocabulary);
  if (call->output[4] != NULL)
    add_groups_kernel<<<blocks, STRIP_THREADS, 0, stream>>>(kp_output_numbers(call, 4), to.by_scale, groups,
                                                            p.pitch, p.vocabulary);
}

/* gx = G W for the chunk's rows; the matrix's padding makes that of gx zero. */
static kp_status multiply_to_x(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                               kp_error *error) {
  const kp_tensor *weight = call->node->input[1], *gx = call->node->output[0];
  entry_range range[2];
  const int ranges = call->output[0] == NULL ? 0 : ranges_of(p.vocabulary, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = r.rows, product.n = kp_pitch(gx), product.k = range[i].count;
    product.a = logits_at(call, p, range[i].first), product.lda = p.pitch;
    product.b = row_at(call, weight, call->input[1], range[i].first), product.ldb = kp_pitch(weight);
    product.c = row_at(call, gx, call->output[0], r.first), product.ldc = kp_pitch(gx);
    product.type = product.result = real_type(call);
    product.alpha = 1, product.beta = (float)i;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

/* gW += Gᵀ x of the chunk's rows. */
static kp_status multiply_to_weight(const kp_call *call, const chunk_plan &p, const kp_loss_rows &r,
                                    kp_error *error) {
  const kp_tensor *x = call->node->input[0], *g = call->node->output[2];
  const bool half = kp_tensor_is_half(call, g);
  entry_range range[2];
  const int ranges = call->output[2] == NULL ? 0 : ranges_of(p.vocabulary, range);
  for (int i = 0; i < ranges; i++) {
    kp_product product = {};
    product.m = range[i].count, product.k = r.rows;
    product.n = kp_pitch(x) == kp_pitch(g) ? kp_pitch(g) : kp_tensor_columns(g);
    product.a = logits_at(call, p, range[i].first), product.lda = p.pitch, product.a_transposed = true;
    product.b = row_at(call, x, call->input[0], r.first), product.ldb = kp_pitch(x);
    product.c =
        (char *)call->output[2] + range[i].first * kp_pitch(g) * (half ? sizeof(kp_half) : sizeof(float));
    product.ldc = kp_pitch(g);
    product.type = real_type(call);
    product.result = half ? CUDA_R_16BF : CUDA_R_32F;
    product.alpha = product.beta = 1;
    KP_TRY(kp_multiply(kp_cuda_of(call), &product, error));
  }
  return KP_OK;
}

static gradient_parts parts_of(const kp_call *call, const chunk_plan &p) {
  gradient_parts to = {};
  to.logsumexp = (const float *)call->input[6];
  to.share = (const float *)scratch_at(call, p.loss);
  if (p.by_row == 0) return to;
  to.by_weight = (float *)scratch_at(call, p.by_column);
  to.by_scale = to.by_weight + p.groups * p.pitch;
  to.by_time = (float *)scratch_at(call, p.by_row);
  return to;
}

extern "C" kp_status kp_cuda_linear_cross_entropy_backward(const kp_call *call, kp_error *error) {
  const chunk_plan p = plan_of(call->node, true, real_size(call));
  const kp_scaled_head head = head_of(call);
  const gradient_parts to = parts_of(call, p);
  const int64_t rows = kp_tensor_rows(call->node->input[0]);
  const kp_loss_rows all = rows_of(call, p, 0);
  kp_share_kernel<<<1, KP_MEAN_THREADS, 0, kp_cuda_of(call)->stream>>>(
      (float *)scratch_at(call, p.loss), kp_input_numbers(call, 7), all.targets, rows, all.ignore);
  for (int64_t first = 0; first < rows; first += p.rows) {
    const kp_loss_rows r = rows_of(call, p, first);
    KP_TRY(multiply_chunk(call, p, r, error));
    if (kp_is_half(call))
      gradients_of_chunk<kp_half>(call, p, r, head, to);
    else
      gradients_of_chunk<float>(call, p, r, head, to);
    if (to.by_time != NULL) add_small_gradients(call, p, r, to);
    KP_TRY(multiply_to_x(call, p, r, error));
    KP_TRY(multiply_to_weight(call, p, r, error));
  }
  return kp_launched(call, error);
}
