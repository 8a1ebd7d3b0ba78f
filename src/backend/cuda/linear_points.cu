/* Maps of points in bfloat16 as one matrix product: times and bias become columns of the depth,
 *
 *   [x | t t' t | 1 1] [W | w w w' | b b']ᵀ = x Wᵀ + t wᵀ + b,
 *
 * where a float stands as the sum of two bfloat16 numbers, v and v', which keeps 16 bits of it.  Copying x
 * costs 4 N K bytes; writing times into y first and reading them back in the product would cost 4 N M, and as
 * many multiplications as there are groups. */
#include "backend/cuda/linear.cuh"

enum { TIME_COLUMNS = 3, BIAS_COLUMNS = 2 };

int64_t kp_points_depth(int64_t M, int64_t K, int64_t groups, bool biased) {
  const int64_t columns = K + TIME_COLUMNS * groups + (biased ? BIAS_COLUMNS : 0);
  const int64_t depth = (columns + KP_CUDA_ROW_MULTIPLE - 1) / KP_CUDA_ROW_MULTIPLE * KP_CUDA_ROW_MULTIPLE;
  const bool cheaper = groups > 1 || (groups == 1 && M >= depth);
  return cheaper && K >= KP_CUDA_ROW_MULTIPLE ? depth : 0;
}

/* One of the two matrices. */
struct joined_matrix {
  const kp_half *from;
  kp_half *to;
  int64_t rows, stored, pitch; /* rows behind `rows` are zero */
  kp_numbers number, bias;     /* times or their weights, (rows, G) */
  int64_t number_pitch;
  bool weights;
};

struct joining {
  joined_matrix x, w;
  int64_t columns, depth, groups; /* K */
  bool biased;
};

/* The float as two numbers: the first, or what it leaves. */
__device__ static inline kp_half part_of(float value, bool rest) {
  const kp_half first = __float2bfloat16_rn(value);
  return rest ? __float2bfloat16_rn(value - __bfloat162float(first)) : first;
}

__device__ static inline kp_half joined_element(const joining &j, const joined_matrix &m, int64_t row,
                                                int64_t column) {
  if (column < j.columns) return m.from[row * m.pitch + column];
  const int64_t k = column - j.columns, bias = k - TIME_COLUMNS * j.groups;
  if (bias < 0)
    return part_of(m.number[row * m.number_pitch + k / TIME_COLUMNS],
                   k % TIME_COLUMNS == (m.weights ? 2 : 1));
  if (!j.biased || bias >= BIAS_COLUMNS) return __float2bfloat16_rn(0);
  return m.weights ? part_of(m.bias[row], bias == 1) : __float2bfloat16_rn(1);
}

/* A thread makes 16 bytes of either matrix. */
static __global__ void join_kernel(joining j) {
  const int64_t chunks = j.depth / 8, of_x = j.x.stored * chunks;
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  const joined_matrix &m = i < of_x ? j.x : j.w;
  if (i >= of_x) i -= of_x;
  const int64_t row = i / chunks, column = i % chunks * 8;
  if (row >= m.stored) return;
  kp_pack<kp_half> pack = {};
  if (row < m.rows && column + 8 <= j.columns) {
    pack = kp_load(m.from + row * m.pitch + column);
  } else if (row < m.rows) {
#pragma unroll
    for (int k = 0; k < 8; k++) pack.value[k] = joined_element(j, m, row, column + k);
  }
  kp_store(m.to + row * j.depth + column, pack);
}

bool kp_points_fit(const kp_few_rows *f, int64_t K) {
  return kp_points_depth(f->columns, K, f->terms.groups, f->terms.bias.at != NULL) > 0 &&
         f->x_pitch % 8 == 0 && f->w_pitch % 8 == 0 && ((uintptr_t)f->x | (uintptr_t)f->w) % 16 == 0;
}

size_t kp_points_scratch(int64_t rows, int64_t M, int64_t depth) {
  return (size_t)((rows + M + KP_CUDA_ROW_MULTIPLE) * depth) * sizeof(kp_half);
}

kp_status kp_join_points(const kp_call *call, kp_few_rows *f, int64_t K, void *scratch, kp_error *error) {
  const kp_linear_terms t = f->terms;
  joining j = {};
  j.columns = K, j.groups = t.groups, j.biased = t.bias.at != NULL;
  j.depth = kp_points_depth(f->columns, K, t.groups, j.biased);
  kp_half *x = (kp_half *)scratch, *w = x + f->rows * j.depth;
  j.x = {(const kp_half *)f->x, x, f->rows, f->rows, f->x_pitch, t.time, {}, t.time_pitch, false};
  j.w = {(const kp_half *)f->w, w,      f->columns,     f->y_pitch, f->w_pitch,
         t.time_weight,         t.bias, t.weight_pitch, true};
  const int blocks = kp_blocks((f->rows + f->y_pitch) * (j.depth / 8), 256);
  join_kernel<<<blocks, 256, 0, kp_cuda_of(call)->stream>>>(j);
  f->x = x, f->w = w;
  f->x_pitch = f->w_pitch = f->depth = j.depth;
  f->terms = {};
  return kp_launched(call, error);
}
