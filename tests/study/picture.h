/* Checks that a file is a picture. */
#ifndef KAPPA_TESTS_STUDY_PICTURE_H
#define KAPPA_TESTS_STUDY_PICTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/check.h"

/* The whole file with a zero behind it; the caller frees it. */
static inline char *picture_read(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail_msg("there is no %s", path);
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  char *data = calloc(*size + 1, 1);
  assert_non_null(data);
  assert_int_equal(fread(data, 1, *size, file), *size);
  fclose(file);
  return data;
}

static inline void check_png(const char *path) {
  size_t size;
  char *data = picture_read(path, &size);
  assert_true(size > 1024);
  assert_memory_equal(data, "\x89PNG\r\n\x1a\n", 8);
  assert_memory_equal(data + size - 8, "IEND", 4);
  free(data);
}

/* An SVG that is whole and holds `words`, if any. */
static inline void check_svg(const char *path, const char *words) {
  size_t size;
  char *data = picture_read(path, &size);
  assert_true(size > 1024);
  assert_non_null(strstr(data, "<svg"));
  assert_non_null(strstr(data, "</svg>"));
  if (words != NULL && strstr(data, words) == NULL) fail_msg("%s lacks '%s'", path, words);
  free(data);
}

#endif
