#include "core/config_schema.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/assert.h"
#include "core/number.h"
#include "core/suggest.h"

size_t kp_schema_size(const kp_schema *schema) {
  size_t size = 0;
  for (size_t i = 0; i < schema->count; i++) size += schema->tables[i]->count;
  return size;
}

const kp_config_row *kp_schema_row(const kp_schema *schema, size_t index) {
  for (size_t i = 0; i < schema->count; i++) {
    if (index < schema->tables[i]->count) return &schema->tables[i]->rows[index];
    index -= schema->tables[i]->count;
  }
  kp_assert(false, "the schema has %zu rows", kp_schema_size(schema));
  return NULL;
}

const kp_config_row *kp_schema_find(const kp_schema *schema, const char *key) {
  for (size_t i = 0; i < schema->count; i++) {
    for (size_t j = 0; j < schema->tables[i]->count; j++) {
      const kp_config_row *row = &schema->tables[i]->rows[j];
      if (strcmp(row->key, key) == 0) return row;
    }
  }
  return NULL;
}

bool kp_schema_is_section(const kp_schema *schema, const char *key) {
  size_t length = strlen(key), size = kp_schema_size(schema);
  for (size_t i = 0; i < size; i++) {
    const char *other = kp_schema_row(schema, i)->key;
    if (strncmp(other, key, length) == 0 && other[length] == '.') return true;
  }
  return false;
}

static const char *last_word(const char *key) {
  const char *dot = strrchr(key, '.');
  return dot == NULL ? key : dot + 1;
}

/* A right word in the wrong section ("layers", "train.layers") is nearer than
 * the letters say. */
static size_t key_distance(const char *typed, const char *key) {
  size_t whole = kp_edit_distance(typed, key);
  bool same_word = strcmp(last_word(typed), last_word(key)) == 0;
  return same_word && whole > 2 ? 2 : whole;
}

const char *kp_schema_nearest(const kp_schema *schema, const char *key) {
  const char *nearest = NULL;
  size_t least = SIZE_MAX, size = kp_schema_size(schema);
  for (size_t i = 0; i < size; i++) {
    const char *other = kp_schema_row(schema, i)->key;
    size_t distance = key_distance(key, other);
    if (distance >= least) continue;
    least = distance;
    nearest = other;
  }
  return nearest != NULL && kp_edit_distance_is_near(least, key) ? nearest : NULL;
}

const char *kp_config_type_name(kp_config_type type) {
  switch (type) {
  case KP_CONFIG_INTEGER: return "an integer";
  case KP_CONFIG_REAL: return "a real number";
  case KP_CONFIG_BOOLEAN: return "true or false";
  case KP_CONFIG_STRING: return "a text";
  case KP_CONFIG_CHOICE: return "a choice";
  case KP_CONFIG_REALS: return "a list of real numbers";
  case KP_CONFIG_INTEGERS: return "a list of integers";
  case KP_CONFIG_TEXTS: return "a list of texts";
  }
  kp_assert(false, "type %d", (int)type);
  return NULL;
}

/* Reads one bound and steps over it and the blanks around it. */
static double read_bound(const kp_config_row *row, const char **cursor) {
  *cursor += strspn(*cursor, " ");
  size_t length = strcspn(*cursor, " ,)]");
  char text[KP_NUMBER_SIZE];
  kp_assert(length < sizeof text, "%s: %s is no interval", row->key, row->allowed);
  memcpy(text, *cursor, length);
  text[length] = 0;
  *cursor += length;
  *cursor += strspn(*cursor, " ");
  if (strcmp(text, "inf") == 0) return (double)INFINITY;
  if (strcmp(text, "-inf") == 0) return -(double)INFINITY;
  double bound = 0;
  kp_assert(kp_number_real(text, &bound) == KP_NUMBER_OK, "%s: %s is no interval", row->key, row->allowed);
  return bound;
}

kp_config_range kp_config_range_of(const kp_config_row *row) {
  kp_config_range range = {.minimum = -(double)INFINITY, .maximum = (double)INFINITY};
  if (row->allowed == NULL) return range;
  const char *cursor = row->allowed;
  kp_assert(*cursor == '[' || *cursor == '(', "%s: %s is no interval", row->key, row->allowed);
  range.minimum_is_open = *cursor++ == '(';
  range.minimum = read_bound(row, &cursor);
  kp_assert(*cursor == ',', "%s: %s is no interval", row->key, row->allowed);
  cursor++;
  range.maximum = read_bound(row, &cursor);
  kp_assert(strcmp(cursor, "]") == 0 || strcmp(cursor, ")") == 0, "%s: %s is no interval", row->key,
            row->allowed);
  range.maximum_is_open = *cursor == ')';
  kp_assert(range.minimum <= range.maximum, "%s: nothing lies in %s", row->key, row->allowed);
  return range;
}

bool kp_config_range_holds(const kp_config_range *range, double value) {
  bool above = range->minimum_is_open ? value > range->minimum : value >= range->minimum;
  bool below = range->maximum_is_open ? value < range->maximum : value <= range->maximum;
  return above && below;
}

const char *kp_config_choice_word(const kp_config_row *row, size_t index, size_t *length) {
  kp_assert(row->type == KP_CONFIG_CHOICE && row->allowed != NULL, "%s has no choices", row->key);
  const char *word = row->allowed;
  for (; index > 0; index--) {
    word = strchr(word, '|');
    if (word == NULL) return NULL;
    word++;
  }
  *length = strcspn(word, "|");
  return word;
}

int kp_config_choice_find(const kp_config_row *row, const char *word) {
  size_t length = 0;
  const char *choice;
  for (int i = 0; (choice = kp_config_choice_word(row, (size_t)i, &length)) != NULL; i++)
    if (strlen(word) == length && strncmp(word, choice, length) == 0) return i;
  return -1;
}
