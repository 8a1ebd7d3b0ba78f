/* The curved seam on rows of bfloat16, forward: scalars in float.
 *
 * A row moves 6 C bytes in (x, u and, unless it is the stream's own, the reference, mostly from the caches)
 * and 4 C out, and takes about 25 operations a channel; memory bounds it. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/seam_programs.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

struct curved_outputs {
  void *stream, *y; /* stream: NULL without an update */
  float2 *statistics;
  int *events; /* (blocks) */
};

enum { V = KP_WARP_VECTOR, GRAM = KP_SEAM_GRAM };

/* Places of a tile: 0 is the row in front of it, 1 + w the row of warp w. */
template <int P, bool FULL, bool GROUPED> struct curved_forward {
  using groups_type = kp_warp_groups<P, FULL, GROUPED>;
  const kp_seam &s;
  const curved_outputs &out;
  const groups_type groups;
  const int lane, warp;
  const float *weight, *bias;
  float *sums;              /* (places, groups, GRAM): inner products, then coefficients */
  float *kappas;            /* (2, places, groups): of the update and of the tangent map */
  kp_warp_vector *finished; /* (places, P, 32): x' of the tile, for the rows behind */
  int64_t first, end;       /* of the tile; of the block's run */
  int64_t at;               /* of the lane's first channel of the warp's row, or of the run's last row */
  int rows;                 /* of the tile */
  int tile;                 /* its number */
  bool halo;                /* x' of the row in front is computed here too */
  kp_seam_phase phase;      /* of the warp's row */
  int events;

  __device__ curved_forward(const kp_seam &seam, const curved_outputs &outputs, int64_t begin)
      : s(seam), out(outputs), groups(seam), lane(threadIdx.x % 32), warp(threadIdx.x / 32), first(begin),
        tile(0), phase(seam.T, begin + threadIdx.x / 32), events(0) {
    end = begin + s.run < s.rows ? begin + s.run : s.rows;
    halo = s.own && begin % s.T != 0;
  }

  static __device__ constexpr int slot(int p) { return groups_type::slot(p); }

  __device__ kp_warp_vector &finished_at(int place, int p) const {
    return finished[(place * P + p) * 32 + lane];
  }
  __device__ float *sums_at(int place) const { return sums + place * groups.count * GRAM; }

  /* a and b are to differ in the second product: b is `b - a` for a difference. */
  template <bool DIFFERENCE>
  __device__ void products(const kp_warp_vector a[P], const kp_warp_vector b[P], int place) const {
    float parts[groups_type::SLOTS][GRAM] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
      float *to = parts[slot(p)];
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float x = a[p][k], y = DIFFERENCE ? b[p][k] - x : b[p][k];
        to[0] += x * x, to[1] += x * y, to[2] += y * y;
      }
    }
    groups.gather(parts, sums_at(place), GRAM);
  }

  /* The curvatures of a place, into shared memory: once for all tiles where all rows have the same. */
  __device__ void keep_kappas(int place) const {
    if (tile > 0 && s.update_kappa.entries == 1 && s.tangent_kappa.entries == 1) return;
    const int64_t n = first + place - 1;
#pragma unroll 1
    for (int group = lane; group < groups.count; group += 32) {
      float *to = kappas + place * groups.count + group;
      to[0] = s.update == KP_SEAM_CURVED && n < end ? s.update_kappa.at(n, group) : 0.0f;
      to[(KP_SEAM_TILE + 1) * groups.count] =
          s.tangent == KP_SEAM_CURVED && n < end ? s.tangent_kappa.at(n, group) : 0.0f;
    }
  }

  /* A thread runs a program for a row and group: coefficients take the place of products. */
  __device__ void run(int program, int low, int turn) {
    const float *kappa = kappas + turn * (KP_SEAM_TILE + 1) * groups.count;
#pragma unroll 1
    for (int e = low * groups.count + kp_seam_first_task(2 * tile + turn); e < (rows + 1) * groups.count;
         e += KP_SEAM_THREADS) {
      float *at = sums + GRAM * e;
      const kp_seam_pair pair = kp_seam_coefficients(program, at, kappa[e]);
      if (e >= groups.count) events += pair.event;
      at[0] = pair.first, at[1] = pair.second;
    }
  }

  /* The two coefficients of pack p of a place. */
  __device__ float2 coefficients(bool curved, float flat, int place, int p) const {
    if (!curved) return make_float2(flat, 1);
    const float *at = sums_at(place) + GRAM * groups.group(p);
    return make_float2(at[0], at[1]);
  }

  __device__ void fetch(int64_t from, kp_warp_vector x[P], kp_warp_vector u[P]) const {
    kp_warp_read<P, FULL>(s.x, s, from, x);
    if (s.update != KP_SEAM_NONE)
      kp_warp_read<P, FULL>(s.u, s, from, u);
    else
      kp_warp_clear<P>(u);
  }

  /* h = x' of a place. */
  __device__ void combine(int place, const kp_warp_vector x[P], const kp_warp_vector u[P],
                          kp_warp_vector h[P]) const {
#pragma unroll
    for (int p = 0; p < P; p++) {
      const float2 c = coefficients(s.update == KP_SEAM_CURVED, 1, place, p);
      float sum[V];
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] = c.x * x[p][k] + c.y * u[p][k];
      h[p] = s.update == KP_SEAM_NONE ? x[p] : kp_to_vector<kp_half, V>(sum);
    }
  }

  /* x' of the tile's rows, stored, and shown to the rows behind where these refer to it. */
  __device__ void update(kp_warp_vector h[P]) {
    kp_warp_vector x[P], u[P];
    if (halo && warp == KP_SEAM_TILE - 1 && s.update == KP_SEAM_CURVED) {
      fetch(kp_warp_at(s, first - 1), x, u);
      keep_kappas(0);
      products<false>(x, u, 0);
    }
    fetch(at, x, u);
    keep_kappas(1 + warp);
    if (s.update == KP_SEAM_CURVED) {
      products<false>(x, u, 1 + warp);
      kp_warp_forget<P>(x), kp_warp_forget<P>(u);
      __syncthreads();
      run(s.update_program, halo ? 0 : 1, 0);
      __syncthreads();
    }
    combine(1 + warp, x, u, h);
    if (halo && warp == 0) {
      kp_warp_vector before[P];
      fetch(kp_warp_at(s, first - 1), x, u);
      combine(0, x, u, before);
#pragma unroll
      for (int p = 0; p < P; p++) finished_at(0, p) = before[p];
    }
    if (s.own) {
#pragma unroll
      for (int p = 0; p < P; p++) finished_at(1 + warp, p) = h[p];
    }
    if (out.stream == NULL || warp >= rows) return;
#pragma unroll
    for (int p = 0; p < P; p++) kp_warp_write<FULL>(out.stream, s, at, p, h[p]);
  }

  /* The stream's own reference: x' of the row before. */
  __device__ void own_reference(kp_warp_vector r[P]) const {
    __syncthreads();
    if (phase.first()) return kp_warp_carried<P, FULL>(s.own_carry, s, first + (warp < rows ? warp : 0), r);
#pragma unroll
    for (int p = 0; p < P; p++) r[p] = finished_at(warp, p);
  }

  /* The last row of this tile is in front of the next one. */
  __device__ void pass_on(const kp_warp_vector h[P]) const {
    if (!s.own || warp != KP_SEAM_TILE - 1) return;
#pragma unroll
    for (int p = 0; p < P; p++) finished_at(0, p) = h[p];
  }

  __device__ void normalise(const kp_warp_vector h[P], const kp_warp_vector r[P]) const {
    float z[P][V];
#pragma unroll
    for (int p = 0; p < P; p++) {
      const float2 c = coefficients(s.tangent == KP_SEAM_CURVED, 0, 1 + warp, p);
#pragma unroll
      for (int k = 0; k < V; k++) z[p][k] = c.x * r[p][k] + c.y * (h[p][k] - r[p][k]);
    }
    const float2 moment = kp_warp_moments<P, FULL>(s, z);
    if (warp >= rows) return;
    if (lane == 0) out.statistics[first + warp] = moment;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V], b[V], y[V];
      kp_warp_get(weight, p, w), kp_warp_get(bias, p, b);
