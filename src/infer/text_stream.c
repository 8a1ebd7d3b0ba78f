#include "infer/text_stream.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* Bytes of the character that starts with `lead`; 0 when none does. */
static size_t announced_size(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

/* The bytes may be the front of a character whose rest has not come yet. */
static bool may_go_on(const char *bytes, size_t size) {
  if (size >= announced_size((unsigned char)bytes[0])) return false;
  for (size_t i = 1; i < size; i++)
    if (((unsigned char)bytes[i] & 0xC0) != 0x80) return false;
  return true;
}

/* Gives one byte to the held ones and passes on what has become decided. */
static bool push_byte(kp_text_stream *stream, char byte) {
  bool more = true;
  uint32_t code_point;
  stream->held[stream->held_size++] = byte;
  while (stream->held_size > 0 && more) {
    const size_t whole = kp_utf8_read(stream->held, stream->held_size, &code_point);
    if (whole == 0 && may_go_on(stream->held, stream->held_size)) break;
    const size_t used = whole > 0 ? whole : 1;
    more = whole > 0 ? stream->sink(stream->context, stream->held, whole)
                     : stream->sink(stream->context, replacement, sizeof replacement - 1);
    stream->held_size -= used;
    memmove(stream->held, stream->held + used, stream->held_size);
  }
  return more;
}

bool kp_text_stream_push(kp_text_stream *stream, const char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (!push_byte(stream, bytes[i])) return false;
  return true;
}

bool kp_text_stream_finish(kp_text_stream *stream) {
  const bool incomplete = stream->held_size > 0;
  stream->held_size = 0;
  return !incomplete || stream->sink(stream->context, replacement, sizeof replacement - 1);
}
