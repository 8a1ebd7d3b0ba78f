/* Latents expanded to keys and values:
 *   z = up weight · L + up time weight · time + bias,   L = latent · inverse · norm weight,
 * of every position of the cache that is in use; blocks beyond return at once.  2 r operations a number of z
 * bound it.  In bfloat16 the matrix units make the products, of tiles of 128 positions and 128 channels whose
 * next operands are on their way while these are multiplied. */
#include <mma.h>

#include "backend/cuda/attention_latent_cached.cuh"

enum { TILE = 64, DEPTH = 16, THREADS = 256, OWN = 4 };

/* z = L · up weightᵀ + time · up time weight + bias of 64 positions and 64 channels; a thread 4 of each. */
template <typename T> struct expansion_tile {
  float latent[DEPTH][TILE + 4], up[DEPTH][TILE + 4]; /* both by channel of the latent */
};

template <typename T>
__device__ static void load_depth(expansion_tile<T> *s, const kp_latent_cache &a, int64_t row, int count,
                                  int column, int depth) {
  const int columns = a.heads * (a.own + a.value);
  for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
    const int k = i % DEPTH, m = i / DEPTH;
    float latent = 0, up = 0;
    if (depth + k < a.latent && m < count)
      latent = kp_to_float(((const T *)a.state)[(row + m) * a.state_pitch + depth + k]) * a.inverse[row + m] *
               (a.norm_weight.at == NULL ? 1 : a.norm_weight[depth + k]);
    if (depth + k < a.latent && column + m < columns)
      up = kp_to_float(((const T *)a.up)[(column + m) * a.up_pitch + depth + k]);
    s->latent[k][m] = latent;
    s->up[k][m] = up;
  }
}

/* Channel `column` of z at a position of sequence b. */
template <typename T>
__device__ static inline void put(const kp_latent_cache &a, int64_t b, int64_t j, int column, float z) {
  const int width = a.own + a.value, h = column / width, d = column - h * width;
  const int64_t row = (b * a.heads + h) * a.capacity + j;
  if (a.time_weight.at != NULL) z += a.time[b * a.capacity + j] * a.time_weight[column];
  if (a.bias.at != NULL) z += a.bias[column];
  if (d < a.own)
    ((T *)a.keys)[row * a.key_pitch + d] = kp_from_float<T>(z);
  else
    ((T *)a.values)[row * a.value_pitch + d - a.own] = kp_from_float<T>(z);
}

template <typename T> static __global__ void __launch_bounds__(THREADS) expand_kernel(kp_latent_cache a) {
  __shared__ expansion_tile<T> s;
  const int64_t b = blockIdx.z, j = (int64_t)blockIdx.y * TILE, row = b * a.capacity + j;
  const int end = kp_latent_start(a) + (int)a.length, column = blockIdx.x * TILE;
  if (j >= end) return;
  const int count = min(TILE, (int)(end - j)), x = threadIdx.x % 16 * OWN, y = threadIdx.x / 16 * OWN;
  float z[OWN][OWN] = {};
  for (int depth = 0; depth < a.latent; depth += DEPTH) {
    __syncthreads();
    load_depth(&s, a, row, count, column, depth);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      const float4 m = *(const float4 *)&s.latent[k][y], n = *(const float4 *)&s.up[k][x];
      const float ms[OWN] = {m.x, m.y, m.z, m.w}, ns[OWN] = {n.x, n.y, n.z, n.w};
#pragma unroll
      for (int u = 0; u < OWN; u++)
#pragma unroll
        for (int v = 0; v < OWN; v++) z[u][v] += ms[u] * ns[v];
    }
  }
#pragma unroll
  for (int u = 0; u < OWN; u++)
#pragma unroll
    for (int v = 0; v < OWN; v++)
      if (y + u < count && column + x + v < a.heads * (a.own + a.value))
        put<T>(a, b, j + y + u, column + x + v, z[u][v]);
}

/* ---- by matrix units ---- */

enum { WIDE = 128, STEP = 32, STEP_PITCH = STEP + 8, MOST_LATENT = 2048, PACK = 8, STAGE_PITCH = 20 };

struct alignas(32) half_tile { /* as loading fragments asks for */
  kp_half latent[WIDE][STEP_PITCH], up[WIDE][STEP_PITCH];
};

/* A thread's 16 numbers of both operands: of one row each. */
struct half_part {
  kp_pack<kp_half> latent[2], up[2];
};

__device__ static inline half_part fetch(const kp_latent_cache &a, const kp_half *latent, const kp_half *up,
                                         int depth) {
  half_part part = {};
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int k = depth + threadIdx.x % 2 * (2 * PACK) + i * PACK;
    if (latent != NULL && k < a.latent) part.latent[i] = kp_load(latent + k);
    if (up != NULL && k < a.latent) part.up[i] = kp_load(up + k);
  }
  return part;
}

/* Normalises the latents on their way to shared memory. */
__device__ static inline void lay(half_tile *s, const half_part &part, const float *weight, float inverse,
                                  int depth) {
  const int row = threadIdx.x / 2;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int k = threadIdx.x % 2 * (2 * PACK) + i * PACK;
    kp_pack<kp_half> latent;
#pragma unroll
    for (int j = 0; j < PACK; j++)
      latent.value[j] = __float2bfloat16_rn(__bfloat162float(part.latent[i].value[j]) * inverse *
                                            weight[(depth + k + j) % MOST_LATENT]);
    kp_store(&s->latent[row][k], latent);
    kp_store(&s->up[row][k], part.up[i]);
  }
}

