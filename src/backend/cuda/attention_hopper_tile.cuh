/* Tiles of scores in the registers of a warpgroup: 64 rows by N columns, thread t of 128 holding the rows
 * 16·(t/32) + t%32/4 (elements 4j, 4j+1) and 8 below (4j+2, 4j+3) at the columns 8j + 2·(t%4) and the next.
 */
#ifndef KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_TILE_CUH
#define KAPPA_BACKEND_CUDA_ATTENTION_HOPPER_TILE_CUH

#include "backend/cuda/attention_hopper.cuh"
#include "backend/cuda/attention_hopper_ptx.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Tells the compiler that the matrix unit has written d. */
template <int N> __device__ static inline void kp_settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* Two floats as a word of two bfloat16, the first in the low half. */
__device__ static inline uint32_t kp_pair(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

__device__ static inline float kp_pair_low(uint32_t word) {
  return __uint_as_float(word << 16);
}
__device__ static inline float kp_pair_high(uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}

__device__ static inline float kp_quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

__device__ static inline float kp_quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* ---- products ---- */

/* d = A Bᵀ over D channels: rows of A from its row `a_row`, of A_ROWS in a panel; B with N rows a panel. */
template <int D, int A_ROWS, int N>
__device__ static inline void kp_tile_product(float (&d)[N / 2], const kp_half *a, int a_row,
                                              const kp_half *b) {
  const uint64_t of_a = kp_describe(a + a_row * 64, 0), of_b = kp_describe(b, 0);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    const int panel = step / 4, within = step % 4 * 32;
    kp_wgmma<false>(d, kp_describe_from(of_a, panel * A_ROWS * 128 + within),
                    kp_describe_from(of_b, panel * N * 128 + within), step != 0);
  }
}

/* d += A B: A in registers as words of pairs, 64 by N; B with N rows a panel, D channels. */
template <int D, int N>
__device__ static inline void kp_tile_accumulate(float (&d)[D / 2], const uint32_t (&a)[N / 4],
                                                 const kp_half *b, bool first) {
  const uint64_t of_b = kp_describe(b, N * 128);
#pragma unroll
  for (int step = 0; step < N / 16; step++) {
    const uint32_t words[4] = {a[4 * step], a[4 * step + 1], a[4 * step + 2], a[4 * step + 3]};
    kp_wgmma<true>(d, words, kp_describe_from(of_b, step * 16 * 128), step != 0 || !first);
  }
}

/* ---- rows' numbers beside a tile ---- */

/* Two neighbouring columns of an array, j counted in eights, in blocks of numbers at `at`. */
__device__ static inline float2 kp_columns(const float *at, int number, int j) {
  return *(const float2 *)(at + (j / 8) * KP_ROW_COPIED * KP_ROW_BLOCK + number * KP_ROW_BLOCK + j % 8 * 8 +
                           threadIdx.x % 4 * 2);
}

/* What a score needs of a thread's two rows. */
struct kp_tile_row {
  float level[2], factor[2], mirror[2]; /* Â or t̂, k̂ E, 1 - 2σÂ */
};

/* z of a pair: what the distance is a function of. */
__device__ static inline float kp_pair_z(const kp_tile_row &row, int r, float g, float level, float factor) {
  return fmaf(-row.factor[r], factor * g, fmaf(row.mirror[r], level, row.level[r]));
}

/* κ > 0: π/4 - asin √z, and y = z or 1 - z, the smaller.  Only one half of the range needs a polynomial. */
__device__ static inline float kp_arc(float z, float floor, float *y) {
  *y = kp_larger(kp_smaller(z, 1.0f - z), floor);
  const float root = *y * kp_inverse_root(*y);
  float series = fmaf(*y, 0.0946340744f, 0.00975844866f);
  series = fmaf(*y, series, 0.0818584453f);
  series = fmaf(*y, series, 0.166218979f);
  series = fmaf(*y, series, 1.00000451f);
  return copysignf(fmaf(-root, series, 0.785398163f), 0.5f - z);
}

/* 2^x for x <= 0 from multiplications and additions, to 1e-4: where the unit of special functions is the
 * bound. */
__device__ static inline float kp_exp2_series(float x) {
  const float above = kp_larger(x, -126.0f), whole = above + 12582912.0f;
  const float part = above - (whole - 12582912.0f);
  const float series =
      fmaf(fmaf(fmaf(part, 0.0558382829f, 0.242639479f), part, 0.693136734f), part, 0.999924557f);
  return series * __int_as_float((__float_as_int(whole) << 23) + 0x3f800000);
}

