/* Windows over a token stream, in which every token is scored once.
 *
 * A window of `context` tokens begins every `stride` tokens and scores what the windows before it have not:
 * the first all of its targets, the others the last `stride`, so that each has at least context - stride
 * tokens of past (as in the perplexity of models of fixed length, Hugging Face).  stride = context cuts the
 * stream into windows of their own, as the validation of training does (data/batches.h).
 *
 * Document by document, a window stays between two separators: a document begins with the separator that
 * stands in front of it and ends with the one behind it.  Either way all tokens but the stream's first are
 * scored. */
#ifndef KAPPA_INFER_WINDOWS_H
#define KAPPA_INFER_WINDOWS_H

#include "data/token_file.h"

typedef struct kp_window {
  int64_t first;  /* place of its first input in the stream */
  int64_t inputs; /* 1 .. context; the targets are the tokens one further */
  int64_t scored; /* the last ones of the targets */
} kp_window;

typedef struct kp_window_options {
  int64_t context, stride; /* 1 <= stride <= context */
  int32_t separator;       /* of documents; -1: one stream */
  int64_t tokens;          /* score at most so many, from the front; 0: all */
} kp_window_options;

/* kp_windows_clear frees it. */
typedef struct kp_windows {
  kp_window *list;
  int64_t count, capacity;
  int64_t scored; /* tokens, in all windows */
  int64_t parts;  /* documents, or 1 */
} kp_windows;

/* The stream must have two tokens or more.  Document by document it must have a separator. */
kp_status kp_windows_create(const kp_tokens *tokens, const kp_window_options *options, kp_windows *windows,
                            kp_error *error);
void kp_windows_clear(kp_windows *windows);

/* Keeps the first `count` windows. */
void kp_windows_cut(kp_windows *windows, int64_t count);

#endif
