/* The seam, backward, in one read of each input and one write of each output.
 *
 * A block goes through its run of rows from the last to the first, tile by tile, and for each tile:
 *
 *   1. norm and tangent: from g y, each row's gradient of its own x' and of its reference;
 *   2. s = g x' + those, the whole gradient of x';
 *   3. update: g x, g u and the given reference's gradient from s.
 *
 * Where the reference is the row before of the stream itself, step 1 of row n + 1 reaches row n: it was done
 * just before, by the same thread, or is done again for the row behind the run.
 *
 * With gw = weight · g y, n = (z - mean) / deviation and means over the C channels, LayerNorm's backward is
 *     g z = (gw - mean(gw) - n mean(gw n)) / deviation
 * (RMSNorm: without mean(gw)).  z and n are combinations of r, d = x' - r and 1, so the inner products of g z
 * with r and d follow from those of gw, and both gradients of step 1 are combinations of gw, 1, r and d.
 *
 * A row moves up to 5C elements in and 2C out and takes about 80 operations a channel: memory bounds it. */
#ifndef KAPPA_BACKEND_CUDA_RESIDUAL_NORM_BACKWARD_CUH
#define KAPPA_BACKEND_CUDA_RESIDUAL_NORM_BACKWARD_CUH

#include "backend/cuda/seam_gradients.cuh"

