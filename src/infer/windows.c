#include "infer/windows.h"

#include <stdbool.h>
#include <stdlib.h>

#include "core/assert.h"

void kp_windows_clear(kp_windows *windows) {
  free(windows->list);
  *windows = (kp_windows){0};
}

static kp_status add(kp_windows *w, kp_window window, kp_error *error) {
  if (w->count == w->capacity) {
    const int64_t capacity = w->capacity > 0 ? 2 * w->capacity : 1024;
    kp_window *list = realloc(w->list, (size_t)capacity * sizeof *list);
    if (list == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for %lld windows", (long long)capacity);
    w->list = list;
    w->capacity = capacity;
  }
  w->list[w->count++] = window;
  w->scored += window.scored;
  return KP_OK;
}

/* Tokens first .. last of the stream, of which all but the first are targets. */
static kp_status add_part(kp_windows *w, const kp_window_options *o, int64_t first, int64_t last,
                          kp_error *error) {
  if (first == last) return KP_OK;
  w->parts++;
  for (int64_t at = first, scored = first; scored < last; at += o->stride) {
    const int64_t inputs = last - at < o->context ? last - at : o->context;
    KP_TRY(add(w, (kp_window){.first = at, .inputs = inputs, .scored = at + inputs - scored}, error));
    scored = at + inputs;
  }
  return KP_OK;
}

static kp_status add_documents(kp_windows *w, const kp_tokens *tokens, const kp_window_options *o,
                               int64_t last, kp_error *error) {
  enum { PIECE = 65536 };
  int64_t first = 0;
  bool found = false;
  int32_t *piece = malloc(PIECE * sizeof *piece);
  kp_status status = piece == NULL ? kp_fail(error, KP_ERR_MEMORY, "no memory for tokens") : KP_OK;
  for (int64_t from = 0; status == KP_OK && from <= last; from += PIECE) {
    const int64_t count = last + 1 - from < PIECE ? last + 1 - from : PIECE;
    kp_tokens_copy(tokens, from, count, piece);
    for (int64_t i = 0; status == KP_OK && i < count; i++) {
      if (piece[i] != o->separator) continue;
      found = true;
      status = add_part(w, o, first, from + i, error);
      first = from + i;
    }
  }
  free(piece);
  if (status == KP_OK && !found)
    return kp_fail(error, KP_ERR_INPUT,
                   "%s has no token %d, which stands between documents: prepare the documents with `kappa "
                   "data prepare`",
                   kp_tokens_path(tokens, 0), o->separator);
  return status == KP_OK ? add_part(w, o, first, last, error) : status;
}

kp_status kp_windows_create(const kp_tokens *tokens, const kp_window_options *o, kp_windows *windows,
                            kp_error *error) {
  const int64_t all = kp_tokens_count(tokens) - 1, last = o->tokens > 0 && o->tokens < all ? o->tokens : all;
  kp_assert(o->stride >= 1 && o->stride <= o->context && o->tokens >= 0, "windows of %lld every %lld",
            (long long)o->context, (long long)o->stride);
  *windows = (kp_windows){0};
  if (all < 1)
    return kp_fail(error, KP_ERR_INPUT, "%s has one token; scoring needs two", kp_tokens_path(tokens, 0));
  kp_status status = o->separator < 0 ? add_part(windows, o, 0, last, error)
                                      : add_documents(windows, tokens, o, last, error);
  if (status != KP_OK) kp_windows_clear(windows);
  return status;
}

void kp_windows_cut(kp_windows *windows, int64_t count) {
  while (windows->count > count) windows->scored -= windows->list[--windows->count].scored;
}
