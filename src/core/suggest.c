#include "core/suggest.h"

#include <stdint.h>
#include <string.h>

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

size_t kp_edit_distance(const char *a, const char *b) {
  size_t rows = strlen(a), columns = strlen(b);
  if (rows > KP_SUGGEST_LIMIT || columns > KP_SUGGEST_LIMIT) return SIZE_MAX;
  /* Three rows of the table: row i is table[i % 3]. */
  size_t table[3][KP_SUGGEST_LIMIT + 1];
  for (size_t j = 0; j <= columns; j++) table[0][j] = j;
  for (size_t i = 1; i <= rows; i++) {
    size_t *now = table[i % 3], *above = table[(i - 1) % 3], *above_that = table[(i + 1) % 3];
    now[0] = i;
    for (size_t j = 1; j <= columns; j++) {
      size_t replaced = above[j - 1] + (a[i - 1] != b[j - 1]);
      now[j] = least(replaced, 1 + least(above[j], now[j - 1]));
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) now[j] = least(now[j], above_that[j - 2] + 1);
    }
  }
  return table[rows % 3][columns];
}

bool kp_edit_distance_is_near(size_t distance, const char *typed) {
  return distance <= 1 + strlen(typed) / 4;
}
