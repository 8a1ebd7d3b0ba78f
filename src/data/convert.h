/* Token files from one layout to another (data/token_layout.h):
 *
 *   nanogpt   uint16 tokens and nothing else: train.bin of nanoGPT
 *   llmc      a shard of llm.c and modded-nanogpt
 *   kappa     a shard that also says vocabulary, tokenizer and bytes of text
 *
 * The layout of the input is known by its header; a header is never taken for tokens. */
#ifndef KAPPA_DATA_CONVERT_H
#define KAPPA_DATA_CONVERT_H

#include <stdint.h>

#include "core/error.h"
#include "core/path.h"
#include "data/tokenizer.h"

typedef enum kp_convert_to { KP_CONVERT_NANOGPT, KP_CONVERT_LLMC, KP_CONVERT_KAPPA } kp_convert_to;

typedef struct kp_convert_options {
  const char *input;  /* a file, a pattern, or a folder */
  const char *output; /* a file for all of the input; or a folder, for a file of the same name each */
  kp_convert_to to;
  const kp_tokenizer *tokenizer; /* that made the tokens, or NULL: what the input says, if it says */
  int32_t vocabulary;            /* without a tokenizer, when the input does not say; 0: not given */
} kp_convert_options;

/* A file that was written. */
typedef struct kp_converted {
  char path[KP_PATH_SIZE];
  int64_t tokens;
} kp_converted;

/* Called behind each file; may be NULL. */
typedef void (*kp_convert_written)(void *context, const kp_converted *file);

/* Converts; a folder as input needs one as output, which is made, and gets the tokenizer too when one is
 * given. Files that exist are not replaced.  Refused are tokens that the target cannot hold or that are not
 * below the vocabulary, and tokens that were made with another tokenizer. */
kp_status kp_convert(const kp_convert_options *options, kp_convert_written written, void *context,
                     kp_error *error);

#endif
