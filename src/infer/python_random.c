#include "infer/python_random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/assert.h"

enum { WORDS = 624, MIDDLE = 397 };

static void start(kp_python_random *r, uint32_t seed) {
  r->state[0] = seed;
  for (uint32_t i = 1; i < WORDS; i++)
    r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + i;
}

/* init_by_array of the reference implementation; the key is the seed in 32-bit words, the lowest first. */
void kp_python_random_init(kp_python_random *r, uint64_t seed) {
  const uint32_t key[] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  const uint32_t keys = key[1] != 0 ? 2 : 1;
  uint32_t i = 1, j = 0;
  start(r, 19650218u);
  for (int k = 0; k < WORDS; k++) {
    r->state[i] = (r->state[i] ^ ((r->state[i - 1] ^ (r->state[i - 1] >> 30)) * 1664525u)) + key[j] + j;
    if (++i == WORDS) r->state[0] = r->state[WORDS - 1], i = 1;
    if (++j == keys) j = 0;
  }
  for (int k = 0; k < WORDS - 1; k++) {
    r->state[i] = (r->state[i] ^ ((r->state[i - 1] ^ (r->state[i - 1] >> 30)) * 1566083941u)) - i;
    if (++i == WORDS) r->state[0] = r->state[WORDS - 1], i = 1;
  }
  r->state[0] = 0x80000000u;
  r->next = WORDS;
}

static void renew(kp_python_random *r) {
  for (int i = 0; i < WORDS; i++) {
    const uint32_t y = (r->state[i] & 0x80000000u) | (r->state[(i + 1) % WORDS] & 0x7fffffffu);
    r->state[i] = r->state[(i + MIDDLE) % WORDS] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908b0dfu : 0);
  }
  r->next = 0;
}

uint32_t kp_python_random_bits(kp_python_random *r) {
  if (r->next == WORDS) renew(r);
  uint32_t y = r->state[r->next++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

/* A number below `bound`: as many bits as the bound has, again until they are below it. */
static size_t below(kp_python_random *r, size_t bound) {
  int bits = 0;
  for (size_t b = bound; b > 0; b >>= 1) bits++;
  size_t number;
  do number = kp_python_random_bits(r) >> (32 - bits);
  while (number >= bound);
  return number;
}

/* Drawn numbers are taken out of the list of all. */
static kp_status sample_list(kp_python_random *r, size_t population, size_t count, size_t *chosen,
                             kp_error *error) {
  size_t *pool = malloc((population + 1) * sizeof *pool);
  if (pool == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory to draw of %zu", population);
  for (size_t i = 0; i < population; i++) pool[i] = i;
  for (size_t i = 0; i < count; i++) {
    const size_t j = below(r, population - i);
    chosen[i] = pool[j];
    pool[j] = pool[population - i - 1];
  }
  free(pool);
  return KP_OK;
}

static bool is_among(const size_t *chosen, size_t count, size_t number) {
  for (size_t i = 0; i < count; i++)
    if (chosen[i] == number) return true;
  return false;
}

/* Python takes the list where a set of the drawn ones would be larger. */
static double set_size(size_t count) {
  return 21 + (count > 5 ? pow(4, ceil(log((double)count * 3) / log(4))) : 0);
}

kp_status kp_python_random_sample(kp_python_random *r, size_t population, size_t count, size_t *chosen,
                                  kp_error *error) {
  kp_assert(count <= population && population <= UINT32_MAX, "%zu of %zu", count, population);
  if ((double)population <= set_size(count)) return sample_list(r, population, count, chosen, error);
  for (size_t i = 0; i < count; i++) {
    do chosen[i] = below(r, population);
    while (is_among(chosen, i, chosen[i]));
  }
  return KP_OK;
}
