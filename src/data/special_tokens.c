#include "data/special_tokens.h"

#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b) {
  return strcmp(((const kp_special_token *)a)->text, ((const kp_special_token *)b)->text);
}

void kp_specials_sort(kp_special_token *list, size_t count) {
  if (count > 1) qsort(list, count, sizeof *list, by_text);
}

/* The first of list[low .. high), which agree in their first `depth` bytes, whose next byte is `byte` or
 * greater. */
static size_t lower_bound(const kp_special_token *list, size_t low, size_t high, size_t depth, int byte) {
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if ((unsigned char)list[middle].text[depth] < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The longest special token that text[at .. end) begins with, or NULL. */
static const kp_special_token *longest_at(const kp_special_token *list, size_t count, const char *text,
                                          size_t at, size_t end) {
  const kp_special_token *found = NULL;
  size_t low = 0, high = count;
  for (size_t depth = 0; low < high; depth++) {
    if (list[low].text[depth] == 0) found = &list[low++]; /* the shortest of a range is its first */
    if (at + depth == end || text[at + depth] == 0) break;
    const int byte = (unsigned char)text[at + depth];
    low = lower_bound(list, low, high, depth, byte);
    high = lower_bound(list, low, high, depth, byte + 1);
  }
  return found;
}

const kp_special_token *kp_specials_find(const kp_special_token *list, size_t count, const char *text,
                                         size_t begin, size_t end, size_t *at) {
  if (count == 0) return NULL;
  /* Most sets begin with one byte, '<': then the processor's search for it is the fastest. */
  const bool one_byte = list[0].text[0] == list[count - 1].text[0];
  bool begins[256] = {false};
  for (size_t i = 0; i < count && !one_byte; i++) begins[(unsigned char)list[i].text[0]] = true;
  for (size_t place = begin; place < end; place++) {
    if (one_byte) {
      const char *next = memchr(text + place, list[0].text[0], end - place);
      if (next == NULL) return NULL;
      place = (size_t)(next - text);
    } else if (!begins[(unsigned char)text[place]]) {
      continue;
    }
    const kp_special_token *found = longest_at(list, count, text, place, end);
    if (found == NULL) continue;
    *at = place;
    return found;
  }
  return NULL;
}
