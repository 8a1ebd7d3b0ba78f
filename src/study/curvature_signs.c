#include "study/curvature_signs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "study/exact_tests.h"

static const double significant = 0.05;

kp_curvature_kind kp_curvature_kind_of(double kappa) {
  if (kappa < -KP_FLAT_CURVATURE) return KP_KIND_HYPERBOLIC;
  return kappa > KP_FLAT_CURVATURE ? KP_KIND_SPHERICAL : KP_KIND_EUCLIDEAN;
}

void kp_curvature_shares(const double *kappa, int64_t count, double shares[3]) {
  int64_t kinds[3] = {0}, known = 0;
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(kappa[i])) continue;
    kinds[kp_curvature_kind_of(kappa[i])]++;
    known++;
  }
  for (int kind = 0; kind < 3; kind++)
    shares[kind] = known > 0 ? (double)kinds[kind] / (double)known : (double)NAN;
}

static int sign_of(double kappa) {
  return kappa < 0 ? 0 : kappa > 0 ? 2 : 1;
}

void kp_curvature_table_add(kp_curvature_table *table, const double *start, const double *end,
                            int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(start[i]) || !isfinite(end[i])) continue;
    table->heads++;
    table->kinds[kp_curvature_kind_of(start[i])][kp_curvature_kind_of(end[i])]++;
    table->signs[sign_of(start[i])][sign_of(end[i])]++;
  }
}

/* Fisher's test of the signs, heads that are exactly flat left out. */
static double memory(const kp_curvature_table *t) {
  const int table[2][2] = {{t->signs[0][0], t->signs[0][2]}, {t->signs[2][0], t->signs[2][2]}};
  for (int i = 0; i < 2; i++)
    if (table[i][0] + table[i][1] == 0 || table[0][i] + table[1][i] == 0) return (double)NAN;
  return kp_fisher_test(table);
}

kp_curvature_tests kp_curvature_test(const kp_curvature_table *t) {
  kp_curvature_tests r = {.to_positive = t->signs[0][2], .to_negative = t->signs[2][0]};
  int left = 0, entered = 0;
  for (int i = 0; i < 3; i++) {
    r.began_negative += t->signs[0][i];
    r.ended_negative += t->signs[i][0];
    r.began_flat += t->kinds[KP_KIND_EUCLIDEAN][i];
    r.ended_flat += t->kinds[i][KP_KIND_EUCLIDEAN];
    if (i == KP_KIND_EUCLIDEAN) continue;
    left += t->kinds[KP_KIND_EUCLIDEAN][i];
    entered += t->kinds[i][KP_KIND_EUCLIDEAN];
  }
  r.p_signs = kp_binomial_test(r.to_positive, r.to_positive + r.to_negative, 0.5);
  r.p_flat = kp_binomial_test(left, left + entered, 0.5);
  r.p_memory = memory(t);
  return r;
}

void kp_curvature_sentence(const kp_curvature_table *table, char *text, size_t size) {
  const kp_curvature_tests r = kp_curvature_test(table);
  const int changed = r.to_positive + r.to_negative;
  char last[256] = "";
  if (table->heads == 0) {
    snprintf(text, size, "No curvature is known at both ends of training.");
    return;
  }
  if (isnan(r.p_memory))
    snprintf(last, sizeof last,
             "All heads %s on one side of 0, so whether they keep the sign they start with cannot be asked.",
             r.began_negative == 0 || r.began_negative == table->heads ? "start" : "end");
  else
    snprintf(last, sizeof last, "The sign at the end %s that at the start (Fisher's exact test, p = %.2g).",
             r.p_memory < significant ? "follows" : "cannot be shown to follow", r.p_memory);
  snprintf(text, size,
           "Of %d curvatures %d start negative and %d end so; %d changed sign (%d to positive, %d to "
           "negative): the shares of signs %s those of the start (McNemar's exact test, p = %.2g). "
           "|κ| <= %g holds for %d at the start and for %d at the end: a share that %s (p = %.2g). %s",
           table->heads, r.began_negative, r.ended_negative, changed, r.to_positive, r.to_negative,
           r.p_signs < significant ? "differ from" : "cannot be told from", r.p_signs, KP_FLAT_CURVATURE,
           r.began_flat, r.ended_flat, r.p_flat < significant ? "changed" : "cannot be told from the start's",
           r.p_flat, last);
}
