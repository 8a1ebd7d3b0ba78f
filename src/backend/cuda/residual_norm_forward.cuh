/* The seam, forward: update, tangent map and norm in one read and one write of each tensor.
 *
 * A tile of R rows: x and u are read, the Gram matrices of all its rows and groups summed, the update's
 * scalar programs run side by side, x' formed and stored; the same for the tangent map; then the moments of
 * z, and y. A row of C channels moves 2C to 3C elements in and 2C out and takes about 30 operations a
 * channel, so memory bounds it; blocks in different phases hide the latency of the scalar programs. */
#ifndef KAPPA_BACKEND_CUDA_RESIDUAL_NORM_FORWARD_CUH
#define KAPPA_BACKEND_CUDA_RESIDUAL_NORM_FORWARD_CUH

#include "backend/cuda/row_program_scalars.cuh"
#include "backend/cuda/seam.cuh"
#include "backend/cuda/seam_sums.cuh"

/* Outputs; all but events may be NULL. */
struct kp_seam_outputs {
  void *stream, *y;
  float *statistics;
  int *events; /* (blocks) */
};

/* Shared memory: the sums of a tile, the coefficients of its rows and groups, its moments. */
template <typename S> struct kp_seam_memory { S *chunks, *coefficients, *moments; };

template <typename S, int R>
__host__ __device__ static inline size_t kp_seam_forward_bytes(const kp_seam &s, int threads, int packs) {
  const int widest = s.triple ? 6 : 3;
  const int segment =
      s.update_groups.segment < s.tangent_groups.segment ? s.update_groups.segment : s.tangent_groups.segment;
  const int groups =
      s.update_groups.count > s.tangent_groups.count ? s.update_groups.count : s.tangent_groups.count;
  return ((size_t)(threads * packs / segment) * widest * R + (size_t)(3 * groups + 2) * R) * sizeof(S);
}

template <typename T, int V, int P, int R> struct kp_seam_forward {
  using S = typename kp_sum_of<T>::type;
  using vector = kp_vector<T, V>;
  const kp_seam &s;
  const kp_seam_channels<V, P> c;
  kp_seam_memory<S> memory;
  kp_seam_tile<T, V, P, R> tile;
  int64_t own_first; /* rows before this are computed for their neighbour alone */
  int events;

  __device__ kp_seam_forward(const kp_seam &seam, S *shared) : s(seam), c(seam), events(0) {
    memory.moments = shared;
    memory.coefficients = shared + 2 * R;
    const int groups =
        s.update_groups.count > s.tangent_groups.count ? s.update_groups.count : s.tangent_groups.count;
    memory.chunks = memory.coefficients + 3 * groups * R;
    tile.slots = (vector *)((unsigned char *)shared + s.numbers_bytes) + threadIdx.x;
  }

  __device__ bool writes(int i) const { return tile.has(i) && tile.first + i >= own_first; }

  __device__ void load() {
#pragma unroll 1
    for (int i = 0; i < tile.high; i++) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const int64_t at = (tile.first + i) * s.pitch + c.at[p];
        const bool there = c.there[p] && tile.has(i);
        kp_fetch_vector<T, V>(&tile.x(i, p), s.x, at, there);
        if (s.update != KP_SEAM_NONE) kp_fetch_vector<T, V>(&tile.h(i, p), s.u, at, there);
        tile.fetch_given(s, i, p, c.at[p], c.there[p]);
      }
    }
    kp_vectors_arrived();
  }

  /* Runs a program for each row and group of the tile, from Q sums each. */
  template <int Q> __device__ void run(int program, const kp_groups &groups, const kp_curvatures &kappa) {
    __syncthreads();
    /* Another warp every time, so that the multiprocessor's four parts share this work. */
    const int turn = (int)(blockIdx.x + tile.first / R) * 32;
    for (int e = (threadIdx.x + turn) % blockDim.x; e < tile.high * groups.count; e += blockDim.x) {
      const int i = e / groups.count, group = e - i * groups.count;
      kp_real gram[6], coefficients[3];
#pragma unroll
      for (int q = 0; q < Q; q++)
        gram[q] = (kp_real)kp_group_sum<R * Q>(memory.chunks, groups, group, i * Q + q);
      const int event =
          kp_program_forward(program, gram, (kp_real)kappa.at(tile.first + i, group), 0, coefficients);
      if (writes(i)) events += event;
      for (int j = 0; j < (Q == 6 ? 3 : 2); j++) memory.coefficients[3 * e + j] = (S)coefficients[j];
    }
    __syncthreads();
  }

  __device__ void update_pair() {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 2
      for (int i = 0; i < tile.high; i++) {
        S aa = 0, ab = 0, bb = 0;
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S a = tile.x(i, p)[k], b = tile.h(i, p)[k];
          aa += a * a, ab += a * b, bb += b * b;
        }
        S sums[3] = {aa, ab, bb};
        kp_chunk_sums<3, R>(sums, s.update_groups, p, i, memory.chunks);
      }
    }
    run<3>(s.update_program, s.update_groups, s.update_kappa);
