/* The curved seam on rows of bfloat16, backward, a warp a row: scalars in float.
 *
 * A warp goes through its run of rows from the last to the first.  What row n + 1 gives to its reference, row
 * n, is then in registers; for the row behind the run it is computed again.  The steps of a row are those of
 * residual_norm_backward.cuh, where the formulas stand.
 *
 * A row moves up to 12 C bytes in and 6 C out and takes about 100 operations a channel and three scalar
 * programs; memory and arithmetic need about the same time. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/seam_gradients.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

enum { V = KP_WARP_VECTOR };

template <int P, bool GROUPED> struct curved_backward {
  using groups_type = kp_warp_groups<P, GROUPED>;
  static constexpr int SLOTS = groups_type::SLOTS;
  const kp_seam &s;
  const kp_seam_gradients &g;
  const groups_type groups;
  const float *weight;    /* of the block */
  float *gweight, *gbias; /* of the warp */
  float *next;            /* of the warp: what the row behind gives to its reference */

  __device__ curved_backward(const kp_seam &seam, const kp_seam_gradients &gradients)
      : s(seam), g(gradients), groups(seam) {}

  static __device__ constexpr int slot(int p) { return groups_type::slot(p); }

  /* ---- norm and tangent ---- */

  /* Inner products of r, d = x' - r, 1 and gw, in the order of kp_seam_bars. */
  __device__ void tangent_sums(const kp_warp_vector h[P], const kp_warp_vector r[P],
                               const kp_warp_vector gy[P],
                               float (&parts)[SLOTS][KP_SEAM_TANGENT_SUMS]) const {
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V];
      kp_warp_get(weight, p, w);
      float *to = parts[slot(p)];
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = r[p][k], d = h[p][k] - a, gw = w[k] * gy[p][k];
        to[0] += a * a, to[1] += a * d, to[2] += d * d;
        to[3] += gw * a, to[4] += gw * d, to[5] += gw, to[6] += a, to[7] += d;
      }
    }
    groups.sum(parts);
  }

  /* Sums over all groups of a row. */
  __device__ float over_groups(const float (&x)[SLOTS]) const {
    if constexpr (!GROUPED) return x[0];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < SLOTS; i++) sum += groups.leads(i) ? x[i] : 0.0f;
    return kp_warp_sum(sum);
  }

  /* The coefficients of z, unless they are known to be 0 and 1. */
  __device__ void coefficients(int64_t n, const float (&parts)[SLOTS][KP_SEAM_TANGENT_SUMS],
                               float (&first)[SLOTS], float (&second)[SLOTS]) const {
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      first[i] = 0, second[i] = 1;
      if (s.tangent != KP_SEAM_CURVED || !GROUPED) continue;
      const kp_real gram[6] = {parts[i][0], parts[i][1], parts[i][2]};
      kp_real z[3];
      kp_program_forward(s.tangent_program, gram, s.tangent_kappa.at(n, groups.group(i)), 0, z);
      first[i] = z[0], second[i] = z[1];
    }
  }

  /* The gradients of x' and of the reference, and the normalised z, as combinations (seam_gradients.cuh). */
  __device__ void combine(float first, float second, float mean, float scale, float mean_g, float mean_gn,
                          const kp_real *gram_bar, float (&to)[KP_SEAM_COMBINATIONS]) const {
    const float fall = scale * scale * mean_gn;
    const float one = fall * mean - scale * mean_g, r = -fall * first, d = -fall * second;
    const float bar0 = gram_bar[0], bar1 = gram_bar[1], bar2 = gram_bar[2];
    const float along_d[4] = {second * scale, second * one, second * r + bar1, second * d + 2 * bar2};
    const float along_r[4] = {first * scale, first * one, first * r + 2 * bar0, first * d + bar1};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      to[KP_SEAM_TO_STREAM + j] = along_d[j];
      to[KP_SEAM_TO_REFERENCE + j] = along_r[j] - along_d[j];
    }
    to[KP_SEAM_NORMAL] = -scale * mean;
    to[KP_SEAM_NORMAL + 1] = scale * first, to[KP_SEAM_NORMAL + 2] = scale * second;
  }

  __device__ void tangent_programs(int64_t n, bool mine, const float (&parts)[SLOTS][KP_SEAM_TANGENT_SUMS],
                                   float (&to)[SLOTS][KP_SEAM_COMBINATIONS]) const {
    const float2 moment = *(const float2 *)(g.statistics + 2 * n);
    float first[SLOTS], second[SLOTS], of_gw[SLOTS], of_gn[SLOTS];
    coefficients(n, parts, first, second);
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      of_gw[i] = parts[i][5];
      of_gn[i] = moment.y * (first[i] * parts[i][3] + second[i] * parts[i][4] - moment.x * parts[i][5]);
    }
    const float sum_g = over_groups(of_gw), sum_gn = over_groups(of_gn);
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      kp_real gram_bar[6] = {};
      float mean_g = s.layer ? sum_g / s.C : 0.0f, mean_gn = sum_gn / s.C;
      if (s.tangent == KP_SEAM_CURVED) {
        kp_seam_bars<float> bars = {};
        bars.layer = s.layer, bars.whole = !GROUPED, bars.channels = s.C;
        bars.mean = moment.x, bars.scale = moment.y, bars.mean_g = sum_g, bars.mean_gn = sum_gn;
#pragma unroll
        for (int q = 0; q < KP_SEAM_TANGENT_SUMS; q++) bars.sum[q] = parts[i][q];
        const kp_real gram[6] = {parts[i][0], parts[i][1], parts[i][2]};
        kp_real z[3], kappa_bar;
        kp_program_both(s.tangent_program, gram, s.tangent_kappa.at(n, groups.group(i)), 0, bars, z, gram_bar,
                        &kappa_bar);
        first[i] = z[0], second[i] = z[1], mean_g = bars.mean_g, mean_gn = bars.mean_gn;
        if (g.tangent_bars != NULL && mine && groups.leads(i))
          g.tangent_bars[n * groups.count + groups.group(i)] = kappa_bar;
      }
      combine(first[i], second[i], moment.x, moment.y, mean_g, mean_gn, gram_bar, to[i]);
    }
  }

  /* The gradient of row n's x' that comes through the norm, in `stream`, and its reference's; adds to those
   * of weight and bias where the row is `mine`. */
  __device__ void tangent(int64_t n, bool mine, const kp_warp_vector h[P], const kp_warp_vector r[P],
                          float stream[P][V], float reference[P][V]) const {
    kp_warp_vector gy[P];
    kp_warp_fetch<P>(g.gy, s, n, true, gy);
    float parts[SLOTS][KP_SEAM_TANGENT_SUMS] = {}, f[SLOTS][KP_SEAM_COMBINATIONS];
    tangent_sums(h, r, gy, parts);
    tangent_programs(n, mine, parts, f);
#pragma unroll
    for (int p = 0; p < P; p++) {
      const float(&c)[KP_SEAM_COMBINATIONS] = f[slot(p)];
      float w[V], gw_sum[V], gb_sum[V];
      kp_warp_get(weight, p, w);
      if (mine) kp_warp_get(gweight, p, gw_sum), kp_warp_get(gbias, p, gb_sum);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = r[p][k], d = h[p][k] - a, gv = gy[p][k], gw = w[k] * gv;
        const bool inside = kp_warp_channel(p) + k < s.C;
        stream[p][k] = inside ? c[0] * gw + c[1] + c[2] * a + c[3] * d : 0.0f;
        reference[p][k] = inside ? c[4] * gw + c[5] + c[6] * a + c[7] * d : 0.0f;
        if (mine) gw_sum[k] += gv * (c[8] + c[9] * a + c[10] * d), gb_sum[k] += gv;
      }
      if (mine) kp_warp_set(gweight, p, gw_sum), kp_warp_set(gbias, p, gb_sum);
    }
  }

  /* ---- update ---- */

  /* The factors of the gradients of x and of u: of s, x and u each. */
  __device__ void update_programs(int64_t n, const kp_warp_vector x[P], const kp_warp_vector u[P],
                                  const float sum[P][V], float (&factors)[SLOTS][6]) const {
    float parts[SLOTS][KP_SEAM_PAIR_SUMS] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
      float *to = parts[slot(p)];
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = x[p][k], b = u[p][k], w = sum[p][k];
        to[0] += a * a, to[1] += a * b, to[2] += b * b, to[3] += w * a, to[4] += w * b;
      }
    }
    groups.sum(parts);
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      kp_seam_bars<float> bars = {};
      bars.ready = true, bars.sum[0] = parts[i][3], bars.sum[1] = parts[i][4];
      const kp_real gram[6] = {parts[i][0], parts[i][1], parts[i][2]};
      kp_real coefficients[3], bar[6], kappa_bar;
      kp_program_both(s.update_program, gram, s.update_kappa.at(n, groups.group(i)), 0, bars, coefficients,
                      bar, &kappa_bar);
      if (g.update_bars != NULL && groups.leads(i))
        g.update_bars[n * groups.count + groups.group(i)] = kappa_bar;
      factors[i][0] = coefficients[0], factors[i][1] = 2 * bar[0], factors[i][2] = bar[1];
      factors[i][3] = coefficients[1], factors[i][4] = bar[1], factors[i][5] = 2 * bar[2];
    }
  }

  __device__ void store(void *rows, int64_t n, int p, const float value[V]) const {
    if (rows != NULL) kp_warp_store(rows, s, n, p, kp_to_vector<kp_half, V>(value));
  }

  /* Row n's gradient of the given reference, and zeros for a row that is no row's reference. */
  __device__ void store_given(int64_t n, int p, const float value[V]) const {
    if (g.gr == NULL) return;
    if (g.same_row) return store(g.gr, n, p, value);
    if (n % s.T != 0) store(g.gr, n - 1, p, value);
    const float zero[V] = {};
    if ((n + 1) % s.T == 0) store(g.gr, n, p, zero);
  }

  /* Stores the gradients of row n from that of x', `sum`, and what joins the reference's or x's. */
  __device__ void update(int64_t n, const kp_warp_vector x[P], const kp_warp_vector u[P],
                         const float sum[P][V], const float join[P][V]) const {
    float f[SLOTS][6];
    const bool curved = s.update == KP_SEAM_CURVED;
    if (curved) update_programs(n, x, u, sum, f);
#pragma unroll
    for (int p = 0; p < P; p++) {
      float gx[V], gu[V];
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float *c = f[slot(p)], a = x[p][k], b = u[p][k], w = sum[p][k];
        gx[k] = (curved ? c[0] * w + c[1] * a + c[2] * b : w) + (g.to_stream ? join[p][k] : 0.0f);
        gu[k] = curved ? c[3] * w + c[4] * a + c[5] * b : w;
      }
      store(g.gx, n, p, gx);
      store(g.gu, n, p, gu);
      store_given(n, p, join[p]);
    }
  }

  /* ---- rows ---- */

  /* Row n, whose x' and reference are given. */
  __device__ void row(int64_t n, bool mine, const kp_warp_vector h[P], const kp_warp_vector r[P]) {
    const bool reached = s.own || g.to_stream;
    float sum[P][V], reference[P][V], join[P][V];
    tangent(n, mine, h, r, sum, reference);
    kp_warp_vector x[P], u[P], direct[P];
    kp_warp_fetch<P>(s.x, s, n, mine && s.update == KP_SEAM_CURVED, x);
    kp_warp_fetch<P>(s.u, s, n, mine && s.update == KP_SEAM_CURVED, u);
    kp_warp_fetch<P>(g.direct, s, n, mine && g.direct != NULL, direct);
#pragma unroll
    for (int p = 0; p < P; p++) {
      float behind[V], give[V];
      kp_warp_get(next, p, behind);
#pragma unroll
      for (int k = 0; k < V; k++) {
        sum[p][k] += direct[p][k] + (s.own ? behind[k] : 0.0f);
        join[p][k] = g.to_stream ? behind[k] : reached ? 0.0f : reference[p][k];
        give[k] = reached && n % s.T != 0 ? reference[p][k] : 0.0f;
      }
      kp_warp_set(next, p, give);
    }
    if (mine) update(n, x, u, sum, join);
  }
};

