/* Whether as many right answers come by chance alone. */
#include <math.h>
#include <stdlib.h>

#include "infer/multiple_choice.h"

enum { MOST_EXACT = 20000 };

/* The probabilities of 0 .. count successes, built up trial by trial (Poisson binomial). */
static void fill(const double *chances, size_t count, double *probabilities) {
  probabilities[0] = 1;
  for (size_t n = 0; n < count; n++) {
    const double p = chances[n];
    probabilities[n + 1] = probabilities[n] * p;
    for (size_t k = n; k > 0; k--) probabilities[k] = probabilities[k] * (1 - p) + probabilities[k - 1] * p;
    probabilities[0] *= 1 - p;
  }
}

/* With the correction for numbers being whole. */
static double normal_test(const double *chances, size_t count, size_t right) {
  double mean = 0, variance = 0;
  for (size_t i = 0; i < count; i++) {
    mean += chances[i];
    variance += chances[i] * (1 - chances[i]);
  }
  const double off = fmax(fabs((double)right - mean) - 0.5, 0);
  return variance > 0 ? erfc(off / sqrt(2 * variance)) : off > 0 ? 0 : 1;
}

kp_status kp_chance_test(const double *chances, size_t count, size_t right, double *p, kp_error *error) {
  if (count > MOST_EXACT) {
    *p = normal_test(chances, count, right);
    return KP_OK;
  }
  double *probabilities = malloc((count + 1) * sizeof *probabilities);
  if (probabilities == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu questions", count);
  fill(chances, count, probabilities);
  /* Equally likely numbers on the other side differ by rounding. */
  const double bound = probabilities[right] * (1 + 1e-9);
  *p = 0;
  for (size_t k = 0; k <= count; k++)
    if (probabilities[k] <= bound) *p += probabilities[k];
  *p = fmin(*p, 1);
  free(probabilities);
  return KP_OK;
}
