/* The curved seam on rows of bfloat16, forward, a warp a row: scalars in float.
 *
 * A row moves 6 C bytes in (x, u and, unless it is the stream's own, the reference) and 4 C out, and takes
 * about 30 operations a channel and two scalar programs of some hundred.  Every lane runs the programs, which
 * costs a warp no more than one lane would; other warps of the processor fill the waiting. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/row_program_scalars.cuh"
#include "backend/cuda/seam_sums.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

struct curved_outputs {
  void *stream, *y; /* stream: NULL without an update */
  float2 *statistics;
  int *events; /* (blocks) */
};

template <int P, bool GROUPED> struct curved_forward {
  using groups_type = kp_warp_groups<P, GROUPED>;
  static constexpr int SLOTS = groups_type::SLOTS, V = KP_WARP_VECTOR;
  const kp_seam &s;
  const groups_type groups;
  int events;

  __device__ explicit curved_forward(const kp_seam &seam) : s(seam), groups(seam), events(0) {}

  /* The two coefficients of each slot from inner products; counts the events where `counted`. */
  __device__ void run(int program, const kp_curvatures &kappa, int64_t n, bool counted,
                      const float (&gram)[SLOTS][3], float (&first)[SLOTS], float (&second)[SLOTS]) {
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      const kp_real sums[6] = {gram[i][0], gram[i][1], gram[i][2]};
      kp_real coefficients[3];
      const int event = kp_program_forward(program, sums, kappa.at(n, groups.group(i)), 0, coefficients);
      if (counted && groups.leads(i)) events += event;
      first[i] = coefficients[0], second[i] = coefficients[1];
    }
  }

  /* h = x' of row n. */
  __device__ void update(int64_t n, bool counted, const kp_warp_vector x[P], const kp_warp_vector u[P],
                         kp_warp_vector h[P]) {
    float gram[SLOTS][3] = {}, first[SLOTS], second[SLOTS];
#pragma unroll
    for (int i = 0; i < SLOTS; i++) first[i] = second[i] = 1;
    if (s.update == KP_SEAM_CURVED) {
#pragma unroll
      for (int p = 0; p < P; p++)
#pragma unroll
        for (int k = 0; k < V; k++) {
          const float a = x[p][k], b = u[p][k];
          float *to = gram[groups_type::slot(p)];
          to[0] += a * a, to[1] += a * b, to[2] += b * b;
        }
      groups.sum(gram);
      run(s.update_program, s.update_kappa, n, counted, gram, first, second);
    }
#pragma unroll
    for (int p = 0; p < P; p++) {
      float sum[V];
#pragma unroll
      for (int k = 0; k < V; k++)
        sum[k] = first[groups_type::slot(p)] * x[p][k] + second[groups_type::slot(p)] * u[p][k];
      h[p] = s.update == KP_SEAM_NONE ? x[p] : kp_to_vector<kp_half, V>(sum);
    }
  }

  /* z of row n, from x' and its reference. */
  __device__ void tangent(int64_t n, const kp_warp_vector h[P], const kp_warp_vector r[P], float z[P][V]) {
    float gram[SLOTS][3] = {}, first[SLOTS], second[SLOTS];
#pragma unroll
    for (int i = 0; i < SLOTS; i++) first[i] = 0, second[i] = 1;
    if (s.tangent == KP_SEAM_CURVED) {
#pragma unroll
      for (int p = 0; p < P; p++)
#pragma unroll
        for (int k = 0; k < V; k++) {
          const float a = r[p][k], b = h[p][k] - a;
          float *to = gram[groups_type::slot(p)];
          to[0] += a * a, to[1] += a * b, to[2] += b * b;
        }
      groups.sum(gram);
      run(s.tangent_program, s.tangent_kappa, n, true, gram, first, second);
    }
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = r[p][k];
        z[p][k] = first[groups_type::slot(p)] * a + second[groups_type::slot(p)] * (h[p][k] - a);
      }
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
};

template <int P>
__device__ static void store_normalised(const kp_seam &s, void *y, int64_t n, float2 moment,
                                        const float z[P][KP_WARP_VECTOR], const float *weight,
                                        const float *bias) {
#pragma unroll
  for (int p = 0; p < P; p++) {
    float w[KP_WARP_VECTOR], b[KP_WARP_VECTOR], out[KP_WARP_VECTOR];
    kp_warp_get(weight, p, w), kp_warp_get(bias, p, b);
#pragma unroll
    for (int k = 0; k < KP_WARP_VECTOR; k++) out[k] = (z[p][k] - moment.x) * moment.y * w[k] + b[k];
    kp_warp_store(y, s, n, p, kp_to_vector<kp_half, KP_WARP_VECTOR>(out));
  }
}

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
  __shared__ __align__(16) float weight[P * KP_WARP_CHANNELS], bias[P * KP_WARP_CHANNELS];
  kp_warp_spread<P>(s.weight, s.C, 1, weight), kp_warp_spread<P>(s.bias, s.C, 0, bias);
  __syncthreads();
  curved_forward<P, GROUPED> f(s);
  const int64_t begin = ((int64_t)blockIdx.x * KP_WARPS + threadIdx.x / 32) * s.run;
  const int64_t end = begin + s.run < s.rows ? begin + s.run : s.rows;
  /* The run's first own reference is computed again. */
  const int64_t first = s.own && begin % s.T != 0 ? begin - 1 : begin;
  kp_warp_vector x[P], u[P], h[P], r[P], before[P];
  kp_warp_fetch<P>(s.x, s, first, first < end, x);
  kp_warp_fetch<P>(s.u, s, first, first < end && s.update != KP_SEAM_NONE, u);
  kp_warp_given<P>(s, first, first < end && !s.own, r);
  for (int64_t n = first; n < end; n++) {
    f.update(n, n >= begin, x, u, h);
    kp_warp_fetch<P>(s.x, s, n + 1, n + 1 < end, x);
    kp_warp_fetch<P>(s.u, s, n + 1, n + 1 < end && s.update != KP_SEAM_NONE, u);
    if (n >= begin) {
      float z[P][KP_WARP_VECTOR];
      if (s.own && n % s.T == 0) kp_warp_carried<P>(s, n, before);
      if (out.stream != NULL)
#pragma unroll
        for (int p = 0; p < P; p++) kp_warp_store(out.stream, s, n, p, h[p]);
      f.tangent(n, h, s.own ? before : r, z);
      kp_warp_given<P>(s, n + 1, n + 1 < end && !s.own, r);
      const float2 moment = f.moments(z);
      if (threadIdx.x % 32 == 0) out.statistics[n] = moment;
      store_normalised<P>(s, out.y, n, moment, z, weight, bias);
    }
#pragma unroll
    for (int p = 0; p < P; p++) before[p] = h[p];
  }
  store_events(f.events, out.events);
}

template <int P, bool GROUPED> static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const auto kernel = curved_forward_kernel<P, GROUPED>;
  const int64_t warps = (int64_t)KP_WARPS * kp_warp_blocks(s, cuda, kernel, 0, KP_SEAM_MOST_BLOCKS);
  s.run = (s.rows + warps - 1) / warps;
  const int blocks = kp_blocks(s.rows, KP_WARPS * s.run);
  const curved_outputs out = {call->output[0], call->output[1], (float2 *)call->output[2],
                              (int *)call->scratch};
  kernel<<<blocks, 32 * KP_WARPS, 0, cuda->stream>>>(s, out);
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