#pragma unroll 2
    for (int i = 0; i < tile.high; i++) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const S *f = memory.coefficients + 3 * (i * s.update_groups.count + c.update[p]);
        const S first = f[0], second = f[1];
        float h[V];
#pragma unroll
        for (int k = 0; k < V; k++) h[k] = (float)(first * (S)tile.x(i, p)[k] + second * (S)tile.h(i, p)[k]);
        tile.h(i, p) = kp_to_vector<T, V>(h);
      }
    }
  }

  __device__ void update_triple() {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 2
      for (int i = 0; i < tile.high; i++) {
        const vector r = tile.given(s, i, p, c.at[p], c.there[p]);
        S part[6] = {0, 0, 0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S a = tile.x(i, p)[k], b = r[k], d = tile.h(i, p)[k];
          part[0] += a * a, part[1] += a * b, part[2] += a * d;
          part[3] += b * b, part[4] += b * d, part[5] += d * d;
        }
        kp_chunk_sums<6, R>(part, s.update_groups, p, i, memory.chunks);
      }
    }
    run<6>(s.update_program, s.update_groups, s.update_kappa);
#pragma unroll 2
    for (int i = 0; i < tile.high; i++) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        const vector r = tile.given(s, i, p, c.at[p], c.there[p]);
        const S *f = memory.coefficients + 3 * (i * s.update_groups.count + c.update[p]);
        const S first = f[0], second = f[1], third = f[2];
        float h[V];
