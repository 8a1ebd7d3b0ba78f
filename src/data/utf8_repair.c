#include "data/utf8_repair.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "data/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* Bytes at the front of `text` that begin a character and break off; 1 where none can begin. */
static size_t broken_length(const char *text, size_t size) {
  const unsigned char *bytes = (const unsigned char *)text;
  const unsigned char first = bytes[0];
  if (first < 0xC2 || first > 0xF4) return 1;
  const size_t whole = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  unsigned char low = 0x80, high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  size_t length = 1;
  while (length < whole && length < size && bytes[length] >= low && bytes[length] <= high) {
    length++;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

kp_status kp_utf8_repair(const char *text, size_t size, kp_byte_buffer *out, kp_error *error) {
  out->size = 0;
  for (size_t offset = 0; offset < size;) {
    const size_t valid = kp_utf8_invalid(text + offset, size - offset);
    KP_TRY(kp_byte_buffer_append(out, text + offset, valid, error));
    offset += valid;
    if (offset == size) break;
    KP_TRY(kp_byte_buffer_append(out, replacement, sizeof replacement - 1, error));
    offset += broken_length(text + offset, size - offset);
  }
  return KP_OK;
}

/* The number of an escape \uXXXX at the front of `text`, or -1. */
static int32_t escape_of(const char *text, size_t size) {
  int32_t value = 0;
  if (size < 6 || text[0] != '\\' || text[1] != 'u') return -1;
  for (int i = 2; i < 6; i++) {
    const unsigned char digit = (unsigned char)text[i];
    if (!isxdigit(digit)) return -1;
    value = 16 * value + (isdigit(digit) ? digit - '0' : tolower(digit) - 'a' + 10);
  }
  return value;
}

static bool is_high(int32_t escape) {
  return escape >= 0xD800 && escape <= 0xDBFF;
}
static bool is_low(int32_t escape) {
  return escape >= 0xDC00 && escape <= 0xDFFF;
}

/* Overwrites half pairs in place: all escapes have six bytes. */
static void repair_escapes(char *text, size_t size) {
  for (size_t at = 0; at + 1 < size;) {
    const char *backslash = memchr(text + at, '\\', size - at);
    if (backslash == NULL) return;
    at = (size_t)(backslash - text);
    const int32_t escape = escape_of(text + at, size - at);
    if (escape < 0) {
      at += 2; /* another escape; the character behind it may be a backslash */
    } else if (is_high(escape) && is_low(escape_of(text + at + 6, size - at - 6))) {
      at += 12;
    } else {
      if (is_high(escape) || is_low(escape)) memcpy(text + at, "\\uFFFD", 6);
      at += 6;
    }
  }
}

kp_status kp_utf8_repair_json(const char *text, size_t size, kp_byte_buffer *out, kp_error *error) {
  KP_TRY(kp_utf8_repair(text, size, out, error));
  repair_escapes(out->data, out->size);
  return KP_OK;
}
