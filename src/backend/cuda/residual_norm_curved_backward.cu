/* The curved seam on rows of bfloat16, backward: scalars in float.
 *
 * A block goes through its run of rows from the last to the first.  What row n + 1 gives to its reference,
 * row n, is then at hand in shared memory; for the row behind the run it is computed again.  The steps of a
 * row are those of residual_norm_backward.cuh, where the formulas stand.
 *
 * A row moves up to 10 C bytes in (x, u, x', g x', g y; the reference comes from the caches) and 4 C out, and
 * takes about 50 operations a channel; memory bounds it. */
#define KP_GEOMETRY_FLOAT
#include "backend/cuda/seam_programs.cuh"
#include "backend/cuda/seam_warp_curved.cuh"

enum { V = KP_WARP_VECTOR };

/* Floats of shared memory for a row and group: inner products, first of the tangent map and then of the
 * update; terms of the means; combinations, and then factors; the curvatures of either program.  An odd
 * number of them, so that the lanes' groups are in different banks. */
enum {
  OF_SUMS = 0,
  OF_TERMS = KP_SEAM_TANGENT_SUMS,
  OF_COMBINATIONS = OF_TERMS + 2,
  OF_KAPPAS = OF_COMBINATIONS + KP_SEAM_COMBINATIONS,
  OF_ALL = (OF_KAPPAS + 2) | 1
};

/* Shared memory of a block in floats. */
template <int P> struct curved_memory {
  static constexpr int COLUMNS = P * KP_WARP_CHANNELS;
  static constexpr int WEIGHT = 0;
  static constexpr int GRADIENTS = WEIGHT + COLUMNS;                    /* (warps, 2): of weight and bias */
  static constexpr int BEHIND = GRADIENTS + 2 * KP_SEAM_TILE * COLUMNS; /* (1 + warps) */
  static constexpr int MOMENTS = BEHIND + (1 + KP_SEAM_TILE) * COLUMNS; /* (warps, 2): mean, scale */
  static constexpr int SCALARS = MOMENTS + 2 * KP_SEAM_TILE;
};

