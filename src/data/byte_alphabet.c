#include "data/byte_alphabet.h"

#include <stdbool.h>

#include "data/utf8.h"

/* The bytes that are not printable lie in three ranges: 0x00-0x20, 0x7F-0xA0 and 0xAD. */
enum {
  FIRST_RANGE = 0x21,
  SECOND_BEGIN = 0x7F,
  SECOND_END = 0xA1,
  SECOND = SECOND_END - SECOND_BEGIN,
  LAST = 0xAD
};
enum { SHIFTED = 0x100 };

uint32_t kp_alphabet_character(unsigned char byte) {
  if (byte < FIRST_RANGE) return SHIFTED + (uint32_t)byte;
  if (byte >= SECOND_BEGIN && byte < SECOND_END) return SHIFTED + FIRST_RANGE + (uint32_t)byte - SECOND_BEGIN;
  return byte == LAST ? SHIFTED + FIRST_RANGE + SECOND : byte;
}

int kp_alphabet_byte(uint32_t character) {
  if (character < SHIFTED)
    return kp_alphabet_character((unsigned char)character) == character ? (int)character : -1;
  const uint32_t rank = character - SHIFTED;
  if (rank < FIRST_RANGE) return (int)rank;
  if (rank < FIRST_RANGE + SECOND) return (int)(rank - FIRST_RANGE + SECOND_BEGIN);
  return rank == FIRST_RANGE + SECOND ? LAST : -1;
}

size_t kp_alphabet_write(const char *bytes, size_t size, char *out) {
  size_t written = 0;
  for (size_t i = 0; i < size; i++) {
    char character[KP_UTF8_LONGEST];
    const size_t length = kp_utf8_write(kp_alphabet_character((unsigned char)bytes[i]), character);
    for (size_t k = 0; k < length; k++) out[written++] = character[k];
  }
  return written;
}

size_t kp_alphabet_read(const char *text, size_t size, char *out) {
  size_t written = 0;
  for (size_t at = 0; at < size; written++) {
    uint32_t character;
    const size_t length = kp_utf8_read(text + at, size - at, &character);
    const int byte = length == 0 ? -1 : kp_alphabet_byte(character);
    if (byte < 0) return SIZE_MAX;
    out[written] = (char)byte;
    at += length;
  }
  return written;
}
