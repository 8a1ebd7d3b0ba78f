/* Which geometry the heads chose, and whether they chose it or were born with it.
 *
 * Learned curvatures whose starts are symmetric about 0 and which drift away
 * from 0 end half hyperbolic and half spherical without any meaning.  So ends
 * are always held against starts: each head is one pair (κ at step 0, κ now). */
#ifndef KAPPA_STUDY_CURVATURE_SIGNS_H
#define KAPPA_STUDY_CURVATURE_SIGNS_H

#include <stddef.h>
#include <stdint.h>

/* Of curvatures: hyperbolic below -KP_FLAT_CURVATURE, spherical above it. */
#define KP_FLAT_CURVATURE 0.1

typedef enum kp_curvature_kind { KP_KIND_HYPERBOLIC, KP_KIND_EUCLIDEAN, KP_KIND_SPHERICAL } kp_curvature_kind;

kp_curvature_kind kp_curvature_kind_of(double kappa);

/* Shares of the kinds, in their order; NaN of no head.  Curvatures that are not finite are left out. */
void kp_curvature_shares(const double *kappa, int64_t count, double shares[3]);

/* Heads, counted; start by end. */
typedef struct kp_curvature_table {
  int heads;
  int kinds[3][3]; /* kp_curvature_kind */
  int signs[3][3]; /* κ < 0, = 0, > 0 */
} kp_curvature_table;

/* Adds the heads, so that layers and seeds can be taken together. */
void kp_curvature_table_add(kp_curvature_table *table, const double *start, const double *end, int64_t count);

typedef struct kp_curvature_tests {
  int began_negative, ended_negative, began_flat, ended_flat;
  int to_positive, to_negative; /* heads whose sign changed, by direction */
  /* Whether the shares of signs differ from those at the start: of the heads that changed sign, as many went
   * either way as a fair coin would send (McNemar's exact test); 1 when none changed. */
  double p_signs;
  /* The same for |κ| <= 0.1: whether heads left (or entered) the flat range. */
  double p_flat;
  /* Whether the sign at the end is independent of that at the start (Fisher's exact test); NaN when all
   * starts, or all ends, have one sign: then it cannot be asked. */
  double p_memory;
} kp_curvature_tests;

kp_curvature_tests kp_curvature_test(const kp_curvature_table *table);

/* One paragraph that says what the tests say; a p below 0.05 counts as a difference. */
void kp_curvature_sentence(const kp_curvature_table *table, char *text, size_t size);

#endif
