#include "data/word_pieces.h"

#include <stdbool.h>

#include "data/utf8.h"

/* A range of code points. */
typedef struct range {
  uint32_t first, last;
} range;

/* White space, and the blocks of punctuation and symbols (Unicode 15, chapter 6 and the property
 * White_Space), ascending.  Everything else belongs to words: letters, marks, digits. */
static const range separators[] = {
    {0x0000, 0x002F}, {0x003A, 0x0040},   {0x005B, 0x0060}, {0x007B, 0x00A9}, {0x00AB, 0x00B4},
    {0x00B6, 0x00B9}, {0x00BB, 0x00BF},   {0x00D7, 0x00D7}, {0x00F7, 0x00F7}, {0x037E, 0x037E},
    {0x0387, 0x0387}, {0x055A, 0x055F},   {0x0589, 0x058A}, {0x05BE, 0x05BE}, {0x05C0, 0x05C0},
    {0x05C3, 0x05C3}, {0x05C6, 0x05C6},   {0x05F3, 0x05F4}, {0x0609, 0x060D}, {0x061B, 0x061F},
    {0x066A, 0x066D}, {0x06D4, 0x06D4},   {0x0964, 0x0965}, {0x0970, 0x0970}, {0x0E5A, 0x0E5B},
    {0x104A, 0x104F}, {0x1360, 0x1368},   {0x1680, 0x1680}, {0x17D4, 0x17DB}, {0x1800, 0x180A},
    {0x2000, 0x200B}, {0x200E, 0x206F},   {0x207A, 0x207E}, {0x208A, 0x208E}, {0x20A0, 0x20CF},
    {0x2190, 0x245F}, {0x249C, 0x24E9},   {0x2500, 0x2BFF}, {0x2E00, 0x2E7F}, {0x3000, 0x3004},
    {0x3008, 0x3020}, {0x3030, 0x3030},   {0x303D, 0x303D}, {0x30FB, 0x30FB}, {0xFE10, 0xFE1F},
    {0xFE30, 0xFE6F}, {0xFF01, 0xFF0F},   {0xFF1A, 0xFF20}, {0xFF3B, 0xFF40}, {0xFF5B, 0xFF65},
    {0xFFE0, 0xFFFF}, {0x1F000, 0x1FAFF},
};

static bool belongs_to_word(uint32_t code_point) {
  size_t low = 0, high = sizeof separators / sizeof *separators;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (code_point > separators[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low == sizeof separators / sizeof *separators || code_point < separators[low].first;
}

void kp_word_piece(const char *text, size_t size, size_t *bytes, size_t *characters) {
  uint32_t code_point;
  size_t at = kp_utf8_read(text, size, &code_point), taken = 1;
  *bytes = at;
  *characters = at > 0;
  if (at == 0 || (code_point != ' ' && !belongs_to_word(code_point))) return;
  while (at < size && taken < KP_WORD_LONGEST) {
    const size_t length = kp_utf8_read(text + at, size - at, &code_point);
    if (length == 0 || !belongs_to_word(code_point)) break;
    at += length;
    taken++;
  }
  *bytes = at;
  *characters = taken;
}
