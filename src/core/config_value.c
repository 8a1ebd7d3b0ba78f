/* The row decides how a scalar is read, not YAML's guess: "no" is a word where
 * a text is expected, "6e-4" is a number where a number is expected, quoted or
 * not.  Only null is the same everywhere: no value, which no type accepts. */
#include "core/config_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/number.h"
#include "core/suggest.h"

enum { EXCERPT = 64 };

/* The beginning of a text of any length, fit for one line of a message. */
static void excerpt(const char *text, char out[EXCERPT]) {
  size_t length = 0;
  for (; *text != 0 && length < EXCERPT - 8; text++) {
    unsigned char byte = (unsigned char)*text;
    out[length++] = byte < 0x20 || byte == 0x7f ? ' ' : (char)byte;
  }
  while (((unsigned char)*text & 0xc0) == 0x80 && length < EXCERPT - 5) out[length++] = *text++;
  snprintf(out + length, EXCERPT - length, "%s", *text == 0 ? "" : "...");
}

static void scalar_name(const kp_yaml_scalar *scalar, char *text, size_t size) {
  char word[EXCERPT];
  excerpt(scalar->text, word);
  double real;
  int64_t integer;
  if (kp_yaml_is_null(scalar)) {
    snprintf(text, size, "nothing");
  } else if (kp_number_integer(scalar->text, &integer) != KP_NUMBER_MALFORMED) {
    snprintf(text, size, "the integer %s", word);
  } else if (kp_number_real(scalar->text, &real) != KP_NUMBER_MALFORMED) {
    snprintf(text, size, "the number %s", word);
  } else {
    snprintf(text, size, "'%s'", word);
  }
}

void kp_config_entry_name(const kp_yaml_entry *entry, char *text, size_t size) {
  switch (entry->kind) {
  case KP_YAML_SCALAR: scalar_name(&entry->items[0], text, size); break;
  case KP_YAML_LIST: snprintf(text, size, "a list"); break;
  case KP_YAML_MAPPING: snprintf(text, size, "a mapping"); break;
  }
}

static kp_status fail_type(const char *expected, const kp_yaml_scalar *scalar, const char *advice,
                           kp_error *error) {
  char found[EXCERPT + 32];
  scalar_name(scalar, found, sizeof found);
  return kp_fail(error, KP_ERR_INPUT, "expected %s, found %s%s", expected, found, advice);
}

static bool is_one_of(const char *text, const char *const *words) {
  for (; *words != NULL; words++)
    if (strcmp(text, *words) == 0) return true;
  return false;
}

static const char *number_advice(const char *text) {
  static const char *const not_finite[] = {".inf", "+.inf", "-.inf", ".Inf", "-.Inf", ".nan", ".NaN", ".NAN",
                                           "inf",  "-inf",  "nan",   "NaN",  "Inf",   "-Inf", "NAN",  NULL};
  if (is_one_of(text, not_finite)) return "; numbers must be finite";
  if (strspn(text, "+-0123456789_.eE") == strlen(text) && strchr(text, '_') != NULL)
    return "; write numbers without '_'";
  return "";
}

static kp_status fail_size(kp_number_status status, const char *text, const char *holder, kp_error *error) {
  char word[EXCERPT];
  excerpt(text, word);
  return kp_fail(error, KP_ERR_INPUT, "%s is too %s for %s", word,
                 status == KP_NUMBER_TOO_LARGE ? "large" : "small", holder);
}

static kp_status check_range(const kp_config_row *row, const char *text, double value, kp_error *error) {
  kp_config_range range = kp_config_range_of(row);
  if (kp_config_range_holds(&range, value)) return KP_OK;
  char word[EXCERPT];
  excerpt(text, word);
  return kp_fail(error, KP_ERR_INPUT, "%s lies outside the range %s", word, row->allowed);
}

static kp_status read_integer(const kp_config_row *row, const kp_yaml_scalar *scalar, int64_t *value,
                              kp_error *error) {
  kp_number_status status = kp_number_integer(scalar->text, value);
  if (status == KP_NUMBER_MALFORMED)
    return fail_type("an integer", scalar, number_advice(scalar->text), error);
  if (status != KP_NUMBER_OK) return fail_size(status, scalar->text, "a 64-bit integer", error);
  return check_range(row, scalar->text, (double)*value, error);
}