#pragma unroll
      for (int k = 0; k < V; k++) y[k] = (z[p][k] - moment.x) * moment.y * w[k] + b[k];
      kp_warp_write<FULL>(out.y, s, at, p, kp_to_vector<kp_half, V>(y));
    }
  }

  __device__ void ask_for_next() const {
    const int64_t n = first + KP_SEAM_TILE + warp;
    kp_warp_prefetch(s.x, s, n, n < end);
    kp_warp_prefetch(s.u, s, n, n < end && s.update != KP_SEAM_NONE);
  }

  /* Every place's sums are written and its coefficients read by one and the same warp. */
  __device__ void run_tile() {
    rows = end - first < KP_SEAM_TILE ? (int)(end - first) : KP_SEAM_TILE;
    const int64_t n = warp < rows ? first + warp : end - 1;
    kp_warp_vector h[P], r[P];
    at = kp_warp_at(s, n);
    update(h);
    ask_for_next();
    if (s.own)
      own_reference(r);
    else
      kp_warp_given<P, FULL>(s, n, at, phase.first() || warp >= rows, r);
    __syncwarp();
    if (s.tangent == KP_SEAM_CURVED) products<true>(r, h, 1 + warp);
    kp_warp_forget<P>(h), kp_warp_forget<P>(r);
    __syncthreads();
    pass_on(h);
    if (s.tangent == KP_SEAM_CURVED) {
      run(s.tangent_program, 1, 1);
      __syncthreads();
    }
    normalise(h, r);
    first += KP_SEAM_TILE, tile++, halo = false;
    phase.advance(KP_SEAM_TILE);
    __syncwarp();
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

template <int P, bool FULL, bool GROUPED>
__global__ static void __launch_bounds__(KP_SEAM_THREADS, P < 4 ? 4 : 3)
    curved_forward_kernel(const kp_seam s, const curved_outputs out) {
  enum { COLUMNS = P * KP_WARP_CHANNELS };
  extern __shared__ __align__(16) float shared[]; /* weight, bias, finished rows, sums */
  kp_warp_spread<P>(s.weight, s.C, 1, shared), kp_warp_spread<P>(s.bias, s.C, 0, shared + COLUMNS);
  __syncthreads();
  curved_forward<P, FULL, GROUPED> f(s, out, (int64_t)blockIdx.x * s.run);
  f.weight = shared, f.bias = shared + COLUMNS;
  f.finished = (kp_warp_vector *)(shared + 2 * COLUMNS);
  f.sums = (float *)(f.finished + (KP_SEAM_TILE + 1) * P * 32);
  f.kappas = f.sums + (KP_SEAM_TILE + 1) * f.groups.count * GRAM;
  while (f.first < f.end) f.run_tile();
  store_events(f.events, out.events);
}

template <int P, bool FULL, bool GROUPED>
static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const auto kernel = curved_forward_kernel<P, FULL, GROUPED>;
  const size_t bytes = 2 * (size_t)P * KP_WARP_CHANNELS * sizeof(float) +
                       (KP_SEAM_TILE + 1) * ((size_t)P * 32 * sizeof(kp_warp_vector) +
                                             (GRAM + 2) * (size_t)kp_warp_group_count(s) * sizeof(float));
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "residual_norm", error));
  const int64_t places = kp_seam_places(cuda, kernel, bytes, KP_SEAM_MOST_BLOCKS);
  const int64_t tiles = (s.rows + KP_SEAM_TILE - 1) / KP_SEAM_TILE;
  s.run = KP_SEAM_TILE * ((tiles + places - 1) / places);
  const int blocks = kp_blocks(s.rows, s.run);
  const curved_outputs out = {call->output[0], call->output[1], (float2 *)call->output[2],
                              (int *)call->scratch};
  kernel<<<blocks, KP_SEAM_THREADS, bytes, cuda->stream>>>(s, out);
  kp_seam_events_kernel<<<1, 256, 0, cuda->stream>>>(out.events, blocks, (float *)call->output[3]);
  return kp_launched(call, error);
}

/* Rows of whole packs, and all others. */
template <bool GROUPED> static kp_status by_width(const kp_call *call, const kp_seam &s, kp_error *error) {
  if (s.C == 3 * KP_WARP_CHANNELS) return launch<3, true, GROUPED>(call, s, error);
  if (s.C == 4 * KP_WARP_CHANNELS) return launch<4, true, GROUPED>(call, s, error);
  return launch<4, false, GROUPED>(call, s, error);
}

bool kp_seam_fits_warps_forward(const kp_call *call, const kp_seam &s) {
  return call->output[1] != NULL && kp_is_half(call) && kp_seam_fits_warps(s) && kp_seam_programs_fit(s);
}

kp_status kp_seam_warps_forward(const kp_call *call, const kp_seam &seam, kp_error *error) {
  const kp_seam s = kp_seam_with_tangent(seam);
  return kp_warp_group_count(s) > 1 ? by_width<true>(call, s, error) : by_width<false>(call, s, error);
}
