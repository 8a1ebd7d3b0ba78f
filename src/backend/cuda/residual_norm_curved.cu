/* The curved seam on rows of bfloat16, forward, by warps: scalars in float.
 *
 * A row moves 6 C bytes in (x, u and, unless it is the stream's own, the reference) and 4 C out, and takes
 * about 25 operations a channel; memory bounds it.  What is read a second time comes from the caches. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/row_program_scalars.cuh"
#include "backend/cuda/seam_sums.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

struct curved_outputs {
  void *stream, *y; /* stream: NULL without an update */
  float2 *statistics;
  int *events; /* (blocks) */
};

enum { V = KP_WARP_VECTOR, GRAM = 3 };

template <int P, bool GROUPED> struct curved_forward {
  using groups_type = kp_warp_groups<P, GROUPED>;
  static constexpr int SLOTS = groups_type::SLOTS;
  const kp_seam &s;
  const curved_outputs &out;
  const groups_type groups;
  const float *weight, *bias; /* of the block */
  float *sums;                /* of the warp: inner products, then coefficients (TILE, groups, GRAM) */
  int64_t begin;              /* the warp's first row; one before it is its reference alone */
  int64_t first;              /* of the tile */
  int rows;
  int events;

  __device__ curved_forward(const kp_seam &seam, const curved_outputs &outputs)
      : s(seam), out(outputs), groups(seam), events(0) {}

  static __device__ constexpr int slot(int p) { return groups_type::slot(p); }

  __device__ static void pair(const kp_warp_vector &a, const float b[V], float to[GRAM]) {
#pragma unroll
    for (int k = 0; k < V; k++) to[0] += a[k] * a[k], to[1] += a[k] * b[k], to[2] += b[k] * b[k];
  }

  /* Each lane runs a program for a row and group of the tile: coefficients take the place of products. */
  __device__ void run(int program, const kp_curvatures &kappa) {
    __syncwarp();
    for (int e = threadIdx.x % 32; e < rows * groups.count; e += 32) {
      const int i = e / groups.count, group = e - i * groups.count;
      float *at = sums + GRAM * e;
      const kp_real gram[6] = {at[0], at[1], at[2]};
      kp_real coefficients[3];
      const int event = kp_program_forward(program, gram, kappa.at(first + i, group), 0, coefficients);
      if (first + i >= begin) events += event;
      at[0] = coefficients[0], at[1] = coefficients[1];
    }
    __syncwarp();
  }

  /* The two coefficients of row i's pack p. */
  __device__ float2 coefficients(bool curved, float flat, int i, int p) const {
    if (!curved) return make_float2(flat, 1);
    const float *at = sums + GRAM * (i * groups.count + groups.group(slot(p)));
    return make_float2(at[0], at[1]);
  }

  __device__ void fetch_branches(int i, kp_warp_vector x[P], kp_warp_vector u[P]) const {
    const bool there = i < rows;
    kp_warp_fetch<P>(s.x, s, first + i, there, x);
    kp_warp_fetch<P>(s.u, s, first + i, there && s.update != KP_SEAM_NONE, u);
  }

  __device__ void update_products() {
    kp_warp_vector x[P], u[P], next_x[P], next_u[P];
    fetch_branches(0, x, u);
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      float parts[SLOTS][GRAM] = {};
      fetch_branches(i + 1, next_x, next_u);
#pragma unroll
      for (int p = 0; p < P; p++) {
        float b[V];
#pragma unroll
        for (int k = 0; k < V; k++) b[k] = u[p][k];
        pair(x[p], b, parts[slot(p)]);
        x[p] = next_x[p], u[p] = next_u[p];
      }
      groups.gather(parts, i, sums);
    }
    run(s.update_program, s.update_kappa);
  }

  /* h = x' of row i. */
  __device__ void update(int i, const kp_warp_vector x[P], const kp_warp_vector u[P],
                         kp_warp_vector h[P]) const {
#pragma unroll
    for (int p = 0; p < P; p++) {
      const float2 c = coefficients(s.update == KP_SEAM_CURVED, 1, i, p);
      float sum[V];
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] = c.x * x[p][k] + c.y * u[p][k];
      h[p] = s.update == KP_SEAM_NONE ? x[p] : kp_to_vector<kp_half, V>(sum);
    }
  }

  /* x' of the row in front of the run. */
  __device__ void update_before(kp_warp_vector before[P]) {
    kp_warp_vector x[P], u[P];
    first = begin - 1, rows = 1;
    if (s.update == KP_SEAM_CURVED) update_products();
    fetch_branches(0, x, u);
    update(0, x, u, before);
    __syncwarp();
  }

  /* The reference of row i, where `before` is x' of the row before. */
  __device__ void reference(int i, const kp_warp_vector before[P], kp_warp_vector r[P]) const {
    const int64_t n = first + i;
    if (!s.own) return kp_warp_given<P>(s, n, true, r);
    if (n % s.T == 0) return kp_warp_carried<P>(s, n, r);
#pragma unroll
    for (int p = 0; p < P; p++) r[p] = before[p];
  }

  /* Stores x' of the tile's rows and gathers the products of tangents.  The products of row i take the place
   * of the update's coefficients, which are not needed any more. */
  __device__ void tangent_products(kp_warp_vector before[P]) {
    kp_warp_vector x[P], u[P], h[P], r[P];
    fetch_branches(0, x, u);
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      update(i, x, u, h);
      fetch_branches(i + 1, x, u);
      reference(i, before, r);
      float parts[SLOTS][GRAM] = {};
#pragma unroll
      for (int p = 0; p < P; p++) {
        float d[V];
#pragma unroll
        for (int k = 0; k < V; k++) d[k] = h[p][k] - r[p][k];
        pair(r[p], d, parts[slot(p)]);
        before[p] = h[p];
        if (out.stream != NULL) kp_warp_store(out.stream, s, first + i, p, h[p]);
      }
      if (s.tangent != KP_SEAM_CURVED) continue;
      __syncwarp(); /* all lanes have read the row's coefficients */
      groups.gather(parts, i, sums);
    }
    if (s.tangent == KP_SEAM_CURVED) run(s.tangent_program, s.tangent_kappa);
  }

  /* Mean and reciprocal deviation of z. */
  __device__ float2 moments(const float z[P][V]) const {
    float mean = 0, squares = 0;
    if (s.layer) {
#pragma unroll
      for (int p = 0; p < P; p++)
#pragma unroll
        for (int k = 0; k < V; k++) mean += z[p][k];
      mean = kp_warp_sum(mean) / (float)s.C;
    }
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float from_mean = kp_warp_channel(p) + k < s.C ? z[p][k] - mean : 0.0f;
        squares += from_mean * from_mean;
      }
    return make_float2(mean, 1 / sqrtf(kp_warp_sum(squares) / (float)s.C + (float)s.epsilon));
  }

  /* y of the tile's rows; `before` is x' of the row in front of the tile, and of its last row afterwards. */
  __device__ void normalise(kp_warp_vector before[P]) {
    const void *stream = out.stream != NULL ? out.stream : s.x;
    kp_warp_vector h[P], next[P], r[P];
    kp_warp_fetch<P>(stream, s, first, true, h);
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      float z[P][V];
      kp_warp_fetch<P>(stream, s, first + i + 1, i + 1 < rows, next);
      reference(i, before, r);
#pragma unroll
      for (int p = 0; p < P; p++) {
        const float2 c = coefficients(s.tangent == KP_SEAM_CURVED, 0, i, p);
#pragma unroll
        for (int k = 0; k < V; k++) z[p][k] = c.x * r[p][k] + c.y * (h[p][k] - r[p][k]);
      }
      store_row(first + i, z);
#pragma unroll
      for (int p = 0; p < P; p++) before[p] = h[p], h[p] = next[p];
    }
  }

  __device__ void store_row(int64_t n, const float z[P][V]) const {
    const float2 moment = moments(z);
    if (threadIdx.x % 32 == 0) out.statistics[n] = moment;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V], b[V], y[V];
      kp_warp_get(weight, p, w), kp_warp_get(bias, p, b);
