/* How the kernels share work among threads.
 *
 * Every thread gets one contiguous part, chosen by its number alone, so that
 * results never depend on timing.  Work that is too small for the price of a
 * parallel region stays on the calling thread. */
#ifndef KAPPA_BACKEND_CPU_SPLIT_H
#define KAPPA_BACKEND_CPU_SPLIT_H

#include <stdint.h>

#include "core/backend.h"

typedef struct kp_range {
  int64_t first, last; /* [first, last) */
} kp_range;

/* Part `part` of `parts` of [0, count), cut at multiples of `unit`. */
static inline kp_range kp_split(int64_t count, int64_t unit, int part, int parts) {
  const int64_t units = (count + unit - 1) / unit;
  kp_range range = {units * part / parts * unit, units * (part + 1) / parts * unit};
  if (range.first > count) range.first = count;
  if (range.last > count) range.last = count;
  return range;
}

/* Threads for `work` element operations: a parallel region costs about a microsecond, which is what one
 * thread needs for some 10,000 of them. */
static inline int kp_threads_for(const kp_call *call, int64_t work) {
  return work < 16384 ? 1 : call->run->threads;
}

#endif
