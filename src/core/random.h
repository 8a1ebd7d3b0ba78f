/* Counter-based random numbers: Philox4x32-10.
 *
 * Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.  A number is a pure
 * function of where it is used, so nothing is stored: a resumed run, another number of threads or another
 * order of evaluation draws the same numbers.
 *
 * A place is (seed, stream, step, index):
 *
 *   key     = { seed low, seed high }
 *   counter = { block low, block high, step, stream }     one block = 128 random bits
 *
 * `stream` names the use (see kp_random_stream), `step` the training step or layer, `index` the element.
 * Number `index` of a kind takes block index / (numbers of that kind in a block).
 *
 * Two kinds drawn from one place share bits, so a use draws one kind only. */
#ifndef KAPPA_CORE_RANDOM_H
#define KAPPA_CORE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The uses that the library has; never renumber, or old runs no longer resume to the same bits. */
typedef enum kp_random_stream {
  KP_RANDOM_GENERIC = 0,
  KP_RANDOM_PARAMETERS = 1,  /* initial parameters; step = number of the tensor */
  KP_RANDOM_BATCHES = 2,     /* offsets of training rows; step = training step */
  KP_RANDOM_PERMUTATION = 3, /* order of blocks; step = epoch */
  KP_RANDOM_DROPOUT = 4,
  KP_RANDOM_SAMPLING = 5, /* generated tokens; step = position */
} kp_random_stream;

/* Four words of one block. */
typedef struct kp_philox_block {
  uint32_t word[4];
} kp_philox_block;

/* The 10-round generator itself (section 5.2 of the paper).  In the header so that kernels can inline it. */
static inline kp_philox_block kp_philox(const uint32_t key[2], const uint32_t counter[4]) {
  uint32_t k0 = key[0], k1 = key[1];
  kp_philox_block x = {{counter[0], counter[1], counter[2], counter[3]}};
  for (int round = 0; round < 10; round++) {
    uint64_t product0 = (uint64_t)0xD2511F53u * x.word[0];
    uint64_t product1 = (uint64_t)0xCD9E8D57u * x.word[2];
    x = (kp_philox_block){{(uint32_t)(product1 >> 32) ^ x.word[1] ^ k0, (uint32_t)product1,
                           (uint32_t)(product0 >> 32) ^ x.word[3] ^ k1, (uint32_t)product0}};
    k0 += 0x9E3779B9u; /* golden ratio */
    k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
  }
  return x;
}

/* Block `block` of a place. */
static inline kp_philox_block kp_random_block(uint64_t seed, uint32_t stream, uint32_t step, uint64_t block) {
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), step, stream};
  return kp_philox(key, counter);
}

/* 64 random bits; two numbers a block. */
uint64_t kp_random_bits(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index);

/* Uniform in [0, 1): 53 bits, two numbers a block. */
double kp_random_uniform(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index);

/* Uniform in [0, 1): 24 bits, four numbers a block. */
float kp_random_uniform_float(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index);

/* Uniform integer in [0, bound), bound > 0.  No value is likelier than another by more than bound / 2^64. */
uint64_t kp_random_below(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index, uint64_t bound);

/* Standard normal by Box and Muller (1958), two numbers a block. */
double kp_random_normal(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index);

/* out[i] = mean + deviation * kp_random_normal(..., i) for i < count: twice as fast as one by one. */
void kp_random_fill_normal(uint64_t seed, uint32_t stream, uint32_t step, double mean, double deviation,
                           float *out, size_t count);

/* out[i] = low + (high - low) * kp_random_uniform(..., i) for i < count. */
void kp_random_fill_uniform(uint64_t seed, uint32_t stream, uint32_t step, double low, double high,
                            float *out, size_t count);

/* Where a pseudo-random permutation of [0, size) sends `index`: index < size <= 2^62.  Needs no table: a
 * Feistel network with Philox as round function over the next even power of two, walked until the value
 * falls below `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002); fewer than four
 * walks are expected. */
uint64_t kp_random_permute(uint64_t seed, uint32_t stream, uint32_t step, uint64_t index, uint64_t size);

#endif