#pragma unroll
      for (int k = 0; k < V; k++) y[k] = (z[p][k] - moment.x) * moment.y * w[k] + b[k];
      kp_warp_store(out.y, s, n, p, kp_to_vector<kp_half, V>(y));
    }
  }
};

/* The block's events; every thread has its own. */
__device__ static void store_events(int events, int *to) {
  __shared__ int count;
  __syncthreads();
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  if (events != 0) atomicAdd(&count, events);
  __syncthreads();
  if (threadIdx.x == 0) to[blockIdx.x] = count;
}

template <int P, bool GROUPED>
__global__ static void __launch_bounds__(32 * KP_WARPS, 4)
    curved_forward_kernel(const kp_seam s, const curved_outputs out) {
  enum { COLUMNS = P * KP_WARP_CHANNELS };
  extern __shared__ __align__(16) float shared[]; /* weight, bias, then each warp's sums */
  kp_warp_spread<P>(s.weight, s.C, 1, shared), kp_warp_spread<P>(s.bias, s.C, 0, shared + COLUMNS);
  __syncthreads();
  curved_forward<P, GROUPED> f(s, out);
  f.weight = shared, f.bias = shared + COLUMNS;
  f.sums = shared + 2 * COLUMNS + threadIdx.x / 32 * KP_WARP_TILE * GRAM * f.groups.count;
  f.begin = ((int64_t)blockIdx.x * KP_WARPS + threadIdx.x / 32) * s.run;
  const int64_t end = f.begin + s.run < s.rows ? f.begin + s.run : s.rows;
  kp_warp_vector before[P], running[P];
  if (f.begin < end && s.own && f.begin % s.T != 0) f.update_before(before);
  for (f.first = f.begin; f.first < end; f.first += KP_WARP_TILE) {
    f.rows = end - f.first < KP_WARP_TILE ? (int)(end - f.first) : KP_WARP_TILE;
    if (s.update == KP_SEAM_CURVED) f.update_products();
#pragma unroll
    for (int p = 0; p < P; p++) running[p] = before[p];
    f.tangent_products(running);
    f.normalise(before);
    __syncwarp();
  }
  store_events(f.events, out.events);
}

