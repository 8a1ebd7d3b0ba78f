/* The numbers that attention for compute capability 9.0 keeps for each row, and its host side.
 *
 * The kernel reads every query and key (value, output, gradient) once, and writes them again where they are
 * copied: bound by memory.  For 16 sequences of 1024 rows with 12 heads of 64 it reads 50 MB and writes 9 MB.
 */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_hopper.cuh"
#include "geometry/geodesic_score.h"

#include <limits.h>

enum { ROWS_THREADS = 256 };

/* ---- device ---- */

template <int LANES> __device__ static float group_sum(float x) {
#pragma unroll
  for (int offset = LANES / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ static float pack_dot(const kp_pack<kp_half> &a, const kp_pack<kp_half> &b) {
  float sum = 0;
  for (int i = 0; i < 8; i++) sum = fmaf(kp_to_float(a.value[i]), kp_to_float(b.value[i]), sum);
  return sum;
}

/* The first `count` of eight numbers at a multiple of 2 bytes, then zeros: by the words that they lie in.
 * Rows are whole words. */
__device__ static kp_pack<kp_half> narrow_pack(const kp_half *at, int count) {
  const bool odd = (uintptr_t)at & 2;
  const uint32_t *words = (const uint32_t *)(at - odd);
  uint32_t word[5];
#pragma unroll
  for (int i = 0; i < 5; i++) word[i] = count > 0 && 2 * i - odd < count ? words[i] : 0;
  union {
    kp_pack<kp_half> pack;
    uint32_t word[4];
  } result;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint32_t pair = odd ? __funnelshift_r(word[i], word[i + 1], 16) : word[i];
    result.word[i] = 2 * i + 1 < count ? pair : 2 * i < count ? pair & 0xffffu : 0;
  }
  return result.pack;
}

/* A head's eight channels of a lane; zero behind its last one and behind the sequence.  No branches, so that
 * all loads of a thread are under way together. */
template <bool COPIED>
__device__ static kp_pack<kp_half> lane_pack(const kp_hopper_matrix &m, int64_t row, int h, int lane,
                                             bool inside) {
  const bool present = inside && m.at != NULL;
  if (COPIED) return narrow_pack(kp_hopper_at(m, row, h) + 8 * lane, present ? m.size - 8 * lane : 0);
  kp_pack<kp_half> pack;
  if (present) return kp_load(kp_hopper_at(m, row, h) + 8 * lane);
  for (int i = 0; i < 8; i++) pack.value[i] = kp_from_float<kp_half>(0);
  return pack;
}

/* To a copy whose heads have D channels. */
template <int D>
__device__ static void copy_pack(kp_half *copy, int64_t row, int heads, int h, int lane,
                                 const kp_pack<kp_half> &pack) {
  if (copy != NULL) kp_store(copy + (row * heads + h) * D + 8 * lane, pack);
}

/* One row of q, k, v and g; a group's first query head copies its keys and values. */
template <int D>
__device__ static void copy_row(const kp_hopper_problem &p, const kp_hopper_rows &rows, int64_t row, int h,
                                int lane, const kp_pack<kp_half> &q, const kp_pack<kp_half> &k,
                                const kp_pack<kp_half> &v, const kp_pack<kp_half> &g) {
  const int group = p.heads / p.kv_heads;
  copy_pack<D>(rows.q_copy, row, p.heads, h, lane, q);
  copy_pack<D>(rows.g_copy, row, p.heads, h, lane, g);
  if (h % group != 0) return;
  copy_pack<D>(rows.k_copy, row, p.kv_heads, h / group, lane, k);
  copy_pack<D>(rows.v_copy, row, p.kv_heads, h / group, lane, v);
}

/* Everything that a distance needs of a row of squared length `square`: the formulas of geodesic_score.h for
 * raw rows.  Rows longer than `limit` / √|κ| stop growing, so that z(1 + z) stays in the range of float. */
__device__ static void geodesic_numbers(const kp_hopper_problem &p, const kp_hopper_head &head, float square,
                                        float (&to)[KP_ROW_ALL]) {
  const float limit = 10.5f, root2 = 1.4142135623730951f, s = p.scale;
  const float kappa = head.sign == 0 ? 0.0f : head.kappa;
  const float norm = s * s * square;
  float z = kappa * norm, shrink = 1;
  const bool clamped = z < -limit * limit;
  if (clamped) {
    shrink = limit * rsqrtf(-z);
    z = -limit * limit;
  }
  kp_sine_cosine both = kp_sine_cosine_of(z);
  if (clamped) { /* S falls as 1/|u|, C stays */
    both.sine_ratio.value *= shrink;
    both.cosine.derivative = 0;
    z = kappa * norm;
    both.sine_ratio.derivative = -both.sine_ratio.value / (2 * z);
  }
  const float S = both.sine_ratio.value, C = both.cosine.value, dS = both.sine_ratio.derivative;
  const float alpha = S * S * norm, level = head.level;
  const float slope = root2 * s * (both.cosine.derivative * S + C * dS);
  float E = root2 * s * C * S;
  if (fabsf(E) < 1e-18f) E = 1e-18f;
  to[KP_ROW_LEVEL] = level * alpha;
  to[KP_ROW_FACTOR] = E;
  to[KP_ROW_RATIO] = (1 - 2 * kappa * alpha) / E;
  to[KP_ROW_LEVEL_SLOPE] = level * s * s * S * (S + 2 * z * dS);
  to[KP_ROW_FACTOR_SLOPE] = level * kappa * s * s * slope;
  to[KP_ROW_LEVEL_KAPPA] = level * 2 * norm * norm * S * dS;
  to[KP_ROW_FACTOR_KAPPA] = level * norm * slope;
}

__device__ static void side_numbers(const kp_hopper_problem &p, const kp_hopper_head &head, float square,
                                    float (&to)[KP_ROW_ALL]) {
  if (p.score == KP_SCORE_LORENTZ) {
    const float time = sqrtf(square + head.c / (p.scale * p.scale));
    to[KP_ROW_LEVEL] = time;
    to[KP_ROW_FACTOR] = 1 / time;
  } else if (p.score != KP_SCORE_DOT) {
    geodesic_numbers(p, head, square, to);
  }
}

/* A centroid's row: its space's gradient to `bar`, rounded, and as return value its time's, orthogonal to the
 * output as the true gradient is (backend/attention_values.h). */
template <int LANES>
__device__ static float centroid_bar(const kp_hopper_head &head, const kp_hopper_rows &rows,
                                     const kp_pack<kp_half> &o, const kp_pack<kp_half> &g, int64_t number,
                                     kp_half *bar, bool inside, float *kappa_bar) {
  const float c = head.c, square = group_sum<LANES>(pack_dot(o, o));
  const float product = group_sum<LANES>(pack_dot(g, o));
  const float time = sqrtf(square + c), norm = inside ? rows.norms[number] : 1.0f;
  const float time_bar = inside && rows.g_times != NULL ? rows.g_times[number] : 0.0f;
  const float along = product + time_bar * time, gradient = sqrtf(c) / norm;
  const float along_space = gradient * along / c;
  kp_pack<kp_half> result;
  for (int i = 0; i < 8; i++)
    result.value[i] =
        kp_from_float<kp_half>(gradient * kp_to_float(g.value[i]) + along_space * kp_to_float(o.value[i]));
  if (inside) kp_store(bar, result);
  *kappa_bar = inside ? c / 2 * along : 0;
  return -group_sum<LANES>(pack_dot(result, o)) / time;
}

/* What a block of rows is made of: |q|², |k|², |v|², <g, o> or the time's gradient, κ's gradient. */
struct row_sums {
  float q[KP_ROW_BLOCK], k[KP_ROW_BLOCK], v[KP_ROW_BLOCK], product[KP_ROW_BLOCK], kappa[KP_ROW_BLOCK];
};

/* All loads of a thread start before the first sum. */
template <int D, bool BACKWARD, bool COPIED>
__device__ static void sum_rows(const kp_hopper_problem &p, const kp_hopper_rows &rows,
                                const kp_hopper_head &head, int block, int b, int h, row_sums &sums) {
  constexpr int LANES = D / 8, STEP = ROWS_THREADS / LANES, TURNS = KP_ROW_BLOCK / STEP;
  const int lane = threadIdx.x % LANES, first = threadIdx.x / LANES, kv = h / (p.heads / p.kv_heads);
  kp_pack<kp_half> q[TURNS], k[TURNS], v[TURNS], o[TURNS], g[TURNS];
#pragma unroll
  for (int turn = 0; turn < TURNS; turn++) {
    const int t = block * KP_ROW_BLOCK + first + turn * STEP;
    const bool inside = t < p.length;
    const int64_t row = (int64_t)b * p.length + t;
    q[turn] = lane_pack<COPIED>(rows.q, row, h, lane, inside);
    k[turn] = lane_pack<COPIED>(rows.k, row, kv, lane, inside);
    v[turn] = lane_pack<COPIED>(rows.v, row, kv, lane, inside);
    if (BACKWARD) o[turn] = lane_pack<COPIED>(rows.o, row, h, lane, inside);
    if (BACKWARD) g[turn] = lane_pack<COPIED>(rows.g, row, h, lane, inside);
  }
#pragma unroll
  for (int turn = 0; turn < TURNS; turn++) {
    const int i = first + turn * STEP, t = block * KP_ROW_BLOCK + i;
    const int64_t row = (int64_t)b * p.length + t, number = row * p.heads + h;
    if (COPIED && t < p.length) copy_row<D>(p, rows, row, h, lane, q[turn], k[turn], v[turn], g[turn]);
    const float qq = group_sum<LANES>(pack_dot(q[turn], q[turn]));
    const float kk = group_sum<LANES>(pack_dot(k[turn], k[turn]));
    const float vv = group_sum<LANES>(pack_dot(v[turn], v[turn]));
    float product = 0, kappa = 0;
    if (BACKWARD && p.centroid)
      product = centroid_bar<LANES>(head, rows, o[turn], g[turn], number, rows.bar + number * D + 8 * lane,
                                    t < p.length, &kappa);
    else if (BACKWARD)
      product = group_sum<LANES>(pack_dot(g[turn], o[turn]));
    if (lane != 0) continue;
    sums.q[i] = qq;
    sums.k[i] = kk;
    sums.v[i] = vv;
    sums.product[i] = product;
    sums.kappa[i] = kappa;
  }
}

/* The smallest and largest document of a block's rows, by its first warp. */
__device__ static void write_range(const kp_hopper_problem &p, int b, int block) {
  int low = INT_MAX, high = INT_MIN;
  for (int i = threadIdx.x; i < KP_ROW_BLOCK; i += 32) {
    const int t = block * KP_ROW_BLOCK + i;
    const int document = t < p.length ? p.documents[(int64_t)b * p.length + t] : 0;
    if (t < p.length) low = min(low, document), high = max(high, document);
  }
  low = __reduce_min_sync(0xffffffffu, low);
  high = __reduce_max_sync(0xffffffffu, high);
  if (threadIdx.x == 0) p.ranges[(int64_t)b * p.row_blocks + block] = make_int2(low, high);
}

/* One block of 64 rows of one head: D/8 lanes a row, then a thread a row and side. */
template <int D, bool BACKWARD, bool COPIED>
__global__ static void __launch_bounds__(ROWS_THREADS)
    rows_kernel(const kp_hopper_problem p, const kp_hopper_rows rows) {
  __shared__ row_sums sums;
  const int block = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const kp_hopper_head head = kp_hopper_head_of(p, h);
  if (p.documents != NULL && h == 0 && threadIdx.x < 32) write_range(p, b, block);
  if (BACKWARD && block + h + b == 0 && threadIdx.x < 2) rows.counts[threadIdx.x] = 0;
  if (BACKWARD && rows.added != NULL && threadIdx.x == 0)
    rows.added[((int64_t)b * p.heads + h) * p.row_blocks + block] = 0;
  sum_rows<D, BACKWARD, COPIED>(p, rows, head, block, b, h, sums);
  __syncthreads();
  const int i = threadIdx.x % KP_ROW_BLOCK, side = threadIdx.x / KP_ROW_BLOCK, t = block * KP_ROW_BLOCK + i;
  const bool inside = t < p.length;
  if (BACKWARD && side == 2 && p.centroid && i == 0) {
    float sum = 0;
    for (int j = 0; j < KP_ROW_BLOCK; j++) sum += sums.kappa[j];
    rows.kappa_parts[((int64_t)b * p.heads + h) * p.row_blocks + block] = sum;
  }
  if (side >= 2 || (side == 1 && p.k_rows == NULL)) return;
  float numbers[KP_ROW_ALL] = {};
  if (inside) side_numbers(p, head, side == 0 ? sums.q[i] : sums.k[i], numbers);
  if (inside && p.documents != NULL)
    numbers[KP_ROW_DOCUMENT] = __int_as_float(p.documents[(int64_t)b * p.length + t]);
  if (inside && side == 1 && p.centroid) numbers[KP_ROW_LOGSUMEXP] = sqrtf(sums.v[i] + head.c);
  if (side == 0) numbers[KP_ROW_LOGSUMEXP] = INFINITY;
  if (BACKWARD && inside && side == 0) {
    const float logsumexp = rows.logsumexp[((int64_t)b * p.heads + h) * p.length + t] - head.constant;
    numbers[KP_ROW_LOGSUMEXP] = logsumexp * 1.4426950408889634f;
    if (p.centroid) numbers[KP_ROW_RATIO] = sums.product[i];
    numbers[KP_ROW_PRODUCT] = p.centroid ? 0.0f : sums.product[i] * head.slope;
    numbers[KP_ROW_PLAIN_PRODUCT] = p.centroid ? 0.0f : sums.product[i];
  }
  float *to = (side == 0 ? p.q_rows : p.k_rows) + kp_row_block_at(p, b, h, block) + i;
#pragma unroll
  for (int n = 0; n < (BACKWARD ? KP_ROW_ALL : KP_ROW_COPIED); n++) to[n * KP_ROW_BLOCK] = numbers[n];
}

template <int D, bool COPIED>
static void rows_run(const kp_hopper_problem &p, const kp_hopper_rows &rows, cudaStream_t stream) {
  const dim3 grid(p.row_blocks, p.heads, p.batch);
  if (rows.logsumexp != NULL)
    rows_kernel<D, true, COPIED><<<grid, ROWS_THREADS, 0, stream>>>(p, rows);
  else
    rows_kernel<D, false, COPIED><<<grid, ROWS_THREADS, 0, stream>>>(p, rows);
}

void kp_hopper_rows_run(const kp_hopper_problem &p, const kp_hopper_rows &rows, cudaStream_t stream) {
  const bool copied = rows.q_copy != NULL;
  if (p.size == 64)
    copied ? rows_run<64, true>(p, rows, stream) : rows_run<64, false>(p, rows, stream);
  else
    copied ? rows_run<128, true>(p, rows, stream) : rows_run<128, false>(p, rows, stream);
}

/* ---- host ---- */

/* Floats that the ranges of documents take: whole arrays of blocks. */
static size_t ranges_size(const kp_attention_arguments *a) {
  const int64_t blocks = (a->length + 127) / 128 * 2;
  return (size_t)((2 * a->batch * blocks + KP_ROW_BLOCK - 1) / KP_ROW_BLOCK * KP_ROW_BLOCK);
}

size_t kp_hopper_rows_size(const kp_attention_arguments *a, int numbers) {
  const int64_t blocks = (a->length + 127) / 128 * 2;
  return ranges_size(a) + (size_t)(2 * a->batch * a->heads * blocks * numbers * KP_ROW_BLOCK);
}

/* Sequences shorter than a tile are not worth copies. */
int kp_hopper_size(const kp_attention_arguments *a) {
  const int value = kp_attention_value_size(a), most = a->head_size > value ? a->head_size : value;
  const int size = most <= 64 ? 64 : 128;
  const bool whole = a->head_size == size && value == size;
  return most <= 128 && (whole || a->length >= 128) ? size : 0;
}

bool kp_hopper_pads(const kp_attention_arguments *a) {
  const int size = kp_hopper_size(a);
  return a->head_size != size || kp_attention_value_size(a) != size;
}

size_t kp_hopper_copy_size(const kp_attention_arguments *a, int heads) {
  return kp_hopper_pads(a) ? (size_t)(a->batch * a->length * heads * kp_hopper_size(a)) : 0;
}

kp_hopper_matrix kp_hopper_side(const kp_attention_arguments *a, int i, void *const *at,
                                kp_tensor *const *tensors) {
  const int from = a->packed ? 0 : i, before = i == 0 ? 0 : i == 1 ? a->heads : a->heads + a->kv_heads;
  const kp_tensor *tensor = tensors[from];
  return kp_hopper_matrix{(kp_half *)at[from], tensor == NULL ? 0 : kp_pitch(tensor),
                          a->packed ? before * a->head_size : 0,
                          i == 2 ? kp_attention_value_size(a) : a->head_size};
}

kp_half *kp_hopper_copy(const kp_attention_arguments *a, kp_half *memory, kp_hopper_rows *rows,
                        kp_hopper_matrix *q, kp_hopper_matrix *k, kp_hopper_matrix *v) {
  if (!kp_hopper_pads(a)) return memory;
  const int size = kp_hopper_size(a);
  rows->q = *q, rows->k = *k, rows->v = *v;
  rows->q_copy = memory;
  rows->k_copy = rows->q_copy + kp_hopper_copy_size(a, a->heads);
  rows->v_copy = rows->k_copy + kp_hopper_copy_size(a, a->kv_heads);
  *q = kp_hopper_matrix{rows->q_copy, (int64_t)a->heads * size, 0, size};
  *k = kp_hopper_matrix{rows->k_copy, (int64_t)a->kv_heads * size, 0, size};
  *v = kp_hopper_matrix{rows->v_copy, (int64_t)a->kv_heads * size, 0, size};
  return rows->v_copy + kp_hopper_copy_size(a, a->kv_heads);
}

static bool is_one(const kp_tensor *tensor) {
  return tensor != NULL && kp_tensor_count(tensor) == 1;
}

kp_hopper_problem kp_hopper_problem_of(const kp_call *call, int numbers, float *memory) {
  const kp_node *node = call->node;
  const kp_attention_arguments *a = (const kp_attention_arguments *)node->arguments;
  kp_hopper_problem p = {};
  p.batch = (int)a->batch;
  p.length = (int)a->length;
  p.heads = a->heads;
  p.kv_heads = a->kv_heads;
  p.size = kp_hopper_size(a);
  if (a->packed && !kp_hopper_pads(a)) {
    p.k_column = a->heads * a->head_size;
    p.v_column = (a->heads + a->kv_heads) * a->head_size;
  }
  p.row_blocks = (int)((a->length + 127) / 128 * 2);
  p.row_numbers = numbers;
  /* Keys and values of a section take at most 16 MB. */
  const int64_t most = 16777216 / (4 * a->length * p.size), all = a->batch * a->heads;
  p.section = (int)(most < 1 ? 1 : most > all ? all : most);
  p.score = a->score;
  p.causal = a->causal;
  p.centroid = a->values == KP_VALUES_LORENTZ;
  p.scale = (float)kp_attention_scale(a);
  p.default_curvature = (float)kp_attention_curvature(a);
  p.curvature = kp_input_numbers(call, 3);
  p.temperature = kp_input_numbers(call, 4);
  p.one_curvature = is_one(node->input[3]);
  p.one_temperature = is_one(node->input[4]);
  p.documents = (const int32_t *)call->input[5];
  if (memory == NULL) return p;
  const size_t ranges = ranges_size(a);
  p.ranges = p.documents == NULL ? NULL : (int2 *)memory;
  p.q_rows = memory + ranges;
  p.k_rows = p.q_rows + (kp_hopper_rows_size(a, numbers) - ranges) / 2;
  return p;
}

/* The driver's function for tensor maps, without linking the driver. */
typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

kp_status kp_hopper_maps(CUtensorMap *maps, const kp_hopper_box *boxes, int count, int64_t batch,
                         int64_t length, kp_error *error) {
  void *encode = NULL;
  cudaDriverEntryPointQueryResult found;
  KP_TRY(kp_cuda_check(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found),
      "the driver's tensor maps", error));
  for (int i = 0; i < count; i++) {
    const kp_hopper_box *b = &boxes[i];
    const cuuint64_t shape[3] = {(cuuint64_t)b->pitch, (cuuint64_t)length, (cuuint64_t)batch};
    const cuuint64_t strides[2] = {(cuuint64_t)b->pitch * 2, (cuuint64_t)(b->pitch * length) * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)b->rows, 1}, step[3] = {1, 1, 1};
    if (encode == NULL ||
        ((encode_function)encode)(&maps[i], CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)b->matrix, shape,
                                  strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
      return kp_fail(error, KP_ERR_IO, "attention: the driver makes no tensor map of %lld rows of %lld",
                     (long long)(batch * length), (long long)b->pitch);
  }
  return KP_OK;
}
