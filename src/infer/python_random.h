/* The random numbers of Python's `random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998) and
 * what random.Random(seed).sample draws with it, so that few-shot examples can be those of other programs. */
#ifndef KAPPA_INFER_PYTHON_RANDOM_H
#define KAPPA_INFER_PYTHON_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct kp_python_random {
  uint32_t state[624];
  int next;
} kp_python_random;

void kp_python_random_init(kp_python_random *random, uint64_t seed);

uint32_t kp_python_random_bits(kp_python_random *random);

/* `count` different numbers below `population`, in the order of random.sample(range(population), count).
 * count <= population < 2^32. */
kp_status kp_python_random_sample(kp_python_random *random, size_t population, size_t count, size_t *chosen,
                                  kp_error *error);

#endif
