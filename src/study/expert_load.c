#include "study/expert_load.h"

#include <math.h>

#include "study/spectrum.h"

/* Entropy over that of an even spread; one expert alone is even. */
static double evenness(const double *values, int count) {
  const double entropy = kp_spectral_entropy(values, count);
  return count > 1 ? entropy / log(count) : entropy + 1;
}

kp_expert_load kp_expert_load_of(int experts, const double *counts) {
  kp_expert_load r = {.experts = experts, .smallest = HUGE_VAL};
  double sum = 0, squares = 0;
  for (int e = 0; e < experts; e++) sum += counts[e];
  for (int e = 0; e < experts; e++) {
    const double over_even = counts[e] / sum * experts;
    r.unused += counts[e] == 0;
    r.largest = fmax(r.largest, over_even);
    r.smallest = fmin(r.smallest, over_even);
    squares += (over_even - 1) * (over_even - 1);
  }
  r.entropy = evenness(counts, experts);
  r.variation = sqrt(squares / experts);
  if (!(sum > 0)) r.largest = r.smallest = r.variation = (double)NAN;
  return r;
}

double kp_routing_entropy(int experts, int64_t tokens, const double *scores) {
  double sum = 0;
  for (int64_t t = 0; t < tokens; t++) sum += evenness(scores + t * experts, experts);
  return tokens > 0 ? sum / (double)tokens : (double)NAN;
}
