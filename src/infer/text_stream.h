/* Turns pieces of bytes into pieces of whole UTF-8 characters.
 *
 * A tokenizer's token may end in the middle of a character; its bytes are held back until the character is
 * whole.  Bytes that can be no character become U+FFFD, one each, so that what comes out is always valid. */
#ifndef KAPPA_INFER_TEXT_STREAM_H
#define KAPPA_INFER_TEXT_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "data/utf8.h"

/* Takes `size` > 0 bytes of whole characters (not closed by a zero); false asks for no more text. */
typedef bool (*kp_text_sink)(void *context, const char *text, size_t size);

/* Zero-initialise all but sink and context. */
typedef struct kp_text_stream {
  kp_text_sink sink;
  void *context;
  char held[KP_UTF8_LONGEST]; /* the front of a character */
  size_t held_size;
} kp_text_stream;

/* False when the sink asked for no more. */
bool kp_text_stream_push(kp_text_stream *stream, const char *bytes, size_t size);

/* Ends the text: a character that is still incomplete becomes U+FFFD. */
bool kp_text_stream_finish(kp_text_stream *stream);

#endif
