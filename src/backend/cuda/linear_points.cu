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

/* Eight columns of a row that are not all of x or W.  What they need is asked for at once: the zeros behind
 * the row's own columns make room, and eight columns have of at most four groups. */
__device__ static inline kp_pack<kp_half> joined_columns(const joining &j, const joined_matrix &m,
                                                         int64_t row, int64_t column) {
  const int start = (int)(column - j.columns), times = TIME_COLUMNS * (int)j.groups;
  const int first = start > 0 ? start / TIME_COLUMNS : 0;
  kp_pack<kp_half> pack = {};
  float number[4], bias = 1;
  if (start < 0) pack = kp_load(m.from + row * m.pitch + column);
  kp_take_numbers<4>(m.number, row * m.number_pitch + first, 1, j.groups - first, number);
  if (j.biased && m.weights) bias = m.bias[row];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int k = start + i, group = k / TIME_COLUMNS - first;
    const float value = group == 0 ? number[0] : group == 1 ? number[1] : group == 2 ? number[2] : number[3];
    if (k >= 0 && k < times)
      pack.value[i] = part_of(value, k % TIME_COLUMNS == (m.weights ? 2 : 1));
    else if (k >= times && k < times + BIAS_COLUMNS && j.biased)
      pack.value[i] = part_of(bias, m.weights && k > times);
  }
  return pack;
}

/* A row of x, or, behind those, one of W. */
__device__ static inline const joined_matrix &matrix_of(const joining &j, int64_t *row) {
  if (*row < j.x.stored) return j.x;
  *row -= j.x.stored;
  return j.w;
}

__device__ static inline void store_columns(const joining &j, int64_t row, int64_t column,
                                            const kp_pack<kp_half> &pack) {
  const joined_matrix &m = matrix_of(j, &row);
  if (row < m.stored) kp_store(m.to + row * j.depth + column, pack);
}

/* A thread makes 16 bytes of four rows: mostly copies, all on their way at once. */
static __global__ void __launch_bounds__(KP_STRIP_THREADS) join_kernel(joining j) {
  const int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 8;
  const int64_t first = ((int64_t)blockIdx.x * blockDim.y + threadIdx.y) * KP_FOUR;
  const bool own = column + 8 <= j.columns;
  kp_pack<kp_half> pack[KP_FOUR] = {};
  if (column >= j.depth) return;
#pragma unroll
  for (int i = 0; i < KP_FOUR; i++) {
    int64_t row = first + i;
    const joined_matrix &m = matrix_of(j, &row);
    if (own && row < m.rows) pack[i] = kp_load(m.from + row * m.pitch + column);
  }
  for (int i = 0; i < KP_FOUR && !own; i++) {
    int64_t row = first + i;
    const joined_matrix &m = matrix_of(j, &row);
    if (row < m.rows) store_columns(j, first + i, column, joined_columns(j, m, row, column));
    if (row >= m.rows) store_columns(j, first + i, column, kp_pack<kp_half>{});
  }
#pragma unroll
  for (int i = 0; i < KP_FOUR && own; i++) store_columns(j, first + i, column, pack[i]);
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
  const kp_row_cut cut = kp_cut_row(j.depth, 8);
  const dim3 block((unsigned)cut.threads, (unsigned)(KP_STRIP_THREADS / cut.threads));
  const dim3 grid((unsigned)kp_blocks(f->rows + f->y_pitch, block.y * KP_FOUR), (unsigned)cut.tiles);
  join_kernel<<<grid, block, 0, kp_cuda_of(call)->stream>>>(j);
  f->x = x, f->w = w;
  f->x_pitch = f->w_pitch = f->depth = j.depth;
  f->terms = {};
  return kp_launched(call, error);
}