template <int P, bool GROUPED> static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const auto kernel = curved_forward_kernel<P, GROUPED>;
  const size_t bytes = (2 * (size_t)P * KP_WARP_CHANNELS +
                        (size_t)KP_WARPS * KP_WARP_TILE * GRAM * (size_t)kp_warp_group_count(s)) *
                       sizeof(float);
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "residual_norm", error));
  const int64_t warps = (int64_t)KP_WARPS * kp_warp_blocks(s, cuda, kernel, bytes, KP_SEAM_MOST_BLOCKS);
  s.run = (s.rows + warps - 1) / warps;
  const int blocks = kp_blocks(s.rows, KP_WARPS * s.run);
  const curved_outputs out = {call->output[0], call->output[1], (float2 *)call->output[2],
                              (int *)call->scratch};
  kernel<<<blocks, 32 * KP_WARPS, bytes, cuda->stream>>>(s, out);
  kp_seam_events_kernel<<<1, 256, 0, cuda->stream>>>(out.events, blocks, (float *)call->output[3]);
  return kp_launched(call, error);
}

template <bool GROUPED> static kp_status by_width(const kp_call *call, const kp_seam &s, kp_error *error) {
  switch (kp_warp_packs(s)) {
  case 1: return launch<1, GROUPED>(call, s, error);
  case 2: return launch<2, GROUPED>(call, s, error);
  case 3: return launch<3, GROUPED>(call, s, error);
  default: return launch<4, GROUPED>(call, s, error);
  }
}

kp_status kp_seam_warps_forward(const kp_call *call, const kp_seam &s, kp_error *error) {
  const bool grouped = s.update_kappa.groups > 1 || s.tangent_kappa.groups > 1;
  return grouped ? by_width<true>(call, s, error) : by_width<false>(call, s, error);
}
