#include "core/random.h"

#include <math.h>

#include "core/assert.h"

static const double two_pi = 6.283185307179586476925286766559;

static uint64_t block_bits(kp_philox_block block, uint64_t half) {
  return half == 0 ? (uint64_t)block.word[1] << 32 | block.word[0]
                   : (uint64_t)block.word[3] << 32 | block.word[2];
}

static double uniform_of_bits(uint64_t bits) {
  return (double)(bits >> 11) * 0x1p-53;
}

uint64_t kp_random_bits(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index) {
  return block_bits(kp_random_block(seed, stream, step, index / 2), index % 2);
}

double kp_random_uniform(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index) {
  return uniform_of_bits(kp_random_bits(seed, stream, step, index));
}

float kp_random_uniform_float(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index) {
  kp_philox_block block = kp_random_block(seed, stream, step, index / 4);
  return (float)(block.word[index % 4] >> 8) * 0x1p-24f;
}

uint64_t kp_random_below(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index, uint64_t bound) {
  kp_assert(bound > 0, "an empty range has no numbers");
  return (uint64_t)(((unsigned __int128)kp_random_bits(seed, stream, step, index) * bound) >> 64);
}

/* Both normals of a block.  The radius takes 1 - u, which lies in (0, 1], so that its logarithm is finite. */
static void normal_pair(kp_philox_block block, double pair[2]) {
  double radius = sqrt(-2.0 * log(1.0 - uniform_of_bits(block_bits(block, 0))));
  double angle = two_pi * uniform_of_bits(block_bits(block, 1));
  pair[0] = radius * cos(angle);
  pair[1] = radius * sin(angle);
}

double kp_random_normal(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index) {
  double pair[2];
  normal_pair(kp_random_block(seed, stream, step, index / 2), pair);
  return pair[index % 2];
}

void kp_random_fill_normal(uint64_t seed, uint32_t stream, uint32_t step, double mean, double deviation,
                           float *out, size_t count) {
  for (size_t i = 0; i < count; i += 2) {
    double pair[2];
    normal_pair(kp_random_block(seed, stream, step, i / 2), pair);
    out[i] = (float)(mean + deviation * pair[0]);
    if (i + 1 < count) out[i + 1] = (float)(mean + deviation * pair[1]);
  }
}

void kp_random_fill_uniform(uint64_t seed, uint32_t stream, uint32_t step, double low, double high,
                            float *out, size_t count) {
  for (size_t i = 0; i < count; i++)
    out[i] = (float)(low + (high - low) * kp_random_uniform(seed, stream, step, i));
}

/* One pass through the Feistel network over 2 * half_bits bits.  The halves have at most 31 bits, so a round
 * takes one word; the counter's high word tells the rounds apart. */
static uint64_t feistel(uint64_t seed, uint32_t stream, uint32_t step, uint64_t value, unsigned half_bits) {
  enum { rounds = 8 };
  uint32_t mask = (uint32_t)((UINT64_C(1) << half_bits) - 1);
  uint32_t left = (uint32_t)(value >> half_bits), right = (uint32_t)value & mask;
  for (uint64_t round = 0; round < rounds; round++) {
    uint32_t mixed = left ^ (kp_random_block(seed, stream, step, round << 32 | right).word[0] & mask);
    left = right;
    right = mixed;
  }
  return (uint64_t)left << half_bits | right;
}

uint64_t kp_random_permute(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index, uint64_t size) {
  kp_assert(index < size, "index %llu of a permutation of %llu", (unsigned long long)index,
            (unsigned long long)size);
  unsigned half_bits = 1;
  while ((UINT64_C(1) << (2 * half_bits)) < size) half_bits++;
  kp_assert(half_bits <= 31, "a permutation of more than 2^62 elements");
  do index = feistel(seed, stream, step, index, half_bits);
  while (index >= size);
  return index;
}
