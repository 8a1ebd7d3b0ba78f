/* The curved seam on rows of bfloat16, backward, by warps: scalars in float.
 *
 * A warp goes through its run of rows from the last to the first.  What row n + 1 gives to its reference, row
 * n, is then at hand; for the row behind the run it is computed again.  The steps of a row are those of
 * residual_norm_backward.cuh, where the formulas stand; between them the gradient of x' stands, as a float,
 * in the places of g x and g u.
 *
 * A row moves up to 12 C bytes in and 6 C out and takes about 90 operations a channel: memory and arithmetic
 * need about the same time. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/seam_gradients.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

enum { V = KP_WARP_VECTOR, FACTORS = 6 };

/* Floats of a warp's shared memory for a row and group: sums, or factors; terms of the means; combinations.
 */
enum {
  OF_SUMS = 0,
  OF_TERMS = KP_SEAM_TANGENT_SUMS,
  OF_COMBINATIONS = OF_TERMS + 2,
  OF_ALL = OF_COMBINATIONS + KP_SEAM_COMBINATIONS
};

template <int P, bool GROUPED> struct curved_backward {
  using groups_type = kp_warp_groups<P, GROUPED>;
  static constexpr int SLOTS = groups_type::SLOTS;
  const kp_seam &s;
  const kp_seam_gradients &g;
  const groups_type groups;
  const float *weight;           /* of the block */
  float *gweight, *gbias, *next; /* of the warp; next: what the row behind gives to its reference */
  float *sums, *terms, *combinations;
  int64_t end;  /* behind the warp's own rows */
  int64_t last; /* row of the tile that comes first, downwards */
  int rows;

  __device__ curved_backward(const kp_seam &seam, const kp_seam_gradients &gradients)
      : s(seam), g(gradients), groups(seam) {}

  static __device__ constexpr int slot(int p) { return groups_type::slot(p); }

  /* x' of row n, or zeros in front of all rows. */
  __device__ void fetch_stream(int64_t n, kp_warp_vector h[P]) const {
    kp_warp_fetch<P>(g.h, s, n, n >= 0, h);
  }

  /* The reference of row n; `before` is x' of the row before. */
  __device__ void reference(int64_t n, const kp_warp_vector before[P], kp_warp_vector r[P]) const {
    if (!s.own) return kp_warp_given<P>(s, n, true, r);
    if (n % s.T == 0) return kp_warp_carried<P>(s, n, r);
#pragma unroll
    for (int p = 0; p < P; p++) r[p] = before[p];
  }

  /* ---- norm and tangent ---- */

  /* Inner products of r, d = x' - r, 1 and gw of all rows, in the order of kp_seam_bars. */
  __device__ void tangent_products() const {
    kp_warp_vector h[P], before[P], r[P], gy[P];
    fetch_stream(last, h);
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      const int64_t n = last - i;
      kp_warp_fetch<P>(g.gy, s, n, true, gy);
      fetch_stream(n - 1, before);
      reference(n, before, r);
      float parts[SLOTS][KP_SEAM_TANGENT_SUMS] = {};
#pragma unroll
      for (int p = 0; p < P; p++) {
        float w[V], *to = parts[slot(p)];
        kp_warp_get(weight, p, w);
#pragma unroll
        for (int k = 0; k < V; k++) {
          const float a = r[p][k], d = h[p][k] - a, gw = w[k] * gy[p][k];
          to[0] += a * a, to[1] += a * d, to[2] += d * d;
          to[3] += gw * a, to[4] += gw * d, to[5] += gw, to[6] += a, to[7] += d;
        }
        h[p] = before[p];
      }
      groups.gather(parts, i, sums);
    }
    __syncwarp();
  }

  /* Each group's part of the means of gw and of gw n. */
  __device__ void tangent_terms() const {
    for (int e = threadIdx.x % 32; e < rows * groups.count; e += 32) {
      const int i = e / groups.count, group = e - i * groups.count;
      const int64_t n = last - i;
      const float2 moment = *(const float2 *)(g.statistics + 2 * n);
      const float *sum = sums + KP_SEAM_TANGENT_SUMS * e;
      kp_real z[3] = {0, 1, 0};
      if (s.tangent == KP_SEAM_CURVED && GROUPED) {
        const kp_real gram[6] = {sum[0], sum[1], sum[2]};
        kp_program_forward(s.tangent_program, gram, s.tangent_kappa.at(n, group), 0, z);
      }
      terms[2 * e] = sum[5];
      terms[2 * e + 1] = moment.y * (z[0] * sum[3] + z[1] * sum[4] - moment.x * sum[5]);
    }
    __syncwarp();
  }

  /* The gradients of x' and of the reference, and the normalised z, as combinations (seam_gradients.cuh). */
  __device__ static void combine(const kp_seam_bars<float> &bars, float first, float second,
                                 const kp_real *gram_bar, float *to) {
    const float scale = bars.scale, fall = scale * scale * bars.mean_gn;
    const float one = fall * bars.mean - scale * bars.mean_g, r = -fall * first, d = -fall * second;
    const float along_d[4] = {second * scale, second * one, second * r + gram_bar[1],
                              second * d + 2 * gram_bar[2]};
    const float along_r[4] = {first * scale, first * one, first * r + 2 * gram_bar[0],
                              first * d + gram_bar[1]};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      to[KP_SEAM_TO_STREAM + j] = along_d[j];
      to[KP_SEAM_TO_REFERENCE + j] = along_r[j] - along_d[j];
    }
    to[KP_SEAM_NORMAL] = -scale * bars.mean;
    to[KP_SEAM_NORMAL + 1] = scale * first, to[KP_SEAM_NORMAL + 2] = scale * second;
  }

  __device__ void tangent_programs() const {
    tangent_terms();
    for (int e = threadIdx.x % 32; e < rows * groups.count; e += 32) {
      const int i = e / groups.count, group = e - i * groups.count;
      const int64_t n = last - i;
      kp_seam_bars<float> bars = {};
      bars.mean = g.statistics[2 * n], bars.scale = g.statistics[2 * n + 1];
      bars.channels = s.C, bars.layer = s.layer;
      for (int other = i * groups.count; other < (i + 1) * groups.count; other++)
        bars.mean_g += terms[2 * other], bars.mean_gn += terms[2 * other + 1];
      for (int q = 0; q < KP_SEAM_TANGENT_SUMS; q++) bars.sum[q] = sums[KP_SEAM_TANGENT_SUMS * e + q];
      kp_real z[3] = {0, 1, 0}, gram_bar[6] = {}, kappa_bar = 0;
      if (s.tangent == KP_SEAM_CURVED) {
        const kp_real gram[6] = {bars.sum[0], bars.sum[1], bars.sum[2]};
        bars.whole = !GROUPED;
        kp_program_both(s.tangent_program, gram, s.tangent_kappa.at(n, group), 0, bars, z, gram_bar,
                        &kappa_bar);
        if (g.tangent_bars != NULL && n < end) g.tangent_bars[n * groups.count + group] = kappa_bar;
      } else {
        bars.mean_g = s.layer ? bars.mean_g / s.C : 0.0f, bars.mean_gn /= s.C;
      }
      combine(bars, z[0], z[1], gram_bar, combinations + KP_SEAM_COMBINATIONS * e);
    }
    __syncwarp();
  }

  /* ---- the gradient of x' ---- */

  /* Of row i's pack p what comes through the norm, to x' and to the reference; adds to the gradients of
   * weight and bias where the row is `mine`. */
  __device__ void through_norm(int i, int p, bool mine, const kp_warp_vector &h, const kp_warp_vector &r,
                               const kp_warp_vector &gy, float stream[V], float reference[V]) const {
    const float *c = combinations + KP_SEAM_COMBINATIONS * (i * groups.count + groups.group(slot(p)));
    float f[KP_SEAM_COMBINATIONS], w[V], gw_sum[V], gb_sum[V];
#pragma unroll
    for (int j = 0; j < KP_SEAM_COMBINATIONS; j++) f[j] = c[j];
    kp_warp_get(weight, p, w);
    kp_warp_get(gweight, p, gw_sum), kp_warp_get(gbias, p, gb_sum);
#pragma unroll
    for (int k = 0; k < V; k++) {
      const float a = r[k], d = h[k] - a, gv = gy[k], gw = w[k] * gv;
      const bool inside = kp_warp_channel(p) + k < s.C;
      stream[k] = inside ? f[0] * gw + f[1] + f[2] * a + f[3] * d : 0.0f;
      reference[k] = inside ? f[4] * gw + f[5] + f[6] * a + f[7] * d : 0.0f;
      gw_sum[k] += gv * (f[8] + f[9] * a + f[10] * d), gb_sum[k] += gv;
    }
    if (mine) kp_warp_set(gweight, p, gw_sum), kp_warp_set(gbias, p, gb_sum);
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

  /* The whole gradient of x', which is x's and u's where the update is flat. */
  __device__ void store_flat(int64_t n, int p, const float sum[V], const float join[V]) const {
    float gx[V];
#pragma unroll
    for (int k = 0; k < V; k++) gx[k] = sum[k] + (g.to_stream ? join[k] : 0.0f);
    store(g.gx, n, p, gx);
    store(g.gu, n, p, sum);
  }

  /* The same as floats, in the places of g x and g u. */
  __device__ void keep(int64_t n, int p, const float sum[V]) const {
    if (kp_warp_channel(p) >= s.pitch) return;
    const int64_t at = n * s.pitch + kp_warp_channel(p);
    *(float4 *)((kp_half *)g.gx + at) = make_float4(sum[0], sum[1], sum[2], sum[3]);
    *(float4 *)((kp_half *)g.gu + at) = make_float4(sum[4], sum[5], sum[6], sum[7]);
  }

  __device__ void kept(int64_t n, int p, float sum[V]) const {
    const int64_t at = n * s.pitch + kp_warp_channel(p);
    float4 a = {}, b = {};
    if (kp_warp_channel(p) < s.pitch)
      a = *(const float4 *)((kp_half *)g.gx + at), b = *(const float4 *)((kp_half *)g.gu + at);
    sum[0] = a.x, sum[1] = a.y, sum[2] = a.z, sum[3] = a.w;
    sum[4] = b.x, sum[5] = b.y, sum[6] = b.z, sum[7] = b.w;
  }

  /* The gradient of x' of all rows, and where the update is curved its inner products with x and u. */
  __device__ void sum_rows() const {
    const bool reached = s.own || g.to_stream, curved = s.update == KP_SEAM_CURVED;
    kp_warp_vector h[P], before[P], r[P], gy[P], direct[P], x[P], u[P];
    fetch_stream(last, h);
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      const int64_t n = last - i;
      const bool mine = n < end;
      kp_warp_fetch<P>(g.gy, s, n, true, gy);
      fetch_stream(n - 1, before);
      reference(n, before, r);
      kp_warp_fetch<P>(g.direct, s, n, mine && g.direct != NULL, direct);
      kp_warp_fetch<P>(s.x, s, n, mine && curved, x);
      kp_warp_fetch<P>(s.u, s, n, mine && curved, u);
      float parts[SLOTS][KP_SEAM_PAIR_SUMS] = {};
#pragma unroll
      for (int p = 0; p < P; p++) {
        float sum[V], reference[V], join[V], behind[V];
        through_norm(i, p, mine, h[p], r[p], gy[p], sum, reference);
        kp_warp_get(next, p, behind);
        float *to = parts[slot(p)];
#pragma unroll
        for (int k = 0; k < V; k++) {
          sum[k] += direct[p][k] + (s.own ? behind[k] : 0.0f);
          join[k] = g.to_stream ? behind[k] : reached ? 0.0f : reference[k];
          reference[k] = reached && n % s.T != 0 ? reference[k] : 0.0f;
          const float a = x[p][k], b = u[p][k], w = sum[k];
          to[0] += a * a, to[1] += a * b, to[2] += b * b, to[3] += w * a, to[4] += w * b;
        }
        kp_warp_set(next, p, reference);
        h[p] = before[p];
        if (!mine) continue;
        store_given(n, p, join);
        if (curved)
          keep(n, p, sum);
        else
          store_flat(n, p, sum, join);
      }
      if (curved) groups.gather(parts, i, sums);
    }
    __syncwarp();
  }

  /* ---- update ---- */

  /* The factors of the gradients of x and of u: of that of x', of x and of u each. */
  __device__ void update_programs() const {
    for (int e = threadIdx.x % 32; e < rows * groups.count; e += 32) {
      const int i = e / groups.count, group = e - i * groups.count;
      const int64_t n = last - i;
      if (n >= end) continue;
      const float *sum = sums + KP_SEAM_PAIR_SUMS * e;
      kp_seam_bars<float> bars = {};
      bars.ready = true, bars.sum[0] = sum[3], bars.sum[1] = sum[4];
      const kp_real gram[6] = {sum[0], sum[1], sum[2]};
      kp_real coefficients[3], bar[6], kappa_bar;
      kp_program_both(s.update_program, gram, s.update_kappa.at(n, group), 0, bars, coefficients, bar,
                      &kappa_bar);
      if (g.update_bars != NULL) g.update_bars[n * groups.count + group] = kappa_bar;
      float *to = combinations + FACTORS * e; /* which are not needed any more */
      to[0] = coefficients[0], to[1] = 2 * bar[0], to[2] = bar[1];
      to[3] = coefficients[1], to[4] = bar[1], to[5] = 2 * bar[2];
    }
    __syncwarp();
  }

  __device__ void update() const {
    kp_warp_vector x[P], u[P];
#pragma unroll 1
    for (int i = 0; i < rows; i++) {
      const int64_t n = last - i;
      if (n >= end) continue;
      kp_warp_fetch<P>(s.x, s, n, true, x);
      kp_warp_fetch<P>(s.u, s, n, true, u);
#pragma unroll
      for (int p = 0; p < P; p++) {
        const float *c = combinations + FACTORS * (i * groups.count + groups.group(slot(p)));
        float sum[V], gx[V], gu[V];
        kept(n, p, sum);
#pragma unroll
        for (int k = 0; k < V; k++) {
          const float a = x[p][k], b = u[p][k];
          gx[k] = c[0] * sum[k] + c[1] * a + c[2] * b;
          gu[k] = c[3] * sum[k] + c[4] * a + c[5] * b;
        }
        store(g.gx, n, p, gx);
        store(g.gu, n, p, gu);
      }
    }
  }
};