static kp_status read_real(const kp_config_row *row, const kp_yaml_scalar *scalar, double *value,
                           kp_error *error) {
  kp_number_status status = kp_number_real(scalar->text, value);
  if (status == KP_NUMBER_MALFORMED)
    return fail_type("a real number", scalar, number_advice(scalar->text), error);
  if (status != KP_NUMBER_OK) return fail_size(status, scalar->text, "a double", error);
  return check_range(row, scalar->text, *value, error);
}

static kp_status read_boolean(const kp_yaml_scalar *scalar, bool *value, kp_error *error) {
  static const char *const yes[] = {"yes", "Yes", "YES", "y", "Y", "on", "On", "ON", "True", "TRUE", NULL};
  static const char *const no[] = {"no", "No", "NO", "n", "N", "off", "Off", "OFF", "False", "FALSE", NULL};
  *value = strcmp(scalar->text, "true") == 0;
  if (*value || strcmp(scalar->text, "false") == 0) return KP_OK;
  const char *advice = is_one_of(scalar->text, yes)  ? "; write true"
                       : is_one_of(scalar->text, no) ? "; write false"
                                                     : "";
  return fail_type("true or false", scalar, advice, error);
}

/* The nearest choice as a piece of a sentence, or nothing. */
static void suggest_choice(const kp_config_row *row, const char *typed, char out[EXCERPT]) {
  size_t length = 0, least = SIZE_MAX;
  const char *word;
  out[0] = 0;
  for (size_t i = 0; (word = kp_config_choice_word(row, i, &length)) != NULL; i++) {
    char choice[EXCERPT - 20];
    snprintf(choice, sizeof choice, "%.*s", (int)length, word);
    size_t distance = kp_edit_distance(typed, choice);
    if (distance >= least || !kp_edit_distance_is_near(distance, typed)) continue;
    least = distance;
    snprintf(out, EXCERPT, "; did you mean '%s'?", choice);
  }
}

