/* What the parts of study/compare share. */
#ifndef KAPPA_STUDY_COMPARE_PRIVATE_H
#define KAPPA_STUDY_COMPARE_PRIVATE_H

#include "study/compare.h"

/* Finds the flat twins of the rows and everything that makes the comparison unfair (study/fairness.c). */
kp_status kp_comparison_judge(kp_comparison *comparison, kp_error *error);

#endif