template <typename T, int V, int P, int R> struct kp_seam_backward {
  using S = typename kp_sum_of<T>::type;
  using vector = kp_vector<T, V>;
  const kp_seam &s;
  const kp_seam_gradients &g;
  const kp_seam_channels<V, P> c;
  kp_seam_backward_memory<S> memory;
  kp_seam_tile<T, V, P, R> tile;
  int64_t own_end; /* rows from this on are computed for their neighbour alone */
  int held;        /* rows that the tile holds, in front of these */
  float weight[P][V], gweight[P][V], gbias[P][V];
  float next[P][V]; /* what the row behind gives to its reference */

  __device__ kp_seam_backward(const kp_seam &seam, const kp_seam_gradients &gradients, S *shared)
      : s(seam), g(gradients), c(seam) {
    memory.combinations = shared;
    memory.terms = memory.combinations + KP_SEAM_COMBINATIONS * R * s.tangent_groups.count;
    memory.factors = memory.terms + 2 * R * s.tangent_groups.count;
    memory.chunks = memory.factors + KP_SEAM_UPDATE_FACTORS * R * s.update_groups.count;
    tile.slots = (vector *)((unsigned char *)shared + s.numbers_bytes) + threadIdx.x;
    held = s.given == KP_SEAM_SAME_ROW || s.given == KP_SEAM_ROW_BEFORE ? 3 * R + 2 : 2 * R + 2;
#pragma unroll 1
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < V; k++) gweight[p][k] = gbias[p][k] = next[p][k] = 0;
  }

  __device__ vector &u(int i, int p) const {
    return tile.slot(held + i, p);
  }
  __device__ vector &direct(int i, int p) const {
    return tile.slot(held + R + i, p);
  }
  __device__ vector &gy(int i, int p) const {
    return tile.slot(held + 2 * R + i, p);
  }
  /* s, in float, takes the place of g x' and g y; what joins g x, or g r, that of x' and one more. */
  __device__ kp_wide<T, V> whole(int i, int p) const {
    return kp_wide<T, V>{&direct(i, p), &gy(i, p)};
  }
  __device__ kp_wide<T, V> extra(int i, int p) const {
    return kp_wide<T, V>{&tile.h(i, p), &tile.slot(held + 3 * R + i, p)};
  }
  __device__ bool writes(int i) const {
    return tile.has(i) && tile.first + i < own_end;
  }
  __device__ bool reads_stream() const { /* x itself is needed */
    return s.update == KP_SEAM_CURVED || (s.tangent != KP_SEAM_NONE && !s.own && s.given == KP_SEAM_STREAM);
  }
  /* Another warp every time, so that the multiprocessor's four parts share the scalar programs. */
  __device__ int first_task(int turn) const {
    return (int)(threadIdx.x + ((blockIdx.x + tile.first / R) * 2 + turn) * 32) % (int)blockDim.x;
  }

  __device__ void load() {
    const bool stream = reads_stream(), branch = s.update == KP_SEAM_CURVED, norm = g.gy != NULL;
#pragma unroll 1
    for (int i = tile.low - 1; i < tile.high; i++) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const int64_t at = (tile.first + i) * s.pitch + c.at[p];
        const bool referred = c.there[p] && tile.has_neighbour(i);
        if (norm) kp_fetch_vector<T, V>(&tile.h(i, p), g.h, at, referred);
        if (stream) kp_fetch_vector<T, V>(&tile.x(i, p), s.x, at, referred);
        if (i < tile.low) continue;
        const bool mine = c.there[p] && writes(i);
        if (norm) kp_fetch_vector<T, V>(&gy(i, p), g.gy, at, c.there[p] && tile.has(i));
        if (branch) kp_fetch_vector<T, V>(&u(i, p), s.u, at, mine);
        kp_fetch_vector<T, V>(&direct(i, p), g.direct, at, mine && g.direct != NULL);
        tile.fetch_given(s, i, p, c.at[p], c.there[p]);
      }
    }
    kp_vectors_arrived();
  }

  /* r and d = x' - r of row i. */
  __device__ void basis(int i, int p, S r[V], S d[V]) const {
    if (s.tangent == KP_SEAM_NONE) {
#pragma unroll
      for (int k = 0; k < V; k++) r[k] = 0, d[k] = tile.h(i, p)[k];
      return;
    }
    const vector from = tile.reference(s, i, p, c.at[p], c.there[p]);
#pragma unroll
    for (int k = 0; k < V; k++) r[k] = from[k], d[k] = (S)tile.h(i, p)[k] - r[k];
  }

  /* ---- step 1 ---- */

  __device__ void flat_sums() {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 1
      for (int i = tile.low; i < tile.high; i++) {
        S r[V], d[V], sum = 0, normal = 0;
        basis(i, p, r, d);
        const float2 moments =
            tile.has(i) ? *(const float2 *)(g.statistics + 2 * (tile.first + i)) : float2();
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S gw = (S)(weight[p][k] * gy(i, p)[k]);
          sum += gw, normal += gw * ((d[k] - (S)moments.x) * (S)moments.y);
        }
        S sums[2] = {sum, normal};
        kp_chunk_sums<2, R>(sums, s.row, p, i, memory.chunks);
      }
    }
    __syncthreads();
    for (int i = first_task(0); i < tile.high; i += blockDim.x) {
      if (!tile.has(i)) continue;
      const S mean_g = s.layer ? kp_group_sum<2 * R>(memory.chunks, s.row, 0, 2 * i) / s.C : S(0);
      const S mean_gn = kp_group_sum<2 * R>(memory.chunks, s.row, 0, 2 * i + 1) / s.C;
      combine(i, i, mean_g, mean_gn, 0, 1, NULL);
    }
    __syncthreads();
  }

  /* Writes the combinations of one row and group, place e of the tile. */
  __device__ void combine(int e, int i, S mean_g, S mean_gn, S first, S second, const kp_real *gram_bar) {
    const int64_t n = tile.first + i;
    const S mean = g.statistics[2 * n], scale = g.statistics[2 * n + 1], fall = scale * scale * mean_gn;
    const S one = fall * mean - scale * mean_g, r = -fall * first, d = -fall * second;
    const S bar0 = gram_bar == NULL ? S(0) : (S)gram_bar[0], bar1 = gram_bar == NULL ? S(0) : (S)gram_bar[1],
            bar2 = gram_bar == NULL ? S(0) : (S)gram_bar[2];
    S *to = memory.combinations + KP_SEAM_COMBINATIONS * e;
    const S along_d[4] = {second * scale, second * one, second * r + bar1, second * d + 2 * bar2};
    const S along_r[4] = {first * scale, first * one, first * r + 2 * bar0, first * d + bar1};
    for (int j = 0; j < 4; j++) {
      to[KP_SEAM_TO_STREAM + j] = along_d[j];
      to[KP_SEAM_TO_REFERENCE + j] = along_r[j] - along_d[j];
    }
    to[KP_SEAM_NORMAL] = -scale * mean, to[KP_SEAM_NORMAL + 1] = scale * first,
    to[KP_SEAM_NORMAL + 2] = scale * second;
  }

  __device__ void curved_sums() {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 1
      for (int i = tile.low; i < tile.high; i++) {
        S r[V], d[V], part[KP_SEAM_TANGENT_SUMS] = {};
        basis(i, p, r, d);
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S gw = (S)weight[p][k] * (S)gy(i, p)[k];
          part[0] += r[k] * r[k], part[1] += r[k] * d[k], part[2] += d[k] * d[k];
          part[3] += gw * r[k], part[4] += gw * d[k], part[5] += gw, part[6] += r[k], part[7] += d[k];
        }
        kp_chunk_sums<KP_SEAM_TANGENT_SUMS, R>(part, s.tangent_groups, p, i, memory.chunks);
      }
    }
  }

  __device__ S tangent_sum(int i, int group, int q) const {
    return kp_group_sum<KP_SEAM_TANGENT_SUMS * R>(memory.chunks, s.tangent_groups, group,
                                                  KP_SEAM_TANGENT_SUMS * i + q);
  }

  /* Each group's part of the means, where there is more than one. */
  __device__ void tangent_means() {
    const int groups = s.tangent_groups.count;
    for (int e = first_task(0); e < tile.high * groups; e += blockDim.x) {
      const int i = e / groups, group = e - i * groups;
      if (!tile.has(i)) continue;
      const int64_t n = tile.first + i;
      kp_real gram[3], z[3];
      for (int q = 0; q < 3; q++) gram[q] = (kp_real)tangent_sum(i, group, q);
      kp_program_forward(s.tangent_program, gram, (kp_real)s.tangent_kappa.at(n, group), 0, z);
      const S gw = tangent_sum(i, group, 5);
      memory.terms[2 * e] = gw;
      memory.terms[2 * e + 1] =
          g.statistics[2 * n + 1] * ((S)z[0] * tangent_sum(i, group, 3) + (S)z[1] * tangent_sum(i, group, 4) -
                                     (S)g.statistics[2 * n] * gw);
    }
    __syncthreads();
  }

  __device__ void tangent_programs() {
    const int groups = s.tangent_groups.count;
    for (int e = first_task(0); e < tile.high * groups; e += blockDim.x) {
      const int i = e / groups, group = e - i * groups;
      if (!tile.has(i)) continue;
      const int64_t n = tile.first + i;
      kp_seam_bars<S> bars = {};
      bars.mean = g.statistics[2 * n], bars.scale = g.statistics[2 * n + 1];
      bars.channels = (S)s.C, bars.layer = s.layer, bars.whole = groups == 1;
      for (int other = 0; other < groups && groups > 1; other++) {
        bars.mean_g += memory.terms[2 * (i * groups + other)];
        bars.mean_gn += memory.terms[2 * (i * groups + other) + 1];
      }
      for (int q = 0; q < KP_SEAM_TANGENT_SUMS; q++) bars.sum[q] = tangent_sum(i, group, q);
      kp_real gram[6] = {(kp_real)bars.sum[0], (kp_real)bars.sum[1], (kp_real)bars.sum[2]};
      kp_real z[3], gram_bar[6], kappa_bar;
      kp_program_both(s.tangent_program, gram, (kp_real)s.tangent_kappa.at(n, group), 0, bars, z, gram_bar,
                      &kappa_bar);
      if (g.tangent_bars != NULL && writes(i)) g.tangent_bars[n * groups + group] = kappa_bar;
      combine(e, i, bars.mean_g, bars.mean_gn, (S)z[0], (S)z[1], gram_bar);
    }
    __syncthreads();
  }

  template <bool CURVED> __device__ void programs() {
    if (CURVED && s.tangent == KP_SEAM_CURVED) {
      curved_sums();
      __syncthreads();
      if (s.tangent_groups.count > 1) tangent_means();
      tangent_programs();
    } else {
      flat_sums();
    }
  }

  /* ---- step 2 ---- */

  /* The gradients of row i's x' and reference, and its part of those of weight and bias. */
  template <bool CURVED> __device__ void tangent_row(int i, int p, float stream[V], float reference[V]) {
    const bool curved = CURVED && s.tangent == KP_SEAM_CURVED;
    const S *f =
        memory.combinations + KP_SEAM_COMBINATIONS * (curved ? i * s.tangent_groups.count + c.tangent[p] : i);
    const bool mine = writes(i);
    S r[V], d[V];
    basis(i, p, r, d);
#pragma unroll
    for (int k = 0; k < V; k++) {
      const float gv = gy(i, p)[k];
      const S gw = (S)weight[p][k] * (S)gv;
      const bool inside = c.at[p] + k < s.C;
      S a = f[0] * gw + f[1] + f[3] * d[k], b = f[4] * gw + f[5] + f[7] * d[k], n = f[8] + f[10] * d[k];
      if (curved) a += f[2] * r[k], b += f[6] * r[k], n += f[9] * r[k];
      stream[k] = inside ? (float)a : 0.0f, reference[k] = inside ? (float)b : 0.0f;
      if (mine) gweight[p][k] += gv * (float)n, gbias[p][k] += gv;
    }
  }

  /* Inner products of s with row i's x and u (and r), and of these among themselves. */
  __device__ void pair_sums(int i, int p, const float sum[V]) const {
    S part[KP_SEAM_PAIR_SUMS] = {};
#pragma unroll
    for (int k = 0; k < V; k++) {
      const S a = tile.x(i, p)[k], b = u(i, p)[k], w = sum[k];
      part[0] += a * a, part[1] += a * b, part[2] += b * b, part[3] += w * a, part[4] += w * b;
    }
    kp_chunk_sums<KP_SEAM_PAIR_SUMS, R>(part, s.update_groups, p, i, memory.chunks);
  }

  __device__ void triple_sums(int i, int p, const float sum[V]) const {
    const vector r = tile.given(s, i, p, c.at[p], c.there[p]);
    S part[KP_SEAM_TRIPLE_SUMS] = {};
#pragma unroll
    for (int k = 0; k < V; k++) {
      const S a = tile.x(i, p)[k], b = r[k], d = u(i, p)[k], w = sum[k];
      part[0] += a * a, part[1] += a * b, part[2] += a * d, part[3] += b * b, part[4] += b * d;
      part[5] += d * d, part[6] += w * a, part[7] += w * b, part[8] += w * d;
    }
    kp_chunk_sums<KP_SEAM_TRIPLE_SUMS, R>(part, s.update_groups, p, i, memory.chunks);
  }

  template <bool CURVED> __device__ void sum_rows() {
    const bool reached = s.tangent != KP_SEAM_NONE && (s.own || g.to_stream);
    const bool given = s.tangent != KP_SEAM_NONE && !s.own && !g.to_stream;
#pragma unroll 1
    for (int i = tile.high - 1; i >= tile.low; i--) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        float stream[V], reference[V];
        if (g.gy != NULL && tile.has(i)) {
          tangent_row<CURVED>(i, p, stream, reference);
        } else {
#pragma unroll
          for (int k = 0; k < V; k++) stream[k] = reference[k] = 0;
        }
        float sum[V], join[V];
#pragma unroll
        for (int k = 0; k < V; k++) {
          sum[k] = stream[k] + direct(i, p)[k] + (s.own ? next[p][k] : 0.0f);
          join[k] = g.to_stream ? next[p][k] : given ? reference[k] : 0.0f;
          next[p][k] = reached && !tile.starts_sequence(i) ? reference[k] : 0.0f;
        }
        whole(i, p).set(sum), extra(i, p).set(join);
        if (CURVED && s.update == KP_SEAM_CURVED) {
          if (s.triple)
            triple_sums(i, p, sum);
          else
            pair_sums(i, p, sum);
        }
      }
    }
  }

  /* ---- step 3 ---- */

  __device__ void store(void *rows, int64_t n, int p, const vector &value) const {
    if (rows != NULL && c.there[p]) *(vector *)((T *)rows + n * s.pitch + c.at[p]) = value;
  }

  /* Row i's gradient of the given reference, and zeros for a row that is no row's reference. */
  __device__ void store_given(int i, int p, const vector &value) const {
    const int64_t n = tile.first + i;
    if (g.gr == NULL) return;
    if (g.same_row) return store(g.gr, n, p, value);
    if (!tile.starts_sequence(i)) store(g.gr, n - 1, p, value);
    if ((n + 1) % s.T == 0) store(g.gr, n, p, kp_zero_vector<T, V>());
  }

  __device__ void update_flat() {
#pragma unroll 1
    for (int i = tile.low; i < tile.high; i++) {
      if (!writes(i)) continue;
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        float sum[V], join[V], gx[V];
        whole(i, p).get(sum), extra(i, p).get(join);
#pragma unroll
        for (int k = 0; k < V; k++) gx[k] = sum[k] + (g.to_stream ? join[k] : 0.0f);
        store(g.gu, tile.first + i, p, kp_to_vector<T, V>(sum));
        store_given(i, p, kp_to_vector<T, V>(join));
        store(g.gx, tile.first + i, p, kp_to_vector<T, V>(gx));
      }
    }
  }

  /* From GRAM inner products and M = inputs gradients of coefficients to the factors of each input's
   * gradient: of s, and of the inputs. */
  template <int GRAM, int M> __device__ void update_programs() {
    const int groups = s.update_groups.count;
    for (int e = first_task(1); e < tile.high * groups; e += blockDim.x) {
      const int i = e / groups, group = e - i * groups;
      if (!writes(i)) continue;
      const int64_t n = tile.first + i;
      kp_real sum[GRAM + M], gram[6] = {}, coefficients[3], bar[6], kappa_bar;
      for (int q = 0; q < GRAM + M; q++)
        sum[q] =
            (kp_real)kp_group_sum<(GRAM + M) * R>(memory.chunks, s.update_groups, group, (GRAM + M) * i + q);
      const kp_real kappa = (kp_real)s.update_kappa.at(n, group);
      kp_seam_bars<S> bars = {};
      bars.ready = true;
      for (int q = 0; q < GRAM; q++) gram[q] = sum[q];
      for (int m = 0; m < M; m++) bars.sum[m] = (S)sum[GRAM + m];
      kp_program_both(s.update_program, gram, kappa, 0, bars, coefficients, bar, &kappa_bar);
      if (g.update_bars != NULL) g.update_bars[n * groups + group] = kappa_bar;
      S *f = memory.factors + KP_SEAM_UPDATE_FACTORS * e;
      if (M == 2) {
        f[0] = (S)coefficients[0], f[1] = (S)(2 * bar[0]), f[2] = (S)bar[1];
        f[3] = (S)coefficients[1], f[4] = (S)bar[1], f[5] = (S)(2 * bar[2]);
      } else {
        f[0] = (S)coefficients[0], f[1] = (S)(2 * bar[0]), f[2] = (S)bar[1], f[3] = (S)bar[2];
        f[4] = (S)coefficients[1], f[5] = (S)bar[1], f[6] = (S)(2 * bar[3]), f[7] = (S)bar[4];
        f[8] = (S)coefficients[2], f[9] = (S)bar[2], f[10] = (S)bar[4], f[11] = (S)(2 * bar[5]);
      }
    }
  }

  __device__ void update_pair() {
    __syncthreads();
    update_programs<3, 2>();
    __syncthreads();
#pragma unroll 1
    for (int i = tile.low; i < tile.high; i++) {
      if (!writes(i)) continue;
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const S *f = memory.factors + KP_SEAM_UPDATE_FACTORS * (i * s.update_groups.count + c.update[p]);
        float gx[V], gu[V], sum[V], join[V];
        whole(i, p).get(sum), extra(i, p).get(join);
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S w = sum[k], a = tile.x(i, p)[k], b = u(i, p)[k];
          gx[k] = (float)(f[0] * w + f[1] * a + f[2] * b) + (g.to_stream ? join[k] : 0.0f);
          gu[k] = (float)(f[3] * w + f[4] * a + f[5] * b);
        }
        store(g.gx, tile.first + i, p, kp_to_vector<T, V>(gx));
        store(g.gu, tile.first + i, p, kp_to_vector<T, V>(gu));
        store_given(i, p, kp_to_vector<T, V>(join));
      }
    }
  }

  __device__ void update_triple() {
    __syncthreads();
    update_programs<6, 3>();
    __syncthreads();
#pragma unroll 1
    for (int i = tile.low; i < tile.high; i++) {
      if (!writes(i)) continue;
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const vector from = tile.given(s, i, p, c.at[p], c.there[p]);
        const S *f = memory.factors + KP_SEAM_UPDATE_FACTORS * (i * s.update_groups.count + c.update[p]);
        float gx[V], gr[V], gu[V], sum[V], join[V];
        whole(i, p).get(sum), extra(i, p).get(join);
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S w = sum[k], a = tile.x(i, p)[k], b = from[k], d = u(i, p)[k];
          gx[k] = (float)(f[0] * w + f[1] * a + f[2] * b + f[3] * d);
          gr[k] = (float)(f[4] * w + f[5] * a + f[6] * b + f[7] * d) + join[k];
          gu[k] = (float)(f[8] * w + f[9] * a + f[10] * b + f[11] * d);
        }
        store(g.gx, tile.first + i, p, kp_to_vector<T, V>(gx));
        store(g.gu, tile.first + i, p, kp_to_vector<T, V>(gu));
        store_given(i, p, kp_to_vector<T, V>(gr));
      }
    }
  }

  template <bool CURVED> __device__ void update() {
    if (CURVED && s.update == KP_SEAM_CURVED) {
      if (s.triple)
        update_triple();
      else
        update_pair();
    } else {
      update_flat();
    }
  }

  __device__ void store_columns() const {
    if (g.columns == NULL) return;
    float *to = g.columns + (int64_t)blockIdx.x * 2 * s.C;
#pragma unroll 1
    for (int p = 0; p < P; p++)
#pragma unroll
      for (int k = 0; k < V; k++) {
        const int at = c.at[p] + k;
        if (at < s.C) to[at] = gweight[p][k], to[s.C + at] = gbias[p][k];
      }
  }
};

template <typename T, int V, int P, int R, int THREADS, bool CURVED>
__global__ void __launch_bounds__(THREADS, 512 / THREADS)
    kp_seam_backward_kernel(const kp_seam s, const kp_seam_gradients gradients) {
  extern __shared__ __align__(16) unsigned char shared[];
  using backward = kp_seam_backward<T, V, P, R>;
  backward b(s, gradients, (typename backward::S *)shared);
  kp_seam_weights<V, P>(s.weight, b.c, s.C, 1, b.weight);
  b.tile.begin = blockIdx.x * s.run;
  b.own_end = b.tile.begin + s.run < s.rows ? b.tile.begin + s.run : s.rows;
  const bool neighbour =
      gradients.gy != NULL && (s.own || gradients.to_stream) && b.own_end < s.rows && b.own_end % s.T != 0;
  b.tile.end = b.own_end + (neighbour ? 1 : 0);
  for (int64_t last = b.tile.end; last > b.tile.begin; last -= s.tile) {
    b.tile.move_to(s, last - s.tile);
    b.load();
    if (gradients.gy != NULL) b.template programs<CURVED>();
    b.template sum_rows<CURVED>();
    b.template update<CURVED>();
  }
  b.store_columns();
}

#endif
