#include "data/utf8.h"

#include <stdbool.h>
#include <string.h>

static bool is_continuation(unsigned char byte) {
  return (byte & 0xC0) == 0x80;
}

size_t kp_utf8_read(const char *text, size_t size, uint32_t *code_point) {
  const unsigned char *bytes = (const unsigned char *)text;
  unsigned char first = bytes[0];
  if (first < 0x80) {
    *code_point = first;
    return 1;
  }
  size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0 || length > size) return 0;
  uint32_t value = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; i++) {
    if (!is_continuation(bytes[i])) return 0;
    value = value << 6 | (bytes[i] & 0x3Fu);
  }
  /* The first byte excludes overlong forms of two bytes only; the longer ones show in the value. */
  bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (overlong || surrogate || value > KP_UTF8_LAST_CODE_POINT) return 0;
  *code_point = value;
  return length;
}

size_t kp_utf8_write(uint32_t code_point, char out[KP_UTF8_LONGEST]) {
  if (code_point < 0x80) {
    out[0] = (char)code_point;
    return 1;
  }
  size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--) {
    out[i] = (char)(0x80 | (code_point & 0x3F));
    code_point >>= 6;
  }
  out[0] = (char)((0xF00 >> length & 0xFF) | code_point);
  return length;
}

kp_status kp_utf8_count(const char *text, size_t size, size_t *count, kp_error *error) {
  size_t characters = 0;
  for (size_t offset = 0; offset < size; characters++) {
    uint32_t code_point;
    size_t length = kp_utf8_read(text + offset, size - offset, &code_point);
    if (length == 0) return kp_utf8_fail(text, offset, error);
    offset += length;
  }
  *count = characters;
  return KP_OK;
}

/* The end of the run of ASCII that begins at `at`, eight bytes at a time. */
static size_t skip_ascii(const char *text, size_t size, size_t at) {
  uint64_t eight;
  for (; size - at >= sizeof eight; at += sizeof eight) {
    memcpy(&eight, text + at, sizeof eight);
    if ((eight & UINT64_C(0x8080808080808080)) != 0) break;
  }
  while (at < size && (unsigned char)text[at] < 0x80) at++;
  return at;
}

size_t kp_utf8_invalid(const char *text, size_t size) {
  size_t at = 0;
  while ((at = skip_ascii(text, size, at)) < size) {
    uint32_t code_point;
    const size_t length = kp_utf8_read(text + at, size - at, &code_point);
    if (length == 0) return at;
    at += length;
  }
  return size;
}

kp_status kp_utf8_check(const char *text, size_t size, kp_error *error) {
  const size_t invalid = kp_utf8_invalid(text, size);
  return invalid == size ? KP_OK : kp_utf8_fail(text, invalid, error);
}

size_t kp_text_line(const char *text, size_t offset) {
  size_t line = 1;
  for (const char *at = text, *end = text + offset; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
    line++;
  return line;
}

kp_status kp_utf8_fail(const char *text, size_t offset, kp_error *error) {
  return kp_fail(error, KP_ERR_INPUT,
                 "byte 0x%02X at offset %zu (line %zu) is not valid UTF-8; convert the text to UTF-8 first "
                 "(for example with iconv)",
                 (unsigned char)text[offset], offset, kp_text_line(text, offset));
}

void kp_utf8_copy(char *out, size_t room, const char *words) {
  size_t used = 0, size = strlen(words);
  for (size_t at = 0; at < size;) {
    uint32_t code_point;
    size_t length = kp_utf8_read(words + at, size - at, &code_point);
    size_t taken = length == 0 ? 1 : length;
    if (used + taken >= room) break;
    memcpy(out + used, length == 0 ? "?" : words + at, taken);
    at += taken;
    used += taken;
  }
  out[used] = 0;
}
