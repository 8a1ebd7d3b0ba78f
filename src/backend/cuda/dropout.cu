/* Dropout: the mask is a pure function of the run, the step, the stream and the element, so nothing is stored
 * and the backward pass draws it again.  Seed and step are read on the device, as recorded work is replayed
 * in later steps. */
#include "backend/cuda/chunks.cuh"

extern "C" {
#include "core/random.h"
}

/* What does not change within a run. */
struct kp_mask {
  unsigned long long first_block;
  unsigned long long bound; /* a word below it drops its element; rate · 2³² rounded up */
  float scale;              /* 1 / (1 - rate) */
};

/* core/random.h's generator: the same words. */
__device__ static inline uint4 draw(unsigned long long seed, unsigned step, unsigned long long block) {
  unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
  uint4 x = make_uint4((unsigned)block, (unsigned)(block >> 32), step, KP_RANDOM_DROPOUT);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const unsigned low0 = 0xD2511F53u * x.x, high0 = __umulhi(0xD2511F53u, x.x);
    const unsigned low1 = 0xCD9E8D57u * x.z, high1 = __umulhi(0xCD9E8D57u, x.z);
    x = make_uint4(high1 ^ x.y ^ k0, low1, high0 ^ x.w ^ k1, low0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

__device__ static inline float factor_of(const kp_mask &mask, unsigned word) {
  return word >= mask.bound ? mask.scale : 0.0f;
}

/* Rows without padding, one after the other.  Bytes: x once, y once.  Arithmetic: ten rounds of two wide
 * products for four elements, about as long as the bytes take in bfloat16.  Dropped elements are multiplied
 * by zero: what is not finite is not hidden. */
template <typename T>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    drop_flat(const T *x, T *y, int64_t count, kp_mask mask, const kp_device_step *step) {
  const unsigned long long seed = step->seed;
  const unsigned now = (unsigned)step->step;
  const int64_t at = ((int64_t)blockIdx.x * KP_TILE_THREADS + threadIdx.x) * KP_CHUNK;
  if (at + KP_CHUNK <= count) {
    kp_chunk<KP_CHUNK> c = kp_read<KP_CHUNK>(x + at);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint4 word = draw(seed, now, mask.first_block + (unsigned long long)at / 4 + half);
      c.value[4 * half] *= factor_of(mask, word.x);
      c.value[4 * half + 1] *= factor_of(mask, word.y);
      c.value[4 * half + 2] *= factor_of(mask, word.z);
      c.value[4 * half + 3] *= factor_of(mask, word.w);
    }
    kp_write<KP_CHUNK>(y + at, c);
    return;
  }
  for (int64_t i = at; i < count; i++) {
    const uint4 word = draw(seed, now, mask.first_block + (unsigned long long)i / 4);
    const unsigned own = i % 4 == 0 ? word.x : i % 4 == 1 ? word.y : i % 4 == 2 ? word.z : word.w;
    y[i] = kp_from_float<T>(kp_to_float(x[i]) * factor_of(mask, own));
  }
}

/* Padded rows, or memory that does not start at 16 bytes: element by element. */
template <typename T>
static __global__ void __launch_bounds__(KP_TILE_THREADS)
    drop_rows(const T *x, T *y, int64_t count, int64_t columns, int64_t pitch, kp_mask mask,
              const kp_device_step *step) {
  const int64_t at = (int64_t)blockIdx.x * KP_TILE_THREADS + threadIdx.x;
  if (at >= count) return;
  const int64_t column = at % pitch, i = at / pitch * columns + column;
  float value = 0;
  if (column < columns) {
    const uint4 word = draw(step->seed, (unsigned)step->step, mask.first_block + (unsigned long long)i / 4);
    const unsigned own = i % 4 == 0 ? word.x : i % 4 == 1 ? word.y : i % 4 == 2 ? word.z : word.w;
    value = kp_to_float(x[at]) * factor_of(mask, own);
  }
  y[at] = kp_from_float<T>(value);
}

static kp_mask mask_of(const kp_dropout_arguments *arguments) {
  const double bound = arguments->rate * 0x1p32;
  unsigned long long whole = (unsigned long long)bound;
  if ((double)whole < bound) whole++;
  return kp_mask{(unsigned long long)arguments->stream << 40, whole, (float)(1.0 / (1.0 - arguments->rate))};
}

template <typename T> static void drop(const kp_call *call) {
  const kp_tensor *out = call->node->output[0];
  const kp_mask mask = mask_of((const kp_dropout_arguments *)call->node->arguments);
  const kp_cuda *cuda = kp_cuda_of(call);
  const int64_t count = kp_padded_count(out), columns = kp_tensor_columns(out), pitch = kp_pitch(out);
  const T *x = (const T *)call->input[0];
  T *y = (T *)call->output[0];
  if (columns == pitch && kp_aligned(x) && kp_aligned(y))
    drop_flat<<<kp_blocks(count, KP_CHUNK * KP_TILE_THREADS), KP_TILE_THREADS, 0, cuda->stream>>>(
        x, y, count, mask, cuda->step);
  else
    drop_rows<<<kp_blocks(count, KP_TILE_THREADS), KP_TILE_THREADS, 0, cuda->stream>>>(
        x, y, count, columns, pitch, mask, cuda->step);
}

extern "C" kp_status kp_cuda_dropout(const kp_call *call, kp_error *error) {
  if (kp_padded_count(call->node->output[0]) == 0) return KP_OK;
  if (kp_tensor_is_half(call, call->node->output[0]))
    drop<kp_half>(call);
  else
    drop<float>(call);
  return kp_launched(call, error);
}
