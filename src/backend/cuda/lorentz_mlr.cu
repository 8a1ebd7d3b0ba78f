/* Multinomial logistic regression on the hyperboloid (geometry/hyperplane.h), from the products of points and
 * normals.
 *
 * What belongs to an entry of the vocabulary is computed once, in double.  The passes over the logits read
 * and write each number once, which bounds them: 2 and 2 bytes forward, 4 and 2 backward in bfloat16.  A
 * block takes a strip of columns of a group of rows; backward its sums over the rows go to scratch memory,
 * and those of all groups are added in order. */
#include "backend/cuda/kernel.cuh"
#include "geometry/hyperplane.h"

enum {
  THREADS = 128, /* at most, of a block */
  NORM_WARPS = 4,
  BLOCKS = 4096,
  LEAST_GROUP = 32,
  GROUP_TILE = 32,
  BATCH = 4,
};

/* Hyperplanes by entry, (V) each. */
struct planes {
  float *multiple, *by_product, *by_time;
};

/* The sums of kp_hyperplane_sums: (groups, V) each, and of the rows' times (N, strips). */
struct plane_sums {
  float *bend, *product, *time, *by_row;
};

struct mlr_shape {
  int64_t rows, columns, pitch;  /* N, V */
  int64_t depth, depth_pitch;    /* C */
  int64_t groups, group, strips; /* groups of `group` rows */
  int threads;                   /* of a strip */
};

/* Groups are multiples of a tile of rows; there are enough of them to fill a chip. */
static mlr_shape shape_of(const kp_node *node, int size) {
  enum { LEAST_GROUPS = 64 };
  const kp_tensor *products = node->input[0], *z = node->input[2];
  mlr_shape s = {};
  s.rows = kp_tensor_rows(products), s.columns = kp_tensor_columns(products), s.pitch = kp_pitch(products);
  s.depth = kp_tensor_columns(z), s.depth_pitch = kp_pitch(z);
  const int64_t pack = 16 / size, parts = s.pitch % pack == 0 ? s.pitch / pack : s.pitch;
  s.threads = parts >= THREADS ? THREADS : (int)(parts + 31) / 32 * 32;
  s.strips = (parts + s.threads - 1) / s.threads;
  int64_t groups = BLOCKS / s.strips;
  if (groups < LEAST_GROUPS) groups = LEAST_GROUPS;
  s.group = (s.rows + groups - 1) / groups;
  s.group = (s.group + LEAST_GROUP - 1) / LEAST_GROUP * LEAST_GROUP;
  s.groups = s.group == 0 ? 0 : (s.rows + s.group - 1) / s.group;
  return s;
}

static planes planes_at(void *scratch, const mlr_shape &s) {
  float *at = (float *)scratch;
  return {at, at + s.columns, at + 2 * s.columns};
}

/* ---- by entry ---- */

__device__ static inline double radius_of(const kp_numbers &c) {
  return c.at == NULL ? 1 : sqrt((double)c[0]);
}

/* |z_v|, by a warp. */
template <typename T> __device__ static inline double norm_of(const T *z, int64_t v, const mlr_shape &s) {
  double square = 0;
  for (int64_t i = threadIdx.x % 32; i < s.depth; i += 32) {
    const double x = (double)kp_to_float(z[v * s.depth_pitch + i]);
    square += x * x;
  }
  return sqrt(kp_warp_sum(square));
}

template <typename T>
static __global__ void planes_kernel(planes to, const T *z, kp_numbers offset, kp_numbers c, mlr_shape s) {
  const int64_t v = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
  if (v >= s.columns) return;
  const kp_hyperplane plane = kp_hyperplane_of(norm_of(z, v, s), (double)offset[v], radius_of(c));
  if (threadIdx.x % 32 != 0) return;
  to.multiple[v] = (float)plane.multiple;
  to.by_product[v] = (float)plane.by_product;
  to.by_time[v] = (float)plane.by_time;
}

template <typename T> static void fill_planes(const kp_call *call, const planes &to, const mlr_shape &s) {
  planes_kernel<T><<<kp_blocks(s.columns, NORM_WARPS), NORM_WARPS * 32, 0, kp_cuda_of(call)->stream>>>(
      to, (const T *)call->input[2], kp_input_numbers(call, 3), kp_input_numbers(call, 4), s);
}

/* ---- over the logits ---- */

/* COUNT numbers of a row: a pack, or one where rows are no whole packs. */
template <typename T, int COUNT> struct row_part { T value[COUNT]; };