/* The block's sums of weight's and bias's gradients, warp after warp. */
template <int P> __device__ static void store_columns(const kp_seam &s, float *columns, const float *sums) {
  __syncthreads();
  if (columns == NULL) return;
  for (int at = threadIdx.x; at < 2 * s.C; at += 32 * KP_WARPS) {
    const int place = kp_warp_place(at % s.C) + (at < s.C ? 0 : P * KP_WARP_CHANNELS);
    float sum = 0;
    for (int warp = 0; warp < KP_WARPS; warp++) sum += sums[warp * 3 * P * KP_WARP_CHANNELS + place];
    columns[(int64_t)blockIdx.x * 2 * s.C + at] = sum;
  }
}

template <int P, bool GROUPED>
__global__ static void __launch_bounds__(32 * KP_WARPS, 3)
    curved_backward_kernel(const kp_seam s, const kp_seam_gradients g) {
  enum { COLUMNS = P * KP_WARP_CHANNELS };
  extern __shared__ __align__(16) float shared[]; /* weight, then each warp's three */
  kp_warp_spread<P>(s.weight, s.C, 1, shared);
  for (int i = threadIdx.x; i < 3 * KP_WARPS * COLUMNS; i += 32 * KP_WARPS) shared[COLUMNS + i] = 0;
  __syncthreads();
  curved_backward<P, GROUPED> b(s, g);
  b.weight = shared;
  b.gweight = shared + COLUMNS * (1 + 3 * (threadIdx.x / 32));
  b.gbias = b.gweight + COLUMNS, b.next = b.gbias + COLUMNS;
  const int64_t begin = ((int64_t)blockIdx.x * KP_WARPS + threadIdx.x / 32) * s.run;
  const int64_t end = begin + s.run < s.rows ? begin + s.run : s.rows;
  const bool behind = (s.own || g.to_stream) && end < s.rows && end % s.T != 0;
  kp_warp_vector h[P], r[P];
  const int64_t last = behind ? end : end - 1;
  kp_warp_fetch<P>(g.h, s, last, begin < end, h);
  for (int64_t n = last; n >= begin; n--) {
    if (!s.own)
      kp_warp_given<P>(s, n, true, r);
    else if (n % s.T == 0)
      kp_warp_carried<P>(s, n, r);
    else
      kp_warp_fetch<P>(g.h, s, n - 1, true, r);
    b.row(n, n < end, h, r);
    if (s.own && n % s.T != 0) {
#pragma unroll
      for (int p = 0; p < P; p++) h[p] = r[p];
    } else if (n > begin) {
      kp_warp_fetch<P>(g.h, s, n - 1, true, h);
    }
  }
  store_columns<P>(s, g.columns, shared + COLUMNS);
}

template <int P, bool GROUPED> static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const kp_seam_gradients g = kp_seam_gradients_of(call, s);
  const auto kernel = curved_backward_kernel<P, GROUPED>;
  const size_t bytes = (size_t)P * KP_WARP_CHANNELS * (1 + 3 * KP_WARPS) * sizeof(float);
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "residual_norm_backward", error));
  const int64_t warps = (int64_t)KP_WARPS * kp_warp_blocks(s, cuda, kernel, bytes, KP_SEAM_MOST_PARTIALS);
  s.run = (s.rows + warps - 1) / warps;
  const int blocks = kp_blocks(s.rows, KP_WARPS * s.run);
  kernel<<<blocks, 32 * KP_WARPS, bytes, cuda->stream>>>(s, g);
  KP_TRY(kp_launched(call, error));
  kp_seam_add_gradients(call, s, g, blocks);
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

kp_status kp_seam_warps_backward(const kp_call *call, const kp_seam &s, kp_error *error) {
  const bool grouped = s.update_kappa.groups > 1 || s.tangent_kappa.groups > 1;
  return grouped ? by_width<true>(call, s, error) : by_width<false>(call, s, error);
}
