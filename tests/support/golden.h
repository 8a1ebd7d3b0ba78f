/* Reads a safetensors file of reference numbers for a test, every array as double.
 *
 * Deliberately small and separate from the library's reader, so that the numbers which referee the
 * library do not pass through it.  A fault of the file fails the running test. */
#ifndef KAPPA_TESTS_GOLDEN_H
#define KAPPA_TESTS_GOLDEN_H

#include <stddef.h>

#define GOLDEN_MAX_DIMENSIONS 8

typedef struct golden_array {
  char *name;
  size_t count; /* product of the shape */
  int dimensions;
  size_t shape[GOLDEN_MAX_DIMENSIONS];
  double *data;
} golden_array;

typedef struct golden {
  size_t count;
  golden_array *arrays;
} golden;

/* `path` is relative to tests/goldens and names the folder, e.g. "stereographic/midpoint". */
golden *golden_open(const char *path);
void golden_close(golden *file);

/* The array of that name (printf format), or NULL. */
const golden_array *golden_look(const golden *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same; the test fails when there is none. */
const golden_array *golden_find(const golden *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