template <typename T, int COUNT> __device__ static inline row_part<T, COUNT> load_part(const T *at) {
  row_part<T, COUNT> part;
  if constexpr (COUNT == kp_pack<T>::size) {
    const kp_pack<T> pack = kp_load(at);
    for (int j = 0; j < COUNT; j++) part.value[j] = pack.value[j];
  } else {
    part.value[0] = *at;
  }
  return part;
}

template <typename T, int COUNT>
__device__ static inline void store_part(T *at, const row_part<T, COUNT> &part) {
  if constexpr (COUNT == kp_pack<T>::size) {
    kp_pack<T> pack;
    for (int j = 0; j < COUNT; j++) pack.value[j] = part.value[j];
    kp_store(at, pack);
  } else {
    *at = part.value[0];
  }
}

/* The planes of a thread's columns; those of the padding are 0, which makes its logits so. */
template <int COUNT> struct own_planes {
  float multiple[COUNT], by_product[COUNT], by_time[COUNT];
  __device__ own_planes(const planes &p, int64_t v, int64_t columns) {
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
      const bool inside = v + j < columns;
      multiple[j] = inside ? p.multiple[v + j] : 0;
      by_product[j] = inside ? p.by_product[v + j] : 0;
      by_time[j] = inside ? p.by_time[v + j] : 0;
    }
  }
};

/* asinh u; for bfloat16 by what the special function unit gives, and its power series where that cancels. */
template <typename T> __device__ static inline float inverse_sine(float u) {
  if constexpr (sizeof(T) == sizeof(float)) return asinhf(u);
  const float size = fabsf(u), square = u * u;
  const float series = u * (1 + square * (-0.166666667f + square * (0.075f - 0.044642857f * square)));
  const float near = __logf(size + (1 + square) * rsqrtf(1 + square)), far = __logf(size) + 0.693147181f;
  return size < 0.3f ? series : copysignf(size < 1e9f ? near : far, u);
}

template <typename T, int COUNT>
static __global__ void __launch_bounds__(THREADS)
    logits_kernel(T *out, const T *products, kp_numbers time, planes p, mlr_shape s) {
  const int64_t v = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * COUNT;
  const int64_t first = blockIdx.y * s.group, last = min(first + s.group, s.rows);
  if (v >= s.pitch) return;
  const own_planes<COUNT> own(p, v, s.columns);
  for (int64_t n = first; n < last; n += BATCH) {
    row_part<T, COUNT> part[BATCH];
    float t[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (n + k < last) part[k] = load_part<T, COUNT>(products + (n + k) * s.pitch + v);
      t[k] = n + k < last ? time[n + k] : 0;
    }
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (n + k >= last) break;
#pragma unroll
      for (int j = 0; j < COUNT; j++) {
        const float u = own.by_product[j] * kp_to_float(part[k].value[j]) + own.by_time[j] * t[k];
        part[k].value[j] = kp_from_float<T>(v + j < s.columns ? own.multiple[j] * inverse_sine<T>(u) : 0.0f);
      }
      store_part<T, COUNT>(out + (n + k) * s.pitch + v, part[k]);
    }
  }
}

static dim3 grid_of(const mlr_shape &s) {
  return dim3((unsigned)s.strips, (unsigned)s.groups);
}

template <typename T> static void forward(const kp_call *call, const planes &p, const mlr_shape &s) {
  constexpr int SIZE = kp_pack<T>::size;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const kp_numbers time = kp_input_numbers(call, 1);
  const T *products = (const T *)call->input[0];
  T *out = (T *)call->output[0];
  fill_planes<T>(call, p, s);
  if (s.pitch % SIZE == 0)
    logits_kernel<T, SIZE><<<grid_of(s), s.threads, 0, stream>>>(out, products, time, p, s);
  else
    logits_kernel<T, 1><<<grid_of(s), s.threads, 0, stream>>>(out, products, time, p, s);
}

/* The planes. */
extern "C" size_t kp_cuda_scratch_lorentz_mlr(const kp_node *node, int threads) {
  (void)threads;
  return 3 * (size_t)kp_tensor_columns(node->input[0]) * sizeof(float);
}

extern "C" kp_status kp_cuda_lorentz_mlr(const kp_call *call, kp_error *error) {
  const mlr_shape s = shape_of(call->node, kp_is_half(call) ? sizeof(kp_half) : sizeof(float));
  const planes p = planes_at(call->scratch, s);
  if (s.rows == 0) return KP_OK;
  if (kp_is_half(call))
    forward<kp_half>(call, p, s);
  else
    forward<float>(call, p, s);
  return kp_launched(call, error);
}

