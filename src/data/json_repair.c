#include "data/json_repair.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "data/utf8.h"

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

kp_status kp_json_repair(const char *text, size_t size, char **out, size_t *out_size, kp_error *error) {
  KP_TRY(kp_utf8_replace(text, size, out, out_size, error));
  repair_escapes(*out, *out_size);
  return KP_OK;
}
