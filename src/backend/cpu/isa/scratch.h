/* Scratch memory of kernels: cut into pieces of whole cache lines, and sums that each thread keeps in its
 * own. */
#ifndef KAPPA_BACKEND_CPU_SCRATCH_H
#define KAPPA_BACKEND_CPU_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* Counted with base NULL, then cut. */
typedef struct kp_scratch {
  char *base;
  size_t used;
} kp_scratch;

static inline void *kp_scratch_take(kp_scratch *scratch, size_t count, size_t size) {
  void *piece = scratch->base == NULL ? NULL : scratch->base + scratch->used;
  scratch->used += (count * size + 63) / 64 * 64;
  return piece;
}

/* One cache line more than asked for lets every piece start on one. */
static inline kp_scratch kp_scratch_at(void *memory) {
  const uintptr_t address = (uintptr_t)memory;
  return (kp_scratch){(char *)((address + 63) / 64 * 64), 0};
}

/* Adds `parts` arrays of `count` sums, `step` bytes apart, to `gradient` (or nowhere where that is NULL),
 * each element over the parts in order. */
static inline void kp_add_parts(const double *sums, size_t step, int parts, int64_t count, float *gradient) {
  if (gradient == NULL) return;
  for (int64_t i = 0; i < count; i++) {
    double sum = 0;
    for (int part = 0; part < parts; part++)
      sum += *(const double *)((const char *)(sums + i) + (size_t)part * step);
    gradient[i] += (float)sum;
  }
}

#endif
