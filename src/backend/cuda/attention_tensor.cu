/* Before the tensor core kernels: the numbers beside rows, in float, by the text of geometry/.
 *
 * A row of D bfloat16 is read by eight lanes and leaves 16 bytes; memory bounds it. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/attention_tensor.cuh"
#include "geometry/geodesic_score.h"
#include "geometry/lorentz.h"
#include "geometry/tangent_midpoint.h"

enum { LANES = 8, ROWS = 16 };

/* |u|² over the eight lanes of a row. */
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
  for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
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
  if (p.score == KP_SCORE_LORENTZ) {
    const float c = kp_lorentz_radius(head.kappa), root = kp_sqrt(c), time = kp_lorentz_time(square, c);
    const float above = square / (time + root);
    numbers.own = root * above;
    numbers.x = query ? (head.negated ? -time : time) / scale : above / scale;
    numbers.y = time;
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
                                      kp_value_numbers *v) {
  const int b = blockIdx.y / p.heads, h = blockIdx.y % p.heads, kv = h / (p.heads / p.kv_heads);
  const int position = blockIdx.x * ROWS + threadIdx.y, at = min(position, p.length - 1);
  const int64_t n = (int64_t)b * p.length, to = (int64_t)blockIdx.y * p.length + position;
  const kp_score_head head = kp_score_head_of(p, h);
  const bool writes = threadIdx.x == 0 && position < p.length;
  if (q != NULL) {
    const kp_row_numbers of_query =
        row_numbers(p, head, row_square(kp_half_rows_of(p.q, n, h, p.size), at), true);
    const kp_row_numbers of_key =
        row_numbers(p, head, row_square(kp_half_rows_of(p.k, n, kv, p.size), at), false);
    if (writes) q[to] = of_query, k[to] = of_key;
  }
  if (v == NULL) return;
  const float square = row_square(kp_half_rows_of(p.v, n, kv, p.value_size), at);
  if (writes) v[to] = value_numbers(p, kp_head_kappa(p, h), square);
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

size_t kp_attention_tensor_prepare(kp_tensor_work *work, char *scratch, cudaStream_t stream) {
  const kp_attention_problem &p = work->p;
  const size_t rows = (size_t)p.batch * (size_t)p.heads * (size_t)p.length;
  const int blocks = (p.length + KP_DOCUMENT_ROWS - 1) / KP_DOCUMENT_ROWS;
  size_t used = 0;
  const auto take = [&](bool wanted, size_t size) -> char * {
    if (!wanted) return NULL;
    char *place = scratch == NULL ? NULL : scratch + used;
    used += (size + 63) / 64 * 64;
    return place;
  };
  kp_row_numbers *q = (kp_row_numbers *)take(p.score != KP_SCORE_DOT, rows * sizeof(kp_row_numbers));
  kp_row_numbers *k = (kp_row_numbers *)take(p.score != KP_SCORE_DOT, rows * sizeof(kp_row_numbers));
  kp_value_numbers *v = (kp_value_numbers *)take(p.values != KP_VALUES_MEAN, rows * sizeof(kp_value_numbers));
  kp_document_span *spans = (kp_document_span *)take(p.documents != NULL, (size_t)p.batch * (size_t)blocks *
                                                                              sizeof(kp_document_span));
  work->q = q, work->k = k, work->v = v, work->spans = spans;
  if (scratch == NULL) return used;
  if (q != NULL || v != NULL) {
    const dim3 grid((unsigned)((p.length + ROWS - 1) / ROWS), (unsigned)(p.batch * p.heads));
    numbers_kernel<<<grid, dim3(LANES, ROWS), 0, stream>>>(p, q, k, v);
  }
  if (spans != NULL) {
    const int count = p.batch * blocks;
    spans_kernel<<<kp_blocks(count, 128), 128, 0, stream>>>(p.documents, p.length, blocks, count, spans);
  }
  return used;
}

/* A block's shared memory at the largest sizes, by which devices are told apart. */
static size_t shared_bytes(int size, int value_size) {
  const bool narrow = size <= 128 && value_size <= 128;
  return size <= 64 && value_size <= 64     ? 64 << 10
         : narrow                           ? 112 << 10
         : size <= 192 && value_size <= 128 ? 80 << 10
                                            : 104 << 10;
}

bool kp_attention_tensor_fits(const kp_attention_problem &p, size_t shared) {
  return p.size <= 256 && p.value_size <= 256 && (int64_t)p.batch * p.heads <= 65535 &&
         shared_bytes(p.size, p.value_size) <= shared;
}

kp_status kp_attention_tensor(const kp_call *call, const kp_attention_problem &p, kp_error *error) {
  const cudaStream_t stream = kp_cuda_of(call)->stream;
  kp_tensor_work work = {};
  work.p = p;
  kp_attention_tensor_prepare(&work, (char *)call->scratch, stream);
  switch (kp_score_family_of(p.score)) {
  case KP_FAMILY_DOT: KP_TRY(kp_attention_forward_dot(work, stream, error)); break;
  case KP_FAMILY_LORENTZ: KP_TRY(kp_attention_forward_lorentz(work, stream, error)); break;
  default: KP_TRY(kp_attention_forward_geodesic(work, stream, error));
  }
  return kp_launched(call, error);
}