static void list_choices(const kp_config_row *row, char *out, size_t size) {
  size_t used = 0, length = 0;
  const char *word;
  for (size_t i = 0; (word = kp_config_choice_word(row, i, &length)) != NULL && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%.*s", i ? ", " : "", (int)length, word);
}

static kp_status read_choice(const kp_config_row *row, const kp_yaml_scalar *scalar, int *value,
                             kp_error *error) {
  *value = kp_config_choice_find(row, scalar->text);
  if (*value >= 0) return KP_OK;
  char choices[512], found[EXCERPT + 32], suggestion[EXCERPT];
  list_choices(row, choices, sizeof choices);
  scalar_name(scalar, found, sizeof found);
  suggest_choice(row, scalar->text, suggestion);
  return kp_fail(error, KP_ERR_INPUT, "expected one of %s; found %s%s", choices, found, suggestion);
}

static kp_status fail_memory(kp_error *error) {
  return kp_fail(error, KP_ERR_MEMORY, "not enough memory for the value");
}

static kp_status read_text(const kp_yaml_scalar *scalar, char **value, kp_error *error) {
  if (kp_yaml_is_null(scalar)) return fail_type("a text", scalar, "; write \"\" for the empty text", error);
  *value = strdup(scalar->text);
  return *value == NULL ? fail_memory(error) : KP_OK;
}

static kp_status read_item(const kp_config_row *row, const kp_yaml_entry *entry, size_t index,
                           kp_config_value *value, kp_error *error) {
  const kp_yaml_scalar *item = &entry->items[index];
  kp_status status = row->type == KP_CONFIG_REALS ? read_real(row, item, &value->reals[index], error)
                     : row->type == KP_CONFIG_INTEGERS
                         ? read_integer(row, item, &value->integers[index], error)
                         : read_text(item, &value->texts[index], error);
  return status == KP_OK ? KP_OK : kp_context(error, "item %zu", index + 1);
}

static kp_status read_list(const kp_config_row *row, const kp_yaml_entry *entry, kp_config_value *value,
                           kp_error *error) {
  /* One more than needed: an empty list is a pointer too. */
  if (row->type == KP_CONFIG_REALS) {
    value->reals = calloc(entry->count + 1, sizeof *value->reals);
    if (value->reals == NULL) return fail_memory(error);
  } else if (row->type == KP_CONFIG_TEXTS) {
    value->texts = calloc(entry->count + 1, sizeof *value->texts);
    if (value->texts == NULL) return fail_memory(error);
  } else {
    value->integers = calloc(entry->count + 1, sizeof *value->integers);
    if (value->integers == NULL) return fail_memory(error);
  }
  value->count = entry->count;
  for (size_t i = 0; i < entry->count; i++) KP_TRY(read_item(row, entry, i, value, error));
  return KP_OK;
}

static bool is_list(const kp_config_row *row) {
  return row->type >= KP_CONFIG_REALS;
}

static kp_status check_kind(const kp_config_row *row, const kp_yaml_entry *entry, kp_error *error) {
  const bool wants_list = is_list(row);
  if (entry->kind == (wants_list ? KP_YAML_LIST : KP_YAML_SCALAR)) return KP_OK;
  char found[EXCERPT + 32];
  kp_config_entry_name(entry, found, sizeof found);
  return kp_fail(error, KP_ERR_INPUT, "expected %s, found %s%s", kp_config_type_name(row->type), found,
                 !wants_list                    ? ""
                 : row->type == KP_CONFIG_TEXTS ? "; write it as [one, \"two\"]"
                                                : "; write it as [1, 2]");
}

static kp_status read_typed(const kp_config_row *row, const kp_yaml_entry *entry, kp_config_value *value,
                            kp_error *error) {
  KP_TRY(check_kind(row, entry, error));
  switch (row->type) {
  case KP_CONFIG_INTEGER: return read_integer(row, &entry->items[0], &value->integer, error);
  case KP_CONFIG_REAL: return read_real(row, &entry->items[0], &value->real, error);
  case KP_CONFIG_BOOLEAN: return read_boolean(&entry->items[0], &value->boolean, error);
  case KP_CONFIG_STRING: return read_text(&entry->items[0], &value->text, error);
  case KP_CONFIG_CHOICE: return read_choice(row, &entry->items[0], &value->choice, error);
  case KP_CONFIG_REALS:
  case KP_CONFIG_INTEGERS:
  case KP_CONFIG_TEXTS: return read_list(row, entry, value, error);
  }
  kp_assert(false, "%s: type %d", row->key, (int)row->type);
  return KP_ERR_INPUT;
}

kp_status kp_config_value_read(const kp_config_row *row, const kp_yaml_entry *entry, kp_config_value *value,
                               kp_error *error) {
  *value = (kp_config_value){.row = row, .is_present = true};
  kp_status status = read_typed(row, entry, value, error);
  if (status != KP_OK) kp_config_value_clear(value);
  return status;
}

static kp_status read_fallback(const kp_config_row *row, kp_config_value *value, kp_error *error) {
  if (is_list(row)) {
    kp_yaml_document document = {0};
    KP_TRY(kp_yaml_read_value(row->key, row->fallback, &document, error));
    kp_status status = kp_config_value_read(row, &document.entries[0], value, error);
    kp_yaml_clear(&document);
    return status;
  }
  /* The entry is only read, so that it may point to the constant. */
  kp_yaml_scalar scalar = {.text = (char *)row->fallback, .quoted = true};
  kp_yaml_entry entry = {.kind = KP_YAML_SCALAR, .items = &scalar, .count = 1};
  return kp_config_value_read(row, &entry, value, error);
}

kp_status kp_config_value_default(const kp_config_row *row, kp_config_value *value, kp_error *error) {
  *value = (kp_config_value){.row = row};
  if (row->fallback == NULL) return KP_OK;
  kp_error reason = {0};
  kp_status status = read_fallback(row, value, &reason);
  kp_assert(status == KP_OK || status == KP_ERR_MEMORY, "default of %s: %s", row->key, reason.message);
  return status == KP_OK ? KP_OK : fail_memory(error);
}

void kp_config_value_clear(kp_config_value *value) {
  if (value->row == NULL) return;
  switch (value->row->type) {
  case KP_CONFIG_STRING: free(value->text); break;
  case KP_CONFIG_REALS: free(value->reals); break;
  case KP_CONFIG_INTEGERS: free(value->integers); break;
  case KP_CONFIG_TEXTS:
    for (size_t i = 0; value->texts != NULL && i < value->count; i++) free(value->texts[i]);
    free(value->texts);
    break;
  default: break;
  }
  *value = (kp_config_value){0};
}
