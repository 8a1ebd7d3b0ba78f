/* What the parts of a study's report share. */
#ifndef KAPPA_STUDY_STUDY_PRIVATE_H
#define KAPPA_STUDY_STUDY_PRIVATE_H

#include <stdio.h>

#include "study/study_claims.h"
#include "study/study_plan.h"

/* One text of a study with what came of it. */
typedef struct kp_text_result {
  const kp_study_text *text;
  kp_comparison *comparison;
  kp_finding *findings;
  int finding_count;
} kp_text_result;

/* Writes the report as Markdown (study/study_report.c). */
void kp_study_write_report(const kp_study_plan *plan, const kp_text_result *results, FILE *out);

/* The tables of one text (study/study_tables.c). */
void kp_study_write_tables(const kp_text_result *result, FILE *out);

#endif
