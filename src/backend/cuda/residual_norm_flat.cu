/* The plain seam on rows of bfloat16, x' = x [+ u] and y = norm(x'), which needs no more than one warp a row:
 * forward and backward.
 *
 * A warp holds a row in registers and asks for its next one meanwhile; weights are in shared memory, so that
 * registers serve rows.  Forward moves 4 C elements a row with
 * a branch, backward 4 C (g x', x' and g y in, g x out); both take 10 operations an element, so memory bounds
 * them. */
#include "backend/cuda/seam_sums.cuh"
#include "backend/cuda/seam_warp.cuh"

enum { V = KP_WARP_VECTOR, WARPS = KP_WARPS };
using vector = kp_warp_vector;

__device__ static int64_t first_row() {
  return (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
}

template <int P>
__global__ static void __launch_bounds__(32 * WARPS, P < 4 ? 8 : 6)
    forward_kernel(const kp_seam s, void *stream, void *y, float2 *statistics, float *events) {
  const int64_t stride = (int64_t)gridDim.x * WARPS;
  __shared__ __align__(16) float weight[P * KP_WARP_CHANNELS], bias[P * KP_WARP_CHANNELS];
  vector x[P], u[P];
  kp_warp_fetch<P>(s.x, s, first_row(), first_row() < s.rows, x);
  kp_warp_fetch<P>(s.u, s, first_row(), first_row() < s.rows && stream != NULL, u);
  kp_warp_spread<P>(s.weight, s.C, 1, weight), kp_warp_spread<P>(s.bias, s.C, 0, bias);
  if (blockIdx.x == 0 && threadIdx.x == 0) *events = 0; /* nothing is curved */
  __syncthreads();
  for (int64_t n = first_row(); n < s.rows; n += stride) {
    float z[P][V];
#pragma unroll
    for (int p = 0; p < P; p++) {
#pragma unroll
      for (int k = 0; k < V; k++) z[p][k] = x[p][k] + u[p][k];
      const vector h = kp_to_vector<kp_half, V>(z[p]);
      if (stream != NULL) kp_warp_store(stream, s, n, p, h);
#pragma unroll
      for (int k = 0; k < V; k++) z[p][k] = h[k];
    }
    kp_warp_fetch<P>(s.x, s, n + stride, n + stride < s.rows, x);
    kp_warp_fetch<P>(s.u, s, n + stride, n + stride < s.rows && stream != NULL, u);
    const float2 moment = kp_warp_moments<P>(s, z);
    if (threadIdx.x % 32 == 0) statistics[n] = moment;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V], b[V], out[V];
      kp_warp_get(weight, p, w), kp_warp_get(bias, p, b);
#pragma unroll
      for (int k = 0; k < V; k++) out[k] = (z[p][k] - moment.x) * moment.y * w[k] + b[k];
      kp_warp_store(y, s, n, p, kp_to_vector<kp_half, V>(out));
    }
  }
}

/* ---- backward ---- */

/* What the backward kernel reads and writes beside the seam. */
struct plain_gradients {
  const void *h, *direct, *gy; /* direct: NULL where nothing else arrives at x' */
  const float2 *statistics;
  void *gx, *gu;
  float *columns; /* (blocks, 2, C), or NULL */
};

/* Asks for row n to come nearer. */
__device__ static void ask_for(const kp_seam &s, const plain_gradients &g, int64_t n) {
  const bool there = n < s.rows;
  kp_warp_prefetch(g.h, s, n, there), kp_warp_prefetch(g.gy, s, n, there),
      kp_warp_prefetch(g.direct, s, n, there && g.direct != NULL);
}

/* The block's sums of weight's and bias's gradients, warp after warp. */
template <int P>
__device__ static void store_columns(const kp_seam &s, float *columns, const float gweight[P][V],
                                     const float gbias[P][V], float *sums) {
  for (int warp = 0; warp < WARPS; warp++) {
    __syncthreads();
    if ((int)threadIdx.x / 32 != warp) continue;
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < V; k++) {
        const int c = kp_warp_channel(p) + k;
        if (c >= s.C) continue;
        sums[c] = gweight[p][k] + (warp == 0 ? 0.0f : sums[c]);
        sums[s.C + c] = gbias[p][k] + (warp == 0 ? 0.0f : sums[s.C + c]);
      }
  }
  __syncthreads();
  for (int c = threadIdx.x; c < 2 * s.C; c += 32 * WARPS)
    columns[(int64_t)blockIdx.x * 2 * s.C + c] = sums[c];
}