/* Turns raw products into x of a distance (squared: its square): all elements of a tile. */
template <int SIGN, bool SQUARED, int N>
__device__ static inline void kp_distances(float (&s)[N / 2], const kp_tile_row &row, const float *columns,
                                           float floor) {
#pragma unroll
  for (int j = 0; j < N / 8; j++) {
    const float2 level = kp_columns(columns, KP_ROW_LEVEL, j), factor = kp_columns(columns, KP_ROW_FACTOR, j);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      float &x = s[4 * j + e];
      const float z = kp_pair_z(row, e / 2, x, e % 2 ? level.y : level.x, e % 2 ? factor.y : factor.x);
      if (SIGN > 0) {
        float y;
        const float arc = kp_arc(z, floor, &y);
        x = SQUARED ? 0.785398163f - arc : arc;
      } else {
        const float above = kp_larger(z, floor);
        const float square = SIGN < 0 ? fmaf(above, above, above) : above;
        const float root = square * kp_inverse_root(square);
        x = SIGN < 0 ? -kp_log2(fmaf(2.0f, above + root, 1.0f)) : -root;
      }
    }
  }
}

/* Turns raw products into x. */
template <int SCORE, int N>
__device__ static inline void kp_scores(float (&s)[N / 2], const kp_hopper_head &head, const kp_tile_row &row,
                                        const float *columns) {
  if (SCORE == KP_SCORE_LORENTZ) {
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      const float2 time = kp_columns(columns, KP_ROW_LEVEL, j);
#pragma unroll
      for (int e = 0; e < 4; e++)
        s[4 * j + e] = fmaf(-row.level[e / 2], e % 2 ? time.y : time.x, s[4 * j + e]);
    }
  }
  if (SCORE == KP_SCORE_DISTANCE || SCORE == KP_SCORE_DISTANCE_SQUARED) {
    constexpr bool squared = SCORE == KP_SCORE_DISTANCE_SQUARED;
    const float floor = head.level * 1e-12f;
    if (head.sign < 0)
      kp_distances<-1, squared, N>(s, row, columns, floor);
    else if (head.sign > 0)
      kp_distances<1, squared, N>(s, row, columns, floor);
    else
      kp_distances<0, squared, N>(s, row, columns, floor);
    if (squared) {
#pragma unroll
      for (int i = 0; i < N / 2; i++) s[i] = s[i] * -s[i];
    }
  }
  if (head.negated) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] = -s[i];
  }
}

/* Whether all rows of a warp and all columns of BLOCKS blocks are of the document `first`; `own`: whether the
 * thread's rows are. */
template <int BLOCKS>
__device__ static inline bool kp_one_document(const float *columns, int first, bool own) {
  const int lane = threadIdx.x % (BLOCKS * 16);
  const int4 four =
      *(const int4 *)(columns + (lane / 16 * KP_ROW_COPIED + KP_ROW_DOCUMENT) * KP_ROW_BLOCK + lane % 16 * 4);
  return __all_sync(0xffffffffu,
                    own && four.x == first && four.y == first && four.z == first && four.w == first);
}

/* ---- results ---- */

/* Exchanges words among four neighbouring lanes: lane t gets word t of each. */
__device__ static inline void kp_quad_transpose(uint32_t (&a)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? a[i] : a[i + 1], 1);
    if (odd)
      a[i] = got;
    else
      a[i + 1] = got;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? a[i] : a[i + 2], 2);
    if (upper)
      a[i] = got;
    else
      a[i + 2] = got;
  }
}

/* Row r (0, 1) of a thread's part of d, times scale, to `size` of its D channels at `to`; all lanes of a warp
 * call it.  Heads of whole pieces of 16 bytes start at such pieces. */
template <int D>
__device__ static inline void kp_store_row(const float (&d)[D / 2], int r, float scale, kp_half *to, int size,
                                           bool inside) {
  if (size % 8 != 0) {
#pragma unroll
    for (int i = 0; i < D / 4; i++) {
      const int channel = i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
      if (inside && channel < size) to[channel] = __float2bfloat16_rn(d[i / 2 * 4 + 2 * r + i % 2] * scale);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < D / 8; j += 4) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
      words[i] = kp_pair(d[4 * (j + i) + 2 * r] * scale, d[4 * (j + i) + 2 * r + 1] * scale);
    kp_quad_transpose(words);
    if (inside && 8 * (j + threadIdx.x % 4) < size)
      *(uint4 *)(to + 8 * (j + threadIdx.x % 4)) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

#endif
#endif
