#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"

static char *next_cell(kp_table *table) {
  if (table->count == table->capacity) {
    table->capacity = table->capacity == 0 ? 64 : 2 * table->capacity;
    table->cells = realloc(table->cells, (size_t)table->capacity * sizeof *table->cells);
    kp_assert(table->cells != NULL, "out of memory");
  }
  return table->cells[table->count++];
}

void kp_table_begin(kp_table *table, const char *const *titles) {
  *table = (kp_table){0};
  for (; titles[table->columns] != NULL; table->columns++) {
    const char *title = titles[table->columns];
    kp_assert(table->columns < KP_TABLE_COLUMNS, "a table has at most %d columns", KP_TABLE_COLUMNS);
    table->left[table->columns] = title[0] == '<';
    snprintf(next_cell(table), KP_TABLE_CELL, "%s", title + table->left[table->columns]);
  }
}

void kp_table_cell(kp_table *table, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(next_cell(table), KP_TABLE_CELL, format, arguments);
  va_end(arguments);
}

/* Characters of UTF-8. */
static int width_of(const char *text) {
  int width = 0;
  for (; *text != 0; text++) width += (*text & 0xc0) != 0x80;
  return width;
}

static void print_cell(const char *text, int width, bool left, bool last, FILE *out) {
  const int space = width - width_of(text);
  if (!left) fprintf(out, "%*s", space, "");
  fputs(text, out);
  if (last)
    fputc('\n', out);
  else
    fprintf(out, "%*s", (left ? space : 0) + 2, "");
}

void kp_table_print(kp_table *table, FILE *out) {
  int widths[KP_TABLE_COLUMNS] = {0};
  for (int i = 0; i < table->count; i++) {
    const int width = width_of(table->cells[i]), column = i % table->columns;
    if (width > widths[column]) widths[column] = width;
  }
  for (int i = 0; i < table->count; i++) {
    const int column = i % table->columns;
    print_cell(table->cells[i], widths[column], table->left[column], column == table->columns - 1, out);
  }
  free(table->cells);
  *table = (kp_table){0};
}
