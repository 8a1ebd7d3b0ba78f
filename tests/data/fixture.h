/* A fresh folder in /tmp for each test, removed afterwards, and files in it. */
#ifndef KAPPA_TESTS_DATA_FIXTURE_H
#define KAPPA_TESTS_DATA_FIXTURE_H

#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/directory.h"

typedef struct fixture {
  char folder[64];
  char path[32][KP_PATH_SIZE];
  int next;
} fixture;

static inline int fixture_setup(void **state) {
  fixture *made = calloc(1, sizeof *made);
  if (made == NULL) return -1;
  strcpy(made->folder, "/tmp/kappa-data-XXXXXX");
  *state = made;
  return mkdtemp(made->folder) == NULL ? -1 : 0;
}

static inline int fixture_teardown(void **state) {
  fixture *made = *state;
  kp_error error = {0};
  kp_status status = kp_directory_remove_tree(made->folder, &error);
  free(made);
  return status == KP_OK ? 0 : -1;
}

/* The path of a name in the folder; the last 32 results stay valid. */
static inline const char *fixture_path(fixture *made, const char *name) {
  char *path = made->path[made->next++ % 32];
  kp_error error = {0};
  check_ok(kp_path_join(path, made->folder, name, &error), &error);
  return path;
}

/* Writes a file of the folder and returns its path. */
static inline const char *fixture_write(fixture *made, const char *name, const void *data, size_t size) {
  const char *path = fixture_path(made, name);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  return path;
}

/* The whole file as a string that the caller frees. */
static inline char *fixture_read(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  assert_int_equal(fseek(file, 0, SEEK_END), 0);
  *size = (size_t)ftell(file);
  rewind(file);
  char *data = malloc(*size + 1);
  assert_non_null(data);
  assert_int_equal(fread(data, 1, *size, file), *size);
  data[*size] = 0;
  fclose(file);
  return data;
}

/* Fails unless the message holds the words. */
#define check_words(error, words)                                                                            \
  do {                                                                                                       \
    if (strstr((error)->message, words) == NULL) fail_msg("'%s' is not in '%s'", words, (error)->message);   \
  } while (0)

#define with_fixture(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

#endif