/* The block's sums of weight's and bias's gradients, warp after warp. */
template <int P>
__device__ static void store_columns(const kp_seam &s, float *columns, const float *of_warps) {
  __syncthreads();
  if (columns == NULL) return;
  for (int at = threadIdx.x; at < 2 * s.C; at += 32 * KP_WARPS) {
    const int place = kp_warp_place(at % s.C) + (at < s.C ? 0 : P * KP_WARP_CHANNELS);
    float sum = 0;
    for (int warp = 0; warp < KP_WARPS; warp++) sum += of_warps[warp * 3 * P * KP_WARP_CHANNELS + place];
    columns[(int64_t)blockIdx.x * 2 * s.C + at] = sum;
  }
}

template <int P, bool GROUPED>
__global__ static void __launch_bounds__(32 * KP_WARPS, 3)
    curved_backward_kernel(const kp_seam s, const kp_seam_gradients g) {
  enum { COLUMNS = P * KP_WARP_CHANNELS };
  extern __shared__ __align__(16) float shared[]; /* weight, each warp's three rows, each warp's scalars */
  const int warp = threadIdx.x / 32;
  kp_warp_spread<P>(s.weight, s.C, 1, shared);
  for (int i = threadIdx.x; i < 3 * KP_WARPS * COLUMNS; i += 32 * KP_WARPS) shared[COLUMNS + i] = 0;
  __syncthreads();
  curved_backward<P, GROUPED> b(s, g);
  const int places = KP_WARP_TILE * b.groups.count;
  b.weight = shared;
  b.gweight = shared + COLUMNS * (1 + 3 * warp), b.gbias = b.gweight + COLUMNS, b.next = b.gbias + COLUMNS;
  b.sums = shared + COLUMNS * (1 + 3 * KP_WARPS) + warp * places * OF_ALL;
  b.terms = b.sums + places * OF_TERMS, b.combinations = b.sums + places * OF_COMBINATIONS;
  const int64_t begin = ((int64_t)blockIdx.x * KP_WARPS + warp) * s.run;
  b.end = begin + s.run < s.rows ? begin + s.run : s.rows;
  const bool behind = (s.own || g.to_stream) && b.end < s.rows && b.end % s.T != 0;
  for (b.last = behind ? b.end : b.end - 1; b.last >= begin; b.last -= KP_WARP_TILE) {
    b.rows = b.last - begin + 1 < KP_WARP_TILE ? (int)(b.last - begin + 1) : KP_WARP_TILE;
    b.tangent_products();
    b.tangent_programs();
    b.sum_rows();
    if (s.update != KP_SEAM_CURVED) continue;
    b.update_programs();
    b.update();
    __syncwarp();
  }
  store_columns<P>(s, g.columns, shared + COLUMNS);
}

template <int P, bool GROUPED> static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  const kp_seam_gradients g = kp_seam_gradients_of(call, s);
  const auto kernel = curved_backward_kernel<P, GROUPED>;
  const size_t bytes = ((size_t)P * KP_WARP_CHANNELS * (1 + 3 * KP_WARPS) +
                        (size_t)KP_WARPS * KP_WARP_TILE * OF_ALL * (size_t)kp_warp_group_count(s)) *
                       sizeof(float);
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

bool kp_seam_fits_warps_backward(const kp_call *call, const kp_seam &s) {
  const kp_residual_norm_arguments *arguments = (const kp_residual_norm_arguments *)call->node->arguments;
  if (call->input[11] == NULL || !kp_is_half(call) || !kp_seam_fits_warps(s)) return false;
  return s.update != KP_SEAM_CURVED || (call->output[1] != NULL && !arguments->stream_reference);
}

kp_status kp_seam_warps_backward(const kp_call *call, const kp_seam &s, kp_error *error) {
  const bool grouped = s.update_kappa.groups > 1 || s.tangent_kappa.groups > 1;
  return grouped ? by_width<true>(call, s, error) : by_width<false>(call, s, error);
}
