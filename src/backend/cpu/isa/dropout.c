/* Dropout: the mask is a pure function of the run, the step, the stream and
 * the element, so nothing is stored and the backward pass draws it again. */
#include "backend/cpu/isa/isa.h"
#include "backend/cpu/isa/split.h"
#include "core/random.h"

/* Elements whose random words are drawn at once; they stay in the first cache. */
enum { CHUNK = 1024 };

/* What does not change within a call. */
typedef struct kp_mask {
  uint64_t seed, first_block;
  uint32_t step;
  uint64_t bound; /* a word below it drops its element; rate · 2³² rounded up */
  float scale;    /* 1 / (1 - rate) */
} kp_mask;

static kp_mask mask_of(const kp_call *call) {
  const kp_dropout_arguments *arguments = call->node->arguments;
  const double bound = arguments->rate * 0x1p32;
  uint64_t whole = (uint64_t)bound;
  if ((double)whole < bound) whole++;
  return (kp_mask){.seed = call->run->seed,
                   .first_block = arguments->stream << 40,
                   .step = (uint32_t)call->run->step,
                   .bound = whole,
                   .scale = (float)(1.0 / (1.0 - arguments->rate))};
}

/* The words of `blocks` blocks from `block` on, four a block. */
static void draw(const kp_mask *mask, uint64_t block, int blocks, uint32_t *restrict word) {
  const uint64_t seed = mask->seed;
  const uint32_t step = mask->step;
#pragma omp simd
  for (int i = 0; i < blocks; i++) {
    const kp_philox_block drawn = kp_random_block(seed, KP_RANDOM_DROPOUT, step, block + (uint64_t)i);
    word[4 * i] = drawn.word[0];
    word[4 * i + 1] = drawn.word[1];
    word[4 * i + 2] = drawn.word[2];
    word[4 * i + 3] = drawn.word[3];
  }
}

/* Dropped elements are multiplied by zero: what is not finite is not hidden. */
static void drop(const kp_mask *mask, const float *x, float *y, kp_range range) {
  _Alignas(64) uint32_t word[CHUNK];
  const uint64_t bound = mask->bound;
  const float scale = mask->scale;
  for (int64_t first = range.first; first < range.last; first += CHUNK) {
    const int64_t count = range.last - first < CHUNK ? range.last - first : CHUNK;
    draw(mask, mask->first_block + (uint64_t)first / 4, (int)(count + 3) / 4, word);
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[first + i] = x[first + i] * (word[i] >= bound ? scale : 0.0f);
  }
}

kp_status KP_KERNEL(dropout)(const kp_call *call, kp_error *error) {
  (void)error;
  const kp_mask mask = mask_of(call);
  const int64_t count = kp_tensor_count(call->node->output[0]);
  const int threads = kp_threads_for(call, 10 * count);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; part++)
    drop(&mask, call->input[0], call->output[0], kp_split(count, 16, part, threads));
  return KP_OK;
}