/* ---- backward ---- */

/* asinh u - u / √(1 + u²), given both; near zero, where they cancel, its power series. */
__device__ static inline float bend_of(float u, float inverse, float ratio) {
  const float square = u * u;
  float p = 0.195507812f;
  p = p * square - 0.208233173f;
  p = p * square + 0.223721591f;
  p = p * square - 0.243055556f;
  p = p * square + 0.267857143f;
  p = p * square - 0.3f;
  p = p * square + 0.333333333f;
  return fabsf(u) < 0.4f ? p * square * u : inverse - ratio;
}

/* 1 / √(1 + u²), for any u. */
__device__ static inline float slope_of(float u) {
  const float size = fabsf(u);
  return size < 1e18f ? rsqrtf(1 + u * u) : 1 / size;
}

/* g becomes the gradient of the products, perhaps in place. */
template <typename T, int COUNT>
static __global__ void __launch_bounds__(THREADS)
    gradient_kernel(T *out, const T *g, const T *products, kp_numbers time, planes p, plane_sums to,
                    mlr_shape s) {
  __shared__ float times[GROUP_TILE], by_row[GROUP_TILE][THREADS / 32];
  const int64_t v = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * COUNT;
  const int64_t first = blockIdx.y * s.group, last = min(first + s.group, s.rows);
  const own_planes<COUNT> own(p, v, s.columns);
  float bend[COUNT] = {}, product[COUNT] = {}, along[COUNT] = {};
  for (int64_t tile = first; tile < last; tile += GROUP_TILE) {
    const int count = last - tile < GROUP_TILE ? (int)(last - tile) : GROUP_TILE;
    __syncthreads();
    if (threadIdx.x < count) times[threadIdx.x] = time[tile + threadIdx.x];
    __syncthreads();
    for (int i = 0; i < count; i++) {
      const float t = times[i];
      const int64_t place = (tile + i) * s.pitch + v;
      float row = 0;
      if (v < s.pitch) {
        row_part<T, COUNT> x = load_part<T, COUNT>(products + place), y = load_part<T, COUNT>(g + place);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
          if (v + j >= s.columns) {
            y.value[j] = kp_from_float<T>(0.0f);
            continue;
          }
          const float xj = kp_to_float(x.value[j]), gy = kp_to_float(y.value[j]);
          const float u = own.by_product[j] * xj + own.by_time[j] * t, slope = slope_of(u);
          const float gu = gy * own.multiple[j] * slope;
          bend[j] += gy * bend_of(u, inverse_sine<T>(u), u * slope);
          product[j] += gu * xj;
          along[j] += gu * t;
          row += gu * own.by_time[j];
          y.value[j] = kp_from_float<T>(gu * own.by_product[j]);
        }
        store_part<T, COUNT>(out + place, y);
      }
      row = kp_warp_sum(row);
      if (threadIdx.x % 32 == 0) by_row[i][threadIdx.x / 32] = row;
    }
    __syncthreads();
    if (threadIdx.x < count) {
      float sum = 0;
      for (int w = 0; w < blockDim.x / 32; w++) sum += by_row[threadIdx.x][w];
      to.by_row[(tile + threadIdx.x) * s.strips + blockIdx.x] = sum;
    }
  }
#pragma unroll
  for (int j = 0; j < COUNT; j++)
    if (v + j < s.columns) {
      to.bend[blockIdx.y * s.columns + v + j] = bend[j];
      to.product[blockIdx.y * s.columns + v + j] = product[j];
      to.time[blockIdx.y * s.columns + v + j] = along[j];
    }
}

static __global__ void row_sums_kernel(kp_results g, const float *parts, int64_t rows, int64_t strips) {
  const int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= rows) return;
  float sum = 0;
  for (int64_t i = 0; i < strips; i++) sum += parts[n * strips + i];
  g.set(n, sum);
}

__device__ static inline double group_sum(const float *parts, int64_t v, const mlr_shape &s) {
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < s.groups; i += 32) sum += (double)parts[i * s.columns + v];
  return kp_warp_sum(sum);
}

