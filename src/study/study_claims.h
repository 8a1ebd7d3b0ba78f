/* What is claimed of curved models, held against the numbers of a comparison.
 *
 * Claims and rules are fixed before any number is seen: a claim says which
 * measure is lower or higher than the twin's.  It holds when the 95 % interval
 * of the difference (Welch) lies on that side of 0, is contradicted when it
 * lies on the other, and cannot be decided when the interval holds 0.  With
 * less than two seeds a side nothing is known. */
#ifndef KAPPA_STUDY_STUDY_CLAIMS_H
#define KAPPA_STUDY_STUDY_CLAIMS_H

#include <jansson.h>

#include "study/compare.h"

typedef enum kp_outcome {
  KP_OUTCOME_HOLDS,
  KP_OUTCOME_OPPOSITE, /* the numbers say the opposite */
  KP_OUTCOME_UNDECIDED,
  KP_OUTCOME_UNKNOWN,
  KP_OUTCOMES,
} kp_outcome;

typedef struct kp_claim {
  const char *words;    /* "reaches a lower final loss than its flat twin" */
  const char *opposite; /* "reaches a higher final loss than its flat twin" */
  kp_measure measure;
  bool lower; /* than the twin's */
  kp_twin_kind twin;
} kp_claim;

int kp_claim_count(void);
const kp_claim *kp_claim_at(int index);

/* A claim about one row of a comparison. */
typedef struct kp_finding {
  const kp_claim *claim;
  const char *model, *twin; /* names of the rows; twin NULL when there is none */
  kp_outcome outcome;
  kp_difference difference;
} kp_finding;

/* All claims about all rows that they concern; `*count` of them, in the comparison's arena. */
kp_finding *kp_findings_of(const kp_comparison *comparison, int *count);

/* "holds", "opposite", "undecided", "unknown". */
const char *kp_outcome_name(kp_outcome outcome);
json_t *kp_finding_json(const kp_finding *finding);

#endif
