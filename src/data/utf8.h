/* UTF-8, read strictly: no overlong forms, no surrogates, nothing above U+10FFFF (Unicode 15, table 3-7). */
#ifndef KAPPA_DATA_UTF8_H
#define KAPPA_DATA_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum { KP_UTF8_LONGEST = 4, KP_UTF8_LAST_CODE_POINT = 0x10FFFF };

/* Bytes of the character at the front of `text`, which has `size` > 0 bytes, and its code point; 0 when the
 * bytes are not valid UTF-8 (a character cut by the end of the text is not). */
size_t kp_utf8_read(const char *text, size_t size, uint32_t *code_point);

/* Writes the bytes of a Unicode scalar value; returns how many, 1 to 4. */
size_t kp_utf8_write(uint32_t code_point, char out[KP_UTF8_LONGEST]);

/* Number of characters of `text`.  Invalid bytes are an error that names byte offset and line. */
kp_status kp_utf8_count(const char *text, size_t size, size_t *count, kp_error *error);

/* The offset of the first byte that is not valid UTF-8; `size` when there is none.  What may be done with
 * such bytes is in data/utf8_repair.h. */
size_t kp_utf8_invalid(const char *text, size_t size);

/* Invalid bytes are an error that names byte offset and line. */
kp_status kp_utf8_check(const char *text, size_t size, kp_error *error);

/* The line, counted from 1, that byte `offset` of `text` lies on. */
size_t kp_text_line(const char *text, size_t offset);

/* Copies words of a user to `out`, cut at a character where the room ends; bytes that are not UTF-8, which
 * paths may have, become '?'. */
void kp_utf8_copy(char *out, size_t room, const char *words);

/* Fails with the offset and line of the invalid byte at `offset`. */
kp_status kp_utf8_fail(const char *text, size_t offset, kp_error *error);

#endif