template <int P, bool FULL, bool GROUPED> struct curved_backward {
  using groups_type = kp_warp_groups<P, FULL, GROUPED>;
  using memory = curved_memory<P>;
  const kp_seam &s;
  const kp_seam_gradients &g;
  const groups_type groups;
  const int warp;
  const bool reached; /* a row's reference is the row before of the stream */
  float *shared;
  int64_t begin, end; /* of the block's own rows */
  int64_t last;       /* row of the tile's first warp; further warps have rows before */
  int rows;           /* of the tile */
  int tile;           /* its number */
  int64_t n;          /* the warp's row, or another of the run where the tile has none for it */
  int64_t at;         /* of the lane's first channel of it */
  bool mine;          /* it is one of the block's own */
  kp_seam_phase phase;

  __device__ curved_backward(const kp_seam &seam, const kp_seam_gradients &gradients, float *memory_of_block,
                             int64_t from, int64_t to, int64_t start)
      : s(seam), g(gradients), groups(seam), warp(threadIdx.x / 32), reached(seam.own || gradients.to_stream),
        shared(memory_of_block), begin(from), end(to), last(start), tile(0),
        phase(seam.T, start + seam.T * (int64_t)KP_SEAM_TILE - threadIdx.x / 32) {}

  static __device__ constexpr int slot(int p) { return groups_type::slot(p); }

  /* The scalars of a row and group; those of the warp's row. */
  __device__ float *scalars(int e) const { return shared + memory::SCALARS + e * OF_ALL; }
  __device__ float *own_scalars(int group) const { return scalars(warp * groups.count + group); }
  __device__ float *behind(int place) const { return shared + memory::BEHIND + place * memory::COLUMNS; }
  /* The gradient of the curvature of a row and group, counted from the tile's last row. */
  __device__ void store_bar(kp_real *bars, int e, float value) const {
    const int i = GROUPED ? e / groups.count : e;
    if (bars != NULL && last - i < end) bars[(last - i) * groups.count + e - i * groups.count] = value;
  }

  /* ---- norm and tangent ---- */

  /* The curvatures of the warp's row: once for all tiles where all rows have the same. */
  __device__ void keep_kappas() const {
    if (tile > 0 && s.update_kappa.entries == 1 && s.tangent_kappa.entries == 1) return;
#pragma unroll 1
    for (int group = threadIdx.x % 32; group < groups.count; group += 32) {
      float *to = own_scalars(group) + OF_KAPPAS;
      to[0] = s.update == KP_SEAM_CURVED ? s.update_kappa.at(n, group) : 0.0f;
      to[1] = s.tangent == KP_SEAM_CURVED ? s.tangent_kappa.at(n, group) : 0.0f;
    }
  }

  /* Inner products of r, d = x' - r, 1 and gw, in the order of kp_seam_bars. */
  __device__ void tangent_products(const kp_warp_vector h[P], const kp_warp_vector r[P],
                                   const kp_warp_vector gy[P]) const {
    float parts[groups_type::SLOTS][KP_SEAM_TANGENT_SUMS] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
      float w[V], *to = parts[slot(p)];
      kp_warp_get(shared + memory::WEIGHT, p, w);
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = r[p][k], d = h[p][k] - a, gw = w[k] * gy[p][k];
        to[0] += a * a, to[1] += a * d, to[2] += d * d;
        to[3] += gw * a, to[4] += gw * d, to[5] += gw, to[6] += a, to[7] += d;
      }
    }
    groups.gather(parts, own_scalars(0) + OF_SUMS, OF_ALL);
  }

  __device__ float2 moment_of(int i) const {
    return ((const float2 *)(shared + memory::MOMENTS))[i];
  }

  /* Each group's part of the means of gw and of gw n. */
  __device__ void tangent_terms() const {
#pragma unroll 1
    for (int e = kp_seam_first_task(2 * tile); e < rows * groups.count; e += KP_SEAM_THREADS) {
      const float2 moment = moment_of(e / groups.count);
      float *at_group = scalars(e);
      const float *sum = at_group + OF_SUMS;
      kp_seam_pair z = {0, 1, 0};
      if (s.tangent == KP_SEAM_CURVED)
        z = kp_seam_coefficients(s.tangent_program, sum, at_group[OF_KAPPAS + 1]);
      at_group[OF_TERMS] = sum[5];
      at_group[OF_TERMS + 1] = moment.y * (z.first * sum[3] + z.second * sum[4] - moment.x * sum[5]);
    }
    __syncthreads();
  }

  __device__ void tangent_programs() const {
    const int program = s.tangent == KP_SEAM_CURVED ? s.tangent_program : -1;
    if (GROUPED) tangent_terms();
#pragma unroll 1
    for (int e = kp_seam_first_task(2 * tile); e < rows * groups.count; e += KP_SEAM_THREADS) {
      const int i = GROUPED ? e / groups.count : e;
      float *to = scalars(e);
      const float *terms = scalars(i * groups.count) + OF_TERMS;
      const float bar =
          kp_seam_tangent_task(program, s.layer, s.C, to[OF_KAPPAS + 1], moment_of(i), to + OF_SUMS,
                               GROUPED ? groups.count : 0, terms, OF_ALL, to + OF_COMBINATIONS);
      store_bar(g.tangent_bars, e, bar);
    }
    __syncthreads();
  }

  /* ---- the gradient of x' ---- */

  __device__ void read_combinations(int p, float f[KP_SEAM_COMBINATIONS]) const {
    const float *from = own_scalars(groups.group(p)) + OF_COMBINATIONS;
#pragma unroll
    for (int j = 0; j < KP_SEAM_COMBINATIONS; j++) f[j] = from[j];
  }

  /* What comes through the norm to pack p of x' and of the reference; adds to the gradients of weight and
   * bias where the row is the block's own. */
  __device__ void through_norm(int p, const float f[KP_SEAM_COMBINATIONS], const kp_warp_vector &h,
                               const kp_warp_vector &r, const kp_warp_vector &gy, float stream[V],
                               float reference[V]) const {
    float *gweight = shared + memory::GRADIENTS + 2 * warp * memory::COLUMNS,
          *gbias = gweight + memory::COLUMNS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float w[4], gw_sum[4], gb_sum[4];
      kp_warp_get_half(shared + memory::WEIGHT, p, half, w);
      kp_warp_get_half(gweight, p, half, gw_sum), kp_warp_get_half(gbias, p, half, gb_sum);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int k = 4 * half + j;
        const float a = r[k], d = h[k] - a, gv = gy[k], gw = w[j] * gv;
        stream[k] = f[0] * gw + f[1] + f[2] * a + f[3] * d;
        reference[k] = f[4] * gw + f[5] + f[6] * a + f[7] * d;
        gw_sum[j] += gv * (f[8] + f[9] * a + f[10] * d), gb_sum[j] += gv;
      }
      if (mine) kp_warp_set_half(gweight, p, half, gw_sum), kp_warp_set_half(gbias, p, half, gb_sum);
    }
    const int inside = s.C - kp_warp_channel(p);
    if (!FULL && inside < V) {
#pragma unroll
      for (int k = 0; k < V; k++)
        if (k >= inside) stream[k] = reference[k] = 0;
    }
  }

  __device__ kp_warp_vector pack(const void *from, int p) const {
    return kp_load_vector<kp_half, V>(from, at + p * KP_WARP_CHANNELS, FULL || kp_warp_channel(p) < s.pitch);
  }

  /* x and u of pack p, where the update reads them. */
  __device__ void fetch_branches(int p, kp_warp_vector &x, kp_warp_vector &u) const {
    x = u = kp_zero_vector<kp_half, V>();
    if (s.update == KP_SEAM_CURVED) x = pack(s.x, p), u = pack(s.u, p);
  }

  __device__ void store(void *to, int64_t place, int p, const float value[V]) const {
    if (to != NULL && mine) kp_warp_write<FULL>(to, s, place, p, kp_to_vector<kp_half, V>(value));
  }

  /* The row's gradient of the given reference, and zeros for a row that is no row's reference. */
  __device__ void store_given(int p, const float value[V]) const {
    if (g.gr == NULL) return;
    if (g.same_row) return store(g.gr, at, p, value);
    if (!phase.first()) store(g.gr, at - s.pitch, p, value);
    const float zero[V] = {};
    if (phase.last()) store(g.gr, at, p, zero);
  }

  /* The gradient of x' without what comes from the row behind; what the row gives to the row before, or to
   * the given reference, goes there.  x and u take the registers that become free. */
  __device__ void own_gradient(const kp_warp_vector h[P], const kp_warp_vector r[P],
                               const kp_warp_vector gy[P], const kp_warp_vector direct[P],
                               kp_warp_vector x[P], kp_warp_vector u[P], float sum[P][V]) const {
    float f[KP_SEAM_COMBINATIONS];
    read_combinations(0, f);
#pragma unroll
    for (int p = 0; p < P; p++) {
      float reference[V];
      if (GROUPED && p > 0) read_combinations(p, f);
      through_norm(p, f, h[p], r[p], gy[p], sum[p], reference);
#pragma unroll
      for (int k = 0; k < V; k++) sum[p][k] += direct[p][k];
      fetch_branches(p, x[p], u[p]);
      if (!reached) {
        store_given(p, reference);
        continue;
      }
#pragma unroll
      for (int k = 0; k < V; k++) reference[k] = phase.first() ? 0.0f : reference[k];
      kp_warp_set(behind(1 + warp), p, reference);
    }
    if (!reached) return;
    __syncthreads();
    if (!s.own) return;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float from[V];
      kp_warp_get(behind(warp), p, from);
#pragma unroll
      for (int k = 0; k < V; k++) sum[p][k] += from[k];
    }
  }

  /* The last row of this tile is behind the next one: once all have read what was behind this one. */
  __device__ void pass_on() const {
    if (!reached || tile == 0 || warp != KP_SEAM_TILE - 1) return;
#pragma unroll
    for (int p = 0; p < P; p++) {
      float from[V];
      kp_warp_get(behind(1 + warp), p, from);
      kp_warp_set(behind(0), p, from);
    }
  }

  /* ---- update ---- */

  __device__ void update_products(const kp_warp_vector x[P], const kp_warp_vector u[P],
                                  const float sum[P][V]) const {
    float parts[groups_type::SLOTS][KP_SEAM_PAIR_SUMS] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
      float *to = parts[slot(p)];
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = x[p][k], b = u[p][k], w = sum[p][k];
        to[0] += a * a, to[1] += a * b, to[2] += b * b, to[3] += w * a, to[4] += w * b;
      }
    }
    groups.gather(parts, own_scalars(0) + OF_SUMS, OF_ALL);
  }

  __device__ void update_programs() const {
    __syncthreads();
#pragma unroll 1
    for (int e = kp_seam_first_task(2 * tile + 1); e < rows * groups.count; e += KP_SEAM_THREADS) {
      float *to = scalars(e);
      const float bar =
          kp_seam_update_task(s.update_program, to[OF_KAPPAS], to + OF_SUMS, to + OF_COMBINATIONS);
      store_bar(g.update_bars, e, bar);
    }
    __syncthreads();
  }

  /* g x and g u from the gradient of x'. */
  __device__ void store_gradients(const kp_warp_vector x[P], const kp_warp_vector u[P],
                                  const float sum[P][V]) const {
    float f[KP_SEAM_FACTORS] = {1, 0, 0, 1, 0, 0};
#pragma unroll
    for (int p = 0; p < P; p++) {
      float gx[V], gu[V];
      if (s.update == KP_SEAM_CURVED && (GROUPED || p == 0)) {
#pragma unroll
        for (int j = 0; j < KP_SEAM_FACTORS; j++) f[j] = own_scalars(groups.group(p))[OF_COMBINATIONS + j];
      }
#pragma unroll
      for (int k = 0; k < V; k++) {
        const float a = x[p][k], b = u[p][k];
        gx[k] = f[0] * sum[p][k] + f[1] * a + f[2] * b;
        gu[k] = f[3] * sum[p][k] + f[4] * a + f[5] * b;
      }
      store(g.gu, at, p, gu);
      if (g.to_stream) {
        float from[V];
        kp_warp_get(behind(warp), p, from);
#pragma unroll
        for (int k = 0; k < V; k++) gx[k] += from[k];
      }
      store(g.gx, at, p, gx);
    }
  }

  /* ---- a tile ---- */

  __device__ void ask_for_next() const {
    const int64_t row = n - KP_SEAM_TILE;
    const bool there = row >= begin;
    kp_warp_prefetch(g.gy, s, row, there);
    kp_warp_prefetch(g.h, s, row, there);
    kp_warp_prefetch(g.direct, s, row, there && g.direct != NULL);
  }

  __device__ void run_tile() {
    rows = last - begin + 1 < KP_SEAM_TILE ? (int)(last - begin + 1) : KP_SEAM_TILE;
    n = warp < rows ? last - warp : begin;
    at = kp_warp_at(s, n);
    mine = warp < rows && n < end;
    kp_warp_vector h[P], r[P], gy[P], direct[P], x[P], u[P];
    float sum[P][V];
    kp_warp_read<P, FULL>(g.h, s, at, h);
    kp_warp_read<P, FULL>(g.gy, s, at, gy);
    const bool first = phase.first() || warp >= rows;
    if (!s.own)
      kp_warp_given<P, FULL>(s, n, at, first, r);
    else if (first)
      kp_warp_carried<P, FULL>(s.own_carry, s, n, r);
    else
      kp_warp_read<P, FULL>(g.h, s, at - s.pitch, r);
    kp_warp_prefetch(s.x, s, n, s.update == KP_SEAM_CURVED);
    kp_warp_prefetch(s.u, s, n, s.update == KP_SEAM_CURVED);
    keep_kappas();
    if (threadIdx.x % 32 == 0)
      ((float2 *)(shared + memory::MOMENTS))[warp] = *(const float2 *)(g.statistics + 2 * n);
    tangent_products(h, r, gy);
    if (g.direct != NULL)
      kp_warp_read<P, FULL>(g.direct, s, at, direct);
    else
      kp_warp_clear<P>(direct);
    ask_for_next();
    kp_warp_forget<P>(h), kp_warp_forget<P>(r), kp_warp_forget<P>(gy);
    __syncthreads();
    pass_on();
    tangent_programs();
    own_gradient(h, r, gy, direct, x, u, sum);
    if (s.update == KP_SEAM_CURVED) {
      update_products(x, u, sum);
      kp_warp_forget<P>(x), kp_warp_forget<P>(u);
      update_programs();
    }
    store_gradients(x, u, sum);
    last -= KP_SEAM_TILE, tile++;
    phase.retreat(KP_SEAM_TILE);
    __syncwarp();
  }
};