#pragma unroll
        for (int k = 0; k < V; k++)
          h[k] = (float)(first * (S)tile.x(i, p)[k] + second * (S)r[k] + third * (S)tile.h(i, p)[k]);
        tile.h(i, p) = kp_to_vector<T, V>(h);
      }
    }
  }

  /* x' from x and u, which is where x' will stand. */
  template <bool CURVED> __device__ void update(void *stream) {
    if constexpr (CURVED) {
      if (s.update == KP_SEAM_CURVED && s.triple) update_triple();
      if (s.update == KP_SEAM_CURVED && !s.triple) update_pair();
    }
#pragma unroll 2
    for (int i = 0; i < tile.high; i++) {
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        if (s.update == KP_SEAM_NONE) tile.h(i, p) = tile.x(i, p);
        if (s.update == KP_SEAM_FLAT) {
          float h[V];
#pragma unroll
          for (int k = 0; k < V; k++) h[k] = tile.x(i, p)[k] + tile.h(i, p)[k];
          tile.h(i, p) = kp_to_vector<T, V>(h);
        }
        if (stream != NULL && c.there[p] && writes(i))
          *(vector *)((T *)stream + (tile.first + i) * s.pitch + c.at[p]) = tile.h(i, p);
      }
    }
  }

  __device__ void tangent() {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 2
      for (int i = 0; i < tile.high; i++) {
        const vector r = tile.reference(s, i, p, c.at[p], c.there[p]);
        S aa = 0, ab = 0, bb = 0;
#pragma unroll
        for (int k = 0; k < V; k++) {
          const S a = r[k], b = (S)tile.h(i, p)[k] - a;
          aa += a * a, ab += a * b, bb += b * b;
        }
        S sums[3] = {aa, ab, bb};
        kp_chunk_sums<3, R>(sums, s.tangent_groups, p, i, memory.chunks);
      }
    }
    run<3>(s.tangent_program, s.tangent_groups, s.tangent_kappa);
  }

  /* z of row i. */
  template <bool CURVED> __device__ void tangent_vector(int i, int p, float z[V]) const {
    if (s.tangent == KP_SEAM_NONE) {
#pragma unroll
      for (int k = 0; k < V; k++) z[k] = tile.h(i, p)[k];
      return;
    }
    const vector r = tile.reference(s, i, p, c.at[p], c.there[p]);
    S first = 0, second = 1;
    if (CURVED && s.tangent == KP_SEAM_CURVED) {
      const S *f = memory.coefficients + 3 * (i * s.tangent_groups.count + c.tangent[p]);
      first = f[0], second = f[1];
    }
#pragma unroll
    for (int k = 0; k < V; k++) {
      const S a = r[k], d = (S)tile.h(i, p)[k] - a;
      z[k] = (float)(first * a + second * d);
    }
  }

  /* Means and reciprocal deviations of the tile's rows. */
  template <bool CURVED> __device__ void moments(float *statistics) {
#pragma unroll 1
    for (int p = 0; p < P; p++) {
#pragma unroll 2
      for (int i = 0; i < tile.high; i++) {
        float z[V];
        S sum = 0, squares = 0;
        tangent_vector<CURVED>(i, p, z);
#pragma unroll
        for (int k = 0; k < V; k++) sum += (S)z[k], squares += (S)z[k] * (S)z[k];
        S sums[2] = {sum, squares};
        kp_chunk_sums<2, R>(sums, s.row, p, i, memory.chunks);
      }
    }
    __syncthreads();
    if ((int)threadIdx.x < tile.high) {
      const int i = threadIdx.x;
      const S sum = kp_group_sum<2 * R>(memory.chunks, s.row, 0, 2 * i);
      const S squares = kp_group_sum<2 * R>(memory.chunks, s.row, 0, 2 * i + 1);
      const S mean = s.layer ? sum / (S)s.C : S(0);
      S variance = squares / (S)s.C - mean * mean;
      if (variance < 0) variance = 0;
      const float scale = (float)(1 / kp_sqrt((kp_real)variance + (kp_real)s.epsilon));
      memory.moments[2 * i] = (S)(float)mean, memory.moments[2 * i + 1] = (S)scale;
      if (writes(i)) *(float2 *)(statistics + 2 * (tile.first + i)) = make_float2((float)mean, scale);
    }
    __syncthreads();
  }

  template <bool CURVED> __device__ void normalise(T *y, const float weight[P][V], const float bias[P][V]) {
#pragma unroll 2
    for (int i = 0; i < tile.high; i++) {
      if (!writes(i)) continue;
      const float mean = (float)memory.moments[2 * i], scale = (float)memory.moments[2 * i + 1];
#pragma unroll 1
      for (int p = 0; p < P; p++) {
        float z[V];
        tangent_vector<CURVED>(i, p, z);
#pragma unroll
        for (int k = 0; k < V; k++) z[k] = (z[k] - mean) * scale * weight[p][k] + bias[p][k];
        if (c.there[p]) *(vector *)(y + (tile.first + i) * s.pitch + c.at[p]) = kp_to_vector<T, V>(z);
      }
    }
  }
};

