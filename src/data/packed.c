#include "data/packed.h"

#include "core/assert.h"

/* The labels of a piece: its tokens one further, and at its ends what the packing rule says. */
static void fill_labels(kp_piece piece, kp_packed_marks marks, kp_token_source source, int32_t *labels) {
  const bool next = piece.last == KP_LAST_NEXT;
  source.copy(source.from, piece.offset + 1, next ? piece.size : piece.size - 1, labels);
  if (!next) labels[piece.size - 1] = piece.last == KP_LAST_END ? marks.end : marks.ignore;
  if (piece.first_ignored) labels[0] = marks.ignore;
}

/* A run of one document number, with positions from 0. */
static void fill_run(int64_t first, int64_t last, int32_t document, int32_t *documents, int32_t *positions) {
  for (int64_t t = first; t < last; t++) {
    if (documents != NULL) documents[t] = document;
    if (positions != NULL) positions[t] = (int32_t)(t - first);
  }
}

void kp_packed_fill(const kp_packed *packed, int64_t row, int64_t length, kp_packed_marks marks,
                    kp_token_source source, int32_t *tokens, int32_t *labels, int32_t *documents,
                    int32_t *positions) {
  kp_assert(row >= 0 && row < packed->count, "row %lld of %lld", (long long)row, (long long)packed->count);
  int64_t at = 0;
  for (int64_t i = packed->first[row]; i < packed->first[row + 1]; i++) {
    const kp_piece piece = packed->pieces[i];
    source.copy(source.from, piece.offset, piece.size, tokens + at);
    if (labels != NULL) fill_labels(piece, marks, source, labels + at);
    fill_run(at, at + piece.size, (int32_t)(i - packed->first[row]), documents, positions);
    at += piece.size;
  }
  fill_run(at, length, -1, documents, positions);
  for (int64_t t = at; t < length; t++) {
    tokens[t] = marks.pad;
    if (labels != NULL) labels[t] = marks.ignore;
  }
}
