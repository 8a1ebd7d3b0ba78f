/* Packs documents of different lengths into rows of one length.
 *
 * Documents are spans of one flat sequence of tokens, which packing never reads: rows are lists of pieces of
 * it, and kp_packed_fill (data/packed.h) makes tokens, labels and document numbers of them.  Rows that are
 * not full enough stay in the packer and take documents of later calls.
 *
 *   exact   best fit of the longest documents first: each goes where it leaves the least room.  Nothing is
 *           dropped: a document longer than a row is cut into pieces, of which each but the last is a whole
 *           row and predicts the first token of the next; every document ends by predicting the end token.
 *   single  the same, but every piece has a row of its own.
 *   helm    what the official code of HELM (arXiv 2505.24722) does with the packing of its data loader: first
 *           fit of the longest first in the order of the bins' last use; a document longer than a row loses
 *           what is behind its last whole row; a sample behind another in a row loses its first label; the
 *           longest samples of a call predict nothing at their end. */
#ifndef KAPPA_DATA_PACKING_H
#define KAPPA_DATA_PACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

typedef enum kp_packing_rule { KP_PACKING_EXACT, KP_PACKING_SINGLE, KP_PACKING_HELM } kp_packing_rule;

/* A document: `count` > 0 tokens of the sequence from `offset` on.  `closed`: its last token is an end token,
 * which is predicted but predicts nothing (exact and single). */
typedef struct kp_span {
  int64_t offset, count;
  bool closed;
} kp_span;

/* What the last token of a piece predicts. */
typedef enum kp_last_label {
  KP_LAST_NEXT /* the next of the sequence */,
  KP_LAST_END,
  KP_LAST_NONE
} kp_last_label;

/* A part of a document in a row. */
typedef struct kp_piece {
  int64_t offset;
  int32_t size;
  kp_last_label last;
  bool first_ignored; /* its first token predicts nothing */
} kp_piece;

/* Rows: row r has the pieces first[r] … first[r + 1] - 1. */
typedef struct kp_packed {
  kp_piece *pieces;
  int64_t *first; /* (count + 1) */
  int64_t count, piece_count, tokens;
  int64_t row_capacity, piece_capacity;
} kp_packed;

/* An empty list is all zero. */
void kp_packed_clear(kp_packed *packed);

typedef struct kp_packer kp_packer;

/* Rows of `length` tokens; `rows` is how many a call of kp_packer_take asks for (helm opens so many). */
kp_status kp_packer_create(kp_packing_rule rule, int64_t rows, int64_t length, kp_packer **packer,
                           kp_error *error);
void kp_packer_destroy(kp_packer *packer);

/* Places documents. */
kp_status kp_packer_add(kp_packer *packer, const kp_span *documents, int64_t count, kp_error *error);

/* Appends the fullest rows to `packed`, at most `maximum`, and forgets them. */
kp_status kp_packer_take(kp_packer *packer, int64_t maximum, kp_packed *packed, kp_error *error);

/* Rows that wait; the sizes of the first `room` of them in the packer's order. */
int64_t kp_packer_waiting(const kp_packer *packer, int64_t *sizes, int64_t room);

#endif