/* The block's sums of weight's and bias's gradients, warp after warp. */
template <int P> __device__ static void store_columns(const kp_seam &s, float *columns, const float *shared) {
  using memory = curved_memory<P>;
  __syncthreads();
  if (columns == NULL) return;
  for (int at = threadIdx.x; at < 2 * s.C; at += KP_SEAM_THREADS) {
    const int place = kp_warp_place(at % s.C) + (at < s.C ? 0 : memory::COLUMNS);
    float sum = 0;
    for (int warp = 0; warp < KP_SEAM_TILE; warp++)
      sum += shared[memory::GRADIENTS + 2 * warp * memory::COLUMNS + place];
    columns[(int64_t)blockIdx.x * 2 * s.C + at] = sum;
  }
}

template <int P, bool FULL, bool GROUPED>
__global__ static void __launch_bounds__(KP_SEAM_THREADS, P == 4 && GROUPED ? 1 : 2)
    curved_backward_kernel(const kp_seam s, const kp_seam_gradients g) {
  using memory = curved_memory<P>;
  extern __shared__ __align__(16) float shared[];
  kp_warp_spread<P>(s.weight, s.C, 1, shared + memory::WEIGHT);
  for (int i = memory::GRADIENTS + threadIdx.x; i < memory::MOMENTS; i += KP_SEAM_THREADS) shared[i] = 0;
  __syncthreads();
  const int64_t begin = (int64_t)blockIdx.x * s.run;
  const int64_t end = begin + s.run < s.rows ? begin + s.run : s.rows;
  const bool behind = (s.own || g.to_stream) && end < s.rows && end % s.T != 0;
  curved_backward<P, FULL, GROUPED> b(s, g, shared, begin, end, behind ? end : end - 1);
  while (b.last >= begin) b.run_tile();
  store_columns<P>(s, g.columns, shared);
}

