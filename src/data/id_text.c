#include "data/id_text.h"

#include <stdbool.h>

#include "data/utf8.h"

static bool is_between(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == ',' || c == '[' || c == ']';
}

static kp_status fail(const char *text, size_t size, size_t begin, kp_error *error) {
  char quoted[64];
  size_t end = begin;
  while (end < size && end - begin < sizeof quoted / 2 && !is_between(text[end])) end++;
  char word[sizeof quoted / 2 + 1];
  for (size_t i = begin; i < end; i++) word[i - begin] = text[i] == 0 ? '?' : text[i];
  word[end - begin] = 0;
  kp_utf8_copy(quoted, sizeof quoted, word);
  return kp_fail(error, KP_ERR_INPUT,
                 "'%s' at byte %zu (line %zu) is no token id, which is a whole number from 0 to %d", quoted,
                 begin, kp_text_line(text, begin), INT32_MAX);
}

kp_status kp_ids_read_text(const char *text, size_t size, kp_ids *ids, kp_error *error) {
  for (size_t at = 0; at < size;) {
    if (is_between(text[at])) {
      at++;
      continue;
    }
    const size_t begin = at;
    int64_t value = 0;
    for (; at < size && text[at] >= '0' && text[at] <= '9' && value <= INT32_MAX; at++)
      value = 10 * value + (text[at] - '0');
    if (at == begin || value > INT32_MAX || (at < size && !is_between(text[at])))
      return fail(text, size, begin, error);
    const int32_t id = (int32_t)value;
    KP_TRY(kp_ids_append(ids, &id, 1, error));
  }
  return KP_OK;
}