template <int P>
__global__ static void __launch_bounds__(32 * WARPS, P < 4 ? 4 : 3)
    backward_kernel(const kp_seam s, const plain_gradients g) {
  const int64_t stride = (int64_t)gridDim.x * WARPS;
  extern __shared__ __align__(16) float sums[]; /* the columns' sums take the place of the weights */
  float gweight[P][V] = {}, gbias[P][V] = {};
  vector h[P], gy[P], direct[P];
  kp_warp_spread<P>(s.weight, s.C, 1, sums);
  __syncthreads();
  for (int64_t n = first_row(); n < s.rows; n += stride) {
    kp_warp_fetch<P>(g.h, s, n, true, h), kp_warp_fetch<P>(g.gy, s, n, true, gy),
        kp_warp_fetch<P>(g.direct, s, n, g.direct != NULL, direct);
    const float2 moment = g.statistics[n];
    ask_for(s, g, n + stride);
    float mean_g = 0, mean_gn = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V];
      kp_warp_get(sums, p, w);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float gv = gy[p][k], normal = (h[p][k] - moment.x) * moment.y, gw = gv * w[k];
        gweight[p][k] += gv * normal, gbias[p][k] += gv;
        mean_g += gw, mean_gn += gw * normal;
      }
    }
    mean_g = kp_warp_sum(mean_g) / (float)s.C, mean_gn = kp_warp_sum(mean_gn) / (float)s.C;
    if (!s.layer) mean_g = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
      const int inside = s.C - kp_warp_channel(p);
      float w[V], gx[V];
      kp_warp_get(sums, p, w);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float normal = (h[p][k] - moment.x) * moment.y;
        gx[k] = direct[p][k] + moment.y * (gy[p][k] * w[k] - mean_g - normal * mean_gn);
      }
      if (inside < V) {
#pragma unroll
        for (int k = 0; k < V; k++) gx[k] = k < inside ? gx[k] : 0.0f;
      }
      const vector out = kp_to_vector<kp_half, V>(gx);
      if (g.gu != NULL) kp_warp_store(g.gu, s, n, p, out);
      kp_warp_store(g.gx, s, n, p, out);
    }
  }
  if (g.columns != NULL) store_columns<P>(s, g.columns, gweight, gbias, sums);
}

/* ---- launching ---- */

template <int P> static kp_status forward(const kp_call *call, const kp_seam &s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const int blocks = kp_warp_blocks(s, cuda, forward_kernel<P>, 0, KP_SEAM_MOST_PARTIALS);
  forward_kernel<P><<<blocks, 32 * WARPS, 0, cuda->stream>>>(
      s, call->output[0], call->output[1], (float2 *)call->output[2], (float *)call->output[3]);
  return kp_launched(call, error);
}

template <int P> static kp_status backward(const kp_call *call, const kp_seam &s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const size_t shared = 2 * (size_t)P * KP_WARP_CHANNELS * sizeof(float);
  const int blocks = kp_warp_blocks(s, cuda, backward_kernel<P>, shared, KP_SEAM_MOST_PARTIALS);
  plain_gradients g = {call->input[9],
                       call->input[10],
                       call->input[11],
                       (const float2 *)call->input[12],
                       call->output[0],
                       call->output[1],
                       NULL};
  if (call->output[5] != NULL || call->output[6] != NULL) g.columns = (float *)call->scratch;
  backward_kernel<P><<<blocks, 32 * WARPS, shared, cuda->stream>>>(s, g);
  kp_seam_totals totals = {g.columns, blocks, s.C, (float *)call->output[5], (float *)call->output[6]};
  kp_seam_add_totals<float>(cuda->stream, totals, {}, {});
  return kp_launched(call, error);
}

bool kp_seam_is_plain(const kp_call *call, const kp_seam &s) {
  return kp_is_half(call) && !kp_seam_is_curved(s) && s.tangent == KP_SEAM_NONE && kp_warp_holds(s);
}

kp_status kp_seam_plain_forward(const kp_call *call, const kp_seam &s, kp_error *error) {
  switch (kp_warp_packs(s)) {
  case 1: return forward<1>(call, s, error);
  case 2: return forward<2>(call, s, error);
  case 3: return forward<3>(call, s, error);
  default: return forward<4>(call, s, error);
  }
}

kp_status kp_seam_plain_backward(const kp_call *call, const kp_seam &s, kp_error *error) {
  switch (kp_warp_packs(s)) {
  case 1: return backward<1>(call, s, error);
  case 2: return backward<2>(call, s, error);
  case 3: return backward<3>(call, s, error);
  default: return backward<4>(call, s, error);
  }
}
