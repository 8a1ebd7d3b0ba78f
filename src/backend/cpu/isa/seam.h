/* What the forward and the backward kernel of RESIDUAL_NORM share: where the rows stand, tiles of rows, and
 * the loops over one group of channels.
 *
 * A tile is KP_LANES successive rows, one per lane of the row programs.  Inner products are summed in double
 * over the float values: products of two floats are exact there, and so is the difference x' - r.  The
 * combinations are formed in double as well: near the boundary of the ball they cancel by many digits. */
#ifndef KAPPA_BACKEND_CPU_SEAM_H
#define KAPPA_BACKEND_CPU_SEAM_H

#include <stddef.h>

#include "backend/cpu/isa/curvature_table.h"
#include "backend/cpu/isa/lanes.h"
#include "backend/cpu/isa/row_vectors.h"
#include "backend/cpu/isa/scratch.h"

enum { KP_TILE = KP_LANES };

typedef struct kp_seam_call {
  const kp_residual_norm_arguments *arguments;
  int64_t rows, C, T;
  const float *x, *u, *r, *weight, *bias, *carry, *own_carry;
  kp_curvature_rows update, tangent;
  bool update_reads_reference;
} kp_seam_call;

static inline kp_seam_call kp_seam_of(const kp_call *call) {
  const kp_node *node = call->node;
  kp_seam_call s = {.arguments = node->arguments,
                    .rows = kp_tensor_rows(node->input[0]),
                    .C = kp_tensor_columns(node->input[0]),
                    .x = call->input[0],
                    .u = call->input[1],
                    .r = call->input[2],
                    .weight = call->input[5],
                    .bias = call->input[6],
                    .carry = call->input[7],
                    .own_carry = call->input[8]};
  s.T = s.arguments->length;
  s.update = kp_curvature_rows_of(call->input[3], node->input[3], s.rows);
  s.tangent = kp_curvature_rows_of(call->input[4], node->input[4], s.rows);
  s.update_reads_reference = s.arguments->update >= 0 && kp_row_programs[s.arguments->update].inputs == 3;
  return s;
}

static inline bool kp_seam_update_is_curved(const kp_seam_call *s) {
  return s->arguments->update >= 0 && s->arguments->update != KP_PROGRAM_FLAT_ADD;
}
static inline bool kp_seam_tangent_is_curved(const kp_seam_call *s) {
  return s->arguments->tangent >= 0 && s->arguments->tangent != KP_PROGRAM_FLAT_DIFFERENCE;
}

/* Row n of the given reference; `origin` is a row of zeros. */
static inline const float *kp_seam_given(const kp_seam_call *s, int64_t n, const float *origin) {
  if (s->r == NULL) return origin;
  if (!s->arguments->shift) return s->r + n * s->C;
  if (n % s->T > 0) return s->r + (n - 1) * s->C;
  return s->carry == NULL ? origin : s->carry + n / s->T * s->C;
}

/* The row of `stream` that is row n's own reference. */
static inline const float *kp_seam_own(const kp_seam_call *s, const float *stream, int64_t n,
                                       const float *origin) {
  if (n % s->T > 0) return stream + (n - 1) * s->C;
  return s->own_carry == NULL ? origin : s->own_carry + n / s->T * s->C;
}

/* Sums over a row come as a step of `count` <= KP_DOUBLES channels and the loop over it, so that all steps
 * but the last are free of branches. */
typedef struct kp_pair_sums {
  kp_doubles aa, ab, bb;
} kp_pair_sums;

static inline void kp_gram_pair_step(const float *a, const float *b, int64_t count, kp_pair_sums *sums) {
  kp_doubles p, q;
  kp_widen(a, count, &p), kp_widen(b, count, &q);
  sums->aa += p * p, sums->ab += p * q, sums->bb += q * q;
}

static inline void kp_gram_difference_step(const float *r, const float *h, int64_t count,
                                           kp_pair_sums *sums) {
  kp_doubles p, q;
  kp_widen(r, count, &p), kp_widen(h, count, &q);
  q -= p;
  sums->aa += p * p, sums->ab += p * q, sums->bb += q * q;
}

static inline void kp_gram_store(const kp_pair_sums *sums, kp_lanes *lanes, int lane) {
  lanes->gram[0][lane] = kp_total(&sums->aa);
  lanes->gram[1][lane] = kp_total(&sums->ab);
  lanes->gram[2][lane] = kp_total(&sums->bb);
}

/* Gram entries over D channels of (a, b). */
static inline void kp_gram_pair(const float *a, const float *b, int64_t D, kp_lanes *lanes, int lane) {
  kp_pair_sums sums = {{0}, {0}, {0}};
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES) kp_gram_pair_step(a + d, b + d, KP_DOUBLES, &sums);
  if (whole < D) kp_gram_pair_step(a + whole, b + whole, D - whole, &sums);
  kp_gram_store(&sums, lanes, lane);
}

/* Of (r, h - r). */
static inline void kp_gram_difference(const float *r, const float *h, int64_t D, kp_lanes *lanes, int lane) {
  kp_pair_sums sums = {{0}, {0}, {0}};
  const int64_t whole = D / KP_DOUBLES * KP_DOUBLES;
  for (int64_t d = 0; d < whole; d += KP_DOUBLES) kp_gram_difference_step(r + d, h + d, KP_DOUBLES, &sums);
  if (whole < D) kp_gram_difference_step(r + whole, h + whole, D - whole, &sums);
  kp_gram_store(&sums, lanes, lane);
}

/* Of (a, b, c). */
static inline void kp_gram_triple(const float *a, const float *b, const float *c, int64_t D, kp_lanes *lanes,
                                  int lane) {
  kp_doubles aa = {0}, ab = {0}, ac = {0}, bb = {0}, bc = {0}, cc = {0};
  for (int64_t d = 0; d < D; d += KP_DOUBLES) {
    kp_doubles p, q, r;
    kp_widen(a + d, D - d, &p), kp_widen(b + d, D - d, &q), kp_widen(c + d, D - d, &r);
    aa += p * p, ab += p * q, ac += p * r, bb += q * q, bc += q * r, cc += r * r;
  }
  lanes->gram[0][lane] = kp_total(&aa), lanes->gram[1][lane] = kp_total(&ab),
  lanes->gram[2][lane] = kp_total(&ac);
  lanes->gram[3][lane] = kp_total(&bb), lanes->gram[4][lane] = kp_total(&bc),
  lanes->gram[5][lane] = kp_total(&cc);
}

/* Lanes that no row of the tile fills are computed too. */
static inline void kp_lanes_clear(kp_lanes *lanes, int64_t groups) {
  for (int64_t g = 0; g < groups; g++) lanes[g] = (kp_lanes){0};
}

#endif
