/* Step 1 of the backward seam (residual_norm_backward.c): from g y through the norm and the tangent program
 * to the gradients of x' and of the reference of each row of a tile, and of weight and bias.
 *
 * With gw = weight · g y, n = (z - mean) / deviation and means over the C channels, LayerNorm's backward is
 *     g z = (gw - mean(gw) - n mean(gw n)) / deviation
 * (RMSNorm: without mean(gw)).  z and n are combinations of r, d = x' - r and 1, so the inner products of g z
 * with r and d follow from those of gw, and one pass over the row before the scalar programs is enough. */
#ifndef KAPPA_BACKEND_CPU_SEAM_TANGENT_H
#define KAPPA_BACKEND_CPU_SEAM_TANGENT_H

#include "backend/cpu/isa/seam.h"

/* Sums over one group's channels, by lane. */
typedef struct kp_seam_sums {
  double gw_r[KP_LANES], gw_d[KP_LANES], gw[KP_LANES], r[KP_LANES], d[KP_LANES];
} kp_seam_sums;

typedef struct kp_seam_tangent {
  const kp_seam_call *seam;
  const float *stream, *gy, *statistics; /* x', g y (or NULL), mean and 1/deviation by row */
  const float *weight, *origin;          /* (C): ones where absent, zeros */
  kp_lanes *lanes;                       /* one block a group */
  kp_seam_sums *sums;                    /* the same */
  double mean_g[KP_LANES], mean_gn[KP_LANES];
  double *gweight, *gbias;          /* (C): of this thread's rows */
  float *tile_gweight, *tile_gbias; /* (C): of the rows since the last flush */
  float *discarded;                 /* (C): takes what another thread adds */
} kp_seam_tangent;

void KP_ISA_NAME(kp_seam_tangent_lay_out)(const kp_seam_call *seam, kp_scratch *scratch, kp_seam_tangent *t);
void KP_ISA_NAME(kp_seam_tangent_clear)(kp_seam_tangent *t);
/* Everything about rows [first, first + count) that is one number a row and group; gradients of κ go to
 * `bars` (N, G), or nowhere if that is NULL. */
void KP_ISA_NAME(kp_seam_tangent_programs)(kp_seam_tangent *t, int64_t first, int count, double *bars);
/* Then row n of them: its gradients of its own x' and of its reference, (C) each. */
void KP_ISA_NAME(kp_seam_tangent_row)(kp_seam_tangent *t, int64_t n, int lane, float *to_stream,
                                      float *to_reference);
/* Both for row n alone, which is another thread's: adds to nothing. */
void KP_ISA_NAME(kp_seam_tangent_row_again)(kp_seam_tangent *t, int64_t n, float *to_stream,
                                            float *to_reference);
/* Row n of a seam without a tangent program: gx = direct + g z.  gx may be direct. */
void KP_ISA_NAME(kp_seam_plain_row)(kp_seam_tangent *t, int64_t n, const float *direct, float *gx);
/* Adds the tile's gradients of weight and bias to the thread's, in double. */
void KP_ISA_NAME(kp_seam_tangent_flush)(kp_seam_tangent *t);

#define kp_seam_tangent_lay_out   KP_ISA_NAME(kp_seam_tangent_lay_out)
#define kp_seam_tangent_clear     KP_ISA_NAME(kp_seam_tangent_clear)
#define kp_seam_tangent_programs  KP_ISA_NAME(kp_seam_tangent_programs)
#define kp_seam_tangent_row       KP_ISA_NAME(kp_seam_tangent_row)
#define kp_seam_tangent_row_again KP_ISA_NAME(kp_seam_tangent_row_again)
#define kp_seam_plain_row         KP_ISA_NAME(kp_seam_plain_row)
#define kp_seam_tangent_flush     KP_ISA_NAME(kp_seam_tangent_flush)

#endif
