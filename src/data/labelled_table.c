/* Tables: one example a line, columns between tabs. */
#include <string.h>

#include "core/number.h"
#include "data/labelled_text.h"

enum { COLUMNS_MOST = 256 };

typedef struct field {
  const char *text;
  size_t size;
} field;

/* The columns of a line. */
typedef struct row {
  field fields[COLUMNS_MOST];
  size_t count;
} row;

/* Places of the parts, from 0; -1: not there. */
typedef struct places {
  int64_t text, second, label;
  bool header;
  size_t columns; /* that each line must have; 0: enough for the places */
} places;

static kp_status split(const kp_labelled_line *line, row *columns, kp_error *error) {
  const char *at = line->text, *end = line->text + line->size;
  columns->count = 0;
  for (;;) {
    const char *tab = memchr(at, '\t', (size_t)(end - at));
    if (columns->count == COLUMNS_MOST)
      return kp_fail(error, KP_ERR_INPUT, "line %zu has more than %d columns", line->number, COLUMNS_MOST);
    columns->fields[columns->count++] = (field){at, (size_t)((tab == NULL ? end : tab) - at)};
    if (tab == NULL) return KP_OK;
    at = tab + 1;
  }
}

/* ---- which columns ---- */

static int64_t place_of(const row *header, const char *name) {
  for (size_t i = 0; name != NULL && i < header->count; i++)
    if (header->fields[i].size == strlen(name) && memcmp(header->fields[i].text, name, strlen(name)) == 0)
      return (int64_t)i;
  return -1;
}

static bool has_column(const void *context, const char *name) {
  return place_of(context, name) >= 0;
}

static kp_status places_by_name(const kp_labelled_format *format, const row *header, places *found,
                                kp_error *error) {
  kp_labelled_names names;
  KP_TRY(kp_labelled_find_names(format, has_column, header, &names, error));
  *found = (places){.text = place_of(header, names.text),
                    .second = place_of(header, names.second),
                    .label = place_of(header, names.label),
                    .header = true,
                    .columns = header->count};
  return KP_OK;
}

static bool is_number(const char *name, int64_t *number) {
  return name != NULL && kp_number_integer(name, number) == KP_NUMBER_OK;
}

/* Numbers for all that is asked for, and the header need not be read.  Places are numbers less one. */
static kp_status places_by_number(const kp_labelled_format *format, places *found, bool *numbers,
                                  kp_error *error) {
  int64_t text = 0, second = 0, label = 0;
  const bool pair = format->second != NULL;
  *numbers = is_number(format->text, &text) && is_number(format->label, &label) &&
             (!pair || is_number(format->second, &second));
  if (!*numbers) return KP_OK;
  if (text < 1 || label < 1 || (pair && second < 1) || text > COLUMNS_MOST || label > COLUMNS_MOST ||
      second > COLUMNS_MOST)
    return kp_fail(error, KP_ERR_INPUT, "columns are numbered from 1 to %d", COLUMNS_MOST);
  *found = (places){.text = text - 1, .second = second - 1, .label = label - 1, .header = format->header};
  return KP_OK;
}

static kp_status find_places(const kp_labelled_format *format, const row *first, places *found,
                             kp_error *error) {
  bool numbers;
  KP_TRY(places_by_number(format, found, &numbers, error));
  if (numbers) return KP_OK;
  if (places_by_name(format, first, found, error) == KP_OK) return KP_OK;
  return kp_context(error, "the header in line 1");
}

/* ---- the rows ---- */

static kp_status check_count(const row *columns, const places *where, kp_error *error) {
  const int64_t text = where->text > where->second ? where->text : where->second;
  const size_t needed = (size_t)(text > where->label ? text : where->label) + 1;
  if (where->columns > 0 && columns->count != where->columns)
    return kp_fail(error, KP_ERR_INPUT, "it has %zu columns, the header has %zu", columns->count,
                   where->columns);
  if (columns->count < needed)
    return kp_fail(error, KP_ERR_INPUT, "it has %zu columns, column %zu is asked for", columns->count,
                   needed);
  return KP_OK;
}

static kp_status add_row(kp_labelled_texts *texts, const row *columns, const places *where,
                         const kp_labelled_line *line, const char *path, kp_error *error) {
  KP_TRY(check_count(columns, where, error));
  const field *label = &columns->fields[where->label];
  const char *text[2] = {columns->fields[where->text].text, NULL};
  size_t size[2] = {columns->fields[where->text].size, 0};
  if (where->second >= 0) {
    text[1] = columns->fields[where->second].text;
    size[1] = columns->fields[where->second].size;
  }
  return kp_labelled_add_sentences(texts, text, size, label->text, label->size, line, path, error);
}

kp_status kp_labelled_parse_table(kp_labelled_texts *texts, const kp_labelled_format *format,
                                  const char *path, char *data, size_t size, kp_error *error) {
  char *at = data;
  kp_labelled_line line = {0};
  row columns;
  places where = {0};
  bool found = false;
  while (kp_labelled_next_line(&at, data + size, &line)) {
    if (line.size == 0) continue;
    KP_TRY(split(&line, &columns, error));
    if (!found) {
      KP_TRY(find_places(format, &columns, &where, error));
      found = true;
      if (where.header) continue;
    }
    if (add_row(texts, &columns, &where, &line, path, error) != KP_OK)
      return kp_context(error, "line %zu", line.number);
  }
  return KP_OK;
}