template <typename T, int V, int P, int R, int THREADS, bool CURVED>
__global__ void __launch_bounds__(THREADS, 768 / THREADS)
    kp_seam_forward_kernel(const kp_seam s, const kp_seam_outputs out) {
  extern __shared__ __align__(16) unsigned char shared[];
  using forward = kp_seam_forward<T, V, P, R>;
  forward f(s, (typename forward::S *)shared);
  float weight[P][V], bias[P][V];
  kp_seam_weights<V, P>(s.weight, f.c, s.C, 1, weight);
  kp_seam_weights<V, P>(s.bias, f.c, s.C, 0, bias);
  f.own_first = blockIdx.x * s.run;
  f.tile.begin = f.own_first - (s.own && f.own_first % s.T != 0 ? 1 : 0);
  f.tile.end = f.own_first + s.run < s.rows ? f.own_first + s.run : s.rows;
#pragma unroll 1
  for (int p = 0; p < P; p++) {
    const bool before = f.c.there[p] && s.given == KP_SEAM_STREAM && f.tile.begin > 0;
    f.tile.x(-1, p) = kp_load_vector<T, V>(s.x, (f.tile.begin - 1) * s.pitch + f.c.at[p], before);
    f.tile.h(-1, p) = kp_zero_vector<T, V>();
  }
  for (int64_t row = f.tile.begin; row < f.tile.end; row += s.tile) {
    f.tile.move_to(s, row);
    f.load();
    f.template update<CURVED>(out.stream);
    if (out.y != NULL) {
      if (CURVED && s.tangent == KP_SEAM_CURVED) f.tangent();
      f.template moments<CURVED>(out.statistics);
      f.template normalise<CURVED>((T *)out.y, weight, bias);
    }
#pragma unroll 1
    for (int p = 0; p < P; p++) {
      f.tile.x(-1, p) = f.tile.x(s.tile - 1, p);
      f.tile.h(-1, p) = f.tile.h(s.tile - 1, p);
    }
  }
  if (CURVED) {
    int *count = (int *)shared;
    __syncthreads();
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    if (f.events != 0) atomicAdd(count, f.events);
    __syncthreads();
    if (threadIdx.x == 0) out.events[blockIdx.x] = *count;
  }
}

template <typename T, int V, int P, int R, int THREADS, bool CURVED>
static kp_status kp_seam_forward_launch(const kp_call *call, kp_seam s, kp_error *error) {
  using S = typename kp_sum_of<T>::type;
  const kp_cuda *cuda = kp_cuda_of(call);
  const int threads = kp_seam_threads(s, V, P);
  kp_seam_set_groups(&s, V, threads, P);
  s.numbers_bytes = (kp_seam_forward_bytes<S, R>(s, threads, P) + 15) / 16 * 16;
  const size_t bytes =
      s.numbers_bytes + (size_t)kp_seam_held_rows(s, R) * P * (size_t)threads * sizeof(kp_vector<T, V>);
  const auto kernel = kp_seam_forward_kernel<T, V, P, R, THREADS, CURVED>;
  kp_status status;
  if (bytes > 48 * 1024 &&
      (status = kp_cuda_check(
           cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
           "residual_norm", error)) != KP_OK)
    return status;
  int resident = 1;
  status = kp_cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, bytes),
                         "residual_norm", error);
  if (status != KP_OK) return status;
  kp_seam_share<R>(&s, cuda, resident, s.own, KP_SEAM_MOST_BLOCKS);
  const int blocks = kp_blocks(s.rows, s.run);
  kp_seam_outputs out = {call->output[0], call->output[1], (float *)call->output[2], (int *)call->scratch};
  kernel<<<blocks, threads, bytes, cuda->stream>>>(s, out);
  if (CURVED)
    kp_seam_events_kernel<<<1, 256, 0, cuda->stream>>>(out.events, blocks, (float *)call->output[3]);
  return kp_launched(call, error);
}

/* By width: whole vectors of 16 bytes where rows and groups are made of them. */
template <typename T, int R, bool CURVED>
static kp_status kp_seam_forward_by_width(const kp_call *call, const kp_seam &s, kp_error *error) {
  constexpr int V = 16 / sizeof(T), MOST = 256;
  const bool whole = kp_rows_of_vectors(s.pitch, s.C, s.update_kappa.groups, V) &&
                     kp_rows_of_vectors(s.pitch, s.C, s.tangent_kappa.groups, V);
  if (whole && kp_seam_threads(s, V, 1) <= MOST)
    return kp_seam_forward_launch<T, V, 1, R, MOST, CURVED>(call, s, error);
  if (kp_seam_threads(s, 1, 16) <= 512)
    return kp_seam_forward_launch<T, 1, 16, 1, 512, CURVED>(call, s, error);
  return kp_fail(error, KP_ERR_UNSUPPORTED, "residual_norm: rows of %d channels are too long", s.C);
}

#endif
