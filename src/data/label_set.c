#include "data/label_set.h"

#include <stdlib.h>
#include <string.h>

void kp_label_set_clear(kp_label_set *set) {
  for (int32_t i = 0; i < set->count; i++) free(set->names[i]);
  free(set->names);
  free(set->numbers);
  *set = (kp_label_set){0};
}

/* Bytes in order, a name before those that it begins. */
static int compare(const char *name, const char *other, size_t size) {
  const size_t length = strlen(name), common = length < size ? length : size;
  const int order = memcmp(name, other, common);
  return order != 0 ? order : (length > size) - (length < size);
}

/* The place of a name, or where it belongs. */
static int32_t find(const kp_label_set *set, const char *name, size_t size, bool *found) {
  int32_t low = 0, high = set->count;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    const int order = compare(set->names[middle], name, size);
    if (order == 0) {
      *found = true;
      return middle;
    }
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  *found = false;
  return low;
}

static kp_status check_new(const kp_label_set *set, const char *name, size_t size, kp_error *error) {
  if (size == 0) return kp_fail(error, KP_ERR_INPUT, "the label is empty");
  if (size > KP_LABEL_LONGEST)
    return kp_fail(error, KP_ERR_INPUT, "the label '%.40s...' has %zu bytes, %d are the most: is it a text?",
                   name, size, KP_LABEL_LONGEST);
  if (set->closed)
    return kp_fail(error, KP_ERR_INPUT, "the label '%.*s' is none of the %d that the set has", (int)size,
                   name, set->count);
  if (set->count == KP_LABELS_MOST)
    return kp_fail(error, KP_ERR_INPUT,
                   "the label '%.*s' is one too many, %d are the most: is this the column of the labels?",
                   (int)size, name, KP_LABELS_MOST);
  return KP_OK;
}

static kp_status grow(kp_label_set *set, kp_error *error) {
  if (set->count < set->capacity) return KP_OK;
  const int32_t capacity = set->capacity == 0 ? 16 : 2 * set->capacity;
  char **names = realloc(set->names, (size_t)capacity * sizeof *names);
  if (names != NULL) set->names = names;
  int32_t *numbers = realloc(set->numbers, (size_t)capacity * sizeof *numbers);
  if (numbers != NULL) set->numbers = numbers;
  if (names == NULL || numbers == NULL)
    return kp_fail(error, KP_ERR_MEMORY, "no memory for %d labels", capacity);
  set->capacity = capacity;
  return KP_OK;
}

kp_status kp_label_set_add(kp_label_set *set, const char *name, size_t size, int32_t *number,
                           kp_error *error) {
  bool found;
  const int32_t place = find(set, name, size, &found);
  if (found) {
    *number = set->numbers[place];
    return KP_OK;
  }
  KP_TRY(check_new(set, name, size, error));
  KP_TRY(grow(set, error));
  char *copy = strndup(name, size);
  if (copy == NULL) return kp_fail(error, KP_ERR_MEMORY, "no memory for a label");
  const size_t behind = (size_t)(set->count - place);
  memmove(set->names + place + 1, set->names + place, behind * sizeof *set->names);
  memmove(set->numbers + place + 1, set->numbers + place, behind * sizeof *set->numbers);
  set->names[place] = copy;
  set->numbers[place] = *number = set->count++;
  return KP_OK;
}

void kp_label_set_sort(kp_label_set *set, int32_t *renumbered) {
  for (int32_t i = 0; i < set->count; i++) {
    renumbered[set->numbers[i]] = i;
    set->numbers[i] = i;
  }
}

bool kp_label_set_equal(const kp_label_set *a, const kp_label_set *b) {
  if (a->count != b->count) return false;
  for (int32_t i = 0; i < a->count; i++)
    if (strcmp(a->names[i], b->names[i]) != 0) return false;
  return true;
}
