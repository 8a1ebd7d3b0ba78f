/* GPT-2's printable alphabet of bytes: how byte-level vocabularies are written in JSON.
 *
 * Each of the 256 bytes has a character of its own that is no white space and no control character.  Bytes
 * that are printable in Latin-1 (! to ~, U+00A1 to U+00AC, U+00AE to U+00FF) are themselves; the others, in
 * ascending order, are U+0100, U+0101, ...: a space is U+0120.  (OpenAI, gpt-2, encoder.py.) */
#ifndef KAPPA_DATA_BYTE_ALPHABET_H
#define KAPPA_DATA_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

/* Every character of the alphabet lies below this code point. */
enum { KP_ALPHABET_END = 0x144, KP_ALPHABET_LONGEST = 2 };

/* The character of a byte, and the byte of a character or -1. */
uint32_t kp_alphabet_character(unsigned char byte);
int kp_alphabet_byte(uint32_t character);

/* Writes bytes in the alphabet, as UTF-8 of at most KP_ALPHABET_LONGEST · size bytes; returns how many.  No
 * zero is added. */
size_t kp_alphabet_write(const char *bytes, size_t size, char *out);

/* The way back: writes at most `size` bytes to `out` and returns how many, or SIZE_MAX when the text holds
 * something that is not of the alphabet. */
size_t kp_alphabet_read(const char *text, size_t size, char *out);

#endif
