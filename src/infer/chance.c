/* Whether as many right answers come by chance alone. */
#include <math.h>
#include <stdlib.h>

#include "infer/multiple_choice.h"

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

kp_status kp_chance_test(const double *chances, size_t count, size_t right, double *p, kp_error *error) {
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