template <int P> static size_t memory_bytes(const kp_seam &s) {
  const size_t scalars = (size_t)KP_SEAM_TILE * OF_ALL * (size_t)kp_warp_group_count(s);
  return (curved_memory<P>::SCALARS + scalars) * sizeof(float);
}

template <int P, bool FULL, bool GROUPED>
static kp_status launch(const kp_call *call, kp_seam s, kp_error *error) {
  const kp_cuda *cuda = kp_cuda_of(call);
  kp_seam_gradients g = kp_seam_gradients_of(call, s);
  if (s.tangent_program < 0) g.to_stream = false; /* the tangent map is kp_seam_with_tangent's */
  const auto kernel = curved_backward_kernel<P, FULL, GROUPED>;
  const size_t bytes = memory_bytes<P>(s);
  KP_TRY(kp_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                       "residual_norm_backward", error));
  const int64_t places = kp_seam_places(cuda, kernel, bytes, KP_SEAM_MOST_PARTIALS);
  /* Whole tiles, of which the row behind the run takes one place. */
  const int64_t behind = s.own || g.to_stream ? 1 : 0, least = (s.rows + places - 1) / places + behind;
  s.run = KP_SEAM_TILE * ((least + KP_SEAM_TILE - 1) / KP_SEAM_TILE) - behind;
  const int blocks = kp_blocks(s.rows, s.run);
  kernel<<<blocks, KP_SEAM_THREADS, bytes, cuda->stream>>>(s, g);
  KP_TRY(kp_launched(call, error));
  kp_seam_add_gradients(call, s, g, blocks);
  return kp_launched(call, error);
}

