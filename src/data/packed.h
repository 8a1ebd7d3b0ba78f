/* Packed rows as what a model reads: tokens, labels, document numbers and positions. */
#ifndef KAPPA_DATA_PACKED_H
#define KAPPA_DATA_PACKED_H

#include "data/packing.h"

/* Where the tokens of the pieces come from: `count` of them from `offset` on. */
typedef struct kp_token_source {
  void (*copy)(const void *from, int64_t offset, int64_t count, int32_t *out);
  const void *from;
} kp_token_source;

/* What stands where nothing does. */
typedef struct kp_packed_marks {
  int32_t pad;    /* tokens behind the last piece of a row */
  int32_t end;    /* label of a document's last token */
  int32_t ignore; /* label of what predicts nothing */
} kp_packed_marks;

/* One row of `length` slots, each array written whole, any but `tokens` may be NULL.  Documents are numbered
 * from 0 in every row; behind the last they are -1.  Positions begin at 0 in every piece, and again behind
 * the last. */
void kp_packed_fill(const kp_packed *packed, int64_t row, int64_t length, kp_packed_marks marks,
                    kp_token_source source, int32_t *tokens, int32_t *labels, int32_t *documents,
                    int32_t *positions);

#endif
