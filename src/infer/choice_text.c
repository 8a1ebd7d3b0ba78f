#define _XOPEN_SOURCE 700 /* newlocale, towlower_l */

#include "infer/choice_text.h"

#include <locale.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

#include "data/utf8.h"

kp_status kp_join_text(char **joined, kp_error *error, int count, ...) {
  va_list texts;
  size_t size = 1;
  va_start(texts, count);
  for (int i = 0; i < count; i++) size += strlen(va_arg(texts, const char *));
  va_end(texts);
  char *at = *joined = malloc(size);
  if (at == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a text of %zu bytes", size);
  va_start(texts, count);
  for (int i = 0; i < count; i++) {
    const char *text = va_arg(texts, const char *);
    const size_t bytes = strlen(text);
    memcpy(at, text, bytes);
    at += bytes;
  }
  va_end(texts);
  *at = 0;
  return KP_OK;
}

/* ---- white space ---- */

static bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

/* Bytes of the character of white space at the front; 0: there is none. */
static size_t space_at(const char *text, size_t size) {
  uint32_t code = 0;
  const size_t bytes = size == 0 ? 0 : kp_utf8_read(text, size, &code);
  return bytes > 0 && is_space(code) ? bytes : 0;
}

size_t kp_trailing_space(const char *text, size_t size) {
  size_t end = size;
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
    if (space_at(text + start, end - start) != end - start) break;
    end = start;
  }
  return size - end;
}

const char *kp_strip_text(const char *text, size_t *size) {
  *size = strlen(text);
  for (size_t bytes; (bytes = space_at(text, *size)) > 0; *size -= bytes) text += bytes;
  *size -= kp_trailing_space(text, *size);
  return text;
}

/* ---- HellaSwag ---- */

/* The text with its first character a capital and the others small, as Python's capitalize. */
static kp_status capitalize(const char *text, char **capital, kp_error *error) {
  const size_t size = strlen(text);
  char *at = *capital = malloc(KP_UTF8_LONGEST * size + 1);
  locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
  if (at == NULL || unicode == (locale_t)0) {
    free(at);
    if (unicode != (locale_t)0) freelocale(unicode);
    *capital = NULL;
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %zu bytes, or no locale C.UTF-8", size);
  }
  for (size_t i = 0, bytes; i < size; i += bytes) {
    uint32_t code;
    bytes = kp_utf8_read(text + i, size - i, &code);
    if (bytes == 0) bytes = 1, code = (unsigned char)text[i];
    code = (uint32_t)(i == 0 ? towupper_l((wint_t)code, unicode) : towlower_l((wint_t)code, unicode));
    at += kp_utf8_write(code, at);
  }
  *at = 0;
  freelocale(unicode);
  return KP_OK;
}

/* Every `from` becomes `to`, which is no longer. */
static void replace(char *text, const char *from, const char *to) {
  const size_t from_size = strlen(from), to_size = strlen(to);
  char *out = text;
  while (*text != 0) {
    if (strncmp(text, from, from_size) == 0) {
      memcpy(out, to, to_size);
      out += to_size;
      text += from_size;
    } else {
      *out++ = *text++;
    }
  }
  *out = 0;
}

/* A bracket is closed by the next one in its line, or is no bracket. */
static void remove_brackets(char *text) {
  char *out = text;
  while (*text != 0) {
    const size_t inside = *text == '[' ? 1 + strcspn(text + 1, "]\n") : 0;
    if (inside > 0 && text[inside] == ']')
      text += inside + 1;
    else
      *out++ = *text++;
  }
  *out = 0;
}

void kp_hellaswag_clean(char *text) {
  size_t size;
  const char *stripped = kp_strip_text(text, &size);
  memmove(text, stripped, size);
  text[size] = 0;
  replace(text, " [title]", ". ");
  remove_brackets(text);
  replace(text, "  ", " ");
}

kp_status kp_hellaswag_query(const char *activity, const char *first, const char *second, char **query,
                             kp_error *error) {
  char *capital;
  KP_TRY(capitalize(second, &capital, error));
  kp_status status = kp_join_text(query, error, 5, activity, ": ", first, " ", capital);
  free(capital);
  if (status == KP_OK) kp_hellaswag_clean(*query);
  return status;
}
