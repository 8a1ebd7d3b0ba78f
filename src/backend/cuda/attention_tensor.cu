/* Before the tensor core kernels: the numbers beside rows, in float, by the text of geometry/.
 *
 * A row of D bfloat16 is read by eight lanes and leaves 16 bytes; memory bounds it. */
#define KP_GEOMETRY_FLOAT
#include "backend/attention_values.h"
#include "backend/cuda/attention_tensor.cuh"
#include "geometry/geodesic_score.h"
#include "geometry/lorentz.h"

enum { LANES = 8, ROWS = 16 };

/* A lane's part of |u|², of the eight that a row has. */
__device__ static float row_square(const kp_half_rows &rows, int position) {
  const kp_half *row = rows.base + position * rows.stride;
  float sum = 0;
  if (rows.aligned) {
    for (int d = threadIdx.x * 8; d < rows.size; d += LANES * 8) {
      const kp_pack<kp_half> pack = kp_load(row + d);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float x = __bfloat162float(pack.value[i]);
        sum = fmaf(x, x, sum);
      }
    }
  } else {
    for (int d = threadIdx.x; d < rows.size; d += LANES) {
      const float x = __bfloat162float(row[d]);
      sum = fmaf(x, x, sum);
    }
  }
  return sum;
}

__device__ static float lane_sum(float x) {
  for (int offset = LANES / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/* g = √2 c S σ multiplies the products; it is never 0, since sums are divided by it again. */
__device__ static float product_factor(const kp_geodesic_row &row, float scale) {
  const float g = 1.41421356237f * row.cosine * row.scale * fabsf(scale);
  return fabsf(g) < 1e-12f ? 1e-12f : g;
}

__device__ static kp_row_numbers row_numbers(const kp_attention_problem &p, const kp_score_head &head,
                                             float square, bool query) {
  const float scale = fabsf(p.scale);
  kp_row_numbers numbers = {0, 0, 0, 0};
  square *= scale * scale;
  if (p.score == KP_SCORE_DOT) return numbers;
  if (p.score == KP_SCORE_LORENTZ) {
    const float c = kp_lorentz_radius(head.kappa), root = kp_sqrt(c), time = kp_lorentz_time(square, c);
    const float above = square / (time + root);
    numbers.own = root * above;
    numbers.x = query ? (head.negated ? -time : time) / scale : above / scale;
    numbers.y = time, numbers.z = 1 / time;
    return numbers;
  }
  const kp_geodesic_row row = kp_geodesic_row_of(square, head.kappa);
  const float alpha = head.kappa * row.alpha, cosine = row.cosine * row.cosine;
  const float factor = product_factor(row, scale);
  numbers.x = query ? alpha : cosine;
  numbers.y = query ? cosine : alpha;
  numbers.z = query ? head.kappa * factor : factor;
  return numbers;
}

__device__ static kp_value_numbers value_numbers(const kp_attention_problem &p, float kappa, float square) {
  if (p.values == KP_VALUES_LORENTZ)
    return kp_value_numbers{1, kp_lorentz_time(square, kp_lorentz_radius(kappa))};
  const kp_ambient_row row = kp_ambient_row_of(square, kappa);
  const float a = kp_abs(row.scale) < 1e-12f ? 1e-12f : row.scale;
  return kp_value_numbers{a, row.cosine / a};
}

/* blockIdx.y is the sequence and head. */
__global__ static void numbers_kernel(kp_attention_problem p, kp_row_numbers *q, kp_row_numbers *k,
                                      kp_value_numbers *v, bool backward) {
  const int b = blockIdx.y / p.heads, h = blockIdx.y % p.heads, kv = h / (p.heads / p.kv_heads);
  const int position = blockIdx.x * ROWS + threadIdx.y, at = min(position, p.length - 1);
  const int64_t n = (int64_t)b * p.length, to = (int64_t)blockIdx.y * p.length + position;
  const kp_score_head head = kp_score_head_of(p, h, backward ? 1.0f : kp_head_beta(p, h));
  /* The rows' loads first, then their geometry, a lane each. */
  const float of_query = q == NULL ? 0 : row_square(kp_half_rows_of(p.q, n, h, p.size), at);
  const float of_key = q == NULL ? 0 : row_square(kp_half_rows_of(p.k, n, kv, p.size), at);
  const float of_value = v == NULL ? 0 : row_square(kp_half_rows_of(p.v, n, kv, p.value_size), at);
  const float query_square = lane_sum(of_query), key_square = lane_sum(of_key), square = lane_sum(of_value);
  const int lane = threadIdx.x;
  if (position >= p.length) return;
  if (q != NULL && lane < 2)
    (lane == 0 ? q : k)[to] = row_numbers(p, head, lane == 0 ? query_square : key_square, lane == 0);
  if (v != NULL && lane == 2) v[to] = value_numbers(p, kp_head_kappa(p, h), square);
}

/* <x, y> over the eight lanes of a row. */
__device__ static float row_product(const kp_half *x, const kp_half *y, int size) {
  float sum = 0;
  for (int d = threadIdx.x; d < size; d += LANES)
    sum = fmaf(__bfloat162float(x[d]), __bfloat162float(y[d]), sum);
  for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
}

/* What a query has for the backward pass, and M̄ of curved values. */
__global__ static void bars_kernel(kp_tensor_work work, kp_query_bars *bars) {
  const kp_attention_problem &p = work.p;
  const int b = blockIdx.y / p.heads, h = blockIdx.y % p.heads;
  const int position = blockIdx.x * ROWS + threadIdx.y, i = min(position, p.length - 1);
  const int64_t n = (int64_t)b * p.length + i, row = (int64_t)blockIdx.y * p.length + i;
  const kp_half *o = kp_row_at<kp_half>(p.o, n, h), *g = kp_row_at<kp_half>(work.g.o, n, h);
  const float product = g == NULL ? 0 : row_product(o, g, p.value_size);
  const float own = p.score == KP_SCORE_LORENTZ ? 2 * kp_head_beta(p, h) * work.q[row].own : 0;
  kp_query_bars result = {(p.logsumexp[row] + own) * KP_LOG2_E, product, 0, 0};
  if (p.values != KP_VALUES_MEAN) {
    const float square = row_product(o, o, p.value_size), norm = p.norms[n * p.heads + h];
    const float time = work.g.time == NULL ? 0 : work.g.time[n * p.heads + h];
    const kp_value_mean_slopes slopes =
        kp_value_mean_backward((kp_values)p.values, square, norm, product, time, kp_head_kappa(p, h));
    result = kp_query_bars{result.level, 0, slopes.extra, slopes.kappa};
    for (int d = threadIdx.x; d < work.mean_pitch && position < p.length; d += LANES) {
      const bool inside = d < p.value_size;
      const float across = g == NULL || !inside ? 0 : slopes.gradient * __bfloat162float(g[d]);
      const float bar = inside ? fmaf(slopes.along, __bfloat162float(o[d]), across) : 0;
      const kp_half high = __float2bfloat16_rn(bar);
      work.mean_bars[row * work.mean_pitch + d] = high;
      work.mean_lows[row * work.mean_pitch + d] = __float2bfloat16_rn(bar - __bfloat162float(high));
    }
  }
  if (threadIdx.x == 0 && position < p.length) bars[row] = result;
}

__global__ static void spans_kernel(const int32_t *documents, int length, int blocks, int count,
                                    kp_document_span *spans) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int begin = i % blocks * KP_DOCUMENT_ROWS, end = min(length, begin + KP_DOCUMENT_ROWS);
  const int32_t *row = documents + (int64_t)(i / blocks) * length;
  kp_document_span span = {row[begin], row[begin]};
  for (int t = begin + 1; t < end; t++) {
    span.least = min(span.least, row[t]);
    span.most = max(span.most, row[t]);
  }
  spans[i] = span;
}

size_t kp_attention_tensor_prepare(kp_tensor_work *work, char *scratch, bool backward, cudaStream_t stream) {
  const kp_attention_problem &p = work->p;
  const size_t rows = (size_t)p.batch * (size_t)p.heads * (size_t)p.length;
  const int blocks = (p.length + KP_DOCUMENT_ROWS - 1) / KP_DOCUMENT_ROWS;
  const bool numbered = kp_score_family_of(p.score, p.values) != KP_FAMILY_DOT;
  size_t used = 0;
  const auto take = [&](bool wanted, size_t size) -> char * {
    if (!wanted) return NULL;
    char *place = scratch == NULL ? NULL : scratch + used;
    used += (size + 63) / 64 * 64;
    return place;
  };
  kp_row_numbers *q = (kp_row_numbers *)take(numbered, rows * sizeof(kp_row_numbers));
  kp_row_numbers *k = (kp_row_numbers *)take(numbered, rows * sizeof(kp_row_numbers));
  kp_value_numbers *v = (kp_value_numbers *)take(p.values != KP_VALUES_MEAN, rows * sizeof(kp_value_numbers));
  kp_document_span *spans = (kp_document_span *)take(p.documents != NULL, (size_t)p.batch * (size_t)blocks *
                                                                              sizeof(kp_document_span));
  work->q = q, work->k = k, work->v = v, work->spans = spans;
  if (scratch == NULL) return used;
  if (q != NULL || v != NULL) {
    const dim3 grid((unsigned)((p.length + ROWS - 1) / ROWS), (unsigned)(p.batch * p.heads));
    numbers_kernel<<<grid, dim3(LANES, ROWS), 0, stream>>>(p, q, k, v, backward);
  }
  if (spans != NULL) {
    const int count = p.batch * blocks;
    spans_kernel<<<kp_blocks(count, 128), 128, 0, stream>>>(p.documents, p.length, blocks, count, spans);
  }
  return used;
}

/* The most shared memory that a block takes, forward or backward. */
static size_t most_shared(int size, int value_size) {
  if (size <= 64 && value_size <= 64) return 80 << 10;
  if (size <= 192 && value_size <= 128) return 112 << 10;
  return 176 << 10;
}

bool kp_attention_tensor_fits(const kp_attention_problem &p, size_t shared) {
  return p.size <= 256 && p.value_size <= 256 && (int64_t)p.batch * p.heads <= 65535 &&
         most_shared(p.size, p.value_size) <= shared;
}

kp_status kp_attention_tensor(const kp_call *call, const kp_attention_problem &p, kp_error *error) {
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_tensor_work work = {};
  work.p = p;
  kp_attention_tensor_prepare(&work, (char *)call->scratch, false, stream);
  switch (kp_score_family_of(p.score, p.values)) {
  case KP_FAMILY_DOT: KP_TRY(kp_attention_forward_dot(work, stream, error)); break;
  case KP_FAMILY_LORENTZ: KP_TRY(kp_attention_forward_lorentz(work, stream, error)); break;
  default: KP_TRY(kp_attention_forward_geodesic(work, stream, error));
  }
  return kp_launched(call, error);
}

/* Places of the backward pass behind those that both passes have; returns the bytes used. */
static size_t prepare_backward(kp_tensor_work *work, char *scratch, cudaStream_t stream) {
  const kp_attention_problem &p = work->p;
  const size_t heads = (size_t)p.batch * (size_t)p.heads, rows = heads * (size_t)p.length;
  size_t used = kp_attention_tensor_prepare(work, scratch, true, stream);
  const auto take = [&](size_t size) -> char * {
    char *place = scratch == NULL ? NULL : scratch + used;
    used += (size + 63) / 64 * 64;
    return place;
  };
  kp_query_bars *bars = (kp_query_bars *)take(rows * sizeof(kp_query_bars));
  /* At most three passes over tiles of 64 rows. */
  work->sums = (kp_scalar_sums *)take(heads * 3 * (size_t)((p.length + 63) / 64) * sizeof(kp_scalar_sums));
  work->mean_pitch = (p.value_size + 7) / 8 * 8;
  if (p.values != KP_VALUES_MEAN) {
    work->mean_bars = (kp_half *)take(rows * (size_t)work->mean_pitch * sizeof(kp_half));
    work->mean_lows = (kp_half *)take(rows * (size_t)work->mean_pitch * sizeof(kp_half));
  }
  work->bars = bars;
  if (scratch == NULL) return used;
  const dim3 grid((unsigned)((p.length + ROWS - 1) / ROWS), (unsigned)heads);
  bars_kernel<<<grid, dim3(LANES, ROWS), 0, stream>>>(*work, bars);
  return used;
}

size_t kp_attention_tensor_backward_scratch(const kp_attention_problem &p) {
  kp_tensor_work work = {};
  work.p = p;
  return prepare_backward(&work, NULL, NULL);
}

kp_status kp_attention_tensor_backward(const kp_call *call, const kp_attention_problem &p,
                                       const kp_attention_gradients &g, kp_error *error) {
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  const bool scalars = call->output[3] != NULL || call->output[4] != NULL;
  kp_tensor_work work = {};
  work.p = p, work.g = g;
  prepare_backward(&work, (char *)call->scratch, stream);
  kp_scalar_sums *sums = work.sums;
  if (!scalars) work.sums = NULL;
  switch (kp_score_family_of(p.score, p.values)) {
  case KP_FAMILY_DOT: KP_TRY(kp_attention_backward_dot(work, stream, error)); break;
  case KP_FAMILY_LORENTZ: KP_TRY(kp_attention_backward_lorentz(work, stream, error)); break;
  default: KP_TRY(kp_attention_backward_geodesic(work, stream, error));
  }
  if (scalars)
    kp_attention_add_scalars(sums, p.heads, (int64_t)p.batch * work.parts, kp_output_numbers(call, 3),
                             p.kappa_step == 0, kp_output_numbers(call, 4), p.beta_step == 0, stream);
  return kp_launched(call, error);
}
