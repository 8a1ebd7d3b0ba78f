/* How evenly tokens are spread over experts, and whether an expert's curvature goes with its load. */
#ifndef KAPPA_STUDY_EXPERT_LOAD_H
#define KAPPA_STUDY_EXPERT_LOAD_H

#include "study/statistics.h"

typedef struct kp_expert_load {
  int experts, unused; /* unused: that no token chose */
  double entropy;      /* -Σ p ln p of the shares p of the load, over ln(experts): 1 is even, 0 one expert */
  double largest;      /* share of the busiest expert over the even share 1 / experts */
  double smallest;     /* of the idlest */
  double variation;    /* standard deviation of the shares over their mean */
} kp_expert_load;

/* counts[e]: choices of expert e.  Without any choice the measures are NaN. */
kp_expert_load kp_expert_load_of(int experts, const double *counts);

/* Mean over tokens of the entropy of a token's own scores (tokens, experts), each row scaled to sum 1, over
 * ln(experts): 1 when the router does not care, 0 when it is sure. */
double kp_routing_entropy(int experts, int64_t tokens, const double *scores);

#endif