/* A warp an entry: its hyperplane's gradient.  gz may be NULL. */
template <typename T>
static __global__ void entry_gradient_kernel(float *gz, int64_t gz_pitch, kp_results ga, double *by_radius,
                                             const T *z, kp_numbers offset, kp_numbers c, plane_sums from,
                                             mlr_shape s) {
  const int64_t v = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
  if (v >= s.columns) return;
  const double norm = norm_of(z, v, s);
  const kp_hyperplane_sums sums = {group_sum(from.bend, v, s), group_sum(from.product, v, s),
                                   group_sum(from.time, v, s)};
  const kp_hyperplane_gradient to = kp_hyperplane_backward(norm, (double)offset[v], radius_of(c), sums);
  const float along = (float)(to.norm / norm);
  for (int64_t i = threadIdx.x % 32; i < s.depth && gz != NULL && norm > 0; i += 32)
    gz[v * gz_pitch + i] += along * kp_to_float(z[v * s.depth_pitch + i]);
  if (threadIdx.x % 32 != 0) return;
  if (ga.at != NULL) ga.add(v, (float)to.offset);
  by_radius[v] = to.radius;
}

/* One block of 1024. */
static __global__ void radius_gradient_kernel(kp_results gc, const double *by_radius, kp_numbers c,
                                              int64_t columns) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64_t v = threadIdx.x; v < columns; v += blockDim.x) sum += by_radius[v];
  sum = kp_block_sum(sum, shared);
  if (threadIdx.x == 0) gc.add(0, (float)(sum / (2 * radius_of(c))));
}

template <typename T>
static void entry_gradients(const kp_call *call, double *by_radius, const plane_sums &from,
                            const mlr_shape &s) {
  const kp_tensor *gz = call->node->output[2];
  entry_gradient_kernel<T>
      <<<kp_blocks(s.columns, NORM_WARPS), NORM_WARPS * 32, 0, kp_cuda_of(call)->stream>>>(
          (float *)call->output[2], gz == NULL ? 0 : kp_pitch(gz), kp_output_numbers(call, 3), by_radius,
          (const T *)call->input[2], kp_input_numbers(call, 3), kp_input_numbers(call, 4), from, s);
}

template <typename T>
static void products_gradient(const kp_call *call, const planes &p, const plane_sums &to,
                              const mlr_shape &s) {
  constexpr int SIZE = kp_pack<T>::size;
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const kp_numbers time = kp_input_numbers(call, 1);
  const T *products = (const T *)call->input[0], *g = (const T *)call->input[5];
  T *out = (T *)call->output[0];
  fill_planes<T>(call, p, s);
  if (s.pitch % SIZE == 0)
    gradient_kernel<T, SIZE><<<grid_of(s), s.threads, 0, stream>>>(out, g, products, time, p, to, s);
  else
    gradient_kernel<T, 1><<<grid_of(s), s.threads, 0, stream>>>(out, g, products, time, p, to, s);
}

/* By entry in double, the planes, the sums. */
static size_t backward_bytes(const mlr_shape &s) {
  return (size_t)s.columns * (sizeof(double) + 3 * sizeof(float)) +
         (size_t)(3 * s.groups * s.columns + s.rows * s.strips) * sizeof(float);
}

extern "C" size_t kp_cuda_scratch_lorentz_mlr_backward(const kp_node *node, int threads) {
  (void)threads;
  const size_t wide = backward_bytes(shape_of(node, sizeof(float)));
  const size_t half = backward_bytes(shape_of(node, sizeof(kp_half)));
  return wide > half ? wide : half;
}

extern "C" kp_status kp_cuda_lorentz_mlr_backward(const kp_call *call, kp_error *error) {
  const mlr_shape s = shape_of(call->node, kp_is_half(call) ? sizeof(kp_half) : sizeof(float));
  if (s.rows == 0) return KP_OK;
  double *by_radius = (double *)call->scratch;
  const planes p = planes_at(by_radius + s.columns, s);
  float *sums = p.by_time + s.columns;
  const int64_t part = s.groups * s.columns;
  const plane_sums to = {sums, sums + part, sums + 2 * part, sums + 3 * part};
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const bool half = kp_is_half(call);
  if (half)
    products_gradient<kp_half>(call, p, to, s);
  else
    products_gradient<float>(call, p, to, s);
  if (call->output[1] != NULL)
    row_sums_kernel<<<kp_blocks(s.rows, THREADS), THREADS, 0, stream>>>(kp_output_numbers(call, 1), to.by_row,
                                                                        s.rows, s.strips);
  if (call->output[2] == NULL && call->output[3] == NULL && call->output[4] == NULL)
    return kp_launched(call, error);
  if (half)
    entry_gradients<kp_half>(call, by_radius, to, s);
  else
    entry_gradients<float>(call, by_radius, to, s);
  if (call->output[4] != NULL)
    radius_gradient_kernel<<<1, 1024, 0, stream>>>(kp_output_numbers(call, 4), by_radius,
                                                   kp_input_numbers(call, 4), s.columns);
  return kp_launched(call, error);
}
