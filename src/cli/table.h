/* Tables for terminals: columns as wide as their widest cell, numbers to the right.
 *
 * Widths count characters, not bytes, so that κ and ± stand in line. */
#ifndef KAPPA_CLI_TABLE_H
#define KAPPA_CLI_TABLE_H

#include <stdbool.h>
#include <stdio.h>

enum { KP_TABLE_COLUMNS = 16, KP_TABLE_CELL = 200 };

typedef struct kp_table {
  int columns, count, capacity; /* count: of cells */
  bool left[KP_TABLE_COLUMNS];  /* this column stands to the left */
  char (*cells)[KP_TABLE_CELL];
} kp_table;

/* A table whose first row are these titles, closed by NULL; one that begins with '<' stands to the left. */
void kp_table_begin(kp_table *table, const char *const *titles);
/* The next cell, row by row (printf format). */
void kp_table_cell(kp_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints it and frees its memory. */
void kp_table_print(kp_table *table, FILE *out);

#endif