/* Eight channels of z from `column` on: of one head and part, where their sizes are whole packs. */
__device__ static inline void put_pack(const kp_latent_cache &a, int64_t b, int64_t j, int column,
                                       const float *z) {
  if (a.own % PACK != 0 || a.value % PACK != 0) {
    for (int i = 0; i < PACK && column + i < a.heads * (a.own + a.value); i++)
      put<kp_half>(a, b, j, column + i, z[i]);
    return;
  }
  const int width = a.own + a.value, h = column / width, d = column - h * width;
  const int64_t row = (b * a.heads + h) * a.capacity + j;
  const float time = a.time_weight.at == NULL ? 0 : a.time[b * a.capacity + j];
  kp_pack<kp_half> pack;
#pragma unroll
  for (int i = 0; i < PACK; i++) {
    float x = z[i];
    if (a.time_weight.at != NULL) x += time * a.time_weight[column + i];
    if (a.bias.at != NULL) x += a.bias[column + i];
    pack.value[i] = __float2bfloat16_rn(x);
  }
  kp_store(d < a.own ? (kp_half *)a.keys + row * a.key_pitch + d
                     : (kp_half *)a.values + row * a.value_pitch + d - a.own,
           pack);
}

static __global__ void __launch_bounds__(THREADS) expand_half_kernel(kp_latent_cache a) {
  using namespace nvcuda;
  using products = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;
  __shared__ union {
    half_tile tile;
    alignas(32) float stage[THREADS / 32][16][STAGE_PITCH];
  } s;
  __shared__ float weight[MOST_LATENT];
  const int64_t b = blockIdx.z, j = (int64_t)blockIdx.y * WIDE;
  const int end = kp_latent_start(a) + (int)a.length, column = blockIdx.x * WIDE;
  if (j >= end) return;
  const int columns = a.heads * (a.own + a.value), count = min(WIDE, (int)(end - j));
  const int own = threadIdx.x / 2, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t row = b * a.capacity + j + own;
  const kp_half *latent = own < count ? (const kp_half *)a.state + row * a.state_pitch : NULL;
  const kp_half *up = column + own < columns ? (const kp_half *)a.up + (column + own) * a.up_pitch : NULL;
  const float inverse = own < count ? a.inverse[row] : 0;
  for (int k = threadIdx.x; k < MOST_LATENT; k += THREADS)
    weight[k] = k >= a.latent ? 0 : a.norm_weight.at == NULL ? 1 : a.norm_weight[k];
  products z[2][4];
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < 4; n++) wmma::fill_fragment(z[m][n], 0.0f);
  half_part part = fetch(a, latent, up, 0);
  for (int depth = 0; depth < a.latent; depth += STEP) {
    __syncthreads();
    lay(&s.tile, part, weight, inverse, depth);
    __syncthreads();
    part = fetch(a, latent, up, depth + STEP);
#pragma unroll
    for (int k = 0; k < STEP; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, kp_half, wmma::row_major> left[2];
#pragma unroll
      for (int m = 0; m < 2; m++)
        wmma::load_matrix_sync(left[m], &s.tile.latent[warp / 2 * 32 + m * 16][k], STEP_PITCH);
#pragma unroll
      for (int n = 0; n < 4; n++) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, kp_half, wmma::col_major> right;
        wmma::load_matrix_sync(right, &s.tile.up[warp % 2 * 64 + n * 16][k], STEP_PITCH);
#pragma unroll
        for (int m = 0; m < 2; m++) wmma::mma_sync(z[m][n], left[m], right, z[m][n]);
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < 4; n++) {
      wmma::store_matrix_sync(&s.stage[warp][0][0], z[m][n], STAGE_PITCH, wmma::mem_row_major);
      __syncwarp();
      const int y = warp / 2 * 32 + m * 16 + lane / 2, x = column + warp % 2 * 64 + n * 16 + lane % 2 * PACK;
      if (y < count && x < columns) put_pack(a, b, j + y, x, &s.stage[warp][lane / 2][lane % 2 * PACK]);
      __syncwarp();
    }
}

/* ---- either ---- */

static dim3 grid_of(const kp_latent_cache &a, int tile) {
  return dim3((unsigned)kp_blocks(a.heads * (a.own + a.value), tile), (unsigned)kp_blocks(a.capacity, tile),
              (unsigned)a.batch);
}

void kp_latent_expand(const kp_call *call, const kp_latent_cache &a) {
  cudaStream_t stream = kp_cuda_of(call)->stream;
  const bool packs = a.latent % PACK == 0 && a.state_pitch % PACK == 0 && a.up_pitch % PACK == 0;
  if (!kp_is_half(call))
    expand_kernel<float><<<grid_of(a, TILE), THREADS, 0, stream>>>(a);
  else if (packs && a.latent <= MOST_LATENT)
    expand_half_kernel<<<grid_of(a, WIDE), THREADS, 0, stream>>>(a);
  else
    expand_kernel<kp_half><<<grid_of(a, TILE), THREADS, 0, stream>>>(a);
}