/* Rows of whole packs, and all others. */
template <bool GROUPED> static kp_status by_width(const kp_call *call, const kp_seam &s, kp_error *error) {
  if (s.C == 3 * KP_WARP_CHANNELS) return launch<3, true, GROUPED>(call, s, error);
  if (s.C == 4 * KP_WARP_CHANNELS) return launch<4, true, GROUPED>(call, s, error);
  return launch<4, false, GROUPED>(call, s, error);
}

bool kp_seam_fits_warps_backward(const kp_call *call, const kp_seam &s) {
  const kp_residual_norm_arguments *arguments = (const kp_residual_norm_arguments *)call->node->arguments;
  const bool reached = s.own || arguments->stream_reference; /* then there is no given reference's gradient */
  if (call->input[11] == NULL || !kp_is_half(call) || !kp_seam_fits_warps(s) || !kp_seam_programs_fit(s) ||
      (reached && call->output[2] != NULL))
    return false;
  return (s.C == 3 * KP_WARP_CHANNELS ? memory_bytes<3>(s) : memory_bytes<4>(s)) <=
         kp_cuda_of(call)->shared_bytes;
}

kp_status kp_seam_warps_backward(const kp_call *call, const kp_seam &seam, kp_error *error) {
  const kp_seam s = kp_seam_with_tangent(seam);
  return kp_warp_group_count(s) > 1 ? by_width<true>(call, s, error) : by_width<false>(call, s, error);
}
