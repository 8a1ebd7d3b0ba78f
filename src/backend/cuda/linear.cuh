/* The parts of linear maps that are no matrix product of cuBLASLt. */
#ifndef KAPPA_BACKEND_CUDA_LINEAR_CUH
#define KAPPA_BACKEND_CUDA_LINEAR_CUH

#include "backend/cuda/kernel.cuh"

/* What is added to the product: b + time · time weightᵀ. */
struct kp_linear_terms {
  kp_numbers bias, time, time_weight; /* (M), (N, G), (M, G); NULL: absent */
  int64_t groups, time_pitch, weight_pitch;
};

__device__ static inline float kp_linear_term(const kp_linear_terms &t, int64_t row, int64_t column) {
  float sum = t.bias.at == NULL ? 0 : t.bias[column];
  for (int64_t g = 0; g < t.groups; g++)
    sum += t.time[row * t.time_pitch + g] * t.time_weight[column * t.weight_pitch + g];
  return sum;
}

/* Of decoding: so few rows that the time is that of reading the matrix. */
enum { KP_FEW_ROWS = 8 };

struct kp_few_rows {
  const void *x, *w;
  void *y;
  int64_t rows, columns, depth; /* N, M, and K with its padding */
  int64_t x_pitch, w_pitch, y_pitch;
  kp_linear_terms terms;
};

kp_few_rows kp_few_rows_of(const kp_call *linear);

/* Whether rows start at multiples of 16 bytes, and are few too. */
bool kp_rows_are_whole(const kp_few_rows *few);
bool kp_few_rows_fit(const kp_few_rows *few);
kp_status kp_linear_few(const kp_call *call, const kp_few_rows *few, kp_error *error);

/* V columns of a row: as they stand in memory until they are used, which takes fewer registers. */
template <typename T, int V> struct alignas(V * sizeof(T)) kp_columns { T value[V]; };

template <typename T, int V>
__device__ static inline kp_columns<T, V> kp_read_columns(const T *at, bool inside) {
  kp_columns<T, V> read = {};
  if (!inside) return read;
  if constexpr (V * sizeof(T) == sizeof(uint4))
    *(uint4 *)&read = __ldg((const uint4 *)at);
  else
    read.value[0] = *at;
  return read;
}

/* Sums over rows and columns of gy (N, M); results that are not wanted are NULL.
 *   bias (M)            += Σ_n gy
 *   time_weight (M, G)  += Σ_n gy · time
 *   time_gradient (N, G) = Σ_m gy · time weight */
struct kp_linear_sums {
  const void *gy;
  int64_t rows, columns, pitch; /* N, M */
  int64_t groups;               /* G; 0 without time */
  kp_numbers time, time_weight;
  int64_t time_pitch, weight_pitch;
  kp_results bias, weight_gradient, time_gradient;
  int64_t weight_gradient_pitch, time_gradient_pitch;
};

/* Bytes of scratch memory. */
size_t kp_linear_sums_scratch(int64_t rows, int64_t columns, bool timed);
kp_status kp_linear_sum(const kp_call *call, const kp_linear_sums *sums, void *scratch, kp_error *error);

#endif
